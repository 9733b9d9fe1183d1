"""Close a terminal's batch: its totals against the books; where they differ, item by item.

One commit a message. What a difference is put right by is either in the same commit (a reversal in
the store-and-forward queue) or comes by the normal path under the item's own key (an advice): a
repeat after a crash finds it, and nothing is posted twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import date

import msgspec
import psycopg

from nodes import ids
from nodes.acquiring.store import lock_terminals
from nodes.authorization.model import Kind, Outcome, TerminalAnswer, TerminalRequest
from nodes.authorization.operations.accepting import Acquirer
from nodes.authorization.operations.pending import STAND_IN, Pending, date_of, decode_pending
from nodes.authorization.operations.recording import Recording
from nodes.authorization.rules import batches as rules
from nodes.authorization.rules.batches import Action, Item, Line, Verdict
from nodes.authorization.rules.stand_in import STAND_IN_MARK
from nodes.authorization.services import (
    CurrencyTotals,
    ServiceAnswer,
    ServiceOutcome,
    ServiceRequest,
)
from nodes.authorization.store import batches as store
from nodes.authorization.store.batches import Connection, StoredClose, Unclosed
from nodes.authorization.store.requests import stored_requests

_CLOSED = ("equal", "adjusted")


class Comparing(msgspec.Struct, frozen=True):
    """An uploaded item with what is to be done about it, before it is done."""

    session: int
    item: Item
    verdict: Verdict
    line: Line | None
    #: What is to be posted for it.
    advice: TerminalRequest | None


def refuse_terminal(connection: Connection, request: ServiceRequest) -> ServiceAnswer | None:
    """Lock the terminal: its messages come one after another. Why it may not ask, or None."""
    terminal = lock_terminals(connection, [request.terminal_id]).get(request.terminal_id)
    if terminal is None or terminal.terminal_status != "active":
        return _answer(ServiceOutcome.TERMINAL_NOT_PERMITTED)
    if terminal.merchant_id != request.merchant_id or terminal.merchant_status != "active":
        return _answer(ServiceOutcome.MERCHANT_NOT_PERMITTED)
    return None


def close_batch(
    connection: Connection, acquirer: Acquirer, request: ServiceRequest
) -> ServiceAnswer:
    """The answer to a 0500, durable."""
    reported = tuple(one for one in sorted(request.totals) if _any(one))
    day = date_of(request.business_date)
    recording = Recording(acquirer, acquirer.clock.now_ms())
    with connection.transaction():
        refusal = refuse_terminal(connection, request)
        if refusal is not None:
            return refusal
        terminal_id, batch = request.terminal_id, request.batch
        known = store.close_under(connection, terminal_id, day, batch, request.stan)
        if known is not None:
            if known.fingerprint != request.fingerprint:
                return _answer(ServiceOutcome.KEY_REUSED)
            return _told(known.outcome, batch, known.booked)
        earlier = store.closes_of(connection, terminal_id, batch)
        unclosed = _unclosed(connection, terminal_id, batch)
        last = earlier[-1] if earlier else None
        closed = last is not None and last.outcome in _CLOSED and not unclosed
        if last is not None and closed and last.reported == reported:
            return _told(last.outcome, batch, last.booked)
        lines = [one.line for one in unclosed]
        booked = rules.totals_of(lines)
        session = _session(earlier)
        outcome = _outcome(connection, session, reported, booked)
        close_id = store.insert_close(
            connection,
            terminal_id=terminal_id,
            batch=batch,
            day=day,
            stan=request.stan,
            fingerprint=request.fingerprint,
            outcome=outcome,
            reported=reported,
            booked=booked,
            at_ms=recording.now_ms,
        )
        if outcome in _CLOSED:
            if outcome == "adjusted" and session is not None:
                _adjust_missing(connection, recording, session, unclosed)
            numbers = [line.transaction_id for line in lines if line.transaction_id is not None]
            store.mark_closed(connection, terminal_id, batch, numbers, close_id)
            waiting = [line.txid for line in lines if line.transaction_id is None]
            store.mark_forwards_closed(connection, waiting, close_id)
        if recording.needs_reads:
            recording.write(connection)
    recording.committed()
    return _told(outcome, batch, booked)


def begin_upload(
    connection: Connection, acquirer: Acquirer, request: ServiceRequest
) -> ServiceAnswer | Comparing:
    """Compare a 0320 with the books; the answer, if it is a repeat or unexpected."""
    asked = request.item
    if asked is None:
        return _answer(ServiceOutcome.NOT_EXPECTED)
    with connection.transaction():
        refusal = refuse_terminal(connection, request)
        if refusal is not None:
            return refusal
        session = _session(store.closes_of(connection, request.terminal_id, request.batch))
        if session is None:
            return _answer(ServiceOutcome.NOT_EXPECTED)
        key = (asked.stan, asked.business_date)
        known = store.findings_of(connection, session.close_id).get(key)
        if known is not None:
            same = known.fingerprint == request.fingerprint
            return _answer(ServiceOutcome.DONE if same else ServiceOutcome.KEY_REUSED)
        lines = [one.line for one in _unclosed(connection, request.terminal_id, request.batch)]
    item = Item(asked.kind, asked.amount, asked.currency, asked.stan, asked.business_date)
    line = next((one for one in lines if (one.stan, one.business_date) == key), None)
    verdict = rules.compare(item, line)
    advice = _advice(asked, verdict, line) if verdict.action is Action.POSTED else None
    return Comparing(session.close_id, item, verdict, line, advice)


def end_upload(
    connection: Connection,
    acquirer: Acquirer,
    request: ServiceRequest,
    comparing: Comparing,
    posted: TerminalAnswer | None,
) -> ServiceAnswer:
    """Store what an item came to; `posted`: what became of its advice."""
    verdict, txid = comparing.verdict, None
    if verdict.action is Action.POSTED:
        if posted is None or posted.outcome is not Outcome.APPROVED:
            verdict = msgspec.structs.replace(verdict, action=Action.FLAGGED, amount=0)
        else:
            txid = posted.txid
    recording = Recording(acquirer, acquirer.clock.now_ms())
    try:
        with connection.transaction():
            if verdict.action is Action.REVERSED and comparing.line is not None:
                txid = comparing.line.txid
                if not _reverse(connection, recording, comparing.line, verdict.amount):
                    verdict = msgspec.structs.replace(verdict, action=Action.FLAGGED, amount=0)
            _insert(
                connection, comparing.session, comparing.item, verdict, txid, request, recording
            )
            if recording.needs_reads:
                recording.write(connection)
    except psycopg.errors.UniqueViolation:
        return _answer(ServiceOutcome.DONE)  # the same item, by two connections at once
    recording.committed()
    return _answer(ServiceOutcome.DONE)


# --- parts ---------------------------------------------------------------------------------------


def _outcome(
    connection: Connection,
    session: StoredClose | None,
    reported: tuple[CurrencyTotals, ...],
    booked: tuple[CurrencyTotals, ...],
) -> str:
    """Equal; closed after an upload that says what the totals say; or (still) different."""
    if session is not None and session.reported == reported:
        items = store.findings_of(connection, session.close_id).values()
        if rules.totals_of(one.item for one in items if one.item.amount) == reported:
            return "adjusted"
    return "equal" if reported == booked else "differs"


def _session(closes: Sequence[StoredClose]) -> StoredClose | None:
    """The first close since the last good one that found a difference: its upload is awaited."""
    found = None
    for one in reversed(closes):
        if one.outcome in _CLOSED:
            break
        found = one
    return found


def _unclosed(connection: Connection, terminal_id: str, batch: str) -> list[Unclosed]:
    """The books' lines, what is taken in for issuers that are away, and queued reversals."""
    found: list[Unclosed] = []
    for one in store.unclosed_lines(connection, terminal_id, batch):
        line = one.line
        if one.queued is not None:
            queued = decode_pending(one.queued).request.amount
            line = msgspec.structs.replace(line, amount=max(0, line.amount - queued))
        found.append(Unclosed(line, one.gross, one.queued))
    for blob in store.undone_forwards(connection, terminal_id, batch):
        asked = decode_pending(blob).request
        line = Line(
            asked.txid, asked.kind, asked.amount, asked.currency, asked.stan, asked.business_date
        )
        found.append(Unclosed(line, asked.amount, None))
    # The terminal knows what was approved in an issuer's place by the STAN that it gave.
    return [
        msgspec.structs.replace(
            one,
            line=msgspec.structs.replace(one.line, stan=one.line.stan.removesuffix(STAND_IN_MARK)),
        )
        if one.line.stan.endswith(STAND_IN_MARK)
        else one
        for one in found
    ]


