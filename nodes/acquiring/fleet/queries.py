"""Reads of the fleet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import Connection, text

from nodes.acquiring.fleet.model import FleetRecord, Parameters

Row = Mapping[str, Any]

_TERMINALS = """
    SELECT t.terminal_id, t.merchant_id, m.name AS merchant_name, m.currency, t.status, t.last_seq,
           f.record, s.gateway, s.last_seen_ms, s.last_sign_on_ms, s.batch
    FROM terminals t JOIN merchants m USING (merchant_id)
    LEFT JOIN fleet_terminals f USING (terminal_id)
    LEFT JOIN terminal_sightings s USING (terminal_id)
"""


#: A retired terminal is disabled for the path of payments, and more than that for people.
_RETIRED = "coalesce((f.record->>'retired')::boolean, false)"
_STATUS = {
    None: "true",
    "active": "t.status = :status",
    "disabled": f"t.status = :status AND NOT {_RETIRED}",
    "retired": _RETIRED,
}


def find_terminals(
    connection: Connection,
    *,
    limit: int,
    after: str | None = None,
    merchant_id: str | None = None,
    status: str | None = None,
    store: str | None = None,
) -> list[Row]:
    """Terminals in the order of their ids; `after`: only greater ids (the next page)."""
    wanted = {
        _STATUS[status]: status,
        "t.terminal_id > :after": after,
        "t.merchant_id = :merchant_id": merchant_id,
        "f.store = :store": store,
    }
    conditions = [condition for condition, value in wanted.items() if value is not None]
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    rows = connection.execute(
        text(f"{_TERMINALS}{where} ORDER BY t.terminal_id LIMIT :limit"),
        {
            "after": after,
            "merchant_id": merchant_id,
            "status": status,
            "store": store,
            "limit": limit,
        },
    )
    return [dict(row) for row in rows.mappings()]


def terminal(connection: Connection, terminal_id: str) -> Row | None:
    """One terminal, as in the list."""
    row = connection.execute(text(_TERMINALS + " WHERE t.terminal_id = :it"), {"it": terminal_id})
    found = row.mappings().first()
    return None if found is None else dict(found)


def key_checks(connection: Connection, terminal_id: str) -> list[Row]:
    """The check values that gateways reported of its master keys, the newest generation first."""
    rows = connection.execute(
        text(
            "SELECT generation, check_value, gateway, reported_ms FROM terminal_key_checks"
            " WHERE terminal_id = :it ORDER BY generation DESC, reported_ms"
        ),
        {"it": terminal_id},
    )
    return [dict(row) for row in rows.mappings()]


def history(
    connection: Connection, terminal_id: str, *, limit: int, before: int | None = None
) -> list[Row]:
    """A terminal's changes, the newest first."""
    rows = connection.execute(
        text(
            "SELECT change_id, kind, record, actor, reason, changed_ms FROM terminal_changes"
            " WHERE terminal_id = :it AND (CAST(:before AS bigint) IS NULL OR change_id < :before)"
            " ORDER BY change_id DESC LIMIT :limit"
        ),
        {"it": terminal_id, "before": before, "limit": limit},
    )
    return [dict(row) for row in rows.mappings()]


def changed_since(connection: Connection, after: int, limit: int) -> list[FleetRecord]:
    """The present records of terminals that changed after a number, in the order of the number.

    A terminal of a merchant that is suspended isn't enabled, whatever its own record says.
    """
    rows = connection.execute(
        text(
            "SELECT f.record, m.status = 'active' AS trading FROM fleet_terminals f"
            " JOIN terminals t USING (terminal_id) JOIN merchants m USING (merchant_id)"
            " WHERE f.change_id > :after ORDER BY f.change_id LIMIT :limit"
        ),
        {"after": after, "limit": limit},
    )
    records = []
    for row in rows:
        record = msgspec.convert(row.record, FleetRecord)
        if not row.trading:
            record = msgspec.structs.replace(record, enabled=False)
        records.append(record)
    return records


def terminal_parameters(connection: Connection, terminal_id: str) -> tuple[int, Parameters] | None:
    """What a terminal downloads, with its version; None if the terminal is unknown."""
    row = terminal(connection, terminal_id)
    if row is None:
        return None
    if row["record"] is None:
        return 0, Parameters(currency=row["currency"])
    record = msgspec.convert(row["record"], FleetRecord)
    return record.parameters_version, record.parameters


def authorities(connection: Connection, *, limit: int, after: str | None = None) -> list[Row]:
    """Who certifies terminals, or did, in the order of their fingerprints."""
    rows = connection.execute(
        text(
            "SELECT fingerprint, subject, status, not_after_ms, created_by, created_ms"
            " FROM terminal_authorities WHERE CAST(:after AS text) IS NULL OR fingerprint > :after"
            " ORDER BY fingerprint LIMIT :limit"
        ),
        {"after": after, "limit": limit},
    )
    return [dict(row) for row in rows.mappings()]
