"""The comparison itself: who asks what, and what is answered. Pure; the way between is handed in.

Rounds: fingerprints of all ranges that are in doubt go out together; the answer says which differ;
those are split further, the finer the fewer there are. Small ranges are listed by digests. So the
messages grow with the number of breaks and the logarithm of the day.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from nodes.clearing.model import ITEM_SIZE, DayItems, DayKey, Item
from nodes.clearing.rules.closing import close_root
from nodes.reconciliation import protocol
from nodes.reconciliation.protocol import (
    Answer,
    Findings,
    Held,
    Listing,
    ListingAnswer,
    MessageRefused,
    Question,
    Split,
    SplitAnswer,
)
from nodes.reconciliation.ranges import (
    FINGERPRINT_SIZE,
    PREFIX_BITS,
    WHOLE,
    Range,
    RangeIndex,
    digest,
    unmatched,
)

T = TypeVar("T")

#: Ranges of at most so many items are listed.
LIST_LIMIT = 12
#: Fingerprints in one round, while that many suffice: 40 KiB.
_ROUND = 2560
_MAX_FAN = 11
#: Listings in one message.
_LISTINGS = 1024


class ComparisonFailed(Exception):
    """The other party's answers contradict its own close: nothing follows from them."""


class Books(Protocol):
    """A party's own rows, for the transactions that turn out to be broken."""

    @property
    def salted_index(self) -> RangeIndex:
        """The close's items, with a digest of each one's salt_fin in the place of its effect."""
        ...

    def held(self, txids: Sequence[bytes]) -> dict[bytes, Held]:
        """Those of these that stand in the books, whatever their date and currency."""
        ...

    def numbered(self, numbers: Sequence[int]) -> dict[int, bytes]:
        """The txids under these numbers of the pair."""
        ...

    def findings(self) -> Findings:
        """What the books say against themselves."""
        ...


Exchange = Callable[[Question], Answer]


@dataclass(frozen=True, slots=True)
class Subject:
    """What is compared: one revision of a close."""

    key: DayKey
    revision: int
    salted: bool = False

    def question(self, **parts: object) -> Question:
        """A question about it."""
        day = self.key.business_date
        return Question(
            acquirer=self.key.acquirer,
            issuer=self.key.issuer,
            currency=self.key.currency,
            business_date=day.year * 10_000 + day.month * 100 + day.day,
            revision=self.revision,
            salted=self.salted,
            **parts,  # type: ignore[arg-type]
        )


# --- the issuer's node answers -----------------------------------------------------------------


class Responder:
    """Answers questions about one close."""

    def __init__(self, index: RangeIndex, root: bytes, books: Books) -> None:
        self._plain = index
        self._root = root
        self._books = books

    def answer(self, question: Question) -> Answer:
        """One answer a part. MessageRefused if a part makes no sense."""
        index = self._books.salted_index if question.salted else self._plain
        held = self._books.held([*question.leaves, *question.wanted])
        leaves = [
            b"".join(held[txid].field_leaves()) if txid in held else b"" for txid in question.leaves
        ]
        numbered = self._books.numbered(question.numbers) if question.numbers else {}
        return Answer(
            close_root=self._root,
            splits=[_split(index, split) for split in question.splits],
            listings=[_listing(index, listing) for listing in question.listings],
            leaves=leaves,
            held=[held.get(txid) for txid in question.wanted],
            numbers=[numbered.get(number) for number in question.numbers],
            findings=self._books.findings() if question.findings else None,
        )


def _split(index: RangeIndex, split: Split) -> SplitAnswer:
    asked = _range(split.prefix, split.bits)
    if not 0 < split.fan <= min(_MAX_FAN, PREFIX_BITS - split.bits):
        raise MessageRefused("a range is split into 2 to 2048 parts")
    theirs = _pieces(split.fingerprints, FINGERPRINT_SIZE)
    mine = index.parts(asked, split.fan)
    if len(theirs) != len(mine):
        raise MessageRefused("a part of a range has no fingerprint")
    differing = [own != other for (own, _), other in zip(mine, theirs, strict=True)]
    counts = [count for (_, count), unequal in zip(mine, differing, strict=True) if unequal]
    return SplitAnswer(_bitmap(differing), counts)


def _listing(index: RangeIndex, listing: Listing) -> ListingAnswer:
    mine = index.within(_range(listing.prefix, listing.bits))
    extra, lacking = unmatched(mine, _pieces(listing.digests, FINGERPRINT_SIZE))
    return ListingAnswer(lacking, DayItems.of(extra).blob)


