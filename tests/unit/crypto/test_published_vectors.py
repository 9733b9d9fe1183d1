"""The published examples of the standards behind the suites; each with where it stands.

SM2, SM3: test_sm2.py. SM4 itself: tests/unit/gateway/test_hsm.py. AES-CMAC: RFC 4493, there too.
"""

from __future__ import annotations

import random

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from psec import pinblock as psec_blocks

from nodes.crypto.hsm import (
    Algorithm,
    KeyUnavailable,
    KeyUse,
    PinBlockInvalid,
    SoftwareHsm,
    dukpt,
    pin_blocks,
)

# RFC 8998, appendix A.1: SM4-GCM.
SM4_KEY = bytes.fromhex("0123456789abcdeffedcba9876543210")
GCM_NONCE = bytes.fromhex("00001234567800000000abcd")
GCM_ASSOCIATED = bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2")
GCM_PLAIN = bytes.fromhex(
    "aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbccccccccccccccccdddddddddddddddd"
    "eeeeeeeeeeeeeeeeffffffffffffffffeeeeeeeeeeeeeeeeaaaaaaaaaaaaaaaa"
)
GCM_CIPHER = bytes.fromhex(
    "17f399f08c67d5ee19d0dc9969c4bb7d5fd46fd3756489069157b282bb200735"
    "d82710ca5c22f0ccfa7cbf93d496ac15a56834cbcf98c397b4024a2691233b8d"
)
GCM_TAG = bytes.fromhex("83de3541e4c2b58177e065a9bf7b62ec")

# RFC 8998, appendix A.2: SM4-CCM, same key, nonce, data.
CCM_CIPHER = bytes.fromhex(
    "48af93501fa62adbcd414cce6034d895dda1bf8f132f042098661572e7483094"
    "fd12e518ce062c98acee28d95df4416bed31a2f04476c18bb40c84a74b97dc5b"
)
CCM_TAG = bytes.fromhex("16842d4fa186f56ab33256971fa110f4")

# ANSI X9.24-3-2017, test vectors (supplement), AES-128 from an AES-128 base derivation key.
BDK = bytes.fromhex("fedcba9876543210f1f1f1f1f1f1f1f1")
KEY_ID = bytes.fromhex("1234567890123456")
INITIAL_KEY = "1273671ea26ac29afa4d1084127652a1"
TRANSACTION_KEYS = {
    1: "4f21b565bad9835e112b6465635eae44",
    2: "2f34d68de10f68d38091a73b9e7c437c",
}
WORKING_KEYS = [
    (1, KeyUse.PIN, "af8cb133a78f8dc2d1359f18527593fb"),
    (1, KeyUse.MAC, "a2dc23de6fde0824a2bc321e08e4b8b7"),
    (1, KeyUse.ANSWER_MAC, "dbb463945b286c07cd3ad82ee96fd9c9"),
    (1, KeyUse.DATA, "a35c412efd41fdb98b69797c02dcd08f"),
    (2, KeyUse.PIN, "d30bdc73ec9714b000bec66bdb7b6d09"),
    (3, KeyUse.PIN, "7d69f01f3b45449f62c7816ece723268"),
    (8, KeyUse.PIN, "4d9df3fbee3448fc3e676d04320a90f5"),
    (0x20000, KeyUse.PIN, "ab828be7b58c7ec5d5ed0d5d320a0c9d"),
    (0x845FED, KeyUse.PIN, "d1dda386aa4a556af0119fdcb5d132c6"),
]

# The same supplement: ISO 9564 format 4 under the PIN key of transaction 1.
FORMAT_4 = ("1234", "4111111111111111", "a912150391ab65a67e52883d81ce2d15")

# TR-31:2018, A.7.2.2 (version B) and A.7.4 (version D).
BLOCK_B = (
    "dd7515f2bfc17f85ce48f3ca25cb21f6",
    "B0080P0TE00E000094B420079CC80BA3461F86FE26EFC4A3B8E4FA4C5F5341176EED7B727B8A248E",
    "3f419e1cb7079442aa37474c2efbf8b8",
)
BLOCK_D = (
    "88e1ab2a2e3dd38c1fa039a536500cc8a87ab9d62dc92c01058fa79f44657de6",
    "D0112P0AE00E0000B82679114F470F540165EDFBF7E250FCEA43F810D215F8D207E2E417C07156A2"
    "7E8E31DA05F7425509593D03A457DC34",
    "3f419e1cb7079442aa37474c2efbf8b8",
)

