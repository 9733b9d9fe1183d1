"""At the acquirer: an advice under the counter of an online request of the same terminal. Pure.

A terminal that gets no answer may end the payment with the card alone (EMV 4.3 Book 3, the second
GENERATE AC), and reverses what it asked. Its advice (TC) may come before that reversal, or without.
It says what the reversal would: the terminal doesn't go by the online answer. So the online request
is reversed before the advice goes to the issuer, and in any order the payment is posted once.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from nodes.authorization.model import Kind, Outcome, TerminalAnswer, TerminalRequest

#: What takes or holds an amount under a chip's counter.
_PAYING = frozenset({Kind.PURCHASE, Kind.AUTHORIZATION})


class AskedOnline(msgspec.Struct, frozen=True):
    """An online request of the advice's card under the advice's counter; amounts in minor units."""

    kind: Kind
    terminal_id: str
    amount: int
    currency: str
    #: What its terminal was told; None: nothing yet.
    told: TerminalAnswer | None
    #: A reversal of it was queued before; and waits still.
    reversed: bool = False
    reversal_waits: bool = False
    #: A void, refund, capture or increment names it: its terminal has had the answer.
    followed: bool = False


class Before(StrEnum):
    """What has to reach the issuer before an advice."""

    NOTHING = "nothing"
    #: The reversal that is under way.
    WAITS = "waits"
    #: One that the acquirer makes now.
    REVERSE = "reverse"


def what_goes_before(advice: TerminalRequest, online: AskedOnline) -> Before:
    """What has to be done about an online request before its advice goes to the issuer.

    Where it isn't the same payment, or isn't all of it, the issuer compares and decides.
    """
    told = online.told
    if online.kind not in _PAYING or (online.terminal_id, online.amount, online.currency) != (
        advice.terminal_id,
        advice.amount,
        advice.currency,
    ):
        return Before.NOTHING
    if online.reversed:
        return Before.WAITS if online.reversal_waits else Before.NOTHING
    if told is None:
        return Before.REVERSE
    approved = told.outcome is Outcome.APPROVED and told.amount == online.amount
    return Before.REVERSE if approved and not online.followed else Before.NOTHING
