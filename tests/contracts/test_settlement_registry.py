"""SettlementRegistry, method by method: what it does and by which name it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date

import pytest

from nodes.ids import member_word
from tests.contracts.closing import KEY
from tests.contracts.machine import Answer, error_names
from tests.contracts.settling import (
    CONFIRMED,
    DISPUTE_S,
    DISPUTED,
    EVENT_LEAF,
    EXPIRED,
    FINAL,
    FUTURE_LEAF,
    JUDGES,
    MAX_WINDOW,
    OPEN_LEAF,
    OTHER_PAIR_LEAF,
    PROPOSED,
    RESOLVED,
    SIGN_S,
    SUPERSEDED,
    ZERO,
    Settling,
    founded,
)
from tests.contracts.world import GOVERNANCE, STRANGER, address_of, mirrored, word

UPHELD, ANNULLED = 1, 2
OTHER_DAY = replace(KEY, business_date=date(2026, 11, 23))


@pytest.fixture
def desk() -> Settling:
    return founded().fork()


class TestAgreement:
    def test_both_sign_and_after_the_time_for_disputes_it_is_final(self, desk: Settling) -> None:
        terms = desk.terms()
        settlement = desk.id(terms)
        assert desk.registry.view("settlementIdOf", tuple(terms.words())) == settlement
        answer = desk.propose(terms)
        assert [event.name for event in answer.events] == ["SettlementProposed"]
        assert answer.events[0].arguments["proposer"] == member_word("meridian")
        assert (desk.state(settlement), desk.registry.view("currentOf", KEY.close_id)) == (
            PROPOSED,
            ZERO,
        )
        answer = desk.confirm(settlement)
        assert [event.name for event in answer.events] == ["SettlementConfirmed"]
        assert desk.state(settlement) == CONFIRMED
        assert desk.registry.view("currentOf", KEY.close_id) == settlement
        assert desk.registry.view("pendingOf", KEY.close_id) == ZERO
        desk.evm.pass_time(DISPUTE_S + 1)
        assert desk.step("finalize", settlement).events[0].name == "SettlementFinal"
        assert desk.state(settlement) == FINAL

    def test_either_side_may_propose(self, desk: Settling) -> None:
        terms = desk.terms()
        assert desk.propose(terms, "aurora").ok
        assert desk.confirm(desk.id(terms), "meridian").ok

    def test_silence_is_no_confirmation(self, desk: Settling) -> None:
        settlement = desk.proposed()
        desk.evm.pass_time(SIGN_S + 1)
        assert desk.state(settlement) == EXPIRED
        assert desk.registry.view("pendingOf", KEY.close_id) == ZERO
        assert desk.step("expire", settlement).events[0].name == "SettlementExpired"
        assert desk.state(desk.confirmed()) == CONFIRMED

    def test_a_new_proposal_takes_the_place_of_one_that_waits(self, desk: Settling) -> None:
        first = desk.proposed()
        terms = desk.terms(statement_hash=word("another statement"))
        answer = desk.propose(terms, "aurora")
        assert [event.name for event in answer.events] == [
            "SettlementSuperseded",
            "SettlementProposed",
        ]
        assert desk.state(first) == SUPERSEDED
        assert desk.confirm(first).refusal == "WrongState"

    def test_a_new_proposal_marks_an_overdue_one_as_expired(self, desk: Settling) -> None:
        first = desk.proposed()
        desk.evm.pass_time(SIGN_S + 1)
        assert desk.propose(desk.terms()).events[0].name == "SettlementExpired"
        assert desk.state(first) == EXPIRED

    def test_what_was_settled_gives_way_when_both_have_signed_another(self, desk: Settling) -> None:
        first = desk.confirmed()
        desk.evm.pass_time(DISPUTE_S + 1)
        desk.step("finalize", first)
        second = desk.proposed(statement_hash=word("corrected"))
        assert desk.state(first) == FINAL
        answer = desk.confirm(second)
        assert [event.name for event in answer.events] == [
            "SettlementSuperseded",
            "SettlementConfirmed",
        ]
        assert desk.state(first) == SUPERSEDED
        assert desk.registry.view("currentOf", KEY.close_id) == second

    def test_a_corrected_close_is_settled_anew(self, desk: Settling) -> None:
        first = desk.confirmed()
        desk.closing.round(1)
        desk.evm.pass_time(DISPUTE_S + 1)
        assert desk.step("finalize", first).refusal == "CloseNotConfirmed"
        assert desk.state(desk.confirmed()) == CONFIRMED

    def test_an_operator_that_took_over_confirms(self, desk: Settling) -> None:
        settlement = desk.proposed()
        old = desk.sign("aurora", settlement)
        desk.world.rotate("aurora")
        assert desk.confirm(settlement, signature=old).refusal == "SignerNotParty"
        assert desk.confirm(settlement).ok

    def test_the_record_says_what_was_agreed(self, desk: Settling) -> None:
        settlement = desk.confirmed()
        terms = desk.terms()
        record = desk.registry.view("settlementOf", settlement)
        until = desk.evm.now + DISPUTE_S
        deadline = desk.evm.now + SIGN_S
        assert record[:7] == (CONFIRMED, 0, True, 0, 0, deadline, until)
        assert record[7:] == (KEY.close_id, terms.totals_hash, terms.statement_hash, ZERO)


class TestDispute:
    @pytest.mark.parametrize("by", ["meridian", "aurora"])
    @pytest.mark.parametrize("whose", ["meridian", "aurora"])
    def test_a_leaf_of_the_pair_opens_one(self, desk: Settling, by: str, whose: str) -> None:
        settlement = desk.confirmed()
        answer = desk.dispute(settlement, by, desk.evidence(whose))
        event = answer.events[0]
        assert event.name == "SettlementDisputed"
        assert event.arguments["by"] == member_word(by)
        assert event.arguments["leafMember"] == member_word(whose)
        assert event.arguments["txid"] == word("txid")
        assert desk.state(settlement) == DISPUTED

    def test_every_bit_of_the_leaf_counts(self, desk: Settling) -> None:
        settlement = desk.confirmed()
        words, index, seq, path = desk.evidence()
        for place in range(10):
            changed = list(words)
            changed[place] = bytes([changed[place][0] ^ 1]) + changed[place][1:]
            answer = desk.dispute(settlement, evidence=(changed, index, seq, path))
            assert answer.refusal in {"LeafMalformed", "LeafOfOthers", "WrongPair", "NotIncluded"}

    @pytest.mark.parametrize("verdict", [UPHELD, ANNULLED])
    def test_two_of_three_arbiters_resolve_it(self, desk: Settling, verdict: int) -> None:
        settlement = desk.disputed()
        answer = desk.resolve(settlement, verdict)
        assert answer.events[0].name == "SettlementResolved"
        assert answer.events[0].arguments["verdict"] == verdict
        assert desk.state(settlement) == RESOLVED
        assert desk.registry.view("settlementOf", settlement)[1] == verdict
        # Another one may follow, signed by both.
        assert desk.state(desk.confirmed()) == CONFIRMED
        assert desk.state(settlement) == SUPERSEDED

    def test_more_than_needed_may_sign(self, desk: Settling) -> None:
        assert desk.resolve(desk.disputed(), labels=JUDGES).ok

    def test_a_disputed_one_waits_for_the_arbiters_for_ever(self, desk: Settling) -> None:
        settlement = desk.disputed()
        desk.evm.pass_time(10 * DISPUTE_S)
        assert desk.step("finalize", settlement).refusal == "WrongState"
        assert desk.state(settlement) == DISPUTED

    def test_governance_names_other_arbiters(self, desk: Settling) -> None:
        settlement = desk.disputed()
        fresh = sorted(("judge-1", "judge-2"), key=address_of)
        addresses = [address_of(label) for label in fresh]
        answer = desk.registry.send(GOVERNANCE.address, "setArbiters", addresses, 1)
        assert answer.events[0].name == "ArbitersSet"
        listed, threshold = desk.registry.view("arbiters")
        assert [bytes.fromhex(each[2:]) for each in listed] == addresses
        assert threshold == 1
        assert desk.resolve(settlement).refusal == "NotArbiter"
        assert desk.resolve(settlement, labels=fresh[:1]).ok


def _built(desk: Settling, *arguments: object) -> Answer:
    made, (refusal, named) = desk.evm.try_deploy("SettlementRegistry", STRANGER.address, *arguments)
    assert made is None
    return Answer(refusal, named, (), ())


def _differing(desk: Settling) -> Answer:
    other = desk.evm.deploy("MemberRegistry", STRANGER.address, STRANGER.address)
    anchors = desk.evm.deploy("AnchorRegistry", STRANGER.address, other.address, bytes(20))
    return _built(desk, desk.closing.closes.address, anchors.address, 1, [], 0)


def _window(desk: Settling) -> Answer:
    addresses = (desk.closing.closes.address, desk.anchors.address)
    assert _built(desk, *addresses, 0, [], 0).refusal == "InvalidWindow"
    return _built(desk, *addresses, MAX_WINDOW + 1, [], 0)


def _arbiters(desk: Settling) -> Answer:
    one, two = sorted((address_of("judge-1"), address_of("judge-2")))
    wrong: list[tuple[list[bytes], int]] = [
        ([], 0),
        ([], 1),
        ([one], 0),
        ([one], 2),
        ([two, one], 1),
        ([one, one], 1),
        ([bytes(20), one], 1),
        ([bytes([n]) * 20 for n in range(1, 17)], 1),
    ]
    for judges, threshold in wrong:
        answer = desk.registry.send(GOVERNANCE.address, "setArbiters", judges, threshold)
        assert answer.refusal == "InvalidArbiters", (judges, threshold)
    return _built(desk, desk.closing.closes.address, desk.anchors.address, 1, [one], 2)


def _no_arbiters(desk: Settling) -> Answer:
    addresses = (desk.closing.closes.address, desk.anchors.address, DISPUTE_S, [], 0)
    desk.registry = desk.evm.deploy("SettlementRegistry", STRANGER.address, *addresses)
    return desk.resolve(desk.disputed())


def _foreign(desk: Settling) -> Answer:
    """Signed for another chain, or for another contract of the same sort."""
    terms = desk.terms()
    other_chain = desk.sign("meridian", desk.id(terms, chain_id=1))
    assert desk.propose(terms, signature=other_chain).refusal == "SignerNotParty"
    arguments = (desk.closing.closes.address, desk.anchors.address, DISPUTE_S, [], 0)
    twin = replace(desk, registry=desk.evm.deploy("SettlementRegistry", bytes(20), *arguments))
    return desk.propose(terms, signature=twin.sign("meridian", twin.id(terms)))


def _changed(**changes: object) -> Callable[[Settling], Answer]:
    """The signature is for the terms without the changes."""

    def run(desk: Settling) -> Answer:
        terms = desk.terms()
        return desk.propose(
            replace(terms, **changes),  # type: ignore[arg-type]
            signature=desk.sign("meridian", desk.id(terms)),
        )

    return run


def _replayed(desk: Settling) -> Answer:
    terms = desk.terms()
    assert desk.propose(terms).ok
    return desk.propose(terms)


def _revoked_signer(desk: Settling) -> Answer:
    terms = desk.terms()
    settlement = desk.proposed()
    desk.world.revoke("aurora")
    assert desk.propose(replace(terms, nonce=1), "aurora").refusal == "MemberRevoked"
    return desk.confirm(settlement)


def _revoked_proposer(desk: Settling) -> Answer:
    settlement = desk.proposed()
    desk.world.revoke("meridian")
    return desk.confirm(settlement)


def _revoked_disputer(desk: Settling) -> Answer:
    settlement = desk.confirmed()
    desk.world.revoke("aurora")
    return desk.dispute(settlement)


def _superseded_close(desk: Settling) -> Answer:
    settlement = desk.proposed()
    desk.closing.round(1)
    return desk.confirm(settlement)


def _at(seconds: int, step: Callable[[Settling, bytes], Answer]) -> Callable[[Settling], Answer]:
    """A step so long after the confirmation."""

    def run(desk: Settling) -> Answer:
        settlement = desk.confirmed()
        desk.evm.pass_time(seconds)
        return step(desk, settlement)

    return run


def _proposal_at(
    seconds: int, step: Callable[[Settling, bytes], Answer]
) -> Callable[[Settling], Answer]:
    def run(desk: Settling) -> Answer:
        settlement = desk.proposed()
        desk.evm.pass_time(seconds)
        return step(desk, settlement)

    return run


def _evidence(**which: object) -> Callable[[Settling], Answer]:
    return _at(0, lambda desk, s: desk.dispute(s, evidence=desk.evidence(**which)))  # type: ignore[arg-type]


def _ruled(labels: list[str], **how: object) -> Callable[[Settling], Answer]:
    return lambda desk: desk.resolve(desk.disputed(), labels=labels, **how)  # type: ignore[arg-type]


def _ruling_of(
    change: Callable[[Settling, bytes], list[bytes]],
) -> Callable[[Settling], Answer]:
    def run(desk: Settling) -> Answer:
        settlement = desk.disputed()
        deadline = desk.evm.now + 10
        return desk.resolve(settlement, deadline=deadline, signatures=change(desk, settlement))

    return run


def _elsewhere(desk: Settling, settlement: bytes) -> list[bytes]:
    return desk.rulings(settlement, UPHELD, JUDGES[:2], desk.evm.now + 10, chain_id=1)


def _shortened(desk: Settling, settlement: bytes) -> list[bytes]:
    return [made[:64] for made in desk.rulings(settlement, UPHELD, JUDGES[:2], desk.evm.now + 10)]


def _mirrored_proposal(desk: Settling) -> Answer:
    terms = desk.terms()
    return desk.propose(terms, signature=mirrored(desk.sign("meridian", desk.id(terms))))


def _countersigned(change: Callable[[bytes], bytes]) -> Callable[[Settling], Answer]:
    def run(desk: Settling) -> Answer:
        settlement = desk.proposed()
        return desk.confirm(settlement, signature=change(desk.sign("aurora", settlement)))

    return run


NEXT = word("no such settlement")
REFUSALS: list[tuple[str, Callable[[Settling], Answer]]] = [
    ("ZeroRegistry", lambda d: _built(d, bytes(20), d.anchors.address, 1, [], 0)),
    ("ZeroRegistry", lambda d: _built(d, d.closing.closes.address, bytes(20), 1, [], 0)),
    ("RegistriesDiffer", _differing),
    ("InvalidWindow", _window),
    ("InvalidArbiters", _arbiters),
    ("NotGovernance", lambda d: d.registry.send(STRANGER.address, "setArbiters", [], 0)),
    ("SignatureLength", lambda d: d.propose(d.terms(), signature=bytes(64))),
    ("SignatureLength", lambda d: d.confirm(d.proposed(), signature=b"")),
    ("SignatureHighS", _mirrored_proposal),
    ("SignatureHighS", _countersigned(mirrored)),
    ("SignatureInvalid", lambda d: d.propose(d.terms(), signature=bytes(65))),
    ("SignatureInvalid", _countersigned(lambda made: made[:64] + b"\0")),
    ("SignerNotParty", _foreign),
    ("SignerNotParty", lambda d: d.propose(d.terms(), "borealis")),
    ("SignerNotParty", lambda d: d.confirm(s := d.proposed(), signature=STRANGER.sign(s))),
    ("SignerNotParty", lambda d: d.confirm(d.proposed(), "harbor")),
    ("SignerNotParty", _changed(statement_hash=word("other"))),
    ("SignerNotParty", _changed(deadline=1_790_009_999)),
    ("SignerNotParty", _changed(nonce=1)),
    ("SignerNotParty", _changed(close_revision=1)),
    ("AlreadySigned", lambda d: d.confirm(d.proposed(), "meridian")),
    ("MemberRevoked", _revoked_signer),
    ("MemberRevoked", _revoked_proposer),
    ("MemberRevoked", _revoked_disputer),
    ("WrongNonce", lambda d: d.propose(d.terms(nonce=1))),
    ("WrongNonce", _replayed),
    ("DeadlinePassed", lambda d: d.propose(d.terms(deadline=d.evm.now - 1))),
    ("DeadlinePassed", _proposal_at(SIGN_S + 1, lambda d, s: d.confirm(s))),
    ("DeadlinePassed", lambda d: d.resolve(d.disputed(), deadline=d.evm.now - 1)),
    ("DeadlineTooFar", lambda d: d.propose(d.terms(deadline=d.evm.now + MAX_WINDOW + 1))),
    ("ZeroStatement", lambda d: d.propose(d.terms(statement_hash=ZERO))),
    ("CloseNotConfirmed", lambda d: d.propose(d.terms(OTHER_DAY))),
    ("CloseNotConfirmed", lambda d: d.propose(d.terms(close_revision=1))),
    ("CloseNotConfirmed", _superseded_close),
    ("TotalsMismatch", lambda d: d.propose(d.terms(totals_hash=word("more")))),
    ("WrongPredecessor", lambda d: d.propose(d.terms(supersedes=NEXT))),
    ("WrongPredecessor", lambda d: (d.confirmed(), d.propose(d.terms(supersedes=ZERO)))[1]),
    ("UnknownSettlement", lambda d: d.confirm(NEXT)),
    ("UnknownSettlement", lambda d: d.dispute(NEXT)),
    ("UnknownSettlement", lambda d: d.resolve(NEXT)),
    ("UnknownSettlement", lambda d: d.step("finalize", NEXT)),
    ("UnknownSettlement", lambda d: d.step("expire", NEXT)),
    ("WrongState", lambda d: d.confirm(d.confirmed())),
    ("WrongState", lambda d: d.dispute(d.proposed())),
    ("WrongState", lambda d: d.dispute(d.disputed())),
    ("WrongState", lambda d: d.resolve(d.confirmed())),
    ("WrongState", lambda d: d.step("finalize", d.proposed())),
    ("WrongState", lambda d: d.step("expire", d.confirmed())),
    ("NotOperator", lambda d: d.dispute(d.confirmed(), sender=STRANGER.address)),
    ("NotOperator", lambda d: d.dispute(d.confirmed(), sender=GOVERNANCE.address)),
    ("NotParty", lambda d: d.dispute(d.confirmed(), "borealis")),
    ("DisputeTooLate", _at(DISPUTE_S + 1, lambda d, s: d.dispute(s))),
    ("StillDisputable", _at(DISPUTE_S, lambda d, s: d.step("finalize", s))),
    ("NotOverdue", _proposal_at(SIGN_S, lambda d, s: d.step("expire", s))),
    ("LeafMalformed", _evidence(index=EVENT_LEAF)),
    ("LeafMalformed", _evidence(index=FUTURE_LEAF)),
    ("LeafOfOthers", _evidence(member="harbor")),
    ("WrongPair", _evidence(index=OTHER_PAIR_LEAF)),
    ("NotAnchored", _evidence(seq=2)),
    ("NotAnchored", _evidence(seq=0)),
    ("NotIncluded", _evidence(index=OPEN_LEAF)),
    ("InvalidVerdict", lambda d: d.resolve(d.disputed(), said=0)),
    ("InvalidVerdict", lambda d: d.resolve(d.disputed(), said=3)),
    ("NoArbiters", _no_arbiters),
    ("TooFewSignatures", _ruled(JUDGES[:1])),
    ("TooFewSignatures", _ruled([])),
    ("NotArbiter", _ruled(JUDGES[:2], said=ANNULLED)),
    ("NotArbiter", _ruling_of(_elsewhere)),
    ("NotArbiter", _ruled(sorted((JUDGES[0], "stranger"), key=address_of))),
    ("SignersNotAscending", _ruled(JUDGES[1::-1])),
    ("SignersNotAscending", _ruled([JUDGES[0], JUDGES[0]])),
    ("ArbiterIsParty", _ruled(sorted((JUDGES[0], "meridian-operator-0"), key=address_of))),
    ("SignatureLength", _ruling_of(_shortened)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "attempt"), REFUSALS)
def test_refusals_have_names(
    desk: Settling, name: str, attempt: Callable[[Settling], Answer]
) -> None:
    assert attempt(desk).refusal == name


def test_every_error_of_the_contract_is_seen_here() -> None:
    assert {name for name, _ in REFUSALS} == error_names("SettlementRegistry")


def test_a_member_that_no_longer_is_one_still_may_not_judge_its_own_cause(desk: Settling) -> None:
    settlement = desk.disputed()
    desk.world.rotate("meridian")
    labels = sorted((JUDGES[0], "meridian-operator-0"), key=address_of)
    assert desk.resolve(settlement, labels=labels).refusal == "ArbiterIsParty"
