"""GovernanceQuorum as the owner of a MemberRegistry, and the steps of an action."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from eth_abi.abi import encode
from eth_hash.auto import keccak

from nodes.chain.governance import Action
from nodes.ids import member_word
from tests.contracts.machine import Answer, Contract, Evm
from tests.contracts.world import GOVERNANCE, STRANGER, Key, World, address_of

GOVERNORS = sorted((f"governor-{number}" for number in range(5)), key=address_of)
DAY = 86_400


@dataclass
class Council:
    """A registry that a quorum owns."""

    world: World
    quorum: Contract

    @classmethod
    def found(cls) -> Council:
        evm = Evm()
        world = World.found(evm)
        first = [address_of(label) for label in GOVERNORS[:3]]
        quorum = evm.deploy("GovernanceQuorum", STRANGER.address, first, 2)
        world.registry.must(GOVERNANCE.address, "transferOwnership", quorum.address)
        council = cls(world, quorum)
        action = council.action(call("acceptOwnership()"))
        assert council.execute(action, GOVERNORS[:2]).ok
        return council

    def fork(self) -> Council:
        evm = self.world.evm.fork()
        return Council(self.world.on(evm), self.quorum.on(evm))

    def action(self, data: bytes, target: bytes = b"", **changes: int) -> Action:
        target = target or self.world.registry.address
        nonce = changes.get("nonce", self.quorum.view("nonce"))
        deadline = changes.get("deadline", self.world.evm.now + DAY)
        return Action("0x" + target.hex(), data, nonce, deadline)

    def sign(self, action: Action, labels: list[str], chain_id: int = 0) -> list[bytes]:
        digest = action.digest(
            chain_id=chain_id or self.world.evm.chain_id,
            quorum="0x" + self.quorum.address.hex(),
        )
        return [Key(label).sign(digest) for label in labels]

    def execute(
        self, action: Action, labels: list[str], signatures: list[bytes] | None = None
    ) -> Answer:
        made = self.sign(action, labels) if signatures is None else signatures
        target = bytes.fromhex(action.target[2:])
        arguments = (target, action.data, action.nonce, action.deadline, made)
        return self.quorum.send(STRANGER.address, "execute", *arguments)


def call(signature: str, *arguments: Any) -> bytes:
    types = signature[signature.index("(") + 1 : -1]
    listed = types.split(",") if types else []
    return bytes(keccak(signature.encode())[:4]) + encode(listed, arguments)


def rename(member: str, name: str) -> bytes:
    return call("setName(bytes32,string)", member_word(member), name)


def appoint(labels: list[str], needed: int) -> bytes:
    addresses = [address_of(label) for label in labels]
    return call("setGovernors(address[],uint32)", addresses, needed)


@functools.cache
def founded() -> Council:
    return Council.found()
