"""One suite for every Hsm: the software one, and a PKCS#11 token (SoftHSM2) where it is installed.

A token's derived keys are those of the software HSM: who moves the local master key into a token
changes no terminal's keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pkcs11
import pytest
from pkcs11 import Attribute

from nodes.crypto import sm2
from nodes.crypto.hsm import (
    PIN_LOOKUP_KEY,
    Algorithm,
    CoverInvalid,
    Hsm,
    KeyUnavailable,
    KeyUse,
    PinBlockInvalid,
    SoftwareHsm,
    WrappedKeyInvalid,
)
from nodes.crypto.hsm.pkcs11 import Pkcs11Hsm, TokenUnusable, open_session
from tests.factories import tokens

MASTER = bytes(range(16))
LOOKUP = b"l" * 32
PAN, OTHER_PAN = "6223001000012340", "6223001000012357"
TOKEN = b"t" * 16
#: One key of each algorithm and use, put in; what the token can't hold lies protected outside it.
KEYS = {
    "master": MASTER,
    "zone": bytes(range(16, 32)),
    "sm4": bytes(range(32, 48)),
    "aes": bytes(range(48, 64)),
    "tdes": bytes(range(64, 80)),
    "tmk_aes": bytes(range(80, 96)),
    "tmk_tdes": bytes(range(96, 112)),
    "bdk": bytes(range(112, 128)),
    PIN_LOOKUP_KEY: LOOKUP,
}
KINDS = {
    "master": Algorithm.AES,
    "aes": Algorithm.AES,
    "tdes": Algorithm.TDES,
    "tmk_aes": Algorithm.AES,
    "tmk_tdes": Algorithm.TDES,
    "bdk": Algorithm.AES,
}
PIN_KEYS = ("sm4", "aes", "tdes")
#: Those of KEYS that are put into the token; the others can't do their work there.
IN_TOKEN = ("master", "aes", "bdk", PIN_LOOKUP_KEY)


def _software() -> SoftwareHsm:
    return SoftwareHsm(KEYS, KINDS)


def _token() -> SoftwareHsm:
    hsm = Pkcs11Hsm(tokens.session())
    for name in [*hsm._objects]:
        hsm.destroy(name)
    for name in IN_TOKEN:
        hsm.store(name, KEYS[name], KINDS.get(name, Algorithm.SM4))
    outside = {name: hsm.protect(name, KEYS[name]) for name in KEYS if name not in IN_TOKEN}
    return Pkcs11Hsm(tokens.session(), outside, KINDS)


_KINDS: Mapping[str, Callable[[], SoftwareHsm]] = {"software": _software, "pkcs11": _token}


@pytest.fixture(params=_KINDS)
def hsm(request: pytest.FixtureRequest) -> SoftwareHsm:
    if request.param == "pkcs11" and tokens.library() is None:
        pytest.skip("SoftHSM2 isn't installed here")
    return _KINDS[request.param]()


def seal(key: str, pin: str, pan: str = PAN, form: int = 0) -> bytes:
    """A PIN block as a terminal makes it."""
    return SoftwareHsm({key: KEYS[key]}, KINDS).seal_pin(key, pin, pan, form)


def test_it_is_an_hsm(hsm: Hsm) -> None:
    # mypy checks the protocol; here: that every method of it is there.
    assert all(hasattr(hsm, name) for name in dir(Hsm) if not name.startswith("_"))


@pytest.mark.parametrize("pin", ["1234", "12345", "000000", "9" * 12])
@pytest.mark.parametrize("to_key", PIN_KEYS)
@pytest.mark.parametrize("from_key", PIN_KEYS)
def test_a_pin_goes_from_every_suite_to_every_other(
    hsm: SoftwareHsm, from_key: str, to_key: str, pin: str
) -> None:
    block = hsm.translate_pin(from_key, to_key, seal(from_key, pin), PAN)
    assert len(block) == (8 if to_key == "tdes" else 16)
    stored = hsm.pin_lookup(TOKEN, pin)
    assert hsm.verify_pin(to_key, block, PAN, TOKEN, stored)
    assert not hsm.verify_pin(to_key, block, PAN, b"u" * 16, stored)
    wrong = hsm.pin_lookup(TOKEN, "4321")
    assert not hsm.verify_pin(to_key, block, PAN, TOKEN, wrong)


def test_format_3_is_read_too(hsm: SoftwareHsm) -> None:
    block = seal("tdes", "481516", form=3)
    assert block != seal("tdes", "481516", form=3)  # random fill
    assert hsm.verify_pin("tdes", block, PAN, TOKEN, hsm.pin_lookup(TOKEN, "481516"))


@pytest.mark.parametrize("key", PIN_KEYS)
def test_a_pin_block_of_another_card_key_or_length_is_none(hsm: SoftwareHsm, key: str) -> None:
    block = seal(key, "481516")
    for name, data, pan in [
        (key, block[:-1], PAN),
        (key, block + b"\0", PAN),
        (key, b"", PAN),
        (key, bytes(len(block)), PAN),
        (key, block, "123"),
        ("zone", block, PAN),
    ]:
        with pytest.raises(PinBlockInvalid):
            hsm.translate_pin(name, "zone", data, pan)
    # Under format 0 another card's PAN gives another PIN or none; the others notice it.
    if key != "tdes":
        with pytest.raises(PinBlockInvalid):
            hsm.translate_pin(key, "zone", block, OTHER_PAN)


@pytest.mark.parametrize("key", PIN_KEYS)
def test_no_error_shows_a_pin(hsm: SoftwareHsm, key: str) -> None:
    block = seal(key, "481516")
    if key == "tdes":  # length 6, and a letter among the digits
        clear = int("06481a16ffffffff", 16) ^ int(PAN[-13:-1], 16)
        block = _software()._encrypt("tdes", clear.to_bytes(8, "big"))
    with pytest.raises(PinBlockInvalid) as caught:
        hsm.translate_pin(key, "zone", block, OTHER_PAN if key != "tdes" else PAN)
    assert str(caught.value) == "PIN block invalid"
    assert caught.value.__context__ is None or caught.value.__suppress_context__


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 15, 16, 17, 255])
@pytest.mark.parametrize("key", ["sm4", "aes", "tdes"])
def test_a_mac_is_the_same_everywhere(hsm: SoftwareHsm, key: str, length: int) -> None:
    message = bytes(range(length))
    mac = hsm.mac(key, message)
    assert len(mac) == 8
    assert mac == _software().mac(key, message)
    assert hsm.verify_mac(key, message, mac)
    assert not hsm.verify_mac(key, message + b"\0", mac)
    assert not hsm.verify_mac(key, message, mac[:7])


@pytest.mark.parametrize("key", ["sm4", "aes", "tdes"])
def test_what_is_covered_is_uncovered_by_its_key_alone(hsm: SoftwareHsm, key: str) -> None:
    for plain in (b"", b"6223001000012340", b"\x80\x00" * 9):
        covered = hsm.cover(key, plain, b"bound")
        assert covered != hsm.cover(key, plain, b"bound")
        assert hsm.uncover(key, covered, b"bound") == plain
        assert _software().uncover(key, covered, b"bound") == plain
    covered = hsm.cover(key, b"6223001000012340", b"bound")
    if key != "tdes":  # CBC has no tag: there the message's MAC tells
        for changed, associated in (
            (covered, b"other"),
            (covered[:-1] + bytes((covered[-1] ^ 1,)), b"bound"),
            (covered[:20], b"bound"),
        ):
            with pytest.raises(CoverInvalid):
                hsm.uncover(key, changed, associated)
    for short in (b"", b"1234567", covered[:-3]):
        with pytest.raises(CoverInvalid):
            hsm.uncover(key, short, b"bound")


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("parent", ["master", "sm4", "tmk_aes", "tmk_tdes"])
def test_derived_keys_are_the_same_everywhere(
    hsm: SoftwareHsm, parent: str, algorithm: Algorithm
) -> None:
    other = _software()
    for label in (b"countersign/mac/0", b"countersign/pin/0"):
        hsm.derive(parent, label, "derived", algorithm)
        other.derive(parent, label, "derived", algorithm)
        assert hsm.check_value("derived") == other.check_value("derived")
        assert hsm.mac("derived", b"hello") == other.mac("derived", b"hello")
    hsm.forget("derived")
    hsm.forget("derived")
    with pytest.raises(KeyUnavailable):
        hsm.mac("derived", b"hello")


def test_dukpt_keys_are_the_same_everywhere(hsm: SoftwareHsm) -> None:
    other = _software()
    serial = bytes.fromhex("123456789012345600845fed")
    seen = set()
    for use in (KeyUse.PIN, KeyUse.MAC, KeyUse.ANSWER_MAC, KeyUse.DATA):
        hsm.derive_dukpt("bdk", serial, {use: "transaction"})
        other.derive_dukpt("bdk", serial, {use: "transaction"})
        seen.add(hsm.check_value("transaction"))
        assert hsm.check_value("transaction") == other.check_value("transaction")
    assert len(seen) == 4
    for wrong in (serial[:11], serial[:8] + bytes(4), serial[:8] + b"\xff" * 4):
        with pytest.raises(ValueError, match="key serial number"):
            hsm.derive_dukpt("bdk", wrong, {KeyUse.PIN: "transaction"})


@pytest.mark.parametrize(
    ("tmk", "algorithm", "version"),
    [("tmk_aes", Algorithm.AES, "D"), ("tmk_tdes", Algorithm.TDES, "B")],
)
@pytest.mark.parametrize("use", [KeyUse.PIN, KeyUse.MAC, KeyUse.DATA])
def test_a_key_travels_in_a_key_block(
    hsm: SoftwareHsm, tmk: str, algorithm: Algorithm, version: str, use: KeyUse
) -> None:
    hsm.derive("master", b"label", "working", algorithm)
    block = hsm.wrap_block(tmk, "working", use)
    assert block[0] == version
    terminal = _software()
    terminal.unwrap_block(tmk, block, use, "mine")
    assert terminal.check_value("mine") == hsm.check_value("working")
    hsm.unwrap_block(tmk, block, use, "back")
    assert hsm.check_value("back") == hsm.check_value("working")
    wrong_use = KeyUse.MAC if use is KeyUse.PIN else KeyUse.PIN
    spoiled = block[:-1] + ("0" if block[-1] != "0" else "1")
    header = block[:5] + ("D0" if block[5:7] != "D0" else "P0") + block[7:]
    for text, expected in (
        (block, wrong_use),
        (spoiled, use),
        (header, use),
        (block[:20], use),
        ("", use),
    ):
        with pytest.raises(WrappedKeyInvalid):
            hsm.unwrap_block(tmk, text, expected, "back")


def test_a_key_travels_under_sm4(hsm: SoftwareHsm) -> None:
    hsm.derive("master", b"label", "working")
    wrapped, check = hsm.wrap("sm4", "working"), hsm.check_value("working")
    terminal = _software()
    terminal.unwrap("sm4", wrapped, check, "mine")
    assert terminal.mac("mine", b"x") == hsm.mac("working", b"x")
    for bad_wrapped, bad_check in ((wrapped, bytes(4)), (wrapped[:15], check), (wrapped, b"")):
        with pytest.raises(WrappedKeyInvalid):
            hsm.unwrap("sm4", bad_wrapped, bad_check, "other")


def test_keys_travel_encrypted_to_an_sm2_key(hsm: SoftwareHsm) -> None:
    private, public = sm2.provider().generate()
    names = ("working", "zone")
    hsm.derive("master", b"label", "working")
    envelope = hsm.wrap_sm2(public, names)
    checks = {f"my {name}": hsm.check_value(name) for name in names}
    terminal = SoftwareHsm({"ephemeral": private})
    terminal.unwrap_sm2("ephemeral", envelope, checks)
    assert terminal.mac("my working", b"x") == hsm.mac("working", b"x")
    with pytest.raises(WrappedKeyInvalid):
        terminal.unwrap_sm2("ephemeral", envelope, {**checks, "one more": bytes(4)})
    with pytest.raises(WrappedKeyInvalid):
        terminal.unwrap_sm2("ephemeral", envelope[:-1] + b"\0", checks)
    with pytest.raises(WrappedKeyInvalid):
        terminal.unwrap_sm2("ephemeral", envelope, dict.fromkeys(checks, bytes(4)))


def test_a_signature_is_the_derived_keys(hsm: SoftwareHsm) -> None:
    hsm.derive_sm2("master", b"countersign/sm2/1", "signing")
    other = _software()
    other.derive_sm2("master", b"countersign/sm2/1", "signing")
    public = hsm.sm2_public_key("signing")
    assert public == other.sm2_public_key("signing")
    signature = hsm.sm2_sign("signing", b"grant")
    assert sm2.provider().verify(public, b"grant", signature)
    assert not sm2.provider().verify(public, b"other", signature)


def test_components_are_the_key_together_and_nothing_alone(hsm: SoftwareHsm) -> None:
    hsm.derive("master", b"tmk", "tmk", Algorithm.AES)
    first, second = hsm.split("tmk")
    assert hsm.split("tmk")[0] != first
    key = bytes(a ^ b for a, b in zip(first, second, strict=True))
    check = SoftwareHsm({"tmk": key}, {"tmk": Algorithm.AES}).check_value("tmk")
    assert check == hsm.check_value("tmk")


def test_a_name_that_is_not_there_is_unavailable(hsm: SoftwareHsm) -> None:
    for call in (
        lambda: hsm.mac("nosuch", b""),
        lambda: hsm.derive("nosuch", b"", "x"),
        lambda: hsm.translate_pin("nosuch", "zone", bytes(16), PAN),
        lambda: hsm.wrap("nosuch", "zone"),
        lambda: hsm.wrap_block("tmk_aes", "nosuch", KeyUse.PIN),
        lambda: hsm.sm2_sign("nosuch", b""),
        lambda: hsm.check_value("nosuch"),
        lambda: hsm.cover("nosuch", b"", b""),
    ):
        with pytest.raises(KeyUnavailable, match="nosuch"):
            call()


def test_nothing_shows_a_key(hsm: SoftwareHsm) -> None:
    for name in ("sm4", "aes", "tdes"):
        hsm.mac(name, b"x")
    assert not any(key.hex() in repr(hsm) for key in KEYS.values())


# What only a token does


@pytest.fixture
def token() -> Pkcs11Hsm:
    if tokens.library() is None:
        pytest.skip("SoftHSM2 isn't installed here")
    made = _token()
    assert isinstance(made, Pkcs11Hsm)
    return made


@pytest.mark.parametrize("name", IN_TOKEN)
def test_a_stored_key_never_leaves_the_token(token: Pkcs11Hsm, name: str) -> None:
    held = token._objects[name]
    assert held[Attribute.SENSITIVE]
    assert not held[Attribute.EXTRACTABLE]
    with pytest.raises(pkcs11.PKCS11Error):
        _ = held[Attribute.VALUE]
    with pytest.raises(KeyUnavailable, match="doesn't leave the token"):
        token.split(name)
    assert KEYS[name] not in token._keys.values()


def test_a_stored_key_is_there_after_a_restart_and_never_replaced(token: Pkcs11Hsm) -> None:
    again = Pkcs11Hsm(tokens.session())
    assert again.check_value("master") == _software().check_value("master")
    with pytest.raises(ValueError, match="has a key 'master'"):
        again.store("master", bytes(16), Algorithm.AES)
    with pytest.raises(ValueError, match="AES and 3DES"):
        again.store("sm", bytes(16), Algorithm.SM4)


def test_derived_aes_keys_lie_in_the_token(token: Pkcs11Hsm) -> None:
    token.derive("master", b"label", "working", Algorithm.AES)
    assert "working" in token._objects
    assert "working" not in token._keys
    with pytest.raises(pkcs11.PKCS11Error):
        _ = token._objects["working"][Attribute.VALUE]


def test_a_protected_key_is_bound_to_its_name_and_token(token: Pkcs11Hsm) -> None:
    blob = token.protect("zone", KEYS["zone"])
    assert KEYS["zone"] not in blob
    for name, value in (("other", blob), ("zone", blob[:-1] + b"\0"), ("zone", b"")):
        with pytest.raises(WrappedKeyInvalid):
            Pkcs11Hsm(tokens.session(), {name: value})


def test_a_wrong_library_token_or_pin_is_told(token: Pkcs11Hsm) -> None:
    found = tokens.library()
    assert found is not None
    with pytest.raises(TokenUnusable, match="no-such-token"):
        open_session(found, "no-such-token", tokens.PIN)
    with pytest.raises(TokenUnusable, match=r"nosuch\.so"):
        open_session("/nosuch.so", tokens.TOKEN, tokens.PIN)
