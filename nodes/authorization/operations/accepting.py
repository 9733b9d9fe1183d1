"""The acquirer's side: take terminals' requests in durably.

Two commits a batch: `open_batch` before the issuer is asked, recording.close_batch with its
answer. What stands between them survives a crash: forwarding.py finds it and reverses it.
Nothing is updated but the terminals' counters; a terminal's requests are opened one batch after
another, because its row is locked.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

import msgspec

from nodes import clock, ids
from nodes.acquiring.model import Terminal
from nodes.acquiring.store import advance_terminals, lock_terminals
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
from nodes.authorization.operations.pending import (
    Forward,
    OpenBatch,
    Pending,
    date_of,
    decode_pending,
    decode_told,
    encode_pending,
    encode_told,
    key_of_class,
    reversal_of,
    terminal_key,
)
from nodes.authorization.store import acquirer as books
from nodes.authorization.store import forwards
from nodes.authorization.store.acquirer import Connection, FoundOriginal, QueuedReversal
from nodes.authorization.store.forwards import Alarm, KnownRecord, OfflineRow, QueuedForward
from nodes.authorization.store.requests import StoredRequest, insert_requests, stored_requests
from nodes.crypto.hsm import Hsm, PinBlockInvalid
from nodes.crypto.offline_record import OfflineRecord, RecordMalformed, decode_record
from nodes.crypto.pan import PanVault, mask
from nodes.db.writes import Writes, execute
from nodes.ledger.store import TransactionIds, open_transaction_ids

#: How long after a deadline the store-and-forward queue takes a reversal over.
_HAND_OVER_MS = 1_000
#: Retrieval references that are fetched at once; those left at the end of a process are lost.
_RRNS = 8_192
_NO_RRN = "0" * 12
#: The kinds that a follow-up's original may have, by the follow-up's.
ORIGINALS_OF = {
    Kind.REFUND: frozenset({Kind.PURCHASE, Kind.CAPTURE, Kind.ADVICE}),
    Kind.CAPTURE: frozenset({Kind.AUTHORIZATION}),
    Kind.INCREMENT: frozenset({Kind.AUTHORIZATION}),
    Kind.VOID: frozenset({Kind.AUTHORIZATION, Kind.PURCHASE, Kind.CAPTURE, Kind.ADVICE}),
}


@dataclass
class Acquirer:
    """What an acquirer works with. One instance serves one connection's thread."""

    member_id: str
    hsm: Hsm
    clock: clock.Clock
    #: The issuer of a card number by the directory's BIN ranges; None if there is none.
    route: Callable[[str], str | None]
    #: Settlement accounts by issuer and currency, filled as issuers appear.
    settlement: dict[tuple[str, str], int] = field(default_factory=dict)
    #: Retrieval references in stock.
    rrns: deque[str] = field(default_factory=deque)
    #: Ids of transactions and of open batches, once there was a connection.
    ids: TransactionIds | None = None
    #: Open batches that have all their answers; the next commit forgets them.
    finished: list[int] = field(default_factory=list)
    #: Seals the card numbers of advices that wait for their issuer. Without it none are taken in
    #: for an issuer that is away.
    vault: PanVault | None = None

    def lacks_numbers(self, count: int) -> bool:
        """Whether there are too few for `count` requests."""
        return len(self.rrns) < count or self.ids is None

    def supply_numbers(self, connection: Connection, count: int) -> None:
        """See that there are ids, and retrieval references for `count` requests."""
        if len(self.rrns) < count:
            self.rrns.extend(books.next_rrns(connection, max(_RRNS, count)))
        if self.ids is None:
            self.ids = open_transaction_ids(connection)

    def take_ids(self, count: int) -> list[int]:
        """Ids in the order of time; supply_numbers must have been called."""
        if self.ids is None:
            raise RuntimeError("no ids")
        return self.ids.take(count)


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


