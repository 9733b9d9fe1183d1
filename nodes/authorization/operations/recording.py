"""The acquirer's second commit: record the issuers' answers, say what terminals are told.

The store-and-forward (forwarding.py) records with the same `Recording`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import structlog

from nodes import clock
from nodes.acquiring.store import lock_terminals, write_sequences
from nodes.authorization import store
from nodes.authorization.model import (
    AuthorizationAnswer,
    AuthorizationRequest,
    Kind,
    Outcome,
    TerminalAnswer,
)
from nodes.authorization.operations.accepting import Acquirer, Pending, key_of_class, reversal_of
from nodes.authorization.operations.issuing import shared_facts, transaction_record
from nodes.authorization.store import Connection, QueuedReversal, StoredRequest
from nodes.crypto.commitment import shared_commitment
from nodes.ledger.model import AccountKey, TransactionRecord, Transfer
from nodes.ledger.store import find_or_open_accounts, record_transactions

log = structlog.get_logger(__name__)


class Closing(msgspec.Struct, frozen=True):
    """A forwarded request and the issuer's answer; None: none came in time."""

    key: bytes
    pending: Pending
    answer: AuthorizationAnswer | None


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
    return key_of_class(reversal.acquirer, reversal, "request")


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
