"""An issuer's EMV keys and check values, behind a seam like the Hsm's: callers name cards, no keys.

Master keys of cards (EMV 4.3 Book 2, A1.4), session keys (A1.3), application cryptograms (8.1),
ARPC (8.2, method 1), script MACs (9.2), and the CVV of stripe and e-commerce. Three profiles:

    des-common   3DES, EMV common session key
    des-emv2000  3DES, EMV2000 session key tree (height 8, branch factor 4)
    sm4          the same steps with a 16-byte block cipher, SM4 in AES's place: the card's key is
                 SM4(IMK, PAN || PSN), the session key SM4(MK, ATC || 0...); MACs are CMAC, first
                 8 bytes; ARPC is the first 8 bytes of SM4(SK, (ARQC xor ARC || 0...) || 0...)

Option B differs from option A for card numbers of more than 16 digits only, and only with 3DES.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from enum import StrEnum
from typing import Literal, NamedTuple, Protocol

import msgspec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.cmac import CMAC
from psec.cvv import generate_cvv
from pyemv import ac, kd, sm

from nodes.crypto import des_warnings

des_warnings.silence()

#: Service codes by which the other two check values differ from the stripe's (EMV and card schemes'
#: practice): of the chip's track 2 image, and CVV2.
CHIP_SERVICE_CODE, ECOMMERCE_SERVICE_CODE = "999", "000"
#: Keystore names: the card verification key, and the key that personalization data travels under.
CVK, TRANSPORT_KEY = "emv:cvk", "emv:transport"
_PERSONALIZATION = b"countersign/personalization/1"
_SCRIPT_MAC_LENGTH = 8
_BLOCK = 16


class ChipProfile(StrEnum):
    """Which algorithms a chip has."""

    DES_COMMON = "des-common"
    DES_EMV2000 = "des-emv2000"
    SM4 = "sm4"


class KeyUse(StrEnum):
    """What an issuer master key is for."""

    CRYPTOGRAM = "ac"
    SCRIPT_INTEGRITY = "smi"
    SCRIPT_SECRECY = "smc"


class ChipIdentity(NamedTuple):
    """By what a card's keys are found. `derivation`: option A or B."""

    pan: str
    psn: str  # two digits
    profile: ChipProfile
    derivation: Literal["A", "B"] = "A"

    def __repr__(self) -> str:
        return f"ChipIdentity({self.profile.value})"


class CardKeys(msgspec.Struct, frozen=True):
    """A card's own master keys: they exist in the card, in the seam, and sealed in between."""

    cryptogram: bytes
    script_integrity: bytes
    script_secrecy: bytes

    def __repr__(self) -> str:
        return "CardKeys()"


class Personalization(msgspec.Struct, frozen=True):
    """All that a card personalizer writes onto a card; travels sealed."""

    pan: str
    psn: str
    expiry: str
    service_code: str
    #: Discretionary data of track 2: of the stripe and of the chip's image of it.
    stripe_data: str
    chip_data: str
    cvv2: str
    profile: ChipProfile | None = None
    derivation: Literal["A", "B"] = "A"
    keys: CardKeys | None = None
    virtual: bool = False

    def __repr__(self) -> str:
        return "Personalization()"