def _adjust_missing(
    connection: Connection,
    recording: Recording,
    session: StoredClose,
    unclosed: Sequence[Unclosed],
) -> None:
    """What the terminal doesn't know of is reversed or flagged."""
    known = store.findings_of(connection, session.close_id)
    lines = [one.line for one in unclosed]
    for line in rules.missing_there(lines, known):
        verdict = rules.unknown_there(line)
        if verdict.action is Action.REVERSED and not _reverse(
            connection, recording, line, verdict.amount
        ):
            verdict = msgspec.structs.replace(verdict, action=Action.FLAGGED, amount=0)
        item = Item(line.kind, 0, line.currency, line.stan, line.business_date)
        _insert(connection, session.close_id, item, verdict, line.txid, None, recording)


def _reverse(connection: Connection, recording: Recording, line: Line, amount: int) -> bool:
    """Queue the reversal of an amount of a line; False if its request can't be found."""
    pending = _pending(connection, recording.acquirer, line)
    if pending is None:
        return False
    recording.reverse(pending, "batch close", amount)
    return True


def _pending(connection: Connection, acquirer: Acquirer, line: Line) -> Pending | None:
    row = connection.execute(
        "SELECT terminal_id, batch, stan FROM transactions WHERE txid = %s AND side = 'acquirer'",
        (line.txid,),
    ).fetchone()
    if row is None:
        return None
    of = STAND_IN if row[2].endswith(STAND_IN_MARK) else "request"
    key = ids.idempotency_key(acquirer.member_id, row[0], line.business_date, row[1], line.stan, of)
    day = date.fromisoformat(line.business_date)
    stored = stored_requests(connection, [(key, day)], "acquirer").get(key)
    if stored is None or stored.request is None:
        return None
    return decode_pending(stored.request)


