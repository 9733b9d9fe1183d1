"""The messages of a comparison: MessagePack arrays in the order of the structs' fields.

The acquirer's node asks, the issuer's answers; each question stands for itself. Nothing but
fingerprints, digests and the broken items travels (docs/reconciliation.md).
"""

from __future__ import annotations

from datetime import date

import msgspec

from nodes.clearing.model import DayKey
from nodes.crypto.commitment import SharedFacts, shared_field_leaves

VERSION = 1
#: Of one question: more is put into a further one.
MAX_RANGES = 4096
MAX_ITEMS = 512
MAX_NUMBERS = 1000

MEDIA_TYPE = "application/vnd.countersign.comparison"


class MessageRefused(ValueError):
    """A message that isn't one of these; says what is wrong, without quoting it."""


class Split(msgspec.Struct, array_like=True, frozen=True):
    """A range with the asker's fingerprints of its 2^fan parts, joined."""

    prefix: int
    bits: int
    fan: int
    fingerprints: bytes


class Listing(msgspec.Struct, array_like=True, frozen=True):
    """A range with the asker's digests of its items, joined, in order."""

    prefix: int
    bits: int
    digests: bytes


class Question(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """What the acquirer's node asks about one revision of a close."""

    version: int = VERSION
    acquirer: str
    issuer: str
    currency: str
    business_date: int  # yyyymmdd
    revision: int
    splits: list[Split] = []
    listings: list[Listing] = []
    #: Transactions that both have with different commitments: their eight field leaves, please.
    leaves: list[bytes] = []
    #: Broken transactions: what have you of them?
    wanted: list[bytes] = []
    #: Numbers of the pair that the asker lacks: which transactions have them?
    numbers: list[int] = []
    findings: bool = False
    #: Of lists that are equal: compare the items' salts, too, from which the totals are hidden.
    salted: bool = False

    def key(self) -> DayKey:
        """The close that it is about. MessageRefused if that can't be one."""
        year, rest = divmod(self.business_date, 10_000)
        try:
            day = date(year, *divmod(rest, 100))
        except ValueError:
            raise MessageRefused("the business date is none") from None
        return DayKey(self.acquirer, self.issuer, self.currency, day)


class SplitAnswer(msgspec.Struct, array_like=True, frozen=True):
    """Which parts differ (a bit a part, the first is the highest), and how many items each has."""

    differing: bytes
    counts: list[int]


class ListingAnswer(msgspec.Struct, array_like=True, frozen=True):
    """Places of digests without an item here, and the items without a digest there (72 bytes)."""

    lacking: list[int]
    extra: bytes


class Held(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """A broken transaction as one party has it: C opened but for the card token."""

    txid: bytes
    commitment: bytes
    amount: int
    currency: str
    kind: str
    kind_word: int
    outcome: str
    outcome_word: int
    time_ms: int
    merchant: str
    original: bytes
    salt_fin: bytes
    token_leaf: bytes
    effect: int
    business_date: int
    pair_seq: int
    #: How often it is in this close.
    in_close: int
    #: The transaction of the same terminal message that came first, if there is one.
    first_txid: bytes | None = None

    def field_leaves(self) -> list[bytes]:
        """The eight leaves that these values lead to."""
        facts = SharedFacts(
            self.amount,
            self.currency.encode("ascii"),
            self.kind_word,
            self.time_ms,
            self.merchant.encode("ascii"),
            self.outcome_word,
            self.original,
            b"",
        )
        leaves = shared_field_leaves(self.txid, facts, self.salt_fin, b"")
        return [*leaves[:7], self.token_leaf]


class Findings(msgspec.Struct, array_like=True, frozen=True):
    """What a party finds in its own books: missing pair numbers, repeated terminal messages.

    `duplicates`: (later, first) txids. `unsigned`: only an acquirer's.
    """

    gaps: list[int] = []
    duplicates: list[tuple[bytes, bytes]] = []
    unsigned: list[bytes] = []


class Answer(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """One answer a part of the question, in the same order."""

    version: int = VERSION
    close_root: bytes
    splits: list[SplitAnswer] = []
    listings: list[ListingAnswer] = []
    leaves: list[bytes] = []  # 256 bytes each, empty: has no such transaction
    held: list[Held | None] = []
    numbers: list[bytes | None] = []
    findings: Findings | None = None


_encoder = msgspec.msgpack.Encoder()
_questions = msgspec.msgpack.Decoder(Question)
_answers = msgspec.msgpack.Decoder(Answer)


def encode(message: Question | Answer) -> bytes:
    """A message's bytes."""
    return _encoder.encode(message)


def decode_question(raw: bytes) -> Question:
    """Read and check a question. MessageRefused."""
    try:
        question = _questions.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise MessageRefused("it can't be read") from None
    if question.version != VERSION:
        raise MessageRefused(f"its version is not {VERSION}")
    ranges = sum(1 << min(split.fan, 16) for split in question.splits) + len(question.listings)
    asked = [*question.leaves, *question.wanted]
    if ranges > 4 * MAX_RANGES or len(asked) > 2 * MAX_ITEMS:
        raise MessageRefused("it asks for too much at once")
    if len(question.numbers) > MAX_NUMBERS:
        raise MessageRefused("it asks for too many numbers at once")
    if any(len(txid) != 32 for txid in asked):
        raise MessageRefused("a txid has 32 bytes")
    if any(not 0 < number < 1 << 63 for number in question.numbers):
        raise MessageRefused("a pair number is a positive number of 63 bits")
    if question.revision < 0:
        raise MessageRefused("a revision isn't negative")
    return question


def decode_answer(raw: bytes) -> Answer:
    """Read an answer. MessageRefused."""
    try:
        answer = _answers.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise MessageRefused("the answer can't be read") from None
    if answer.version != VERSION:
        raise MessageRefused(f"the answer's version is not {VERSION}")
    return answer
