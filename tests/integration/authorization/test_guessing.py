"""C without its salts tells nothing: 2,000,000,000 guesses by who has everything else.

A guess is a salt and a value for one hidden field. Each is held against the hidden field of all
transactions at once, as who has collected many would: a hash is as many guesses as there are
hidden fields. The salts tried are all that a bundle, a receipt or the log gives away.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pytest

from nodes.authorization.model import Kind, Outcome
from nodes.crypto.commitment import (
    SharedFacts,
    SharedField,
    field_salt,
    shared_field_leaves,
    shared_root,
    uint_word,
)
from tests.conftest import Cluster
from tests.factories.network import Network

COUNT, CARDS, AMOUNTS = 1_000, 10, range(1, 101)
GUESSES = 1_000_000_000


@dataclass(frozen=True)
class Hidden:
    """A transaction as the nodes recorded it."""

    txid: bytes
    commitment: bytes
    salt_fin: bytes
    salt_pii: bytes
    amount: int
    card_token: bytes
    leaves: Sequence[bytes]

    @property
    def fact_salts(self) -> list[bytes]:
        """The salts of fields 1 to 8 that who has salt_fin can derive; the last opens nothing."""
        return [field_salt(self.salt_fin, self.txid, number) for number in SharedField]

    @property
    def public(self) -> list[bytes]:
        """What everybody who reads the log has, and who doesn't salt would take."""
        known = [self.txid, self.commitment, *self.leaves]
        return [*known, *(hashlib.sha256(value).digest() for value in known[:2])]


@pytest.fixture(scope="module")
def recorded(cluster: Cluster) -> Iterator[list[Hidden]]:
    """Purchases of two institutions, their salts drawn by the acquirer's node."""
    databases = cluster.new_database(), cluster.new_database()
    trade = Network(*databases)
    try:
        cards = [trade.card(100_000) for _ in range(CARDS)]
        for start in range(0, COUNT, 100):
            numbers = range(start, start + 100)
            answers = trade.send(
                *(trade.request(cards[n % CARDS], AMOUNTS[n * 37 % len(AMOUNTS)]) for n in numbers)
            )
            assert {answer.outcome for answer in answers} == {Outcome.APPROVED}
        with databases[0].engine.connect() as connection:
            rows = connection.exec_driver_sql(
                "SELECT txid, commitment, salt_fin, salt_pii, amount, card_token, kind, currency,"
                " transmitted_ms, merchant_id, outcome FROM transactions"
                " WHERE kind = %s",
                (Kind.PURCHASE.value,),
            ).all()
        yield [_hidden(*map(_plain, row)) for row in rows]
    finally:
        trade.close()
        for database in databases:
            cluster.drop(database)


def _plain(value: object) -> object:
    return bytes(value) if isinstance(value, memoryview) else value


def _hidden(
    txid: bytes, c: bytes, fin: bytes, pii: bytes, amount: int, token: bytes, *rest: object
) -> Hidden:
    _kind, currency, time_ms, merchant, _outcome = rest
    facts = SharedFacts(
        amount, str(currency).encode(), 1, int(str(time_ms)), str(merchant).encode(), 0, b"", token
    )
    leaves = shared_field_leaves(txid, facts, fin, pii)
    assert shared_root(leaves) == c
    return Hidden(txid, c, fin, pii, amount, token, leaves)


def guess(
    field: SharedField, leaves: Iterable[bytes], salts: Iterable[bytes], values: Sequence[bytes]
) -> tuple[int, int]:
    """How many guesses were made at a field's hidden leaves, and how many hit."""
    wanted, tried, hits = frozenset(leaves), 0, 0
    for salt in salts:
        prefix = b"\0" + uint_word(field) + salt
        for value in values:
            hits += hashlib.sha256(prefix + value).digest() in wanted
        tried += len(values)
    return tried * len(wanted), hits


AMOUNT_WORDS = [uint_word(amount) for amount in AMOUNTS]


def test_an_amount_that_is_hidden_is_not_guessed_from_all_else_that_is_disclosed(
    recorded: list[Hidden],
) -> None:
    """Bundles that disclose all fields but the amount: 100 amounts, and 6,000 salts of others."""
    assert len(recorded) == COUNT
    salts = {bytes(32), b"\xff" * 32}
    for each in recorded:
        salts.update(each.fact_salts[1:7], each.public)
    amounts = [each.leaves[SharedField.AMOUNT - 1] for each in recorded]
    tried, hits = guess(SharedField.AMOUNT, amounts, salts, AMOUNT_WORDS)
    assert tried >= GUESSES
    assert hits == 0


def test_a_card_is_not_guessed_by_who_has_every_receipt(recorded: list[Hidden]) -> None:
    """salt_fin stands in a receipt's code, and the cards in question are known."""
    tokens = {each.card_token for each in recorded}
    assert len(tokens) == CARDS
    salts = {bytes(32), b"\xff" * 32}
    for each in recorded:
        salts.update([each.salt_fin], each.fact_salts, each.public)
    values = [token.ljust(32, b"\0") for token in tokens]
    values += [secrets.token_bytes(16).ljust(32, b"\0") for _ in range(50)]
    held = [each.leaves[SharedField.CARD_TOKEN - 1] for each in recorded]
    tried, hits = guess(SharedField.CARD_TOKEN, held, salts, values)
    assert tried >= GUESSES
    assert hits == 0


def test_the_same_guesses_hit_what_is_not_salted_or_whose_salt_is_known(
    recorded: list[Hidden],
) -> None:
    one, others = recorded[0], recorded[1:]
    assert len({each.salt_fin for each in recorded} | {each.salt_pii for each in recorded}) == (
        2 * COUNT
    )
    amounts = [each.leaves[SharedField.AMOUNT - 1] for each in recorded]
    assert guess(SharedField.AMOUNT, amounts, one.fact_salts[:1], AMOUNT_WORDS)[1] == 1
    own = field_salt(one.salt_pii, one.txid, SharedField.CARD_TOKEN)
    values = [one.card_token.ljust(32, b"\0")]
    held = [each.leaves[SharedField.CARD_TOKEN - 1] for each in recorded]
    assert guess(SharedField.CARD_TOKEN, held, [own], values)[1] == 1
    for salt in (bytes(32), one.txid):
        bare = [
            hashlib.sha256(b"\0" + uint_word(1) + salt + uint_word(each.amount)).digest()
            for each in others
        ]
        hits = guess(SharedField.AMOUNT, bare, [bytes(32), *one.public], AMOUNT_WORDS)[1]
        assert hits == len(set(bare)) > 50
