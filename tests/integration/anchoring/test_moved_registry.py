"""AnchorRegistry moves to a new version: the log goes on, nothing is lost, both eras are proven."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from nodes.anchoring import proof_queries, queries
from nodes.anchoring.cached_roots import parse_roots
from nodes.anchoring.chain_view import CachedChain, TrustedChain
from nodes.anchoring.checkpoint import parse_checkpoint
from nodes.anchoring.note import parse_note
from nodes.anchoring.operations import LogFenced, bind_chain, confirm, publish
from nodes.anchoring.operations.answering import ClaimWatch, answer_claims
from nodes.anchoring.receipt import judge_receipt
from nodes.anchoring.roots_reader import read_roots
from nodes.anchoring.store import transaction
from nodes.anchoring.verifier import Reason, verify
from nodes.chain.anchors import AnchorRegistry
from nodes.chain.challenges import ClaimState, OmissionRegistry
from nodes.chain.contracts import ANCHOR_REGISTRY
from nodes.chain.deploy import NO_ADDRESS, Addresses, Terms, check_deployment, create
from nodes.chain.succession import deploy_successor, retire
from sandbox.cli import make_app
from tests.conftest import NodeDatabase
from tests.factories.chain import ChainFixture, start_chain
from tests.factories.evidence import LogMember, make_member
from tests.factories.ledger import LedgerFactory
from tests.integration.anchoring.test_publishing import (
    anchors,
    batches_with_rows,
    publish_without_sending,
    sealed,
    states,
)
from tests.integration.anchoring.test_receipts import Receipts, overdue
from tests.integration.api.served_log import served


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[ChainFixture]:
    """A chain of the test's own: a move is for all that is on it."""
    chain = start_chain(tmp_path, terms=Terms(answer_s=30))
    yield chain
    chain.stop()


@pytest.fixture
def member(database: NodeDatabase, chain: ChainFixture) -> LogMember:
    member = make_member(database, chain, ("acquirer",))
    bind_chain(member.context, chain.member_registry)
    return member


def deployed(chain: ChainFixture, old: str) -> str:
    return deploy_successor(chain.client(), chain.deployer, old, chain.member_registry)


def moved(chain: ChainFixture, old: str) -> str:
    """The successor for which governance has retired `old`."""
    new = deployed(chain, old)
    retire(chain.client(), chain.deployer, old, new, chain.member_registry)
    return new


def told(member: LogMember, address: str) -> LogMember:
    """The same member's node with another anchor_registry in its settings."""
    context = replace(
        member.context,
        identity=replace(member.context.identity, anchor_registry=address.lower()),
        registry=AnchorRegistry(member.context.client, address),
    )
    return replace(member, context=context)


def bundle_of(member: LogMember, txid: bytes) -> bytes:
    with transaction(member.database.engine) as connection:
        return proof_queries.proof_bundle(connection, txid, "acquirer")


