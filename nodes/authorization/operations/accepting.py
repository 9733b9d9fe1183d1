"""The acquirer's side: take terminals' requests in durably.

Two commits a batch: `open_batch` before the issuer is asked, recording.close_batch with its
answer. What stands between them survives a crash: forwarding.py finds it and reverses it.
Nothing is updated but the terminals' counters; a terminal's requests are opened one batch after
another, because its row is locked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from nodes import ids
from nodes.acquiring.model import Terminal
from nodes.acquiring.store import lock_terminals
from nodes.authorization import rules
from nodes.authorization.model import (
    FOLLOW_UPS,
    FORWARDED,
    AuthorizationRequest,
    Kind,
    Outcome,
    TerminalAnswer,
    TerminalRequest,
)
from nodes.authorization.operations.ending_offline import (
    note_chip,
    put_behind,
    read_asked_online,
)
from nodes.authorization.operations.opening import Acquirer, Opening
from nodes.authorization.operations.pending import (
    STAND_IN,
    Forward,
    Pending,
    date_of,
    decode_pending,
    decode_told,
    key_of_class,
    reversal_of,
    terminal_key,
)
from nodes.authorization.store import acquirer as books
from nodes.authorization.store import forwards
from nodes.authorization.store.acquirer import Connection, FoundOriginal
from nodes.authorization.store.requests import StoredRequest, stored_requests
from nodes.crypto.hsm import PinBlockInvalid
from nodes.crypto.offline_record import OfflineRecord, RecordMalformed, decode_record
from nodes.crypto.pan import mask
from nodes.db.writes import Writes, execute

__all__ = ["ORIGINALS_OF", "Acquirer", "Opening", "open_batch", "open_from_memory", "read_opening"]

_NO_RRN = "0" * 12
#: The kinds that a follow-up's original may have, by the follow-up's.
ORIGINALS_OF = {
    Kind.REFUND: frozenset({Kind.PURCHASE, Kind.CAPTURE, Kind.ADVICE}),
    Kind.CAPTURE: frozenset({Kind.AUTHORIZATION}),
    Kind.INCREMENT: frozenset({Kind.AUTHORIZATION}),
    Kind.VOID: frozenset({Kind.AUTHORIZATION, Kind.PURCHASE, Kind.CAPTURE, Kind.ADVICE}),
}


def open_batch(
    connection: Connection, acquirer: Acquirer, requests: Sequence[TerminalRequest]
) -> list[TerminalAnswer | Forward]:
    """Store what is new, answer what is known or refused here, and say what goes to the issuers.

    At most one request a (terminal, business date, batch, STAN) in a batch. Raises
    psycopg.errors.UniqueViolation if another batch was first with a key: call again.
    """
    with connection.transaction():
        opening = read_opening(connection, acquirer, requests)
        writes = Writes()
        opening.stage(writes, {})
        execute(connection, writes)
    return opening.results


def read_opening(
    connection: Connection, acquirer: Acquirer, requests: Sequence[TerminalRequest]
) -> Opening:
    """Lock the terminals, look up what is known, and say what each request comes to.

    For Opening.stage in the same transaction.
    """
    state = Opening(acquirer)
    readable: list[tuple[TerminalRequest, bytes]] = []
    refusals: list[Outcome | None] = []
    for request in requests:
        refused = rules.refuse_at_acquirer(request)
        refusals.append(refused)
        if refused is not Outcome.MALFORMED:
            readable.append((request, terminal_key(acquirer.member_id, request)))
    if readable:
        _read(connection, state, readable)
    _open_all(state, requests, readable, refusals)
    return state


def open_from_memory(
    acquirer: Acquirer,
    requests: Sequence[TerminalRequest],
    terminals: Mapping[str, Terminal],
    known: Mapping[bytes, StoredRequest],
) -> Opening:
    """As read_opening, on what is known of terminals and of recent requests by key.

    For payments, authorizations, balance inquiries and advices, which look nothing else up. The
    commit of what Opening.stage says fails with SerializationFailure or UniqueViolation if a
    terminal isn't as it was, or a key is taken: then open_batch is to be called.
    """
    state = Opening(acquirer)
    readable: list[tuple[TerminalRequest, bytes]] = []
    refusals: list[Outcome | None] = []
    for request in requests:
        refused = rules.refuse_at_acquirer(request)
        refusals.append(refused)
        if refused is not Outcome.MALFORMED:
            readable.append((request, terminal_key(acquirer.member_id, request)))
    state.terminals = {
        r.terminal_id: terminals[r.terminal_id] for r, _ in readable if r.terminal_id in terminals
    }
    state.stored = {key: known[key] for _, key in readable if key in known}
    state.expect(len(readable))
    _open_all(state, requests, readable, refusals)
    return state


def _open_all(
    state: Opening,
    requests: Sequence[TerminalRequest],
    readable: Sequence[tuple[TerminalRequest, bytes]],
    refusals: Sequence[Outcome | None],
) -> None:
    keys = iter(readable)
    for request, refused in zip(requests, refusals, strict=True):
        if refused is Outcome.MALFORMED:
            # What has no readable key can't be stored; it is refused in the same way each time.
            state.results.append(_refusal(request, Outcome.MALFORMED, _NO_RRN))
        else:
            state.results.append(_open_one(state, request, next(keys)[1], refused))


def _read(
    connection: Connection, state: Opening, readable: Sequence[tuple[TerminalRequest, bytes]]
) -> None:
    """Terminals first: who waited for one's lock then sees what the other batch has stored."""
    member_id = state.acquirer.member_id
    state.terminals = lock_terminals(connection, {r.terminal_id for r, _ in readable})
    wanted = [(key, date_of(r.business_date)) for r, key in readable]
    reversals = [r for r, _ in readable if r.kind is Kind.REVERSAL]
    # What was approved in an issuer's place is reversed in the place of what was asked.
    wanted += [
        (key_of_class(member_id, r, of), date_of(r.business_date))
        for r in reversals
        for of in ("request", STAND_IN)
    ]
    state.stored = stored_requests(connection, wanted, "acquirer")
    if reversals:
        txids = [row.txid for row in state.stored.values() if row.txid is not None]
        state.queued = books.queued_originals(connection, txids)
    named = [(r.merchant_id, r.rrn) for r, _ in readable if r.kind in ORIGINALS_OF and r.rrn]
    state.originals = books.approved_originals(connection, named)
    read_asked_online(connection, state, [r for r, _ in readable])
    _read_queues(connection, state, readable)
    state.acquirer.supply_numbers(connection, len(readable))
    state.expect(len(readable))


