"""The verdict as steps, and the comparison of the record shown with the one proven."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from console.proof import CHECKS, RECORD_MISMATCH, StepState, check_proof, differences, report
from nodes.anchoring.chain_view import CachedChain
from nodes.anchoring.verifier import Reason, Verdict
from nodes.authorization.model import Kind, Outcome
from sandbox.campaigns.sealed_bundles import recorded

NOW = datetime(2026, 11, 22, tzinfo=UTC)
RECORD: dict[str, Any] = {
    "txid": "aa" * 32,
    "commitment": "bb" * 32,
    "side": "issuer",
    "amount": 1250,
    "currency": "CNY",
    "kind": "purchase",
    "outcome": "approved",
    "merchant_id": "HARBOR000000001",
    "transmitted_at": "2026-11-22T10:00:00.123Z",
    "original_txid": None,
}
DETAILS: dict[str, object] = {
    "txid": "aa" * 32,
    "commitment": "bb" * 32,
    "side": "issuer",
    "amount": 1250,
    "currency": "CNY",
    "kind": Kind.PURCHASE.word,
    "outcome": Outcome.APPROVED.word,
    "merchant": "HARBOR000000001",
    "time": 1_795_341_600_123,
    "original": None,
    "origin": "countersign/1/0x0/aurora",
    "index": 4,
    "size": 9,
    "block_number": 12,
    "finality": "DEV_FINALITY",
    "seals": "not judged: the proof carries none",
}


def test_the_steps_cover_every_reason_in_the_verifiers_order() -> None:
    assert [reason for check in CHECKS for reason in check.reasons] == list(Reason)


@pytest.mark.parametrize("reason", list(Reason))
def test_a_refusal_marks_its_step_and_nothing_behind_it(reason: Reason) -> None:
    shown = report(Verdict(False, reason, {"detail": "because"}), None, RECORD, NOW)
    states = [step.state for step in shown.steps]
    at = states.index(StepState.REFUSED)
    assert reason in CHECKS[at].reasons
    assert states[:at] == [StepState.PASSED] * at
    assert set(states[at + 1 :]) == {StepState.NOT_REACHED}
    assert (shown.ok, shown.reason) == (False, reason.value)


def test_a_proof_of_the_record_shown_passes_every_step() -> None:
    shown = report(Verdict(True, None, DETAILS), None, RECORD, NOW)
    assert shown.ok
    assert {step.state for step in shown.steps} == {StepState.PASSED}


@pytest.mark.parametrize(
    ("network", "finality"),
    [
        ("qbft", "QBFT_FINALITY: sealed by 3 of 4 validators"),
        ("clique", "CLIQUE_FINALITY: sealed by 3 of 4 validators, 3 blocks"),
    ],
)
def test_the_finality_and_who_judged_the_seals_are_shown(network: str, finality: str) -> None:
    """By the settings' validators, beside the chain; without them nobody judges the seals."""
    found = recorded(network)
    view: Any = CachedChain(found.roots)
    view.seen = None

    def facts(validators: frozenset[bytes] | None) -> tuple[tuple[str, str], ...]:
        shown = check_proof(found.bundles[0], RECORD, NOW, validators)(view)
        [step] = [step for step in shown.steps if step.title.startswith("What the proof carries")]
        return step.facts or ((shown.reason or "", ""),)

    judged = dict(facts(found.addresses))
    assert judged["Finality"] == finality
    assert all(address in judged["Seals"] for address in found.validators)
    alone = dict(facts(None))
    assert alone["Finality"] == "DEV_FINALITY"
    assert alone["Seals"].startswith("not judged: no validators were given")
    assert facts(frozenset({bytes(20)})) == (("SEALER_UNKNOWN", ""),)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("txid", "cc" * 32),
        ("commitment", "cc" * 32),
        ("side", "acquirer"),
        ("amount", 1251),
        ("currency", "EUR"),
        ("kind", "refund"),
        ("outcome", "pin_wrong"),
        ("merchant_id", "HARBOR000000002"),
        ("transmitted_at", "2026-11-22T10:00:00.124Z"),
        ("original_txid", "dd" * 32),
    ],
)
def test_a_good_proof_of_another_record_is_refused(field: str, value: object) -> None:
    shown = report(Verdict(True, None, DETAILS), None, RECORD | {field: value}, NOW)
    assert (shown.ok, shown.reason) == (False, RECORD_MISMATCH)
    assert shown.steps[-1].state is StepState.REFUSED


def test_a_hidden_field_is_not_compared() -> None:
    known = {name: value for name, value in DETAILS.items() if name != "amount"}
    assert differences(known, RECORD | {"amount": 9}) == []
