"""Reads of cards, with their accounts' names. No card number leaves but masked.

What is on an account, and what is left of a card's PIN tries, is in the account's last version
(nodes.authorization.queries).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, select

from nodes.cards.tables import card_events, cards
from nodes.ledger.tables import accounts

Row = Mapping[str, Any]

_CARD_WITH_ACCOUNT = select(
    *cards.c,
    accounts.c.currency,
    accounts.c.owner,
).join(accounts, accounts.c.account_id == cards.c.account_id)


def find_cards(
    connection: Connection, *, limit: int, before: int | None = None, status: str | None = None
) -> list[Row]:
    """The newest first; `before`: only cards with a smaller card_id (the next page)."""
    query = _CARD_WITH_ACCOUNT
    if before is not None:
        query = query.where(cards.c.card_id < before)
    if status is not None:
        query = query.where(cards.c.status == status)
    query = query.order_by(cards.c.card_id.desc()).limit(limit)
    return [dict(row) for row in connection.execute(query).mappings()]


def card(connection: Connection, card_token: bytes) -> Row | None:
    """One card with its account; None if there is none of this token."""
    query = _CARD_WITH_ACCOUNT.where(cards.c.card_token == card_token)
    row = connection.execute(query).mappings().first()
    return None if row is None else dict(row)


def cards_of(connection: Connection, account_ids: Sequence[int]) -> list[Row]:
    """The cards of these accounts, by card_id."""
    query = select(*cards.c).where(cards.c.account_id.in_(account_ids)).order_by(cards.c.card_id)
    return [dict(row) for row in connection.execute(query).mappings()]


def events_of(connection: Connection, card_token: bytes, *, limit: int = 100) -> list[Row]:
    """A card's history, the newest first."""
    query = (
        select(
            card_events.c.event,
            card_events.c.actor,
            card_events.c.reason,
            card_events.c.occurred_at,
        )
        .where(card_events.c.card_token == card_token)
        .order_by(card_events.c.card_event_id.desc())
        .limit(limit)
    )
    return [dict(row) for row in connection.execute(query).mappings()]
