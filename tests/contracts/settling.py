"""SettlementRegistry in a world of its own, and the steps of a settlement."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nodes.chain.closes import CloseKey
from nodes.chain.settlements import (
    SettlementTerms,
    Verdict,
    resolution_digest,
    settlement_id,
)
from tests.contracts.closing import KEY, TOTALS, Closing
from tests.contracts.machine import Answer, Contract, Evm
from tests.contracts.world import (
    STRANGER,
    AnchoredLog,
    Key,
    World,
    address_of,
    anchor_log,
    leaf_of,
    word,
)

NONE, PROPOSED, CONFIRMED, DISPUTED, RESOLVED, FINAL, EXPIRED, SUPERSEDED = range(8)
DISPUTE_S = 500
SIGN_S = 200
MAX_WINDOW = 30 * 86_400
ZERO = bytes(32)
# The last one is an operator, too, which makes it nobody's judge in its own cause.
ARBITERS = sorted(("arbiter-1", "arbiter-2", "arbiter-3", "meridian-operator-0"), key=address_of)
JUDGES = [label for label in ARBITERS if label.startswith("arbiter")]
THRESHOLD = 2
PAIR_LEAF, OTHER_PAIR_LEAF, EVENT_LEAF, FUTURE_LEAF, OPEN_LEAF = range(5)


def leaves(member: str, kind: int) -> list[bytes]:
    """A log with a leaf of each sort; the last two aren't anchored."""
    shared = word("C")
    return [
        leaf_of(member, word("txid"), shared, kind=kind),
        leaf_of(member, word("txid 1"), shared, kind=kind, acquirer="borealis"),
        leaf_of(member, word("txid 2"), shared, kind=4),
        leaf_of(member, word("txid 3"), shared, kind=kind, version=2),
        leaf_of(member, word("txid 4"), shared, kind=kind),
        leaf_of(member, word("txid 5"), shared, kind=kind),
    ]


