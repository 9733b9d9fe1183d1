"""`/v1/closes` and `/v1/breaks`: the day's closes, and the cases of their breaks.

One institution proposes a correction, the other countersigns or refuses it. The acquirer's node
keeps a case's order: at an issuer's node a step goes there first, and comes back from there.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query
from starlette.concurrency import run_in_threadpool

from nodes.api.auth import Principal, operator, reader
from nodes.api.case_problems import require_done
from nodes.api.clearing_client import case_events_since, clearing_client
from nodes.api.clearing_schemas import (
    BreakDetail,
    BreakItem,
    CaseEventItem,
    CloseDetail,
    CloseItem,
    Desk,
    NewProposal,
    Refusal,
)
from nodes.api.client import NodeUnreachable
from nodes.api.dependencies import Cursor, IdempotencyKey, Limit, TheNode, hex_or_none
from nodes.api.node import ApiNode
from nodes.api.problems import Problem, unavailable
from nodes.api.reads import bytes_of_hex, cursor_of, number_of_cursor
from nodes.api.schemas import Nothing, Page
from nodes.clearing import case_queries, queries
from nodes.clearing.case_queries import CaseFile
from nodes.clearing.model import BreakKind, CaseOutcome, CaseState, CaseStep, CloseStage, Resolution
from nodes.clearing.operations.cases import put_on_desk, take_over, take_step
from nodes.clearing.rules.cases import owner
from nodes.clock import to_datetime
from nodes.crypto.http_signatures import MessageSigner
from nodes.db.engine import transaction

closes = APIRouter(prefix="/v1/closes", tags=["clearing"], dependencies=[Depends(reader)])
breaks = APIRouter(prefix="/v1/breaks", tags=["clearing"])

Operator = Annotated[Principal, Depends(operator)]
CloseId = Annotated[int, Path(ge=1, lt=1 << 62)]
Ref = Annotated[str, Path(min_length=64, max_length=64)]
_BREAKS_SHOWN = 500


@closes.get("")
def list_closes(
    node: TheNode,
    business_date: date | None = None,
    counterparty: Annotated[str | None, Query(max_length=31)] = None,
    stage: CloseStage | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[CloseItem]:
    """Closes, the newest first."""
    with transaction(node.engine) as connection:
        rows = queries.find_closes(
            connection,
            limit=limit + 1,
            before=number_of_cursor(cursor),
            day=business_date,
            counterparty=counterparty,
            stage=stage.value if stage else None,
        )
    items = [CloseItem(**_close(row)) for row in rows[:limit]]
    return Page(items=items, next=cursor_of(items[-1].close_id) if len(rows) > limit else None)


@closes.get("/{close_id}")
def get_close(node: TheNode, close_id: CloseId) -> CloseDetail:
    """One close with its stages and breaks."""
    with transaction(node.engine) as connection:
        rows = queries.find_closes(connection, limit=1, before=close_id + 1)
        if not rows or rows[0]["close_id"] != close_id:
            raise Problem(404, "close-unknown", "There is no such close here.")
        stages = queries.stages_of(connection, close_id)
        files = case_queries.case_files(connection, close_id=close_id)[:_BREAKS_SHOWN]
        shown = [BreakItem(**_break(node, rows[0], file)) for file in files]
    return CloseDetail(**_close(rows[0]), stages=stages, break_items=shown)


def _close(row: queries.Row) -> dict[str, Any]:
    compared = row["compared_at"] is not None
    return {
        name: row[name]
        for name in CloseItem.model_fields
        if name in row and name not in ("close_root", "totals_hash", "other_root")
    } | {
        "items": row["item_count"],
        "close_root": row["close_root"].hex(),
        "totals_hash": row["totals_hash"].hex(),
        "other_root": hex_or_none(row["other_root"]),
        "compared_bytes": row["bytes_sent"] + row["bytes_received"] if compared else None,
    }


@breaks.get("", dependencies=[Depends(reader)])
def list_breaks(
    node: TheNode,
    state: CaseState | None = None,
    kind: BreakKind | None = None,
    taken: bool | None = None,
    taken_by: Annotated[str | None, Query(max_length=100, pattern=r"^[^\x00]*$")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[BreakItem]:
    """Breaks, the newest first; `kind` as they were found. `taken`: on somebody's desk here."""
    with transaction(node.engine) as connection:
        found = case_queries.find_breaks(
            connection,
            limit=limit + 1,
            before=number_of_cursor(cursor),
            state=state.value if state else None,
            kind=kind.value if kind else None,
            holder=taken_by,
            taken=taken,
        )
        refs = [ref for _, ref in found[:limit]]
        files = {
            file.case.break_ref: file for file in case_queries.case_files(connection, refs=refs)
        }
        parties = _closes_of(connection, list(files.values()))
    ordered = [files[ref] for ref in refs]
    items = [BreakItem(**_break(node, parties[f.found["close_id"]], f)) for f in ordered]
    return Page(items=items, next=cursor_of(found[limit - 1][0]) if len(found) > limit else None)


