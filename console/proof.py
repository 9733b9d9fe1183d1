"""What the Verify button shows: the verifier's judgement as steps, and whether the record that is
on the screen is the one that the proof is about.

The verifier names one reason, in order of precedence; every check before the one that refused was
passed, every check after it was not reached.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from console import presentation
from console.chain import ChainView
from nodes.anchoring.verifier import Reason, Verdict, verify
from nodes.authorization.model import Kind, Outcome
from nodes.chain.anchors import Anchor


class StepState(StrEnum):
    """How far a check came."""

    PASSED = "passed"
    REFUSED = "refused"
    NOT_REACHED = "not_reached"


@dataclass(frozen=True)
class Check:
    """One step as people read it, and the refusals that belong to it."""

    title: str
    explanation: str
    reasons: tuple[Reason, ...]


#: In the verifier's order of precedence; tests/unit/console/test_proof.py holds them to that.
CHECKS = (
    Check(
        "The file is a proof bundle",
        "It is in the one canonical form (C2SP tlog-proof), and its leaf is a log entry.",
        (Reason.MALFORMED, Reason.LEAF_MALFORMED),
    ),
    Check(
        "The disclosed facts lead to the shared commitment",
        "Amount, currency, kind, time, merchant and outcome, salted and hashed, give C.",
        (Reason.COMMITMENT_MISMATCH,),
    ),
    Check(
        "The checkpoint is this institution's, on this chain",
        "A signed note that names the member, the chain and the trusted anchor contract.",
        (
            Reason.NOTE_MALFORMED,
            Reason.LEAF_MISMATCH,
            Reason.WRONG_CHAIN,
            Reason.UNTRUSTED_REGISTRY,
        ),
    ),
    Check(
        "What the proof carries of the block holds together",
        "On a chain of several validators: header, transaction and receipt lead to the contract's"
        " event, and each seal is that of the validator it names.",
        (
            Reason.NOT_SEALED,
            Reason.BLOCK_MISMATCH,
            Reason.TRANSACTION_NOT_IN_BLOCK,
            Reason.RECEIPT_NOT_IN_BLOCK,
            Reason.EVENT_NOT_IN_RECEIPT,
            Reason.SEAL_INVALID,
            Reason.SEALER_UNKNOWN,
            Reason.SEALS_TOO_FEW,
        ),
    ),
    Check(
        "The chain holds the same size and root",
        "Read by the console from the AnchorRegistry contract, not from the node.",
        (
            Reason.NOT_ANCHORED,
            Reason.SIZE_MISMATCH,
            Reason.ROOT_MISMATCH,
            Reason.ANCHOR_MISMATCH,
        ),
    ),
    Check(
        "The institution signed the checkpoint",
        "Ed25519, with the note key that the MemberRegistry held for it at that block.",
        (Reason.KEY_NOT_VALID_AT_BLOCK, Reason.SIGNATURE_INVALID, Reason.META_MISMATCH),
    ),
    Check(
        "The log entry is included under that root",
        "RFC 9162 inclusion proof from the leaf up to the anchored root.",
        (Reason.NOT_INCLUDED,),
    ),
)
RECORD_CHECK = (
    "The record on this page is the one that was proven",
    "Transaction id, commitment, amount, currency, kind, outcome and merchant are compared.",
)
#: The console's own refusal: the proof is good, but it isn't about what the page shows.
RECORD_MISMATCH = "RECORD_MISMATCH"


@dataclass(frozen=True)
class Step:
    """One check's result, with what it found."""

    title: str
    explanation: str
    state: StepState
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class ProofReport:
    """The whole result. `reason` is the name of the refusal, None if the proof holds."""

    ok: bool
    reason: str | None
    meaning: str
    steps: tuple[Step, ...]
    details: dict[str, Any]
    anchor: Anchor | None
    checked_at: str


def check_proof(
    bundle: bytes, record: dict[str, Any], now: datetime, validators: Set[bytes] | None
) -> Callable[[ChainView], ProofReport]:
    """A question for `ChainReader.ask`: judge the bundle, and compare it with the record shown.
    `validators`: those of the settings, who have to have sealed its block if it carries seals."""

    def judge(view: ChainView) -> ProofReport:
        verdict = verify(bundle, view, validators)
        return report(verdict, view.seen, record, now)

    return judge


