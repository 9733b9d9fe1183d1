"""Change the fleet: each function is one transaction, made once an idempotency key."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sqlalchemy import Engine

from nodes.acquiring import store as acquiring
from nodes.acquiring.fleet import store
from nodes.acquiring.fleet.model import (
    ChangeKind,
    Content,
    Details,
    FleetOutcome,
    FleetRecord,
    KeysAsked,
    KeyWay,
    Move,
    Parameters,
    Report,
    TerminalKeys,
)
from nodes.acquiring.fleet.rules import authority_flaw, changed, key_way, parameter_flaws
from nodes.acquiring.model import AcquiringOutcome
from nodes.acquiring.rules import check_terminal_id
from nodes.crypto.certificates import CertificateInvalid, read_certificate
from nodes.db.engine import transaction

#: How long a terminal rests, disabled, before it goes to another merchant: so that no process has
#: it in mind as the old one's (nodes/authorization/engine/memory.py reads terminals each minute).
MOVE_REST_MS = 75_000


@dataclass(frozen=True)
class FleetResult:
    """How it ended. `repeated`: the key had done it. `flaws`: what is wrong, by parameter."""

    outcome: FleetOutcome
    repeated: bool = False
    flaws: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ordered:
    """Who asks for a change, why, when (ms since 1970) and under which idempotency key."""

    actor: str
    reason: str
    now_ms: int
    idempotency_key: str | None = None

    def fingerprint(self, *content: Any) -> bytes | None:
        """SHA-256 of what was asked for, where a key is to stand for it."""
        if self.idempotency_key is None:
            return None
        return hashlib.sha256(msgspec.json.encode([self.actor, self.reason, *content])).digest()


def enrol_terminal(
    engine: Engine,
    *,
    terminal_id: str,
    merchant_id: str,
    details: Details,
    keys: KeysAsked,
    parameters: Parameters | None,
    with_key: bool,
    order: Ordered,
) -> FleetResult:
    """Add a terminal; without parameters, with the starting ones in its merchant's currency.

    `with_key`: its master key is derived at the gateway (generation 1); without
    it the gateway's settings hold the key (the sandbox).
    """
    if check_terminal_id(terminal_id) is not AcquiringOutcome.DONE:
        return FleetResult(FleetOutcome.TERMINAL_ID_INVALID)
    asked = [terminal_id, merchant_id, *_plain(details, keys, parameters), with_key]
    mark = order.fingerprint(ChangeKind.ENROLLED, *asked)
    with transaction(engine) as connection:
        store.lock_fleet(connection)
        known = _known(connection, order, mark)
        if known is not None:
            return known
        currency = store.merchant_currency(connection, merchant_id)
        if currency is None:
            return FleetResult(FleetOutcome.MERCHANT_UNKNOWN)
        way, flaws = key_way(terminal_id, keys, store.authorities(connection), order.now_ms)
        if not with_key and keys.management is TerminalKeys.SM2:
            flaws["with_key"] = "an SM2 terminal has a key of its own: with_key is true"
        if flaws:
            return FleetResult(FleetOutcome.KEYS_INVALID, flaws=flaws)
        record = FleetRecord(
            terminal_id=terminal_id,
            merchant_id=merchant_id,
            store=details.store,
            label=details.label,
            capabilities=sorted(set(details.capabilities)),
            parameters=parameters or Parameters(currency=currency),
            parameters_version=1,
            key_generation=int(with_key),
            enabled=True,
            **msgspec.structs.asdict(way),
        )
        flaws = parameter_flaws(record.parameters, record.capabilities)
        if flaws:
            return FleetResult(FleetOutcome.PARAMETERS_INVALID, flaws=flaws)
        if not acquiring.insert_terminal(connection, terminal_id, merchant_id):
            return FleetResult(FleetOutcome.TAKEN)
        _write(connection, ChangeKind.ENROLLED, record, order, mark)
    return FleetResult(FleetOutcome.DONE)


def change_terminal(
    engine: Engine,
    terminal_id: str,
    kind: ChangeKind,
    *,
    order: Ordered,
    content: Content | None = None,
    based_on: int | None = None,
) -> FleetResult:
    """Disable, enable, retire, give the next key; or what the content says.

    `based_on`: the version that new parameters replace; another one may have come between.
    """
    mark = order.fingerprint(kind, terminal_id, *_plain(content), based_on)
    with transaction(engine) as connection:
        store.lock_fleet(connection)
        known = _known(connection, order, mark)
        if known is not None:
            return known
        record = store.read_record(connection, terminal_id)
        if record is None:
            return FleetResult(FleetOutcome.TERMINAL_UNKNOWN)
        brought: Parameters | Details | KeyWay | Move | None
        if isinstance(content, KeysAsked):
            trusted = store.authorities(connection)
            brought, flaws = key_way(terminal_id, content, trusted, order.now_ms)
            if flaws:
                return FleetResult(FleetOutcome.KEYS_INVALID, flaws=flaws)
        else:
            brought = content
        refusal = _refused(connection, record, brought, order.now_ms)
        if refusal is not None:
            return refusal
        if based_on is not None and based_on != record.parameters_version:
            return FleetResult(FleetOutcome.PARAMETERS_MOVED_ON)
        after = changed(record, kind, brought)
        if after is None:
            return FleetResult(FleetOutcome.ALREADY_SO)
        _take_effect(connection, record, after)
        _write(connection, kind, after, order, mark)
    return FleetResult(FleetOutcome.DONE)


def _refused(
    connection: store.Connection,
    record: FleetRecord,
    content: Parameters | Details | KeyWay | Move | None,
    now_ms: int,
) -> FleetResult | None:
    if record.retired:
        return FleetResult(FleetOutcome.TERMINAL_RETIRED)
    flaws: dict[str, str] = {}
    if isinstance(content, Parameters):
        flaws = parameter_flaws(content, record.capabilities)
    elif isinstance(content, Details):
        flaws = parameter_flaws(record.parameters, content.capabilities)
    if flaws:
        return FleetResult(FleetOutcome.PARAMETERS_INVALID, flaws=flaws)
    if isinstance(content, Move):
        outcome = _refuse_move(connection, record, content, now_ms)
        return FleetResult(outcome) if outcome is not None else None
    return None


def _refuse_move(
    connection: store.Connection, record: FleetRecord, content: Move, now_ms: int
) -> FleetOutcome | None:
    currency = store.merchant_currency(connection, content.merchant_id)
    if currency is None:
        return FleetOutcome.MERCHANT_UNKNOWN
    if content.merchant_id == record.merchant_id:
        return None  # so already
    if currency != record.parameters.currency:
        return FleetOutcome.CURRENCY_DIFFERS
    since = store.disabled_since(connection, record.terminal_id)
    if record.enabled or since is None or now_ms - since < MOVE_REST_MS:
        return FleetOutcome.TERMINAL_IN_USE
    if store.has_open_batch(connection, record.terminal_id):
        return FleetOutcome.BATCH_OPEN
    return None


def _take_effect(connection: store.Connection, record: FleetRecord, after: FleetRecord) -> None:
    """What the path of payments, and the HTTP API's callers, see of a change."""
    if after.enabled != record.enabled:
        store.set_in_use(connection, record.terminal_id, after.enabled)
    if after.merchant_id != record.merchant_id:
        store.move(connection, record.terminal_id, after.merchant_id)
    if after.retired or after.merchant_id != record.merchant_id:
        store.revoke_callers(connection, record.terminal_id)


