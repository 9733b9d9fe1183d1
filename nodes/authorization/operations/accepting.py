"""The acquirer's side: take terminals' requests in durably, and record what the issuers answered.

Two commits a batch: `open_batch` before the issuer is asked, `close_batch` with its answer. What
stands between them survives a crash: forwarding.py finds it and reverses it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec
import structlog

from nodes import clock, ids
from nodes.acquiring.model import Terminal
from nodes.acquiring.store import lock_terminals, write_sequences
from nodes.authorization import rules, store
from nodes.authorization.model import (
    AuthorizationAnswer,
    AuthorizationRequest,
    Kind,
    Outcome,
    TerminalAnswer,
    TerminalRequest,
)
from nodes.authorization.operations.issuing import shared_facts, transaction_record
from nodes.authorization.store import Connection, QueuedReversal, StoredRequest
from nodes.crypto.commitment import shared_commitment
from nodes.crypto.hsm import Hsm, PinBlockInvalid
from nodes.crypto.pan import mask
from nodes.ledger.model import AccountKey, TransactionRecord, Transfer
from nodes.ledger.store import find_or_open_accounts, record_transactions

log = structlog.get_logger(__name__)

#: How long after a deadline the store-and-forward queue takes a reversal over.
_HAND_OVER_MS = 1_000


class Pending(msgspec.Struct, frozen=True):
    """What the acquirer keeps of a request while it is under way: no PAN, no PIN block."""

    request: AuthorizationRequest
    pan_masked: str
    merchant_account: int

    def __repr__(self) -> str:
        return f"Pending({self.request!r})"


class Forward(msgspec.Struct, frozen=True):
    """A request for its issuer; `request` carries PAN and PIN block, `pending` doesn't."""

    key: bytes
    request: AuthorizationRequest
    pending: Pending

    def __repr__(self) -> str:
        return f"Forward({self.request!r})"


class Closing(msgspec.Struct, frozen=True):
    """A forwarded request and the issuer's answer; None: none came in time."""

    key: bytes
    pending: Pending
    answer: AuthorizationAnswer | None


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


@dataclass
class _Opening:
    """The working state of open_batch."""

    now_ms: int
    stored: dict[bytes, StoredRequest]
    terminals: dict[str, Terminal]
    rrns: list[str]
    purchases: dict[tuple[str, str], bytes | None]
    queued: set[bytes]
    last_seqs: dict[str, int] = field(default_factory=dict)
    requests: list[StoredRequest] = field(default_factory=list)
    reversals: list[QueuedReversal] = field(default_factory=list)
    late_answers: dict[bytes, bytes] = field(default_factory=dict)


def terminal_key(acquirer: str, request: TerminalRequest) -> bytes:
    """The idempotency key of a terminal's message."""
    return _key(acquirer, request, "reversal" if request.kind is Kind.REVERSAL else "request")


def _key(
    acquirer: str, request: TerminalRequest | AuthorizationRequest, message_class: str
) -> bytes:
    return ids.idempotency_key(
        acquirer,
        request.terminal_id,
        request.business_date,
        request.batch,
        request.stan,
        message_class,
    )


def open_batch(
    connection: Connection, acquirer: Acquirer, requests: Sequence[TerminalRequest]
) -> list[TerminalAnswer | Forward]:
    """Store what is new, answer what is known or refused here, and say what goes to the issuers.

    At most one request a (terminal, business date, batch, STAN) in a batch. Raises
    psycopg.errors.UniqueViolation if another batch was first with a key: call again.
    """
    results: list[TerminalAnswer | Forward | None] = []
    for request in requests:
        refusal = rules.refuse_at_acquirer(request)
        # What has no readable key can't be stored; it is refused in the same way each time.
        unreadable = refusal is Outcome.MALFORMED
        results.append(_refusal(request, Outcome.MALFORMED, "0" * 12) if unreadable else None)
    readable = [p for p, result in enumerate(results) if result is None]
    with connection.transaction():
        state = _read(connection, acquirer, [requests[p] for p in readable])
        for position in readable:
            request = requests[position]
            results[position] = _open_one(acquirer, request, state)
        store.store_answers(connection, "acquirer", state.late_answers)
        store.insert_requests(connection, "acquirer", state.requests)
        store.queue_reversals(connection, state.reversals)
        write_sequences(connection, state.last_seqs)
    return [result for result in results if result is not None]


