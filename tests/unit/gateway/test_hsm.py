"""The HSM seam: published vectors, PIN blocks, key wrapping, and that no key is ever shown."""

from __future__ import annotations

import hmac
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from nodes.crypto.hsm import KeyUnavailable, PinBlockInvalid, SoftwareHsm, WrappedKeyInvalid

# GB/T 32907-2016, annex A, example 1: key and plain text are the same.
SM4_KEY = bytes.fromhex("0123456789abcdeffedcba9876543210")
SM4_CIPHER = bytes.fromhex("681edf34d206965e86b3e94f536e4246")
# Example 2: the same, encrypted a million times.
SM4_MILLION = bytes.fromhex("595298c7c6fd271f0402f804c33d3f66")

# RFC 4493, section 4: AES-CMAC.
AES_KEY = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
AES_MESSAGE = bytes.fromhex(
    "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
    "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
)
AES_TAGS = {
    0: "bb1d6929e95937287fa37d129b756746",
    16: "070a16b46b4d4144f79bdd9dd04a287c",
    40: "dfa66747de9ae63030ca32611497c827",
    64: "51f0bebf7e3b9d92fc49741779363cfe",
}

PAN = "6223001000012340"
OTHER_PAN = "6223001000012357"
PIN = "481516"
ZONE = bytes(range(16))


def hsm(**keys: bytes) -> SoftwareHsm:
    return SoftwareHsm({"terminal": SM4_KEY, "zone": ZONE, "pin_lookup": b"l" * 32, **keys})


def _block(algorithm: Callable[[bytes], object], key: bytes) -> Callable[[bytes], bytes]:
    cipher = Cipher(algorithm(key), modes.ECB())  # type: ignore[arg-type]
    return lambda data: cipher.encryptor().update(data)


def _cmac(encrypt: Callable[[bytes], bytes], message: bytes) -> bytes:
    """NIST SP 800-38B, section 6, written down once more, for a cipher of 16-byte blocks."""

    def doubled(block: bytes) -> bytes:
        number = int.from_bytes(block, "big") << 1
        if number >> 128:
            number = (number & ((1 << 128) - 1)) ^ 0x87
        return number.to_bytes(16, "big")

    def xor(left: bytes, right: bytes) -> bytes:
        return bytes(a ^ b for a, b in zip(left, right, strict=True))

    first = doubled(encrypt(bytes(16)))
    blocks = [message[i : i + 16] for i in range(0, len(message), 16)] or [b""]
    last = blocks[-1]
    if len(last) == 16:
        blocks[-1] = xor(last, first)
    else:
        blocks[-1] = xor((last + b"\x80").ljust(16, b"\0"), doubled(first))
    state = bytes(16)
    for block in blocks:
        state = encrypt(xor(state, block))
    return state


def test_sm4_is_the_standards() -> None:
    assert _block(algorithms.SM4, SM4_KEY)(SM4_KEY) == SM4_CIPHER
    # wrap is one SM4 block: the vector with the key as its own plain text.
    assert hsm().wrap("terminal", "terminal") == SM4_CIPHER


def test_sm4_a_million_times() -> None:
    encryptor = Cipher(algorithms.SM4(SM4_KEY), modes.ECB()).encryptor()
    block = SM4_KEY
    for _ in range(1_000_000):
        block = encryptor.update(block)
    assert block == SM4_MILLION


@pytest.mark.parametrize("length", AES_TAGS)
def test_the_cmac_written_here_meets_rfc_4493(length: int) -> None:
    tag = _cmac(_block(algorithms.AES, AES_KEY), AES_MESSAGE[:length])
    assert tag.hex() == AES_TAGS[length]


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 32, 100, 255])
def test_mac_is_the_first_half_of_sm4_cmac(length: int) -> None:
    message = bytes(range(length))
    expected = _cmac(_block(algorithms.SM4, SM4_KEY), message)
    seam = hsm()
    assert seam.mac("terminal", message) == expected[:8]
    assert seam.verify_mac("terminal", message, expected[:8])
    assert not seam.verify_mac("terminal", message, expected[:7])
    assert not seam.verify_mac("terminal", message + b"\0", expected[:8])
    assert not seam.verify_mac("zone", message, expected[:8])
    seam.derive("terminal", message, "derived")
    assert seam.check_value("derived") == _block(algorithms.SM4, expected)(bytes(16))[:4]


