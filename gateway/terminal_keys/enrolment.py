"""What goes into a terminal before its first message (docs/keys.md, Enrolment).

Computed from the gateway's master key and the terminal's record; nothing of it is stored.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.terminal_keys.model import KeyManagement, TerminalRecord
from gateway.terminal_keys.ring import ALGORITHMS, MASTER_KEY, SIGNING_LABEL, key_id, master_label
from nodes.crypto.hsm import KeyUse, SoftwareHsm

_KEY = "enrolment:key"
_BASE = "enrolment:base"
_SIGNING = "enrolment:sm2"


@dataclass(frozen=True, slots=True)
class Enrolment:
    """Two components for two custodians; the terminal shows the check value of their XOR.

    The key is the terminal master key, or the initial key of DUKPT, whose id is `key_id` (8
    bytes, else empty). `gateway_public_key` (64 bytes) verifies the gateway's grants; empty unless
    the terminal signs on by certificate.
    """

    components: tuple[bytes, bytes] = field(repr=False)
    check_value: bytes
    key_id: bytes
    gateway_public_key: bytes


def enrol(hsm: SoftwareHsm, record: TerminalRecord) -> Enrolment:
    """The enrolment of a terminal. KeyUnavailable without the gateway's master key."""
    _derive(hsm, record)
    try:
        public = b""
        if record.management is KeyManagement.SM2:
            public = gateway_public_key(hsm)
        initial = key_id(record) if record.management is KeyManagement.DUKPT else b""
        return Enrolment(hsm.split(_KEY), hsm.check_value(_KEY), initial, public)
    finally:
        hsm.forget(_KEY)


def transport_block(hsm: SoftwareHsm, record: TerminalRecord, transport_key: str) -> str:
    """The same key as a TR-31 key block under a key that terminal and gateway's side share.

    AES and legacy suites; ValueError for SM, whose keys no TR-31 block carries.
    """
    _derive(hsm, record)
    try:
        return hsm.wrap_block(transport_key, _KEY, KeyUse.WRAPPING)
    finally:
        hsm.forget(_KEY)


def gateway_public_key(hsm: SoftwareHsm) -> bytes:
    """The SM2 key that signs this gateway's grants: x and y, 64 bytes."""
    hsm.derive_sm2(MASTER_KEY, SIGNING_LABEL, _SIGNING)
    try:
        return hsm.sm2_public_key(_SIGNING)
    finally:
        hsm.forget(_SIGNING)


def _derive(hsm: SoftwareHsm, record: TerminalRecord) -> None:
    algorithm = ALGORITHMS[record.suite]
    if record.management is not KeyManagement.DUKPT:
        hsm.derive(MASTER_KEY, master_label(record), _KEY, algorithm)
        return
    hsm.derive(MASTER_KEY, master_label(record), _BASE, algorithm)
    try:
        hsm.derive_initial(_BASE, key_id(record), _KEY)
    finally:
        hsm.forget(_BASE)
