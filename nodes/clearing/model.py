"""The close of a day between two institutions, and the breaks that a comparison finds in it.

Pure data. A close belongs to a pair (acquirer, issuer), a currency and a business date; each side
makes it of its own books. Amounts are minor units; moments milliseconds since 1970 (UTC).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from struct import Struct
from typing import Any, Literal, NamedTuple

Party = Literal["acquirer", "issuer"]


@dataclass(frozen=True, slots=True, order=True)
class DayKey:
    """What is closed: one currency of one business date between two institutions."""

    acquirer: str
    issuer: str
    currency: str
    business_date: date

    def party(self, member_id: str) -> Party | None:
        """Which of the two a member is; None if it is neither."""
        if member_id == self.acquirer:
            return "acquirer"
        return "issuer" if member_id == self.issuer else None

    def other(self, member_id: str) -> str:
        """The other institution."""
        return self.issuer if member_id == self.acquirer else self.acquirer

    def member(self, party: Party) -> str:
        """The institution that is this party."""
        return self.acquirer if party == "acquirer" else self.issuer

    def __str__(self) -> str:
        return f"{self.acquirer}-{self.issuer} {self.business_date} {self.currency}"


def other_party(party: Party) -> Party:
    """The other one."""
    return "issuer" if party == "acquirer" else "acquirer"


class Item(NamedTuple):
    """One transaction of a close.

    `effect`: what the issuer owes the acquirer by it (negative: the other way), minor units. It
    follows from what C commits to, and isn't part of the close's leaf (txid || C).
    """

    txid: bytes
    commitment: bytes
    effect: int


_ITEM = Struct(">32s32sq")
ITEM_SIZE = _ITEM.size
LEAF_SIZE = 64


class DayItems:
    """The sorted items of a close, 72 bytes each: a million of them are one block of memory."""

    __slots__ = ("blob",)

    def __init__(self, blob: bytes = b"") -> None:
        if len(blob) % ITEM_SIZE:
            raise ValueError(f"an item has {ITEM_SIZE} bytes")
        self.blob = blob

    @classmethod
    def of(cls, items: Iterable[Item]) -> DayItems:
        """Sort and pack items."""
        return cls(b"".join(sorted(_ITEM.pack(*item) for item in items)))

    def __len__(self) -> int:
        return len(self.blob) // ITEM_SIZE

    def __getitem__(self, index: int) -> Item:
        return Item._make(_ITEM.unpack_from(self.blob, index * ITEM_SIZE))

    def __iter__(self) -> Iterator[Item]:
        return map(Item._make, _ITEM.iter_unpack(self.blob))


@dataclass(frozen=True, slots=True)
class Totals:
    """A close's numbers: items, what the issuer owes (debits) and is owed (credits)."""

    count: int
    debits: int
    credits: int


class CloseStage(StrEnum):
    """How far a close is. CONFIRMED and BROKEN are the chain's word, after both have revealed."""

    PREPARED = "PREPARED"
    COMMITTED = "COMMITTED"
    REVEALED = "REVEALED"
    CONFIRMED = "CONFIRMED"
    BROKEN = "BROKEN"
    EXPIRED = "EXPIRED"
    SUPERSEDED = "SUPERSEDED"


@dataclass(frozen=True, slots=True)
class Close:
    """One revision of a close in one institution's books; never changes."""

    key: DayKey
    revision: int
    party: Party
    #: The database's horizon of running transactions: rows below it are in, others aren't.
    horizon: int
    totals: Totals
    close_root: bytes
    totals_hash: bytes
    blind: bytes
    #: Pair numbers checked for gaps with this close: after the first, up to the last. Equal: none.
    after_pair_seq: int
    last_pair_seq: int
    closed_ms: int
    close_id: int = 0

    def __repr__(self) -> str:
        return f"Close({self.key}, revision {self.revision})"