# ISO/IEC 9797-1, examples for MAC algorithm 3, padding method 2 (a printing of the standard has the
# last two bytes as ef96; every implementation computes these).
RETAIL_KEY = bytes.fromhex("0123456789abcdeffedcba9876543210")
RETAIL = {b"Now is the time for all ": "e9086230ca3be796"}


def test_sm4_gcm_of_rfc_8998() -> None:
    seam = SoftwareHsm({"data": SM4_KEY})
    covered = GCM_NONCE + GCM_CIPHER + GCM_TAG
    assert seam.uncover("data", covered, GCM_ASSOCIATED) == GCM_PLAIN


def test_sm4_ccm_of_rfc_8998() -> None:
    """Not used on the link; NIST SP 800-38C over the SM4 that is, for the cipher's own sake."""
    encryptor = Cipher(algorithms.SM4(SM4_KEY), modes.ECB()).encryptor()

    def xor(left: bytes, right: bytes) -> bytes:
        return bytes(a ^ b for a, b in zip(left, right, strict=False))

    def padded(data: bytes) -> bytes:
        return data + bytes(-len(data) % 16)

    # Flags of the first block: associated data, tag of 16 bytes, length in 3 bytes.
    first = bytes((0x40 | 7 << 3 | 2,)) + GCM_NONCE + len(GCM_PLAIN).to_bytes(3, "big")
    associated = len(GCM_ASSOCIATED).to_bytes(2, "big") + GCM_ASSOCIATED
    state = bytes(16)
    data = first + padded(associated) + padded(GCM_PLAIN)
    for position in range(0, len(data), 16):
        state = encryptor.update(xor(state, data[position : position + 16]))
    stream = b"".join(
        encryptor.update(bytes((2,)) + GCM_NONCE + count.to_bytes(3, "big"))
        for count in range(1 + len(GCM_PLAIN) // 16)
    )
    assert xor(GCM_PLAIN, stream[16:]) == CCM_CIPHER
    assert xor(state, stream) == CCM_TAG


def _serial(counter: int) -> bytes:
    return KEY_ID + counter.to_bytes(4, "big")


def _block(key: bytes, data: bytes) -> bytes:
    return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(data)


def test_the_initial_key_of_x9_24_3() -> None:
    assert dukpt.initial_key_data(KEY_ID).hex() == "01018001000200801234567890123456"
    assert _block(BDK, dukpt.initial_key_data(KEY_ID)).hex() == INITIAL_KEY


@pytest.mark.parametrize("counter", TRANSACTION_KEYS)
def test_the_derivation_keys_of_x9_24_3(counter: int) -> None:
    key = dukpt.transaction_key(_block, bytes.fromhex(INITIAL_KEY), _serial(counter))
    assert key.hex() == TRANSACTION_KEYS[counter]


@pytest.mark.parametrize(("counter", "use", "expected"), WORKING_KEYS)
def test_the_working_keys_of_x9_24_3(counter: int, use: KeyUse, expected: str) -> None:
    host = SoftwareHsm({"bdk": BDK}, {"bdk": Algorithm.AES})
    host.derive_dukpt("bdk", _serial(counter), {use: "working"})
    assert host._secret("working").hex() == expected
    # The terminal, which has the initial key alone.
    device = SoftwareHsm({"ik": bytes.fromhex(INITIAL_KEY)}, {"ik": Algorithm.AES})
    device.derive_transaction("ik", _serial(counter), {use: "working"})
    assert device._secret("working").hex() == expected


def test_transactions_in_any_order_have_the_keys_of_their_counters() -> None:
    initial_key = bytes.fromhex(INITIAL_KEY)
    source = random.Random(20261123)
    counters = [*range(1, 300), *TRANSACTION_KEYS]
    counters += [dukpt.next_counter(source.randrange(1 << 31)) for _ in range(300)]
    counters += source.choices(counters, k=300)
    derivation = dukpt.Derivation(KEY_ID, initial_key)
    for counter in counters:
        key = derivation.transaction_key(_block, _serial(counter))
        assert key == _key_from_the_start(initial_key, counter), counter
    with pytest.raises(ValueError, match="another terminal"):
        derivation.transaction_key(_block, bytes(8) + bytes.fromhex("00000001"))


def _key_from_the_start(key: bytes, counter: int) -> bytes:
    """One derivation for each one bit of the counter, from the highest (section 6.3.2)."""
    reached = 0
    for bit in range(31, -1, -1):
        if counter >> bit & 1:
            reached |= 1 << bit
            data = bytes.fromhex("0101800000020080") + KEY_ID[4:] + reached.to_bytes(4, "big")
            key = _block(key, data)
    return key


def test_a_key_of_a_host_follows_the_key_it_was_derived_from() -> None:
    """Keys on the way are kept by base key: not when that is forgotten or is another one."""
    bases = {"bdk": BDK, "other": bytes(16)}
    host = SoftwareHsm(bases, dict.fromkeys(bases, Algorithm.AES))
    for base in ("bdk", "other", "bdk"):
        host.derive_dukpt(base, _serial(7), {KeyUse.MAC: f"{base}'s"})
    assert host._secret("bdk's") != host._secret("other's")
    host.forget("bdk")
    with pytest.raises(KeyUnavailable):
        host.derive_dukpt("bdk", _serial(8), {KeyUse.MAC: "none"})


@pytest.mark.parametrize("pan", ["1", "12345", "6223001000012340", "6223001000012340123"])
def test_format_4_is_read_as_psec_reads_it(pan: str) -> None:
    assert pin_blocks.aes_pan_field(pan) == psec_blocks.encode_pan_field_iso_4(pan)
    source = random.Random(pan)
    for _ in range(500):
        digits = "".join(source.choices("0123456789", k=source.randint(4, 12)))
        field = bytearray(pin_blocks.aes_pin_field(digits))
        assert pin_blocks.aes_pin(bytes(field)) == digits
        field[source.randrange(16)] ^= 1 << source.randrange(8)
        try:
            expected = psec_blocks.decode_pin_field_iso_4(bytes(field))
        except ValueError:
            with pytest.raises(PinBlockInvalid):
                pin_blocks.aes_pin(bytes(field))
        else:
            assert pin_blocks.aes_pin(bytes(field)) == expected
    for wrong in ("", "1" * 20, "12a", "\u0661\u0662\u0663"):
        with pytest.raises(PinBlockInvalid):
            pin_blocks.aes_pan_field(wrong)


def test_no_counter_has_more_than_sixteen_ones() -> None:
    assert dukpt.next_counter(0) == 1
    assert dukpt.next_counter(0xFFFE) == 0xFFFF
    assert dukpt.next_counter(0x1FFFE) == 0x20000  # seventeen ones are skipped
    assert dukpt.next_counter(0xFFFF0000) == 0x100000000  # the last: no more keys
    counter, seen = 0xFFFFF - 200, 0
    while counter < 0x100000:
        counter = dukpt.next_counter(counter)
        assert counter.bit_count() <= 16
        seen += 1
    assert seen < 200


def test_a_format_4_block_of_x9_24_3() -> None:
    pin, pan, block = FORMAT_4
    host = SoftwareHsm({"bdk": BDK, "zone": SM4_KEY, "pin_lookup": b"l"}, {"bdk": Algorithm.AES})
    host.derive_dukpt("bdk", _serial(1), {KeyUse.PIN: "pin"})
    translated = host.translate_pin("pin", "zone", bytes.fromhex(block), pan)
    assert translated == host.seal_pin("zone", pin, pan)


# ISO 9564-1: the clear blocks of formats 0 and 3 as the standard lays them out.
@pytest.mark.parametrize(
    ("pin", "pan", "clear"),
    [
        ("1234", "5432101234567890", "041215fedcba9876"),  # format 0
        ("1234", "5432101234567890", "341215ab89efcd23"),  # format 3, filled with A
    ],
)
def test_formats_0_and_3(pin: str, pan: str, clear: str) -> None:
    seam = SoftwareHsm(
        {"pin": RETAIL_KEY, "zone": SM4_KEY}, {"pin": Algorithm.TDES, "zone": Algorithm.SM4}
    )
    block = seam._encrypt("pin", bytes.fromhex(clear))
    assert seam.translate_pin("pin", "zone", block, pan) == seam.seal_pin("zone", pin, pan)
    if clear.startswith("0"):
        assert seam.seal_pin("pin", pin, pan) == block


@pytest.mark.parametrize("vector", [BLOCK_B, BLOCK_D], ids="BD")
def test_the_key_blocks_of_tr_31(vector: tuple[str, str, str]) -> None:
    protection, block, key = vector
    kind = Algorithm.AES if block[0] == "D" else Algorithm.TDES
    seam = SoftwareHsm({"tmk": bytes.fromhex(protection)}, {"tmk": kind})
    seam.unwrap_block("tmk", block, KeyUse.PIN, "pin")
    assert seam._secret("pin").hex() == key


@pytest.mark.parametrize("message", RETAIL)
def test_mac_algorithm_3_of_iso_9797_1(message: bytes) -> None:
    seam = SoftwareHsm({"mac": RETAIL_KEY}, {"mac": Algorithm.TDES})
    assert seam.mac("mac", message).hex() == RETAIL[message]
