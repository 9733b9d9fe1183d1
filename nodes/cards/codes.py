"""Consumers' codes: single-use numbers that a wallet shows as a QR code, good for 60 seconds.

A code's number looks like a card number of 19 digits in the issuer's range, so it takes the way of
one through terminals, acquirer and network; only the issuer knows whose it is. Where it is used,
the account's version says so (nodes/authorization/rules/entry.py): never twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Engine

from nodes.cards.model import CardOutcome
from nodes.crypto.pan import PanVault, derived_pan, random_pan
from nodes.db.engine import transaction
from nodes.emv.qr import ConsumerCode, encode_consumer

LIFETIME_MS = 60_000
_DIGITS = 19
_ATTEMPTS = 8
#: Expired ones are kept so long, that a late scan is told what is wrong.
_KEPT_MS = 86_400_000
_FORGOTTEN_AT_ONCE = 100


class IssuedCode(NamedTuple):
    """A code as the wallet shows it; repr doesn't."""

    payload: str
    expires_ms: int

    def __repr__(self) -> str:
        return f"IssuedCode(expires_ms={self.expires_ms})"


def issue_code(
    engine: Engine,
    vault: PanVault,
    *,
    card_token: bytes,
    bins: Sequence[str],
    now_ms: int,
    idempotency_key: str | None = None,
) -> IssuedCode | CardOutcome:
    """A new code of a card. Several may be out; the use of one voids those issued before it.

    With a key a repeat gets the same code, used or expired, for a day: the key makes its number.
    """
    expires_ms = now_ms + LIFETIME_MS
    with transaction(engine) as connection:
        card = connection.execute(
            "SELECT expiry, service_code FROM cards WHERE card_token = %s", (card_token,)
        ).fetchone()
        if card is None:
            return CardOutcome.CARD_UNKNOWN
        connection.execute(
            "DELETE FROM consumer_codes WHERE code_lookup IN (SELECT code_lookup FROM"
            " consumer_codes WHERE expires_ms < %s LIMIT %s)",
            (now_ms - _KEPT_MS, _FORGOTTEN_AT_ONCE),
        )
        for attempt in range(_ATTEMPTS):
            if idempotency_key is None:
                number = random_pan(bins[0], _DIGITS)
            else:
                mark = vault.lookup(f"code {attempt} {idempotency_key}")
                number = derived_pan(bins[0], mark, _DIGITS)
            lookup = vault.lookup(number)
            done = connection.execute(
                "INSERT INTO consumer_codes (code_lookup, card_token, number, expires_ms)"
                " SELECT %s, %s, nextval('consumer_code_numbers'), %s"
                " WHERE NOT EXISTS (SELECT FROM cards WHERE pan_lookup = %s)"
                " ON CONFLICT (code_lookup) DO NOTHING",
                (lookup, card_token, expires_ms, lookup),
            )
            if done.rowcount == 1:
                return IssuedCode(encode_consumer(ConsumerCode(number, *card)), expires_ms)
            known = connection.execute(
                "SELECT card_token, expires_ms FROM consumer_codes WHERE code_lookup = %s",
                (lookup,),
            ).fetchone()
            if idempotency_key is not None and known is not None:
                if known[0] != card_token:
                    return CardOutcome.KEY_REUSED
                return IssuedCode(encode_consumer(ConsumerCode(number, *card)), known[1])
    return CardOutcome.PAN_TAKEN
