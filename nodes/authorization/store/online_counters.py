"""SQL of the counters with which chips asked online at the acquirer's terminals. Callers own the
transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from typing import NamedTuple

from nodes.authorization.store.acquirer import Connection
from nodes.db.writes import Writes, append_rows

_TYPES = {
    "card_lookup": "bytea",
    "atc": "bigint",
    "idempotency_key": "bytea",
    "business_date": "date",
}
#: A card, under the acquirer's keyed hash, and a value of its chip's counter.
Counted = tuple[bytes, int]


class OnlineCounter(NamedTuple):
    """One request of a chip: the card under the acquirer's keyed hash, its counter, its key."""

    card_lookup: bytes
    atc: int
    key: bytes
    business_date: date


def append_online_counters(writes: Writes, rows: Sequence[OnlineCounter]) -> None:
    """Append with the requests themselves."""
    append_rows(writes, "online_counters", _TYPES, rows)


def asked_online(connection: Connection, wanted: Iterable[Counted]) -> list[OnlineCounter]:
    """The requests under these counters."""
    named = sorted(set(wanted))
    rows = connection.execute(
        "SELECT c.card_lookup, c.atc, c.idempotency_key, c.business_date FROM online_counters AS c"
        " JOIN unnest(%b::bytea[], %s::bigint[]) AS w (card_lookup, atc) USING (card_lookup, atc)",
        ([lookup for lookup, _ in named], [atc for _, atc in named]),
    ).fetchall()
    return [OnlineCounter(*row) for row in rows]