def origins(member: LogMember) -> list[str]:
    """The contract that each batch's checkpoint names."""
    with transaction(member.database.engine) as connection:
        notes = [batch.note for batch in queries.batches(connection, 1, 100)]
    return [parse_checkpoint(parse_note(note).text).origin.anchor_registry for note in notes]


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(make_app(), list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result
    return result.exit_code, result.output


def test_both_eras_are_one_log_for_every_verifier(
    member: LogMember, chain: ChainFixture, tmp_path: Path
) -> None:
    books = LedgerFactory(member.database.engine, "acquirer")
    records = []
    for count in (4, 3):
        records += books.add(count)
        member.anchor_all()
    old, new = chain.anchor_registry, moved(chain, chain.anchor_registry)
    after = told(member, new)
    bind_chain(after.context, chain.member_registry)
    records += books.add(5)
    assert after.anchor_all() == 1

    assert anchors(after) == sealed(after)
    assert [seq for seq, *_ in anchors(after)] == [1, 2, 3]
    assert origins(after) == [old.lower(), old.lower(), new.lower()]
    view = TrustedChain(chain.client(), new)
    cached = CachedChain(parse_roots(read_roots(chain.client(), new, None).encode()))
    with served(after, anchor_registry=new) as node, node.http("reader") as http:
        for index, record in enumerate(records):
            raw = http.get(f"/v1/transactions/{record.txid.hex()}/proof").content
            for judge in (view, cached):
                verdict = verify(raw, judge)
                assert verdict.ok, verdict
                assert verdict.details["index"] == index
    for index, seq in ((0, 1), (3, 1), (4, 2), (7, 3), (11, 3)):
        covering = after.context.registry.covering(member.member_id, index)
        assert covering is not None
        assert covering.seq == seq
    file = tmp_path / "proof"
    for record in (records[0], records[-1]):
        file.write_bytes(bundle_of(after, record.txid))
        said = run("verify", str(file), "--rpc", chain.rpc_url, "--anchor-registry", new)
        assert said[1].startswith("PROVEN"), said
    # Who still trusts the old contract alone is told of its own era, and takes nothing else.
    before = TrustedChain(chain.client(), old)
    assert verify(bundle_of(after, records[0].txid), before).ok
    newer = verify(bundle_of(after, records[-1].txid), before)
    assert newer.reason is Reason.UNTRUSTED_REGISTRY


def test_the_ledger_is_checked_over_both_eras(member: LogMember, chain: ChainFixture) -> None:
    books = batches_with_rows(member, 2, 3)
    member.settle()
    old, new = chain.anchor_registry, moved(chain, chain.anchor_registry)
    after = told(member, new)
    books.add(4)
    after.anchor_all()
    database = ("--member", member.member_id, "--dsn", member.database.owner_dsn)
    trust = ("--rpc", chain.rpc_url, "--anchor-registry")

    code, said = run("verify-ledger", *database, *trust, new)
    assert (code, said.rstrip().split("\n")[-1]) == (0, "UNCHANGED"), said
    assert f"{member.member_id}: 9 rows in 3 anchors" in said
    code, said = run("verify-ledger", *database, *trust, old)
    assert code == 2
    assert f"{old} is retired: since then anchors stand in {new}" in said

    with psycopg.connect(member.database.admin_dsn) as owner:
        owner.execute("SET session_replication_role = replica")
        owner.execute("UPDATE transactions SET stan = '999999' WHERE transaction_id = 1")
        owner.execute("UPDATE chain_binding SET anchor_registry = %s", ("0x" + "11" * 20,))
    code, said = run("verify-ledger", *database, *trust, new, "--json")
    found = {(each["table"], each["column"]) for each in json.loads(said)["findings"]}
    assert (code, found) == (
        1,
        {("transactions", "stan"), ("chain_binding", "anchor_registry")},
    )


class TestInFlight:
    """What was on its way at the move is anchored once, at the old contract or at the new one."""

    def test_a_transaction_that_reaches_the_old_contract_too_late(
        self, member: LogMember, chain: ChainFixture
    ) -> None:
        books = batches_with_rows(member, 2)
        member.settle()
        for count in (3, 1):
            books.add(count)
            member.seal()
        publish_without_sending(member)
        new = moved(chain, chain.anchor_registry)
        # The node that isn't told yet sends nothing, and says what it has to be told.
        for _ in range(2):
            with pytest.raises(LogFenced) as fenced:
                publish(member.context)
            assert fenced.value.reason == "REGISTRY_RETIRED"
            assert new in str(fenced.value)
        assert states(member) == ["ANCHORED", "SUBMITTED", "SUBMITTED"]
        # It goes on sealing.
        books.add(2)
        assert member.seal() is not None

        after = told(member, new)
        bind_chain(after.context, chain.member_registry)
        assert publish(after.context) == 3  # the two old transactions, as they were, and a new one
        assert confirm(after.context) == 0
        assert after.settle() == 3
        assert anchors(after) == sealed(after)
        assert states(after) == ["ANCHORED"] * 4
        assert origins(after) == [chain.anchor_registry.lower()] * 4

    def test_what_was_signed_before_the_move_is_proven_after_it(
        self, member: LogMember, chain: ChainFixture
    ) -> None:
        records = LedgerFactory(member.database.engine, "acquirer").add(2)
        member.seal()
        after = told(member, moved(chain, chain.anchor_registry))
        assert after.settle() == 1
        raw = bundle_of(after, records[0].txid)
        new = after.context.registry.address
        assert verify(raw, TrustedChain(chain.client(), new)).ok
        roots = read_roots(chain.client(), new, None)
        assert verify(raw, CachedChain(roots)).ok
        # The old contract never took it.
        refused = verify(raw, TrustedChain(chain.client(), chain.anchor_registry))
        assert refused.reason is Reason.NOT_ANCHORED

    def test_an_anchor_that_was_mined_before_the_move(
        self, member: LogMember, chain: ChainFixture
    ) -> None:
        batches_with_rows(member, 2, 2)
        assert publish(member.context) == 2
        after = told(member, moved(chain, chain.anchor_registry))
        assert confirm(after.context) == 2
        assert anchors(after) == sealed(after)
        assert publish(after.context) == 0

    def test_a_crash_between_signing_for_the_new_contract_and_sending(
        self, member: LogMember, chain: ChainFixture
    ) -> None:
        batches_with_rows(member, 2)
        after = told(member, moved(chain, chain.anchor_registry))
        publish_without_sending(after)
        assert after.settle() == 1
        assert anchors(after) == sealed(after)


def test_a_node_that_is_told_too_early_waits(member: LogMember, chain: ChainFixture) -> None:
    batches_with_rows(member, 2)
    new = deployed(chain, chain.anchor_registry)
    early = told(member, new)
    with pytest.raises(LogFenced) as fenced:
        bind_chain(early.context, chain.member_registry)
    assert fenced.value.reason == "REGISTRY_NOT_OPEN"
    assert member.settle() == 1
    retire(chain.client(), chain.deployer, chain.anchor_registry, new, chain.member_registry)
    bind_chain(early.context, chain.member_registry)
    # And a contract that doesn't go on from the one that is remembered is another chain.
    stranger = moved(chain, new)
    rival = deploy_rival(chain)
    bind_chain(told(member, stranger).context, chain.member_registry)
    with pytest.raises(LogFenced) as fenced:
        bind_chain(told(member, rival).context, chain.member_registry)
    assert fenced.value.reason == "OTHER_CHAIN"


def deploy_rival(chain: ChainFixture) -> str:
    """An AnchorRegistry without a predecessor, over the same members."""
    types, values = ["address", "address"], [chain.member_registry, NO_ADDRESS]
    return create(chain.client(), chain.deployer, ANCHOR_REGISTRY, types, values)


def test_three_versions(member: LogMember, chain: ChainFixture) -> None:
    books, address = LedgerFactory(member.database.engine, "acquirer"), chain.anchor_registry
    records, now = books.add(2), member
    now.anchor_all()
    for _ in range(2):
        address = moved(chain, address)
        now = told(member, address)
        bind_chain(now.context, chain.member_registry)
        records += books.add(3)
        now.anchor_all()
    assert len(set(origins(now))) == 3
    assert anchors(now) == sealed(now)
    view = TrustedChain(chain.client(), address)
    assert all(verify(bundle_of(now, record.txid), view).ok for record in records)
    # The others still point to the first version, and the network is as it should be.
    check_deployment(
        chain.client(),
        Addresses(
            chain.member_registry,
            address,
            chain.close_registry,
            chain.settlement_registry,
            chain.omission_registry,
        ),
    )


def test_an_omission_claim_is_answered_through_the_old_address(
    member: LogMember, chain: ChainFixture, tmp_path: Path
) -> None:
    """The OmissionRegistry was deployed with the old contract, and asks it for ever."""
    books = LedgerFactory(member.database.engine, "acquirer")
    promise = overdue(member, books)
    after = told(member, moved(chain, chain.anchor_registry))
    after.anchor_all()
    command = Receipts(chain, tmp_path)
    claimed = command(promise.encode(), "--challenge", *command.key)
    assert "CLAIMED" in claimed.stdout, claimed.output
    omissions = OmissionRegistry(chain.client(), chain.omission_registry)
    assert omissions.anchor_registry() == chain.anchor_registry

    assert answer_claims(after.context, omissions, ClaimWatch()) == 1

    claim = omissions.claim(promise.member_id, promise.txid, promise.commitment)
    assert claim is not None
    assert claim.state is ClaimState.ANSWERED
    new, proof = after.context.registry.address, bundle_of(after, promise.txid)
    view = TrustedChain(chain.client(), new, chain.omission_registry)
    assert judge_receipt(promise.encode(), proof, view, int(time.time())).ok
