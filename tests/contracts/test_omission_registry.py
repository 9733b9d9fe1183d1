"""OmissionRegistry, method by method: what it does and by which name it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nodes.chain.challenges import claim_id_of, promise_signer
from nodes.ids import member_word
from tests.contracts.machine import Answer, error_names
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
    Omitting,
    founded,
)
from tests.contracts.world import GOVERNANCE, STRANGER, Key, leaf_of, mirrored, word


@pytest.fixture
def court() -> Omitting:
    return founded().fork()


class TestClaim:
    def test_an_omission_stands_when_nobody_answers(self, court: Omitting) -> None:
        answer = court.claim(ABSENT)
        event = answer.events[0]
        assert event.name == "OmissionClaimed"
        claim = claim_id_of("meridian", ABSENT, C)
        assert event.arguments["claimId"] == claim
        assert event.arguments["answerDeadline"] == court.evm.now + ANSWER_S
        assert court.state(claim) == CLAIMED
        court.evm.pass_time(ANSWER_S + 1)
        proven = court.conclude(claim).events[0]
        assert proven.name == "OmissionProven"
        assert proven.arguments == {
            "claimId": claim,
            "member": member_word("meridian"),
            "txid": ABSENT,
            "commitment": C,
        }
        assert court.state(claim) == PROVEN

    def test_the_leaf_clears_the_member(self, court: Omitting) -> None:
        claim = court.claimed()
        court.evm.pass_time(ANSWER_S)
        event = court.answer(claim).events[0]
        assert event.name == "OmissionAnswered"
        assert (event.arguments["anchorSeq"], event.arguments["index"]) == (1, 0)
        assert court.state(claim) == ANSWERED
        court.evm.pass_time(ANSWER_S)
        assert court.conclude(claim).refusal == "WrongState"

    def test_a_leaf_under_another_commitment_is_no_answer(self, court: Omitting) -> None:
        claim = court.claimed(commitment=OTHER_C)
        assert court.answer(claim).refusal == "WrongCommitment"
        court.evm.pass_time(ANSWER_S + 1)
        assert court.conclude(claim).ok

    def test_a_leaf_of_the_other_party_is_no_answer(self, court: Omitting) -> None:
        assert court.answer(court.claimed(), court.evidence("aurora")).refusal == "LeafOfOthers"

    def test_a_retired_key_is_held_to_what_it_promised_while_in_use(self, court: Omitting) -> None:
        court.rotate("meridian", "meridian-promise-1")
        court.evm.pass_time(MERGE_S + 1)
        # Given in the last moment, with the longest delay.
        assert court.claim(ABSENT, ago=1).ok
        late = court.claim(ABSENT, OTHER_C, ago=0)
        assert late.refusal == "PromiseNotDue"
        court.evm.pass_time(2)
        assert court.claim(ABSENT, OTHER_C, ago=1).refusal == "KeyNotValid"

    def test_python_and_contract_have_one_digest(self, court: Omitting) -> None:
        digest = court.digest("meridian", THERE, C, 1_790_000_123)
        view = court.registry.view
        assert view("promiseDigest", member_word("meridian"), THERE, C, 1_790_000_123) == digest
        assert view("claimIdOf", member_word("meridian"), THERE, C) == claim_id_of(
            "meridian", THERE, C
        )
        key = Key("meridian-promise-0")
        made = key.sign(digest)
        assert promise_signer(digest, made) is not None
        assert bytes.fromhex(str(promise_signer(digest, made))[2:]) == key.address
        for wrong in (made[:64], mirrored(made), bytes(65), b""):
            assert promise_signer(digest, wrong) is None


def _built(court: Omitting, *arguments: object) -> Answer:
    made, (refusal, named) = court.evm.try_deploy("OmissionRegistry", STRANGER.address, *arguments)
    assert made is None
    return Answer(refusal, named, (), ())


def _windows(court: Omitting) -> Answer:
    day = 86_400
    for windows in ((0, 1, 1), (1, 0, 1), (1, 1, 0), (31 * day, 1, 1), (1, 1, 31 * day)):
        assert _built(court, court.anchors.address, *windows).refusal == "InvalidWindow"
    return _built(court, court.anchors.address, 1, 3_651 * day, 1)


def _signed(change: Callable[[bytes], bytes]) -> Callable[[Omitting], Answer]:
    def run(court: Omitting) -> Answer:
        digest = court.digest("meridian", ABSENT, C, court.evm.now - 1)
        return court.claim(ABSENT, signature=change(Key("meridian-promise-0").sign(digest)))

    return run


def _elsewhere(court: Omitting) -> Answer:
    digest = court.digest("meridian", ABSENT, C, court.evm.now - 1, chain_id=1)
    return court.claim(ABSENT, signature=Key("meridian-promise-0").sign(digest))


def _of_another_transaction(court: Omitting) -> Answer:
    digest = court.digest("meridian", THERE, C, court.evm.now - 1)
    return court.claim(ABSENT, signature=Key("meridian-promise-0").sign(digest))


def _before_the_key(court: Omitting) -> Answer:
    court.rotate("meridian", "meridian-promise-1")
    return court.claim(ABSENT, label="meridian-promise-1")


def _twice(court: Omitting) -> Answer:
    court.claimed()
    return court.claim(ago=2)


def _twice_answered(court: Omitting) -> Answer:
    claim = court.claimed()
    assert court.answer(claim).ok
    return court.answer(claim)


def _late(court: Omitting) -> Answer:
    claim = court.claimed()
    court.evm.pass_time(ANSWER_S + 1)
    return court.answer(claim)


def _pending(court: Omitting) -> Answer:
    claim = court.claimed()
    court.evm.pass_time(ANSWER_S)
    return court.conclude(claim)


def _with(**which: Any) -> Callable[[Omitting], Answer]:
    return lambda court: court.answer(court.claimed(), court.evidence(**which))


def _leaf(**fields: Any) -> Callable[[Omitting], Answer]:
    """Evidence with a leaf that never was anchored."""

    def run(court: Omitting) -> Answer:
        leaf = leaf_of("meridian", THERE, C, **fields)
        _, index, seq, path = court.evidence()
        words = [leaf[at : at + 32] for at in range(0, 320, 32)]
        return court.answer(court.claimed(), (words, index, seq, path))

    return run


REFUSALS: list[tuple[str, Callable[[Omitting], Answer]]] = [
    ("ZeroRegistry", lambda c: _built(c, bytes(20), 1, 1, 1)),
    ("InvalidWindow", _windows),
    ("PromiseNotDue", lambda c: c.claim(ago=0)),
    ("PromiseNotDue", lambda c: c.claim(ago=-100)),
    ("PromiseTooOld", lambda c: c.claim(ago=CLAIM_S + 1)),
    ("SignatureLength", _signed(lambda made: made[:64])),
    ("SignatureLength", _signed(lambda made: made + b"\0")),
    ("SignatureHighS", _signed(mirrored)),
    ("SignatureInvalid", _signed(lambda made: made[:64] + b"\x1d")),
    ("NotPromiseKey", _elsewhere),
    ("NotPromiseKey", _of_another_transaction),
    ("NotPromiseKey", lambda c: c.claim(label="stranger")),
    ("NotPromiseKey", lambda c: c.claim(label="meridian-operator-0")),
    ("NotPromiseKey", lambda c: c.claim(label="aurora-promise-0")),
    ("NotPromiseKey", lambda c: c.claim(member="harbor", label=GOVERNANCE.label)),
    ("KeyNotValid", _before_the_key),
    ("KeyNotValid", lambda c: c.claim(ago=CLAIM_S // 2 + 1)),
    ("ClaimExists", _twice),
    ("UnknownClaim", lambda c: c.answer(word("none"))),
    ("UnknownClaim", lambda c: c.conclude(word("none"))),
    ("WrongState", _twice_answered),
    ("AnswerTooLate", _late),
    ("AnswerPending", _pending),
    ("LeafMalformed", _with(index=2)),
    ("LeafMalformed", _leaf(version=2)),
    ("LeafMalformed", _leaf(kind=0)),
    ("LeafOfOthers", _with(member="aurora")),
    ("WrongTransaction", _with(index=1)),
    ("WrongTransaction", _with(index=4)),
    ("WrongCommitment", lambda c: c.answer(c.claimed(commitment=OTHER_C))),
    ("NotAnchored", _with(seq=2)),
    ("NotAnchored", _with(seq=0)),
    ("NotIncluded", _leaf(issuer="borealis")),
    ("NotIncluded", lambda c: c.answer(c.claimed(OPEN), c.evidence(index=4))),
]


@pytest.mark.parametrize(("name", "attempt"), REFUSALS)
def test_refusals_have_names(
    court: Omitting, name: str, attempt: Callable[[Omitting], Answer]
) -> None:
    assert attempt(court).refusal == name


def test_every_error_of_the_contract_is_seen_here() -> None:
    assert {name for name, _ in REFUSALS} == error_names("OmissionRegistry")
