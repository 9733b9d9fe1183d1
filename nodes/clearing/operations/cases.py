"""Cases of breaks: opening, the steps that people and nodes take, and their end.

The acquirer's node numbers a case's events; the issuer's takes them over in that order, and sends
its own steps there. So both institutions hold one history.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec
import structlog
from sqlalchemy import Engine

from nodes import clock
from nodes.clearing import case_queries, day_queries, queries, store
from nodes.clearing.case_queries import CaseFile
from nodes.clearing.model import (
    Break,
    BreakKind,
    CaseOutcome,
    CaseState,
    CaseStep,
    Close,
    CloseStage,
    DayKey,
    Resolution,
)
from nodes.clearing.rules import cases as rules
from nodes.clearing.rules.closing import break_ref
from nodes.clearing.store import Connection, NewEvent
from nodes.db.engine import transaction

log = structlog.get_logger(__name__)

#: Who acts where no person does.
NODE = "node"
_PAGE = 500


class CaseRefused(Exception):
    """A case of the acquirer's that contradicts this issuer's own books."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """How a step ended, and its event's number in the case."""

    outcome: CaseOutcome
    number: int | None = None


class Version(msgspec.Struct, frozen=True, array_like=True):
    """A party's version of a broken transaction, as it travels; named as in a break's detail."""

    commitment: bytes
    amount: int
    currency: str
    kind: str
    outcome: str
    transmitted_ms: int
    merchant_id: str
    original_txid: bytes | None
    effect: int
    business_date: str
    pair_seq: int
    in_close: int
    salt_fin: bytes

    @classmethod
    def of(cls, detail: Mapping[str, Any]) -> Version:
        """Of a break's detail, where bytes are hex."""
        values = {name: detail[name] for name in cls.__struct_fields__}
        return cls(**values | {name: _bytes(values[name]) for name in _HEX})

    def detail(self) -> dict[str, Any]:
        """The same for a break's detail."""
        values = msgspec.structs.asdict(self)
        return values | {name: values[name].hex() if values[name] else None for name in _HEX}


_HEX = ("commitment", "original_txid", "salt_fin")


def _bytes(value: str | None) -> bytes | None:
    return None if value is None else bytes.fromhex(value)


