"""A second reading of the contract, to hold the rules against: money as lists of single units.

A payment is the list of purses that each unit came from, so what is given back or released is a
slice of a list. Windows are sums over what happened, not counters. Of all refusals that apply the
upper one of Outcome is answered: they are collected, then compared. Nothing of rules/ is imported.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from nodes.authorization.model import Kind, Outcome

_RANK = {outcome: rank for rank, outcome in enumerate(Outcome)}
TAKES = {Kind.PURCHASE, Kind.CAPTURE, Kind.ADVICE}


@dataclass
class Setup:
    """What the machine draws for one run."""

    meal: bool = False  # a second purse, for restaurants; the main one pays the rest
    overdraft: int = 0
    uses: int | None = None
    partial: bool = False
    over_percent: int = 0
    day_amount: int | None = None
    week_count: int | None = None  # contactless only
    once: int | None = None  # a transaction's largest amount


@dataclass
class Past:
    """One transaction and what became of it."""

    kind: Kind
    outcome: Outcome
    amount: int = 0
    asked: int = 0
    units: list[str] = field(default_factory=list)
    root: Past | None = None
    sender: str = ""  # how its sender differs from the usual one
    mcc: str = ""
    refunded: int = 0
    undone: int = 0
    captured: int = 0
    authorized: int = 0
    ended: bool = False
    used: bool = False
    #: Windows that it counted in, and whether it counts as a transaction there.
    windows: tuple[tuple[str, object], ...] = ()
    one: int = 1
    gone: int = 0  # of its amount, in the windows


class Model:
    def __init__(self, setup: Setup, now_ms: int) -> None:
        self.setup = setup
        self.now_ms = now_ms
        self.balance: Counter[str] = Counter()
        self.held: Counter[str] = Counter()
        self.other = self.owed = 0
        self.card, self.status = "active", "open"
        self.past: list[Past] = []
        #: What is held, by the place of its authorization in `past`; and until when.
        self.holds: dict[int, list[str]] = {}
        self.until: dict[int, int] = {}

    # -- what follows from the lists -----------------------------------------------------

    def names(self) -> list[str]:
        return ["main", "meal"] if self.setup.meal else ["main"]

    def free(self, name: str) -> int:
        limit = self.setup.overdraft if name == "main" else 0
        return self.balance[name] - self.held[name] + limit

    def order(self, mcc: str) -> list[str]:
        return ["meal", "main"] if self.setup.meal and mcc == "5812" else ["main"]

    def find(self, amount: int, names: list[str]) -> list[str]:
        found: list[str] = []
        for name in names:
            found += [name] * min(self.free(name), amount - len(found))
        return found

    def uses(self) -> int:
        return sum(1 for past in self.past if past.used)

    def windows(self, entry: str) -> list[tuple[str, object]]:
        local = datetime(1970, 1, 1) + timedelta(milliseconds=self.now_ms, hours=8)
        found: list[tuple[str, object]] = []
        if self.setup.day_amount is not None:
            found.append(("day", local.date().isoformat()))
        if self.setup.week_count is not None and entry == "071":
            found.append(("week", local.isocalendar()[:2]))
        return found

    def amount_in(self, window: tuple[str, object]) -> int:
        return sum(past.amount - past.gone for past in self.past if window in past.windows)

    def count_in(self, window: tuple[str, object]) -> int:
        return sum(past.one for past in self.past if window in past.windows)

    # -- what every decision does --------------------------------------------------------

    def begin(self) -> None:
        for place in [place for place, until in self.until.items() if until <= self.now_ms]:
            self.held -= Counter(self.holds.pop(place))
            del self.until[place]

    def shrink(self, place: int, units: list[str]) -> None:
        """What is left of a hold; nothing left ends it."""
        before = Counter(self.holds[place])
        self.held -= before - Counter(units)
        self.holds[place] = units
        if not units:
            del self.holds[place], self.until[place]

    def give(self, units: list[str]) -> None:
        for unit in units:
            if self.owed:
                self.owed -= 1
            else:
                self.balance["main" if unit == "owed" else unit] += 1

    def spending(self, amount: int, entry: str, one: int, before: int = 0) -> list[Outcome]:
        """The objections of account and rules to new spending."""
        found = [] if self.status == "open" else [Outcome.ACCOUNT_FROZEN]
        if self.setup.once is not None and before + amount > self.setup.once:
            found.append(Outcome.AMOUNT_LIMIT)
        for window in self.windows(entry):
            name, most = window[0], self.setup.day_amount or 0
            if name == "day" and self.amount_in(window) + amount > most:
                found.append(Outcome.AMOUNT_LIMIT)
            if name == "week" and one and self.count_in(window) >= (self.setup.week_count or 0):
                found.append(Outcome.COUNT_LIMIT)
        return found

    def card_says(self) -> list[Outcome]:
        if self.card == "active":
            return []
        return [Outcome.CARD_LOST if self.card == "lost" else Outcome.CARD_BLOCKED]

    def refuse(self, kind: Kind, found: list[Outcome]) -> tuple[Outcome, int]:
        worst = min(found, key=_RANK.__getitem__)
        self.past.append(Past(kind, worst))
        return worst, 0

    # -- the operations: each answers outcome and approved amount ------------------------

    def load(self, amount: int) -> tuple[Outcome, int]:
        self.begin()
        if self.card == "lost":
            return Outcome.CARD_LOST, 0
        self.give(["main"] * amount)
        return Outcome.APPROVED, amount

    def adjust(self, amount: int) -> tuple[Outcome, int]:
        self.begin()
        if amount > 0:
            self.give(["main"] * amount)
        elif self.free("main") < -amount:
            return Outcome.INSUFFICIENT_FUNDS, 0
        else:
            self.balance["main"] += amount
        return Outcome.APPROVED, abs(amount)

    def transfer(self, amount: int) -> tuple[Outcome, int]:
        self.begin()
        found = self.card_says() + ([] if self.status == "open" else [Outcome.ACCOUNT_FROZEN])
        units = self.find(amount, self.names())
        if len(units) < amount:
            found.append(Outcome.INSUFFICIENT_FUNDS)
        if found:
            return min(found, key=_RANK.__getitem__), 0
        self.balance.subtract(units)
        self.other += amount
        return Outcome.APPROVED, amount

    def present(
        self, kind: Kind, asked: int, mcc: str, entry: str, partial: bool, until: int
    ) -> tuple[Outcome, int]:
        self.begin()
        units = self.find(asked, self.order(mcc))
        some = bool(units) and partial and self.setup.partial
        amount = len(units) if some else asked
        found = self.card_says() + self.spending(amount, entry, 1)
        if self.setup.uses is not None and self.uses() >= self.setup.uses:
            found.append(Outcome.USES_EXHAUSTED)
        if len(units) < amount:
            found.append(Outcome.INSUFFICIENT_FUNDS)
        if found:
            return self.refuse(kind, found)
        if kind is Kind.AUTHORIZATION:
            self.held.update(units)
            self.holds[len(self.past)] = units
            self.until[len(self.past)] = until
        else:
            self.balance.subtract(units)
        made = Past(kind, Outcome.APPROVED, amount, asked, units, mcc=mcc, authorized=amount)
        made.used, made.windows = True, tuple(self.windows(entry))
        self.past.append(made)
        return Outcome.APPROVED, amount

    def advice(self, amount: int, mcc: str, entry: str) -> tuple[Outcome, int]:
        self.begin()
        units = self.find(amount, self.order(mcc))
        self.balance.subtract(units)
        short = amount - len(units)
        self.owed += short
        made = Past(Kind.ADVICE, Outcome.APPROVED, amount, amount, units + ["owed"] * short)
        made.used, made.windows = True, tuple(self.windows(entry))
        self.past.append(made)
        return Outcome.APPROVED, amount

    def increment(self, place: int, amount: int, entry: str, stranger: str) -> tuple[Outcome, int]:
        self.begin()
        of = self.past[place]
        if of.kind is not Kind.AUTHORIZATION or of.outcome is not Outcome.APPROVED:
            return self.refuse(Kind.INCREMENT, [Outcome.ORIGINAL_NOT_FOUND])
        found = self.card_says() + self.named(of, stranger)
        if place not in self.holds:
            found.append(Outcome.HOLD_ENDED)
        found += self.spending(amount, entry, 0, of.authorized - of.undone)
        units = self.find(amount, self.order(of.mcc))
        if len(units) < amount:
            found.append(Outcome.INSUFFICIENT_FUNDS)
        if found:
            return self.refuse(Kind.INCREMENT, found)
        self.held.update(units)
        # The units of one purse stand together, in the order in which purses came first.
        both = self.holds[place] + units
        first = list(dict.fromkeys(both))
        self.holds[place] = sorted(both, key=first.index)
        of.authorized += amount
        made = Past(Kind.INCREMENT, Outcome.APPROVED, amount, amount, root=of, one=0)
        made.windows = tuple(self.windows(entry))
        self.past.append(made)
        return Outcome.APPROVED, amount

    def named(self, of: Past, stranger: str) -> list[Outcome]:
        differs = {of.sender, stranger} & {"acquirer", "merchant"} and of.sender != stranger
        found = [Outcome.ORIGINAL_MISMATCH] if differs else []
        return [*found, Outcome.ALREADY_REVERSED] if of.ended else found

    def capture(self, place: int, amount: int, final: bool, stranger: str) -> tuple[Outcome, int]:
        self.begin()
        of = self.past[place]
        if of.kind is not Kind.AUTHORIZATION or of.outcome is not Outcome.APPROVED:
            return self.refuse(Kind.CAPTURE, [Outcome.ORIGINAL_NOT_FOUND])
        found = self.named(of, stranger)
        held = self.holds.get(place, [])
        if not held:
            found.append(Outcome.HOLD_ENDED)
        most = (of.authorized - of.undone) * (100 + self.setup.over_percent)
        if (of.captured + amount) * 100 > most:
            found.append(Outcome.OVER_ORIGINAL_AMOUNT)
        beyond = amount - len(held)
        more = self.find(beyond, self.order(of.mcc)) if beyond > 0 else []
        if beyond > 0 and self.status != "open":
            found.append(Outcome.ACCOUNT_FROZEN)
        if beyond > 0 and len(more) < beyond:
            found.append(Outcome.INSUFFICIENT_FUNDS)
        if found:
            return self.refuse(Kind.CAPTURE, found)
        self.shrink(place, [] if final else held[amount:])
        both = held[:amount] + more
        units = sorted(both, key=list(dict.fromkeys(both)).index)
        self.balance.subtract(units)
        of.captured += amount
        self.past.append(Past(Kind.CAPTURE, Outcome.APPROVED, amount, amount, units, root=of))
        return Outcome.APPROVED, amount

    def refund(self, place: int, amount: int, stranger: str) -> tuple[Outcome, int]:
        self.begin()
        of = self.past[place]
        if of.kind not in TAKES or of.outcome is not Outcome.APPROVED:
            return self.refuse(Kind.REFUND, [Outcome.ORIGINAL_NOT_FOUND])
        found = self.named(of, stranger)
        gone = of.refunded + of.undone
        if amount > of.amount - gone:
            found.append(Outcome.OVER_ORIGINAL_AMOUNT)
        if found:
            return self.refuse(Kind.REFUND, found)
        units = ["main" if unit == "owed" else unit for unit in of.units[::-1][gone:][:amount]]
        self.give(units)
        of.refunded += amount
        self.past.append(Past(Kind.REFUND, Outcome.APPROVED, amount, amount, units, root=of))
        return Outcome.APPROVED, amount

    def void(self, place: int, amount: int, stranger: str) -> tuple[Outcome, int]:
        self.begin()
        of = self.past[place]
        if of.kind not in TAKES | {Kind.AUTHORIZATION} or of.outcome is not Outcome.APPROVED:
            return self.refuse(Kind.VOID, [Outcome.ORIGINAL_NOT_FOUND])
        found = self.named(of, stranger)
        whole = {0, of.amount, of.asked, of.authorized or of.amount}
        if of.refunded or amount not in whole:
            found.append(Outcome.ORIGINAL_MISMATCH)
        if of.kind is Kind.AUTHORIZATION and place not in self.holds:
            found.append(Outcome.HOLD_ENDED)
        if found:
            return self.refuse(Kind.VOID, found)
        if of.kind is Kind.AUTHORIZATION:
            released = len(self.holds[place])
            self.shrink(place, [])
            self.undo(of, released, whole=of.captured == 0)
            of.ended = True
        else:
            released = of.amount - of.undone
            self.give_back(of, released)
        self.past.append(Past(Kind.VOID, Outcome.APPROVED, released, amount))
        return Outcome.APPROVED, released

    def give_back(self, of: Past, amount: int) -> None:
        """Of a purchase, advice or capture."""
        self.give(of.units[::-1][of.undone :][:amount])
        self.undo(of, amount, whole=of.undone + amount == of.amount)
        if of.kind is Kind.CAPTURE and of.root is not None:
            of.root.captured -= amount

    def undo(self, of: Past, amount: int, whole: bool) -> None:
        of.undone += amount
        of.gone = min(of.undone, of.amount)
        if whole:
            of.ended, of.used, of.one = True, False, 0

    def reverse(self, place: int, amount: int, stranger: str) -> tuple[Outcome, int]:
        self.begin()
        of = self.past[place]
        found: list[Outcome] = []
        if of.kind in (Kind.VOID, Kind.REVERSAL) or of.sender != stranger or of.refunded:
            found.append(Outcome.ORIGINAL_MISMATCH)
        if of.outcome is not Outcome.APPROVED:
            if found:
                return self.refuse(Kind.REVERSAL, found)
            self.past.append(Past(Kind.REVERSAL, Outcome.APPROVED, 0, amount))
            return Outcome.APPROVED, 0
        if amount == 0 and of.kind is not Kind.BALANCE_INQUIRY:
            found.append(Outcome.ORIGINAL_MISMATCH)
        top = of.root if of.kind is Kind.INCREMENT and of.root is not None else of
        if top.ended or of.ended:
            found.append(Outcome.ALREADY_REVERSED)
        at = next((number for number, past in enumerate(self.past) if past is top), 0)
        left = of.amount - of.undone
        if top.kind is Kind.AUTHORIZATION:
            open_ = top.authorized - top.captured - top.undone
            left = open_ if of is top else min(open_, left)
            if top.captured and at not in self.holds:
                found.append(Outcome.HOLD_ENDED)
        if of.asked != of.amount and amount == of.asked:
            amount = left
        if amount > left:
            found.append(Outcome.OVER_ORIGINAL_AMOUNT)
        names: list[str] = []
        if of.kind is Kind.REFUND:
            mine = of.units[::-1][of.undone :][:amount]
            names = self.find(amount, list(dict.fromkeys([*mine, *self.names()])))
            if len(names) < amount:
                found.append(Outcome.INSUFFICIENT_FUNDS)
        if found:
            return self.refuse(Kind.REVERSAL, found)
        if top.kind is Kind.AUTHORIZATION:
            self.release(top, at, of, amount)
        elif of.kind is Kind.REFUND:
            self.balance.subtract(names)
            self.undo(of, amount, whole=of.undone + amount == of.amount)
            if of.root is not None:
                of.root.refunded -= amount
        else:
            self.give_back(of, amount)
        self.past.append(Past(Kind.REVERSAL, Outcome.APPROVED, amount, amount))
        return Outcome.APPROVED, amount

    def release(self, top: Past, at: int, of: Past, amount: int) -> None:
        """An amount of a hold is freed, for the authorization itself or for an increment."""
        if at in self.holds:
            held = self.holds[at]
            self.shrink(at, held[: max(0, len(held) - amount)])
        nothing_left = not top.captured and top.authorized - top.undone == amount
        if of is top:
            self.undo(of, amount, whole=nothing_left)
        else:
            top.authorized -= amount
            self.undo(of, amount, whole=of.undone + amount == of.amount)
            if nothing_left:
                top.ended, top.used, top.one = True, False, 0

    def inquire(self) -> tuple[Outcome, int]:
        self.begin()
        found = self.card_says()
        if found:
            return self.refuse(Kind.BALANCE_INQUIRY, found)
        self.past.append(Past(Kind.BALANCE_INQUIRY, Outcome.APPROVED))
        return Outcome.APPROVED, 0