def test_a_pin_block_is_laid_out_as_documented() -> None:
    clear = bytes.fromhex("06481516" + "ff" * 12)
    pan_field = bytes(10) + bytes.fromhex("300100001234")
    expected = _block(algorithms.SM4, SM4_KEY)(
        bytes(a ^ b for a, b in zip(clear, pan_field, strict=True))
    )
    assert hsm().seal_pin("terminal", PIN, PAN) == expected


@pytest.mark.parametrize("pin", ["1234", "12345", "000000", "9" * 12])
def test_a_pin_travels_from_zone_to_zone(pin: str) -> None:
    seam, token = hsm(), b"t" * 16
    block = seam.translate_pin("terminal", "zone", seam.seal_pin("terminal", pin, PAN), PAN)
    assert block == seam.seal_pin("zone", pin, PAN)
    stored = seam.pin_lookup(token, pin)
    assert stored == hmac.digest(b"l" * 32, token + pin.encode(), "sha256")
    assert seam.verify_pin("zone", block, PAN, token, stored)
    assert not seam.verify_pin("zone", block, PAN, b"u" * 16, stored)
    assert not seam.verify_pin("zone", block, PAN, token, seam.pin_lookup(token, "4321"))


def test_a_pin_block_of_another_card_or_key_is_no_pin_block() -> None:
    seam = hsm()
    block = seam.seal_pin("terminal", PIN, PAN)
    for key, data, pan in [
        ("terminal", block, OTHER_PAN),
        ("zone", block, PAN),
        ("terminal", block[:15], PAN),
        ("terminal", block + b"\0", PAN),
        ("terminal", b"", PAN),
        ("terminal", block, "123"),
        ("terminal", bytes(15) + bytes([block[15]]), PAN),
    ]:
        with pytest.raises(PinBlockInvalid):
            seam.translate_pin(key, "zone", data, pan)
        with pytest.raises(PinBlockInvalid):
            seam.verify_pin(key, data, pan, b"t" * 16, b"")


def test_every_flipped_bit_of_a_pin_block_is_noticed_or_harmless() -> None:
    seam, token = hsm(), b"t" * 16
    stored = seam.pin_lookup(token, PIN)
    block = seam.seal_pin("terminal", PIN, PAN)
    for bit in range(128):
        flipped = (int.from_bytes(block, "big") ^ 1 << bit).to_bytes(16, "big")
        with pytest.raises(PinBlockInvalid):
            seam.verify_pin("terminal", flipped, PAN, token, stored)


@pytest.mark.parametrize("pin", ["", "123", "1" * 13, "12a4", "12 4", "１２３４"])
def test_only_four_to_twelve_digits_are_a_pin(pin: str) -> None:
    with pytest.raises(ValueError, match="4 to 12 digits"):
        hsm().pin_lookup(b"t" * 16, pin)
    with pytest.raises(ValueError, match="4 to 12 digits"):
        hsm().seal_pin("terminal", pin, PAN)


def test_a_key_travels_wrapped_with_its_check_value() -> None:
    gateway, terminal = hsm(), SoftwareHsm({"tmk": SM4_KEY})
    gateway.derive("zone", b"label", "working")
    wrapped, check = gateway.wrap("terminal", "working"), gateway.check_value("working")
    terminal.unwrap("tmk", wrapped, check, "mine")
    assert terminal.mac("mine", b"hello") == gateway.mac("working", b"hello")
    for bad_wrapped, bad_check in [
        (wrapped, bytes(4)),
        (bytes([wrapped[0] ^ 1]) + wrapped[1:], check),
        (wrapped[:15], check),
        (wrapped, check[:3]),
    ]:
        with pytest.raises(WrappedKeyInvalid):
            terminal.unwrap("tmk", bad_wrapped, bad_check, "other")


def test_a_key_put_again_replaces_the_old_one_everywhere() -> None:
    seam = hsm()
    seam.derive("zone", b"one", "working")
    first = seam.mac("working", b"hello")
    seam.derive("zone", b"two", "working")
    assert seam.mac("working", b"hello") != first
    seam.forget("working")
    with pytest.raises(KeyUnavailable):
        seam.mac("working", b"hello")
    seam.forget("working")


def test_no_key_and_no_pin_is_shown() -> None:
    seam = hsm()
    seam.mac("terminal", b"x")
    assert SM4_KEY.hex() not in repr(seam)
    assert "4815" not in repr(seam)
    with pytest.raises(PinBlockInvalid) as caught:
        seam.translate_pin("terminal", "zone", seam.seal_pin("terminal", PIN, PAN), OTHER_PAN)
    assert str(caught.value) == "PIN block invalid"
    with pytest.raises(KeyUnavailable, match="nosuch"):
        seam.mac("nosuch", b"")
