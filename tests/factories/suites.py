"""Terminals of every suite and way of key management, with the gateway's records of them."""

from __future__ import annotations

from gateway.iso8583.dialect import BCD_TPDU, Dialect
from gateway.iso8583.spec import Suite
from gateway.terminal_keys.enrolment import enrol
from gateway.terminal_keys.model import KeyManagement, TerminalRecord
from gateway.terminal_keys.ring import MASTER_KEY
from nodes.crypto import sm2
from nodes.crypto.hsm import SoftwareHsm
from sandbox.secure_module import TerminalKeys
from sandbox.terminal import Terminal
from tests.factories.pos import MERCHANT, secret

#: Every way to have keys: a name, the suite, the key management.
WAYS = {
    "sm-certificate": (Suite.SM, KeyManagement.SM2),
    "sm-tmk": (Suite.SM, KeyManagement.TMK),
    "aes-dukpt": (Suite.AES, KeyManagement.DUKPT),
    "aes-tr31": (Suite.AES, KeyManagement.TMK),
    "legacy-tr31": (Suite.LEGACY, KeyManagement.TMK),
}
CERTIFICATE = bytes.fromhex("5a01c0ffee")


def gateway_hsm() -> SoftwareHsm:
    """What an enrolment needs of the gateway's HSM."""
    return SoftwareHsm({MASTER_KEY: secret(MASTER_KEY)})


def terminal_id(way: str) -> str:
    """A DE41 of its own for each way."""
    return f"SUITE{[*WAYS].index(way):03d}"


def sm2_private(way: str) -> bytes:
    """The private key of the terminal's certificate."""
    return secret(way) + secret(f"{way}'")


def record(way: str, **changes: object) -> TerminalRecord:
    """The gateway's record of the terminal; its keys follow from the gateway's master key."""
    suite, management = WAYS[way]
    fields: dict[str, object] = {
        "terminal_id": terminal_id(way),
        "merchant_id": MERCHANT,
        "suite": suite,
        "management": management,
    }
    if management is KeyManagement.SM2:
        fields["certificate"] = CERTIFICATE
        fields["sm2_public_key"] = sm2.provider().public_key(sm2_private(way))
    return TerminalRecord(**{**fields, **changes})  # type: ignore[arg-type]


def keys(known: TerminalRecord, private: bytes = b"") -> TerminalKeys:
    """What enrolment puts into the terminal of a record."""
    enrolment = enrol(gateway_hsm(), known)
    entered = TerminalKeys.from_components(
        known.suite,
        known.management,
        enrolment.components,
        enrolment.check_value,
        enrolment.key_id,
    )
    return TerminalKeys(
        known.suite,
        known.management,
        entered.key,
        enrolment.key_id,
        private,
        known.certificate,
        enrolment.gateway_public_key,
    )


def terminal(
    way: str, port: int = 0, dialect: Dialect = BCD_TPDU, *, cover: bool = False
) -> Terminal:
    """The enrolled terminal of `record(way)`."""
    return Terminal(
        terminal_id(way),
        MERCHANT,
        b"",
        "127.0.0.1",
        port,
        keys=keys(record(way), sm2_private(way)),
        dialect=dialect,
        cover=cover,
        timeout_s=10.0,
    )
