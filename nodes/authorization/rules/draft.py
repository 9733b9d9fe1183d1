"""The account while a decision is being made of it, and how decisions come out of it."""

from __future__ import annotations

from nodes.authorization.model import Outcome
from nodes.authorization.state import (
    Account,
    CardStanding,
    Counter,
    Decision,
    Detail,
    Disputed,
    Hold,
    Move,
    Progress,
    Purse,
    Reason,
    Side,
)

#: (ledger account of the purse, amount): who pays or gets how much, in the order of taking.
Parts = tuple[tuple[int, int], ...]


class Draft:
    """A working copy of one account; `next_version` is what has become of it.

    Holds whose time is over are released when it is made, so no rule ever meets one.
    """

    __slots__ = (
        "account",
        "cards",
        "counters",
        "disputed",
        "expired",
        "holds",
        "loads",
        "moves",
        "offline",
        "purses",
        "receivable",
        "status",
    )

    def __init__(self, account: Account, now_ms: int) -> None:
        self.account = account
        self.purses = list(account.purses)
        self.status = account.status
        self.receivable = account.receivable
        self.cards = account.cards
        self.holds = account.holds
        self.counters = account.counters
        self.loads = account.loads
        self.offline = account.offline
        self.disputed = account.disputed
        self.moves: list[Move] = []
        self.expired: tuple[tuple[bytes, int], ...] = ()
        if self.holds:
            self._release_due(now_ms)

    def _release_due(self, now_ms: int) -> None:
        due = [hold for hold in self.holds if hold.expires_ms <= now_ms]
        if due:
            self.holds = tuple(hold for hold in self.holds if hold.expires_ms > now_ms)
            self.expired = tuple((hold.txid, hold.amount) for hold in due)
            for hold in due:
                self.hold(tuple((purse, -amount) for purse, amount in hold.parts))

    @property
    def available(self) -> int:
        return sum(purse.available for purse in self.purses)

    def _change(self, account_id: int, balance: int, held: int) -> None:
        for position, purse in enumerate(self.purses):
            if purse.account_id == account_id:
                self.purses[position] = Purse(
                    account_id,
                    purse.name,
                    purse.balance + balance,
                    purse.held + held,
                    purse.overdraft_limit,
                )
                return
        raise LookupError(f"account {self.account.account_id} has no purse {account_id}")

    def pay(self, parts: Parts, to: int | Side) -> None:
        """Money leaves the purses."""
        for purse, amount in parts:
            self._change(purse, -amount, 0)
            self.moves.append(Move(purse, to, amount))

    @property
    def repayable(self) -> int:
        """What a credit repays: what is owed, but for what is disputed."""
        return self.receivable - sum(one.amount for one in self.disputed if not one.paid)

    def credit(self, parts: Parts, source: int | Side) -> None:
        """Money comes into the purses; what is owed is repaid out of it first."""
        for purse, amount in parts:
            self._change(purse, amount, 0)
            self.moves.append(Move(source, purse, amount))
            self.repay(((purse, min(amount, self.repayable)),))

    def repay(self, parts: Parts) -> None:
        """What is owed is paid out of the purses."""
        for purse, amount in parts:
            if amount:
                self.receivable -= amount
                self._change(purse, -amount, 0)
                self.moves.append(Move(purse, Side.RECEIVABLE, amount))

    def owe(self, amount: int, to: Side) -> None:
        """What the purses don't have is paid for the cardholder, who owes it from now on."""
        if amount:
            self.receivable += amount
            self.moves.append(Move(Side.RECEIVABLE, to, amount))

    def dispute(self, txid: bytes, amount: int, *, paid: bool = False) -> None:
        """What is owed (or was paid) for this payment waits until people have decided who bears
        it."""
        self.disputed = (*self.disputed, Disputed(txid, amount, paid))

    def find_dispute(self, txid: bytes) -> Disputed | None:
        return next((one for one in self.disputed if one.txid == txid), None)

    def disputed_of(self, txid: bytes) -> int:
        """How much of a payment is still disputed."""
        found = self.find_dispute(txid)
        return 0 if found is None else found.amount

    def settle(self, txid: bytes, amount: int) -> None:
        """So much of a payment is disputed no more: at most what still is."""
        found = self.find_dispute(txid)
        if found is None:
            return
        self.disputed = tuple(one for one in self.disputed if one is not found)
        if found.amount > amount:
            self.dispute(txid, found.amount - amount, paid=found.paid)

    def reserve(self, card_id: int, amount: int) -> None:
        """What is set aside for a card's offline payments grows (or shrinks, where negative)."""
        left = self.offline.get(card_id, 0) + amount
        others = {number: kept for number, kept in self.offline.items() if number != card_id}
        self.offline = {**others, card_id: left} if left else others

    def hold(self, parts: Parts) -> None:
        """Parts of the purses are set aside (or freed, where the amount is negative)."""
        for purse, amount in parts:
            self._change(purse, 0, amount)

    def find_hold(self, txid: bytes) -> Hold | None:
        for hold in self.holds:
            if hold.txid == txid:
                return hold
        return None

    def replace_hold(self, hold: Hold) -> None:
        """The hold as it is now; one without parts has ended and goes."""
        others = tuple(other for other in self.holds if other.txid != hold.txid)
        self.holds = (*others, hold) if hold.parts else others

    def set_card(self, card_id: int, standing: CardStanding) -> None:
        self.cards = {**self.cards, card_id: standing}

    def set_counter(self, rule_id: str, counter: Counter) -> None:
        self.counters = {**self.counters, rule_id: counter}

    def next_version(self) -> Account:
        before = self.account
        return Account(
            before.account_id,
            before.version + 1,
            before.currency,
            tuple(self.purses),
            self.status,
            self.receivable,
            self.cards,
            self.holds,
            self.counters,
            self.loads,
            self.offline,
            self.disputed,
        )


