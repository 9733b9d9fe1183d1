"""Issue a card."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Engine

from nodes.cards import store
from nodes.cards.model import CardOutcome, CardStatus, IssuedCard, Making
from nodes.cards.personalizing import Made, personalize
from nodes.cards.rules import check_making, check_new_card
from nodes.crypto.emv import EmvHsm, EmvKeysMissing
from nodes.crypto.hsm import Hsm
from nodes.crypto.pan import PanVault, mask, random_pan
from nodes.db.engine import transaction
from nodes.ledger.model import AccountKey
from nodes.ledger.store import find_or_open_accounts

_ATTEMPTS = 8
#: A card that has nothing but its number.
PLAIN = Making()
#: The plain reloadable card; every database has it.
STANDARD_PRODUCT = "standard"


def issue_card(
    engine: Engine,
    vault: PanVault,
    hsm: Hsm,
    *,
    bins: Sequence[str],
    currency: str,
    expiry: str,
    service_code: str,
    pin: str | None,
    actor: str,
    now: datetime,
    pan: str | None = None,
    reason: str = "issued",
    product_id: str = STANDARD_PRODUCT,
    making: Making = PLAIN,
    emv: EmvHsm | None = None,
    idempotency_key: str | None = None,
) -> IssuedCard | CardOutcome:
    """Issue an active card of a product, with an account of its own; with a key, once for each.

    The account begins without a version: the product's terms say which purses it has (ADR 8).
    `pan` None: a random number in the first of `bins` is drawn. A number is never issued twice.
    `making`: what else it is made as; then `emv` holds the keys.
    """
    problem = check_new_card(pan, expiry, service_code, pin, bins)
    if problem is CardOutcome.DONE:
        problem = check_making(making, service_code)
    if problem is not CardOutcome.DONE:
        return problem
    card_token = secrets.token_bytes(16)
    if idempotency_key is not None:
        # The key names the card, so a repeat finds it whatever became of the first answer.
        card_token = vault.lookup(f"issue {idempotency_key}")[:16]
    pin_lookup = hsm.pin_lookup(card_token, pin) if pin is not None else None
    for _ in range(_ATTEMPTS):
        number = pan or random_pan(bins[0])
        try:
            made = personalize(emv, making, number, expiry, service_code)
        except EmvKeysMissing:
            return CardOutcome.KEYS_MISSING
        with transaction(engine) as connection:
            known = None
            if idempotency_key is not None:
                known = store.find_issued(connection, card_token)
            if known is not None:
                asked = (currency, expiry, service_code, product_id, pin_lookup, made.entry)
                if asked != known[2:]:
                    return CardOutcome.KEY_REUSED
                stands = vault.open(known.pan_sealed, card_token)
                if pan not in (None, stands):
                    return CardOutcome.KEY_REUSED
                made = personalize(emv, making, stands, expiry, service_code)
                return _issued(card_token, stands, expiry, known.account_id, made)
            if not store.has_product(connection, product_id):
                return CardOutcome.PRODUCT_UNKNOWN
            key = AccountKey("cardholder", card_token.hex(), currency)
            account_id = find_or_open_accounts(connection, [key], now)[key]
            inserted = store.insert_card(
                connection,
                card_token=card_token,
                account_id=account_id,
                pan_lookup=vault.lookup(number),
                pan_sealed=vault.seal(number, card_token),
                pan_masked=mask(number),
                expiry=expiry,
                service_code=service_code,
                status=CardStatus.ACTIVE.value,
                pin_lookup=pin_lookup,
                product_id=product_id,
                issued_at=now,
                entry=made.entry,
            )
            if inserted:
                store.record_event(connection, card_token, "issued", actor, reason, now)
                return _issued(card_token, number, expiry, account_id, made)
            connection.rollback()
        if pan is not None:
            return CardOutcome.PAN_TAKEN
    return CardOutcome.PAN_TAKEN


def _issued(token: bytes, pan: str, expiry: str, account_id: int, made: Made) -> IssuedCard:
    return IssuedCard(token, pan, mask(pan), expiry, account_id, made.sealed, made.cvv2)
