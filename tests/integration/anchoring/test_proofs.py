"""From a sealed row to a verdict by the command: the whole way of a proof, on a real chain."""

from __future__ import annotations

import json
import random
import secrets
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from nodes.anchoring import proof_queries
from nodes.anchoring.bundle import parse_bundle
from nodes.anchoring.chain_view import TrustedChain
from nodes.anchoring.model import AnchorState
from nodes.anchoring.note import NoteSigner
from nodes.anchoring.proof_queries import NotAnchoredYet, UnknownTransaction
from nodes.anchoring.store import transaction
from nodes.anchoring.verifier import Reason, verify
from nodes.chain.deploy import rotate_key
from nodes.crypto.commitment import SharedField
from sandbox.cli import make_app
from tests.factories.evidence import LogMember
from tests.factories.ledger import LedgerFactory


def bundle_of(member: LogMember, txid: bytes, side: str = "acquirer") -> bytes:
    with transaction(member.database.engine) as connection:
        return proof_queries.proof_bundle(connection, txid, side)


def trusted(member: LogMember) -> TrustedChain:
    return TrustedChain(member.chain.client(), member.chain.anchor_registry)


def test_every_row_of_three_batches_is_proven(member: LogMember) -> None:
    factory = LedgerFactory(member.database.engine, "acquirer")
    records = []
    for count in (5, 1, 6):
        records += factory.add(count)
        member.seal()
    member.settle()
    view = trusted(member)
    for index, record in enumerate(records):
        verdict = verify(bundle_of(member, record.txid), view)
        assert verdict.ok, verdict
        assert verdict.details["index"] == index
        assert verdict.details["txid"] == record.txid.hex()
        assert verdict.details["amount"] == record.amount
        assert verdict.details["merchant"] == record.merchant_id
        assert "card_token" not in verdict.details


def test_what_was_anchored_under_a_rotated_key_is_proven_by_a_later_anchor(
    member: LogMember,
) -> None:
    """Two batches are sealed under the old key and anchored after its end; one under the new."""
    chain, factory = member.chain, LedgerFactory(member.database.engine, "acquirer")
    early = factory.add(2)
    member.anchor_all()
    late = []
    for _ in range(2):
        late += factory.add(3)
        member.seal()
    member.signer = NoteSigner(secrets.token_bytes(32))
    rotate_key(
        *(chain.client(), chain.deployer, chain.member_registry, member.member_id),
        *("note", member.signer.public_key),
    )
    # An anchor in the block of the rotation would still be under the old key, too.
    chain.add_member(f"other-{secrets.token_hex(4)}")
    member.settle()
    view = trusted(member)

    def key_at(block: int) -> bytes | None:
        return view.note_key(member.member_id, block)

    def proof(txid: bytes) -> bytes:
        with transaction(member.database.engine) as connection:
            return proof_queries.proof_bundle(connection, txid, "acquirer", key_at=key_at)

    assert verify(proof(early[0].txid), view).ok
    for record in late:
        assert verify(proof(record.txid), view).reason is Reason.SIGNATURE_INVALID
    newest = factory.add(1)
    member.anchor_all()
    for index, record in enumerate([*early, *late, *newest]):
        verdict = verify(proof(record.txid), view)
        assert verdict.ok, verdict
        assert verdict.details["index"] == index
        assert verdict.details["seq"] == (1 if record in early else 4)
    assert verify(bundle_of(member, late[0].txid), view).reason is Reason.SIGNATURE_INVALID


def test_a_merchants_row_is_proven_without_any_card(member: LogMember) -> None:
    record = LedgerFactory(member.database.engine, "merchant").add(1)[0]
    member.anchor_all()
    raw = bundle_of(member, record.txid, "merchant")
    assert verify(raw, trusted(member)).ok
    assert int(SharedField.CARD_TOKEN) in parse_bundle(raw).opening.hidden


def test_there_is_no_proof_before_the_anchor(member: LogMember) -> None:
    record = LedgerFactory(member.database.engine, "acquirer").add(1)[0]
    with pytest.raises(NotAnchoredYet) as early:
        bundle_of(member, record.txid)
    assert early.value.state is AnchorState.UNSEALED
    member.seal()
    with pytest.raises(NotAnchoredYet) as early:
        bundle_of(member, record.txid)
    assert early.value.state is AnchorState.SEALED
    with pytest.raises(UnknownTransaction):
        bundle_of(member, record.txid, "issuer")
    with pytest.raises(UnknownTransaction):
        bundle_of(member, bytes(32))


def test_altered_bytes_are_refused_by_the_real_chain_too(member: LogMember) -> None:
    record = LedgerFactory(member.database.engine, "acquirer").add(3)[1]
    member.anchor_all()
    raw, view = bundle_of(member, record.txid), trusted(member)
    dice = random.Random(1)
    for place in sorted(dice.sample(range(len(raw)), 120)):
        changed = raw[:place] + bytes([raw[place] ^ 1 << dice.randrange(8)]) + raw[place + 1 :]
        assert not verify(changed, view).ok


def test_a_row_altered_in_the_database_has_no_valid_proof(member: LogMember) -> None:
    record = LedgerFactory(member.database.engine, "acquirer").add(1)[0]
    member.anchor_all()
    with psycopg.connect(member.database.admin_dsn) as owner:
        owner.execute("SET session_replication_role = replica")
        owner.execute("UPDATE transactions SET amount = amount + 1")
    verdict = verify(bundle_of(member, record.txid), trusted(member))
    assert verdict.reason is Reason.COMMITMENT_MISMATCH


