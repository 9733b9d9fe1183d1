"""Pure checks of the fleet."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from nodes import money
from nodes.acquiring.fleet.model import (
    Capability,
    ChangeKind,
    Details,
    FleetRecord,
    KeysAsked,
    KeyWay,
    Move,
    Parameters,
    TerminalKeys,
    TerminalSuite,
)
from nodes.crypto.certificates import Certificate, CertificateInvalid, read_certificate
from nodes.money import MAX_TRANSACTION_AMOUNT

LANGUAGES = ("en", "zh")
WIDTHS_MM = (58, 80)
MAX_HOURS = 24 * 31
MAX_COUNT = 1_000


def parameter_flaws(parameters: Parameters, capabilities: list[Capability]) -> dict[str, str]:
    """What is wrong, by the parameter's name; empty if nothing is."""
    flaws: dict[str, str] = {}
    if parameters.currency not in money.CURRENCIES:
        flaws["currency"] = "is none that the network knows"
    if parameters.receipt_language not in LANGUAGES:
        flaws["receipt_language"] = "is en or zh"
    if parameters.receipt_width_mm not in WIDTHS_MM:
        flaws["receipt_width_mm"] = "is 58 or 80"
    for name in (
        "floor_limit",
        "offline_per_transaction",
        "offline_per_card",
        "offline_per_terminal",
        "no_cvm_limit",
    ):
        if not 0 <= getattr(parameters, name) <= MAX_TRANSACTION_AMOUNT:
            flaws[name] = f"is 0 to {MAX_TRANSACTION_AMOUNT}"
    for name in ("offline_hours", "hotlist_max_age_hours"):
        if not 0 <= getattr(parameters, name) <= MAX_HOURS:
            flaws[name] = f"is 0 to {MAX_HOURS}"
    if not 0 <= parameters.offline_count_per_card <= MAX_COUNT:
        flaws["offline_count_per_card"] = f"is 0 to {MAX_COUNT}"
    if flaws:
        return flaws
    if parameters.floor_limit > parameters.offline_per_transaction:
        flaws["floor_limit"] = "is at most offline_per_transaction"
    if parameters.floor_limit and not {Capability.OFFLINE, Capability.CHIP} <= set(capabilities):
        flaws["floor_limit"] = "is 0 for a terminal without chip and offline"
    if parameters.offline_per_transaction > parameters.offline_per_card:
        flaws["offline_per_transaction"] = "is at most offline_per_card"
    if parameters.offline_per_card > parameters.offline_per_terminal:
        flaws["offline_per_card"] = "is at most offline_per_terminal"
    return flaws


def key_way(
    terminal_id: str, asked: KeysAsked, authorities: Sequence[Certificate], now_ms: int
) -> tuple[KeyWay, dict[str, str]]:
    """How a terminal gets its keys, and what is wrong with that by field; empty if nothing is.

    An SM2 terminal's certificate names the terminal, holds now, and one of the acquirer's
    authorities, whose own certificate holds too, has signed it.
    """
    flaws: dict[str, str] = {}
    way = KeyWay(suite=asked.suite, management=asked.management)
    if asked.management is TerminalKeys.DUKPT and asked.suite is not TerminalSuite.AES:
        flaws["management"] = "DUKPT is of the AES suite"
    if asked.management is not TerminalKeys.SM2:
        if asked.certificate:
            flaws["certificate"] = "belongs to an SM2 terminal"
        return way, flaws
    if asked.suite is not TerminalSuite.SM:
        flaws["management"] = "SM2 sign-on is of the SM suite"
    if not asked.certificate:
        return way, flaws | {"certificate": "an SM2 terminal needs its certificate"}
    try:
        found = read_certificate(asked.certificate)
    except CertificateInvalid as invalid:
        return way, flaws | {"certificate": str(invalid)}
    why = certificate_flaw(terminal_id, found, authorities, now_ms)
    if why is not None:
        return way, flaws | {"certificate": why}
    certified = msgspec.structs.replace(
        way,
        certificate=found.serial.hex(),
        sm2_public_key=found.public_key.hex(),
        valid_from_ms=found.not_before_ms,
        valid_until_ms=found.not_after_ms,
        certified_by=found.issuer,
    )
    return certified, flaws


def certificate_flaw(
    terminal_id: str, found: Certificate, authorities: Sequence[Certificate], now_ms: int
) -> str | None:
    """Why a terminal's certificate isn't taken; None if it is."""
    if found.common_name != terminal_id:
        return "names another terminal: its common name is to be the terminal's id"
    if found.authority:
        return "is an authority's, and not a terminal's"
    if not found.is_valid_at(now_ms):
        return "doesn't hold now"
    signers = [one for one in authorities if found.is_signed_by(one)]
    if not signers:
        return "is signed by no terminal authority of this acquirer"
    if not any(one.is_valid_at(now_ms) for one in signers):
        return "is signed by an authority whose own certificate doesn't hold now"
    return None


def authority_flaw(found: Certificate, now_ms: int) -> str | None:
    """Why a certificate isn't taken as an authority's; None if it is."""
    if not found.authority:
        return "may not certify others (basic constraints, key usage)"
    if not found.is_signed_by(found):
        return "isn't signed with its own key"
    if not found.is_valid_at(now_ms):
        return "doesn't hold now"
    return None


def changed(
    record: FleetRecord, kind: ChangeKind, content: Parameters | Details | KeyWay | Move | None
) -> FleetRecord | None:
    """The record after a change; None if it is so already. ValueError: not of this change."""
    match kind, content:
        case (ChangeKind.DISABLED | ChangeKind.ENABLED, None):
            enabled = kind is ChangeKind.ENABLED
            after = msgspec.structs.replace(record, enabled=enabled)
        case (ChangeKind.KEYS, None):
            # A key of the gateway's settings counts as the first.
            return msgspec.structs.replace(record, key_generation=_next(record))
        case (ChangeKind.RETIRED, None):
            after = msgspec.structs.replace(record, enabled=False, retired=True)
        case (ChangeKind.PARAMETERS, Parameters()):
            after = msgspec.structs.replace(record, parameters=content)
            if after != record:
                version = record.parameters_version + 1
                after = msgspec.structs.replace(after, parameters_version=version)
        case (ChangeKind.DETAILS, Details()):
            abilities = sorted(set(content.capabilities))
            after = msgspec.structs.replace(
                record, store=content.store, label=content.label, capabilities=abilities
            )
        case (ChangeKind.SUITE, KeyWay()):
            after = msgspec.structs.replace(record, **msgspec.structs.asdict(content))
            if after != record:
                # Another key by the same number would be a key for two uses.
                after = msgspec.structs.replace(after, key_generation=_next(record))
        case (ChangeKind.MOVED, Move()):
            if content.merchant_id == record.merchant_id:
                return None
            after = msgspec.structs.replace(record, **msgspec.structs.asdict(content))
        case _:
            raise ValueError(f"{kind.value} doesn't bring that")
    return None if after == record else after


def _next(record: FleetRecord) -> int:
    return max(1, record.key_generation) + 1