class EmvKeysMissing(Exception):
    """The issuer's keystore has no EMV keys; `name` is one that lacks."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the keystore has no {name}")
        self.name = name


class EmvHsm(Protocol):
    """What an issuer asks of the module that holds its EMV keys. EmvKeysMissing where one lacks."""

    def verify_cryptogram(
        self, card: ChipIdentity, atc: int, covered: bytes, cryptogram: bytes
    ) -> bool:
        """Whether an ARQC, TC or AAC is this card's, over these bytes (in constant time)."""
        ...

    def response_cryptogram(
        self, card: ChipIdentity, atc: int, cryptogram: bytes, code: bytes
    ) -> bytes:
        """ARPC by method 1, 8 bytes; `code`: the two bytes of the authorization response code."""
        ...

    def script_mac(self, card: ChipIdentity, atc: int, cryptogram: bytes, command: bytes) -> bytes:
        """The 8 bytes that authenticate a script command to the card (header || ATC || ARQC)."""
        ...

    def check_value(self, pan: str, expiry: str, service_code: str) -> str:
        """Three digits: CVV, iCVV or CVV2, as the service code says. `expiry` YYMM."""
        ...

    def seal_personalization(
        self,
        pan: str,
        psn: str,
        expiry: str,
        service_code: str,
        chip: ChipIdentity | None,
        *,
        virtual: bool,
    ) -> bytes:
        """What is written onto the card, under the transport key (nonce, AES-256-GCM)."""
        ...


class SoftwareEmvHsm:
    """An EmvHsm whose keys live in this process: 16 bytes each by name, `emv:des:ac` ..."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys = dict(keys)

    def __repr__(self) -> str:
        return f"SoftwareEmvHsm({len(self._keys)} keys)"

    def verify_cryptogram(
        self, card: ChipIdentity, atc: int, covered: bytes, cryptogram: bytes
    ) -> bool:
        """See EmvHsm.verify_cryptogram."""
        own = application_cryptogram(
            self._card_key(card, KeyUse.CRYPTOGRAM), card.profile, atc, covered
        )
        return hmac.compare_digest(own, cryptogram)

    def response_cryptogram(
        self, card: ChipIdentity, atc: int, cryptogram: bytes, code: bytes
    ) -> bytes:
        """See EmvHsm.response_cryptogram."""
        key = self._card_key(card, KeyUse.CRYPTOGRAM)
        return response_cryptogram(key, card.profile, atc, cryptogram, code)

    def script_mac(self, card: ChipIdentity, atc: int, cryptogram: bytes, command: bytes) -> bytes:
        """See EmvHsm.script_mac."""
        key = self._card_key(card, KeyUse.SCRIPT_INTEGRITY)
        return script_mac(key, card.profile, atc, cryptogram, command)

    def check_value(self, pan: str, expiry: str, service_code: str) -> str:
        """See EmvHsm.check_value."""
        return generate_cvv(self._key(CVK), pan, expiry, service_code)

    def seal_personalization(
        self,
        pan: str,
        psn: str,
        expiry: str,
        service_code: str,
        chip: ChipIdentity | None,
        *,
        virtual: bool,
    ) -> bytes:
        """See EmvHsm.seal_personalization."""
        keys = None
        if chip is not None:
            keys = CardKeys(*(self._card_key(chip, use) for use in KeyUse))
        content = Personalization(
            pan=pan,
            psn=psn,
            expiry=expiry,
            service_code=service_code,
            stripe_data=self.check_value(pan, expiry, service_code),
            chip_data=self.check_value(pan, expiry, CHIP_SERVICE_CODE),
            cvv2=self.check_value(pan, expiry, ECOMMERCE_SERVICE_CODE),
            profile=chip.profile if chip is not None else None,
            derivation=chip.derivation if chip is not None else "A",
            keys=keys,
            virtual=virtual,
        )
        nonce = secrets.token_bytes(12)
        aead = AESGCM(self._key(TRANSPORT_KEY))
        return nonce + aead.encrypt(nonce, msgspec.msgpack.encode(content), _PERSONALIZATION)

    def _key(self, name: str) -> bytes:
        try:
            return self._keys[name]
        except KeyError:
            raise EmvKeysMissing(name) from None

    def _card_key(self, card: ChipIdentity, use: KeyUse) -> bytes:
        return card_key(self._key(master_key_name(card.profile, use)), card)


def master_key_name(profile: ChipProfile, use: KeyUse) -> str:
    """The keystore's name of an issuer master key; the two 3DES profiles share theirs."""
    return f"emv:{'sm4' if profile is ChipProfile.SM4 else 'des'}:{use.value}"


