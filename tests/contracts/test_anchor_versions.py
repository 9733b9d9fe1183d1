"""AnchorRegistry's versions: a log goes on where it was frozen, never anew, never in two."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from nodes.chain.challenges import claim_id_of
from nodes.crypto.merkle import EMPTY_ROOT, inclusion_path, leaf_hash, root_of
from nodes.ids import member_word
from tests.contracts import omitting, settling
from tests.contracts.council import GOVERNORS, call
from tests.contracts.council import founded as council_founded
from tests.contracts.machine import Answer, Contract, Evm, error_names
from tests.contracts.world import GOVERNANCE, STRANGER, World, address_of, word
from tests.factories.logs import consistency_proof, leaf_hashes

#: What tests/contracts/test_anchor_registry.py brings about.
_OF_ANCHORS = {
    "InconsistentTree",
    "MemberRevoked",
    "NotOperator",
    "SizeNotGrowing",
    "UnknownBlockHash",
    "WrongPreviousRoot",
    "WrongSequence",
    "ZeroRegistry",
}
#: By size, the anchor that covers it first, of anchors at 3, 8, 13, 14 and 30 leaves.
FIRST_OF = {0: 0, 1: 1, 3: 1, 4: 2, 8: 2, 9: 3, 14: 4, 15: 5, 30: 5, 31: 0}


@dataclass
class Versions:
    """A MemberRegistry with its first AnchorRegistry, and members' logs."""

    world: World
    first: Contract
    sizes: dict[str, list[int]] = field(default_factory=dict)

    @classmethod
    def found(cls) -> Versions:
        evm = Evm()
        world = World.found(evm)
        first = evm.deploy("AnchorRegistry", STRANGER.address, world.registry.address, bytes(20))
        return cls(world, first)

    def fork(self) -> Versions:
        evm = self.world.evm.fork()
        sizes = {member: list(listed) for member, listed in self.sizes.items()}
        return Versions(self.world.on(evm), self.first.on(evm), sizes)

    def deploy(self, before: Contract, members: bytes = b"") -> Contract:
        members = members or self.world.registry.address
        return self.world.evm.deploy("AnchorRegistry", STRANGER.address, members, before.address)

    def refused_deployment(self, members: bytes, before: bytes) -> Answer:
        made, (refusal, named) = self.world.evm.try_deploy(
            "AnchorRegistry", STRANGER.address, members, before
        )
        assert made is None
        return Answer(refusal, named, (), ())

    def retire(self, old: Contract, new: Contract, sender: bytes = GOVERNANCE.address) -> Answer:
        return old.send(sender, "retire", new.address)

    def moved(self, old: Contract) -> Contract:
        """The successor of a version that was retired for it."""
        new = self.deploy(old)
        assert self.retire(old, new).ok
        return new

    def anchor(
        self, at: Contract, size: int, member: str = "aurora", *, anew: bool = False, fork: str = ""
    ) -> Answer:
        """The member's next anchor. `anew`: as if the log began at this contract; `fork`: with
        another third leaf."""
        listed = [] if anew else self.sizes.get(member, [])
        old = listed[-1] if listed else 0
        honest = leaf_hashes(size, member.encode())
        leaves = [word(fork) if fork and n == 2 else leaf for n, leaf in enumerate(honest)]
        previous = root_of(honest[:old]) if old else EMPTY_ROOT
        proof = consistency_proof(old, leaves) if old else []
        answer = at.send(
            self.world.operator(member).address,
            "anchor",
            *(len(listed) + 1, size, previous, root_of(leaves)),
            *(proof, self.world.evm.block_hash(), word("meta")),
        )
        self.world.evm.pass_time(1)
        if answer.ok:
            self.sizes.setdefault(member, []).append(size)
        return answer

    def must_anchor(self, at: Contract, *sizes: int, member: str = "aurora") -> None:
        for size in sizes:
            answer = self.anchor(at, size, member)
            assert answer.ok, answer


@functools.cache
def _founded() -> Versions:
    versions = Versions.found()
    versions.must_anchor(versions.first, 3, 8)
    versions.must_anchor(versions.first, 5, member="meridian")
    return versions