class OpenedBreak(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A break as it travels."""

    currency: str
    business_date: str
    revision: int
    kind: str
    due_ms: int
    txid: bytes | None = None
    fields: list[str] = []
    pair_seq: int | None = None
    lacking: str | None = None
    other_date: str | None = None
    first_txid: bytes | None = None
    late_until_ms: int | None = None
    versions: dict[str, Version] = {}


class CaseEvent(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """An event as it travels (MessagePack); the first of a case carries the break."""

    event_id: int
    break_ref: bytes
    number: int
    step: str
    state: str
    member: str
    actor: str
    at_ms: int
    opens: OpenedBreak | None = None
    resolution: str | None = None
    note: str = ""
    entry_txid: bytes | None = None
    request_key: bytes | None = None
    fingerprint: bytes | None = None


def open_cases(
    connection: Connection,
    close: Close,
    found: Sequence[Break],
    *,
    member: str,
    now: datetime,
    case_s: float,
) -> int:
    """Open a case for each break, once; how many are new."""
    named = {break_ref(close.key, close.revision, entry): entry for entry in found}
    known = {file.case.break_ref for file in case_queries.case_files(connection, refs=list(named))}
    fresh = [(ref, entry) for ref, entry in named.items() if ref not in known]
    with connection.pipeline():
        _open(connection, close, fresh, member=member, now=now, case_s=case_s)
    return len(fresh)


def _open(
    connection: Connection,
    close: Close,
    fresh: Sequence[tuple[bytes, Break]],
    *,
    member: str,
    now: datetime,
    case_s: float,
) -> None:
    for ref, entry in fresh:
        late = clock.to_datetime(entry.due_ms) if entry.due_ms is not None else None
        due_at = max(now, late or now) + timedelta(seconds=case_s)
        store.insert_break(
            connection,
            ref,
            close.close_id,
            entry,
            late_until=late,
            due_at=due_at,
            opened_at=now,
        )
        store.append_event(
            connection,
            NewEvent(ref, 1, CaseStep.OPENED, CaseState.OPEN, member, NODE, now),
        )


def take_step(
    connection: Connection,
    ref: bytes,
    step: CaseStep,
    *,
    member: str,
    actor: str,
    now: datetime,
    resolution: Resolution | None = None,
    note: str = "",
    entry_txid: bytes | None = None,
    idempotency_key: str | None = None,
) -> StepResult:
    """A step of a case, in the books of the acquirer, who keeps it; once an idempotency key."""
    store.lock(connection, f"case/{ref.hex()}", wait=True)
    key, content = None, None
    if idempotency_key is not None:
        key = _request_key(member, actor, idempotency_key)
        content = _fingerprint(ref.hex(), step.value, resolution, note, entry_txid)
        known = case_queries.event_by_request(connection, key)
        if known is not None:
            same = known["fingerprint"] == content
            outcome = CaseOutcome.DONE if same else CaseOutcome.KEY_REUSED
            return StepResult(outcome, known["number"] if same else None)
    files = case_queries.case_files(connection, refs=[ref])
    if not files:
        return StepResult(CaseOutcome.BREAK_UNKNOWN)
    case = files[0].case
    outcome, moved = rules.step(
        case,
        step,
        member=member,
        actor=actor,
        now_ms=clock.to_ms(now),
        resolution=resolution,
    )
    if outcome is not CaseOutcome.DONE:
        return StepResult(outcome)
    event = NewEvent(
        ref,
        moved.number,
        step,
        moved.state,
        member,
        actor,
        now,
        resolution if step is CaseStep.PROPOSED else None,
        note,
        entry_txid,
        key,
        content,
    )
    store.append_event(connection, event)
    log.info("case_step", break_ref=ref.hex(), step=step.value, member=member)
    return StepResult(CaseOutcome.DONE, moved.number)


def put_on_desk(
    connection: Connection,
    ref: bytes,
    *,
    taking: bool,
    member: str,
    person: str,
    actor: str,
    any_desk: bool,
    now: datetime,
    idempotency_key: str,
) -> CaseOutcome:
    """Take a case on in a person's name, or lay it down, in this institution's own books; once an
    idempotency key. `any_desk`: may lay down what lies on another's."""
    store.lock(connection, f"case/{ref.hex()}", wait=True)
    key = _request_key(member, actor, idempotency_key)
    content = _fingerprint(ref.hex(), taking, person)
    known = case_queries.desk_row_by_request(connection, key)
    if known is not None:
        return CaseOutcome.DONE if known["fingerprint"] == content else CaseOutcome.KEY_REUSED
    files = case_queries.case_files(connection, refs=[ref])
    if not files:
        return CaseOutcome.BREAK_UNKNOWN
    outcome = rules.desk_outcome(
        files[0].case, files[0].holder, person, taking=taking, any_desk=any_desk
    )
    if outcome is CaseOutcome.DONE:
        holder = person if taking else None
        store.append_desk_row(connection, ref, holder, actor, key, content, now)
    return outcome


def _request_key(member: str, actor: str, idempotency_key: str) -> bytes:
    return hashlib.sha256(f"{member}\x1f{actor}\x1f{idempotency_key}".encode()).digest()


def _fingerprint(*said: object) -> bytes:
    return hashlib.sha256(msgspec.msgpack.encode(said)).digest()


# --- by themselves -----------------------------------------------------------------------------


def advance_late(engine: Engine, member_id: str, now: datetime) -> list[tuple[bytes, CaseStep]]:
    """What has become of late transactions that this institution lacked, or keeps the cases of.

    An acquirer takes the steps at once; an issuer gets them as a list, to send to the keeper.
    """
    steps: list[tuple[bytes, CaseStep]] = []
    with transaction(engine) as connection:
        refs = case_queries.cases_in(connection, CaseState.OPEN)
        for file in case_queries.case_files(connection, refs=refs) if refs else []:
            if file.case.kind is not BreakKind.LATE:
                continue
            close = _close_of(connection, file)
            if close.key.member(file.found["lacking"]) == member_id and day_queries.rows_of(
                connection, close.key, close.party, [file.found["txid"]]
            ):
                steps.append((file.case.break_ref, CaseStep.ARRIVED))
            elif close.party == "acquirer" and clock.to_ms(now) >= (file.case.due_ms or 0):
                steps.append((file.case.break_ref, CaseStep.OVERDUE))
    kept = []
    for ref, step in steps:
        with transaction(engine) as connection:
            [file] = case_queries.case_files(connection, refs=[ref])
            if _close_of(connection, file).party == "acquirer":
                take_step(connection, ref, step, member=member_id, actor=NODE, now=now)
            else:
                kept.append((ref, step))
    return kept


def end_cases(engine: Engine, member_id: str, now: datetime) -> int:
    """Close corrected cases whose day is confirmed at last; how many. At the acquirer."""
    ended = 0
    with transaction(engine) as connection:
        refs = case_queries.cases_in(connection, CaseState.CORRECTED)
        files = case_queries.case_files(connection, refs=refs) if refs else []
        for file in files:
            found = queries.close_by_id(connection, file.found["close_id"])
            assert found is not None
            if found.close.party != "acquirer" or found.stage not in (
                CloseStage.CONFIRMED,
                CloseStage.SUPERSEDED,
            ):
                continue
            done = take_step(
                connection,
                file.case.break_ref,
                CaseStep.CLOSED,
                member=member_id,
                actor=NODE,
                now=now,
            )
            ended += done.outcome is CaseOutcome.DONE
    return ended


def _close_of(connection: Connection, file: CaseFile) -> Close:
    found = queries.close_by_id(connection, file.found["close_id"])
    if found is None:
        raise LookupError("a break without its close")
    return found.close


# --- from the acquirer's books into the issuer's -----------------------------------------------


def events_for(connection: Connection, issuer: str, after: int, limit: int) -> list[CaseEvent]:
    """What an issuer takes over, behind an event id."""
    found = []
    for row, key, revision, opening in case_queries.events_after(connection, issuer, after, limit):
        opens = None
        if opening is not None:
            late = opening["late_until"]
            other = opening["other_date"]
            opens = OpenedBreak(
                currency=key.currency,
                business_date=key.business_date.isoformat(),
                revision=revision,
                kind=opening["kind"],
                txid=opening["txid"],
                fields=opening["fields"],
                pair_seq=opening["pair_seq"],
                lacking=opening["lacking"],
                other_date=other.isoformat() if other else None,
                first_txid=opening["first_txid"],
                late_until_ms=clock.to_ms(late) if late else None,
                due_ms=clock.to_ms(opening["due_at"]),
                versions={p: Version.of(v) for p, v in (opening["detail"] or {}).items()},
            )
        names = ("event_id", "break_ref", "number", "step", "state", "member", "actor")
        more = ("resolution", "note", "entry_txid", "request_key", "fingerprint")
        plain = {name: row[name] for name in (*names, *more)}
        found.append(CaseEvent(**plain, at_ms=clock.to_ms(row["at"]), opens=opens))
    return found


def take_over(engine: Engine, member_id: str, acquirer: str, events: Sequence[CaseEvent]) -> int:
    """Record an acquirer's case events and move the cursor, in one transaction; how many are new.

    CaseRefused, and nothing is recorded, if one contradicts this issuer's own books, or names an
    act of this issuer that it never did.
    """
    taken = 0
    with transaction(engine) as connection:
        store.lock(connection, "take-over", wait=True)
        cursor = case_queries.case_cursor(connection, acquirer)
        for event in events:
            if event.event_id <= cursor:
                continue
            if event.opens is not None:
                _take_break(connection, acquirer, member_id, event, event.opens)
            elif not _of_pair(connection, acquirer, event.break_ref):
                raise CaseRefused(f"{acquirer}'s event {event.event_id}: no such case")
            store.append_event(connection, _new_event(event))
            cursor = event.event_id
            taken += 1
        if taken:
            store.move_case_cursor(connection, acquirer, cursor)
    return taken


def _new_event(event: CaseEvent) -> NewEvent:
    return NewEvent(
        event.break_ref,
        event.number,
        CaseStep(event.step),
        CaseState(event.state),
        event.member,
        event.actor,
        clock.to_datetime(event.at_ms),
        Resolution(event.resolution) if event.resolution else None,
        event.note,
        event.entry_txid,
        event.request_key,
        event.fingerprint,
    )


def _of_pair(connection: Connection, acquirer: str, ref: bytes) -> bool:
    files = case_queries.case_files(connection, refs=[ref])
    return bool(files) and _close_of(connection, files[0]).key.acquirer == acquirer


def _take_break(
    connection: Connection, acquirer: str, member_id: str, event: CaseEvent, opened: OpenedBreak
) -> None:
    day = datetime.fromisoformat(opened.business_date).date()
    key = DayKey(acquirer, member_id, opened.currency, day)
    found = Break(
        BreakKind(opened.kind),
        opened.txid,
        fields=tuple(opened.fields),
        pair_seq=opened.pair_seq,
        lacking=opened.lacking,  # type: ignore[arg-type]
        other_date=datetime.fromisoformat(opened.other_date).date() if opened.other_date else None,
        first_txid=opened.first_txid,
        due_ms=opened.late_until_ms,
        detail={party: version.detail() for party, version in opened.versions.items()},
    )
    staged = queries.close_of(connection, key, opened.revision)
    why = "there is no such close"
    if staged is not None:
        why = contradiction(connection, staged.close, found) or ""
        if break_ref(key, opened.revision, found) != event.break_ref:
            why = "its reference is not the break's"
    if staged is None or why:
        raise CaseRefused(f"{acquirer}'s event {event.event_id} ({opened.kind}): {why}")
    late = opened.late_until_ms
    store.insert_break(
        connection,
        event.break_ref,
        staged.close.close_id,
        found,
        late_until=None if late is None else clock.to_datetime(late),
        due_at=clock.to_datetime(opened.due_ms),
        opened_at=clock.to_datetime(event.at_ms),
    )


def contradiction(connection: Connection, close: Close, found: Break) -> str | None:
    """What of a break this issuer's own rows contradict; None if it may be so."""
    if found.txid is None:
        return None
    rows = day_queries.rows_of(connection, close.key, close.party, [found.txid])
    mine = rows[0] if rows else None
    if found.kind is BreakKind.MISSING_AT_ISSUER and mine is not None:
        in_day = mine["business_date"] == close.key.business_date
        return "the transaction is here" if in_day else None
    if found.kind is BreakKind.MISSING_AT_ACQUIRER and mine is None:
        return "the transaction isn't here"
    if found.kind in (BreakKind.FIELD_MISMATCH, BreakKind.WRONG_DATE) and mine is None:
        return "the transaction isn't here"
    told = (found.detail or {}).get("issuer")
    if mine is not None and told is not None and told["commitment"] != mine["commitment"].hex():
        return "it gives this institution another commitment than it has"
    return None
