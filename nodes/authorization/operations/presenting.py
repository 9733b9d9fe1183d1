"""What a card presented, checked by the issuer's module; and what its chip is answered.

The rules decide on it (rules/entry.py, rules/chip.py); here are the keys' side and the bytes.
"""

from __future__ import annotations

from typing import Literal, cast

import msgspec
import structlog

from nodes.authorization.entry_modes import CHIP_MODES, STRIPE_MODES, entry_mode_of
from nodes.authorization.model import AuthorizationRequest, Kind, Outcome
from nodes.authorization.rules.chip import Script, script_id, scripts_due
from nodes.authorization.state import Card, CardEntry, ChipCheck, Decision, Facts
from nodes.crypto.emv import (
    CHIP_SERVICE_CODE,
    ECOMMERCE_SERVICE_CODE,
    ChipIdentity,
    ChipProfile,
    EmvHsm,
    EmvKeysMissing,
)
from nodes.emv import chip_data, tlv
from nodes.emv.chip_data import ChipDataMalformed

log = structlog.get_logger(__name__)

#: Authorization response codes in the ARPC (EMV 4.3 Book 4, A6): approved, declined.
_APPROVED, _DECLINED = b"00", b"05"
#: Script commands (EMV 4.3 Book 3, 6.5), secured by a MAC of 8 bytes: CLA, INS, P1, P2.
_COMMANDS = {
    Script.BLOCK_CARD: bytes.fromhex("84160000"),
    Script.BLOCK_APPLICATION: bytes.fromhex("841E0000"),
    Script.UNBLOCK_APPLICATION: bytes.fromhex("84180000"),
    # PUT DATA of the offline counters' tag, with zero.
    Script.RESET_OFFLINE: bytes.fromhex("04DA9F59"),
}
_DATA = {Script.RESET_OFFLINE: bytes(2)}
#: Blocking has to work even if the second cryptogram isn't made: before it (71), others after (72).
_BEFORE = Script.BLOCK_CARD | Script.BLOCK_APPLICATION
_CHECK_VALUE_DIGITS = 3
_PRESENTMENTS = frozenset({Kind.PURCHASE, Kind.AUTHORIZATION, Kind.BALANCE_INQUIRY, Kind.TOP_UP})


def with_presented(
    emv: EmvHsm | None, request: AuthorizationRequest, card: Card, facts: Facts
) -> Facts:
    """The facts with what the keys say of chip data and check values."""
    if request.kind is Kind.ADVICE and request.icc is not None:
        return msgspec.structs.replace(facts, chip=_chip_check(emv, request, card))
    if request.kind not in _PRESENTMENTS:
        return facts
    chip = _chip_check(emv, request, card) if request.icc is not None else None
    wrong = _wrong_check_value(emv, request, card) if card.entry is not None else None
    if chip is None and wrong is None:
        return facts
    return msgspec.structs.replace(facts, chip=chip, wrong_check_value=wrong)


def identity(card: Card, entry: CardEntry, pan: str) -> ChipIdentity:
    """By what a chip's keys are found. `entry.profile` must be there."""
    derivation: Literal["A", "B"] = "B" if entry.derivation == "B" else "A"
    return ChipIdentity(pan, entry.psn, ChipProfile(cast(str, entry.profile)), derivation)


def _chip_check(emv: EmvHsm | None, request: AuthorizationRequest, card: Card) -> ChipCheck:
    if request.icc is None or request.pan is None:
        return ChipCheck(fault="DE55 is missing")
    try:
        data = chip_data.parse(request.icc)
    except ChipDataMalformed as error:
        return ChipCheck(fault=error.why)
    entry = card.entry
    if entry is None or entry.profile is None or emv is None:
        return ChipCheck(fault="the card has no chip")
    if request.card_sequence is not None and request.card_sequence[-2:] != entry.psn:
        return ChipCheck(fault="card sequence number")
    try:
        genuine = emv.verify_cryptogram(
            identity(card, entry, request.pan), data.atc, data.covered, data.cryptogram
        )
    except EmvKeysMissing as error:
        log.error("no key for a chip", name=error.name)
        return ChipCheck(data)
    return ChipCheck(data, genuine=genuine)


def _wrong_check_value(emv: EmvHsm | None, request: AuthorizationRequest, card: Card) -> str | None:
    """Which check value of the message is wrong; None if none is, or none is there."""
    if (request.track2 is None and request.cvv2 is None) or request.pan is None:
        return None
    mode = entry_mode_of(request.entry_mode, request.channel)
    checks: list[tuple[str, str, str]] = []
    if request.cvv2 is not None:
        checks.append(("cvv2", ECOMMERCE_SERVICE_CODE, request.cvv2))
    if request.track2 is not None and mode in STRIPE_MODES:
        checks.append(("cvv", card.service_code, request.track2[:_CHECK_VALUE_DIGITS]))
    elif request.track2 is not None and mode in CHIP_MODES:
        checks.append(("icvv", CHIP_SERVICE_CODE, request.track2[:_CHECK_VALUE_DIGITS]))
    for name, service_code, given in checks:
        try:
            if emv is None or emv.check_value(request.pan, card.expiry, service_code) != given:
                return name
        except EmvKeysMissing as error:
            log.error("no key for a check value", name=error.name)
            return name
    return None


# --- the answer ----------------------------------------------------------------------------------


def answer_chip(
    emv: EmvHsm | None,
    request: AuthorizationRequest,
    card: Card,
    facts: Facts,
    decision: Decision,
) -> bytes | None:
    """DE55 of the answer to a genuine cryptogram: ARPC, and scripts that the card is due."""
    check, entry, account = facts.chip, card.entry, decision.account
    if (
        check is None
        or request.kind is Kind.ADVICE  # the card is gone
        or check.data is None
        or not check.genuine
        or entry is None
        or emv is None
        or request.pan is None
        or decision.outcome is Outcome.CRYPTOGRAM_WRONG
    ):
        return None
    chip, data = identity(card, entry, request.pan), check.data
    code = _APPROVED if decision.outcome is Outcome.APPROVED else _DECLINED
    arpc = emv.response_cryptogram(chip, data.atc, data.cryptogram, code)
    elements = [("91", arpc + code)]
    if account is not None and card.card_id in account.cards:
        status = account.cards[card.card_id].status
        number, due = scripts_due(status, account.counters.get(script_id(card.card_id)))
        for template, mask in (("71", _BEFORE), ("72", ~_BEFORE)):
            commands = [
                _command(emv, chip, data.atc, data.cryptogram, script)
                for script in _COMMANDS
                if script & due & mask
            ]
            if commands:
                head = [("9F18", number.to_bytes(4, "big"))]
                inner = [("86", command) for command in commands]
                elements.append((template, tlv.encode(head + inner)))
    return tlv.encode(elements)


def _command(emv: EmvHsm, chip: ChipIdentity, atc: int, cryptogram: bytes, script: Script) -> bytes:
    data = _DATA.get(script, b"")
    command = _COMMANDS[script] + bytes((len(data) + 8,)) + data
    return command + emv.script_mac(chip, atc, cryptogram, command)