def _read(
    connection: Connection, acquirer: Acquirer, requests: Sequence[TerminalRequest]
) -> _Opening:
    keys = [terminal_key(acquirer.member_id, r) for r in requests]
    stored = store.stored_requests(connection, keys, "acquirer")
    reversals = [r for r in requests if r.kind is Kind.REVERSAL]
    original_keys = [_key(acquirer.member_id, r, "request") for r in reversals]
    originals = store.stored_requests(connection, original_keys, "acquirer", lock=True)
    txids = [o.txid for o in originals.values() if o.txid is not None]
    refunds = [(r.merchant_id, r.rrn) for r in requests if r.kind is Kind.REFUND and r.rrn]
    fresh = [r for r, key in zip(requests, keys, strict=True) if key not in stored]
    return _Opening(
        now_ms=acquirer.clock.now_ms(),
        stored=stored | originals,
        terminals=lock_terminals(connection, [r.terminal_id for r in fresh]),
        rrns=store.next_rrns(connection, len(fresh)),
        purchases=store.approved_purchases(connection, refunds),
        queued=store.queued_originals(connection, txids),
    )


def _open_one(
    acquirer: Acquirer, request: TerminalRequest, state: _Opening
) -> TerminalAnswer | Forward:
    key = terminal_key(acquirer.member_id, request)
    known = state.stored.get(key)
    if known is not None:
        return _reopen(acquirer, request, known)
    rrn = state.rrns.pop()
    terminal = state.terminals.get(request.terminal_id)
    if terminal is None:
        # No state for strangers: nothing of theirs is stored.
        return _refusal(request, Outcome.TERMINAL_NOT_PERMITTED, rrn)
    refusal = _refuse(request, terminal)
    if refusal is not None:
        return _store_answer(state, key, request, _refusal(request, refusal, rrn))
    if request.kind is Kind.REVERSAL:
        return _open_reversal(acquirer, request, key, terminal, rrn, state)
    issuer = acquirer.route(request.pan)
    if issuer is None:
        answer = _refusal(request, Outcome.ISSUER_UNKNOWN, rrn)
        return _store_answer(state, key, request, answer)
    original = None
    if request.kind is Kind.REFUND:
        original = state.purchases.get((request.merchant_id, request.rrn or ""))
        if original is None:
            answer = _refusal(request, Outcome.ORIGINAL_NOT_FOUND, rrn)
            return _store_answer(state, key, request, answer)
    elif request.rrn:
        rrn = request.rrn
    try:
        pin_block = _translated(acquirer, issuer, request)
    except PinBlockInvalid:
        answer = _refusal(request, Outcome.MALFORMED, rrn)
        return _store_answer(state, key, request, answer)
    made = _new_request(acquirer, request, terminal, issuer, rrn, original, state)
    return _forward(state, key, request, made, terminal, pin_block)


def _reopen(
    acquirer: Acquirer, request: TerminalRequest, known: StoredRequest
) -> TerminalAnswer | Forward:
    """A repeat: the stored answer, or the same request to the issuer once more."""
    if known.state == "tombstone":
        return _refusal(request, Outcome.REVERSED_BEFORE_ARRIVAL, "0" * 12)
    if known.fingerprint != request.fingerprint:
        return _refusal(request, Outcome.KEY_REUSED, "0" * 12)
    if known.answer is not None:
        return msgspec.json.decode(known.answer, type=TerminalAnswer)
    if known.request is None:
        raise RuntimeError("a pending request without its content")
    pending = msgspec.json.decode(known.request, type=Pending)
    whole = pending.request
    if whole.kind is not Kind.REVERSAL:
        whole = msgspec.structs.replace(
            whole, pan=request.pan, pin_block=_translated(acquirer, whole.issuer, request)
        )
    return Forward(known.key, whole, pending)


