"""`/v1/terminals`: the acquirer's fleet, for people; and what its gateways take and report."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Header, Path, Query

from nodes.acquiring.fleet import queries
from nodes.acquiring.fleet.model import (
    ChangeKind,
    Content,
    Details,
    FleetOutcome,
    FleetRecord,
    KeysAsked,
    Move,
    Parameters,
    Report,
    Sighting,
    TerminalSuite,
)
from nodes.acquiring.fleet.operations import (
    FleetResult,
    Ordered,
    change_terminal,
    enrol_terminal,
    take_report,
)
from nodes.acquiring.fleet.store import bare_record
from nodes.api.auth import Principal, admitted, operator, reader
from nodes.api.dependencies import Cursor, IdempotencyKey, Limit, TheNode, moment, require_role
from nodes.api.fleet_schemas import (
    CertificateShown,
    FleetChanges,
    FleetRecordItem,
    FleetReport,
    KeyCheck,
    NewDetails,
    NewMerchant,
    NewParameters,
    NewSuite,
    NewTerminal,
    ReportTaken,
    TerminalChange,
    TerminalDetail,
    TerminalItem,
    TerminalParameters,
    TerminalReason,
)
from nodes.api.node import ApiNode
from nodes.api.problems import Problem
from nodes.api.reads import cursor_of, number_of_cursor, snapshot, text_of_cursor
from nodes.api.schemas import Page

router = APIRouter(prefix="/v1/terminals", tags=["terminals"])

Operator = Annotated[Principal, Depends(operator)]
TerminalPath = Annotated[str, Path(pattern=r"^[A-Za-z0-9]{8}$", examples=["T0000001"])]
_STATUS_OF = {
    FleetOutcome.KEY_REUSED: 409,
    FleetOutcome.TAKEN: 409,
    FleetOutcome.ALREADY_SO: 409,
    FleetOutcome.PARAMETERS_MOVED_ON: 409,
    FleetOutcome.TERMINAL_RETIRED: 409,
    FleetOutcome.CURRENCY_DIFFERS: 409,
    FleetOutcome.TERMINAL_IN_USE: 409,
    FleetOutcome.BATCH_OPEN: 409,
    FleetOutcome.TERMINAL_UNKNOWN: 404,
}


def _is_gateway(principal: Principal) -> None:
    if not principal.gateway:
        raise Problem(403, "caller-not-permitted", "This is for the node's own gateways.")


Gateway = Annotated[Principal, Depends(admitted(_is_gateway))]


# -- what gateways take and report; before the paths that take any name


@router.get("/changes")
def list_changes(
    node: TheNode,
    caller: Gateway,
    after: Annotated[int, Query(ge=0, lt=1 << 62)] = 0,
    limit: Limit = 200,
) -> FleetChanges:
    """Terminals that changed after a number, each as it is now, in the order of the number."""
    require_role(node, "acquirer")
    with snapshot(node.engine) as connection:
        records = queries.changed_since(connection, after, limit)
    items = [FleetRecordItem(**msgspec.to_builtins(record)) for record in records]
    return FleetChanges(items=items, next=records[-1].change_id if records else after)


@router.post("/reports")
def take_sightings(node: TheNode, caller: Gateway, body: FleetReport) -> ReportTaken:
    """What a gateway saw: last messages and sign-ons, and check values of the keys it holds."""
    require_role(node, "acquirer")
    report = Report([Sighting(**entry.model_dump()) for entry in body.sightings])
    return ReportTaken(known=take_report(node.engine, caller.name, report, node.clock.now_ms()))


# -- for people


@router.get("", dependencies=[Depends(reader)])
def list_terminals(
    node: TheNode,
    merchant_id: Annotated[str | None, Query(max_length=15, pattern=r"^[ -~]+$")] = None,
    status: Literal["active", "disabled", "retired"] | None = None,
    store: Annotated[str | None, Query(max_length=60)] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[TerminalItem]:
    """Terminals in the order of their ids."""
    with snapshot(node.engine) as connection:
        rows = queries.find_terminals(
            connection,
            limit=limit + 1,
            after=text_of_cursor(cursor),
            merchant_id=merchant_id,
            status=status,
            store=store,
        )
    items = [TerminalItem(**_members(row)) for row in rows[:limit]]
    return Page(items=items, next=cursor_of(items[-1].terminal_id) if len(rows) > limit else None)


@router.post("", status_code=201)
def enrol(
    node: TheNode,
    caller: Operator,
    body: NewTerminal,
    idempotency_key: Annotated[
        str | None, Header(min_length=8, max_length=128, pattern=r"^[!-~]+$")
    ] = None,
) -> TerminalDetail:
    """Enrol a terminal of a merchant; with an Idempotency-Key, once for each."""
    require_role(node, "acquirer")
    result = enrol_terminal(
        node.engine,
        terminal_id=body.terminal_id,
        merchant_id=body.merchant_id,
        details=Details(store=body.store, label=body.label, capabilities=body.capabilities),
        keys=_keys_asked(body),
        parameters=None if body.parameters is None else Parameters(**body.parameters.model_dump()),
        with_key=body.with_key,
        order=Ordered(caller.name, "enrolment", node.clock.now_ms(), idempotency_key),
    )
    return _done(node, body.terminal_id, result)


@router.get("/{terminal_id}", dependencies=[Depends(reader)])
def get_terminal(node: TheNode, terminal_id: TerminalPath) -> TerminalDetail:
    """One terminal with its parameters and the check values of its keys."""
    return _shown(node, terminal_id)


@router.get("/{terminal_id}/history", dependencies=[Depends(reader)])
def list_history(
    node: TheNode, terminal_id: TerminalPath, limit: Limit = 50, cursor: Cursor = None
) -> Page[TerminalChange]:
    """What was changed of a terminal, the newest first."""
    with snapshot(node.engine) as connection:
        if queries.terminal(connection, terminal_id) is None:
            raise Problem(404, "terminal-unknown")
        rows = queries.history(
            connection, terminal_id, limit=limit + 1, before=number_of_cursor(cursor)
        )
    items = [_change(row) for row in rows[:limit]]
    return Page(items=items, next=cursor_of(items[-1].change_id) if len(rows) > limit else None)


@router.post("/{terminal_id}/parameters")
def set_parameters(
    node: TheNode,
    caller: Operator,
    terminal_id: TerminalPath,
    body: NewParameters,
    idempotency_key: IdempotencyKey,
) -> TerminalDetail:
    """Replace a terminal's parameters; it downloads them at its next sign-on."""
    return _changed(
        node,
        terminal_id,
        ChangeKind.PARAMETERS,
        Ordered(caller.name, body.reason, node.clock.now_ms(), idempotency_key),
        Parameters(**body.parameters.model_dump()),
        body.based_on,
    )


