"""Which purse pays, and which gets it back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nodes.authorization.controls import Terms
from nodes.authorization.rules.draft import Parts
from nodes.authorization.state import Purse


def mcc_in(mcc: str, patterns: Iterable[str]) -> bool:
    """Whether an MCC is one of these: four digits, or a range "5811-5814"."""
    for pattern in patterns:
        low, dash, high = pattern.partition("-")
        if low <= mcc <= high if dash else mcc == low:
            return True
    return False


def payers(terms: Terms, purses: Sequence[Purse], mcc: str) -> Sequence[Purse]:
    """The purses that may pay at an MCC, in order: the first that takes it, then its fallbacks.

    Empty where no purse of the product takes this MCC.
    """
    for purse_terms in terms.purses:
        if not purse_terms.mccs or mcc_in(mcc, purse_terms.mccs):
            if len(purses) == 1 and purses[0].name == purse_terms.name:
                return purses
            by_name = {purse.name: purse for purse in purses}
            names = dict.fromkeys((purse_terms.name, *purse_terms.fallback))
            return [by_name[name] for name in names if name in by_name]
    return ()


def available_in(purses: Iterable[Purse]) -> int:
    return sum(max(0, purse.available) for purse in purses)


def split(amount: int, purses: Iterable[Purse]) -> Parts:
    """Each purse pays what it has, in order, until the amount is reached or all are empty."""
    parts = []
    for purse in purses:
        if amount <= 0:
            break
        paid = min(amount, purse.balance - purse.held + purse.overdraft_limit)
        if paid > 0:
            parts.append((purse.account_id, paid))
            amount -= paid
    return tuple(parts)


def total(parts: Parts) -> int:
    return sum(amount for _, amount in parts)


def merged(*several: Parts) -> Parts:
    """One part a purse, in the order of their first appearance."""
    sums: dict[int, int] = {}
    for parts in several:
        for purse, amount in parts:
            sums[purse] = sums.get(purse, 0) + amount
    return tuple(sums.items())


def first_of(parts: Parts, amount: int) -> tuple[Parts, Parts]:
    """The first `amount` of the parts in order, and the rest of them."""
    head, rest = [], []
    for purse, part in parts:
        taken = min(part, amount)
        amount -= taken
        if taken:
            head.append((purse, taken))
        if part > taken:
            rest.append((purse, part - taken))
    return tuple(head), tuple(rest)


def last_of(parts: Parts, amount: int, already: int = 0) -> Parts:
    """The last `amount` of the parts, the last first, after `already` were given back before."""
    _, rest = first_of(parts[::-1], already)
    return first_of(rest, amount)[0]
