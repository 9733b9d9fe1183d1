"""The auditor's completeness check of a pair of institutions (evidence.md, Reconciliation 5).

Whatever is read from the two databases counts only as far as the chain confirms it: a log's leaves
are hashed up to the root of its newest anchor, and a row counts only if its columns lead to the C
of an anchored leaf. Then: each pair_seq from 1 to N is once in both logs, for the same transaction
and content; each confirmed close is a subset of both logs, with the root on the chain; its totals
follow from the opened rows; and each promise that the auditor holds is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import psycopg
from msgspec.structs import replace

from nodes import ids
from nodes.anchoring import queries, tree
from nodes.anchoring.receipt import (
    Promise,
    ReceiptView,
    parse_promise,
    promise_is_signed,
)
from nodes.anchoring.rules import RowUnsound, row_evidence
from nodes.authorization.operations.checking import unsigned_rows
from nodes.authorization.store.answers import shares_of_pair
from nodes.chain.anchors import Anchor, AnchorHead
from nodes.chain.closes import ConfirmedClose
from nodes.clearing.day_queries import salted_items
from nodes.clearing.model import DayItems, DayKey, Item, Totals
from nodes.clearing.rules.closing import close_root, effect, totals_hash, totals_of, totals_salt
from nodes.crypto.merkle import EMPTY_ROOT, leaf_hash

Connection = psycopg.Connection[Any]
#: Tells how far it is: what is being done, done, of how many.
Progress = Callable[[str, int, int], None]
Entry = tuple[bytes, bytes]  # txid, C

_PAGE = 5_000
#: Named one by one up to here; more are counted in the last.
_NAMED = 1_000


class Lack(StrEnum):
    """What a check finds."""

    LOG_NOT_AS_ANCHORED = "LOG_NOT_AS_ANCHORED"
    SEQ_GAP = "SEQ_GAP"
    SEQ_TWICE = "SEQ_TWICE"
    MISSING_AT_ACQUIRER = "MISSING_AT_ACQUIRER"
    MISSING_AT_ISSUER = "MISSING_AT_ISSUER"
    DIFFERENT_ENTRY = "DIFFERENT_ENTRY"
    CLOSE_NOT_IN_BOOKS = "CLOSE_NOT_IN_BOOKS"
    CLOSE_ROOT_MISMATCH = "CLOSE_ROOT_MISMATCH"
    CLOSE_NOT_ANCHORED = "CLOSE_NOT_ANCHORED"
    OPENING_MISMATCH = "OPENING_MISMATCH"
    TOTALS_MISMATCH = "TOTALS_MISMATCH"
    UNSIGNED = "UNSIGNED"
    PROMISE_INVALID = "PROMISE_INVALID"
    PROMISE_OVERDUE = "PROMISE_OVERDUE"

    @property
    def meaning(self) -> str:
        """The finding in a sentence."""
        return _MEANINGS[self]


_MEANINGS = {
    Lack.LOG_NOT_AS_ANCHORED: "the leaves in the database do not lead to the anchored root",
    Lack.SEQ_GAP: "neither log has an entry of this number",
    Lack.SEQ_TWICE: "a log has two entries of this number",
    Lack.MISSING_AT_ACQUIRER: "the issuer's log has the number, the acquirer's has not",
    Lack.MISSING_AT_ISSUER: "the acquirer's log has the number, the issuer's has not",
    Lack.DIFFERENT_ENTRY: "the logs have different transactions or contents under this number",
    Lack.CLOSE_NOT_IN_BOOKS: "the books lack a close that the chain has confirmed",
    Lack.CLOSE_ROOT_MISMATCH: "the books' items do not lead to the confirmed root",
    Lack.CLOSE_NOT_ANCHORED: "an item of a confirmed close is not in an anchored log",
    Lack.OPENING_MISMATCH: "a row does not lead to its own C: its numbers can't be counted",
    Lack.TOTALS_MISMATCH: "the opened rows do not add up to the confirmed totals",
    Lack.UNSIGNED: "the acquirer has no signature of the issuer's over this entry",
    Lack.PROMISE_INVALID: "it is no promise that one of the two has signed",
    Lack.PROMISE_OVERDUE: "the deadline is over and the entry is not in the anchored log",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that isn't complete; `where` names it for people."""

    lack: Lack
    where: str


@dataclass(frozen=True, slots=True)
class LogSummary:
    """One of the two logs, as far as the chain confirms it."""

    member_id: str
    anchor_seq: int
    size: int
    root: bytes
    of_pair: int
    newest_pair_seq: int


