"""A receipt's promise: kept and proven offline, or taken to the chain, by anybody."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from nodes.anchoring import proof_queries
from nodes.anchoring.cached_roots import parse_roots
from nodes.anchoring.chain_view import CachedChain, TrustedChain
from nodes.anchoring.operations.answering import ClaimWatch, answer_claims
from nodes.anchoring.operations.promising import promise_transaction
from nodes.anchoring.receipt import Promise, ReceiptReason, judge_receipt
from nodes.anchoring.roots_reader import read_roots
from nodes.anchoring.store import transaction
from nodes.chain.challenges import ClaimState, OmissionRegistry
from nodes.chain.deploy import Terms
from sandbox.cli import make_app
from tests.conftest import NodeDatabase
from tests.factories.chain import ChainFixture, start_chain
from tests.factories.evidence import LogMember, make_member
from tests.factories.ledger import LedgerFactory
from tests.factories.receipts import Promising, make_promising


@pytest.fixture(scope="module")
def quick_chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChainFixture]:
    """A chain on which an accused has three seconds to answer."""
    chain = start_chain(tmp_path_factory.mktemp("quick"), terms=Terms(answer_s=3))
    yield chain
    chain.stop()


@pytest.fixture
def accused(database: NodeDatabase, quick_chain: ChainFixture) -> LogMember:
    return make_member(database, quick_chain, ("acquirer",))


def promised(
    member: LogMember, delay_s: int = 3_600, books: LedgerFactory | None = None
) -> tuple[Promising, list[Promise]]:
    """Three recorded transactions with their promises; nothing is sealed."""
    promising = make_promising(member, delay_s)
    records = (books or LedgerFactory(member.database.engine, "acquirer")).add(3)
    made = [
        promise_transaction(member.database.engine, promising.promiser, record.txid)
        for record in records
    ]
    return promising, [promise for promise in made if promise is not None]


def proof_of(member: LogMember, promise: Promise) -> bytes:
    with transaction(member.database.engine) as connection:
        return proof_queries.proof_bundle(connection, promise.txid, "acquirer")


def view_of(member: LogMember) -> TrustedChain:
    chain = member.chain
    return TrustedChain(chain.client(), chain.anchor_registry, chain.omission_registry)


def now() -> int:
    return int(time.time())


def test_a_promise_is_made_once(member: LogMember) -> None:
    promising, (first, *_) = promised(member)
    again = promise_transaction(member.database.engine, promising.promiser, first.txid)
    assert again == first
    assert promise_transaction(member.database.engine, promising.promiser, bytes(32)) is None
    assert 160 <= len(first.encode()) * 3 // 4 <= 210


def test_a_kept_promise_is_proven_over_the_chain_and_offline(member: LogMember) -> None:
    _, promises = promised(member)
    view, text = view_of(member), promises[0].encode()
    waiting = judge_receipt(text, None, view, now())
    assert (waiting.ok, waiting.reason) == (False, ReceiptReason.PROMISE_PENDING)
    member.anchor_all()
    raw = proof_of(member, promises[0])
    assert judge_receipt(text, raw, view, now()).ok
    chain = member.chain
    roots = read_roots(chain.client(), chain.anchor_registry, chain.omission_registry)
    cached = CachedChain(parse_roots(roots.encode()))
    kept = judge_receipt(text, raw, cached, now())
    assert kept.ok
    assert not kept.late
    other = judge_receipt(text, proof_of(member, promises[1]), cached, now())
    assert other.reason is ReceiptReason.PROMISE_MISMATCH
    overdue = judge_receipt(text, None, cached, promises[0].merge_deadline + 1)
    assert overdue.reason is ReceiptReason.PROMISE_OVERDUE


def test_every_bit_of_a_promise_counts(member: LogMember) -> None:
    """Signature, member, txid, C and deadline by the signature; salt_fin by the proof."""
    _, promises = promised(member)
    member.anchor_all()
    promise, raw = promises[0], proof_of(member, promises[0])
    chain = member.chain
    roots = read_roots(chain.client(), chain.anchor_registry, chain.omission_registry)
    cached = CachedChain(roots)
    text = promise.encode()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for place in range(len(text)):
        for bit in range(6):
            letter = alphabet[alphabet.index(text[place]) ^ (1 << bit)]
            altered = text[:place] + letter + text[place + 1 :]
            verdict = judge_receipt(altered, raw, cached, now())
            assert not verdict.ok, (place, bit)
            assert verdict.reason in (
                ReceiptReason.PROMISE_MALFORMED,
                ReceiptReason.PROMISE_KEY_UNKNOWN,
                ReceiptReason.PROMISE_MISMATCH,
            )


def test_only_the_members_own_promise_key_counts(member: LogMember) -> None:
    promising, (promise, *_) = promised(member)
    view = view_of(member)
    stranger = replace(promise, member_id="somebody")
    verdict = judge_receipt(stranger.encode(), None, view, now())
    assert verdict.reason is ReceiptReason.PROMISE_KEY_UNKNOWN
    operator = replace(promising.promiser, signer=member.context.signer)  # type: ignore[arg-type]
    by_operator = operator.promise(promise.txid, promise.commitment, promise.salt_fin)
    verdict = judge_receipt(by_operator.encode(), None, view, now())
    assert verdict.reason is ReceiptReason.PROMISE_KEY_UNKNOWN
    early = replace(promising.promiser, merge_delay_s=-10 * 86_400)
    before_the_key = early.promise(promise.txid, promise.commitment, promise.salt_fin)
    verdict = judge_receipt(before_the_key.encode(), None, view, now())
    assert verdict.reason is ReceiptReason.PROMISE_KEY_UNKNOWN


class Receipts:
    """The command over a chain."""

    def __init__(self, chain: ChainFixture, folder: Path) -> None:
        self.folder = folder
        self.addresses = [
            *("--rpc", chain.rpc_url, "--anchor-registry", chain.anchor_registry),
            *("--omission-registry", chain.omission_registry),
        ]
        key = folder / "key"
        # The chain takes transactions of members and governance: the claimant is one of them.
        key.write_text(bytes(chain.deployer._account.key).hex())
        self.key = ["--key-file", str(key)]

    def __call__(self, *arguments: str) -> Result:
        return CliRunner().invoke(make_app(), ["receipt", *arguments, *self.addresses])

    def said(self, *arguments: str) -> dict[str, object]:
        found: dict[str, object] = json.loads(self(*arguments, "--json").stdout)
        return found


def overdue(member: LogMember, books: LedgerFactory | None = None) -> Promise:
    """A promise whose deadline has gone by."""
    _, promises = promised(member, 1, books)
    while time.time() <= promises[0].merge_deadline + 1.5:
        time.sleep(0.2)
    return promises[0]


def test_an_omission_is_proven_by_anybody(accused: LogMember, tmp_path: Path) -> None:
    promise = overdue(accused)
    command, text = Receipts(accused.chain, tmp_path), promise.encode()
    assert command.said(text)["reason"] == "PROMISE_OVERDUE"
    claimed = command(text, "--challenge", *command.key)
    assert claimed.exit_code == 1
    assert "CLAIMED" in claimed.stdout
    omissions = OmissionRegistry(accused.chain.client(), accused.chain.omission_registry)
    watch = ClaimWatch()
    # The row isn't in the log: there is nothing to answer with.
    assert answer_claims(accused.context, omissions, watch) == 0
    deadline = time.monotonic() + 20
    while "PROVEN" not in command(text, "--challenge", *command.key).stdout:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    claim = omissions.claim(promise.member_id, promise.txid, promise.commitment)
    assert claim is not None
    assert claim.state is ClaimState.PROVEN


def test_the_accused_answers_by_itself(accused: LogMember, tmp_path: Path) -> None:
    books = LedgerFactory(accused.database.engine, "acquirer")
    promise = overdue(accused, books)
    accused.anchor_all()
    command, text = Receipts(accused.chain, tmp_path), promise.encode()
    assert "CLAIMED" in command(text, "--challenge", *command.key).stdout
    omissions = OmissionRegistry(accused.chain.client(), accused.chain.omission_registry)
    watch = ClaimWatch()
    assert answer_claims(accused.context, omissions, watch) == 1
    claim = omissions.claim(promise.member_id, promise.txid, promise.commitment)
    assert claim is not None
    assert claim.state is ClaimState.ANSWERED
    assert answer_claims(accused.context, omissions, watch) == 0
    # Anchoring goes on with the next nonce.
    books.add(2)
    assert accused.anchor_all() == 1
    again = command(text, "--challenge", *command.key)
    assert "ANSWERED" in again.stdout


def test_whoever_has_the_proof_clears_the_accused(accused: LogMember, tmp_path: Path) -> None:
    promise = overdue(accused, LedgerFactory(accused.database.engine, "acquirer"))
    accused.anchor_all()
    command, text = Receipts(accused.chain, tmp_path), promise.encode()
    proof = tmp_path / "p.proof"
    proof.write_bytes(proof_of(accused, promise))
    kept = (text, "--proof", str(proof), "--answer", *command.key)
    assert "nobody has claimed it" in command(*kept).stdout
    assert "CLAIMED" in command(text, "--challenge", *command.key).stdout
    answered = command(*kept)
    assert answered.exit_code == 0, answered.output
    assert "ANSWERED" in answered.stdout
    omissions = OmissionRegistry(accused.chain.client(), accused.chain.omission_registry)
    claim = omissions.claim(promise.member_id, promise.txid, promise.commitment)
    assert claim is not None
    assert claim.state is ClaimState.ANSWERED
    assert "it stands as ANSWERED" in command(*kept).stdout


def test_the_command_judges_offline_by_cached_roots(member: LogMember, tmp_path: Path) -> None:
    _, promises = promised(member)
    member.anchor_all()
    text = promises[0].encode()
    chain, proof, roots = member.chain, tmp_path / "p.proof", tmp_path / "roots.json"
    proof.write_bytes(proof_of(member, promises[0]))
    written = CliRunner().invoke(
        make_app(),
        [
            *("roots", str(roots), "--member", member.member_id, "--rpc", chain.rpc_url),
            *("--anchor-registry", chain.anchor_registry),
            *("--omission-registry", chain.omission_registry),
        ],
    )
    assert written.exit_code == 0, written.output
    away = ["--rpc", "http://127.0.0.1:1", "--roots", str(roots), "--offline"]
    run = CliRunner().invoke
    arguments = ["receipt", f"https://shop.example/r#{text}", "--proof", str(proof), *away]
    assert run(make_app(), arguments).exit_code == 0
    assert run(make_app(), ["receipt", text, *away]).exit_code == 3
    assert run(make_app(), ["receipt", text[:-1], *away]).exit_code == 1
    verified = run(make_app(), ["verify", str(proof), *away[:-1]])
    assert verified.exit_code == 0, verified.output
    assert run(make_app(), ["receipt", text, "--roots", str(proof)]).exit_code == 2