@pytest.fixture
def proof(member: LogMember, tmp_path: Path) -> Path:
    record = LedgerFactory(member.database.engine, "acquirer").add(2)[0]
    member.anchor_all()
    file = tmp_path / "purchase.tlog-proof"
    file.write_bytes(bundle_of(member, record.txid))
    return file


@pytest.fixture
def run(
    member: LogMember, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str]]:
    monkeypatch.setenv("DEMO_DIR", str(tmp_path / "nowhere"))

    def call(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(make_app(), list(arguments))
        assert result.exception is None or isinstance(result.exception, SystemExit), result
        return result.exit_code, result.output

    return call


def test_the_command_proves_and_refuses(
    run: Callable[..., tuple[int, str]], proof: Path, member: LogMember
) -> None:
    chain = ("--rpc", member.chain.rpc_url, "--anchor-registry", member.chain.anchor_registry)
    code, said = run("verify", str(proof), *chain)
    assert (code, said.split("\n")[0]) == (0, "PROVEN")
    code, said = run("verify", str(proof), *chain, "--json")
    assert json.loads(said)["ok"] is True
    assert json.loads(said)["details"]["kind"] in ("purchase", "refund")

    raw = bytearray(proof.read_bytes())
    raw[-10] ^= 1
    altered = proof.with_name("altered")
    altered.write_bytes(raw)
    code, said = run("verify", str(altered), *chain)
    assert code == 1
    assert said.split(" ")[0] == "REFUSED"
    assert Reason(said.split(" ")[1].rstrip(":"))


def test_the_command_never_takes_the_contract_from_the_proof(
    run: Callable[..., tuple[int, str]], proof: Path, member: LogMember
) -> None:
    code, said = run("verify", str(proof), "--rpc", member.chain.rpc_url)
    assert (code, said.split(":")[0]) == (1, "REFUSED UNTRUSTED_REGISTRY")
    other = ("--anchor-registry", "0x" + "11" * 20)
    code, said = run("verify", str(proof), "--rpc", member.chain.rpc_url, *other)
    assert (code, said.split(":")[0]) == (1, "REFUSED UNTRUSTED_REGISTRY")


def test_the_command_says_when_it_cannot_check(
    run: Callable[..., tuple[int, str]], proof: Path, tmp_path: Path
) -> None:
    registry = ("--anchor-registry", "0x" + "11" * 20)
    for arguments in (
        ("verify", str(proof), *registry),
        ("verify", str(proof), "--rpc", "http://127.0.0.1:9", *registry),
        ("verify", str(tmp_path / "missing"), *registry),
        ("verify", str(proof), "--network", str(proof)),
        ("verify-ledger", "--member", "aurora"),
        ("check-invariants",),
        ("check-invariants", "--dsn", "postgresql://x:y@127.0.0.1:9/z"),
    ):
        assert run(*arguments)[0] == 2, arguments
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"\x00\xff" * 100)
    code, said = run("verify", str(garbage))
    assert (code, said.split(":")[0]) == (1, "REFUSED MALFORMED")


def test_the_commands_over_a_database_and_a_network_file(
    run: Callable[..., tuple[int, str]], proof: Path, member: LogMember, tmp_path: Path
) -> None:
    network = tmp_path / "network.json"
    contract = {"address": member.chain.anchor_registry}
    network.write_text(
        json.dumps(
            {
                "chain": {"rpc": member.chain.rpc_url, "contracts": {"AnchorRegistry": contract}},
                "members": [{"id": member.member_id, "dsn": member.database.owner_dsn}],
            }
        )
    )
    described = ("--network", str(network))
    assert run("verify", str(proof), *described)[0] == 0
    code, said = run("verify-ledger", "--member", member.member_id, *described)
    assert (code, said.rstrip().split("\n")[-1]) == (0, "UNCHANGED")
    with psycopg.connect(member.database.admin_dsn) as owner:
        owner.execute("SET session_replication_role = replica")
        owner.execute("UPDATE transactions SET stan = '999999' WHERE transaction_id = 1")
    code, said = run("verify-ledger", "--member", member.member_id, *described)
    assert code == 1
    assert "transactions (transaction_id=1), column stan: altered" in said
    code, said = run("verify-ledger", "--member", member.member_id, *described, "--json")
    assert json.loads(said)["findings"] == [
        {
            "table": "transactions",
            "row": "transaction_id=1",
            "column": "stan",
            "change": "altered",
            "detail": "",
        }
    ]
    code, said = run("verify-ledger", "--member", "nobody", "--dsn", "x", *described)
    assert code == 2
    # The factory's rows have no requests behind them: the books' own check says so.
    code, said = run("check-invariants", *described)
    assert code == 1
    assert "invariant 7" in said


def test_a_foreign_key_signs_nothing(member: LogMember) -> None:
    """The note must be signed by the key that the chain's registry holds for that member."""
    record = LedgerFactory(member.database.engine, "acquirer").add(1)[0]
    member.signer = NoteSigner(b"z" * 32)
    member.anchor_all()
    verdict = verify(bundle_of(member, record.txid), trusted(member))
    assert verdict.reason is Reason.SIGNATURE_INVALID
