"""Pure checks of the fleet."""

from __future__ import annotations

import msgspec

from nodes import money
from nodes.acquiring.fleet.model import (
    Capability,
    ChangeKind,
    FleetRecord,
    Parameters,
    TerminalKeys,
    TerminalSuite,
)
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


def key_flaws(record: FleetRecord) -> dict[str, str]:
    """What is wrong with how a terminal gets its keys, by field; empty if nothing is."""
    flaws: dict[str, str] = {}
    if record.management is TerminalKeys.DUKPT and record.suite is not TerminalSuite.AES:
        flaws["management"] = "DUKPT is of the AES suite"
    if record.management is not TerminalKeys.SM2:
        for name in ("certificate", "sm2_public_key"):
            if getattr(record, name):
                flaws[name] = "belongs to an SM2 terminal"
        return flaws
    if record.suite is not TerminalSuite.SM:
        flaws["management"] = "SM2 sign-on is of the SM suite"
    if not 1 <= len(record.certificate) // 2 <= 20:
        flaws["certificate"] = "an SM2 terminal needs its certificate's serial number"
    if len(record.sm2_public_key) != 128:
        flaws["sm2_public_key"] = "an SM2 terminal needs the 64 bytes of its public key"
    if record.key_generation == 0:
        flaws["with_key"] = "an SM2 terminal has a key of its own: with_key is true"
    return flaws


def changed(
    record: FleetRecord, kind: ChangeKind, parameters: Parameters | None = None
) -> FleetRecord | None:
    """The record after a change; None if it is so already. `parameters` of a PARAMETERS change."""
    match kind:
        case ChangeKind.DISABLED | ChangeKind.ENABLED:
            enabled = kind is ChangeKind.ENABLED
            if record.enabled is enabled:
                return None
            return msgspec.structs.replace(record, enabled=enabled)
        case ChangeKind.KEYS:
            # A key of the gateway's settings counts as the first.
            following = max(1, record.key_generation) + 1
            return msgspec.structs.replace(record, key_generation=following)
        case ChangeKind.PARAMETERS:
            if parameters is None or parameters == record.parameters:
                return None
            return msgspec.structs.replace(
                record, parameters=parameters, parameters_version=record.parameters_version + 1
            )
        case ChangeKind.ENROLLED:
            raise ValueError("enrolment makes the first record")
