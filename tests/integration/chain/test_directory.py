"""The directory: a snapshot of the chain's MemberRegistry that outlives the chain's outages."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from nodes.chain.client import ChainClient
from nodes.chain.deploy import revoke_member, rotate_key, send, set_api_url
from nodes.chain.directory import Directory
from nodes.chain.errors import ChainUnavailable, WrongChain
from nodes.chain.signer import LocalSigner
from tests.factories.chain import ChainFixture, ed25519_public, start_chain


def new_id() -> str:
    return f"m-{secrets.token_hex(6)}"


def fresh(evm: ChainFixture) -> Directory:
    directory = Directory(evm.client(), evm.member_registry)
    directory.refresh()
    return directory


def test_nobody_is_known_before_the_first_look(evm: ChainFixture) -> None:
    directory = Directory(evm.client(), evm.member_registry)
    assert directory.members() == ()
    assert directory.block is None
    assert directory.member("aurora") is None
    assert directory.issuer_for("6223001012345678") is None


def test_members_are_found_by_id_operator_and_bin(evm: ChainFixture) -> None:
    issuer, acquirer = new_id(), new_id()
    operator = evm.add_member(issuer, roles=["issuer"], bins=["400000", "41000001"])
    evm.add_member(acquirer, roles=["acquirer"])
    directory = fresh(evm)
    found = directory.member(issuer)
    assert found is not None
    assert directory.by_operator(operator.address) is found
    assert directory.by_operator(operator.address.lower()) is found
    assert directory.issuer_for("4000001234567890") is found
    assert directory.issuer_for("4100000112345678") is found
    assert directory.issuer_for("4100000212345678") is None
    assert directory.issuer_for("41000") is None
    assert directory.issuer_for("") is None
    assert directory.by_operator(evm.deployer.address) is None
    assert [m.member_id for m in directory.members()][-2:] == [issuer, acquirer]


def test_a_refresh_sees_each_kind_of_change(evm: ChainFixture) -> None:
    client, member_id = evm.client(), new_id()
    evm.add_member(member_id, roles=["issuer"], bins=["420000"])
    directory = fresh(evm)
    key = ed25519_public()
    rotate_key(client, evm.deployer, evm.member_registry, member_id, "message", key)
    directory.refresh()
    assert directory.member(member_id).message_key == key  # type: ignore[union-attr]
    set_api_url(client, evm.deployer, evm.member_registry, member_id, "https://moved")
    directory.refresh()
    assert directory.member(member_id).api_url == "https://moved"  # type: ignore[union-attr]
    revoke_member(client, evm.deployer, evm.member_registry, member_id)
    directory.refresh()
    revoked = directory.member(member_id)
    assert revoked is not None
    assert not revoked.active
    assert directory.issuer_for("4200001234567890") is None
    assert directory.by_operator(revoked.operator) is None


def test_a_refresh_follows_the_chain_without_reading_all_members_again(evm: ChainFixture) -> None:
    member_id = new_id()
    evm.add_member(member_id)
    directory = fresh(evm)
    before = directory.member(member_id)
    send(evm.client(), evm.deployer, {"to": evm.deployer.address})
    directory.refresh()
    assert directory.block == evm.client().block()
    assert directory.member(member_id) is before


def test_an_address_without_a_registry_is_the_wrong_chain(evm: ChainFixture) -> None:
    with pytest.raises(WrongChain):
        Directory(evm.client(), LocalSigner(secrets.token_bytes(32)).address).refresh()


def test_the_snapshot_stays_through_an_outage(tmp_path: Path) -> None:
    chain = start_chain(tmp_path)
    assert chain.process is not None
    chain.add_member("aurora", roles=["issuer"], bins=["62230010"])
    directory = Directory(ChainClient(chain.rpc_url, timeout_s=2), chain.member_registry)
    directory.refresh()
    chain.process.kill()
    with pytest.raises(ChainUnavailable):
        directory.refresh()
    assert directory.issuer_for("6223001012345678").member_id == "aurora"  # type: ignore[union-attr]
    chain.process.start()
    chain.add_member("borealis", roles=["issuer"], bins=["622400"])
    directory.refresh()
    chain.stop()
    assert [m.member_id for m in directory.members()] == ["aurora", "borealis"]
