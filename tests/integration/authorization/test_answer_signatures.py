"""The issuer signs (txid, C, pair_seq) of every answer; the acquirer keeps it and checks it."""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
from collections.abc import Callable, Iterator, Sequence

import msgspec
import psycopg
import pytest

from nodes.anchoring.model import LogIdentity
from nodes.anchoring.note import NoteSigner
from nodes.anchoring.operations import seal
from nodes.authorization.model import (
    AuthorizationAnswer,
    AuthorizationAnswers,
    AuthorizationRequest,
    Kind,
    Outcome,
)
from nodes.authorization.operations.checking import IssuerUnknown, check_answers
from nodes.authorization.service import IssuerLink
from nodes.authorization.store import answers
from nodes.clock import SystemClock
from nodes.crypto.answer_signature import AnswerSigner, sign_answers, verify_answer
from nodes.reconciliation.answer_check import check_answers as check_kept
from nodes.reconciliation.findings import Change as Found
from nodes.reconciliation.findings import Report
from nodes.reconciliation.invariants import check_invariants, violations
from tests.conftest import NodeDatabase
from tests.factories.network import ACQUIRER, Network
from tests.factories.tampering import unguarded
from tests.integration.authorization.test_money_paths import forward_reversals

NONE, WRONG = "no signature", "the signature does not hold"


@pytest.fixture
def network(database: NodeDatabase, second_database: NodeDatabase) -> Iterator[Network]:
    made = Network(database, second_database)
    yield made
    made.close()


def checked(network: Network, *more: bytes) -> int:
    """Check what wasn't checked, with the issuer's key (and earlier ones)."""
    keys = [network.issuer_signer.public_key, *more]
    return check_answers(network.acquirer_db.engine, lambda issuer: keys)


def unsigned(network: Network) -> dict[bytes, str]:
    with psycopg.connect(network.acquirer_db.reader_dsn) as connection:
        return dict(connection.execute("SELECT txid, why FROM unsigned_answers").fetchall())


def kept(network: Network, txid: bytes) -> answers.SignedRow | None:
    """As an auditor reads it: with the reader's login."""
    with psycopg.connect(network.acquirer_db.reader_dsn) as connection:
        return answers.share_of(connection, txid)


@dataclasses.dataclass
class NotingLink:
    """Remembers what was asked."""

    inner: IssuerLink
    asked: list[list[AuthorizationRequest]]

    async def authorize(
        self, issuer: str, requests: list[AuthorizationRequest], deadline_ms: int
    ) -> list[AuthorizationAnswer]:
        self.asked.append(requests)
        return await self.inner.authorize(issuer, requests, deadline_ms)


Change = Callable[[AuthorizationAnswer], AuthorizationAnswer]


@dataclasses.dataclass
class BentLink:
    """An issuer's node that changes what it signed."""

    inner: IssuerLink
    change: Change

    async def authorize(
        self, issuer: str, requests: list[AuthorizationRequest], deadline_ms: int
    ) -> list[AuthorizationAnswer]:
        found: Sequence[AuthorizationAnswer] = await self.inner.authorize(
            issuer, requests, deadline_ms
        )
        return [self.change(answer) for answer in found]


def bend(network: Network, change: Change) -> None:
    link = BentLink(network.link, change)
    network.acquirer._link = link


def with_share(answer: AuthorizationAnswer, share: bytes | None) -> AuthorizationAnswer:
    return msgspec.structs.replace(answer, signature=share)


def test_an_auditor_verifies_each_kept_share_and_nothing_is_unsigned(network: Network) -> None:
    card = network.card(10_000)
    told = network.send(*[network.request(card, 100 + n) for n in range(7)])
    told += network.send(network.request(card, 999_999))  # declined: signed all the same
    told.append(network.one(network.request(card, 50)))
    assert checked(network) == 9
    assert unsigned(network) == {}
    for answer in told:
        assert answer.txid is not None
        row = kept(network, answer.txid)
        assert row is not None
        assert row.txid == answer.txid
        key = network.issuer_signer.public_key
        assert verify_answer(key, row.txid, row.commitment, row.pair_seq, row.share)
        assert not verify_answer(key, row.txid, row.commitment, row.pair_seq + 1, row.share)
    assert checked(network) == 0


