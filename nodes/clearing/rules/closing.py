"""What a close says, as functions of its items (docs/reconciliation.md). Pure.

closeRoot: the RFC 9162 tree over the leaves txid || C in order; SHA-256 of nothing if there are
none. totalsHash = SHA-256(totals_salt || uint256 count || uint256 debits || uint256 credits), where
totals_salt = SHA-256("countersign/close-salt/1" || salt_fin of each item, in order): both
institutions know it, outsiders can't guess it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from hashlib import sha256
from struct import Struct
from zoneinfo import ZoneInfo

from nodes import clock
from nodes.authorization.model import Kind, Outcome
from nodes.clearing.model import (
    ITEM_SIZE,
    LEAF_SIZE,
    Break,
    DayItems,
    DayKey,
    Item,
    Totals,
)
from nodes.crypto.commitment import uint_word
from nodes.crypto.merkle import root_of

_SALT_LABEL = b"countersign/close-salt/1"
_BREAK_LABEL = b"countersign/break/1"
_EFFECTS = Struct(">64xq")
#: Kinds in which money moved between issuer and acquirer when they were approved.
PAYMENTS = frozenset({Kind.PURCHASE, Kind.CAPTURE, Kind.ADVICE})
#: Kinds in which it moved the other way.
_CREDITS = frozenset({Kind.REFUND, Kind.TOP_UP})
#: Kinds that undo what their original moved.
_UNDOES = frozenset({Kind.REVERSAL, Kind.VOID})


def effect(kind: str, outcome: str, amount: int, original: tuple[str, str] | None) -> int:
    """What the issuer owes the acquirer by a transaction, minor units; negative the other way.

    `original`: kind and outcome of the transaction that it names, None if the books lack it.
    """
    if outcome != Outcome.APPROVED.value:
        return 0
    if kind in PAYMENTS:
        return amount
    if kind in _CREDITS:
        return -amount
    if kind in _UNDOES and original is not None and original[1] == Outcome.APPROVED.value:
        if original[0] in PAYMENTS:
            return -amount
        if original[0] in _CREDITS:
            return amount
    return 0


def close_root(items: DayItems) -> bytes:
    """The root over a close's items."""
    hashed, blob = sha256, items.blob
    return root_of(
        [
            hashed(b"\0" + blob[at : at + LEAF_SIZE]).digest()
            for at in range(0, len(blob), ITEM_SIZE)
        ]
    )


def totals_of(items: DayItems) -> Totals:
    """Count, debits and credits."""
    debits = credits = 0
    for (moved,) in _EFFECTS.iter_unpack(items.blob):
        if moved > 0:
            debits += moved
        else:
            credits -= moved
    return Totals(len(items), debits, credits)


def totals_salt(salts: Iterable[bytes]) -> bytes:
    """The salt of a close's totals; `salts` are its items' salt_fin in order."""
    hasher = sha256(_SALT_LABEL)
    hasher.update(b"".join(salts))
    return hasher.digest()


def totals_hash(salt: bytes, totals: Totals) -> bytes:
    """What the chain gets of a close's totals."""
    words = b"".join(map(uint_word, (totals.count, totals.debits, totals.credits)))
    return sha256(salt + words).digest()


def break_ref(key: DayKey, revision: int, found: Break) -> bytes:
    """A break's name in both institutions' books: of its close, kind and subject."""
    kind, txid, _, pair_seq = found.name
    text = f"{key.acquirer}\x1f{key.issuer}\x1f{key.currency}\x1f{key.business_date}\x1f{revision}"
    subject = txid if txid is not None else uint_word(pair_seq or 0)
    return sha256(_BREAK_LABEL + f"{text}\x1f{kind}\x1f".encode() + subject).digest()


# --- when a day is over ------------------------------------------------------------------------


def day_end_ms(day: date, time_zone: str) -> int:
    """The first moment after a business date in the network's time zone."""
    after = day + timedelta(days=1)
    return clock.to_ms(datetime(after.year, after.month, after.day, tzinfo=ZoneInfo(time_zone)))


def newest_closable(now_ms: int, time_zone: str, grace_s: float) -> date:
    """The newest business date whose end and grace period are over."""
    zone = ZoneInfo(time_zone)
    day = clock.to_datetime(now_ms).astimezone(zone).date()
    while day_end_ms(day, time_zone) + grace_s * 1000 > now_ms:
        day -= timedelta(days=1)
    return day


# --- corrections -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SaltedItem:
    """An item with the salt that its totals are hidden under."""

    item: Item
    salt_fin: bytes


@dataclass(frozen=True, slots=True)
class Correction:
    """What a countersigned correction takes out of one party's close and puts in."""

    removed: Item | None
    added: SaltedItem | None

    @property
    def moves(self) -> int:
        """By how much the issuer's debt rises, minor units."""
        return (self.added.item.effect if self.added else 0) - (
            self.removed.effect if self.removed else 0
        )


def corrected(items: Iterable[SaltedItem], corrections: Sequence[Correction]) -> list[SaltedItem]:
    """The items with corrections applied, sorted; each takes one of equal items out."""
    gone = Counter(correction.removed for correction in corrections if correction.removed)
    kept: list[SaltedItem] = []
    added = {entry.added.item: entry.added for entry in corrections if entry.added}
    for salted in items:
        if gone.get(salted.item, 0) > 0:
            gone[salted.item] -= 1
        else:
            kept.append(salted)
            added.pop(salted.item, None)  # it came by itself after all
    kept += added.values()
    return sorted(kept, key=lambda salted: salted.item)