def _refuse(request: TerminalRequest, terminal: Terminal) -> Outcome | None:
    if terminal.terminal_status != "active":
        return Outcome.TERMINAL_NOT_PERMITTED
    if terminal.merchant_id != request.merchant_id or terminal.merchant_status != "active":
        return Outcome.MERCHANT_NOT_PERMITTED
    refusal = rules.refuse_at_acquirer(request)
    if refusal is None and request.currency != terminal.currency:
        return Outcome.CURRENCY_NOT_PERMITTED
    return refusal


def _translated(acquirer: Acquirer, issuer: str, request: TerminalRequest) -> bytes | None:
    """The PIN block under the issuer's zone key; on us it stays as the gateway sent it."""
    if request.pin_block is None or issuer == acquirer.member_id:
        return request.pin_block
    return acquirer.hsm.translate_pin(
        "zone:gateway", f"zone:{issuer}", request.pin_block, request.pan
    )


def _open_reversal(
    acquirer: Acquirer,
    request: TerminalRequest,
    key: bytes,
    terminal: Terminal,
    rrn: str,
    state: _Opening,
) -> TerminalAnswer | Forward:
    original_key = _key(acquirer.member_id, request, "request")
    original = state.stored.get(original_key)
    if original is None:
        # The original may still come: its key is barred.
        state.requests.append(
            StoredRequest(original_key, bytes(32), "tombstone", None, None, None, None)
        )
    if original is None or original.request is None or original.txid in state.queued:
        # Never seen, never sent to an issuer, or its reversal is on its way already.
        return _store_answer(state, key, request, _reversed(request, rrn))
    pending = msgspec.json.decode(original.request, type=Pending)
    asked = pending.request
    if request.amount > asked.amount:
        answer = _refusal(request, Outcome.OVER_ORIGINAL_AMOUNT, asked.rrn)
        return _store_answer(state, key, request, answer)
    if request.amount != asked.amount or request.currency != asked.currency:
        answer = _refusal(request, Outcome.ORIGINAL_MISMATCH, asked.rrn)
        return _store_answer(state, key, request, answer)
    if original.answer is None:
        # The terminal waits no longer: whatever the issuer still answers is reversed.
        lost = _refusal(request, Outcome.ISSUER_UNAVAILABLE, asked.rrn)
        state.late_answers[original_key] = msgspec.json.encode(lost)
    else:
        told = msgspec.json.decode(original.answer, type=TerminalAnswer)
        if told.outcome is not Outcome.APPROVED:
            return _store_answer(state, key, request, _reversed(request, asked.rrn))
    made = reversal_of(asked, _next_seq(state, terminal), state.now_ms, request.deadline_ms)
    kept = Pending(made, pending.pan_masked, pending.merchant_account)
    state.reversals.append(
        QueuedReversal(
            asked.txid,
            asked.issuer,
            "terminal",
            msgspec.json.encode(kept),
            request.deadline_ms + _HAND_OVER_MS,
        )
    )
    return _keep_forward(state, key, request, made, kept)


def reversal_of(
    asked: AuthorizationRequest, terminal_seq: int, now_ms: int, deadline_ms: int
) -> AuthorizationRequest:
    """The reversal of a request, with a txid of its own; the terminal's identifiers stay."""
    network_ref = ids.new_network_ref()
    return msgspec.structs.replace(
        asked,
        txid=ids.txid(asked.acquirer, asked.issuer, network_ref),
        network_ref=network_ref,
        kind=Kind.REVERSAL,
        pan=None,
        pin_block=None,
        expiry=None,
        service_code=None,
        terminal_seq=terminal_seq,
        transmitted_ms=now_ms,
        salt_fin=secrets.token_bytes(32),
        salt_pii=secrets.token_bytes(32),
        original_txid=asked.txid,
        deadline_ms=deadline_ms,
    )


def _next_seq(state: _Opening, terminal: Terminal) -> int:
    number = state.last_seqs.get(terminal.terminal_id, terminal.last_seq) + 1
    state.last_seqs[terminal.terminal_id] = number
    return number


