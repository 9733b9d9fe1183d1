"""GovernanceQuorum: what it does, by which name it refuses, and a model that has to agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from nodes.chain.governance import Action
from nodes.ids import member_word
from tests.contracts.council import DAY, GOVERNORS, Council, appoint, call, founded, rename
from tests.contracts.machine import Answer, error_names, evenly, machine_settings
from tests.contracts.world import (
    GOVERNANCE,
    STRANGER,
    address_of,
    mirrored,
    word,
)


@pytest.fixture
def council() -> Council:
    return founded().fork()


class TestQuorum:
    def test_two_of_three_govern_and_the_former_owner_no_longer_does(
        self, council: Council
    ) -> None:
        registry = council.world.registry
        data = rename("aurora", "Another name")
        assert registry.send(GOVERNANCE.address, "setName", member_word("aurora"), "x").refusal == (
            "NotGovernance"
        )
        answer = council.execute(council.action(data), GOVERNORS[:2])
        assert [event.name for event in answer.events] == ["MemberChanged", "Executed"]
        assert registry.view("member", member_word("aurora"))[3] == "Another name"

    def test_a_lost_operators_key_is_replaced(self, council: Council) -> None:
        fresh = address_of("aurora-fresh").rjust(32, b"\0")
        data = call("rotateKey(bytes32,uint8,bytes32)", member_word("aurora"), 0, fresh)
        assert council.execute(council.action(data), GOVERNORS[1:3]).ok
        operator = council.world.registry.view("operatorOf", member_word("aurora"))
        assert operator == "0x" + address_of("aurora-fresh").hex()

    def test_governors_change_themselves(self, council: Council) -> None:
        data = appoint(GOVERNORS[3:5], 1)
        action = council.action(data, council.quorum.address)
        answer = council.execute(action, GOVERNORS[:2])
        assert answer.events[0].name == "GovernorsSet"
        listed = council.quorum.view("governors")
        assert [bytes.fromhex(each[2:]) for each in listed] == [
            address_of(label) for label in GOVERNORS[3:5]
        ]
        assert council.quorum.view("threshold") == 1
        again = council.action(rename("aurora", "x"))
        assert council.execute(again, GOVERNORS[:2]).refusal == "NotGovernor"
        assert council.execute(again, GOVERNORS[4:]).ok

    def test_a_refused_action_uses_up_no_number(self, council: Council) -> None:
        before = council.quorum.view("nonce")
        refused = council.execute(council.action(rename("nobody", "x")), GOVERNORS[:2])
        assert refused.refusal == "UnknownMember"
        assert refused.arguments == {"memberId": member_word("nobody")}
        assert council.quorum.view("nonce") == before

    def test_python_and_contract_have_one_digest(self, council: Council) -> None:
        action = council.action(rename("aurora", "x"))
        target = bytes.fromhex(action.target[2:])
        arguments = (target, action.data, action.nonce, action.deadline)
        assert council.quorum.view("actionDigest", *arguments) == action.digest(
            chain_id=council.world.evm.chain_id, quorum="0x" + council.quorum.address.hex()
        )


def _governors(council: Council) -> Answer:
    one, two = (address_of(label) for label in GOVERNORS[:2])
    wrong: list[tuple[list[bytes], int]] = [
        ([], 0),
        ([], 1),
        ([one], 0),
        ([one], 2),
        ([two, one], 1),
        ([one, one], 1),
        ([bytes(20)], 1),
        ([bytes([n]) * 20 for n in range(1, 17)], 1),
    ]
    for governors, needed in wrong:
        made, (refusal, _) = council.world.evm.try_deploy(
            "GovernanceQuorum", STRANGER.address, governors, needed
        )
        assert (made, refusal) == (None, "InvalidGovernors")
    action = council.action(appoint(GOVERNORS[1::-1], 1), council.quorum.address)
    return council.execute(action, GOVERNORS[:2])


def _signed(change: Callable[[list[bytes]], list[bytes]]) -> Callable[[Council], Answer]:
    def run(council: Council) -> Answer:
        action = council.action(rename("aurora", "x"))
        made = change(council.sign(action, GOVERNORS[:2]))
        return council.execute(action, [], made)

    return run


def _by(labels: list[str], **changes: int) -> Callable[[Council], Answer]:
    return lambda c: c.execute(c.action(rename("aurora", "x"), **changes), labels)


def _elsewhere(council: Council) -> Answer:
    action = council.action(rename("aurora", "x"))
    return council.execute(action, [], council.sign(action, GOVERNORS[:2], chain_id=1))


def _replayed(council: Council) -> Answer:
    action = council.action(rename("aurora", "x"))
    assert council.execute(action, GOVERNORS[:2]).ok
    return council.execute(action, GOVERNORS[:2])


def _late(council: Council) -> Answer:
    action = council.action(rename("aurora", "x"))
    council.world.evm.pass_time(DAY + 1)
    return council.execute(action, GOVERNORS[:2])


REFUSALS: list[tuple[str, Callable[[Council], Answer]]] = [
    ("InvalidGovernors", _governors),
    ("NotSelf", lambda c: c.quorum.send(address_of(GOVERNORS[0]), "setGovernors", [], 0)),
    ("WrongNonce", _by(GOVERNORS[:2], nonce=0)),
    ("WrongNonce", _by(GOVERNORS[:2], nonce=2)),
    ("WrongNonce", _replayed),
    ("DeadlinePassed", _late),
    ("TooFewSignatures", _by(GOVERNORS[:1])),
    ("TooFewSignatures", _by([])),
    ("SignersNotAscending", _by(GOVERNORS[1::-1])),
    ("SignersNotAscending", _by([GOVERNORS[0], GOVERNORS[0]])),
    ("NotGovernor", _elsewhere),
    ("NotGovernor", _by(sorted((GOVERNORS[0], GOVERNORS[3]), key=address_of))),
    ("SignatureLength", _signed(lambda made: [made[0][:64], made[1]])),
    ("SignatureHighS", _signed(lambda made: [mirrored(made[0]), made[1]])),
    ("SignatureInvalid", _signed(lambda made: [bytes(65), made[1]])),
    ("NoContract", lambda c: c.execute(c.action(b"", address_of("stranger")), GOVERNORS[:2])),
    ("CallFailed", lambda c: c.execute(c.action(b"\1\2\3\4"), GOVERNORS[:2])),
]


@pytest.mark.parametrize(("name", "attempt"), REFUSALS)
def test_refusals_have_names(
    council: Council, name: str, attempt: Callable[[Council], Answer]
) -> None:
    assert attempt(council).refusal == name


def test_every_error_of_the_contract_is_seen_here() -> None:
    assert {name for name, _ in REFUSALS} == error_names("GovernanceQuorum")


@dataclass
class Model:
    """What the quorum has to do."""

    governors: list[str]
    needed: int
    nonce: int = 1
    names: dict[str, str] = field(default_factory=dict)

    def refuses(self, action: Action, labels: list[str], how: str, now: int, effect: str) -> str:
        if action.nonce != self.nonce:
            return "WrongNonce"
        if now > action.deadline:
            return "DeadlinePassed"
        if len(labels) < self.needed:
            return "TooFewSignatures"
        if how != "right":
            return {"short": "SignatureLength", "high": "SignatureHighS"}.get(how, "NotGovernor")
        last = bytes(20)
        for label in labels:
            if address_of(label) <= last:
                return "SignersNotAscending"
            if label not in self.governors:
                return "NotGovernor"
            last = address_of(label)
        return effect


class QuorumMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.council = founded().fork()
        self.model = Model(GOVERNORS[:3], 2)

    @rule(seconds=evenly([1, DAY, DAY + 1]))
    def time_passes(self, seconds: int) -> None:
        self.council.world.evm.pass_time(seconds)

    @rule(
        data=st.data(),
        what=evenly(["rename", "rename", "appoint", "nobody", "empty"]),
        nonce=evenly([0] * 6 + [-1, 1]),
        age=evenly([0] * 6 + [DAY + 1]),
        how=evenly(["right"] * 6 + ["short", "high", "other chain"]),
    )
    def execute(self, data: st.DataObject, what: str, nonce: int, age: int, how: str) -> None:
        right = self.model.governors[: self.model.needed]
        drawn = st.lists(evenly([*GOVERNORS, "stranger"]), max_size=4)
        all_ = self.model.governors
        patterns = [right, all_, all_[::-1], all_[:1] * 2, all_[: self.model.needed - 1]]
        labels = data.draw(st.one_of(evenly([right, *patterns]), drawn))
        fresh = data.draw(st.lists(evenly(GOVERNORS), max_size=4, unique=True))
        fresh.sort(key=address_of)
        needed = data.draw(st.integers(0, 3))
        target, content, effect = b"", rename("aurora", word(repr(fresh)).hex()[:20]), ""
        if what == "appoint":
            target, content = self.council.quorum.address, appoint(fresh, needed)
            effect = "" if 1 <= needed <= len(fresh) else "InvalidGovernors"
        elif what == "nobody":
            content, effect = rename("nobody", "x"), "UnknownMember"
        elif what == "empty":
            target, effect = address_of("stranger"), "NoContract"
        now = self.council.world.evm.now
        action = self.council.action(
            content, target, nonce=max(0, self.model.nonce + nonce), deadline=now + DAY - age
        )
        chain_id = 1 if how == "other chain" else 0
        made = self.council.sign(action, labels, chain_id=chain_id)
        if made and how in ("short", "high"):
            made[0] = made[0][:64] if how == "short" else mirrored(made[0])
        expected = self.model.refuses(action, labels, how, now, effect)
        answer = self.council.execute(action, labels, made)
        assert answer.refusal == expected, answer
        if answer.ok:
            self.model.nonce += 1
            if what == "appoint":
                self.model.governors, self.model.needed = fresh, needed
            if what == "rename":
                self.model.names["aurora"] = word(repr(fresh)).hex()[:20]

    @rule(label=evenly([*GOVERNORS, "stranger", "governance"]))
    def nobody_governs_alone(self, label: str) -> None:
        answer = self.council.quorum.send(address_of(label), "setGovernors", [], 1)
        assert answer.refusal == "NotSelf"
        registry = self.council.world.registry
        answer = registry.send(address_of(label), "setName", member_word("aurora"), "mine")
        assert answer.refusal == "NotGovernance"

    @invariant()
    def contract_and_model_agree(self) -> None:
        view = self.council.quorum.view
        assert view("nonce") == self.model.nonce
        assert view("threshold") == self.model.needed
        assert [bytes.fromhex(each[2:]) for each in view("governors")] == [
            address_of(label) for label in self.model.governors
        ]
        for label in GOVERNORS:
            assert view("isGovernor", address_of(label)) == (label in self.model.governors)
        if self.model.names:
            shown = self.council.world.registry.view("member", member_word("aurora"))[3]
            assert shown == self.model.names["aurora"]


def test_contract_and_model_agree_on_any_calls() -> None:
    run_state_machine_as_test(QuorumMachine, settings=machine_settings(10, 15))