class Opening:
    """What a batch of terminals' requests comes to, before any of it is written.

    `results` has an answer or a Forward for each request, in order.
    """

    def __init__(self, acquirer: Acquirer) -> None:
        self.acquirer = acquirer
        self.now_ms = acquirer.clock.now_ms()
        self.results: list[TerminalAnswer | Forward] = []
        self.stored: dict[bytes, StoredRequest] = {}
        self.terminals: dict[str, Terminal] = {}
        self.originals: dict[tuple[str, str], list[FoundOriginal]] = {}
        self.queued: set[bytes] = set()
        self.batch = OpenBatch()
        #: The last number that each terminal is given.
        self.last_seqs: dict[str, int] = {}
        self._rows: list[StoredRequest] = []
        #: New requests that go on to their issuers.
        self.waiting: list[StoredRequest] = []
        self._reversals: list[QueuedReversal] = []
        self._late: dict[bytes, tuple[date, bytes]] = {}
        self._random: Iterator[bytes] = iter(())
        #: Records known at the places that these requests name; txids that still wait in a queue.
        self.records: dict[forwards.Place, KnownRecord] = {}
        self.undone: set[bytes] = set()
        self._forwards: list[QueuedForward] = []
        self._new_records: list[OfflineRow] = []
        self._alarms: list[Alarm] = []

    def stage(self, writes: Writes, answers: dict[bytes, tuple[date, bytes]]) -> None:
        """What it writes.

        `answers` (business date and exact answer by key): of requests that were decided in this
        very transaction (on us). Those that are stored here are taken out of it; they stand with
        their requests and wait in no open batch.
        """
        advance_terminals(
            writes,
            {name: (self.terminals[name].last_seq, last) for name, last in self.last_seqs.items()},
            in_use=True,
        )
        books.insert_answers(writes, self._late)
        rows = self._rows
        waiting: list[StoredRequest] = []
        for row in self.waiting:
            answered = answers.pop(row.key, None)
            if answered is None:
                waiting.append(row)
                rows.append(row)
            else:
                rows.append(msgspec.structs.replace(row, answer=answered[1]))
        insert_requests(writes, "acquirer", rows)
        books.queue_reversals(writes, self._reversals)
        forwards.queue_forwards(writes, self._forwards)
        forwards.append_records(writes, self._new_records)
        forwards.append_alarms(writes, self._alarms)
        number = None
        if waiting:
            [number] = self.acquirer.take_ids(1)
            books.insert_open_batch(
                writes,
                number,
                max(row.deadline_ms for row in waiting),
                [(row.key, row.business_date) for row in waiting],
            )
        self.batch.opened(number, len(self.waiting))

    @property
    def writes_anything(self) -> bool:
        """Whether there is something to commit."""
        return bool(self._rows or self.waiting or self._reversals or self._late or self._alarms)

    # --- what one request comes to -------------------------------------------------------------

    def expect(self, count: int) -> None:
        """Draw the random bytes of `count` new requests at once: a call costs more than bytes."""
        drawn = secrets.token_bytes(80 * count)
        self._random = iter([drawn[start : start + 80] for start in range(0, 80 * count, 80)])

    def random(self) -> bytes:
        """80 random bytes: network_ref (16), salt_fin (32), salt_pii (32)."""
        return next(self._random)

    def next_seq(self, terminal: Terminal) -> int:
        """The terminal's next number; it counts only with the commit."""
        number = self.last_seqs.get(terminal.terminal_id, terminal.last_seq) + 1
        self.last_seqs[terminal.terminal_id] = number
        return number

    def answer(
        self, key: bytes, request: TerminalRequest, answer: TerminalAnswer
    ) -> TerminalAnswer:
        """Store a new request with the answer that it gets at once."""
        self._rows.append(_row(key, request, None, None, None, encode_told(answer)))
        return answer

    def bar(self, key: bytes, request: TerminalRequest) -> None:
        """Bar a key: its reversal came first."""
        barred = _row(key, request, None, None, None, None)
        self._rows.append(msgspec.structs.replace(barred, fingerprint=bytes(32)))

    def answer_late(self, key: bytes, request: TerminalRequest, answer: TerminalAnswer) -> None:
        """Answer a request that still waits: its terminal does no longer."""
        self._late[key] = (date_of(request.business_date), encode_told(answer))

    def forward(
        self, key: bytes, request: TerminalRequest, whole: AuthorizationRequest, kept: Pending
    ) -> Forward:
        """Store a new request that goes on to its issuer."""
        asked = kept.request
        blob = encode_pending(kept)
        self.waiting.append(_row(key, request, asked.txid, asked.issuer, blob, None))
        return Forward(key, date_of(request.business_date), whole, kept, self.batch)

    def take_in(self, key: bytes, request: TerminalRequest, kept: Pending) -> TerminalAnswer:
        """Store a new request that goes to its issuer behind others, with the terminal's answer."""
        asked = kept.request
        told = TerminalAnswer(
            outcome=Outcome.APPROVED,
            rrn=asked.rrn,
            currency=asked.currency,
            amount=asked.amount,
            txid=asked.txid,
        )
        blob = encode_pending(kept)
        self._rows.append(_row(key, request, asked.txid, asked.issuer, blob, encode_told(told)))
        return told

    def queue_forward(self, key: bytes, request: TerminalRequest, kept: Pending) -> None:
        """Have the store-and-forward queue see to what has happened already."""
        vault, asked = self.acquirer.vault, kept.request
        if vault is None:
            return
        self._forwards.append(
            QueuedForward(
                asked.txid,
                asked.original_txid or asked.txid,
                asked.issuer,
                asked.terminal_id,
                asked.batch,
                key,
                date_of(request.business_date),
                encode_pending(kept),
                vault.seal(request.pan, asked.txid),
                asked.deadline_ms + _HAND_OVER_MS,
            )
        )

    def note_record(self, key: bytes, kept: Pending, record: OfflineRecord) -> None:
        """The offline record that a new request carries."""
        asked = kept.request
        day = date_of(asked.business_date)
        row = OfflineRow("acquirer", asked.acquirer, record, self.now_ms, asked.txid, key, day)
        self._new_records.append(row)
        self.records[record.terminal_id, record.epoch, record.seq] = KnownRecord(
            record.hash, key, day
        )

    def alarm(self, kind: str, record: OfflineRecord, detail: str) -> None:
        """An alarm about a terminal's record."""
        self._alarms.append(
            Alarm(
                kind,
                "acquirer",
                record.terminal_id,
                detail,
                self.now_ms,
                record.epoch,
                record.seq,
                record.card_key_id,
                record.atc,
            )
        )

    def queue(self, kept: Pending, original: AuthorizationRequest) -> None:
        """Have the store-and-forward queue see to a reversal that the terminal asked for."""
        made = kept.request
        self._reversals.append(
            QueuedReversal(
                original.txid,
                made.issuer,
                "terminal",
                encode_pending(kept),
                made.deadline_ms + _HAND_OVER_MS,
            )
        )


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
    wanted += [(key_of_class(member_id, r, "request"), date_of(r.business_date)) for r in reversals]
    state.stored = stored_requests(connection, wanted, "acquirer")
    if reversals:
        txids = [row.txid for row in state.stored.values() if row.txid is not None]
        state.queued = books.queued_originals(connection, txids)
    named = [(r.merchant_id, r.rrn) for r, _ in readable if r.kind in ORIGINALS_OF and r.rrn]
    state.originals = books.approved_originals(connection, named)
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
    whole = _whole(made, request, pin_block)
    if request.kind in FORWARDED:
        state.queue_forward(key, request, kept)
        if original is not None and original.txid in state.undone:
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
    original = state.stored.get(original_key)
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
        state.answer_late(original_key, request, lost)
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


def _row(
    key: bytes,
    request: TerminalRequest,
    txid: bytes | None,
    issuer: str | None,
    blob: bytes | None,
    answer: bytes | None,
) -> StoredRequest:
    return StoredRequest(
        key,
        date_of(request.business_date),
        request.fingerprint,
        txid,
        issuer,
        blob,
        answer,
        request.deadline_ms,
    )


def _refusal(request: TerminalRequest, outcome: Outcome, rrn: str) -> TerminalAnswer:
    return TerminalAnswer(outcome=outcome, rrn=rrn, currency=request.currency)


def _reversed(request: TerminalRequest, rrn: str) -> TerminalAnswer:
    return TerminalAnswer(
        outcome=Outcome.APPROVED, rrn=rrn, amount=request.amount, currency=request.currency
    )
