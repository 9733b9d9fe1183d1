"""Register merchants and terminals."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Engine

from nodes.acquiring import store
from nodes.acquiring.model import AcquiringOutcome, Merchant
from nodes.acquiring.rules import check_merchant, check_terminal_id
from nodes.db.engine import transaction
from nodes.ledger.model import AccountKey
from nodes.ledger.store import find_or_open_accounts


def register_merchant(engine: Engine, merchant: Merchant, *, now: datetime) -> AcquiringOutcome:
    """Add a merchant with its account."""
    with transaction(engine) as connection:
        outcome = add_merchant(connection, merchant, now=now)
        if outcome is not AcquiringOutcome.DONE:
            connection.rollback()
    return outcome


def add_merchant(
    connection: store.Connection, merchant: Merchant, *, now: datetime
) -> AcquiringOutcome:
    """The same in the caller's transaction, which stands only if this is done."""
    problem = check_merchant(merchant)
    if problem is not AcquiringOutcome.DONE:
        return problem
    key = AccountKey("merchant", merchant.merchant_id, merchant.currency)
    account_id = find_or_open_accounts(connection, [key], now)[key]
    if not store.insert_merchant(connection, merchant, account_id):
        return AcquiringOutcome.TAKEN
    return AcquiringOutcome.DONE


def register_terminal(engine: Engine, terminal_id: str, merchant_id: str) -> AcquiringOutcome:
    """Add a terminal to a merchant; its sequence starts at 1."""
    problem = check_terminal_id(terminal_id)
    if problem is not AcquiringOutcome.DONE:
        return problem
    with transaction(engine) as connection:
        if not store.merchant_exists(connection, merchant_id):
            return AcquiringOutcome.MERCHANT_UNKNOWN
        if not store.insert_terminal(connection, terminal_id, merchant_id):
            return AcquiringOutcome.TAKEN
    return AcquiringOutcome.DONE