def _read_queues(
    connection: Connection, state: Opening, readable: Sequence[tuple[TerminalRequest, bytes]]
) -> None:
    """What stands before these: records at the same places, advices that still wait."""
    kinds = {request.kind for request, _ in readable}
    if not kinds & {Kind.REVERSAL, *FORWARDED}:
        return
    named = {row.txid for row in state.stored.values() if row.txid is not None}
    named |= {one.txid for found in state.originals.values() for one in found}
    state.undone = forwards.undone_groups(connection, named)
    records = [_record_of(request) for request, _ in readable if request.offline is not None]
    places = [(r.terminal_id, r.epoch, r.seq) for r in records if r is not None]
    if not places:
        return
    state.records = forwards.known_records(connection, state.acquirer.member_id, places)
    keys = [(one.idempotency_key, one.business_date) for one in state.records.values()]
    lacking = [(key, day) for key, day in keys if key not in state.stored]
    state.stored |= stored_requests(connection, lacking, "acquirer")


def _record_of(request: TerminalRequest) -> OfflineRecord | None:
    """The offline record of an advice, if it is well-formed and this message's."""
    try:
        record = decode_record(request.offline or b"")
    except RecordMalformed:
        return None
    fits = (record.terminal_id, record.amount, record.currency) == (
        request.terminal_id,
        request.amount,
        request.currency,
    )
    return record if fits and request.kind is Kind.ADVICE else None