@pytest.fixture
def versions() -> Versions:
    """Two members with anchors at the first version; a third has none."""
    return _founded().fork()


def test_a_log_goes_on_at_the_successor_from_its_frozen_head(versions: Versions) -> None:
    first, second = versions.first, versions.moved(versions.first)
    frozen = first.view("head", member_word("aurora"))

    assert second.view("head", member_word("aurora")) == frozen
    answer = versions.anchor(second, 13)

    assert answer.ok
    (event,) = answer.events
    assert event.contract == second.address
    assert (event.arguments["seq"], event.arguments["size"]) == (3, 13)
    assert event.arguments["prevRoot"] == frozen[2]


def test_a_member_without_anchors_begins_at_the_successor(versions: Versions) -> None:
    second = versions.moved(versions.first)
    assert second.view("head", member_word("harbor")) == (0, 0, EMPTY_ROOT, 0)
    versions.must_anchor(second, 2, 6, member="harbor")
    assert versions.first.view("head", member_word("harbor"))[:2] == (2, 6)


def test_retirement_says_for_whom(versions: Versions) -> None:
    second = versions.deploy(versions.first)
    assert second.view("predecessor") == "0x" + versions.first.address.hex()
    assert versions.first.view("successor") == "0x" + "00" * 20
    answer = versions.retire(versions.first, second)
    assert [event.name for event in answer.events] == ["HeadsFrozen"]
    assert answer.events[0].arguments == {"successor": "0x" + second.address.hex()}
    assert versions.first.view("successor") == "0x" + second.address.hex()


class TestTheMoveForksNothing:
    def test_no_log_begins_anew(self, versions: Versions) -> None:
        second = versions.moved(versions.first)
        refused = versions.anchor(second, 13, anew=True)
        assert refused.refusal == "WrongSequence"
        assert refused.arguments == {"expected": 3, "given": 1}

    def test_the_frozen_tree_has_to_be_extended(self, versions: Versions) -> None:
        second = versions.moved(versions.first)
        assert versions.anchor(second, 13, fork="another leaf").refusal == "InconsistentTree"
        versions.must_anchor(second, 13)

    def test_the_log_does_not_shrink(self, versions: Versions) -> None:
        second = versions.moved(versions.first)
        versions.sizes["aurora"] = [3, 7]  # as if the head were at 7
        assert versions.anchor(second, 8).refusal == "WrongPreviousRoot"
        leaves = leaf_hashes(8, b"aurora")
        shrunk = second.send(
            versions.world.operator("aurora").address,
            "anchor",
            *(3, 8, root_of(leaves), root_of(leaves)),
            *([], versions.world.evm.block_hash(), word("meta")),
        )
        assert shrunk.refusal == "SizeNotGrowing"

    def test_the_old_one_takes_no_anchor_after_the_move(self, versions: Versions) -> None:
        second = versions.moved(versions.first)
        refused = versions.anchor(versions.first, 13)
        assert refused.refusal == "Retired"
        assert str(refused.arguments["successor"]).lower() == "0x" + second.address.hex()

    def test_the_new_one_takes_none_before_it(self, versions: Versions) -> None:
        second = versions.deploy(versions.first)
        for member, size in (("aurora", 13), ("meridian", 9), ("harbor", 4)):
            assert versions.anchor(second, size, member).refusal == "PredecessorNotRetired"
        versions.must_anchor(versions.first, 13)
        assert second.view("head", member_word("aurora"))[:2] == (3, 13)

    def test_a_rival_never_takes_one(self, versions: Versions) -> None:
        rival, second = versions.deploy(versions.first), versions.deploy(versions.first)
        assert versions.retire(versions.first, second).ok
        assert versions.anchor(rival, 13).refusal == "PredecessorNotRetired"
        assert versions.retire(versions.first, rival).refusal == "Retired"
        # Nor anything that is built on the rival.
        third = versions.deploy(rival)
        assert versions.retire(rival, third).refusal == "PredecessorNotRetired"
        assert versions.anchor(third, 13).refusal == "PredecessorNotRetired"

    def test_nothing_overtakes_a_version_that_is_not_open(self, versions: Versions) -> None:
        """Else a third version would take anchors while the first still does."""
        second = versions.deploy(versions.first)
        third = versions.deploy(second)
        assert versions.retire(second, third).refusal == "PredecessorNotRetired"
        assert versions.anchor(third, 13).refusal == "PredecessorNotRetired"


