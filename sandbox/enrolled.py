"""Terminals of every suite and way of key management, enrolled with a gateway's master key."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from gateway.iso8583.spec import Suite
from gateway.terminal_keys.enrolment import enrol
from gateway.terminal_keys.model import KeyManagement, TerminalRecord
from nodes.crypto import sm2
from nodes.crypto.certificates import make_certificate
from nodes.crypto.hsm import SoftwareHsm
from sandbox.secure_module import TerminalKeys

MERCHANT = "FUZZED000000001"
#: The time of these terminals' certificates: 2020 to 2049.
_FROM_MS, _UNTIL_MS = 1_577_836_800_000, 2_493_072_000_000


@dataclass(frozen=True)
class Enrolled:
    """A terminal: the gateway's record of it, and what it holds."""

    record: TerminalRecord
    keys: TerminalKeys

    @property
    def way(self) -> tuple[Suite, KeyManagement]:
        """Its suite, and how it gets its keys."""
        return self.record.suite, self.record.management

    def settings(self) -> dict[str, Any]:
        """As it stands in a gateway's settings."""
        return {
            "terminal_id": self.record.terminal_id,
            "merchant_id": self.record.merchant_id,
            "suite": int(self.record.suite),
            "management": self.record.management.value,
            "certificate": certificate_text(self.record, self.keys.sm2_private),
        }


def certificate_text(record: TerminalRecord, private: bytes) -> str:
    """The X.509 certificate of a terminal's record, signed with its own key; "" without one.

    As a gateway's settings take it, which trust their file and look at no authority.
    """
    if record.management is not KeyManagement.SM2:
        return ""
    return make_certificate(
        lambda text: sm2.provider().sign(private, text),
        serial=record.certificate,
        subject=record.terminal_id,
        public_key=record.sm2_public_key,
        issuer=record.terminal_id,
        issuer_key=record.sm2_public_key,
        not_before_ms=_FROM_MS,
        not_after_ms=_UNTIL_MS,
    ).text()


def ways() -> list[tuple[Suite, KeyManagement]]:
    """Every pair of suite and key management that a terminal's record may have."""
    found = []
    for suite in Suite:
        for management in KeyManagement:
            try:
                _record(0, suite, management, bytes(31) + b"\x01")
            except ValueError:
                continue
            found.append((suite, management))
    return found


def enrolled(hsm: SoftwareHsm, number: int, suite: Suite, management: KeyManagement) -> Enrolled:
    """The `number`-th terminal. `hsm` has the gateway's master key."""
    private = secrets.token_bytes(32)
    private = bytes((private[0] & 0x7F,)) + private[1:]  # below the curve's order
    record = _record(number, suite, management, private)
    enrolment = enrol(hsm, record)
    entered = TerminalKeys.from_components(
        suite, management, enrolment.components, enrolment.check_value, enrolment.key_id
    )
    keys = TerminalKeys(
        suite,
        management,
        entered.key,
        enrolment.key_id,
        private,
        record.certificate,
        enrolment.gateway_public_key,
    )
    return Enrolled(record, keys)


def _record(
    number: int, suite: Suite, management: KeyManagement, sm2_private: bytes
) -> TerminalRecord:
    certified = management is KeyManagement.SM2
    return TerminalRecord(
        f"FZ{number:06d}",
        MERCHANT,
        suite,
        management=management,
        certificate=b"\x5a\x01" if certified else b"",
        sm2_public_key=sm2.provider().public_key(sm2_private) if certified else b"",
    )