def _range(prefix: int, bits: int) -> Range:
    asked = Range(prefix, bits)
    if not asked.valid:
        raise MessageRefused("a range is a prefix of at most 64 bits")
    return asked


def _pieces(joined: bytes, size: int) -> list[bytes]:
    if len(joined) % size:
        raise MessageRefused("hashes aren't of full length")
    return [joined[at : at + size] for at in range(0, len(joined), size)]


def _bitmap(bits: Sequence[bool]) -> bytes:
    number = 0
    for bit in bits:
        number = number << 1 | bit
    length = (len(bits) + 7) // 8
    return (number << (length * 8 - len(bits))).to_bytes(length, "big")


def _bits(bitmap: bytes, count: int) -> list[bool]:
    if len(bitmap) != (count + 7) // 8:
        raise ComparisonFailed("an answer to a split has the wrong length")
    return [bool(bitmap[place // 8] >> (7 - place % 8) & 1) for place in range(count)]


# --- the acquirer's node asks ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Differences:
    """What stands in one close alone, and the other's root that this accounts for."""

    only_mine: list[Item]
    only_theirs: list[Item]
    their_root: bytes


@dataclass(frozen=True, slots=True)
class _Doubt:
    where: Range
    count: int  # items, the larger of the two parties' numbers


def find_differences(index: RangeIndex, subject: Subject, exchange: Exchange) -> Differences:
    """Every item that stands in one of the two closes alone.

    Ends with a proof: this list with the differences applied must lead to the root that the other
    party has posted. ComparisonFailed if it doesn't.
    """
    doubts = [_Doubt(WHOLE, max(len(index.items), LIST_LIMIT + 1))]
    mine: list[Item] = []
    theirs: list[Item] = []
    root: bytes | None = None
    while doubts:
        small = [d for d in doubts if d.count <= LIST_LIMIT or d.where.bits == PREFIX_BITS]
        large = [d for d in doubts if d.count > LIST_LIMIT and d.where.bits < PREFIX_BITS]
        doubts = []
        for chunk in _chunks(large, _ROUND // 2):
            fan = _fan(chunk)
            answer = exchange(subject.question(splits=[_asked(index, d, fan) for d in chunk]))
            doubts += _still_in_doubt(index, chunk, fan, answer)
            root = _same(root, answer.close_root)
        for chunk in _chunks(small, _LISTINGS):
            own = [index.within(doubt.where) for doubt in chunk]
            listings = [
                Listing(d.where.prefix, d.where.bits, b"".join(map(digest, items)))
                for d, items in zip(chunk, own, strict=True)
            ]
            answer = exchange(subject.question(listings=listings))
            root = _same(root, answer.close_root)
            _take(own, answer, mine, theirs)
    assert root is not None  # the whole is always in doubt at first
    if close_root(applied(index.items, mine, theirs)) != root:
        raise ComparisonFailed("the differences do not lead to the other party's close root")
    return Differences(sorted(mine), sorted(theirs), root)


def _fan(doubts: Sequence[_Doubt]) -> int:
    """Into how many parts to split, as a power of two: the finer, the fewer ranges there are."""
    budget = (_ROUND // len(doubts)).bit_length() - 1
    needed = (max(d.count for d in doubts) // (LIST_LIMIT // 2)).bit_length()
    room = PREFIX_BITS - max(d.where.bits for d in doubts)
    return max(1, min(budget, needed, room, _MAX_FAN))


def _asked(index: RangeIndex, doubt: _Doubt, fan: int) -> Split:
    parts = index.parts(doubt.where, fan)
    return Split(
        doubt.where.prefix, doubt.where.bits, fan, b"".join(fingerprint for fingerprint, _ in parts)
    )


def _still_in_doubt(
    index: RangeIndex, asked: Sequence[_Doubt], fan: int, answer: Answer
) -> Iterator[_Doubt]:
    if len(answer.splits) != len(asked):
        raise ComparisonFailed("not one answer a split")
    for doubt, found in zip(asked, answer.splits, strict=True):
        differing = _bits(found.differing, 1 << fan)
        if len(found.counts) != sum(differing) or any(count < 0 for count in found.counts):
            raise ComparisonFailed("not one number of items a differing range")
        counts = iter(found.counts)
        for part, unequal in zip(doubt.where.split(fan), differing, strict=True):
            if unequal:
                first, last = index.bounds(part)
                yield _Doubt(part, max(last - first, next(counts)))


def _take(own: Sequence[list[Item]], answer: Answer, mine: list[Item], theirs: list[Item]) -> None:
    if len(answer.listings) != len(own):
        raise ComparisonFailed("not one answer a listing")
    for items, found in zip(own, answer.listings, strict=True):
        places = set(found.lacking)
        if len(places) != len(found.lacking) or not all(0 <= p < len(items) for p in places):
            raise ComparisonFailed("an answer to a listing names no item")
        if len(found.extra) % ITEM_SIZE:
            raise ComparisonFailed("an answer to a listing has a broken item")
        mine += [items[place] for place in found.lacking]
        theirs += DayItems(found.extra)


def _same(root: bytes | None, other: bytes) -> bytes:
    if root is not None and root != other:
        raise ComparisonFailed("the other party's close root changed midway")
    return other


def applied(items: DayItems, out: Sequence[Item], into: Sequence[Item]) -> DayItems:
    """The items without `out`, with `into`."""
    gone = Counter(DayItems.of([item]).blob for item in out)
    blob = items.blob
    kept: list[bytes] = []
    for at in range(0, len(blob), ITEM_SIZE):
        packed = blob[at : at + ITEM_SIZE]
        if gone and gone.get(packed, 0) > 0:
            gone[packed] -= 1
        else:
            kept.append(packed)
    for item in into:
        insort(kept, DayItems.of([item]).blob)
    return DayItems(b"".join(kept))


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


# --- what each party has of the broken ones ----------------------------------------------------


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that breaks are classified by. `mine` is the acquirer, who asks."""

    differences: Differences
    mine: dict[bytes, Held]
    theirs: dict[bytes, Held]
    my_findings: Findings
    their_findings: Findings
    #: The txids under pair numbers that the other party lacks, None where nobody has one.
    my_numbers: dict[int, bytes | None]
    their_numbers: dict[int, bytes | None]


def gather(
    differences: Differences, books: Books, subject: Subject, exchange: Exchange
) -> Evidence:
    """Ask for what classification needs: field leaves of mismatches, openings of broken items."""
    own = books.findings()
    other = exchange(subject.question(findings=True)).findings
    if other is None:
        raise ComparisonFailed("the other party's findings are not there")
    their_numbers: dict[int, bytes | None] = {}
    for numbers in _chunks(own.gaps, protocol.MAX_NUMBERS):
        told = exchange(subject.question(numbers=list(numbers))).numbers
        if len(told) != len(numbers):
            raise ComparisonFailed("not one answer a number")
        their_numbers |= dict(zip(numbers, told, strict=True))
    found = books.numbered(other.gaps)
    my_numbers = {number: found.get(number) for number in other.gaps}
    broken = {item.txid for item in [*differences.only_mine, *differences.only_theirs]}
    broken |= {later for later, _ in [*own.duplicates, *other.duplicates]} | set(own.unsigned)
    asked = broken | {t for t in [*their_numbers.values(), *my_numbers.values()] if t is not None}
    mine = books.held(sorted(asked))
    alone = {item.txid for item in differences.only_mine} & {
        item.txid for item in differences.only_theirs
    }
    leaves = _leaves(sorted(alone), subject, exchange)
    theirs: dict[bytes, Held] = {}
    for chunk in _chunks(sorted(asked), protocol.MAX_ITEMS):
        answer = exchange(subject.question(wanted=list(chunk)))
        if len(answer.held) != len(chunk):
            raise ComparisonFailed("not one answer a broken transaction")
        for txid, held in zip(chunk, answer.held, strict=True):
            if held is not None:
                theirs[txid] = _checked(txid, held, leaves.get(txid))
    return Evidence(differences, mine, theirs, own, other, my_numbers, their_numbers)


def _leaves(txids: Sequence[bytes], subject: Subject, exchange: Exchange) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for chunk in _chunks(txids, protocol.MAX_ITEMS):
        answer = exchange(subject.question(leaves=list(chunk)))
        if len(answer.leaves) != len(chunk) or any(len(e) not in (0, 256) for e in answer.leaves):
            raise ComparisonFailed("not eight field leaves a transaction")
        found |= dict(zip(chunk, answer.leaves, strict=True))
    return found


def _checked(txid: bytes, held: Held, leaves: bytes | None) -> Held:
    """An opening that leads to the leaves which were given before it."""
    lengths = (held.txid, held.commitment, held.salt_fin, held.token_leaf)
    try:
        opened = b"".join(held.field_leaves())
    except (ValueError, OverflowError):
        opened = b"none"
    if held.txid != txid or any(len(word) != 32 for word in lengths) or len(opened) != 256:
        raise ComparisonFailed("an opening is malformed")
    if leaves is not None and opened != leaves:
        raise ComparisonFailed("an opening does not lead to its field leaves")
    return held
