"""Issue a card; change its status."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Engine

from nodes.cards import store
from nodes.cards.model import CardOutcome, CardStatus, IssuedCard
from nodes.cards.rules import check_new_card, may_change
from nodes.crypto.hsm import Hsm
from nodes.crypto.pan import PanVault, mask, random_pan
from nodes.db.engine import transaction
from nodes.ledger.model import AccountKey
from nodes.ledger.store import find_or_open_accounts

_ATTEMPTS = 8


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
) -> IssuedCard | CardOutcome:
    """Issue an active card with an account of its own.

    `pan` None: a random number in the first of `bins` is drawn. A number is never issued twice.
    """
    problem = check_new_card(pan, expiry, service_code, pin, bins)
    if problem is not CardOutcome.DONE:
        return problem
    card_token = secrets.token_bytes(16)
    for _ in range(_ATTEMPTS):
        number = pan or random_pan(bins[0])
        with transaction(engine) as connection:
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
                pin_lookup=hsm.pin_lookup(card_token, pin) if pin is not None else None,
                issued_at=now,
            )
            if inserted:
                store.record_event(connection, card_token, "issued", actor, reason, now)
                return IssuedCard(card_token, number, mask(number), expiry, account_id)
            connection.rollback()
        if pan is not None:
            return CardOutcome.PAN_TAKEN
    return CardOutcome.PAN_TAKEN


def set_status(
    engine: Engine, card_token: bytes, wanted: CardStatus, *, actor: str, reason: str, now: datetime
) -> CardOutcome:
    """Change a card's status where the transition is allowed; keeps who and why."""
    with transaction(engine) as connection:
        current = store.lock_status(connection, card_token)
        if current is None:
            return CardOutcome.CARD_UNKNOWN
        if not may_change(CardStatus(current), wanted):
            return CardOutcome.TRANSITION_REFUSED
        store.write_status(connection, card_token, wanted.value)
        store.record_event(connection, card_token, wanted.value, actor, reason, now)
    return CardOutcome.DONE