def approved(
    draft: Draft,
    amount: int,
    detail: Detail,
    progress: dict[bytes, Progress] | None = None,
) -> Decision:
    """Approved, with what the draft has become. `detail` names draft.expired itself."""
    return Decision(
        Outcome.APPROVED,
        amount,
        draft.next_version(),
        None,
        tuple(draft.moves),
        {} if progress is None else progress,
        detail,
    )


def refused(
    draft: Draft | None,
    outcome: Outcome,
    values: dict[str, int | str] | None = None,
    card_id: int | None = None,
) -> Decision:
    """Refused, for a reason with the values that were compared; nothing has moved.

    What a refusal does change (PIN tries, holds whose time is over) is in the draft.
    """
    return refused_because(draft, outcome, Reason(outcome.value, values=values or {}), (), card_id)


def refused_because(
    draft: Draft | None,
    outcome: Outcome,
    reason: Reason,
    shadow: tuple[Reason, ...],
    card_id: int | None = None,
) -> Decision:
    if draft is None:
        return Decision(outcome, detail=Detail(reason=reason, shadow=shadow))
    detail = Detail(reason=reason, shadow=shadow, card_id=card_id, expired=draft.expired)
    return Decision(outcome, account=draft.next_version(), detail=detail)


def not_enough(
    draft: Draft, amount: int, available: int, card_id: int | None, shadow: tuple[Reason, ...] = ()
) -> Decision:
    """Insufficient funds; `available` counts the purses that may pay for this request."""
    values: dict[str, int | str] = {
        "amount": amount,
        "available": available,
        "balance": sum(purse.balance for purse in draft.purses),
        "held": sum(purse.held for purse in draft.purses),
    }
    outcome = Outcome.INSUFFICIENT_FUNDS
    return refused_because(draft, outcome, Reason(outcome.value, values=values), shadow, card_id)