def _new_request(
    acquirer: Acquirer,
    request: TerminalRequest,
    terminal: Terminal,
    issuer: str,
    rrn: str,
    original: bytes | None,
    state: _Opening,
) -> AuthorizationRequest:
    network_ref = ids.new_network_ref()
    return AuthorizationRequest(
        txid=ids.txid(acquirer.member_id, issuer, network_ref),
        network_ref=network_ref,
        acquirer=acquirer.member_id,
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
        terminal_seq=_next_seq(state, terminal),
        business_date=request.business_date,
        batch=request.batch,
        stan=request.stan,
        rrn=rrn,
        transmitted_ms=state.now_ms,
        local_time=request.local_time,
        salt_fin=secrets.token_bytes(32),
        salt_pii=secrets.token_bytes(32),
        original_txid=original,
        deadline_ms=request.deadline_ms,
    )


def _forward(
    state: _Opening,
    key: bytes,
    request: TerminalRequest,
    made: AuthorizationRequest,
    terminal: Terminal,
    pin_block: bytes | None,
) -> Forward:
    kept = Pending(made, mask(request.pan), terminal.merchant_account)
    whole = msgspec.structs.replace(made, pan=request.pan, pin_block=pin_block)
    return _keep_forward(state, key, request, whole, kept)


def _keep_forward(
    state: _Opening,
    key: bytes,
    request: TerminalRequest,
    whole: AuthorizationRequest,
    kept: Pending,
) -> Forward:
    state.requests.append(
        StoredRequest(
            key,
            request.fingerprint,
            "pending",
            kept.request.txid,
            kept.request.issuer,
            msgspec.json.encode(kept),
            None,
            request.deadline_ms,
        )
    )
    return Forward(key, whole, kept)


def _refusal(request: TerminalRequest, outcome: Outcome, rrn: str) -> TerminalAnswer:
    return TerminalAnswer(outcome=outcome, rrn=rrn, currency=request.currency)


def _reversed(request: TerminalRequest, rrn: str) -> TerminalAnswer:
    return TerminalAnswer(
        outcome=Outcome.APPROVED, rrn=rrn, amount=request.amount, currency=request.currency
    )


def _store_answer(
    state: _Opening, key: bytes, request: TerminalRequest, answer: TerminalAnswer
) -> TerminalAnswer:
    state.requests.append(
        StoredRequest(
            key,
            request.fingerprint,
            "answered",
            None,
            None,
            None,
            msgspec.json.encode(answer),
            request.deadline_ms,
        )
    )
    return answer


# --- the issuer has answered, or hasn't --------------------------------------------------------


def close_batch(
    connection: Connection, acquirer: Acquirer, closings: Sequence[Closing]
) -> list[TerminalAnswer]:
    """Record the issuers' answers in one commit and say what the terminals are told."""
    now_ms = acquirer.clock.now_ms()
    open_settlement_accounts(connection, acquirer, closings, now_ms)
    answers: list[TerminalAnswer] = []
    with connection.transaction():
        keys = {closing.key for closing in closings}
        keys |= {original_key(c.pending.request) for c in closings if _is_reversal(c)}
        stored = store.stored_requests(connection, sorted(keys), "acquirer", lock=True)
        writing = Recording(acquirer, now_ms, stored)
        reversed_txids = [
            c.pending.request.original_txid
            for c in closings
            if _is_reversal(c) and c.pending.request.original_txid
        ]
        writing.recorded |= set(store.originals(connection, reversed_txids, "acquirer"))
        for closing in closings:
            answers.append(_close_one(closing, stored[closing.key], writing))
        writing.write(connection)
    return answers


def original_key(reversal: AuthorizationRequest) -> bytes:
    """The idempotency key of the request that a reversal reverses."""
    return _key(reversal.acquirer, reversal, "request")


def _is_reversal(closing: Closing) -> bool:
    return closing.pending.request.kind is Kind.REVERSAL


def open_settlement_accounts(
    connection: Connection, acquirer: Acquirer, closings: Sequence[Closing], now_ms: int
) -> None:
    """See that the settlement accounts of these requests exist, in a transaction of its own."""
    wanted = {(c.pending.request.issuer, c.pending.request.currency) for c in closings}
    missing = wanted - acquirer.settlement.keys()
    if not missing:
        return
    keys = {
        AccountKey("settlement", issuer, currency): (issuer, currency)
        for issuer, currency in missing
    }
    with connection.transaction():
        found = find_or_open_accounts(connection, keys, clock.to_datetime(now_ms))
    acquirer.settlement.update({keys[key]: number for key, number in found.items()})


