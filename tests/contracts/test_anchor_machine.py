"""AnchorRegistry against a model in plain Python: any sender, any order, any tree, any version."""

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
from tests.contracts.world import GOVERNANCE, STRANGER, World, address_of, word
from tests.factories.logs import consistency_proof, leaf_hashes

MEMBERS = ["aurora", "meridian", "harbor"]
LONGEST = 40
MOST_VERSIONS = 5
NO_ANCHOR = (0, bytes(32), 0)


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
    #: The version that took it, by its place in the model's list.
    version: int


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
class Version:
    """One AnchorRegistry: the places of the version before it and of its successor."""

    contract: Contract
    before: int | None = None
    after: int | None = None


@dataclass
class Model:
    """What AnchorRegistry has to do. A member has one list of anchors, whichever version took them:
    only one version is open and not retired."""

    world: World
    versions: list[Version]
    anchors: dict[str, list[Anchor]] = field(default_factory=dict)

    def is_open(self, place: int) -> bool:
        before = self.versions[place].before
        return before is None or self.versions[before].after == place

    @property
    def present(self) -> int:
        """The version that takes anchors."""
        place = 0
        while (after := self.versions[place].after) is not None:
            place = after
        return place

    def line(self, place: int) -> list[int]:
        """A version and those before it."""
        before = self.versions[place].before
        return [place, *(self.line(before) if before is not None else [])]

    def seen(self, member: str, place: int) -> list[Anchor]:
        """The anchors of which a version's views tell: all if it leads to the present one, else
        those of its own line."""
        listed = self.anchors.get(member, [])
        if self.versions[place].after is not None:
            return listed
        line = self.line(place)
        return [anchor for anchor in listed if anchor.version in line]

    def head(self, member: str) -> tuple[int, bytes]:
        listed = self.anchors.get(member)
        return (listed[-1].size, listed[-1].root) if listed else (0, EMPTY_ROOT)

    def refuses(self, place: int, label: str, attempt: Attempt, known: bool) -> str:
        if self.versions[place].after is not None:
            return "Retired"
        member, problem = self.world.acting(label)
        if problem:
            return problem
        if not known:
            return "UnknownBlockHash"
        if not self.is_open(place):
            return "PredecessorNotRetired"
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

    def refuses_retirement(self, label: str, old: int, new: int) -> str:
        if label != GOVERNANCE.label:
            return "NotGovernance"
        if self.versions[old].after is not None:
            return "Retired"
        if not self.is_open(old):
            return "PredecessorNotRetired"
        return "" if self.versions[new].before == old else "NotSuccessor"


class AnchorMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        world, anchors = founded()
        self.evm = world.evm.fork()
        self.world = world.on(self.evm)
        self.model = Model(self.world, [Version(anchors.on(self.evm))])

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
        elsewhere=evenly([False] * 3 + [True]),
    )
    def anchor(
        self,
        data: st.DataObject,
        member: str,
        grow: int,
        wrong: str,
        back: int,
        stranger: bool,
        elsewhere: bool,
    ) -> None:
        label = self.world.operator(member).label
        if stranger:
            label = data.draw(evenly(self.world.labels()))
        place = data.draw(self._places()) if elsewhere else self.model.present
        self._anchor(place, label, self._attempt(member, grow, wrong, back), back)

    @rule(data=st.data())
    def a_version_is_deployed(self, data: st.DataObject) -> None:
        if len(self.model.versions) == MOST_VERSIONS:
            return
        before = data.draw(self._places())
        cited = self.model.versions[before]
        contract, refused = self.evm.try_deploy(
            "AnchorRegistry", STRANGER.address, self.world.registry.address, cited.contract.address
        )
        assert refused[0] == ("" if cited.after is None else "Retired")
        if contract is not None:
            self.model.versions.append(Version(contract, before))

    @rule(data=st.data(), right=evenly([True, True, False]))
    def a_version_is_retired(self, data: st.DataObject, right: bool) -> None:
        old, new = data.draw(self._places()), data.draw(self._places())
        label = data.draw(evenly([*[GOVERNANCE.label] * 4, *self.world.labels()]))
        waiting = [
            place
            for place, version in enumerate(self.model.versions)
            if version.before == self.model.present
        ]
        if right and waiting:
            old, new = self.model.present, data.draw(evenly(waiting))
        expected = self.model.refuses_retirement(label, old, new)
        versions = self.model.versions
        answer = versions[old].contract.send(
            address_of(label), "retire", versions[new].contract.address
        )
        assert answer.refusal == expected, (answer, label, old, new)
        if answer.ok:
            versions[old].after = new
            assert [event.name for event in answer.events] == ["HeadsFrozen"]

    def _places(self) -> st.SearchStrategy[int]:
        return evenly(range(len(self.model.versions)))

    @rule(member=evenly(MEMBERS), steps=st.lists(evenly(range(1, 8)), min_size=2, max_size=4))
    def a_log_grows(self, member: str, steps: list[int]) -> None:
        for step in steps:
            attempt = self._attempt(member, step, "", 1)
            self._anchor(self.model.present, self.world.operator(member).label, attempt, 1)

    def _anchor(self, place: int, label: str, attempt: Attempt, back: int) -> None:
        expected = self.model.refuses(place, label, attempt, 1 <= back <= 256)
        contract = self.model.versions[place].contract
        answer = contract.send(
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
            anchored = Anchor(attempt.size, attempt.root, self.evm.number, place)
            self.model.anchors.setdefault(actor, []).append(anchored)
            assert answer.events[0].name == "Anchored"
            assert answer.events[0].contract == contract.address
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
        for place, version in enumerate(self.model.versions):
            for member in MEMBERS:
                head = version.contract.view("head", member_word(member))
                listed = self.model.seen(member, place)
                last = listed[-1] if listed else Anchor(0, EMPTY_ROOT, 0, 0)
                assert head == (len(listed), last.size, last.root, last.block), place

    def teardown(self) -> None:
        for place, version in enumerate(self.model.versions):
            for member in self.model.anchors:
                listed = self.model.seen(member, place)
                for seq in range(len(listed) + 2):
                    row = version.contract.view("anchors", member_word(member), seq)
                    held = listed[seq - 1] if 1 <= seq <= len(listed) else None
                    assert row == ((held.size, held.root, held.block) if held else NO_ANCHOR)
                for size in (0, *(a.size + n for a in listed for n in (0, 1))):
                    first = next((n for n, a in enumerate(listed, 1) if a.size >= size > 0), 0)
                    assert version.contract.view("covering", member_word(member), size) == first


def test_contract_and_model_agree_on_any_calls() -> None:
    run_state_machine_as_test(AnchorMachine, settings=machine_settings(16, 24))
