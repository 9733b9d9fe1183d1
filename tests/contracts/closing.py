"""CloseRegistry in a world of its own, and the steps of a close."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import date

from nodes.chain.closes import CloseKey, close_commitment
from tests.contracts.machine import Answer, Contract, Evm
from tests.contracts.world import STRANGER, World, word

COMMIT_S, REVEAL_S = 100, 60
NONE, COMMITTING, REVEALING, CONFIRMED, BROKEN, EXPIRED, SUPERSEDED = range(7)
KEY = CloseKey("meridian", "aurora", "CNY", date(2026, 11, 22))
ROOT, TOTALS, BLIND = word("root"), word("totals"), word("blind")
OPENING = (ROOT, TOTALS, BLIND)


@dataclass
class Closing:
    """The contract with its members; a step is by a member's name, by its present operator."""

    world: World
    closes: Contract

    @classmethod
    def found(cls, chain_id: int = 31_337) -> Closing:
        world = World.found(Evm(chain_id))
        arguments = (world.registry.address, COMMIT_S, REVEAL_S)
        return cls(world, world.evm.deploy("CloseRegistry", STRANGER.address, *arguments))

    def fork(self) -> Closing:
        evm = self.world.evm.fork()
        return Closing(self.world.on(evm), self.closes.on(evm))

    @property
    def evm(self) -> Evm:
        return self.world.evm

    def commitment(
        self,
        member: str,
        revision: int = 0,
        opening: tuple[bytes, bytes, bytes] = OPENING,
        key: CloseKey = KEY,
    ) -> bytes:
        return close_commitment(
            chain_id=self.evm.chain_id,
            registry="0x" + self.closes.address.hex(),
            member_id=member,
            close_id=key.close_id,
            revision=revision,
            close_root=opening[0],
            totals_hash=opening[1],
            blind=opening[2],
        )

    def commit(
        self,
        member: str,
        revision: int = 0,
        opening: tuple[bytes, bytes, bytes] = OPENING,
        key: CloseKey = KEY,
        *,
        sender: bytes = b"",
        commitment: bytes | None = None,
    ) -> Answer:
        if commitment is None:
            commitment = self.commitment(member, revision, opening, key)
        sender = sender or self.world.operator(member).address
        return self.closes.send(sender, "commit", *key.words(), revision, commitment)

    def reveal(
        self,
        member: str,
        revision: int = 0,
        opening: tuple[bytes, bytes, bytes] = OPENING,
        key: CloseKey = KEY,
        *,
        sender: bytes = b"",
    ) -> Answer:
        sender = sender or self.world.operator(member).address
        return self.closes.send(sender, "reveal", key.close_id, revision, *opening)

    def both_commit(
        self,
        revision: int = 0,
        key: CloseKey = KEY,
        *,
        other: tuple[bytes, bytes, bytes] = OPENING,
    ) -> None:
        assert self.commit(key.acquirer, revision, key=key).ok
        assert self.commit(key.issuer, revision, other, key).ok

    def round(
        self,
        revision: int = 0,
        key: CloseKey = KEY,
        *,
        other: tuple[bytes, bytes, bytes] = OPENING,
    ) -> Answer:
        """A whole revision; `other` is what the issuer has."""
        self.both_commit(revision, key, other=other)
        assert self.reveal(key.acquirer, revision, key=key).ok
        answer = self.reveal(key.issuer, revision, other, key)
        assert answer.ok
        return answer

    def state(self, revision: int = 0, key: CloseKey = KEY) -> int:
        return int(self.closes.view("roundOf", key.close_id, revision)[0])


@functools.cache
def founded() -> Closing:
    """One for all tests; they go on from a fork."""
    return Closing.found()
