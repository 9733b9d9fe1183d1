"""EMV keys, cryptograms, check values: published vectors; the SM4 profile against other code."""

from __future__ import annotations

import subprocess
import sys

import pytest
from cryptography.exceptions import InvalidTag
from gmssl.sm4 import SM4_ENCRYPT, CryptSM4
from pyemv import tools

from nodes.crypto.emv import (
    CHIP_SERVICE_CODE,
    CVK,
    ECOMMERCE_SERVICE_CODE,
    TRANSPORT_KEY,
    ChipIdentity,
    ChipProfile,
    EmvKeysMissing,
    SoftwareEmvHsm,
    application_cryptogram,
    card_key,
    key_names,
    open_personalization,
    response_cryptogram,
    script_mac,
    session_key,
)
from tests.factories.network import EMV_KEYS

#: The issuer master key of all vectors below.
IMK = bytes.fromhex("0123456789ABCDEFFEDCBA9876543210")
DES = ChipProfile.DES_COMMON


def _card(pan: str, psn: str, derivation: str = "A") -> ChipIdentity:
    return ChipIdentity(pan, psn, DES, "B" if derivation == "B" else "A")


@pytest.mark.parametrize(
    ("pan", "psn", "derivation", "check_digits"),
    [
        # pyemv 1.5.0 (knovichikhin/pyemv), tests/test_kd_hsm.py, test_ac_hsm.py: from an HSM.
        ("9901234567890123", "45", "A", "1DA5"),
        ("12345678901234567", "45", "A", "FF08"),
        ("12345678901234567", "45", "B", "0BAF"),
        ("123456789012345679", "00", "B", "C2F3"),
        ("000000000000000005", "23", "B", "DD73"),  # SHA-1 digits that need the decimalisation
    ],
)
def test_master_keys_of_cards(pan: str, psn: str, derivation: str, check_digits: str) -> None:
    key = card_key(IMK, _card(pan, psn, derivation))
    assert tools.key_check_digits(key, 2).hex().upper() == check_digits


def test_the_published_arqc_is_this_cards() -> None:
    """pyemv, tests/test_kd_hsm.py, test_derive_icc_mk_b_sha_pad: option B, common session key, ATC
    001C, 39 bytes of data, EMV padding."""
    covered = bytes.fromhex(
        "0000000040000000000000000124800004800001241911050152BF45851800001C06011203A0B800"
    )
    card = _card("000000000000000005", "23", "B")
    arqc = bytes.fromhex("8CAD6F2489C640B1")
    assert application_cryptogram(card_key(IMK, card), DES, 0x1C, covered) == arqc
    hsm = SoftwareEmvHsm({"emv:des:ac": IMK})
    assert hsm.verify_cryptogram(card, 0x1C, covered, arqc)
    assert not hsm.verify_cryptogram(card, 0x1D, covered, arqc)
    assert not hsm.verify_cryptogram(card, 0x1C, covered + b"\0", arqc)
    assert not hsm.verify_cryptogram(_card("000000000000000005", "24", "B"), 0x1C, covered, arqc)


def test_session_keys_of_the_tree() -> None:
    """EMV2000 Book 2, A1.3.1: two counters have two keys, and one counter one."""
    key = card_key(IMK, _card("9901234567890123", "45"))
    keys = [session_key(key, ChipProfile.DES_EMV2000, atc) for atc in (1, 1, 2)]
    assert keys[0] == keys[1] != keys[2]
    # pyemv 1.5.0, documentation of derive_emv2000_tree_sk: height 8, branch factor 4, ATC 001C.
    published = bytes.fromhex("E5BF6D1067F194B0A89B7F5D83BC64A2")
    assert session_key(IMK, ChipProfile.DES_EMV2000, 0x001C) == published


def test_check_values_are_those_of_the_published_vector() -> None:
    """psec 1.3.0, documentation of generate_cvv."""
    hsm = SoftwareEmvHsm({CVK: bytes.fromhex("0123456789ABCDEFFEDCBA9876543210")})
    assert hsm.check_value("1234567890123456", "9912", "220") == "170"


def _sm4(key: bytes, block: bytes) -> bytes:
    """SM4 by other code."""
    cipher = CryptSM4()
    cipher.set_key(key, SM4_ENCRYPT)
    return bytes(cipher.one_round(cipher.sk, list(block)))


