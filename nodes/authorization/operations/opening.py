"""What an acquirer works with, and what a batch of terminals' requests comes to.

accepting.py decides what each request comes to; here it is gathered, and staged for one commit.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date

import msgspec

from nodes import clock
from nodes.acquiring.model import Terminal
from nodes.acquiring.store import advance_terminals
from nodes.authorization.model import (
    AuthorizationRequest,
    Outcome,
    TerminalAnswer,
    TerminalRequest,
)
from nodes.authorization.operations.pending import (
    Forward,
    OpenBatch,
    Pending,
    card_of,
    date_of,
    encode_pending,
    encode_told,
)
from nodes.authorization.rules.ended_offline import AskedOnline
from nodes.authorization.rules.stand_in import StandIn
from nodes.authorization.store import acquirer as books
from nodes.authorization.store import forwards
from nodes.authorization.store.acquirer import Connection, FoundOriginal, QueuedReversal
from nodes.authorization.store.forwards import Alarm, KnownRecord, OfflineRow, QueuedForward
from nodes.authorization.store.online_counters import (
    Counted,
    OnlineCounter,
    append_online_counters,
)
from nodes.authorization.store.presented import append_chip_slips
from nodes.authorization.store.refusals import Refusal, append_refusals, refused_request
from nodes.authorization.store.requests import StoredRequest, insert_requests
from nodes.crypto.hsm import Hsm
from nodes.crypto.offline_record import OfflineRecord
from nodes.crypto.pan import PanVault
from nodes.db.writes import Writes
from nodes.emv.chip_data import ChipSlip
from nodes.ledger.store import TransactionIds, open_transaction_ids

#: How long after a deadline the store-and-forward queue takes a reversal over.
_HAND_OVER_MS = 1_000
#: Retrieval references that are fetched at once; those left at the end of a process are lost.
_RRNS = 8_192


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
    #: Issuers in whose place it approves while they are away, and how much.
    stand_in: Mapping[str, StandIn] = field(default_factory=dict)

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
        #: Originals whose reversal was ever queued; and by this very batch.
        self.queued: set[bytes] = set()
        self.queuing: set[bytes] = set()
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
        #: What receipts tell of chips, by txid.
        self._slips: list[tuple[bytes, ChipSlip]] = []
        self._counters: list[OnlineCounter] = []
        #: What was asked online under the counters that advices name.
        self.asked_online: dict[Counted, list[tuple[StoredRequest, AskedOnline]]] = {}
        self._refused: list[Refusal] = []

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
        if self._slips:
            append_chip_slips(writes, self._slips)
        if self._counters:
            append_online_counters(writes, self._counters)
        if self._refused:
            append_refusals(writes, self._refused)
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
        if answer.outcome is not Outcome.APPROVED:
            self._refused.append(refused_request(key, request, answer, self.now_ms))
        return answer

    def bar(self, key: bytes, request: TerminalRequest) -> None:
        """Bar a key: its reversal came first."""
        barred = _row(key, request, None, None, None, None)
        self._rows.append(msgspec.structs.replace(barred, fingerprint=bytes(32)))

    def answer_late(self, key: bytes, business_date: date, answer: TerminalAnswer) -> None:
        """Answer a request that still waits: its terminal does no longer."""
        self._late[key] = (business_date, encode_told(answer))

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

    def queue_forward(
        self, key: bytes, request: TerminalRequest, kept: Pending, behind: bytes | None = None
    ) -> None:
        """Have the store-and-forward queue see to what has happened already; `behind`: after the
        reversal of that transaction."""
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
                vault.seal(card_of(request), asked.txid),
                asked.deadline_ms + _HAND_OVER_MS if behind is None else self.now_ms,
                behind,
            )
        )

    def note_chip(self, txid: bytes, told: ChipSlip, counter: OnlineCounter | None) -> None:
        """What a receipt will tell of the chip of a new request; the counter of an online one."""
        self._slips.append((txid, told))
        if counter is not None:
            self._counters.append(counter)

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

    def queue(
        self,
        kept: Pending,
        original: AuthorizationRequest,
        reason: str = "terminal",
        from_ms: int | None = None,
    ) -> None:
        """Have the store-and-forward queue see to a reversal: one that the terminal asked for,
        once this process had its time for it, or another, from a moment on."""
        made = kept.request
        self.queued.add(original.txid)
        self.queuing.add(original.txid)
        self._reversals.append(
            QueuedReversal(
                original.txid,
                made.issuer,
                reason,
                encode_pending(kept),
                made.deadline_ms + _HAND_OVER_MS if from_ms is None else from_ms,
            )
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