@router.post("/{terminal_id}/keys")
def next_key(
    node: TheNode,
    caller: Operator,
    terminal_id: TerminalPath,
    body: TerminalReason,
    idempotency_key: IdempotencyKey,
) -> TerminalDetail:
    """The next generation of its master key: the gateway takes no older one from then on."""
    order = Ordered(caller.name, body.reason, node.clock.now_ms(), idempotency_key)
    return _changed(node, terminal_id, ChangeKind.KEYS, order)


@router.post("/{terminal_id}/disable")
def disable(
    node: TheNode,
    caller: Operator,
    terminal_id: TerminalPath,
    body: TerminalReason,
    idempotency_key: IdempotencyKey,
) -> TerminalDetail:
    """From now on its payments are refused here, and within seconds all of it at the gateway."""
    order = Ordered(caller.name, body.reason, node.clock.now_ms(), idempotency_key)
    return _changed(node, terminal_id, ChangeKind.DISABLED, order)


@router.post("/{terminal_id}/enable")
def enable(
    node: TheNode,
    caller: Operator,
    terminal_id: TerminalPath,
    body: TerminalReason,
    idempotency_key: IdempotencyKey,
) -> TerminalDetail:
    """Take payments from it again."""
    order = Ordered(caller.name, body.reason, node.clock.now_ms(), idempotency_key)
    return _changed(node, terminal_id, ChangeKind.ENABLED, order)


@router.post("/{terminal_id}/details")
def set_details(
    node: TheNode,
    caller: Operator,
    terminal_id: TerminalPath,
    body: NewDetails,
    idempotency_key: IdempotencyKey,
) -> TerminalDetail:
    """Another store, label or set of abilities."""
    order = Ordered(caller.name, body.reason, node.clock.now_ms(), idempotency_key)
    content = Details(store=body.store, label=body.label, capabilities=body.capabilities)
    return _changed(node, terminal_id, ChangeKind.DETAILS, order, content)


@router.post("/{terminal_id}/suite")
def set_suite(
    node: TheNode,
    caller: Operator,
    terminal_id: TerminalPath,
    body: NewSuite,
    idempotency_key: IdempotencyKey,
) -> TerminalDetail:
    """Other algorithms, another way to have keys, or another certificate; and the next key."""
    order = Ordered(caller.name, body.reason, node.clock.now_ms(), idempotency_key)
    return _changed(node, terminal_id, ChangeKind.SUITE, order, _keys_asked(body))