def test_what_the_issuer_keeps_for_repeats_has_the_first_share(network: Network) -> None:
    card = network.card(10_000)
    issuer = network.link.issuer
    assert issuer is not None
    asked: list[list[AuthorizationRequest]] = []
    network.acquirer._link = NotingLink(network.link, asked)
    network.send(*[network.request(card, 100 + n) for n in range(3)])

    async def ask() -> bytes:
        return msgspec.json.encode(AuthorizationAnswers(await issuer.authorize(asked[0])))

    first = asyncio.run(ask())
    # Another process of the issuer, which has nothing in memory: the stored bytes.
    other = network.new_issuer()
    try:
        again = asyncio.run(other.authorize(asked[0]))
    finally:
        other.close()
    assert msgspec.json.encode(AuthorizationAnswers(again)) == first
    for answer in again:
        row = kept(network, answer.txid)
        assert row is not None
        assert row.share == answer.signature


def test_one_signature_serves_a_batch(network: Network) -> None:
    card = network.card(10_000)
    told = network.send(*[network.request(card, 100 + n) for n in range(5)])
    shares = [kept(network, answer.txid or b"") for answer in told]
    assert len({row.share[:64] for row in shares if row is not None}) == 1


@pytest.mark.parametrize(
    ("name", "change", "why"),
    [
        ("absent", lambda share: None, NONE),
        ("too long", lambda share: share + bytes(600), NONE),
        ("cut", lambda share: share[:-1], WRONG),
        ("empty", lambda share: b"", WRONG),
        ("one bit", lambda share: bytes([share[0] ^ 1]) + share[1:], WRONG),
        (
            "one bit of the end",
            lambda s: s[:-1] + bytes([s[-1] ^ 1]),
            WRONG,
        ),
    ],
)
def test_an_absent_or_altered_share_is_unsigned_and_the_money_stands(
    network: Network, name: str, change: Callable[[bytes], bytes | None], why: str
) -> None:
    card = network.card(10_000)
    bad: list[bytes] = []

    def bent(answer: AuthorizationAnswer) -> AuthorizationAnswer:
        if answer.amount != 102:
            return answer
        bad.append(answer.txid)
        return with_share(answer, change(answer.signature or b""))

    bend(network, bent)
    told = network.send(*[network.request(card, 100 + n) for n in range(4)])
    assert [answer.outcome for answer in told] == [Outcome.APPROVED] * 4
    checked(network)
    assert unsigned(network) == {bad[0]: why}
    assert network.balance(card) == 10_000 - 100 - 101 - 102 - 103


def test_a_foreign_keys_share_is_unsigned(network: Network) -> None:
    card = network.card(10_000)
    stranger = AnswerSigner(secrets.token_bytes(32))

    def bent(answer: AuthorizationAnswer) -> AuthorizationAnswer:
        [share] = sign_answers(stranger, [(answer.txid, answer.commitment, answer.pair_seq)])
        return with_share(answer, share)

    bend(network, bent)
    told = network.one(network.request(card, 100))
    assert told.outcome is Outcome.APPROVED
    assert checked(network) == 1
    assert unsigned(network) == {told.txid: WRONG}


def test_anothers_share_is_unsigned(network: Network) -> None:
    """Shares of the same batch, swapped: each is genuine, and neither is of its transaction."""
    card = network.card(10_000)
    seen: list[bytes | None] = []

    def bent(answer: AuthorizationAnswer) -> AuthorizationAnswer:
        seen.append(answer.signature)
        return with_share(answer, seen[0])

    bend(network, bent)
    told = network.send(network.request(card, 100), network.request(card, 101))
    checked(network)
    assert list(unsigned(network)) == [told[1].txid]


def test_a_share_from_before_a_rotation_holds_by_the_earlier_key(network: Network) -> None:
    card = network.card(10_000)
    network.one(network.request(card, 100))
    before = network.issuer_signer.public_key
    network.issuer_signer = AnswerSigner(secrets.token_bytes(32))
    assert checked(network, before) == 1
    assert unsigned(network) == {}