@dataclass(frozen=True, slots=True)
class CloseSummary:
    """One close of the pair; None where the chain has confirmed none."""

    key: DayKey
    revision: int | None
    totals: Totals | None
    holds: bool


@dataclass
class AuditReport:
    """What was looked at and what was found. `complete` only if nothing was."""

    acquirer: str
    issuer: str
    logs: list[LogSummary] = field(default_factory=list)
    newest_pair_seq: int = 0
    #: Entries of the acquirer's log that the issuer has signed; None: not looked at.
    signed: int | None = None
    #: Numbers that one log has and the other's anchor doesn't reach yet.
    waiting: int = 0
    closes: list[CloseSummary] = field(default_factory=list)
    promises_kept: int = 0
    promises_pending: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether nothing lacks."""
        return not self.findings

    def add(self, lack: Lack, where: str) -> None:
        """Record a finding."""
        self.findings.append(Finding(lack, where))


class Anchors(Protocol):
    """The anchors on the chain (nodes.chain.anchors.AnchorRegistry is one)."""

    def head(self, member_id: str) -> AnchorHead | None: ...
    def covering(self, member_id: str, index: int) -> Anchor | None: ...


@dataclass(frozen=True, slots=True)
class Party:
    """One of the two: its database, read in one snapshot."""

    member_id: str
    connection: Connection


@dataclass
class _Log:
    """What a member's anchored log says of the pair."""

    by_seq: dict[int, Entry] = field(default_factory=dict)
    index_of: dict[int, int] = field(default_factory=dict)
    twice: list[int] = field(default_factory=list)
    entries: set[Entry] = field(default_factory=set)
    promised: set[Entry] = field(default_factory=set)
    newest: int = 0
    #: False if the leaves aren't those that were anchored: then nothing of them counts.
    holds: bool = True


