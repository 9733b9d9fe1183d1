"""A party's own rows in PostgreSQL, as a comparison asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from hashlib import sha256

import msgspec
from sqlalchemy import Engine

from nodes.authorization.model import Kind, Outcome
from nodes.clearing import day_queries, queries
from nodes.clearing.model import Close, DayItems, Item
from nodes.crypto.commitment import field_leaf, field_salt
from nodes.db.engine import transaction
from nodes.reconciliation.protocol import Findings, Held
from nodes.reconciliation.ranges import RangeIndex


class CloseBooks:
    """The books behind one close. All but the items is read by index, as it is asked for."""

    def __init__(self, engine: Engine, close: Close) -> None:
        self._engine = engine
        self.close = close

    @cached_property
    def index(self) -> RangeIndex:
        """The close's items; loaded when they are first asked for."""
        with transaction(self._engine) as connection:
            return RangeIndex(day_queries.kept_items(connection, self.close))

    @cached_property
    def salted_index(self) -> RangeIndex:
        """See nodes.reconciliation.comparing.Books."""
        close = self.close
        with transaction(self._engine) as connection:
            items, salts = day_queries.salted_items(
                connection, close.key, close.party, close.horizon, close.revision
            )
        return RangeIndex(
            DayItems.of(
                Item(item.txid, item.commitment, _short_digest(salt))
                for item, salt in zip(items, salts, strict=True)
            )
        )

    @cached_property
    def _repeats(self) -> dict[bytes, bytes]:
        with transaction(self._engine) as connection:
            return day_queries.duplicates(connection, self.close)

    def held(self, txids: Sequence[bytes]) -> dict[bytes, Held]:
        """See nodes.reconciliation.comparing.Books."""
        if not txids:
            return {}
        with transaction(self._engine) as connection:
            rows = day_queries.rows_of(connection, self.close.key, self.close.party, txids)
        found = map(held_of, rows)
        return {
            entry.txid: msgspec.structs.replace(
                entry,
                in_close=self.index.copies(entry.txid),
                first_txid=self._repeats.get(entry.txid),
            )
            for entry in found
        }

    def numbered(self, numbers: Sequence[int]) -> dict[int, bytes]:
        """See nodes.reconciliation.comparing.Books."""
        if not numbers:
            return {}
        with transaction(self._engine) as connection:
            return day_queries.numbered(connection, self.close.key, self.close.party, numbers)

    def findings(self) -> Findings:
        """What was found is a case already: later revisions don't find it again."""
        if self.close.revision > 0:
            return Findings()
        with transaction(self._engine) as connection:
            gaps = day_queries.gaps(connection, self.close)
            unsigned = (
                day_queries.unsigned(connection, self.close)
                if self.close.party == "acquirer"
                else []
            )
        return Findings(gaps, sorted(self._repeats.items()), unsigned)


def _short_digest(salt: bytes) -> int:
    return int.from_bytes(sha256(b"countersign/salt/1" + salt).digest()[:8], "big", signed=True)


def held_of(row: queries.Row) -> Held:
    """A row as it is shown to the other party."""
    day, kind, outcome = row["business_date"], Kind(row["kind"]), Outcome(row["outcome"])
    return Held(
        txid=row["txid"],
        commitment=row["commitment"],
        amount=row["amount"],
        currency=row["currency"],
        kind=kind.value,
        kind_word=kind.word,
        outcome=outcome.value,
        outcome_word=outcome.word,
        time_ms=row["transmitted_ms"],
        merchant=row["merchant_id"],
        original=row["original_txid"] or b"",
        salt_fin=row["salt_fin"],
        token_leaf=_token_leaf(row),
        effect=row["effect"],
        business_date=day.year * 10_000 + day.month * 100 + day.day,
        pair_seq=row["pair_seq"],
        in_close=0,
    )


def _token_leaf(row: queries.Row) -> bytes:
    """C's eighth leaf: stored once the person is erased, else of salt and token."""
    if row["salt_pii"] is None:
        return bytes(row["card_token_leaf"] or bytes(32))
    token = (row["card_token"] or b"").ljust(32, b"\0")
    return field_leaf(8, field_salt(row["salt_pii"], row["txid"], 8), token)