def _close_one(closing: Closing, row: StoredRequest, writing: Recording) -> TerminalAnswer:
    if row.answer is not None:
        # A repeat, a reversal or the recovery was first: what was answered stands.
        return msgspec.json.decode(row.answer, type=TerminalAnswer)
    request, answer = closing.pending.request, closing.answer
    if request.kind is Kind.REVERSAL:
        if answer is not None:
            writing.settle_reversal(closing.pending, answer)
        outcome = answer.outcome if answer is not None else Outcome.APPROVED
        told = TerminalAnswer(
            outcome=outcome,
            rrn=request.rrn,
            currency=request.currency,
            amount=request.amount if outcome is Outcome.APPROVED else 0,
            txid=request.txid,
        )
    elif answer is None:
        writing.reverse(closing.pending, "issuer unavailable")
        told = _told(request, Outcome.ISSUER_UNAVAILABLE)
    else:
        told = _record_answer(closing.pending, answer, writing)
    writing.answers[closing.key] = msgspec.json.encode(told)
    return told


def _told(request: AuthorizationRequest, outcome: Outcome) -> TerminalAnswer:
    return TerminalAnswer(
        outcome=outcome, rrn=request.rrn, currency=request.currency, txid=request.txid
    )


def _record_answer(
    pending: Pending, answer: AuthorizationAnswer, writing: Recording
) -> TerminalAnswer:
    request = pending.request
    doubt = doubtful(request, answer)
    if doubt is not None:
        log.error("issuer's answer refused", txid=request.txid.hex(), reason=doubt)
        writing.reverse(pending, doubt)
        return _told(request, Outcome.SYSTEM_ERROR)
    writing.record(pending, answer)
    if answer.outcome is Outcome.APPROVED and writing.now_ms > request.deadline_ms:
        # Approved too late: the terminal has given up, so it is reversed by itself.
        writing.reverse(pending, "approved after the deadline")
        return _told(request, Outcome.ISSUER_UNAVAILABLE)
    return TerminalAnswer(
        outcome=answer.outcome,
        rrn=request.rrn,
        approval_code=answer.approval_code,
        amount=answer.amount,
        currency=request.currency,
        available=answer.available,
        ledger=answer.ledger,
        txid=request.txid,
    )


def doubtful(request: AuthorizationRequest, answer: AuthorizationAnswer) -> str | None:
    """Why an issuer's answer can't be taken; None if it fits the request and its commitment."""
    if answer.txid != request.txid or answer.currency != request.currency:
        return "answer to another request"
    if answer.outcome is Outcome.APPROVED and answer.amount != request.amount:
        return "approved another amount"
    if answer.pair_seq > 0 and answer.commitment != own_commitment(request, answer):
        return "commitment differs"
    if answer.pair_seq == 0 and answer.outcome is Outcome.APPROVED:
        return "approved without a number"
    return None


def own_commitment(request: AuthorizationRequest, answer: AuthorizationAnswer) -> bytes:
    """C as the acquirer computes it."""
    facts = shared_facts(request, answer.outcome, answer.card_token)
    return shared_commitment(request.txid, facts, request.salt_fin, request.salt_pii)


