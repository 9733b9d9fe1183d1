"""The state of a receipt's promise, in order of precedence."""

from __future__ import annotations

from typing import Any

import pytest

from console import record_wording
from console.receipts import Findings, Place, asked, state_of
from nodes.anchoring.receipt import Promise
from nodes.anchoring.verifier import Reason, Verdict
from nodes.chain.challenges import Claim, ClaimState

DEADLINE = 1_790_000_000
PROMISE = Promise("meridian", b"t" * 32, b"c" * 32, bytes(32), DEADLINE, bytes(65))
DETAILS = {"member_id": "meridian", "txid": "74" * 32, "commitment": "63" * 32, "seq": 3}
HOLDS = Verdict(True, None, dict(DETAILS))
FORM = {
    "member": "meridian",
    "txid": "74" * 32,
    "commitment": "63" * 32,
    "deadline": str(DEADLINE),
    "signature": "00" * 65,
    "key": "ab" * 32,
}


def claim(state: ClaimState) -> Claim:
    return Claim(b"i" * 32, state, "meridian", b"t" * 32, b"c" * 32, DEADLINE, DEADLINE + 9, "0x")


@pytest.mark.parametrize(
    ("found", "now", "state"),
    [
        (Findings(Place.RECORDED, True), DEADLINE - 1, "promised"),
        (Findings(Place.SEALED, True), DEADLINE, "sealed"),
        (Findings(Place.SEALED, True), DEADLINE + 1, "overdue"),
        (Findings(Place.RECORDED, True), DEADLINE + 1, "overdue"),
        (Findings(Place.MISSING, True), DEADLINE - 1, "denied"),
        (Findings(Place.MISSING, True), DEADLINE + 1, "overdue"),
        (Findings(Place.AWAY, True), DEADLINE + 1, "unknown"),
        (Findings(Place.ANCHORED, True, HOLDS, DEADLINE), DEADLINE + 5, "anchored"),
        (Findings(Place.ANCHORED, True, HOLDS, DEADLINE + 1), DEADLINE + 5, "late"),
        (Findings(Place.ANCHORED, True), DEADLINE - 1, "unknown"),
        (Findings(Place.ANCHORED, True, Verdict(False, Reason.NOT_INCLUDED)), 0, "invalid"),
        (
            Findings(Place.ANCHORED, True, Verdict(True, None, DETAILS | {"txid": "00" * 32}), 1),
            0,
            "invalid",
        ),
        (Findings(Place.ANCHORED, False, HOLDS, DEADLINE), 0, "invalid"),
        (
            Findings(Place.RECORDED, True, claim=claim(ClaimState.CLAIMED)),
            DEADLINE + 1,
            "claimed",
        ),
        (Findings(Place.SEALED, True, claim=claim(ClaimState.ANSWERED)), 0, "answered"),
        (
            Findings(Place.ANCHORED, True, HOLDS, DEADLINE, claim(ClaimState.PROVEN)),
            0,
            "proven",
        ),
    ],
)
def test_the_state_of_a_promise(found: Findings, now: float, state: str) -> None:
    assert state_of(PROMISE, found, now) == state
    assert state in record_wording.RECEIPT_STATES


def test_what_the_pages_script_sends_is_read_strictly() -> None:
    read = asked(FORM)
    assert read is not None
    assert (read.promise, read.key) == (PROMISE, "ab" * 32)
    changes: list[dict[str, Any]] = [
        {"member": "Meridian"},
        {"txid": "74" * 31},
        {"commitment": "C" * 64},
        {"deadline": "01"},
        {"deadline": str(2**53)},
        {"signature": "00" * 64},
        {"key": "zz"},
    ]
    for change in changes:
        assert asked(FORM | change) is None, change
    assert asked({}) is None