def _advice(item: TerminalRequest, verdict: Verdict, line: Line | None) -> TerminalRequest:
    """What posts a missing item (under its own key) or a difference (under one of its own)."""
    advice = msgspec.structs.replace(
        item, kind=Kind.ADVICE, amount=verdict.amount, pin_block=None, partial_ok=False, rrn=None
    )
    if line is not None and line.amount:
        advice = msgspec.structs.replace(
            advice,
            stan=item.stan + rules.DIFFERENCE_MARK,
            # What card and chip have signed is the whole, not the difference.
            offline=None,
            icc=None,
        )
    if item.kind is Kind.ADVICE and line is None:
        return advice  # the very message, should it still come by itself
    content = hashlib.sha256(b"countersign/batch/1" + item.fingerprint).digest()
    return msgspec.structs.replace(advice, fingerprint=content)


def _insert(
    connection: Connection,
    session: int,
    item: Item,
    verdict: Verdict,
    txid: bytes | None,
    request: ServiceRequest | None,
    recording: Recording,
) -> None:
    store.insert_finding(
        connection,
        session,
        item,
        verdict.finding,
        verdict.action,
        booked=verdict.booked,
        adjusted=verdict.amount,
        txid=txid,
        fingerprint=request.fingerprint if request is not None else bytes(32),
        at_ms=recording.now_ms,
    )


def _any(totals: CurrencyTotals) -> bool:
    return any((totals.debits, totals.debit_amount, totals.credits, totals.credit_amount))


def _told(outcome: str, batch: str, booked: tuple[CurrencyTotals, ...]) -> ServiceAnswer:
    if outcome in _CLOSED:
        return ServiceAnswer(outcome=ServiceOutcome.DONE, next_batch=rules.next_batch(batch))
    return ServiceAnswer(outcome=ServiceOutcome.DIFFERS, totals=booked)


def _answer(outcome: ServiceOutcome) -> ServiceAnswer:
    return ServiceAnswer(outcome=outcome)