@breaks.get("/{break_ref}", dependencies=[Depends(reader)])
def get_break(node: TheNode, break_ref: Ref) -> BreakDetail:
    """One break with its history and each side's version."""
    return _shown(node, bytes_of_hex(break_ref, 32, "break-unknown"))


@breaks.post("/{break_ref}/propose")
async def propose(
    node: TheNode,
    caller: Operator,
    break_ref: Ref,
    body: NewProposal,
    idempotency_key: IdempotencyKey,
) -> BreakDetail:
    """Propose whose version stands, once for each Idempotency-Key; the other institution must
    countersign before anything is corrected."""
    resolution = Resolution(body.resolution)
    return await _act(
        node, caller, break_ref, CaseStep.PROPOSED, idempotency_key, body.note, resolution
    )


@breaks.post("/{break_ref}/countersign")
async def countersign(
    node: TheNode, caller: Operator, break_ref: Ref, body: Nothing, idempotency_key: IdempotencyKey
) -> BreakDetail:
    """Countersign the other institution's proposal. 403 for the one that made it."""
    return await _act(node, caller, break_ref, CaseStep.COUNTERSIGNED, idempotency_key, "", None)


@breaks.post("/{break_ref}/refuse")
async def refuse(
    node: TheNode, caller: Operator, break_ref: Ref, body: Refusal, idempotency_key: IdempotencyKey
) -> BreakDetail:
    """Refuse the other institution's proposal: the case is open again."""
    return await _act(node, caller, break_ref, CaseStep.REFUSED, idempotency_key, body.note, None)


@breaks.post("/{break_ref}/take")
def take_on(
    node: TheNode, caller: Operator, break_ref: Ref, body: Desk, idempotency_key: IdempotencyKey
) -> BreakDetail:
    """Take a case on: who in this institution works on it. 409 if somebody has it."""
    return _desk(node, caller, break_ref, body, idempotency_key, taking=True)


@breaks.post("/{break_ref}/release")
def lay_down(
    node: TheNode, caller: Operator, break_ref: Ref, body: Desk, idempotency_key: IdempotencyKey
) -> BreakDetail:
    """Lay a case down again. 403 for another's, but for an admin's key."""
    return _desk(node, caller, break_ref, body, idempotency_key, taking=False)


def _desk(
    node: ApiNode,
    caller: Principal,
    break_ref: str,
    body: Desk,
    idempotency_key: str,
    *,
    taking: bool,
) -> BreakDetail:
    ref = bytes_of_hex(break_ref, 32, "break-unknown")
    with transaction(node.engine) as connection:
        outcome = put_on_desk(
            connection,
            ref,
            taking=taking,
            member=node.settings.member_id,
            person=body.person or caller.name.removeprefix("key:"),
            actor=caller.name,
            any_desk=caller.has("admin"),
            now=to_datetime(node.clock.now_ms()),
            idempotency_key=idempotency_key,
        )
    require_done(outcome)
    return _shown(node, ref)


async def _act(
    node: ApiNode,
    caller: Principal,
    break_ref: str,
    step: CaseStep,
    idempotency_key: str,
    note: str,
    resolution: Resolution | None,
) -> BreakDetail:
    ref = bytes_of_hex(break_ref, 32, "break-unknown")
    keeper = await run_in_threadpool(_keeper, node, ref)
    if keeper == node.settings.member_id:
        outcome = await run_in_threadpool(
            _take_here, node, caller, ref, step, idempotency_key, note, resolution
        )
    else:
        outcome = await _take_there(
            node, keeper, caller, ref, step, idempotency_key, note, resolution
        )
    require_done(outcome)
    return await run_in_threadpool(_shown, node, ref)