def test_while_the_issuer_is_unknown_nothing_is_checked_off(network: Network) -> None:
    card = network.card(10_000)
    network.one(network.request(card, 100))
    with pytest.raises(IssuerUnknown):
        check_answers(network.acquirer_db.engine, lambda issuer: [])
    assert checked(network) == 1


def test_a_reversal_that_brings_the_lost_answer_brings_its_share(network: Network) -> None:
    """The answer was lost, so the acquirer learns of it by the reversal's answer."""
    card = network.card(10_000)
    network.link.lose_answer = True
    told = network.one(network.request(card, 100))
    assert told.outcome is Outcome.ISSUER_UNAVAILABLE
    network.link.lose_answer = False
    assert forward_reversals(network) == 1
    assert checked(network) == 2  # the purchase and its reversal
    assert unsigned(network) == {}
    assert told.txid is not None
    assert kept(network, told.txid) is not None


def test_follow_ups_by_the_careful_way_are_signed_too(network: Network) -> None:
    card = network.card(10_000)
    told = network.one(network.request(card, 1_000))
    network.one(network.request(card, 400, Kind.REFUND, rrn=told.rrn))
    assert checked(network) == 2
    assert unsigned(network) == {}


def _seal(network: Network) -> None:
    """Put the acquirer's rows into its log, as its worker does."""
    identity = LogIdentity(ACQUIRER, 1, "0x" + "ab" * 20)
    while seal(network.acquirer_db.engine, identity, NoteSigner(bytes(32)), SystemClock()):
        pass


_FIRST = "(SELECT min(first_id) FROM answer_signatures)"


@pytest.mark.parametrize(
    ("statement", "change", "invariant"),
    [
        ("SELECT", None, False),
        (f"DELETE FROM answer_signatures WHERE first_id = {_FIRST}", Found.MISSING, True),
        (
            "UPDATE answer_signatures SET shares[1] = set_byte(shares[1], 9,"
            f" get_byte(shares[1], 9) # 4) WHERE first_id = {_FIRST}",
            Found.ALTERED,
            False,
        ),
        (
            "UPDATE answer_signatures SET shares = (SELECT shares FROM answer_signatures"
            f" ORDER BY first_id DESC LIMIT 1) WHERE first_id = {_FIRST}",
            Found.ALTERED,
            False,
        ),
        (
            "INSERT INTO answer_signatures (first_id, transaction_ids, shares)"
            f" SELECT 1, '{{1}}', shares FROM answer_signatures WHERE first_id = {_FIRST}",
            Found.INSERTED,
            True,
        ),
        # The row itself was changed: the log's check names it, and this one says nothing more.
        ("UPDATE transactions SET pair_seq = 7 WHERE pair_seq = 1", None, None),
    ],
)
def test_a_changed_signature_is_found_in_the_books(
    network: Network, statement: str, change: Found | None, invariant: bool | None
) -> None:
    card = network.card(10_000)
    for amount in (100, 200, 300):
        network.one(network.request(card, amount))
    assert checked(network) == 3
    _seal(network)
    keys = [network.issuer_signer.public_key]
    with unguarded(network.acquirer_db) as owner:
        owner.execute(statement)
        report = Report()
        check_kept(owner, lambda issuer: keys, report)
        broken = [found for found in violations(owner) if found.invariant == 22]
    found = {(finding.table, finding.change) for finding in report.findings}
    assert found == (set() if change is None else {("answer_signatures", change)})
    assert len(report.findings) == len(found)
    if invariant is not None:
        assert bool(broken) is invariant


def test_before_anything_was_checked_no_signature_is_missed(network: Network) -> None:
    assert [
        v for v in check_invariants(network.acquirer_db.owner_engine) if v.invariant == 22
    ] == []


def test_kept_shares_cannot_be_changed(network: Network) -> None:
    card = network.card(10_000)
    network.one(network.request(card, 100))
    with (
        psycopg.connect(network.acquirer_db.owner_dsn) as connection,
        pytest.raises(psycopg.errors.RestrictViolation),
    ):
        connection.execute("DELETE FROM answer_signatures")
