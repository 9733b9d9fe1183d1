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
    Capability,
    ChangeKind,
    FleetOutcome,
    FleetRecord,
    Parameters,
    Report,
    TerminalKeys,
    TerminalSuite,
)
from nodes.acquiring.fleet.rules import changed, key_flaws, parameter_flaws
from nodes.acquiring.model import AcquiringOutcome
from nodes.acquiring.rules import check_terminal_id
from nodes.db.engine import transaction


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
    store_label: str,
    label: str,
    suite: TerminalSuite,
    capabilities: list[Capability],
    parameters: Parameters | None,
    with_key: bool,
    order: Ordered,
    management: TerminalKeys = TerminalKeys.TMK,
    certificate: str = "",
    sm2_public_key: str = "",
) -> FleetResult:
    """Add a terminal; without parameters, with the starting ones in its merchant's currency.

    `with_key`: its master key is derived at the gateway (generation 1); without
    it the gateway's settings hold the key (the sandbox).
    """
    if check_terminal_id(terminal_id) is not AcquiringOutcome.DONE:
        return FleetResult(FleetOutcome.TERMINAL_ID_INVALID)
    asked = (terminal_id, merchant_id, store_label, label, suite, sorted(set(capabilities)))
    chosen = None if parameters is None else msgspec.to_builtins(parameters)
    mark = order.fingerprint(
        ChangeKind.ENROLLED, *asked, chosen, with_key, management, certificate, sm2_public_key
    )
    with transaction(engine) as connection:
        store.lock_fleet(connection)
        known = _known(connection, order, mark)
        if known is not None:
            return known
        currency = store.merchant_currency(connection, merchant_id)
        if currency is None:
            return FleetResult(FleetOutcome.MERCHANT_UNKNOWN)
        record = FleetRecord(
            terminal_id=terminal_id,
            merchant_id=merchant_id,
            store=store_label,
            label=label,
            suite=suite,
            capabilities=sorted(set(capabilities)),
            parameters=parameters or Parameters(currency=currency),
            parameters_version=1,
            key_generation=int(with_key),
            enabled=True,
            management=management,
            certificate=certificate,
            sm2_public_key=sm2_public_key,
        )
        flaws = key_flaws(record)
        if flaws:
            return FleetResult(FleetOutcome.KEYS_INVALID, flaws=flaws)
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
    parameters: Parameters | None = None,
    based_on: int | None = None,
) -> FleetResult:
    """Disable, enable, give the next key or new parameters.

    `based_on`: the version that new parameters replace; another one may have come between.
    """
    content = None if parameters is None else msgspec.to_builtins(parameters)
    mark = order.fingerprint(kind, terminal_id, content, based_on)
    with transaction(engine) as connection:
        store.lock_fleet(connection)
        known = _known(connection, order, mark)
        if known is not None:
            return known
        record = store.read_record(connection, terminal_id)
        if record is None:
            return FleetResult(FleetOutcome.TERMINAL_UNKNOWN)
        if parameters is not None:
            flaws = parameter_flaws(parameters, record.capabilities)
            if flaws:
                return FleetResult(FleetOutcome.PARAMETERS_INVALID, flaws=flaws)
        if based_on is not None and based_on != record.parameters_version:
            return FleetResult(FleetOutcome.PARAMETERS_MOVED_ON)
        after = changed(record, kind, parameters)
        if after is None:
            return FleetResult(FleetOutcome.ALREADY_SO)
        if after.enabled != record.enabled:
            store.set_in_use(connection, terminal_id, after.enabled)
        _write(connection, kind, after, order, mark)
    return FleetResult(FleetOutcome.DONE)


def take_report(engine: Engine, gateway: str, report: Report, now_ms: int) -> int:
    """Keep what a gateway saw; of how many of this acquirer's terminals."""
    with transaction(engine) as connection:
        return store.store_sightings(connection, gateway, report.sightings, now_ms)


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
