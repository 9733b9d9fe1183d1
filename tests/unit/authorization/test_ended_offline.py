"""What the acquirer puts before an advice whose counter asked online before."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from nodes.authorization.model import Kind, Outcome, TerminalAnswer, TerminalRequest
from nodes.authorization.rules.ended_offline import AskedOnline, Before, what_goes_before

APPROVED = TerminalAnswer(
    outcome=Outcome.APPROVED, rrn="000000000001", amount=700, currency="CNY", txid=bytes(32)
)
ADVICE = TerminalRequest(
    terminal_id="T0000001",
    merchant_id="MERIDIAN0000001",
    business_date="2026-09-21",
    batch="000001",
    stan="000002",
    kind=Kind.ADVICE,
    amount=700,
    currency="CNY",
    pan="6223001000012340",
    entry_mode="051",
    local_time="2026-09-21T12:00:00",
    deadline_ms=0,
    fingerprint=bytes(32),
)
ONLINE = AskedOnline(Kind.PURCHASE, "T0000001", 700, "CNY", APPROVED)


def refused(outcome: Outcome) -> TerminalAnswer:
    return TerminalAnswer(outcome=outcome, rrn="000000000001", currency="CNY")


@pytest.mark.parametrize("kind", [Kind.PURCHASE, Kind.AUTHORIZATION])
@pytest.mark.parametrize("told", [APPROVED, None])
def test_what_was_approved_or_is_still_open_is_reversed_first(
    kind: Kind, told: TerminalAnswer | None
) -> None:
    online = msgspec.structs.replace(ONLINE, kind=kind, told=told)
    assert what_goes_before(ADVICE, online) is Before.REVERSE


@pytest.mark.parametrize("told", [APPROVED, None, refused(Outcome.ISSUER_UNAVAILABLE)])
def test_a_reversal_is_made_once_and_waited_for(told: TerminalAnswer | None) -> None:
    under_way = msgspec.structs.replace(ONLINE, told=told, reversed=True, reversal_waits=True)
    assert what_goes_before(ADVICE, under_way) is Before.WAITS
    done = msgspec.structs.replace(under_way, reversal_waits=False)
    assert what_goes_before(ADVICE, done) is Before.NOTHING


@pytest.mark.parametrize(
    "changes",
    [
        {"told": refused(Outcome.INSUFFICIENT_FUNDS)},
        {"told": msgspec.structs.replace(APPROVED, amount=500)},
        {"followed": True},
        {"kind": Kind.TOP_UP},
        {"kind": Kind.BALANCE_INQUIRY},
        {"terminal_id": "T0000002"},
        {"amount": 701},
        {"currency": "USD"},
        {"amount": 701, "reversed": True, "reversal_waits": True},
    ],
)
def test_what_is_no_approval_of_this_payment_or_was_taken_up_is_left_to_the_issuer(
    changes: dict[str, Any],
) -> None:
    assert what_goes_before(ADVICE, msgspec.structs.replace(ONLINE, **changes)) is Before.NOTHING
