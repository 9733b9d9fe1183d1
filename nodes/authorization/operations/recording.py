"""The acquirer's second commit: record the issuers' answers, say what terminals are told.

The store-and-forward (forwarding.py) records with the same `Recording`. Nothing is locked or
updated: the primary key of authorization_answers lets one answer a key stand. Who comes second
meets UniqueViolation, reads what stands and tells that.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import date

import msgspec
import psycopg
import structlog

from nodes import clock
from nodes.acquiring.store import advance_terminals, lock_terminals
from nodes.authorization.model import (
    FORWARDED,
    AuthorizationAnswer,
    AuthorizationRequest,
    Kind,
    Outcome,
    TerminalAnswer,
)
from nodes.authorization.operations.accepting import Acquirer
from nodes.authorization.operations.issuing import transaction_record
from nodes.authorization.operations.judging import (
    CREDITS,
    PAYMENTS,
    doubtful,
    is_passing,
    own_commitment,
)
from nodes.authorization.operations.pending import (
    Closing,
    OpenBatch,
    Pending,
    decode_told,
    encode_pending,
    encode_told,
    reversal_of,
    unanswered,
)
from nodes.authorization.operations.standing_in import REASON, Unseen, find_stood_in, rows_of
from nodes.authorization.store import acquirer as books
from nodes.authorization.store import answers, forwards
from nodes.authorization.store.acquirer import Connection, QueuedReversal
from nodes.authorization.store.forwards import Alarm
from nodes.authorization.store.presented import append_partial_approvals
from nodes.authorization.store.refusals import append_refusals
from nodes.authorization.store.requests import insert_requests, stored_requests
from nodes.authorization.store.stand_ins import append_stood_in
from nodes.crypto.answer_signature import MAX_SHARE
from nodes.db.writes import Writes, execute
from nodes.ledger.model import AccountKey, TransactionRecord, Transfer
from nodes.ledger.store import find_or_open_accounts, record_transactions

log = structlog.get_logger(__name__)


def close_batch(
    connection: Connection, acquirer: Acquirer, closings: Sequence[Closing]
) -> list[TerminalAnswer]:
    """Record the issuers' answers in one commit and say what the terminals are told.

    Raises psycopg.errors.UniqueViolation if others were first twice: call again.
    """
    now_ms = acquirer.clock.now_ms()
    open_settlement_accounts(connection, acquirer, [c.pending for c in closings], now_ms)
    try:
        return _close(connection, acquirer, closings, now_ms, look=False)
    except psycopg.errors.UniqueViolation:
        return _close(connection, acquirer, closings, now_ms, look=True)


def _close(
    connection: Connection,
    acquirer: Acquirer,
    closings: Sequence[Closing],
    now_ms: int,
    *,
    look: bool,
) -> list[TerminalAnswer]:
    with connection.transaction():
        recording = record_closings(connection, acquirer, closings, now_ms, look=look)
        recording.write(connection)
    recording.committed()
    return recording.told


def record_closings(
    connection: Connection,
    acquirer: Acquirer,
    closings: Sequence[Closing],
    now_ms: int,
    *,
    look: bool,
) -> Recording:
    """What closing a batch writes, and (`told`) what each terminal is told.

    For Recording.write in the same transaction, and Recording.committed after it. What stands in
    the books already is read for repeats and reversals, with `look` for all: if write raises
    UniqueViolation, again with it. The settlement accounts must be open.
    """
    recording = Recording(acquirer, now_ms)
    doubted = [
        c for c in closings if look or c.forward.open_batch is None or _is_reversal(c.pending)
    ]
    if doubted:
        recording.look(
            connection,
            [(c.forward.key, c.forward.business_date) for c in doubted],
            [c.pending for c in doubted],
        )
    recording.stood_in = find_stood_in(connection, acquirer, closings, now_ms)
    recording.close(closings)
    return recording


def _is_reversal(pending: Pending) -> bool:
    return pending.request.kind is Kind.REVERSAL


def open_settlement_accounts(
    connection: Connection, acquirer: Acquirer, pendings: Iterable[Pending], now_ms: int
) -> None:
    """See that the settlement accounts of these requests exist, in a transaction of its own."""
    wanted = {(p.request.issuer, p.request.currency) for p in pendings}
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


class Recording:
    """What a batch of answers writes into the acquirer's books, gathered and then written once."""

    def __init__(self, acquirer: Acquirer, now_ms: int) -> None:
        self.acquirer = acquirer
        self.now_ms = now_ms
        #: What terminals are told, in the order of the closings.
        self.told: list[TerminalAnswer] = []
        #: New answers by key: business date, exact answer.
        self.answers: dict[bytes, tuple[date, bytes]] = {}
        #: New answers by key, exact: also those that stand with their requests (on us).
        self.told_by_key: dict[bytes, bytes] = {}
        #: Answers that stand in the books already.
        self.standing: dict[bytes, TerminalAnswer] = {}
        #: txids that stand in the acquirer's books already, or will with this.
        self.recorded: set[bytes] = set()
        self._records: list[tuple[Pending, AuthorizationAnswer, tuple[Transfer, ...]]] = []
        self._to_reverse: list[tuple[Pending, str, int | None]] = []
        #: Ids of transactions with the issuer's share of its signature; txids that have none.
        self._shares: list[tuple[int, bytes]] = []
        self._unsigned: list[bytes] = []
        self._settled: list[bytes] = []
        self._closed: Counter[OpenBatch] = Counter()
        self._deleted: set[OpenBatch] = set()
        self._forgotten: list[int] = []
        self._delivered: dict[bytes, str] = {}
        self._alarms: list[Alarm] = []
        #: What is approved in issuers' place, if it isn't answered already, by txid; what was.
        self.stood_in: Mapping[bytes, Unseen] = {}
        self._unseen: list[Unseen] = []
        #: Of partial approvals: txid, and what was asked for.
        self._partial: list[tuple[bytes, int]] = []

    def look(
        self,
        connection: Connection,
        keys: Sequence[tuple[bytes, date]],
        pendings: Sequence[Pending],
    ) -> None:
        """Read which of these are answered and recorded already."""
        stored = stored_requests(connection, keys, "acquirer")
        self.standing = {
            key: decode_told(row.answer) for key, row in stored.items() if row.answer is not None
        }
        txids = [p.request.txid for p in pendings]
        txids += [p.original.request.txid for p in pendings if p.original is not None]
        self.recorded = books.recorded(connection, txids)

    # --- what one answer comes to --------------------------------------------------------------

    def close(self, closings: Sequence[Closing]) -> None:
        """Take issuers' answers; the first to a key holds, and what stands already."""
        for closing in closings:
            forward = closing.forward
            told = self.standing.get(forward.key)
            if told is None:
                told = self._close_one(closing)
                self.standing[forward.key] = told
                exact = encode_told(told)
                self.answers[forward.key] = (forward.business_date, exact)
                self.told_by_key[forward.key] = exact
            self.told.append(told)
            if forward.open_batch is not None:
                self._closed[forward.open_batch] += 1

    def _close_one(self, closing: Closing) -> TerminalAnswer:
        pending, answer = closing.pending, closing.answer
        request = pending.request
        doubt = doubtful(pending, answer) if answer is not None else None
        if doubt is not None:
            log.error("issuer's answer refused", txid=request.txid.hex(), reason=doubt)
        if request.kind is Kind.REVERSAL:
            return self._close_reversal(pending, answer if doubt is None else None)
        forwarded = request.kind in FORWARDED and self.acquirer.vault is not None
        if forwarded and (answer is None or is_passing(answer)):
            # It has happened: taken in, and the queue goes on until the issuer has answered.
            return acknowledged(request)
        if answer is None:
            unseen = self.stood_in.get(request.txid)
            if unseen is not None:
                self._unseen.append(unseen)
                self.reverse(pending, REASON)
                return unseen.told
            self.reverse(pending, "issuer unavailable")
            return unavailable(request)
        if forwarded:
            outcome = answer.outcome if doubt is None else Outcome.SYSTEM_ERROR
            self._delivered[request.txid] = outcome.value
        if doubt is not None:
            self.reverse(pending, doubt)
            return _told(request, Outcome.SYSTEM_ERROR)
        if is_passing(answer):
            # Nothing is decided, and a repeat that is under way may yet be: so it is reversed.
            self.reverse(pending, "issuer undecided")
            return _told(request, answer.outcome)
        self.record(pending, answer)
        late = self.now_ms > request.deadline_ms and not forwarded
        if answer.outcome is Outcome.APPROVED and late:
            # Approved too late: the terminal has given up, so it is reversed by itself.
            self.reverse(pending, "approved after the deadline")
            return unavailable(request)
        return TerminalAnswer(
            outcome=answer.outcome,
            rrn=request.rrn,
            approval_code=answer.approval_code,
            amount=answer.amount,
            currency=request.currency,
            available=answer.available,
            ledger=answer.ledger,
            txid=request.txid,
            icc=answer.icc,
        )

    def _close_reversal(
        self, pending: Pending, answer: AuthorizationAnswer | None
    ) -> TerminalAnswer:
        if answer is None or is_passing(answer):
            # The queue goes on until the issuer has acknowledged it.
            return acknowledged(pending.request)
        self.settle_reversal(pending, answer)
        if answer.outcome is not Outcome.APPROVED:
            return _told(pending.request, answer.outcome)
        return acknowledged(pending.request)

    def record(self, pending: Pending, answer: AuthorizationAnswer) -> None:
        """A request with the issuer's answer, once."""
        request = pending.request
        if request.txid in self.recorded:
            return
        self.recorded.add(request.txid)
        if answer.pair_seq == 0:
            answer = msgspec.structs.replace(answer, commitment=own_commitment(request, answer))
        transfers: tuple[Transfer, ...] = ()
        if answer.outcome is Outcome.APPROVED and answer.amount:
            transfers = self._transfers(pending, answer.amount)
            if request.partial_ok and answer.amount < request.amount:
                self._partial.append((request.txid, request.amount))
        self._records.append((pending, answer, transfers))

    def _transfers(self, pending: Pending, amount: int) -> tuple[Transfer, ...]:
        """What an approval moves between the merchant and the issuer's settlement account."""
        kind, named = pending.request.kind, pending.original_kind
        undoes = kind in (Kind.REVERSAL, Kind.VOID)
        settlement = self.acquirer.settlement[pending.request.issuer, pending.request.currency]
        if kind in PAYMENTS or (undoes and named in CREDITS):
            return (Transfer(settlement, pending.merchant_account, amount),)
        if kind in CREDITS or (undoes and named in PAYMENTS):
            return (Transfer(pending.merchant_account, settlement, amount),)
        return ()

    def settle_reversal(self, pending: Pending, answer: AuthorizationAnswer) -> None:
        """The issuer's answer to a reversal: closes the original's record, then its own."""
        reversal, original = pending.request, pending.original
        if original is None:
            raise RuntimeError("a reversal without its original's request")
        decided = answer.original
        if decided is None and original.request.txid not in self.recorded:
            # The issuer never saw the original and never will take it.
            decided = AuthorizationAnswer(
                txid=original.request.txid,
                outcome=Outcome.REVERSED_BEFORE_ARRIVAL,
                currency=reversal.currency,
                commitment=bytes(32),
                pair_seq=0,
                decided_ms=answer.decided_ms,
            )
        if decided is not None:
            self.record(original, decided)
        if reversal.txid not in self.recorded:
            self.recorded.add(reversal.txid)
            undone = decided is not None and decided.outcome is Outcome.APPROVED
            transfers: tuple[Transfer, ...] = ()
            if answer.outcome is Outcome.APPROVED and undone and answer.amount:
                transfers = self._transfers(pending, answer.amount)
            self._records.append((pending, answer, transfers))
        self._settled.append(original.request.txid)

    def settle_forward(self, pending: Pending, answer: AuthorizationAnswer) -> None:
        """The issuer's answer to what was taken in for it before."""
        request = pending.request
        self.record(pending, answer)
        self._delivered[request.txid] = answer.outcome.value
        if answer.outcome is not Outcome.APPROVED:
            detail = f"taken in, then refused by {request.issuer}: {answer.outcome.value}"
            self._alarms.append(
                Alarm(
                    "refused",
                    "acquirer",
                    request.terminal_id,
                    detail,
                    self.now_ms,
                    txid=request.txid,
                )
            )

    def reverse(self, pending: Pending, reason: str, amount: int | None = None) -> None:
        """Have the request reversed by the store-and-forward queue, or an amount of it."""
        self._to_reverse.append((pending, reason, amount))

    # --- writing -------------------------------------------------------------------------------

    @property
    def needs_reads(self) -> bool:
        """Whether something is to be reversed, or a reversal is settled: not stage, but write."""
        return bool(self._to_reverse or self._settled or self._delivered)

    def write(self, connection: Connection) -> None:
        """Everything gathered, in the caller's transaction.

        In one order everywhere, so that no two can wait for each other: open batches, terminals,
        answers by key, transactions.
        """
        self.acquirer.supply_numbers(connection, 0)
        writes = Writes()
        self._forget_batches(writes)
        if self._to_reverse:
            execute(connection, writes)
            writes = Writes()
            self._queue(connection, writes)
        self._append(writes)
        execute(connection, writes)
        append_stood_in(connection, [unseen.row for unseen in self._unseen])
        books.finish_reversals(connection, self._settled, self.now_ms)
        forwards.finish_forwards(connection, self._delivered, self.now_ms)
        forwards.append_alarms(connection, self._alarms)

    def stage(self, writes: Writes) -> None:
        """As write, with what else a commit does. The acquirer must have ids."""
        self._forget_batches(writes)
        self._append(writes)

    def _forget_batches(self, writes: Writes) -> None:
        # Whose last answers these are is over with this commit.
        self._deleted = {batch for batch, count in self._closed.items() if batch.waiting == count}
        over = [batch.number for batch in self._deleted if batch.number is not None]
        self._forgotten = list(self.acquirer.finished)
        books.delete_open_batches(writes, over + self._forgotten)

    def _append(self, writes: Writes) -> None:
        books.insert_answers(writes, self.answers)
        record_transactions(writes, self._rows())
        answers.insert_shares(writes, self._shares)
        if self._partial:
            append_partial_approvals(writes, self._partial)
        if self._unsigned:
            # The money stands as it was decided; that nobody signed for it is a break.
            log.error("answers unsigned", count=len(self._unsigned), first=self._unsigned[0].hex())
            answers.insert_unsigned(writes, self._unsigned, "no signature")

    def committed(self) -> None:
        """Count the answers off their open batches, after the commit."""
        gone = set(self._forgotten)
        self.acquirer.finished[:] = [n for n in self.acquirer.finished if n not in gone]
        for batch, count in self._closed.items():
            if batch.closed(count) and batch not in self._deleted and batch.number is not None:
                self.acquirer.finished.append(batch.number)

    def _rows(self) -> list[TransactionRecord]:
        count = len(self._records)
        numbers = self.acquirer.take_ids(count)
        salts = secrets.token_bytes(32 * count)
        self._take_shares(numbers)
        rows = [
            transaction_record(
                number,
                pending.request,
                answer,
                "acquirer",
                pending.pan_masked,
                None,
                transfers,
                salt_private=salts[32 * place : 32 * place + 32],
            )
            for place, (number, (pending, answer, transfers)) in enumerate(
                zip(numbers, self._records, strict=True)
            )
        ]
        if self._settled:
            # The queue may write the same ones: both in one order, so that neither waits in vain.
            rows.sort(key=lambda row: row.txid)
        return rows

    def _take_shares(self, numbers: Sequence[int]) -> None:
        """What the issuers of these transactions have signed; checked by operations/checking.py."""
        own = self.acquirer.member_id
        self._shares, self._unsigned = [], []
        for number, (pending, answer) in zip(
            numbers, [record[:2] for record in self._records], strict=True
        ):
            if answer.pair_seq == 0 or pending.request.issuer == own:
                continue
            if answer.signature is not None and len(answer.signature) <= MAX_SHARE:
                self._shares.append((number, answer.signature))
            else:
                self._unsigned.append(answer.txid)

    def _queue(self, connection: Connection, writes: Writes) -> None:
        named = {pending.request.terminal_id for pending, _, _ in self._to_reverse}
        terminals = lock_terminals(connection, named)
        last_seqs = {name: terminal.last_seq for name, terminal in terminals.items()}
        rows: list[QueuedReversal] = []
        for pending, reason, amount in self._to_reverse:
            asked = pending.request
            last_seqs[asked.terminal_id] += 1
            kept = reversal_of(
                pending,
                terminal_seq=last_seqs[asked.terminal_id],
                amount=asked.amount if amount is None else amount,
                now_ms=self.now_ms,
                deadline_ms=asked.deadline_ms,
            )
            rows.append(
                QueuedReversal(asked.txid, asked.issuer, reason, encode_pending(kept), self.now_ms)
            )
        waiting = []
        for unseen in self._unseen:  # their purchases are among the reversed
            name = unseen.advice.request.terminal_id
            last_seqs[name] += 1
            waiting.append(rows_of(unseen, last_seqs[name]))
        advance_terminals(
            writes,
            {name: (terminals[name].last_seq, last) for name, last in last_seqs.items()},
            in_use=False,
        )
        books.queue_reversals(writes, rows)
        if waiting:
            insert_requests(writes, "acquirer", [stored for stored, _ in waiting])
            forwards.queue_forwards(writes, [forward for _, forward in waiting])
        told_no = [one for one in self._to_reverse if one[1] != REASON]
        append_refusals(writes, unanswered(self.acquirer.member_id, told_no, self.now_ms))


def unavailable(request: AuthorizationRequest) -> TerminalAnswer:
    """Nothing is known in time; what the issuer decides is reversed."""
    return _told(request, Outcome.ISSUER_UNAVAILABLE)


def acknowledged(reversal: AuthorizationRequest) -> TerminalAnswer:
    """A reversal is taken in, whatever the issuer says later."""
    return TerminalAnswer(
        outcome=Outcome.APPROVED,
        rrn=reversal.rrn,
        currency=reversal.currency,
        amount=reversal.amount,
        txid=reversal.txid,
    )


def _told(request: AuthorizationRequest, outcome: Outcome) -> TerminalAnswer:
    return TerminalAnswer(
        outcome=outcome, rrn=request.rrn, currency=request.currency, txid=request.txid
    )
