"""OmissionRegistry in a world of its own: promises, claims and answers."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from nodes.chain.challenges import claim_id_of, promise_digest
from nodes.ids import member_word
from tests.contracts.machine import Answer, Contract, Evm
from tests.contracts.settling import leaves
from tests.contracts.world import (
    STRANGER,
    AnchoredLog,
    Key,
    World,
    address_of,
    anchor_log,
    word,
)

NONE, CLAIMED, ANSWERED, PROVEN = range(4)
ANSWER_S, CLAIM_S, MERGE_S = 100, 1_000, 50
# In meridian's log: a transaction that is anchored, and one that isn't.
THERE, OPEN, ABSENT = word("txid"), word("txid 4"), word("txid 9")
C, OTHER_C = word("C"), word("another C")


@dataclass
class Omitting:
    """The contract with two members that promise, each with an anchored log."""

    world: World
    anchors: Contract
    registry: Contract
    logs: dict[str, AnchoredLog]

    @classmethod
    def found(cls, chain_id: int = 31_337) -> Omitting:
        evm = Evm(chain_id)
        world = World.found(evm)
        anchors = evm.deploy("AnchorRegistry", STRANGER.address, world.registry.address, bytes(20))
        windows = (ANSWER_S, CLAIM_S, MERGE_S)
        registry = evm.deploy("OmissionRegistry", STRANGER.address, anchors.address, *windows)
        logs = {
            member: anchor_log(world, anchors, member, leaves(member, kind))
            for member, kind in (("meridian", 2), ("aurora", 1))
        }
        found = cls(world, anchors, registry, logs)
        for member in logs:
            found.rotate(member, f"{member}-promise-0")
        evm.pass_time(CLAIM_S // 2)
        return found

    def fork(self) -> Omitting:
        evm = self.world.evm.fork()
        return Omitting(self.world.on(evm), self.anchors.on(evm), self.registry.on(evm), self.logs)

    @property
    def evm(self) -> Evm:
        return self.world.evm

    def rotate(self, member: str, label: str) -> None:
        """The member's promise key is replaced, or put in place for the first time."""
        operator = self.world.operator(member).address
        arguments = (member_word(member), 3, address_of(label).rjust(32, b"\0"))
        self.world.registry.must(operator, "rotateKey", *arguments)

    def digest(
        self, member: str, txid: bytes, commitment: bytes, deadline: int, chain_id: int = 0
    ) -> bytes:
        return promise_digest(
            chain_id=chain_id or self.evm.chain_id,
            registry="0x" + self.registry.address.hex(),
            member_id=member,
            txid=txid,
            commitment=commitment,
            merge_deadline=deadline,
        )

    def claim(
        self,
        txid: bytes = THERE,
        commitment: bytes = C,
        member: str = "meridian",
        *,
        ago: int = 1,
        label: str = "",
        signature: bytes | None = None,
    ) -> Answer:
        """By a stranger, with a promise whose deadline was `ago` seconds ago."""
        deadline = self.evm.now - ago
        if signature is None:
            digest = self.digest(member, txid, commitment, deadline)
            signature = Key(label or f"{member}-promise-0").sign(digest)
        arguments = (member_word(member), txid, commitment, deadline, signature)
        return self.registry.send(STRANGER.address, "claim", *arguments)

    def claimed(self, txid: bytes = THERE, commitment: bytes = C) -> bytes:
        answer = self.claim(txid, commitment)
        assert answer.ok, answer
        return claim_id_of("meridian", txid, commitment)

    def evidence(self, member: str = "meridian", index: int = 0, seq: int = 1) -> Any:
        """The contract's struct; the path is that of an anchored leaf in any case."""
        log = self.logs[member]
        _, _, _, path = log.evidence(min(index, 3), 1)
        words = [log.leaves[index][at : at + 32] for at in range(0, 320, 32)]
        return words, index, seq, path

    def answer(self, claim: bytes, evidence: Any = None) -> Answer:
        evidence = self.evidence() if evidence is None else evidence
        return self.registry.send(STRANGER.address, "answer", claim, evidence)

    def conclude(self, claim: bytes) -> Answer:
        return self.registry.send(STRANGER.address, "conclude", claim)

    def state(self, claim: bytes) -> int:
        return int(self.registry.view("claimOf", claim)[0])


@functools.cache
def founded() -> Omitting:
    """One for all tests; they go on from a fork."""
    return Omitting.found()