def test_three_versions_are_one_log(versions: Versions) -> None:
    first = versions.first
    second = versions.moved(first)
    versions.must_anchor(second, 13, 14)
    third = versions.moved(second)
    versions.must_anchor(third, 30)
    versions.must_anchor(third, 9, member="meridian")  # nothing of it at the second

    sizes = versions.sizes["aurora"]
    assert sizes == [3, 8, 13, 14, 30]
    for version in (first, second, third):
        head = version.view("head", member_word("aurora"))
        assert head[:3] == (5, 30, root_of(leaf_hashes(30, b"aurora")))
        assert version.view("head", member_word("meridian"))[:2] == (2, 9)
        for seq, size in enumerate(sizes, 1):
            row = version.view("anchors", member_word("aurora"), seq)
            assert row[:2] == (size, root_of(leaf_hashes(size, b"aurora")))
        assert version.view("anchors", member_word("aurora"), 0) == (0, bytes(32), 0)
        assert version.view("anchors", member_word("aurora"), 6) == (0, bytes(32), 0)
        for size, seq in (
            (0, 0),
            (1, 1),
            (3, 1),
            (4, 2),
            (8, 2),
            (9, 3),
            (14, 4),
            (15, 5),
            (31, 0),
        ):
            assert version.view("covering", member_word("aurora"), size) == seq
        assert version.view("covering", member_word("meridian"), 6) == 2
    assert versions.anchor(second, 40).refusal == "Retired"
    assert second.view("headHere", member_word("aurora"))[:2] == (4, 14)
    assert first.view("headHere", member_word("aurora"))[:2] == (2, 8)


class TestWhoRetires:
    @pytest.mark.parametrize("label", [STRANGER.label, "aurora-operator-0", "meridian-operator-0"])
    def test_nobody_but_governance(self, versions: Versions, label: str) -> None:
        second = versions.deploy(versions.first)
        refused = versions.retire(versions.first, second, address_of(label))
        assert refused.refusal == "NotGovernance"
        versions.must_anchor(versions.first, 13)

    def test_governance_once(self, versions: Versions) -> None:
        second = versions.moved(versions.first)
        assert versions.retire(versions.first, second).refusal == "Retired"
        other = versions.deploy(second)
        assert versions.retire(versions.first, other).refusal == "Retired"

    def test_a_governance_that_was_handed_over(self, versions: Versions) -> None:
        second, heir = versions.deploy(versions.first), address_of("heir")
        registry = versions.world.registry
        registry.must(GOVERNANCE.address, "transferOwnership", heir)
        registry.must(heir, "acceptOwnership")
        assert versions.retire(versions.first, second).refusal == "NotGovernance"
        assert versions.retire(versions.first, second, heir).ok

    def test_a_quorum_by_k_of_n(self) -> None:
        council = council_founded().fork()
        world = council.world
        evm, members = world.evm, world.registry.address
        first = evm.deploy("AnchorRegistry", STRANGER.address, members, bytes(20))
        second = evm.deploy("AnchorRegistry", STRANGER.address, members, first.address)
        action = council.action(call("retire(address)", second.address), first.address)
        assert council.execute(action, GOVERNORS[:1]).refusal == "TooFewSignatures"
        # Its refusals come through under their own names.
        wrong = council.action(call("retire(address)", first.address), first.address)
        assert council.execute(wrong, GOVERNORS[:2]).refusal == "NotSuccessor"
        assert council.execute(action, GOVERNORS[:2]).ok
        assert first.view("successor") == "0x" + second.address.hex()