def report(
    verdict: Verdict, anchor: Anchor | None, record: dict[str, Any], now: datetime
) -> ProofReport:
    """The verdict as steps. Pure."""
    steps = steps_of(verdict, anchor)
    reason = verdict.reason.value if verdict.reason else None
    meaning = str(verdict.details.get("detail", "")) if reason else ""
    if verdict.reason:
        meaning = verdict.reason.meaning
    differing: list[tuple[str, str]] = []
    if verdict.ok:
        differing = differences(verdict.details, record)
        state = StepState.REFUSED if differing else StepState.PASSED
        if differing:
            reason = RECORD_MISMATCH
            meaning = "the proof is valid, but it is about another record than the one shown"
    else:
        state = StepState.NOT_REACHED
    steps.append(Step(*RECORD_CHECK, state, tuple(differing)))
    return ProofReport(
        ok=reason is None,
        reason=reason,
        meaning=meaning,
        steps=tuple(steps),
        details=dict(verdict.details) if verdict.ok else {},
        anchor=anchor,
        checked_at=now.astimezone(UTC).isoformat(),
    )


def steps_of(verdict: Verdict, anchor: Anchor | None) -> list[Step]:
    """The verifier's checks with what each found."""
    steps = []
    state = StepState.PASSED
    for check in CHECKS:
        if verdict.reason in check.reasons:
            state = StepState.REFUSED
        facts = _facts(check, verdict, anchor) if state is StepState.PASSED else ()
        steps.append(Step(check.title, check.explanation, state, facts))
        if state is StepState.REFUSED:
            state = StepState.NOT_REACHED
    return steps


def differences(details: dict[str, object], record: dict[str, Any]) -> list[tuple[str, str]]:
    """Fields in which the record shown differs from what the proof discloses, with both values.

    A field that the bundle keeps hidden isn't compared: the commitment covers it.
    """
    transmitted = presentation.moment(record.get("transmitted_at"))
    shown: dict[str, object] = {
        "txid": record.get("txid"),
        "commitment": record.get("commitment"),
        "side": record.get("side"),
        "amount": record.get("amount"),
        "currency": record.get("currency"),
        "kind": Kind(str(record.get("kind"))).word,
        "outcome": Outcome(str(record.get("outcome"))).word,
        "merchant": record.get("merchant_id"),
        "time": round(transmitted.timestamp() * 1000) if transmitted else None,
        "original": record.get("original_txid"),
    }
    found = []
    for name, value in shown.items():
        if name not in details:
            continue
        proven = details[name]
        if isinstance(proven, str):
            proven, value = proven.strip(), str(value or "").strip()
        if proven != value:
            found.append((name, f"shown {value}, proven {proven}"))
    return found


def _facts(check: Check, verdict: Verdict, anchor: Anchor | None) -> tuple[tuple[str, str], ...]:
    """What a passed step can show for itself."""
    details = verdict.details
    if Reason.NOT_ANCHORED in check.reasons and anchor:
        return (
            ("Anchor", f"#{anchor.seq}"),
            ("Log size", f"{anchor.size:,}"),
            ("Root", anchor.root.hex()),
            ("Block", f"{anchor.block_number:,}"),
        )
    if not verdict.ok:
        return ()
    if Reason.COMMITMENT_MISMATCH in check.reasons:
        return (("C", str(details["commitment"])),)
    if Reason.NOT_SEALED in check.reasons:
        return _finality(details)
    if Reason.WRONG_CHAIN in check.reasons:
        return (("Origin", str(details["origin"])),)
    if Reason.NOT_INCLUDED in check.reasons:
        return (("Entry", f"{details['index']:,} of {details['size']:,}"),)
    return ()


def _finality(details: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    """Which finality was found, and who judged the seals or why nobody did."""
    kind = str(details["finality"])
    if "sealed_by" in details:
        kind += f": sealed by {details['sealed_by']}"
    return (("Finality", kind), ("Seals", str(details["seals"])))