def _keeper(node: ApiNode, ref: bytes) -> str:
    with transaction(node.engine) as connection:
        files = case_queries.case_files(connection, refs=[ref])
        if not files:
            raise Problem(404, "break-unknown", "There is no such break here.")
        staged = queries.close_by_id(connection, files[0].found["close_id"])
    assert staged is not None
    return staged.close.key.acquirer


def _take_here(
    node: ApiNode,
    caller: Principal,
    ref: bytes,
    step: CaseStep,
    idempotency_key: str,
    note: str,
    resolution: Resolution | None,
) -> CaseOutcome:
    with transaction(node.engine) as connection:
        return take_step(
            connection,
            ref,
            step,
            member=node.settings.member_id,
            actor=caller.name,
            now=to_datetime(node.clock.now_ms()),
            resolution=resolution,
            note=note,
            idempotency_key=idempotency_key,
        ).outcome


async def _take_there(
    node: ApiNode,
    keeper: str,
    caller: Principal,
    ref: bytes,
    step: CaseStep,
    idempotency_key: str,
    note: str,
    resolution: Resolution | None,
) -> CaseOutcome:
    own = node.settings.member_id
    signer = MessageSigner(own, node.keystore.secret("message"))
    client = clearing_client(node.directory, signer, keeper)
    if client is None:
        raise _away(keeper)
    async with client:
        try:
            outcome = await client.case_step(
                ref,
                step,
                actor=caller.name,
                idempotency_key=idempotency_key,
                resolution=resolution,
                note=note,
            )
            if outcome is CaseOutcome.DONE:
                after = await run_in_threadpool(_cursor, node, keeper)
                events = await case_events_since(client, after)
                await run_in_threadpool(take_over, node.engine, own, keeper, events)
        except NodeUnreachable:
            raise _away(keeper) from None
    return outcome


def _away(keeper: str) -> Problem:
    return unavailable(
        "case-keeper-unreachable", f"{keeper}'s node keeps the case and can't be reached now."
    )


def _cursor(node: ApiNode, acquirer: str) -> int:
    with transaction(node.engine) as connection:
        return case_queries.case_cursor(connection, acquirer)


# --- how they are shown ------------------------------------------------------------------------


def _shown(node: ApiNode, ref: bytes) -> BreakDetail:
    with transaction(node.engine) as connection:
        files = case_queries.case_files(connection, refs=[ref], detail=True)
        if not files:
            raise Problem(404, "break-unknown", "There is no such break here.")
        parties = _closes_of(connection, files)
    file = files[0]
    versions = {
        party: {name: value for name, value in version.items() if name != "salt_fin"}
        for party, version in (file.found["detail"] or {}).items()
    }
    events = [
        CaseEventItem(
            **{name: event[name] for name in CaseEventItem.model_fields if name != "entry_txid"},
            entry_txid=hex_or_none(event["entry_txid"]),
        )
        for event in file.events
    ]
    members = _break(node, parties[file.found["close_id"]], file)
    return BreakDetail(**members, versions=versions, events=events)


def _closes_of(connection: queries.Connection, files: list[CaseFile]) -> dict[int, queries.Row]:
    found: dict[int, queries.Row] = {}
    for number in {file.found["close_id"] for file in files}:
        staged = queries.close_by_id(connection, number)
        assert staged is not None
        found[number] = {"acquirer": staged.close.key.acquirer, "issuer": staged.close.key.issuer}
    return found


def _break(node: ApiNode, close: queries.Row, file: CaseFile) -> dict[str, Any]:
    found, case = file.found, file.case
    now = to_datetime(node.clock.now_ms())
    plain = ("close_id", "fields", "pair_seq", "lacking", "other_date", "late_until")
    return {name: found[name] for name in plain} | {
        "break_ref": found["break_ref"].hex(),
        "kind": case.kind,
        "found_as": found["kind"],
        "txid": hex_or_none(found["txid"]),
        "first_txid": hex_or_none(found["first_txid"]),
        "state": case.state,
        "owner": owner(case, close["acquirer"], close["issuer"]),
        "taken_by": file.holder,
        "taken_at": file.taken_at,
        "opened_at": found["opened_at"],
        "age_s": max(0, int((now - found["opened_at"]).total_seconds())),
        "due_at": found["due_at"],
        "overdue": now > found["due_at"] and case.state is not CaseState.CLOSED,
        "proposed_by": case.proposed_by,
        "resolution": case.resolution,
    }
