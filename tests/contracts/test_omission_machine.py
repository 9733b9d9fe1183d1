"""OmissionRegistry against a model in plain Python: anybody claims, answers and concludes."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from nodes.chain.challenges import claim_id_of
from tests.contracts.machine import START, Answer, evenly, machine_settings
from tests.contracts.omitting import (
    ABSENT,
    ANSWER_S,
    ANSWERED,
    CLAIM_S,
    CLAIMED,
    MERGE_S,
    OPEN,
    OTHER_C,
    PROVEN,
    THERE,
    C,
    founded,
)
from tests.contracts.world import Key, mirrored, word

MEMBERS = ["meridian", "meridian", "meridian", "aurora", "harbor"]
TXIDS = [THERE, THERE, OPEN, ABSENT]
LEAF_TXIDS = [THERE, word("txid 1"), word("txid 2"), word("txid 3"), OPEN]


@dataclass
class Claim:
    member: str
    txid: bytes
    commitment: bytes
    merge_deadline: int
    answer_deadline: int
    state: int = CLAIMED


@dataclass
class KeyUse:
    member: str
    since: int
    until: int | None = None


@dataclass
class Model:
    """What OmissionRegistry has to do."""

    keys: dict[str, KeyUse]
    claims: dict[bytes, Claim] = field(default_factory=dict)

    def refuses_claim(self, claim: Claim, label: str, how: str, now: int) -> str:
        deadline = claim.merge_deadline
        if now <= deadline:
            return "PromiseNotDue"
        if now - deadline > CLAIM_S:
            return "PromiseTooOld"
        if how in ("short", "high", "broken"):
            return {
                "short": "SignatureLength",
                "high": "SignatureHighS",
                "broken": "SignatureInvalid",
            }[how]
        use = self.keys.get(label)
        if how != "right" or use is None or use.member != claim.member:
            return "NotPromiseKey"
        if deadline < use.since or (use.until is not None and deadline > use.until + MERGE_S):
            return "KeyNotValid"
        known = claim_id_of(claim.member, claim.txid, claim.commitment) in self.claims
        return "ClaimExists" if known else ""

    def refuses_answer(self, claim_id: bytes, whose: str, leaf: int, seq: int, now: int) -> str:
        claim = self.claims.get(claim_id)
        if claim is None:
            return "UnknownClaim"
        if claim.state != CLAIMED:
            return "WrongState"
        if now > claim.answer_deadline:
            return "AnswerTooLate"
        if leaf in (2, 3):
            return "LeafMalformed"
        if whose != claim.member:
            return "LeafOfOthers"
        if LEAF_TXIDS[leaf] != claim.txid:
            return "WrongTransaction"
        if claim.commitment != C:
            return "WrongCommitment"
        if seq != 1:
            return "NotAnchored"
        return "NotIncluded" if leaf >= 4 else ""

    def refuses_conclusion(self, claim_id: bytes, now: int) -> str:
        claim = self.claims.get(claim_id)
        if claim is None:
            return "UnknownClaim"
        if claim.state != CLAIMED:
            return "WrongState"
        return "" if now > claim.answer_deadline else "AnswerPending"


class OmissionMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.court = founded().fork()
        self.evm = self.court.evm
        self.model = Model(
            {f"{name}-promise-0": KeyUse(name, START) for name in ("meridian", "aurora")}
        )

    @rule(seconds=evenly([1, MERGE_S, ANSWER_S, ANSWER_S + 1, CLAIM_S]))
    def time_passes(self, seconds: int) -> None:
        self.evm.pass_time(seconds)

    @rule(member=evenly(["meridian", "aurora"]))
    def promise_key_is_replaced(self, member: str) -> None:
        number = sum(use.member == member for use in self.model.keys.values())
        self.court.rotate(member, f"{member}-promise-{number}")
        self.model.keys[f"{member}-promise-{number - 1}"].until = self.evm.now
        self.model.keys[f"{member}-promise-{number}"] = KeyUse(member, self.evm.now)

    @rule(
        data=st.data(),
        member=evenly(MEMBERS),
        txid=evenly(TXIDS),
        commitment=evenly([C, C, C, OTHER_C]),
        ago=evenly([1] * 6 + [0, -5, CLAIM_S, CLAIM_S + 1, CLAIM_S // 2 + 1, MERGE_S]),
        how=evenly(["right"] * 8 + ["short", "high", "broken", "other chain", "other C"]),
    )
    def claim(
        self,
        data: st.DataObject,
        member: str,
        txid: bytes,
        commitment: bytes,
        ago: int,
        how: str,
    ) -> None:
        own = [label for label, use in self.model.keys.items() if use.member == member]
        others = [*self.model.keys, "stranger", "meridian-operator-0"]
        label = data.draw(evenly([*(own * 8 or others), *others]))
        self._claim(member, txid, commitment, ago, label, how)

    def _claim(
        self, member: str, txid: bytes, commitment: bytes, ago: int, label: str, how: str
    ) -> None:
        now = self.evm.now
        claim = Claim(member, txid, commitment, now - ago, now + ANSWER_S)
        digest = self.court.digest(
            member,
            txid,
            word("something else") if how == "other C" else commitment,
            now - ago,
            chain_id=1 if how == "other chain" else 0,
        )
        made = Key(label).sign(digest)
        made = {"short": made[:64], "high": mirrored(made), "broken": bytes(65)}.get(how, made)
        expected = self.model.refuses_claim(claim, label, how, now)
        answer = self.court.claim(txid, commitment, member, ago=ago, signature=made)
        self._judge(answer, expected)
        if answer.ok:
            self.model.claims[claim_id_of(member, txid, commitment)] = claim

    @precondition(lambda self: self.model.claims)
    @rule(
        data=st.data(),
        whose=evenly(["meridian", "meridian", "aurora"]),
        leaf=evenly([0, 0, 0, 0, 1, 2, 3, 4, 4]),
        seq=evenly([1] * 6 + [0, 2]),
    )
    def answer(self, data: st.DataObject, whose: str, leaf: int, seq: int) -> None:
        self._answer(self._draw_claim(data), whose, leaf, seq)

    def _answer(self, claim_id: bytes, whose: str, leaf: int, seq: int) -> None:
        expected = self.model.refuses_answer(claim_id, whose, leaf, seq, self.evm.now)
        answer = self.court.answer(claim_id, self.court.evidence(whose, leaf, seq))
        self._judge(answer, expected)
        if answer.ok:
            self.model.claims[claim_id].state = ANSWERED

    @rule(
        ago=evenly([1, MERGE_S]),
        commitment=evenly([C, C, OTHER_C]),
        then=evenly(["answer", "late answer", "nothing", "leaf without anchor"]),
    )
    def a_whole_challenge(self, ago: int, commitment: bytes, then: str) -> None:
        """A promise as it should be, and an answer or none."""
        txid = OPEN if then == "leaf without anchor" else THERE
        uses = self.model.keys.items()
        label = next(k for k, use in uses if use.member == "meridian" and use.until is None)
        self._claim("meridian", txid, commitment, ago, label, "right")
        # By each key that the member ever had.
        for each, use in list(uses):
            if use.member == "meridian":
                self._claim("meridian", ABSENT, commitment, ago, each, "right")
        claim_id = claim_id_of("meridian", txid, commitment)
        if claim_id not in self.model.claims:
            return
        self._claim("meridian", txid, commitment, ago, label, "right")
        self._claim("aurora", txid, commitment, ago, label, "right")
        for whose, leaf, seq in (("aurora", 0, 1), ("meridian", 1, 1), ("meridian", 2, 1)):
            self._answer(claim_id, whose, leaf, seq)
        self._answer(claim_id, "meridian", 0 if txid == THERE else 4, 2)
        if then == "late answer":
            self.evm.pass_time(ANSWER_S + 1)
        if then != "nothing":
            self._answer(claim_id, "meridian", 4 if txid == OPEN else 0, 1)
            self._answer(claim_id, "meridian", 0, 1)
        self._conclude(claim_id)
        self.evm.pass_time(ANSWER_S + 1)
        self._conclude(claim_id)

    @precondition(lambda self: self.model.claims)
    @rule(data=st.data())
    def conclude(self, data: st.DataObject) -> None:
        self._conclude(self._draw_claim(data))

    def _conclude(self, claim_id: bytes) -> None:
        expected = self.model.refuses_conclusion(claim_id, self.evm.now)
        answer = self.court.conclude(claim_id)
        self._judge(answer, expected)
        if answer.ok:
            self.model.claims[claim_id].state = PROVEN

    def _draw_claim(self, data: st.DataObject) -> bytes:
        known = list(self.model.claims)
        return data.draw(evenly([*known[-3:] * 6, *known, word("none")]))

    def _judge(self, answer: Answer, expected: str) -> None:
        assert answer.refusal == expected, answer

    @invariant()
    def nothing_anchored_is_ever_proven_omitted_if_it_was_answered(self) -> None:
        for claim in self.model.claims.values():
            if claim.state == ANSWERED:
                assert (claim.txid, claim.commitment) == (THERE, C)

    def teardown(self) -> None:
        for claim_id, claim in self.model.claims.items():
            row = self.court.registry.view("claimOf", claim_id)
            assert row[:3] == (claim.state, claim.merge_deadline, claim.answer_deadline)
            assert row[4:6] == (claim.txid, claim.commitment)


def test_contract_and_model_agree_on_any_calls() -> None:
    run_state_machine_as_test(OmissionMachine, settings=machine_settings(15, 18))