def _open_one(
    state: Opening, request: TerminalRequest, key: bytes, refused: Outcome | None
) -> TerminalAnswer | Forward:
    known = state.stored.get(key)
    if known is not None:
        return _reopen(state, request, known)
    rrn = state.acquirer.rrns.popleft()
    terminal = state.terminals.get(request.terminal_id)
    if terminal is None:
        # No state for strangers: nothing of theirs is stored.
        return _refusal(request, Outcome.TERMINAL_NOT_PERMITTED, rrn)
    refusal = _refuse(request, terminal, refused)
    if refusal is not None:
        return state.answer(key, request, _refusal(request, refusal, rrn))
    if request.kind is Kind.REVERSAL:
        return _open_reversal(state, request, key, terminal, rrn)
    record = None
    if request.offline is not None:
        record = _record_of(request)
        if record is None:
            return state.answer(key, request, _refusal(request, Outcome.MALFORMED, rrn))
        told = _known_record(state, request, record, rrn)
        if told is not None:
            return told
    issuer = state.acquirer.route(request.pan)
    if issuer is None:
        return state.answer(key, request, _refusal(request, Outcome.ISSUER_UNKNOWN, rrn))
    original = None
    if request.kind in FOLLOW_UPS:
        original = _named(state, request)
        if original is None:
            return state.answer(key, request, _refusal(request, Outcome.ORIGINAL_NOT_FOUND, rrn))
    elif request.rrn:
        rrn = request.rrn
    try:
        pin_block = _translated(state.acquirer, issuer, request)
    except PinBlockInvalid:
        return state.answer(key, request, _refusal(request, Outcome.MALFORMED, rrn))
    made = _new_request(state, request, terminal, issuer, rrn, original)
    kept = Pending(made, mask(request.pan), terminal.merchant_account)
    if original is not None:
        kept = msgspec.structs.replace(
            kept, original_kind=original.kind, original_amount=original.amount
        )
    if record is not None:
        state.note_record(key, kept, record)
    if request.icc is not None:
        note_chip(state, key, request, made.txid)
    whole = _whole(made, request, pin_block)
    if request.kind in FORWARDED:
        behind = put_behind(state, request) if request.kind is Kind.ADVICE else None
        state.queue_forward(key, request, kept, behind)
        if behind is not None or (original is not None and original.txid in state.undone):
            # What stands before it still waits for the issuer, and so does this.
            return state.take_in(key, request, kept)
    return state.forward(key, request, whole, kept)


def _known_record(
    state: Opening, request: TerminalRequest, record: OfflineRecord, rrn: str
) -> TerminalAnswer | None:
    """What is told of a record whose place in the terminal's chain is taken; None if it isn't."""
    known = state.records.get((record.terminal_id, record.epoch, record.seq))
    if known is None:
        return None
    if known.record_hash != record.hash:
        state.alarm("fork", record, "another record stands at this place of the terminal's chain")
        return _refusal(request, Outcome.KEY_REUSED, _NO_RRN)
    first = state.stored.get(known.idempotency_key)
    if first is not None and first.answer is not None:
        return decode_told(first.answer)
    # It came by another message, which still waits for its answer: it is taken in, as that is.
    return TerminalAnswer(
        outcome=Outcome.APPROVED, rrn=rrn, amount=request.amount, currency=request.currency
    )


def _reopen(
    state: Opening, request: TerminalRequest, known: StoredRequest
) -> TerminalAnswer | Forward:
    """A repeat: the stored answer, or the same request to the issuer once more."""
    if known.is_bar:
        return _refusal(request, Outcome.REVERSED_BEFORE_ARRIVAL, _NO_RRN)
    if known.fingerprint != request.fingerprint:
        return _refusal(request, Outcome.KEY_REUSED, _NO_RRN)
    if known.answer is not None:
        return decode_told(known.answer)
    if known.request is None:
        raise RuntimeError("a pending request without its content")
    pending = decode_pending(known.request)
    whole = pending.request
    if whole.kind is not Kind.REVERSAL:
        pin_block = _translated(state.acquirer, whole.issuer, request)
        whole = _whole(whole, request, pin_block)
    return Forward(known.key, known.business_date, whole, pending, None)


def _whole(
    kept: AuthorizationRequest, request: TerminalRequest, pin_block: bytes | None
) -> AuthorizationRequest:
    """The request as its issuer gets it: with what of the card isn't kept here."""
    if request.icc is None and request.track2 is None and request.cvv2 is None:
        return msgspec.structs.replace(kept, pan=request.pan, pin_block=pin_block)
    return msgspec.structs.replace(
        kept,
        pan=request.pan,
        pin_block=pin_block,
        icc=request.icc,
        card_sequence=request.card_sequence,
        track2=request.track2,
        cvv2=request.cvv2,
    )


def _refuse(
    request: TerminalRequest, terminal: Terminal, by_message: Outcome | None
) -> Outcome | None:
    if terminal.terminal_status != "active":
        return Outcome.TERMINAL_NOT_PERMITTED
    if terminal.merchant_id != request.merchant_id or terminal.merchant_status != "active":
        return Outcome.MERCHANT_NOT_PERMITTED
    if by_message is None and request.currency != terminal.currency:
        return Outcome.CURRENCY_NOT_PERMITTED
    return by_message


def _named(state: Opening, request: TerminalRequest) -> FoundOriginal | None:
    """The approved transaction that a follow-up names; None too where several would do."""
    found = state.originals.get((request.merchant_id, request.rrn or ""), ())
    fitting = [one for one in found if one.kind in ORIGINALS_OF[request.kind]]
    return fitting[0] if len(fitting) == 1 else None