def _cmac(key: bytes, message: bytes) -> bytes:
    """NIST SP 800-38B over _sm4, written out."""

    def doubled(value: int) -> int:
        value <<= 1
        return (value ^ 0x87) & ((1 << 128) - 1) if value >> 128 else value

    first = doubled(int.from_bytes(_sm4(key, bytes(16)), "big"))
    blocks = [message[at : at + 16] for at in range(0, len(message), 16)] or [b""]
    last, subkey = blocks[-1], first
    if len(last) < 16:
        last, subkey = (last + b"\x80").ljust(16, b"\0"), doubled(first)
    state = bytes(16)
    for block in blocks[:-1]:
        state = _sm4(key, bytes(a ^ b for a, b in zip(state, block, strict=True)))
    mixed = int.from_bytes(state, "big") ^ int.from_bytes(last, "big") ^ subkey
    return _sm4(key, mixed.to_bytes(16, "big"))


def test_the_sm4_profile_against_other_code() -> None:
    card = ChipIdentity("6223001000001234", "01", ChipProfile.SM4)
    key = card_key(IMK, card)
    assert key == _sm4(IMK, bytes.fromhex("00000000000000622300100000123401"))
    session = _sm4(key, bytes.fromhex("001c" + "00" * 14))
    covered = bytes(range(44))
    arqc = application_cryptogram(key, ChipProfile.SM4, 0x1C, covered)
    assert arqc == _cmac(session, covered)[:8]
    mixed = bytes(a ^ b for a, b in zip(arqc, b"00" + bytes(6), strict=True)) + bytes(8)
    assert response_cryptogram(key, ChipProfile.SM4, 0x1C, arqc, b"00") == _sm4(session, mixed)[:8]
    command = bytes.fromhex("8416000008")
    expected = _cmac(session, command + bytes.fromhex("001c") + arqc)[:8]
    assert script_mac(key, ChipProfile.SM4, 0x1C, arqc, command) == expected


def test_what_a_personalizer_gets() -> None:
    hsm = SoftwareEmvHsm(EMV_KEYS)
    chip = ChipIdentity("6223001000001234", "01", ChipProfile.SM4)
    sealed = hsm.seal_personalization("6223001000001234", "01", "3012", "201", chip, virtual=False)
    data = open_personalization(EMV_KEYS[TRANSPORT_KEY], sealed)
    assert data.keys is not None
    assert data.keys.cryptogram == card_key(EMV_KEYS["emv:sm4:ac"], chip)
    values = [
        hsm.check_value("6223001000001234", "3012", code)
        for code in ("201", CHIP_SERVICE_CODE, ECOMMERCE_SERVICE_CODE)
    ]
    assert [data.stripe_data, data.chip_data, data.cvv2] == values
    assert "6223" not in repr(data) + repr(data.keys) + repr(chip) + repr(hsm)
    with pytest.raises(InvalidTag):
        open_personalization(EMV_KEYS[TRANSPORT_KEY], sealed[:-1] + b"\0")


def test_a_missing_key_is_named() -> None:
    hsm = SoftwareEmvHsm({})
    with pytest.raises(EmvKeysMissing, match="emv:cvk"):
        hsm.check_value("4123456789012345", "8701", "101")
    assert len(set(key_names())) == len(key_names()) == 8


_ALL_DES = """
from nodes.crypto.emv import *
chip = ChipIdentity("4123456789012345", "00", ChipProfile.{profile}, "A")
key = card_key(bytes(range(16)), chip)
application_cryptogram(key, chip.profile, 1, bytes(30))
response_cryptogram(key, chip.profile, 1, bytes(8), b"00")
script_mac(key, chip.profile, 1, bytes(8), bytes(5))
SoftwareEmvHsm({{CVK: bytes(range(16))}}).check_value(chip.pan, "2912", "201")
"""


@pytest.mark.parametrize("profile", ["DES_COMMON", "DES_EMV2000"])
def test_des_says_nothing_on_stderr(profile: str) -> None:
    """A node's log is its stderr: the library's warnings about DES belong to nobody there."""
    told = subprocess.run(
        [sys.executable, "-W", "default", "-c", _ALL_DES.format(profile=profile)],
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    assert told.stderr == ""
