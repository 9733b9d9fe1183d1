"""Two institutions' books of a day in memory, and breaks of every class planted into them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

import msgspec

from nodes import ids
from nodes.authorization.model import Kind, Outcome
from nodes.clearing.model import BreakKind, DayItems, DayKey, Item
from nodes.clearing.rules.closing import close_root, effect
from nodes.crypto.commitment import field_leaf, field_salt, shared_root
from nodes.reconciliation.comparing import Responder, Subject
from nodes.reconciliation.protocol import (
    Answer,
    Findings,
    Held,
    Question,
    decode_answer,
    decode_question,
    encode,
)
from nodes.reconciliation.ranges import RangeIndex

DAY = date(2026, 11, 20)
NEXT_DAY_NUMBER = 20261121
KEY = DayKey("meridian", "aurora", "CNY", DAY)
NOW_MS = 1_790_000_000_000
LATE_MS = 3_600_000
MISMATCHES = ("amount", "kind", "time", "merchant", "outcome", "original", "card_token")


def token_leaf(txid: bytes, salt_pii: bytes, token: bytes) -> bytes:
    return field_leaf(8, field_salt(salt_pii, txid, 8), token.ljust(32, b"\0"))


def transaction(source: random.Random, number: int, **changes: object) -> Held:
    """One transaction, alike for both."""
    txid = ids.txid(KEY.acquirer, KEY.issuer, source.randbytes(16))
    kind = source.choice([Kind.PURCHASE, Kind.PURCHASE, Kind.REFUND, Kind.ADVICE])
    outcome = source.choice([Outcome.APPROVED, Outcome.APPROVED, Outcome.AMOUNT_LIMIT])
    held = Held(
        txid=txid,
        commitment=bytes(32),
        amount=source.randrange(1, 100_000),
        currency="CNY",
        kind=kind.value,
        kind_word=kind.word,
        outcome=outcome.value,
        outcome_word=outcome.word,
        time_ms=NOW_MS - 10 * LATE_MS,
        merchant="HARBOR000000001",
        original=b"",
        salt_fin=source.randbytes(32),
        token_leaf=token_leaf(txid, source.randbytes(32), source.randbytes(16)),
        effect=0,
        business_date=20261120,
        pair_seq=number,
        in_close=1,
    )
    return sound(msgspec.structs.replace(held, **changes))


def sound(held: Held) -> Held:
    """The same with the effect and the commitment that its values have."""
    moved = effect(held.kind, held.outcome, held.amount, None)
    return msgspec.structs.replace(held, effect=moved, commitment=shared_root(held.field_leaves()))


@dataclass
class Party:
    """One side's books."""

    rows: list[Held] = field(default_factory=list)
    duplicates: list[tuple[bytes, bytes]] = field(default_factory=list)
    unsigned: list[bytes] = field(default_factory=list)

    def items(self) -> DayItems:
        return DayItems.of(Item(r.txid, r.commitment, r.effect) for r in self.rows if r.in_close)

    @property
    def salted_index(self) -> RangeIndex:
        return RangeIndex(
            DayItems.of(
                Item(r.txid, r.commitment, int.from_bytes(r.salt_fin[:7], "big"))
                for r in self.rows
                if r.in_close
            )
        )

    def held(self, txids: Sequence[bytes]) -> dict[bytes, Held]:
        found: dict[bytes, Held] = {}
        index = RangeIndex(self.items())
        first = dict(self.duplicates)
        for row in self.rows:
            if row.txid in set(txids):
                found[row.txid] = msgspec.structs.replace(
                    row, in_close=index.copies(row.txid), first_txid=first.get(row.txid)
                )
        return found

    def numbered(self, numbers: Sequence[int]) -> dict[int, bytes]:
        return {r.pair_seq: r.txid for r in self.rows if r.pair_seq in set(numbers)}

    def findings(self) -> Findings:
        have = {r.pair_seq for r in self.rows}
        gaps = sorted(set(range(1, max(have, default=0) + 1)) - have)
        return Findings(gaps, sorted(self.duplicates), sorted(self.unsigned))


@dataclass
class Wire:
    """The way to the issuer: everything is encoded and decoded, and counted."""

    responder: Responder
    sent: int = 0
    received: int = 0
    calls: int = 0

    def __call__(self, question: Question) -> Answer:
        asked = encode(question)
        told = encode(self.responder.answer(decode_question(asked)))
        self.sent += len(asked)
        self.received += len(told)
        self.calls += 1
        return decode_answer(told)