def trust_authority(
    connection: store.Connection, certificate: str, actor: str, now_ms: int
) -> tuple[dict[str, Any] | None, str | None]:
    """Take a certificate's owner as one who certifies terminals; its row, or why not."""
    try:
        found = read_certificate(certificate)
    except CertificateInvalid as invalid:
        return None, str(invalid)
    why = authority_flaw(found, now_ms)
    if why is not None:
        return None, why
    return store.insert_authority(connection, found, actor, now_ms), None


def end_authority(connection: store.Connection, fingerprint: str, actor: str) -> FleetOutcome:
    """Take no more certificates of it. Terminals that it has certified stay."""
    done = store.end_authority(connection, fingerprint, actor)
    return FleetOutcome.DONE if done else FleetOutcome.AUTHORITY_UNKNOWN


def take_report(engine: Engine, gateway: str, report: Report, now_ms: int) -> int:
    """Keep what a gateway saw; of how many of this acquirer's terminals."""
    with transaction(engine) as connection:
        return store.store_sightings(connection, gateway, report.sightings, now_ms)


def _plain(*contents: Content | None) -> list[Any]:
    return [None if one is None else msgspec.to_builtins(one) for one in contents]


def _known(connection: store.Connection, order: Ordered, mark: bytes | None) -> FleetResult | None:
    if order.idempotency_key is None:
        return None
    known = store.known_change(connection, order.idempotency_key)
    if known is None:
        return None
    if known.fingerprint != mark:
        return FleetResult(FleetOutcome.KEY_REUSED)
    return FleetResult(FleetOutcome.DONE, repeated=True)


def _write(
    connection: store.Connection,
    kind: ChangeKind,
    record: FleetRecord,
    order: Ordered,
    mark: bytes | None,
) -> None:
    store.insert_change(
        connection,
        kind,
        record,
        actor=order.actor,
        reason=order.reason,
        changed_ms=order.now_ms,
        idempotency_key=order.idempotency_key,
        fingerprint=mark,
    )
