"""SQL that writes the fleet. Callers own the transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import psycopg
from psycopg.types.json import Jsonb

from nodes.acquiring.fleet.model import (
    ChangeKind,
    FleetRecord,
    Parameters,
    Sighting,
    TerminalSuite,
)
from nodes.crypto.certificates import Certificate, read_certificate
from nodes.db.events import record_event

Connection = psycopg.Connection[Any]


class KnownChange(msgspec.Struct, frozen=True):
    """A change that an idempotency key has made already."""

    terminal_id: str
    fingerprint: bytes


def lock_fleet(connection: Connection) -> None:
    """One change of the fleet at a time, until the transaction's end: see terminal_changes."""
    connection.execute("SELECT pg_advisory_xact_lock(hashtext('countersign fleet'))")


def known_change(connection: Connection, idempotency_key: str) -> KnownChange | None:
    """What this key has done."""
    row = connection.execute(
        "SELECT terminal_id, fingerprint FROM terminal_changes WHERE idempotency_key = %s",
        (idempotency_key,),
    ).fetchone()
    return None if row is None else KnownChange(row[0], bytes(row[1]))


def read_record(connection: Connection, terminal_id: str) -> FleetRecord | None:
    """The terminal as it is; a bare one, that was registered without an enrolment, too."""
    row = connection.execute(
        "SELECT t.terminal_id, t.merchant_id, t.status = 'active', f.record, m.currency"
        " FROM terminals t JOIN merchants m USING (merchant_id)"
        " LEFT JOIN fleet_terminals f USING (terminal_id) WHERE t.terminal_id = %s",
        (terminal_id,),
    ).fetchone()
    if row is None:
        return None
    if row[3] is None:
        return bare_record(row[0], row[1], enabled=row[2], currency=row[4])
    return msgspec.convert(row[3], FleetRecord)


def merchant_currency(connection: Connection, merchant_id: str) -> str | None:
    """The currency of a merchant; None if the acquirer has none of that id."""
    row = connection.execute(
        "SELECT currency FROM merchants WHERE merchant_id = %s", (merchant_id,)
    ).fetchone()
    return None if row is None else str(row[0])


def bare_record(terminal_id: str, merchant_id: str, *, enabled: bool, currency: str) -> FleetRecord:
    """A terminal of which nothing was said yet: the sandbox's, with keys by the settings."""
    return FleetRecord(
        terminal_id=terminal_id,
        merchant_id=merchant_id,
        store="",
        label="",
        suite=TerminalSuite.SM,
        capabilities=[],
        parameters=Parameters(currency=currency),
        parameters_version=0,
        key_generation=0,
        enabled=enabled,
    )


def insert_change(
    connection: Connection,
    kind: ChangeKind,
    record: FleetRecord,
    *,
    actor: str,
    reason: str,
    changed_ms: int,
    idempotency_key: str | None,
    fingerprint: bytes | None,
) -> FleetRecord:
    """Write a change and the state that it led to; the record with its number. Under lock_fleet."""
    last = connection.execute("SELECT coalesce(max(change_id), 0) FROM terminal_changes").fetchone()
    record = msgspec.structs.replace(record, change_id=1 + int(last[0] if last else 0))
    shown = Jsonb(msgspec.to_builtins(record))
    connection.execute(
        "INSERT INTO terminal_changes (change_id, terminal_id, kind, record, actor, reason,"
        " changed_ms, idempotency_key, fingerprint)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            record.change_id,
            record.terminal_id,
            kind.value,
            shown,
            actor,
            reason,
            changed_ms,
            idempotency_key,
            fingerprint,
        ),
    )
    connection.execute(
        "INSERT INTO fleet_terminals (terminal_id, change_id, store, record)"
        " VALUES (%s, %s, %s, %s) ON CONFLICT (terminal_id)"
        " DO UPDATE SET change_id = excluded.change_id,"
        " store = excluded.store, record = excluded.record",
        (record.terminal_id, record.change_id, record.store, shown),
    )
    return record


def set_in_use(connection: Connection, terminal_id: str, enabled: bool) -> None:
    """Whether payments are taken from it: each commit of the path looks at this."""
    connection.execute(
        "UPDATE terminals SET status = %s WHERE terminal_id = %s",
        ("active" if enabled else "disabled", terminal_id),
    )


def move(connection: Connection, terminal_id: str, merchant_id: str) -> None:
    """Give the terminal to another merchant, from this commit on."""
    connection.execute(
        "UPDATE terminals SET merchant_id = %s WHERE terminal_id = %s", (merchant_id, terminal_id)
    )


def revoke_callers(connection: Connection, terminal_id: str) -> None:
    """Take the terminal's keys of the HTTP API out of use: they were the old merchant's."""
    connection.execute(
        "UPDATE front_keys SET status = 'revoked' WHERE terminal_id = %s", (terminal_id,)
    )