class Recording:
    """What a batch of answers writes into the acquirer's books, gathered and then written once."""

    def __init__(self, acquirer: Acquirer, now_ms: int, stored: dict[bytes, StoredRequest]) -> None:
        self.acquirer = acquirer
        self.now_ms = now_ms
        self.stored = stored
        self.answers: dict[bytes, bytes] = {}
        #: txids that stand in the acquirer's books already.
        self.recorded: set[bytes] = set()
        self._records: list[TransactionRecord] = []
        self._to_reverse: list[tuple[Pending, str]] = []
        self._finished: list[bytes] = []

    def record(self, pending: Pending, answer: AuthorizationAnswer) -> None:
        """A request with the issuer's answer, once."""
        request = pending.request
        if request.txid in self.recorded:
            return
        self.recorded.add(request.txid)
        if answer.pair_seq == 0:
            answer = msgspec.structs.replace(answer, commitment=own_commitment(request, answer))
        transfers: tuple[Transfer, ...] = ()
        settlement = self.acquirer.settlement[request.issuer, request.currency]
        if answer.outcome is Outcome.APPROVED and request.amount:
            if request.kind is Kind.PURCHASE:
                moved = Transfer(settlement, pending.merchant_account, request.amount)
            else:
                moved = Transfer(pending.merchant_account, settlement, request.amount)
            if request.kind is not Kind.BALANCE_INQUIRY:
                transfers = (moved,)
        self._records.append(
            transaction_record(request, answer, "acquirer", pending.pan_masked, None, transfers)
        )

    def settle_reversal(self, pending: Pending, answer: AuthorizationAnswer) -> None:
        """The issuer's answer to a reversal: closes the original's record, then its own."""
        reversal = pending.request
        row = self.stored.get(original_key(reversal))
        if row is None or row.request is None or reversal.original_txid is None:
            raise RuntimeError("a reversal without its original's request")
        original = msgspec.json.decode(row.request, type=Pending)
        decided = answer.original
        if decided is None and reversal.original_txid not in self.recorded:
            # The issuer never saw the original and never will take it.
            decided = AuthorizationAnswer(
                txid=reversal.original_txid,
                outcome=Outcome.REVERSED_BEFORE_ARRIVAL,
                currency=reversal.currency,
                commitment=bytes(32),
                pair_seq=0,
                decided_ms=answer.decided_ms,
            )
        if decided is not None:
            self.record(original, decided)
        self._record_reversal(pending, answer, original, decided)
        self._finished.append(reversal.original_txid)

    def _record_reversal(
        self,
        pending: Pending,
        answer: AuthorizationAnswer,
        original: Pending,
        decided: AuthorizationAnswer | None,
    ) -> None:
        reversal = pending.request
        if reversal.txid in self.recorded:
            return
        self.recorded.add(reversal.txid)
        transfers: tuple[Transfer, ...] = ()
        undone = decided is not None and decided.outcome is Outcome.APPROVED
        if answer.outcome is Outcome.APPROVED and undone and reversal.amount:
            settlement = self.acquirer.settlement[reversal.issuer, reversal.currency]
            if original.request.kind is Kind.PURCHASE:
                moved = Transfer(pending.merchant_account, settlement, reversal.amount)
                transfers = (moved,)
            elif original.request.kind is Kind.REFUND:
                moved = Transfer(settlement, pending.merchant_account, reversal.amount)
                transfers = (moved,)
        self._records.append(
            transaction_record(reversal, answer, "acquirer", pending.pan_masked, None, transfers)
        )

    def reverse(self, pending: Pending, reason: str) -> None:
        """Have the request reversed by the store-and-forward queue."""
        self._to_reverse.append((pending, reason))

    def write(self, connection: Connection) -> None:
        """Everything gathered, in the caller's transaction."""
        if self._to_reverse:
            self._queue(connection)
        record_transactions(connection, self._records)
        store.store_answers(connection, "acquirer", self.answers)
        store.finish_reversals(connection, self._finished, self.now_ms)

    def _queue(self, connection: Connection) -> None:
        terminals = lock_terminals(connection, [p.request.terminal_id for p, _ in self._to_reverse])
        last_seqs = {name: terminal.last_seq for name, terminal in terminals.items()}
        rows: list[QueuedReversal] = []
        for pending, reason in self._to_reverse:
            asked = pending.request
            last_seqs[asked.terminal_id] += 1
            made = reversal_of(asked, last_seqs[asked.terminal_id], self.now_ms, asked.deadline_ms)
            kept = Pending(made, pending.pan_masked, pending.merchant_account)
            rows.append(
                QueuedReversal(
                    asked.txid, asked.issuer, reason, msgspec.json.encode(kept), self.now_ms
                )
            )
        store.queue_reversals(connection, rows)
        write_sequences(connection, last_seqs)