def _translated(acquirer: Acquirer, issuer: str, request: TerminalRequest) -> bytes | None:
    """The PIN block under the issuer's zone key; on us it stays as the gateway sent it."""
    if request.pin_block is None or issuer == acquirer.member_id:
        return request.pin_block
    return acquirer.hsm.translate_pin(
        "zone:gateway", f"zone:{issuer}", request.pin_block, request.pan
    )


def _open_reversal(
    state: Opening, request: TerminalRequest, key: bytes, terminal: Terminal, rrn: str
) -> TerminalAnswer | Forward:
    original_key = key_of_class(state.acquirer.member_id, request, "request")
    unseen = state.stored.get(key_of_class(state.acquirer.member_id, request, STAND_IN))
    original = state.stored.get(original_key) if unseen is None else unseen
    if original is None:
        # The original may still come: its key is barred.
        state.bar(original_key, request)
    if original is None or original.request is None or original.txid in state.queued:
        # Never seen, never sent to an issuer, or its reversal is on its way already.
        return state.answer(key, request, _reversed(request, rrn))
    pending = decode_pending(original.request)
    asked = pending.request
    told = decode_told(original.answer) if original.answer is not None else None
    refusal = _refuse_reversal(request, asked, told)
    if refusal is not None:
        return state.answer(key, request, _refusal(request, refusal, asked.rrn))
    if told is None:
        # The terminal waits no longer: whatever the issuer still answers is reversed.
        lost = _refusal(request, Outcome.ISSUER_UNAVAILABLE, asked.rrn)
        state.answer_late(original_key, original.business_date, lost)
    elif told.outcome is not Outcome.APPROVED:
        return state.answer(key, request, _reversed(request, asked.rrn))
    kept = reversal_of(
        pending,
        terminal_seq=state.next_seq(terminal),
        amount=request.amount,
        now_ms=state.now_ms,
        deadline_ms=request.deadline_ms,
    )
    state.queue(kept, asked)
    if asked.txid in state.undone:
        # The original still waits for its issuer: its reversal goes there behind it.
        return state.answer(key, request, _reversed(request, asked.rrn))
    return state.forward(key, request, kept.request, kept)


def _refuse_reversal(
    request: TerminalRequest, asked: AuthorizationRequest, told: TerminalAnswer | None
) -> Outcome | None:
    if request.amount > asked.amount:
        return Outcome.OVER_ORIGINAL_AMOUNT
    if request.currency != asked.currency:
        return Outcome.ORIGINAL_MISMATCH
    if request.amount != asked.amount and told is None:
        # Nobody was told of an approval, so there is nothing of which a part could stand.
        return Outcome.ORIGINAL_MISMATCH
    return None


def _new_request(
    state: Opening,
    request: TerminalRequest,
    terminal: Terminal,
    issuer: str,
    rrn: str,
    original: FoundOriginal | None,
) -> AuthorizationRequest:
    member_id, drawn = state.acquirer.member_id, state.random()
    network_ref = drawn[:16]
    return AuthorizationRequest(
        txid=ids.txid(member_id, issuer, network_ref),
        network_ref=network_ref,
        acquirer=member_id,
        issuer=issuer,
        kind=request.kind,
        amount=request.amount,
        currency=request.currency,
        pan=None,
        expiry=request.expiry,
        service_code=request.service_code,
        entry_mode=request.entry_mode,
        merchant_id=request.merchant_id,
        merchant_name=terminal.merchant_name,
        mcc=terminal.mcc,
        country=terminal.country,
        terminal_id=request.terminal_id,
        terminal_seq=state.next_seq(terminal),
        business_date=request.business_date,
        batch=request.batch,
        stan=request.stan,
        rrn=rrn,
        transmitted_ms=state.now_ms,
        local_time=request.local_time,
        salt_fin=drawn[16:48],
        salt_pii=drawn[48:],
        original_txid=original.txid if original is not None else None,
        channel=request.channel,
        partial_ok=request.partial_ok,
        final=request.final,
        deadline_ms=request.deadline_ms,
        advice=request.advice,
        offline=request.offline,
    )


def _refusal(request: TerminalRequest, outcome: Outcome, rrn: str) -> TerminalAnswer:
    return TerminalAnswer(outcome=outcome, rrn=rrn, currency=request.currency)


def _reversed(request: TerminalRequest, rrn: str) -> TerminalAnswer:
    return TerminalAnswer(
        outcome=Outcome.APPROVED, rrn=rrn, amount=request.amount, currency=request.currency
    )