@dataclass
class Settling:
    """The contract with closes, anchored logs and arbiters."""

    closing: Closing
    anchors: Contract
    registry: Contract
    logs: dict[str, AnchoredLog] = field(default_factory=dict)

    @classmethod
    def found(cls, chain_id: int = 31_337) -> Settling:
        closing = Closing.found(chain_id)
        evm, world = closing.evm, closing.world
        anchors = evm.deploy("AnchorRegistry", STRANGER.address, world.registry.address, bytes(20))
        registry = evm.deploy(
            "SettlementRegistry",
            STRANGER.address,
            closing.closes.address,
            anchors.address,
            DISPUTE_S,
            [address_of(label) for label in ARBITERS],
            THRESHOLD,
        )
        logs = {
            member: anchor_log(world, anchors, member, leaves(member, kind))
            for member, kind in (("meridian", 2), ("aurora", 1), ("harbor", 3))
        }
        return cls(closing, anchors, registry, logs)

    def fork(self) -> Settling:
        closing = self.closing.fork()
        evm = closing.evm
        return Settling(closing, self.anchors.on(evm), self.registry.on(evm), self.logs)

    @property
    def evm(self) -> Evm:
        return self.closing.evm

    @property
    def world(self) -> World:
        return self.closing.world

    def terms(self, key: CloseKey = KEY, **changes: Any) -> SettlementTerms:
        """The next proposal for a close, right but for `changes`."""
        words = key.words()
        nonce = self.registry.view("nonceOf", words[0], words[1])
        found, revision, _, totals = self.closing.closes.view("confirmedOf", key.close_id)
        right = SettlementTerms(
            close=key,
            close_revision=revision,
            totals_hash=totals if found else TOTALS,
            statement_hash=word("statement"),
            supersedes=self.registry.view("currentOf", key.close_id),
            nonce=nonce,
            deadline=self.evm.now + SIGN_S,
        )
        return replace(right, **changes)

    def id(self, terms: SettlementTerms, *, chain_id: int = 0) -> bytes:
        return settlement_id(
            terms,
            chain_id=chain_id or self.evm.chain_id,
            registry="0x" + self.registry.address.hex(),
        )

    def sign(self, member: str, digest: bytes) -> bytes:
        return self.world.operator(member).sign(digest)

    def propose(
        self, terms: SettlementTerms, by: str = "meridian", signature: bytes | None = None
    ) -> Answer:
        if signature is None:
            signature = self.sign(by, self.id(terms))
        return self.registry.send(STRANGER.address, "propose", tuple(terms.words()), signature)

    def confirm(
        self, settlement: bytes, by: str = "aurora", signature: bytes | None = None
    ) -> Answer:
        if signature is None:
            signature = self.sign(by, settlement)
        return self.registry.send(STRANGER.address, "confirm", settlement, signature)

    def evidence(self, member: str = "aurora", index: int = PAIR_LEAF, seq: int = 1) -> Any:
        """The contract's struct. Of a leaf that isn't anchored the path is another's."""
        log = self.logs[member]
        words, _, _, path = log.evidence(min(index, OPEN_LEAF - 1), 1)
        if index >= OPEN_LEAF:
            words = [log.leaves[index][at : at + 32] for at in range(0, 320, 32)]
        return words, index, seq, path

    def dispute(
        self, settlement: bytes, by: str = "aurora", evidence: Any = None, sender: bytes = b""
    ) -> Answer:
        sender = sender or self.world.operator(by).address
        evidence = self.evidence() if evidence is None else evidence
        return self.registry.send(sender, "dispute", settlement, evidence, word("reason"))

    def rulings(
        self,
        settlement: bytes,
        verdict: int,
        labels: Sequence[str],
        deadline: int,
        chain_id: int = 0,
    ) -> list[bytes]:
        digest = resolution_digest(
            chain_id=chain_id or self.evm.chain_id,
            registry="0x" + self.registry.address.hex(),
            settlement_id=settlement,
            verdict=Verdict(verdict),
            reason_hash=word("ruling"),
            deadline=deadline,
        )
        return [Key(label).sign(digest) for label in labels]

    def resolve(
        self,
        settlement: bytes,
        verdict: int = 1,
        labels: Sequence[str] = JUDGES[:2],
        *,
        said: int | None = None,
        deadline: int | None = None,
        signatures: list[bytes] | None = None,
    ) -> Answer:
        """`said` is the verdict in the call, if another than the signed one."""
        deadline = self.evm.now + 10 if deadline is None else deadline
        if signatures is None:
            signatures = self.rulings(settlement, verdict, labels, deadline)
        said = verdict if said is None else said
        arguments = (settlement, said, word("ruling"), deadline, signatures)
        return self.registry.send(STRANGER.address, "resolve", *arguments)

    def step(self, function: str, settlement: bytes) -> Answer:
        """finalize or expire, by anybody."""
        return self.registry.send(STRANGER.address, function, settlement)

    def state(self, settlement: bytes) -> int:
        return int(self.registry.view("stateOf", settlement))

    def proposed(self, key: CloseKey = KEY, **changes: Any) -> bytes:
        """The id of a proposal by the acquirer."""
        terms = self.terms(key, **changes)
        answer = self.propose(terms, key.acquirer)
        assert answer.ok, answer
        return self.id(terms)

    def confirmed(self, key: CloseKey = KEY, **changes: Any) -> bytes:
        settlement = self.proposed(key, **changes)
        answer = self.confirm(settlement, key.issuer)
        assert answer.ok, answer
        return settlement

    def disputed(self) -> bytes:
        settlement = self.confirmed()
        answer = self.dispute(settlement)
        assert answer.ok, answer
        return settlement


@functools.cache
def founded() -> Settling:
    """One for all tests, KEY's close confirmed; they go on from a fork."""
    settling = Settling.found()
    settling.closing.round()
    return settling