@router.post("/{terminal_id}/merchant")
def set_merchant(
    node: TheNode,
    caller: Operator,
    terminal_id: TerminalPath,
    body: NewMerchant,
    idempotency_key: IdempotencyKey,
) -> TerminalDetail:
    """Give a terminal to another merchant; it must have been disabled for 75 seconds, and its
    batch closed. Its keys of the HTTP API are revoked."""
    order = Ordered(caller.name, body.reason, node.clock.now_ms(), idempotency_key)
    content = Move(merchant_id=body.merchant_id, store=body.store, label=body.label)
    return _changed(node, terminal_id, ChangeKind.MOVED, order, content)


@router.post("/{terminal_id}/retire")
def retire(
    node: TheNode,
    caller: Operator,
    terminal_id: TerminalPath,
    body: TerminalReason,
    idempotency_key: IdempotencyKey,
) -> TerminalDetail:
    """Take it out of use for good; its history stays, and its id isn't given again."""
    order = Ordered(caller.name, body.reason, node.clock.now_ms(), idempotency_key)
    return _changed(node, terminal_id, ChangeKind.RETIRED, order)


def _keys_asked(body: NewTerminal | NewSuite) -> KeysAsked:
    return KeysAsked(
        suite=TerminalSuite[body.suite], management=body.management, certificate=body.certificate
    )


def _changed(
    node: ApiNode,
    terminal_id: str,
    kind: ChangeKind,
    order: Ordered,
    content: Content | None = None,
    based_on: int | None = None,
) -> TerminalDetail:
    require_role(node, "acquirer")
    result = change_terminal(
        node.engine, terminal_id, kind, order=order, content=content, based_on=based_on
    )
    return _done(node, terminal_id, result)


def _done(node: ApiNode, terminal_id: str, result: FleetResult) -> TerminalDetail:
    if result.outcome is FleetOutcome.DONE:
        return _shown(node, terminal_id)
    kind = result.outcome.value.replace("_", "-")
    place = "body.parameters" if result.outcome is FleetOutcome.PARAMETERS_INVALID else "body"
    errors = [{"at": f"{place}.{name}", "message": flaw} for name, flaw in result.flaws.items()]
    status = _STATUS_OF.get(result.outcome, 422)
    raise Problem(status, kind, errors=errors) if errors else Problem(status, kind)


def _shown(node: ApiNode, terminal_id: str) -> TerminalDetail:
    with snapshot(node.engine) as connection:
        row = queries.terminal(connection, terminal_id)
        checks = queries.key_checks(connection, terminal_id)
    if row is None:
        raise Problem(404, "terminal-unknown")
    generations = [check["generation"] for check in checks]
    return TerminalDetail(
        **_members(row),
        parameters=_parameters(_record(row)),
        key_checks=[
            KeyCheck(
                generation=check["generation"],
                check_value=check["check_value"],
                gateway=check["gateway"],
                reported_at=moment(check["reported_ms"]),
            )
            for check in checks
        ],
        keys_differ=len(generations) != len(set(generations)),
        certificate=_certificate(_record(row)),
    )


def _certificate(record: FleetRecord) -> CertificateShown | None:
    if not record.certificate:
        return None
    return CertificateShown(
        serial=record.certificate,
        issuer=record.certified_by,
        not_before=moment(record.valid_from_ms),
        not_after=moment(record.valid_until_ms),
    )


def _record(row: queries.Row) -> FleetRecord:
    if row["record"] is not None:
        return msgspec.convert(row["record"], FleetRecord)
    return bare_record(
        row["terminal_id"],
        row["merchant_id"],
        enabled=row["status"] == "active",
        currency=row["currency"],
    )


def _members(row: queries.Row) -> dict[str, Any]:
    record = _record(row)
    plain = {
        name: row[name]
        for name in (
            *("terminal_id", "merchant_id", "merchant_name", "status", "last_seq"),
            *("gateway", "batch"),
        )
    }
    if record.retired:
        plain["status"] = "retired"
    return plain | {
        "store": record.store,
        "label": record.label,
        "suite": record.suite.name,
        "management": record.management,
        "capabilities": record.capabilities,
        "key_generation": record.key_generation,
        "parameters_version": record.parameters_version,
        "last_seen_at": _moment(row["last_seen_ms"]),
        "last_sign_on_at": _moment(row["last_sign_on_ms"]),
    }


def _moment(milliseconds: int | None) -> Any:
    return None if milliseconds is None else moment(milliseconds)


def _parameters(record: FleetRecord) -> TerminalParameters:
    return TerminalParameters(**msgspec.to_builtins(record.parameters))


def _change(row: queries.Row) -> TerminalChange:
    record = msgspec.convert(row["record"], FleetRecord)
    return TerminalChange(
        change_id=row["change_id"],
        kind=row["kind"],
        actor=row["actor"],
        reason=row["reason"],
        changed_at=moment(row["changed_ms"]),
        enabled=record.enabled,
        key_generation=record.key_generation,
        parameters_version=record.parameters_version,
        parameters=_parameters(record),
    )
