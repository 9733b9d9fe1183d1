"""CloseRegistry against a model in plain Python: anybody calls anything, at any time.

Every call is drawn from right and wrong senders, keys, revisions, openings and times; the model
says by which name the contract must refuse it, or what state and events must follow.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from eth_abi.abi import encode
from eth_hash.auto import keccak
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from nodes.chain.closes import close_commitment
from nodes.ids import ascii_word, member_word
from tests.contracts.closing import (
    BROKEN,
    COMMIT_S,
    COMMITTING,
    CONFIRMED,
    EXPIRED,
    REVEAL_S,
    REVEALING,
    SUPERSEDED,
    founded,
)
from tests.contracts.machine import Answer, evenly, machine_settings
from tests.contracts.world import ROLES, World, address_of, word

CHAIN_ID = founded().evm.chain_id


@dataclass
class Side:
    commitment: bytes = bytes(32)
    opening: tuple[bytes, bytes] | None = None


@dataclass
class Round:
    state: int
    deadline: int
    sides: dict[str, Side]


@dataclass(frozen=True)
class Key:
    acquirer: str
    issuer: str
    currency: str = "CNY"
    date: int = 20_261_122

    @property
    def words(self) -> tuple[bytes, bytes, bytes, int]:
        return (
            member_word(self.acquirer),
            member_word(self.issuer),
            ascii_word(self.currency),
            self.date,
        )

    @property
    def id(self) -> bytes:
        return bytes(keccak(encode(["bytes32", "bytes32", "bytes32", "uint32"], self.words)))


@dataclass
class Model:
    """What CloseRegistry has to do."""

    world: World
    rounds: dict[Key, list[Round]] = field(default_factory=dict)
    confirmed: dict[Key, int] = field(default_factory=dict)

    def state_of(self, key: Key, revision: int, now: int) -> int:
        round_ = self.rounds[key][revision]
        if key in self.confirmed and revision < self.confirmed[key]:
            return SUPERSEDED
        if round_.state in (COMMITTING, REVEALING) and now > round_.deadline:
            return EXPIRED
        return round_.state

    def refuses_commit(
        self, label: str, key: Key, revision: int, commitment: bytes, now: int
    ) -> str:
        member, problem = self.world.acting(label)
        if problem:
            return problem
        if key.acquirer == key.issuer:
            return "SameParty"
        if member not in (key.acquirer, key.issuer):
            return "NotParty"
        for name, role in ((key.acquirer, 2), (key.issuer, 1)):
            standing = self.world.members.get(name)
            if standing is None or not standing.roles & role:
                return "WrongRole"
            if not standing.active:
                return "MemberRevoked"
        if not (len(key.currency) == 3 and key.currency.isalpha() and key.currency.isupper()):
            return "InvalidCurrency"
        if not _is_date(key.date):
            return "InvalidDate"
        if not any(commitment):
            return "ZeroCommitment"
        return self._refuses_revision(member, key, revision, now)

    def _refuses_revision(self, member: str, key: Key, revision: int, now: int) -> str:
        rounds = self.rounds.get(key, [])
        if revision == len(rounds):
            if not rounds:
                return ""
            last = rounds[-1]
            if last.state in (COMMITTING, REVEALING) and now <= last.deadline:
                return "RoundOpen"
            if last.state in (COMMITTING, REVEALING, EXPIRED):
                other = key.issuer if member == key.acquirer else key.acquirer
                if last.sides[other].opening and not last.sides[member].opening:
                    return "RevealWithheld"
            return ""
        if revision != len(rounds) - 1:
            return "WrongRevision"
        round_ = rounds[revision]
        if any(round_.sides[member].commitment):
            return "AlreadyCommitted"
        if round_.state != COMMITTING:
            return "RoundSettled"
        return "CommitTooLate" if now > round_.deadline else ""

    def commit(self, label: str, key: Key, revision: int, commitment: bytes, now: int) -> set[str]:
        """Does it; returns the names of the events."""
        member, _ = self.world.acting(label)
        rounds = self.rounds.setdefault(key, [])
        events = {"CloseCommitted"}
        if revision == len(rounds):
            if rounds and rounds[-1].state in (COMMITTING, REVEALING):
                rounds[-1].state = EXPIRED
                events.add("CloseExpired")
            sides = {key.acquirer: Side(), key.issuer: Side()}
            rounds.append(Round(COMMITTING, now + COMMIT_S, sides))
            events.add("CloseOpened")
        else:
            rounds[revision].state = REVEALING
            rounds[revision].deadline = now + REVEAL_S
        rounds[revision].sides[member].commitment = commitment
        return events

    def refuses_reveal(
        self, label: str, key: Key, revision: int, opening: tuple[bytes, bytes, bytes], now: int
    ) -> str:
        member, problem = self.world.acting(label)
        if problem:
            return problem
        rounds = self.rounds.get(key, [])
        if not rounds:
            return "UnknownClose"
        if member not in (key.acquirer, key.issuer):
            return "NotParty"
        if revision >= len(rounds):
            return "WrongRevision"
        round_ = rounds[revision]
        side = round_.sides[member]
        if not any(side.commitment):
            return "NotCommitted"
        if side.opening:
            return "AlreadyRevealed"
        if round_.state == COMMITTING:
            return "CounterpartyNotCommitted"
        if round_.state != REVEALING:
            return "RoundSettled"
        if now > round_.deadline:
            return "RevealTooLate"
        if side.commitment != commitment_of(self.registry, member, key, revision, opening):
            return "CommitmentMismatch"
        return ""

    registry: bytes = b""

    def reveal(
        self, label: str, key: Key, revision: int, opening: tuple[bytes, bytes, bytes]
    ) -> set[str]:
        member, _ = self.world.acting(label)
        round_ = self.rounds[key][revision]
        round_.sides[member].opening = opening[:2]
        first, second = round_.sides.values()
        if not (first.opening and second.opening):
            return {"ClosePosted"}
        if first.opening == second.opening:
            round_.state = CONFIRMED
            self.confirmed[key] = revision
            return {"ClosePosted", "CloseMatched"} | ({"CloseSuperseded"} if revision else set())
        round_.state = BROKEN
        return {"ClosePosted", "CloseBroken"}

    def refuses_expire(self, key: Key, now: int) -> str:
        rounds = self.rounds.get(key, [])
        if not rounds:
            return "UnknownClose"
        if rounds[-1].state not in (COMMITTING, REVEALING):
            return "RoundSettled"
        return "" if now > rounds[-1].deadline else "NotOverdue"


def _is_date(number: int) -> bool:
    year, month, day = number // 10_000, number // 100 % 100, number % 100
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    lengths = [31, 29 if leap else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
    return 2000 <= year <= 9999 and 1 <= month <= 12 and 1 <= day <= lengths[month - 1]


def commitment_of(
    registry: bytes,
    member: str,
    key: Key,
    revision: int,
    opening: tuple[bytes, bytes, bytes],
    chain_id: int = CHAIN_ID,
) -> bytes:
    return close_commitment(
        chain_id=chain_id,
        registry="0x" + registry.hex(),
        member_id=member,
        close_id=key.id,
        revision=revision,
        close_root=opening[0],
        totals_hash=opening[1],
        blind=opening[2],
    )


PAIRS = [Key("meridian", "aurora"), Key("borealis", "aurora")]
ODD_KEYS = [
    Key("aurora", "meridian"),
    Key("meridian", "meridian"),
    Key("meridian", "harbor"),
    Key("meridian", "nobody"),
    Key("meridian", "aurora", currency="cny"),
    Key("meridian", "aurora", currency="CNYX"),
    Key("meridian", "aurora", date=20_260_229),
    Key("meridian", "aurora", date=20_261_301),
]
# What a side can say it has in its books; both sides usually say the first.
BOOKS = [word("root one"), word("root two")]
BLIND = [word("blind"), word("another blind")]
mostly_right = st.integers(0, 9)


class CloseMachine(RuleBasedStateMachine):
    """The rules draw the call; `_judge` compares contract and model."""

    def __init__(self) -> None:
        super().__init__()
        day = founded().fork()
        self.evm, self.world, self.closes = day.evm, day.world, day.closes
        self.touched: set[Key] = set()
        self.model = Model(self.world, registry=self.closes.address)

    # -- the world moves on

    @rule(seconds=evenly([1, REVEAL_S, REVEAL_S + 1, COMMIT_S, COMMIT_S + 1]))
    def time_passes(self, seconds: int) -> None:
        self.evm.pass_time(seconds)

    @rule(name=evenly(sorted(ROLES)))
    def operator_is_replaced(self, name: str) -> None:
        if self.world.members[name].active:
            self.world.rotate(name)

    @rule(name=evenly(["aurora", "borealis"]))
    def member_goes_or_comes_back(self, name: str) -> None:
        if self.world.members[name].active:
            self.world.revoke(name)
        else:
            self.world.reinstate(name)

    # -- what the two sides do when all goes well, up to some point

    @initialize(key=evenly(PAIRS), swapped=st.booleans())
    def one_revision_of_each_outcome(self, key: Key, swapped: bool) -> None:
        """Roots that differ, totals that differ, and both equal, by whoever comes first."""
        ours = (BOOKS[0], word("totals"), BLIND[0])
        others = [(BOOKS[1], *ours[1:]), (BOOKS[0], word("false"), BLIND[0]), ours]
        for revision, theirs in enumerate(others):
            sides = [(key.acquirer, ours), (key.issuer, theirs)][:: -1 if swapped else 1]
            for member, opening in sides:
                self._commit(self.world.operator(member).label, key, revision, opening)
            for member, opening in sides:
                self._reveal(self.world.operator(member).label, key, revision, opening)
        assert [round_.state for round_ in self.model.rounds[key]] == [BROKEN, BROKEN, CONFIRMED]

    @rule(
        key=evenly(PAIRS),
        books=evenly(["same", "same", "other root", "other totals"]),
        reveals=evenly([2, 2, 1, 0]),
        late=st.booleans(),
    )
    def a_round(self, key: Key, books: str, reveals: int, late: bool) -> None:
        self._round(key, books, reveals, late)

    @rule(key=evenly(PAIRS), first=st.integers(0, 1), expired=st.booleans())
    def one_reveals_and_the_other_keeps_its_own_back(
        self, key: Key, first: int, expired: bool
    ) -> None:
        """Then either side tries to open the next revision."""
        parties = [key.acquirer, key.issuer]
        self._round(key, "same", 0)
        revision = len(self.model.rounds[key]) - 1
        opening = (BOOKS[0], word("totals"), BLIND[0])
        self._reveal(self.world.operator(parties[first]).label, key, revision, opening)
        self.evm.pass_time(REVEAL_S + 1)
        if expired:
            self._expire(self.world.labels()[0], key)
        for party in (parties[1 - first], parties[first]):
            self._commit(self.world.operator(party).label, key, revision + 1, opening)

    def _round(self, key: Key, books: str, reveals: int, late: bool = False) -> None:
        """Both commit to the next revision and 0 to 2 of them reveal."""
        for name in (key.acquirer, key.issuer):
            if not self.world.members[name].active:
                self.world.reinstate(name)
        rounds = self.model.rounds.get(key, [])
        if rounds and rounds[-1].state in (COMMITTING, REVEALING):
            self.evm.pass_time(COMMIT_S + 1)
        ours = (BOOKS[0], word("totals"), BLIND[0])
        theirs = {
            "same": ours,
            "other root": (BOOKS[1], *ours[1:]),
            "other totals": (BOOKS[0], word("false"), BLIND[0]),
        }[books]
        sides = [(key.acquirer, ours), (key.issuer, theirs)]
        for _ in range(2):
            # Who withheld its reveal last time is refused at first.
            rounds = self.model.rounds.get(key, [])
            joining = bool(rounds) and rounds[-1].state == COMMITTING
            for member, opening in sides:
                revision = len(self.model.rounds.get(key, [])) - joining
                self._commit(self.world.operator(member).label, key, revision, opening)
                joining = True
                self._pester(key, sides)
            if self.model.rounds[key][-1].state == REVEALING:
                break
        revision = len(self.model.rounds[key]) - 1
        for member, opening in sides[:reveals]:
            self._reveal(self.world.operator(member).label, key, revision, opening)
            self._pester(key, [(member, opening)])
        if late:
            self.evm.pass_time(REVEAL_S + 1)
            self._pester(key, sides)

    def _pester(self, key: Key, sides: list[tuple[str, tuple[bytes, bytes, bytes]]]) -> None:
        """What is too early, too late or done already; where it is in order it isn't tried."""
        newest = len(self.model.rounds.get(key, [])) - 1
        for member, opening in sides:
            label, now = self.world.operator(member).label, self.evm.now
            for revision in {max(newest, 0), 0, newest + 1}:
                commitment = commitment_of(self.closes.address, member, key, revision, opening)
                if self.model.refuses_commit(label, key, revision, commitment, now):
                    self._commit_word(label, key, revision, commitment)
                if self.model.refuses_reveal(label, key, revision, opening, now):
                    self._reveal(label, key, revision, opening)
        if self.model.refuses_expire(key, self.evm.now):
            self._expire("stranger", key)

    # -- anybody calls anything

    @rule(
        data=st.data(),
        odd=mostly_right,
        who=mostly_right,
        back=evenly([0, 0, 1, 1, 2, -1]),
    )
    def commit(self, data: st.DataObject, odd: int, who: int, back: int) -> None:
        key = data.draw(evenly(ODD_KEYS if odd == 0 else PAIRS))
        label = self._draw_label(data, key, who)
        revision = max(0, len(self.model.rounds.get(key, [])) - back)
        place = data.draw(st.integers(0, 1))
        self._commit(label, key, revision, (BOOKS[place], word("totals"), BLIND[0]))

    @rule(data=st.data(), who=mostly_right)
    def commit_to_nothing_or_a_copy(self, data: st.DataObject, who: int) -> None:
        key = data.draw(evenly(PAIRS))
        rounds = self.model.rounds.get(key, [])
        copied = [side.commitment for side in rounds[-1].sides.values()] if rounds else [bytes(32)]
        self._commit_word(self._draw_label(data, key, who), key, max(0, len(rounds) - 1), copied[0])

    @precondition(lambda self: self.model.rounds)
    @rule(
        data=st.data(),
        who=mostly_right,
        back=evenly([1, 1, 1, 2, 0]),
        opening=st.tuples(*map(evenly, (BOOKS, [word("totals"), word("false")], BLIND))),
    )
    def reveal(
        self, data: st.DataObject, who: int, back: int, opening: tuple[bytes, bytes, bytes]
    ) -> None:
        key = data.draw(evenly([*PAIRS, *PAIRS, *PAIRS, ODD_KEYS[0]]))
        label = self._draw_label(data, key, who)
        self._reveal(label, key, max(0, len(self.model.rounds.get(key, [])) - back), opening)

    @rule(data=st.data(), key=evenly([*PAIRS * 3, ODD_KEYS[0]]))
    def expire(self, data: st.DataObject, key: Key) -> None:
        self._expire(data.draw(evenly(self.world.labels())), key)

    def _expire(self, label: str, key: Key) -> None:
        self.touched.add(key)
        expected = self.model.refuses_expire(key, self.evm.now)
        answer = self.closes.send(address_of(label), "expire", key.id)
        self._judge(answer, expected)
        if answer.ok:
            round_ = self.model.rounds[key][-1]
            event = answer.events[0]
            silent = [
                not (side.opening if round_.state == REVEALING else any(side.commitment))
                for side in round_.sides.values()
            ]
            assert [event.arguments["acquirerSilent"], event.arguments["issuerSilent"]] == silent
            round_.state = EXPIRED

    # -- helpers

    def _draw_label(self, data: st.DataObject, key: Key, who: int) -> str:
        if who == 0:
            return data.draw(evenly(self.world.labels()))
        parties = [name for name in (key.acquirer, key.issuer) if name in self.world.members]
        return self.world.operator(data.draw(evenly(parties))).label

    def _commit(
        self, label: str, key: Key, revision: int, opening: tuple[bytes, bytes, bytes]
    ) -> None:
        member, _ = self.world.acting(label)
        commitment = commitment_of(self.closes.address, member or "nobody", key, revision, opening)
        self._commit_word(label, key, revision, commitment)

    def _commit_word(self, label: str, key: Key, revision: int, commitment: bytes) -> None:
        now = self.evm.now
        self.touched.add(key)
        expected = self.model.refuses_commit(label, key, revision, commitment, now)
        answer = self.closes.send(address_of(label), "commit", *key.words, revision, commitment)
        self._judge(answer, expected)
        if answer.ok:
            events = self.model.commit(label, key, revision, commitment, now)
            assert {event.name for event in answer.events} == events

    def _reveal(
        self, label: str, key: Key, revision: int, opening: tuple[bytes, bytes, bytes]
    ) -> None:
        self.touched.add(key)
        expected = self.model.refuses_reveal(label, key, revision, opening, self.evm.now)
        answer = self.closes.send(address_of(label), "reveal", key.id, revision, *opening)
        self._judge(answer, expected)
        if answer.ok:
            events = self.model.reveal(label, key, revision, opening)
            assert {event.name for event in answer.events} == events

    def _judge(self, answer: Answer, expected: str) -> None:
        assert answer.refusal == expected, answer

    @invariant()
    def contract_and_model_agree(self) -> None:
        """About the closes that the last step touched."""
        self._compare(self.touched)
        self.touched = set()

    def teardown(self) -> None:
        self._compare(set(self.model.rounds))

    def _compare(self, keys: set[Key]) -> None:
        for key in keys & set(self.model.rounds):
            rounds = self.model.rounds[key]
            confirmed = self.model.confirmed.get(key)
            assert self.closes.view("latestOf", key.id) == (
                len(rounds),
                confirmed is not None,
                confirmed or 0,
            )
            revision = len(rounds) - 1
            state, deadline, acquirer, issuer = self.closes.view("roundOf", key.id, revision)
            assert state == self.model.state_of(key, revision, self.evm.now)
            assert deadline == rounds[-1].deadline
            for row, side in zip((acquirer, issuer), rounds[-1].sides.values(), strict=True):
                commitment, root, totals, revealed = row
                assert commitment == side.commitment
                assert ((root, totals) if revealed else None) == side.opening
            # Never confirmed but by two equal openings.
            found, inforce, root, totals = self.closes.view("confirmedOf", key.id)
            assert found == (confirmed is not None)
            if found:
                openings = {side.opening for side in rounds[inforce].sides.values()}
                assert openings == {(root, totals)}


def test_contract_and_model_agree_on_any_calls() -> None:
    run_state_machine_as_test(CloseMachine, settings=machine_settings(12, 18))
