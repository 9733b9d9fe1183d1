"""AnchorRegistry's move over the command: by one key, and by a quorum; what is wrong is named."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import pytest

from nodes.chain.anchors import AnchorRegistry
from nodes.chain.contracts import ANCHOR_REGISTRY
from nodes.chain.deploy import NO_ADDRESS, create, deploy
from nodes.chain.errors import ChainReverted
from nodes.chain.signer import LocalSigner
from tests.integration.chain.test_govern_command import Governed, found, governed

__all__ = ["governed"]


def owner_key(governed: Governed) -> tuple[str, str]:
    """The option that names the present owner's key."""
    file = governed.directory / "owner"
    file.write_text(bytes(governed.chain.deployer._account.key).hex())
    return "--key-file", str(file)


def old_registry(governed: Governed) -> tuple[str, str]:
    return "--anchor-registry", governed.chain.anchor_registry


def deployed(governed: Governed, *key: str) -> str:
    """What deploy-successor made."""
    made = governed.run("deploy-successor", *old_registry(governed), *key)
    assert made.exit_code == 0, made.output
    return made.stdout.split()[1].rstrip(",")


def successors(governed: Governed) -> tuple[str, ...]:
    chain = governed.chain
    return AnchorRegistry(chain.client(), chain.anchor_registry).successors()


def test_the_one_owner_moves_the_anchors(governed: Governed) -> None:
    key = owner_key(governed)
    new = deployed(governed, *key)
    waiting = governed.run("show", "--anchor-registry", new).output
    assert "takes no anchors before its predecessor is retired" in waiting
    assert successors(governed) == ()

    done = governed.run("retire", new, *old_registry(governed), *key)

    assert done.exit_code == 0, done.output
    assert f"is retired for {new} in block" in done.stdout
    assert successors(governed) == (new,)
    shown = governed.run("show", *old_registry(governed)).output
    assert f"successor {new}" in shown
    assert "retired: its heads are frozen" in shown
    assert governed.chain.anchor_registry in governed.run("show", "--anchor-registry", new).output


def test_a_quorum_moves_the_anchors(governed: Governed) -> None:
    keys, _ = found(governed)
    sender = ("--keystore", str(keys))
    old, new = governed.chain.anchor_registry, deployed(governed, *sender)
    alone = governed.run("retire", new, *old_registry(governed), *sender)
    assert (alone.exit_code, f"govern propose retire {old} {new}" in alone.stderr) == (2, True)

    file = governed.directory / "retire.json"
    made = governed.run("propose", "retire", old, new, "--out", str(file))
    assert made.exit_code == 0, made.output
    assert f"retire {old} {new}" in made.stdout
    governed.sign(file, "ada")
    few = governed.run("execute", str(file), *sender)
    assert (few.exit_code, "TooFewSignatures" in few.stderr) == (1, True)
    governed.sign(file, "cy")
    done = governed.run("execute", str(file), *sender)
    assert done.exit_code == 0, done.output
    assert successors(governed) == (new,)


def test_an_action_for_another_contract_than_it_says_is_refused(governed: Governed) -> None:
    keys, _ = found(governed)
    new = deployed(governed, "--keystore", str(keys))
    file = governed.directory / "retire.json"
    governed.run("propose", "retire", governed.chain.anchor_registry, new, "--out", str(file))
    document = json.loads(file.read_text())
    assert document["target"] == governed.chain.anchor_registry
    for changed in (
        {"target": governed.chain.member_registry},
        {"arguments": [new, new]},
        {"arguments": [governed.chain.anchor_registry, governed.chain.anchor_registry]},
    ):
        file.write_text(json.dumps(document | changed))
        refused = governed.run(
            "sign", str(file), "--key-file", governed.key("bo"), asks_chain=False
        )
        assert (refused.exit_code, "another one than its function" in refused.stderr) == (1, True)


def test_what_is_wrong_with_a_move_is_named(governed: Governed) -> None:
    chain, key, nobody = governed.chain, owner_key(governed), "0x" + "11" * 20
    old, client = chain.anchor_registry, chain.client()
    first = [chain.member_registry, NO_ADDRESS]
    stranger = create(client, chain.deployer, ANCHOR_REGISTRY, ["address", "address"], first)
    elsewhere = deploy(client, chain.deployer).anchor_registry
    new = deployed(governed, *key)
    below = governed.run("deploy-successor", "--anchor-registry", new, *key)
    other_key = governed.directory / "other"
    other_key.write_text(secrets.token_hex(32))

    def retired(successor: str, registry: str = old, *signer: str) -> tuple[int, str]:
        chosen = signer or key
        done = governed.run("retire", successor, "--anchor-registry", registry, *chosen)
        return done.exit_code, done.stderr

    assert (below.exit_code, "takes no anchors yet" in below.stderr) == (2, True)
    for (status, said), reason in (
        (retired("0x12"), "SUCCESSOR '0x12' is no contract's address"),
        (retired(new, "0x12"), "--anchor-registry '0x12' is no contract's address"),
        (retired(nobody), f"{nobody} does not hold AnchorRegistry"),
        (retired(chain.member_registry), "does not hold AnchorRegistry"),
        (retired(stranger), "has no predecessor: it is a first version"),
        (retired(new, stranger), f"is the successor of {old}, not of {stranger}"),
        (retired(new, nobody), f"there is no contract at {nobody}"),
        (retired(new, chain.member_registry), "does not hold AnchorRegistry"),
        (retired(new, elsewhere), "obeys the MemberRegistry"),
        (retired(new, old, "--key-file", str(other_key)), f"{chain.deployer.address} governs"),
        (retired(new, old, "--key-file", "nowhere"), "nowhere"),
    ):
        assert (status, reason in said) == (2, True), said
    assert successors(governed) == ()

    assert retired(new)[0] == 0
    for (status, said), reason in (
        (retired(new), f"was retired already, for {new}"),
        (_outcome(governed, "deploy-successor", *old_registry(governed), *key), "retired already"),
    ):
        assert (status, reason in said) == (2, True), said


def test_a_proposal_is_checked_before_anybody_signs(governed: Governed) -> None:
    found(governed)
    old, members = governed.chain.anchor_registry, governed.chain.member_registry
    for arguments, reason in (
        ((old,), "retire takes OLD NEW"),
        ((old, "0x12"), "'0x12' is not an address"),
        ((old, members), f"{members} does not hold AnchorRegistry"),
        ((old, old), "has no predecessor"),
    ):
        status, said = _outcome(governed, "propose", "retire", *arguments)
        assert (status, reason in said) == (2, True), said


def test_a_stranger_is_refused_by_the_contract_itself(governed: Governed) -> None:
    """Whatever the command checks, the chain decides."""
    new = deployed(governed, *owner_key(governed))
    client = governed.chain.client()
    contract = client.contract(ANCHOR_REGISTRY, governed.chain.anchor_registry)
    data = contract.encode_abi("retire", args=[new])
    stranger = LocalSigner(secrets.token_bytes(32)).address
    with pytest.raises(ChainReverted, match="NotGovernance"):
        client.simulate({"from": stranger, "to": contract.address, "data": data})


def _outcome(governed: Governed, *arguments: str) -> tuple[int, str]:
    done = governed.run(*arguments)
    return done.exit_code, done.stderr


def test_no_proposal_is_left_behind(governed: Governed, tmp_path: Path) -> None:
    found(governed)
    out = tmp_path / "never.json"
    old = governed.chain.anchor_registry
    governed.run("propose", "retire", old, old, "--out", str(out))
    assert not out.exists()
