"""SettlementRegistry against a model in plain Python: anybody signs and sends anything.

Every call is drawn from right and wrong signers, terms, evidence, rulings and times; the model says
by which name the contract must refuse it, or what state must follow.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from nodes.chain.closes import CloseKey
from nodes.chain.settlements import SettlementTerms
from tests.contracts.closing import KEY, TOTALS
from tests.contracts.machine import Answer, evenly, machine_settings
from tests.contracts.settling import (
    ARBITERS,
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
    PAIR_LEAF,
    PROPOSED,
    RESOLVED,
    SIGN_S,
    SUPERSEDED,
    THRESHOLD,
    ZERO,
    founded,
)
from tests.contracts.world import Key, World, address_of, mirrored, word

KEYS = [KEY, replace(KEY, business_date=date(2026, 11, 23))]
SIGNATURES = ["right"] * 8 + ["short", "high", "broken", "other chain", "other terms"]
# How a right proposal is made wrong, with the rest of it as it should be.
CHANGES: list[dict[str, Any]] = [
    {"nonce": 99},
    {"nonce": 0},
    {"deadline": "past"},
    {"deadline": "far"},
    {"statement_hash": ZERO},
    {"close_revision": 7},
    {"totals_hash": word("false totals")},
    {"supersedes": word("another")},
    {"supersedes": ZERO},
]
WRONG_LEAVES = [OTHER_PAIR_LEAF, EVENT_LEAF, FUTURE_LEAF, OPEN_LEAF]


@dataclass
class Entry:
    terms: SettlementTerms
    proposer: str
    state: int = PROPOSED
    until: int = 0
    verdict: int = 0


@dataclass
class Model:
    """What SettlementRegistry has to do."""

    world: World
    confirmed: dict[CloseKey, int] = field(default_factory=dict)
    entries: dict[bytes, Entry] = field(default_factory=dict)
    current: dict[CloseKey, bytes] = field(default_factory=dict)
    pending: dict[CloseKey, bytes] = field(default_factory=dict)
    nonce: int = 0

    def refuses_signature(self, label: str, how: str, key: CloseKey) -> str:
        if how in ("short", "high", "broken"):
            return {
                "short": "SignatureLength",
                "high": "SignatureHighS",
                "broken": "SignatureInvalid",
            }[how]
        if how != "right":
            return "SignerNotParty"
        member, problem = self.world.acting(label)
        if member not in (key.acquirer, key.issuer):
            return "SignerNotParty"
        return problem

    def refuses_proposal(self, label: str, how: str, terms: SettlementTerms, now: int) -> str:
        problem = self.refuses_signature(label, how, terms.close)
        if problem:
            return problem
        if terms.nonce != self.nonce:
            return "WrongNonce"
        if terms.deadline < now:
            return "DeadlinePassed"
        if terms.deadline > now + MAX_WINDOW:
            return "DeadlineTooFar"
        if terms.statement_hash == ZERO:
            return "ZeroStatement"
        if self.confirmed.get(terms.close) != terms.close_revision:
            return "CloseNotConfirmed"
        if terms.totals_hash != TOTALS:
            return "TotalsMismatch"
        wrong = terms.supersedes != self.current.get(terms.close, ZERO)
        return "WrongPredecessor" if wrong else ""

    def propose(self, settlement: bytes, label: str, terms: SettlementTerms, now: int) -> None:
        waiting = self.pending.get(terms.close)
        if waiting:
            late = now > self.entries[waiting].terms.deadline
            self.entries[waiting].state = EXPIRED if late else SUPERSEDED
        self.nonce += 1
        self.pending[terms.close] = settlement
        self.entries[settlement] = Entry(terms, self.world.acting(label)[0])

    def refuses_confirmation(self, settlement: bytes, label: str, how: str, now: int) -> str:
        entry = self.entries.get(settlement)
        if entry is None:
            return "UnknownSettlement"
        if entry.state != PROPOSED:
            return "WrongState"
        if now > entry.terms.deadline:
            return "DeadlinePassed"
        problem = self.refuses_signature(label, how, entry.terms.close)
        if problem:
            return problem
        if self.world.acting(label)[0] == entry.proposer:
            return "AlreadySigned"
        if not self.world.members[entry.proposer].active:
            return "MemberRevoked"
        stale = self.confirmed[entry.terms.close] != entry.terms.close_revision
        return "CloseNotConfirmed" if stale else ""

    def confirm(self, settlement: bytes, now: int) -> None:
        entry = self.entries[settlement]
        close = entry.terms.close
        if close in self.current:
            self.entries[self.current[close]].state = SUPERSEDED
        del self.pending[close]
        self.current[close] = settlement
        entry.state, entry.until = CONFIRMED, now + DISPUTE_S

    def refuses_dispute(
        self, settlement: bytes, label: str, whose: str, leaf: int, seq: int, now: int
    ) -> str:
        member, problem = self.world.acting(label)
        if problem:
            return problem
        entry = self.entries.get(settlement)
        if entry is None:
            return "UnknownSettlement"
        if entry.state != CONFIRMED:
            return "WrongState"
        parties = (entry.terms.close.acquirer, entry.terms.close.issuer)
        if member not in parties:
            return "NotParty"
        if now > entry.until:
            return "DisputeTooLate"
        if leaf in (EVENT_LEAF, FUTURE_LEAF):
            return "LeafMalformed"
        if whose not in parties:
            return "LeafOfOthers"
        if leaf == OTHER_PAIR_LEAF:
            return "WrongPair"
        if seq != 1:
            return "NotAnchored"
        return "NotIncluded" if leaf == OPEN_LEAF else ""

    def refuses_ruling(
        self, settlement: bytes, verdict: int, labels: list[str], how: str, late: bool
    ) -> str:
        entry = self.entries.get(settlement)
        if entry is None:
            return "UnknownSettlement"
        if entry.state != DISPUTED:
            return "WrongState"
        if verdict not in (1, 2):
            return "InvalidVerdict"
        if late:
            return "DeadlinePassed"
        if len(labels) < THRESHOLD:
            return "TooFewSignatures"
        if how != "right":
            return "NotArbiter"
        last = bytes(20)
        close = entry.terms.close
        for label in labels:
            if address_of(label) <= last:
                return "SignersNotAscending"
            if label not in ARBITERS:
                return "NotArbiter"
            if label.split("-")[0] in (close.acquirer, close.issuer):
                return "ArbiterIsParty"
            last = address_of(label)
        return ""

    def refuses_end(self, function: str, settlement: bytes, now: int) -> str:
        entry = self.entries.get(settlement)
        if entry is None:
            return "UnknownSettlement"
        if entry.state != (CONFIRMED if function == "finalize" else PROPOSED):
            return "WrongState"
        if function == "expire":
            return "" if now > entry.terms.deadline else "NotOverdue"
        if now <= entry.until:
            return "StillDisputable"
        stale = self.confirmed[entry.terms.close] != entry.terms.close_revision
        return "CloseNotConfirmed" if stale else ""

    def shown(self, settlement: bytes, now: int) -> int:
        entry = self.entries[settlement]
        overdue = entry.state == PROPOSED and now > entry.terms.deadline
        return EXPIRED if overdue else entry.state


class SettlementMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.desk = founded().fork()
        self.evm, self.world = self.desk.evm, self.desk.world
        self.model = Model(self.world, {KEY: 0})
        self.touched: set[bytes] = set()

    # -- the world moves on

    @rule(seconds=evenly([1, SIGN_S, SIGN_S + 1, DISPUTE_S, DISPUTE_S + 1]))
    def time_passes(self, seconds: int) -> None:
        self.evm.pass_time(seconds)

    @rule(key=evenly(KEYS))
    def a_close_is_confirmed(self, key: CloseKey) -> None:
        self._close(key)

    def _close(self, key: CloseKey) -> None:
        """The first, or a correction by both."""
        if all(self.world.members[name].active for name in (key.acquirer, key.issuer)):
            revision = self.model.confirmed.get(key, -1) + 1
            self.desk.closing.round(revision, key)
            self.model.confirmed[key] = revision

    @rule(name=evenly(["aurora", "meridian"]), what=evenly("rrgb"))
    def a_party_changes(self, name: str, what: str) -> None:
        active = self.world.members[name].active
        if what == "r" and active:
            self.world.rotate(name)
        elif what == "g" and active:
            self.world.revoke(name)
        elif not active:
            self.world.reinstate(name)

    # -- what the parties do when all goes well

    @rule(key=evenly([KEY, KEY, KEYS[1]]), until=st.integers(1, 4), first=st.booleans())
    def agreement(self, key: CloseKey, until: int, first: bool) -> None:
        """Proposal, confirmation, dispute, ruling: the first 1 to 4 of them."""
        for name in (key.acquirer, key.issuer):
            if not self.world.members[name].active:
                self.world.reinstate(name)
        parties = (key.acquirer, key.issuer) if first else (key.issuer, key.acquirer)
        labels = [self.world.operator(name).label for name in parties]
        terms = self._right_terms(key)
        settlement = self._propose(labels[0], "right", terms)
        if until > 1:
            self._confirm(settlement, labels[1], "right")
        if until > 2:
            self._dispute(settlement, labels[1], key.issuer, PAIR_LEAF, 1)
        if until > 3:
            self._resolve(settlement, 1, JUDGES[:2], "right", late=False)

    # -- anybody signs and sends anything

    @rule(
        key=evenly(KEYS),
        flaw=evenly(
            [
                "confirmed twice by one side",
                "ended too early",
                "close corrected meanwhile",
                "proposer revoked meanwhile",
                "judged by a party",
                "judged twice by one",
                "disputed with a stranger's leaf",
                "disputed too late",
            ]
        ),
    )
    def agreement_with_one_flaw(self, key: CloseKey, flaw: str) -> None:
        """All goes well but for one thing."""
        self._agree(key, 1 if "meanwhile" in flaw or "twice by one side" in flaw else 2)
        settlement = list(self.model.entries)[-1] if self.model.entries else word("none")
        issuer = self.world.operator(key.issuer).label
        if flaw == "confirmed twice by one side":
            self._confirm(settlement, self.world.operator(key.acquirer).label, "right")
        elif flaw == "ended too early":
            self._end("finalize", settlement)
            self._end("expire", settlement)
        elif flaw == "close corrected meanwhile":
            self._close(key)
            self._confirm(settlement, issuer, "right")
        elif flaw == "proposer revoked meanwhile":
            self.world.revoke(key.acquirer)
            self._confirm(settlement, issuer, "right")
            self.world.reinstate(key.acquirer)
        elif flaw.startswith("judged"):
            self._dispute(settlement, issuer, key.issuer, PAIR_LEAF, 1)
            twice = [JUDGES[0], JUDGES[0]]
            party = sorted((JUDGES[0], "meridian-operator-0"), key=address_of)
            labels = party if flaw == "judged by a party" else twice
            self._resolve(settlement, 1, labels, "right", late=False)
        elif flaw == "disputed with a stranger's leaf":
            self._dispute(settlement, issuer, "harbor", PAIR_LEAF, 1)
        else:
            self.evm.pass_time(DISPUTE_S + 1)
            self._dispute(settlement, issuer, key.issuer, PAIR_LEAF, 1)
            self._end("finalize", settlement)
        self._pester(settlement)

    def _pester(self, settlement: bytes) -> None:
        """Everything that is out of order now; what would be in order isn't tried."""
        now, model = self.evm.now, self.model
        for name in ("meridian", "aurora", "borealis"):
            label = self.world.operator(name).label
            if model.refuses_confirmation(settlement, label, "right", now):
                self._confirm(settlement, label, "right")
            for whose, leaf, seq in (("aurora", PAIR_LEAF, 1), ("harbor", PAIR_LEAF, 1)):
                if model.refuses_dispute(settlement, label, whose, leaf, seq, now):
                    self._dispute(settlement, label, whose, leaf, seq)
        for labels in (JUDGES[:2], JUDGES[:1], [JUDGES[0], JUDGES[0]]):
            if model.refuses_ruling(settlement, 1, labels, "right", False):
                self._resolve(settlement, 1, labels, "right", late=False)
        for function in ("finalize", "expire"):
            if model.refuses_end(function, settlement, now):
                self._end(function, settlement)
        entry = model.entries.get(settlement)
        if entry:
            # The same signed words again.
            label = self.world.operator(entry.proposer).label
            self._propose(label, "right", entry.terms)
            # A right proposal with one thing wrong, signed as it is.
            right = self._right_terms(entry.terms.close)
            for change in CHANGES:
                terms = replace(right, **self._dated(change))
                if model.refuses_proposal(label, "right", terms, now):
                    self._propose(label, "right", terms)

    def _dated(self, change: dict[str, Any]) -> dict[str, Any]:
        if "deadline" not in change:
            return change
        past = change["deadline"] == "past"
        return {"deadline": self.evm.now + (-1 if past else MAX_WINDOW + 1)}

    def _agree(self, key: CloseKey, until: int) -> None:
        """The first 1 or 2 steps, by the acquirer and the issuer."""
        for name in (key.acquirer, key.issuer):
            if not self.world.members[name].active:
                self.world.reinstate(name)
        labels = [self.world.operator(name).label for name in (key.acquirer, key.issuer)]
        settlement = self._propose(labels[0], "right", self._right_terms(key))
        if until > 1:
            self._confirm(settlement, labels[1], "right")

    @rule(
        data=st.data(),
        key=evenly(KEYS),
        how=evenly(SIGNATURES),
        change=evenly([*[{}] * 8, *CHANGES]),
    )
    def propose(self, data: st.DataObject, key: CloseKey, how: str, change: dict[str, Any]) -> None:
        terms = replace(self._right_terms(key), **self._dated(change))
        self._propose(self._draw_label(data), how, terms)

    @precondition(lambda self: self.model.entries)
    @rule(data=st.data(), how=evenly(SIGNATURES))
    def confirm(self, data: st.DataObject, how: str) -> None:
        self._confirm(self._draw_settlement(data), self._draw_label(data), how)

    @precondition(lambda self: self.model.entries)
    @rule(
        data=st.data(),
        whose=evenly(["aurora", "aurora", "meridian", "harbor"]),
        leaf=evenly([PAIR_LEAF] * 4 + [OTHER_PAIR_LEAF, EVENT_LEAF, FUTURE_LEAF, OPEN_LEAF]),
        seq=evenly([1] * 6 + [0, 2]),
    )
    def dispute(self, data: st.DataObject, whose: str, leaf: int, seq: int) -> None:
        self._dispute(self._draw_settlement(data), self._draw_label(data), whose, leaf, seq)

    @precondition(lambda self: self.model.entries)
    @rule(
        data=st.data(),
        verdict=evenly([1, 2, 1, 2, 0, 3]),
        labels=st.one_of(
            st.just(JUDGES[:2]), st.lists(evenly([*ARBITERS, "stranger"]), max_size=3)
        ),
        how=evenly(["right"] * 6 + ["other chain", "other verdict"]),
        late=evenly([False] * 7 + [True]),
    )
    def resolve(
        self, data: st.DataObject, verdict: int, labels: list[str], how: str, late: bool
    ) -> None:
        self._resolve(self._draw_settlement(data), verdict, labels, how, late=late)

    @precondition(lambda self: self.model.entries)
    @rule(data=st.data(), function=evenly(["finalize", "expire"]))
    def end(self, data: st.DataObject, function: str) -> None:
        self._end(function, self._draw_settlement(data))

    def _end(self, function: str, settlement: bytes) -> None:
        expected = self.model.refuses_end(function, settlement, self.evm.now)
        answer = self.desk.step(function, settlement)
        self._judge(answer, expected)
        if answer.ok:
            entry = self.model.entries[settlement]
            entry.state = FINAL if function == "finalize" else EXPIRED
            if function == "expire":
                del self.model.pending[entry.terms.close]

    # -- helpers

    def _right_terms(self, key: CloseKey) -> SettlementTerms:
        return SettlementTerms(
            close=key,
            close_revision=self.model.confirmed.get(key, 0),
            totals_hash=TOTALS,
            statement_hash=word("statement"),
            supersedes=self.model.current.get(key, ZERO),
            nonce=self.model.nonce,
            deadline=self.evm.now + SIGN_S,
        )

    def _draw_label(self, data: st.DataObject) -> str:
        right = [self.world.operator(name).label for name in ("meridian", "aurora")]
        return data.draw(evenly([*right * 5, *self.world.labels()]))

    def _draw_settlement(self, data: st.DataObject) -> bytes:
        known = list(self.model.entries)
        settlement = data.draw(evenly([*known[-3:] * 4, *known, word("none")]))
        self.touched.add(settlement)
        return settlement

    def _signed(self, label: str, how: str, right: bytes, elsewhere: bytes) -> bytes:
        if how == "other chain":
            return Key(label).sign(elsewhere)
        if how == "other terms":
            return Key(label).sign(word("something else"))
        made = Key(label).sign(right)
        return {"short": made[:64], "high": mirrored(made), "broken": bytes(65)}.get(how, made)

    def _propose(self, label: str, how: str, terms: SettlementTerms) -> bytes:
        settlement = self.desk.id(terms)
        signature = self._signed(label, how, settlement, self.desk.id(terms, chain_id=1))
        expected = self.model.refuses_proposal(label, how, terms, self.evm.now)
        answer = self.desk.propose(terms, signature=signature)
        self._judge(answer, expected)
        if answer.ok:
            self.model.propose(settlement, label, terms, self.evm.now)
        self.touched.add(settlement)
        return settlement

    def _confirm(self, settlement: bytes, label: str, how: str) -> None:
        entry = self.model.entries.get(settlement)
        elsewhere = self.desk.id(entry.terms, chain_id=1) if entry else word("elsewhere")
        signature = self._signed(label, how, settlement, elsewhere)
        expected = self.model.refuses_confirmation(settlement, label, how, self.evm.now)
        answer = self.desk.confirm(settlement, signature=signature)
        self._judge(answer, expected)
        if answer.ok:
            self.model.confirm(settlement, self.evm.now)

    def _dispute(self, settlement: bytes, label: str, whose: str, leaf: int, seq: int) -> None:
        now = self.evm.now
        expected = self.model.refuses_dispute(settlement, label, whose, leaf, seq, now)
        evidence = self.desk.evidence(whose, leaf, seq)
        answer = self.desk.dispute(settlement, evidence=evidence, sender=address_of(label))
        self._judge(answer, expected)
        if answer.ok:
            self.model.entries[settlement].state = DISPUTED

    def _resolve(
        self, settlement: bytes, verdict: int, labels: list[str], how: str, *, late: bool
    ) -> None:
        deadline = self.evm.now + (-1 if late else 10)
        signed = verdict if verdict in (1, 2) else 1
        signatures = self.desk.rulings(
            settlement,
            3 - signed if how == "other verdict" else signed,
            labels,
            deadline,
            chain_id=1 if how == "other chain" else 0,
        )
        expected = self.model.refuses_ruling(settlement, verdict, labels, how, late)
        answer = self.desk.resolve(
            settlement, said=verdict, deadline=deadline, signatures=signatures
        )
        self._judge(answer, expected)
        if answer.ok:
            entry = self.model.entries[settlement]
            entry.state, entry.verdict = RESOLVED, verdict

    def _judge(self, answer: Answer, expected: str) -> None:
        assert answer.refusal == expected, answer

    @invariant()
    def contract_and_model_agree(self) -> None:
        """About the settlements that the last step touched."""
        self._compare(self.touched)
        self.touched = set()

    def teardown(self) -> None:
        self._compare(set(self.model.entries))
        view = self.desk.registry.view
        words = KEY.words()
        assert view("nonceOf", words[0], words[1]) == self.model.nonce
        for key in KEYS:
            assert view("currentOf", key.close_id) == self.model.current.get(key, ZERO)
            waiting = self.model.pending.get(key, ZERO)
            if waiting != ZERO and self.model.shown(waiting, self.evm.now) != PROPOSED:
                waiting = ZERO
            assert view("pendingOf", key.close_id) == waiting

    def _compare(self, settlements: set[bytes]) -> None:
        for settlement in settlements & set(self.model.entries):
            entry = self.model.entries[settlement]
            record = self.desk.registry.view("settlementOf", settlement)
            assert record[0] == self.model.shown(settlement, self.evm.now)
            assert record[1] == entry.verdict
            assert record[2] == (entry.proposer == entry.terms.close.acquirer)
            assert record[3:7] == (
                entry.terms.close_revision,
                entry.terms.nonce,
                entry.terms.deadline,
                entry.until,
            )


def test_contract_and_model_agree_on_any_calls() -> None:
    run_state_machine_as_test(SettlementMachine, settings=machine_settings(10, 18))