def key_names() -> tuple[str, ...]:
    """All names that an issuer's keystore has; 16 bytes each, the transport key 32."""
    masters = (
        master_key_name(profile, use)
        for profile in (ChipProfile.DES_COMMON, ChipProfile.SM4)
        for use in KeyUse
    )
    return (*masters, CVK, TRANSPORT_KEY)


def open_personalization(transport_key: bytes, sealed: bytes) -> Personalization:
    """What a personalizer does; cryptography.exceptions.InvalidTag if altered."""
    plain = AESGCM(transport_key).decrypt(sealed[:12], sealed[12:], _PERSONALIZATION)
    return msgspec.msgpack.decode(plain, type=Personalization)


# --- the algorithms: the same in the issuer's module and in a card ------------------------------


def card_key(master: bytes, card: ChipIdentity) -> bytes:
    """A card's own master key (EMV 4.3 Book 2, A1.4)."""
    if card.profile is ChipProfile.SM4:
        return _sm4(master, bytes.fromhex((card.pan + card.psn).zfill(2 * _BLOCK)))
    derive = kd.derive_icc_mk_b if card.derivation == "B" else kd.derive_icc_mk_a
    return derive(master, card.pan, card.psn)


def session_key(key: bytes, profile: ChipProfile, atc: int) -> bytes:
    """The key of one transaction (EMV 4.3 Book 2, A1.3; EMV2000 Book 2, A1.3.1)."""
    counter = atc.to_bytes(2, "big")
    if profile is ChipProfile.SM4:
        return _sm4(key, counter.ljust(_BLOCK, b"\0"))
    if profile is ChipProfile.DES_EMV2000:
        return kd.derive_emv2000_tree_sk(key, counter, 8, 4, bytes(_BLOCK))
    return kd.derive_common_sk(key, counter.ljust(8, b"\0"))


def application_cryptogram(key: bytes, profile: ChipProfile, atc: int, covered: bytes) -> bytes:
    """ARQC, TC or AAC, 8 bytes, over what the card and the terminal say (ChipData.covered)."""
    session = session_key(key, profile, atc)
    if profile is ChipProfile.SM4:
        return _cmac(session, covered)
    return ac.generate_ac(session, covered, ac.PaddingType.EMV)


def response_cryptogram(
    key: bytes, profile: ChipProfile, atc: int, cryptogram: bytes, code: bytes
) -> bytes:
    """ARPC, method 1 (EMV 4.3 Book 2, 8.2.1), under the session key."""
    session = session_key(key, profile, atc)
    if profile is ChipProfile.SM4:
        mixed = bytes(a ^ b for a, b in zip(cryptogram, code.ljust(8, b"\0"), strict=True))
        return _sm4(session, mixed.ljust(_BLOCK, b"\0"))[:8]
    return ac.generate_arpc_1(session, cryptogram, code)


def script_mac(
    key: bytes, profile: ChipProfile, atc: int, cryptogram: bytes, command: bytes
) -> bytes:
    """The MAC of a script command over header || ATC || ARQC || data (EMV 4.3 Book 2, 9.2.3).

    The session key is derived from the cryptogram's ATC, as that of the cryptogram.
    """
    session = session_key(key, profile, atc)
    content = command[:5] + atc.to_bytes(2, "big") + cryptogram + command[5:]
    if profile is ChipProfile.SM4:
        return _cmac(session, content)
    return sm.generate_command_mac(session, content, _SCRIPT_MAC_LENGTH)


def _sm4(key: bytes, block: bytes) -> bytes:
    cipher = Cipher(algorithms.SM4(key), modes.ECB())  # noqa: S305 (single blocks only)
    return cipher.encryptor().update(block)


def _cmac(key: bytes, message: bytes) -> bytes:
    state = CMAC(algorithms.SM4(key))
    state.update(message)
    return state.finalize()[:8]