class CompletenessCheck:
    """One audit of one pair."""

    def __init__(
        self,
        acquirer: Party,
        issuer: Party,
        anchors: Anchors,
        *,
        now_s: int,
        grace_s: int,
        message_keys: Sequence[bytes] = (),
        progress: Progress = lambda what, done, total: None,
    ) -> None:
        """`message_keys`: the issuer's, by the chain, the present one first; none: its signatures
        over its answers aren't looked at."""
        self._parties = {"acquirer": acquirer, "issuer": issuer}
        self._anchors = anchors
        self._now_s, self._grace_s = now_s, grace_s
        self._message_keys = message_keys
        self._progress = progress
        self._pair_id = ids.pair_id(acquirer.member_id, issuer.member_id)
        self._logs: dict[str, _Log] = {}
        self.report = AuditReport(acquirer.member_id, issuer.member_id)

    def run(
        self,
        closes: Sequence[tuple[DayKey, ConfirmedClose | None]],
        promises: Sequence[str],
        view: ReceiptView,
    ) -> AuditReport:
        """Check everything. `closes`: the pair's, with what the chain has confirmed of each;
        `promises`: texts of receipts' promises. Look-ups of the chain may raise."""
        read = self._read_promises(promises, view)
        for name, party in self._parties.items():
            self._logs[name] = self._read_log(party, {(p.txid, p.commitment) for p in read})
        self._check_numbers()
        if self._message_keys and self._logs["acquirer"].holds:
            self._check_signatures()
        for place, (key, confirmed) in enumerate(closes):
            self._progress("Checking closes", place, len(closes))
            self._check_close(key, confirmed)
        self._progress("Checking closes", len(closes), len(closes))
        self._check_promises(read)
        return self.report

    # -- the logs

    def _read_log(self, party: Party, promised: set[Entry]) -> _Log:
        """Hash a member's leaves up to its newest anchor's root, and pick out the pair's."""
        log, member_id = _Log(), party.member_id
        head = self._anchors.head(member_id)
        size, root = (head.size, head.root) if head else (0, EMPTY_ROOT)
        frontier = tree.Frontier()
        for start in range(0, size, _PAGE):
            end = min(start + _PAGE, size)
            for index, leaf, _, _ in queries.log_entries(party.connection, start, end):
                frontier.append(leaf_hash(leaf))
                self._take(log, index, leaf, promised)
            self._progress(f"Hashing the log of {member_id}", end, size)
        if frontier.size != size or frontier.root() != root:
            self.report.add(Lack.LOG_NOT_AS_ANCHORED, member_id)
            log = _Log(holds=False)
        self.report.logs.append(
            LogSummary(member_id, head.seq if head else 0, size, root, len(log.by_seq), log.newest)
        )
        return log

    def _take(self, log: _Log, index: int, leaf: bytes, promised: set[Entry]) -> None:
        entry = leaf[96:128], leaf[128:160]
        if entry in promised:
            log.promised.add(entry)
        if leaf[192:224] != self._pair_id:
            return
        number = int.from_bytes(leaf[224:256], "big")
        if number in log.by_seq and log.by_seq[number] != entry:
            log.twice.append(number)
        elif number in log.by_seq:
            # A member that is both parties' host has both sides of it in one log.
            return
        log.by_seq[number] = entry
        log.index_of[number] = index
        log.entries.add(entry)
        log.newest = max(log.newest, number)

    # -- numbers

    def _check_numbers(self) -> None:
        mine, theirs = self._logs["acquirer"], self._logs["issuer"]
        if not (mine.holds and theirs.holds):
            return  # that finding stands for all numbers
        newest = self.report.newest_pair_seq = max(mine.newest, theirs.newest)
        for name, log in self._logs.items():
            self._name(Lack.SEQ_TWICE, (f"{n} ({name})" for n in sorted(log.twice)))
        numbers = range(1, newest + 1)
        neither = [n for n in numbers if n not in mine.by_seq and n not in theirs.by_seq]
        self._name(Lack.SEQ_GAP, map(str, neither))
        for lack, lacking, other, party in (
            (Lack.MISSING_AT_ACQUIRER, mine, theirs, self._parties["issuer"]),
            (Lack.MISSING_AT_ISSUER, theirs, mine, self._parties["acquirer"]),
        ):
            missing = [n for n in numbers if n in other.by_seq and n not in lacking.by_seq]
            late = [n for n in missing if n > lacking.newest and self._is_fresh(party, other, n)]
            self.report.waiting += len(late)
            gone = set(missing) - set(late)
            self._name(lack, (f"{n} ({other.by_seq[n][0].hex()})" for n in sorted(gone)))
        both = [n for n in numbers if n in mine.by_seq and n in theirs.by_seq]
        unequal = [n for n in both if mine.by_seq[n] != theirs.by_seq[n]]
        self._name(Lack.DIFFERENT_ENTRY, (f"{n} ({mine.by_seq[n][0].hex()})" for n in unequal))

    def _is_fresh(self, party: Party, log: _Log, number: int) -> bool:
        """Whether an entry was anchored so lately that the other's log may still follow."""
        anchor = self._anchors.covering(party.member_id, log.index_of[number])
        return anchor is not None and self._now_s - anchor.timestamp < self._grace_s

    def _name(self, lack: Lack, places: Iterable[str]) -> None:
        found = list(places)
        for place in found[:_NAMED]:
            self.report.add(lack, place)
        if len(found) > _NAMED:
            self.report.add(lack, f"and {len(found) - _NAMED} more")

    def _check_signatures(self) -> None:
        """The issuer's signature over each entry of the acquirer's log: what is anchored counts,
        not what the acquirer's row says."""
        acquirer, issuer = self._parties["acquirer"], self._parties["issuer"]
        entries = self._logs["acquirer"].by_seq
        unsigned = {txid: (number, commitment) for number, (txid, commitment) in entries.items()}
        total = len(unsigned)
        pages = shares_of_pair(acquirer.connection, acquirer.member_id, issuer.member_id)
        for page in pages:
            anchored = [
                replace(row, commitment=unsigned[row.txid][1], pair_seq=unsigned[row.txid][0])
                for row in page
                if row.txid in unsigned
            ]
            wrong = set(unsigned_rows(anchored, lambda _: self._message_keys))
            for row in anchored:
                if row.txid not in wrong:
                    unsigned.pop(row.txid, None)
            self._progress("Checking signatures", total - len(unsigned), total)
        self.report.signed = total - len(unsigned)
        found = sorted((number, txid.hex()) for txid, (number, _) in unsigned.items())
        self._name(Lack.UNSIGNED, (f"{number} ({txid})" for number, txid in found))

    # -- closes

    def _check_close(self, key: DayKey, confirmed: ConfirmedClose | None) -> None:
        if confirmed is None:
            self.report.closes.append(CloseSummary(key, None, None, True))
            return
        before = len(self.report.findings)
        totals = self._check_confirmed(key, confirmed, f"{key}, revision {confirmed.revision}")
        judged = all(log.holds for log in self._logs.values())
        holds = judged and len(self.report.findings) == before
        self.report.closes.append(CloseSummary(key, confirmed.revision, totals, holds))

    def _check_confirmed(self, key: DayKey, confirmed: ConfirmedClose, where: str) -> Totals | None:
        connection = self._parties["acquirer"].connection
        stored = connection.execute(
            "SELECT horizon::text FROM closes WHERE (acquirer, issuer, currency, business_date,"
            " revision) = (%s, %s, %s, %s, %s)",
            (key.acquirer, key.issuer, key.currency, key.business_date, confirmed.revision),
        ).fetchone()
        if stored is None:
            self.report.add(Lack.CLOSE_NOT_IN_BOOKS, where)
            return None
        items, salts = salted_items(connection, key, "acquirer", int(stored[0]), confirmed.revision)
        if close_root(items) != confirmed.close_root:
            self.report.add(Lack.CLOSE_ROOT_MISMATCH, where)
            return None
        for name, log in self._logs.items():
            if not log.holds:
                continue
            absent = [i.txid.hex() for i in items if (i.txid, i.commitment) not in log.entries]
            self._name(Lack.CLOSE_NOT_ANCHORED, (f"{where}: {t} ({name})" for t in absent))
        opened = self._opened(key, items, where)
        if opened is None:
            return None
        totals = totals_of(opened)
        if totals_hash(totals_salt(salts), totals) != confirmed.totals_hash:
            self.report.add(Lack.TOTALS_MISMATCH, where)
        return totals

    def _opened(self, key: DayKey, items: DayItems, where: str) -> DayItems | None:
        """The items with effects made anew of rows that lead to their C; None if one has none."""
        opened: list[Item] = []
        wanted = list(items)
        for start in range(0, len(wanted), _PAGE):
            page = wanted[start : start + _PAGE]
            facts = self._facts({item.txid: item.commitment for item in page}, key)
            # What a reversal undoes is judged by the original, of whatever day.
            originals = {f[3]: b"" for f in facts.values() if f[3]}
            known = facts | self._facts(originals, key)
            for item in page:
                fact = facts.get(item.txid)
                if fact is None:
                    self.report.add(Lack.OPENING_MISMATCH, f"{where}: {item.txid.hex()}")
                    return None
                kind, outcome, amount, original = fact
                named = known.get(original) if original else None
                moved = effect(kind, outcome, amount, named[:2] if named else None)
                opened.append(Item(item.txid, item.commitment, moved))
        return DayItems.of(opened)

    def _facts(
        self, wanted: dict[bytes, bytes], key: DayKey
    ) -> dict[bytes, tuple[str, str, int, bytes]]:
        """(kind, outcome, amount, original) of rows that lead to their own C, which must be the
        wanted one if one is named: of the acquirer's books, else of the issuer's."""
        found: dict[bytes, tuple[str, str, int, bytes]] = {}
        for party in self._parties.values():
            missing = [txid for txid in wanted if txid not in found]
            for row in queries.rows_by_txid(party.connection, missing) if missing else ():
                values = row.values
                try:
                    evidence = row_evidence(party.member_id, row)
                except RowUnsound:
                    continue
                commitment = wanted[evidence.leaf.txid]
                if commitment and evidence.leaf.commitment != commitment:
                    continue
                amount, original = values["amount"], values["original_txid"]
                if values["currency"] != key.currency or not isinstance(amount, int):
                    continue
                found[evidence.leaf.txid] = (
                    str(values["kind"]),
                    str(values["outcome"]),
                    amount,
                    original if isinstance(original, bytes) else b"",
                )
        return found

    # -- promises

    def _read_promises(self, texts: Sequence[str], view: ReceiptView) -> list[Promise]:
        members = {party.member_id for party in self._parties.values()}
        read: list[Promise] = []
        for number, text in enumerate(texts, start=1):
            self._progress("Checking promises", number, len(texts))
            try:
                promise = parse_promise(text.rpartition("#")[2].strip())
            except ValueError:
                self.report.add(Lack.PROMISE_INVALID, f"line {number}")
                continue
            if promise.member_id in members and promise_is_signed(promise, view):
                read.append(promise)
            else:
                self.report.add(Lack.PROMISE_INVALID, f"line {number} ({promise.txid.hex()})")
        return read

    def _check_promises(self, promises: Sequence[Promise]) -> None:
        log_of = {party.member_id: self._logs[name] for name, party in self._parties.items()}
        for promise in promises:
            if (promise.txid, promise.commitment) in log_of[promise.member_id].promised:
                self.report.promises_kept += 1
            elif self._now_s > promise.merge_deadline:
                self.report.add(Lack.PROMISE_OVERDUE, f"{promise.member_id}: {promise.txid.hex()}")
            else:
                self.report.promises_pending += 1
