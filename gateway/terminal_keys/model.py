"""What the gateway knows of a terminal."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from gateway.iso8583.spec import Suite

#: The time of what has no certificate.
ALWAYS = (0, 1 << 62)


class KeyManagement(StrEnum):
    """How a terminal gets its working keys (docs/keys.md)."""

    #: Sign-on; the keys come wrapped under the terminal master key: SM4-ECB, TR-31 D or B.
    TMK = "tmk"
    #: Sign-on; the keys come encrypted to an ephemeral SM2 key that the terminal signed. SM only.
    SM2 = "sm2"
    #: No sign-on; every message names its keys by a key serial number (X9.24-3). AES only.
    DUKPT = "dukpt"


@dataclass(frozen=True, slots=True)
class TerminalRecord:
    """A terminal that may speak to this gateway.

    `static_keys`: whether the keys of epoch 0, which follow from the terminal master key alone,
    are accepted for financial messages (sandbox and tests).
    `generation`: which terminal master key it holds; a new one makes the old one useless.
    `certificate`, `sm2_public_key`: serial number (1 to 20 bytes) and SM2 key (x and y, 64 bytes)
    of the certificate that signs its sign-on; with KeyManagement.SM2 only. `valid_ms`: from when
    until when that holds (ms since 1970). ValueError for a record that fits no suite.
    """

    terminal_id: str  # DE41
    merchant_id: str  # DE42
    suite: Suite = Suite.SM
    static_keys: bool = False
    management: KeyManagement = KeyManagement.TMK
    generation: int = 1
    certificate: bytes = b""
    sm2_public_key: bytes = b""
    valid_ms: tuple[int, int] = ALWAYS

    def __post_init__(self) -> None:
        if self.management is KeyManagement.SM2:
            if self.suite is not Suite.SM:
                raise ValueError(f"terminal {self.terminal_id}: SM2 sign-on is of the SM suite")
            if len(self.sm2_public_key) != 64 or not 1 <= len(self.certificate) <= 20:
                raise ValueError(
                    f"terminal {self.terminal_id}: SM2 sign-on needs a certificate's serial "
                    "number (1 to 20 bytes) and its public key (64 bytes)"
                )
        if self.management is KeyManagement.DUKPT and self.suite is not Suite.AES:
            raise ValueError(f"terminal {self.terminal_id}: DUKPT is of the AES suite")
        if not 1 <= self.generation <= 0xFFFF:
            raise ValueError(f"terminal {self.terminal_id}: a key generation is 1 to 65535")