@dataclass
class Day:
    """Both books, and the breaks that were planted: (kind, txid, fields, number)."""

    acquirer: Party
    issuer: Party
    planted: set[tuple[str, bytes | None, tuple[str, ...], int | None]]

    def wire(self) -> Wire:
        items = self.issuer.items()
        return Wire(Responder(RangeIndex(items), close_root(items), self.issuer))

    @property
    def subject(self) -> Subject:
        return Subject(KEY, 0)


def make_day(seed: int, clean: int, counts: dict[BreakKind, int]) -> Day:
    """A day of `clean` sound transactions and so many breaks of each class."""
    source = random.Random(seed)
    acquirer, issuer = Party(), Party()
    planted: set[tuple[str, bytes | None, tuple[str, ...], int | None]] = set()
    plan: list[BreakKind | None] = [None] * clean
    plan += [kind for kind, count in counts.items() for _ in range(count)]
    source.shuffle(plan)
    plan.append(None)  # a gap at the end is none
    for number, kind in enumerate(plan, start=1):
        row = transaction(source, number)
        fields: tuple[str, ...] = ()
        match kind:
            case None:
                acquirer.rows.append(row)
                issuer.rows.append(row)
                continue
            case BreakKind.SEQ_GAP:
                planted.add((kind.value, None, (), number))
                continue
            case BreakKind.MISSING_AT_ISSUER:
                acquirer.rows.append(row)
            case BreakKind.MISSING_AT_ACQUIRER:
                issuer.rows.append(row)
            case BreakKind.LATE:
                row = sound(msgspec.structs.replace(row, time_ms=NOW_MS - LATE_MS // 2))
                source.choice([acquirer, issuer]).rows.append(row)
            case BreakKind.FIELD_MISMATCH:
                changed, fields = _mismatch(source, row)
                pair = [row, changed]
                source.shuffle(pair)
                acquirer.rows.append(pair[0])
                issuer.rows.append(pair[1])
            case BreakKind.TOTALS_MISMATCH:
                raise ValueError("salts are compared only where the lists are alike")
            case BreakKind.WRONG_DATE:
                moved = msgspec.structs.replace(row, business_date=NEXT_DAY_NUMBER, in_close=0)
                pair = [row, moved]
                source.shuffle(pair)
                acquirer.rows.append(pair[0])
                issuer.rows.append(pair[1])
            case BreakKind.DUPLICATE:
                row = _duplicate(source, row, acquirer, issuer)
            case BreakKind.UNSIGNED:
                acquirer.rows.append(row)
                issuer.rows.append(row)
                acquirer.unsigned.append(row.txid)
        planted.add((kind.value, row.txid, fields, None))
    return Day(acquirer, issuer, planted)


def _duplicate(source: random.Random, row: Held, acquirer: Party, issuer: Party) -> Held:
    """A terminal's message that was booked twice, by one or both; or a row stands twice."""
    way = source.randrange(4)
    if way == 3:
        acquirer.rows.append(row)
        issuer.rows += [row, row]
        return row
    first = transaction(source, row.pair_seq)
    holders = ([acquirer], [issuer], [acquirer, issuer])[way]
    for party in holders:
        party.duplicates.append((row.txid, first.txid))
        party.rows.append(row)
    for party in (acquirer, issuer):
        party.rows.append(first)
    return row


def _mismatch(source: random.Random, row: Held) -> tuple[Held, tuple[str, ...]]:
    drawn = source.sample(MISMATCHES, source.randrange(1, 4))
    names = tuple(name for name in MISMATCHES if name in drawn)
    change: dict[str, object] = {}
    for name in names:
        match name:
            case "amount":
                change["amount"] = row.amount + source.randrange(1, 500)
            case "kind":
                change |= {"kind": Kind.CAPTURE.value, "kind_word": Kind.CAPTURE.word}
            case "time":
                change["time_ms"] = row.time_ms + 1
            case "merchant":
                change["merchant"] = "HARBOR000000002"
            case "outcome":
                other = Outcome.USES_EXHAUSTED
                change |= {"outcome": other.value, "outcome_word": other.word}
            case "original":
                change["original"] = source.randbytes(32)
            case "card_token":
                change["token_leaf"] = source.randbytes(32)
    return sound(msgspec.structs.replace(row, **change)), names