class BreakKind(StrEnum):
    """What a break is, in order of precedence: of two that apply to a transaction, the upper."""

    DUPLICATE = "DUPLICATE"  # a terminal's message, or a txid, stands more than once
    FIELD_MISMATCH = "FIELD_MISMATCH"  # both have it, C differs: in these fields
    TOTALS_MISMATCH = "TOTALS_MISMATCH"  # lists alike, totals not: by this row's salt, or by none
    WRONG_DATE = "WRONG_DATE"  # both have it alike, under different business dates
    LATE = "LATE"  # one lacks it, and its due time isn't over
    MISSING_AT_ISSUER = "MISSING_AT_ISSUER"
    MISSING_AT_ACQUIRER = "MISSING_AT_ACQUIRER"
    SEQ_GAP = "SEQ_GAP"  # a number of the pair's 1..N that no transaction explains
    UNSIGNED = "UNSIGNED"  # the acquirer has it without the issuer's signature


#: C's fields by name (nodes.crypto.commitment.SharedField), and C itself where a row has all
#: fields alike and yet another C: it contradicts itself.
COMMITMENT_FIELD = "commitment"


@dataclass(frozen=True, slots=True)
class Break:
    """One difference, named."""

    kind: BreakKind
    txid: bytes | None = None
    #: FIELD_MISMATCH only: which of C's fields differ.
    fields: tuple[str, ...] = ()
    #: SEQ_GAP: the number that lacks.
    pair_seq: int | None = None
    #: Which party's close lacks the transaction, where one does.
    lacking: Party | None = None
    #: WRONG_DATE: the other party's business date.
    other_date: date | None = None
    #: DUPLICATE: the transaction that came first.
    first_txid: bytes | None = None
    #: LATE: until then it isn't missing.
    due_ms: int | None = None
    #: What each party has, for people and for the correcting entry (see nodes/reconciliation).
    detail: dict[str, Any] | None = None

    @property
    def name(self) -> tuple[str, bytes | None, tuple[str, ...], int | None]:
        """What tells breaks of one close apart."""
        return self.kind.value, self.txid, self.fields, self.pair_seq


class Resolution(StrEnum):
    """Whose version stands. ACKNOWLEDGE: nothing in the close changes."""

    TAKE_ACQUIRER = "TAKE_ACQUIRER"
    TAKE_ISSUER = "TAKE_ISSUER"
    ACKNOWLEDGE = "ACKNOWLEDGE"


class CaseState(StrEnum):
    """A break's way to its end."""

    OPEN = "open"
    PROPOSED = "proposed"
    COUNTERSIGNED = "countersigned"
    CORRECTED = "corrected"
    CLOSED = "closed"


class CaseStep(StrEnum):
    """An event of a case."""

    OPENED = "opened"
    PROPOSED = "proposed"
    REFUSED = "refused"  # the other institution doesn't countersign
    COUNTERSIGNED = "countersigned"
    CORRECTED = "corrected"  # the correcting entry is written; nothing to correct: noted
    ARRIVED = "arrived"  # what was late has come
    OVERDUE = "overdue"  # what was late has not: it is missing
    CLOSED = "closed"  # the corrected close is confirmed


class CaseOutcome(StrEnum):
    """How a step of a case ends, in order of precedence."""

    KEY_REUSED = "key_reused"
    BREAK_UNKNOWN = "break_unknown"
    CASE_KEEPER_UNREACHABLE = "case_keeper_unreachable"
    CASE_MOVED_ON = "case_moved_on"
    CASE_TAKEN = "case_taken"
    CASE_NOT_YOURS = "case_not_yours"
    BREAK_NOT_DUE = "break_not_due"
    RESOLUTION_NOT_APPLICABLE = "resolution_not_applicable"
    MAKER_IS_CHECKER = "maker_is_checker"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Case:
    """A break's case as its last event left it."""

    break_ref: bytes
    kind: BreakKind
    state: CaseState
    number: int  # events so far
    lacking: Party | None = None
    due_ms: int | None = None
    #: Nothing to choose between: a duplicate in both books, totals that no row explains.
    both_hold: bool = False
    proposed_by: str | None = None  # the member that made the open proposal
    proposer: str | None = None  # its person
    resolution: Resolution | None = None