def disabled_since(connection: Connection, terminal_id: str) -> int | None:
    """When it was disabled last (ms since 1970); None: by no change of the fleet."""
    row = connection.execute(
        "SELECT max(changed_ms) FROM terminal_changes WHERE terminal_id = %s AND kind = %s",
        (terminal_id, ChangeKind.DISABLED.value),
    ).fetchone()
    return row[0] if row is not None else None


def has_open_batch(connection: Connection, terminal_id: str) -> bool:
    """Whether it has taken payments that stand in no batch close yet."""
    row = connection.execute(
        "SELECT 1 FROM terminal_batch_lines WHERE terminal_id = %s AND close_id IS NULL LIMIT 1",
        (terminal_id,),
    ).fetchone()
    return row is not None


# --- who certifies terminals ---------------------------------------------------------------------


def insert_authority(
    connection: Connection, authority: Certificate, created_by: str, now_ms: int
) -> dict[str, Any]:
    """Trust an authority from now on; nothing, if it is known. The row as it stands then."""
    done = connection.execute(
        "INSERT INTO terminal_authorities (fingerprint, subject, certificate, not_after_ms,"
        " created_by, created_ms) VALUES (%s, %s, %s, %s, %s, %s)"
        " ON CONFLICT (fingerprint) DO NOTHING",
        (
            authority.fingerprint,
            authority.subject,
            authority.text(),
            authority.not_after_ms,
            created_by,
            now_ms,
        ),
    )
    if done.rowcount == 1:
        record_event(
            connection,
            "merchant",
            "authority.trusted",
            subject=authority.fingerprint,
            actor=created_by,
            detail=authority.subject,
        )
    columns = ("fingerprint", "subject", "status", "not_after_ms", "created_by", "created_ms")
    row = connection.execute(
        f"SELECT {', '.join(columns)} FROM terminal_authorities WHERE fingerprint = %s",
        (authority.fingerprint,),
    ).fetchone()
    return dict(zip(columns, row or (), strict=True))


def end_authority(connection: Connection, fingerprint: str, actor: str) -> bool:
    """Trust it no longer for new certificates; False if there is none."""
    row = connection.execute(
        "SELECT status FROM terminal_authorities WHERE fingerprint = %s FOR UPDATE", (fingerprint,)
    ).fetchone()
    if row is not None and row[0] != "ended":
        connection.execute(
            "UPDATE terminal_authorities SET status = 'ended' WHERE fingerprint = %s",
            (fingerprint,),
        )
        record_event(connection, "merchant", "authority.ended", subject=fingerprint, actor=actor)
    return row is not None


def authorities(connection: Connection) -> list[Certificate]:
    """Those that are trusted now."""
    rows = connection.execute(
        "SELECT certificate FROM terminal_authorities WHERE status = 'active' ORDER BY fingerprint"
    )
    return [read_certificate(row[0]) for row in rows]


def store_sightings(
    connection: Connection, gateway: str, sightings: Sequence[Sighting], now_ms: int
) -> int:
    """Keep what a gateway saw of the terminals that are this acquirer's; of how many."""
    found = connection.execute(
        "SELECT terminal_id FROM terminals WHERE terminal_id = ANY(%s)",
        ([sighting.terminal_id for sighting in sightings],),
    ).fetchall()
    ours = {row[0] for row in found}
    # In the order of the id: two gateways' reports then wait for each other, and never crosswise.
    known = sorted((s for s in sightings if s.terminal_id in ours), key=lambda s: s.terminal_id)
    seen = [s for s in known if s.last_seen_ms is not None or s.last_sign_on_ms is not None]
    with connection.cursor() as cursor:
        if seen:
            cursor.executemany(
                "INSERT INTO terminal_sightings AS s (terminal_id, gateway, last_seen_ms,"
                " last_sign_on_ms, batch) VALUES (%s, %s, %s, %s, %s)"
                " ON CONFLICT (terminal_id) DO UPDATE SET gateway = excluded.gateway,"
                " last_seen_ms = greatest(s.last_seen_ms, excluded.last_seen_ms),"
                " last_sign_on_ms = greatest(s.last_sign_on_ms, excluded.last_sign_on_ms),"
                " batch = coalesce(excluded.batch, s.batch)",
                [
                    (s.terminal_id, gateway, s.last_seen_ms, s.last_sign_on_ms, s.batch)
                    for s in seen
                ],
            )
        checks = [s for s in known if s.check_value is not None and s.key_generation is not None]
        if checks:
            cursor.executemany(
                "INSERT INTO terminal_key_checks VALUES (%s, %s, %s, %s, %s)"
                " ON CONFLICT DO NOTHING",
                [
                    (s.terminal_id, s.key_generation, str(s.check_value).upper(), gateway, now_ms)
                    for s in checks
                ],
            )
    return len(known)