@pytest.mark.parametrize(
    "successor",
    [
        lambda v: bytes(20),
        lambda v: address_of("nobody"),
        lambda v: v.first.address,
        lambda v: v.world.registry.address,
        lambda v: (
            v.world.evm.deploy(
                "AnchorRegistry", STRANGER.address, v.world.registry.address, bytes(20)
            ).address
        ),
        lambda v: v.deploy(v.deploy(v.first)).address,
    ],
    ids=["zero", "no contract", "itself", "another contract", "a first version", "a grandchild"],
)
def test_only_a_contract_that_names_it_succeeds(
    versions: Versions, successor: Callable[[Versions], bytes]
) -> None:
    given = successor(versions)
    refused = versions.first.send(GOVERNANCE.address, "retire", given)
    assert refused.refusal == "NotSuccessor"
    assert str(refused.arguments["given"]).lower() == "0x" + given.hex()
    versions.must_anchor(versions.first, 13)


class TestDeployment:
    def test_under_another_member_registry(self, versions: Versions) -> None:
        other = versions.world.evm.deploy("MemberRegistry", STRANGER.address, STRANGER.address)
        refused = versions.refused_deployment(other.address, versions.first.address)
        assert refused.refusal == "RegistriesDiffer"

    def test_after_a_version_that_was_retired(self, versions: Versions) -> None:
        second = versions.moved(versions.first)
        members = versions.world.registry.address
        refused = versions.refused_deployment(members, versions.first.address)
        assert refused.refusal == "Retired"
        assert str(refused.arguments["successor"]).lower() == "0x" + second.address.hex()

    def test_after_what_is_no_anchor_registry(self, versions: Versions) -> None:
        members = versions.world.registry.address
        for before in (address_of("nobody"), members):
            assert versions.refused_deployment(members, before).refusal == "Unnamed"


class TestContractsThatHoldTheOldAddress:
    def test_an_omission_claim_is_answered_by_a_leaf_of_the_successor(self) -> None:
        court = omitting.founded().fork()
        evm, anchors = court.evm, court.anchors
        claim = court.claimed(omitting.OPEN)
        members = court.world.registry.address
        second = evm.deploy("AnchorRegistry", STRANGER.address, members, anchors.address)
        anchors.must(GOVERNANCE.address, "retire", second.address)

        log = court.logs["meridian"]
        whole, old = len(log.leaves), log.seqs[1]
        leaves = [leaf_hash(leaf) for leaf in log.leaves]
        proof = consistency_proof(old, leaves)
        arguments = (2, whole, log.root(old), log.root(whole), proof, evm.block_hash(), bytes(32))
        path = inclusion_path(4, leaves)
        words = [log.leaves[4][at : at + 32] for at in range(0, 320, 32)]
        # Not before it is anchored.
        assert court.answer(claim, (words, 4, 2, path)).refusal == "NotAnchored"
        second.must(court.world.operator("meridian").address, "anchor", *arguments)
        answered = court.answer(claim, (words, 4, 2, path))
        assert answered.ok, answered
        assert answered.events[0].arguments["anchorSeq"] == 2
        assert claim == claim_id_of("meridian", omitting.OPEN, omitting.C)
        # And one of the old version's time by a leaf of that.
        older = court.claimed(omitting.THERE)
        assert court.answer(older).ok

    def test_a_dispute_still_cites_a_leaf_of_the_old_version(self) -> None:
        desk = settling.founded().fork()
        anchors, members = desk.anchors, desk.closing.world.registry.address
        second = desk.evm.deploy("AnchorRegistry", STRANGER.address, members, anchors.address)
        anchors.must(GOVERNANCE.address, "retire", second.address)
        assert desk.dispute(desk.confirmed()).ok
        assert second.view("anchors", member_word("meridian"), 1) == anchors.view(
            "anchors", member_word("meridian"), 1
        )


def test_every_error_of_the_contract_has_its_test() -> None:
    """The others are brought about here, by name."""
    here = {"NotGovernance", "NotSuccessor", "PredecessorNotRetired", "RegistriesDiffer", "Retired"}
    assert error_names("AnchorRegistry") == _OF_ANCHORS | here
