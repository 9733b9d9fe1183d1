"""Reads of events for people: a page of them. Nothing here writes."""

from __future__ import annotations

from nodes.anchoring.event_store import event_rows
from nodes.anchoring.events import EventRow
from nodes.anchoring.queries import AnyConnection


def find_events(
    connection: AnyConnection,
    *,
    limit: int,
    before: int | None = None,
    kind: str | None = None,
    action: str | None = None,
    subject: str | None = None,
    card_token: bytes | None = None,
) -> list[EventRow]:
    """Events, the newest first, by their kind, action, subject and card."""
    return event_rows(
        connection,
        "WHERE (%(before)s::bigint IS NULL OR e.event_id < %(before)s)"
        " AND (%(kind)s::text IS NULL OR e.kind = %(kind)s)"
        " AND (%(action)s::text IS NULL OR e.action = %(action)s)"
        " AND (%(subject)s::text IS NULL OR e.subject = %(subject)s)"
        " AND (%(card)s::bytea IS NULL OR e.card_token = %(card)s)"
        " ORDER BY e.event_id DESC LIMIT %(limit)s",
        {
            "before": before,
            "kind": kind,
            "action": action,
            "subject": subject,
            "card": card_token,
            "limit": limit,
        },
    )
