"""AnchorRegistry against a model in plain Python: any sender, any order, any tree."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from nodes.crypto.merkle import EMPTY_ROOT, root_of, verify_consistency
from nodes.ids import member_word
from tests.contracts.machine import Contract, Evm, evenly, machine_settings
from tests.contracts.world import STRANGER, World, address_of, word
from tests.factories.logs import consistency_proof, leaf_hashes

MEMBERS = ["aurora", "meridian", "harbor"]
LONGEST = 40


@functools.cache
def log_of(member: str, fork: str = "") -> tuple[bytes, ...]:
    """The leaf hashes of a member's log; a fork differs in one leaf."""
    leaves = leaf_hashes(LONGEST, member.encode())
    if fork:
        leaves[2] = word(fork)
    return tuple(leaves)


@functools.cache
def founded() -> tuple[World, Contract]:
    evm = Evm()
    world = World.found(evm)
    anchors = evm.deploy("AnchorRegistry", STRANGER.address, world.registry.address, bytes(20))
    return world, anchors


@dataclass(frozen=True)
class Anchor:
    size: int
    root: bytes
    block: int


@dataclass(frozen=True)
class Attempt:
    """The arguments of anchor(), as this sender gives them."""

    seq: int
    size: int
    prev_root: bytes
    root: bytes
    proof: tuple[bytes, ...]
    block_hash: bytes


@dataclass
class Model:
    """What AnchorRegistry has to do."""

    world: World
    anchors: dict[str, list[Anchor]] = field(default_factory=dict)

    def head(self, member: str) -> tuple[int, bytes]:
        listed = self.anchors.get(member)
        return (listed[-1].size, listed[-1].root) if listed else (0, EMPTY_ROOT)

    def refuses(self, label: str, attempt: Attempt, known: bool) -> str:
        member, problem = self.world.acting(label)
        if problem:
            return problem
        if not known:
            return "UnknownBlockHash"
        if attempt.seq != len(self.anchors.get(member, [])) + 1:
            return "WrongSequence"
        size, root = self.head(member)
        if attempt.prev_root != root:
            return "WrongPreviousRoot"
        if attempt.size <= size:
            return "SizeNotGrowing"
        if size == 0:
            return "InconsistentTree" if attempt.proof else ""
        extends = verify_consistency(size, attempt.size, root, attempt.root, attempt.proof)
        return "" if extends else "InconsistentTree"


class AnchorMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        world, anchors = founded()
        self.evm = world.evm.fork()
        self.world, self.contract = world.on(self.evm), anchors.on(self.evm)
        self.model = Model(self.world)

    @rule(blocks=st.integers(1, 300))
    def time_passes(self, blocks: int) -> None:
        self.evm.pass_time(blocks, blocks)

    @rule(name=evenly(MEMBERS), what=evenly("rrg"))
    def a_member_changes(self, name: str, what: str) -> None:
        if not self.world.members[name].active:
            self.world.reinstate(name)
        elif what == "r":
            self.world.rotate(name)
        else:
            self.world.revoke(name)

    @rule(
        data=st.data(),
        member=evenly(MEMBERS),
        grow=evenly([1, 1, 2, 3, 5, 8, 0, -1]),
        wrong=evenly(
            ["", "", "", "", "", "seq", "prev", "root", "fork", "proof", "cut", "long", "size"]
        ),
        back=evenly([1, 1, 2, 100, 256, 257, 0]),
        stranger=evenly([False] * 6 + [True]),
    )
    def anchor(
        self, data: st.DataObject, member: str, grow: int, wrong: str, back: int, stranger: bool
    ) -> None:
        label = self.world.operator(member).label
        if stranger:
            label = data.draw(evenly(self.world.labels()))
        self._anchor(label, self._attempt(member, grow, wrong, back), back)

    @rule(member=evenly(MEMBERS), steps=st.lists(evenly(range(1, 8)), min_size=2, max_size=4))
    def a_log_grows(self, member: str, steps: list[int]) -> None:
        for step in steps:
            attempt = self._attempt(member, step, "", 1)
            self._anchor(self.world.operator(member).label, attempt, 1)

    def _anchor(self, label: str, attempt: Attempt, back: int) -> None:
        expected = self.model.refuses(label, attempt, 1 <= back <= 256)
        answer = self.contract.send(
            address_of(label),
            "anchor",
            attempt.seq,
            attempt.size,
            attempt.prev_root,
            attempt.root,
            list(attempt.proof),
            attempt.block_hash,
            word("meta"),
        )
        assert answer.refusal == expected, (answer, attempt)
        if answer.ok:
            actor, _ = self.world.acting(label)
            anchored = Anchor(attempt.size, attempt.root, self.evm.number)
            self.model.anchors.setdefault(actor, []).append(anchored)
            assert answer.events[0].name == "Anchored"
            assert answer.events[0].arguments["memberId"] == member_word(actor)

    def _attempt(self, member: str, grow: int, wrong: str, back: int) -> Attempt:
        listed = self.model.anchors.get(member, [])
        size, root = self.model.head(member)
        target = min(max(size + grow, 0), LONGEST)
        leaves = list(log_of(member, "fork" if wrong == "fork" else ""))[:target]
        proof = consistency_proof(size, leaves) if 0 < size < target else []
        if wrong == "proof" and proof:
            proof[0] = word("another node")
        elif wrong == "cut":
            proof = proof[:-1]
        elif wrong == "long":
            proof = [*proof, word("one more")]
        return Attempt(
            seq=len(listed) + (3 if wrong == "seq" else 1),
            size=target + (1 if wrong == "size" else 0),
            prev_root=word("another root") if wrong == "prev" else root,
            root=word("no root") if wrong == "root" else root_of(leaves),
            proof=tuple(proof),
            block_hash=self.evm.block_hash(back) if back else bytes(32),
        )

    @invariant()
    def heads_agree(self) -> None:
        for member in MEMBERS:
            seq, size, root, block = self.contract.view("head", member_word(member))
            listed = self.model.anchors.get(member, [])
            assert (seq, (size, root)) == (len(listed), self.model.head(member))
            assert block == (listed[-1].block if listed else 0)

    def teardown(self) -> None:
        for member, listed in self.model.anchors.items():
            for seq, anchored in enumerate(listed, 1):
                row = self.contract.view("anchors", member_word(member), seq)
                assert row == (anchored.size, anchored.root, anchored.block)
            for size in (0, *(a.size + n for a in listed for n in (0, 1))):
                first = next((n for n, a in enumerate(listed, 1) if a.size >= size > 0), 0)
                assert self.contract.view("covering", member_word(member), size) == first


def test_contract_and_model_agree_on_any_calls() -> None:
    run_state_machine_as_test(AnchorMachine, settings=machine_settings(12, 20))
