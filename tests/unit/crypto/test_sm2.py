"""SM2: the published examples on both engines, both engines against each other, and bad input."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest

from nodes.crypto import sm2
from nodes.crypto.sm2 import Sm2, Sm2CipherInvalid, Sm2KeyInvalid, curve, engine
from nodes.crypto.sm2.fallback import GmsslSm2
from nodes.crypto.sm2.libcrypto import LibcryptoSm2, LibcryptoUnusable

# GB/T 32918.5-2017, annex A (key and nonce) and annex B (key pair and cipher text).
PRIVATE = bytes.fromhex("3945208f7b2144b13f36e38ac6d39f95889393692860b51a42fb81ef4df7c5b8")
PUBLIC = bytes.fromhex(
    "09f9df311e5421a150dd7d161e4bc5c672179fad1833fc076bb08ff356f35020"
    "ccea490ce26775a52dc6ea718cc1aa600aed05fbf35e084a6632f6072da9ad13"
)
NONCE = int("59276e27d506861a16680f3ad9c02dccef3cc1fa3cdbe4ce6d54b80deac1bc21", 16)
DIGEST = bytes.fromhex("f0b43e94ba45accaace692ed534382eb17e6ab5a19ce7b31f4486fdfc0d28640")
SIGNATURE = bytes.fromhex(
    "f5a03b0648d2c4630eeac513e1bb81a15944da3827d5b74143ac7eaceee720b3"
    "b1b6aa29df212fd8763182bc0d421ca1bb9038fd1f7f42d4840b69c485bbc1aa"
)
MESSAGE = b"message digest"
PLAIN = b"encryption standard"
CIPHER = bytes.fromhex(
    "04ebfc718e8d1798620432268e77feb6415e2ede0e073c0f4f640ecd2e149a73"
    "e858f9d81e5430a57b36daab8f950a3c64e6ee6a63094d99283aff767e124df0"
    "59983c18f809e262923c53aec295d30383b54e39d609d160afcb1908d0bd8766"
    "21886ca989ca9c7d58087307ca93092d651efa"
)

#: GB/T 32905-2016, annex A.
SM3 = {
    b"abc": "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0",
    b"abcd" * 16: "debe9ff92275b8a138604889c18e5a4d6fdb70e5387e5765293dcba39c0c5732",
}


def _libcrypto() -> Sm2:
    try:
        return LibcryptoSm2()
    except LibcryptoUnusable as reason:
        pytest.skip(str(reason))


ENGINES: dict[str, Callable[[], Sm2]] = {"libcrypto": _libcrypto, "gmssl": GmsslSm2}


@pytest.fixture(params=ENGINES)
def sm2_engine(request: pytest.FixtureRequest) -> Sm2:
    return ENGINES[request.param]()


def private_of(number: int) -> bytes:
    """The private key of a number: the same in every run."""
    digest = int.from_bytes(hashlib.sha256(f"sm2 key {number}".encode()).digest(), "big")
    return (digest % (curve.N - 2) + 1).to_bytes(32, "big")


@pytest.mark.parametrize("message", SM3)
def test_sm3_is_the_standards(message: bytes) -> None:
    assert curve.sm3(message).hex() == SM3[message]


def test_the_published_key_pair_and_digest(sm2_engine: Sm2) -> None:
    assert sm2_engine.public_key(PRIVATE) == PUBLIC
    assert curve.signed_digest(PUBLIC, MESSAGE, sm2.DEFAULT_ID) == DIGEST


def test_the_published_signature(sm2_engine: Sm2) -> None:
    assert sm2_engine.verify(PUBLIC, MESSAGE, SIGNATURE)
    assert not sm2_engine.verify(PUBLIC, b"message digesT", SIGNATURE)
    assert not sm2_engine.verify(PUBLIC, MESSAGE, SIGNATURE, b"another id")
    assert GmsslSm2().sign_with(PRIVATE, MESSAGE, NONCE) == SIGNATURE


def test_the_published_cipher_text(sm2_engine: Sm2) -> None:
    assert sm2_engine.decrypt(PRIVATE, CIPHER) == PLAIN
    assert GmsslSm2().encrypt_with(PUBLIC, PLAIN, NONCE) == CIPHER


@pytest.mark.timeout(900)
def test_a_thousand_keys_are_the_same_on_both_engines() -> None:
    """Each goes through both in all directions, those with coordinates that begin with 04 too: a
    step of gmssl's takes 5 to 20 ms, so this takes most of a minute."""
    system, fallback = _libcrypto(), GmsslSm2()
    four = 0
    for number in range(1000):
        private = private_of(number)
        public = fallback.public_key(private)
        assert system.public_key(private) == public
        four += public[0] == 0x04 or public[32] == 0x04
        message = f"message {number}".encode()
        assert fallback.verify(public, message, system.sign(private, message)), number
        assert system.verify(public, message, fallback.sign(private, message)), number
        assert fallback.decrypt(private, system.encrypt(public, message)) == message, number
        assert system.decrypt(private, fallback.encrypt(public, message)) == message, number
    assert four >= 5


def test_a_coordinate_that_begins_with_0404_is_kept_whole(sm2_engine: Sm2) -> None:
    """`lstrip("04")` would take digits off these."""
    system = _libcrypto()
    number = next(n for n in range(200_000) if system.public_key(private_of(n))[0] == 0x04)
    private = private_of(number)
    public = sm2_engine.public_key(private)
    assert public[0] == 0x04
    assert sm2_engine.verify(public, b"x", sm2_engine.sign(private, b"x"))
    assert sm2_engine.decrypt(private, sm2_engine.encrypt(public, b"x")) == b"x"


def test_no_two_signatures_or_cipher_texts_are_the_same(sm2_engine: Sm2) -> None:
    assert len({sm2_engine.sign(PRIVATE, MESSAGE) for _ in range(4)}) == 4
    assert len({sm2_engine.encrypt(PUBLIC, PLAIN)[:64] for _ in range(4)}) == 4
    assert len({sm2_engine.generate() for _ in range(4)}) == 4


@pytest.mark.parametrize(
    "private",
    [b"", bytes(32), bytes(31), bytes(33), (curve.N - 1).to_bytes(32, "big"), b"\xff" * 32],
)
def test_a_private_key_out_of_range_is_none(sm2_engine: Sm2, private: bytes) -> None:
    for call in (
        lambda: sm2_engine.public_key(private),
        lambda: sm2_engine.sign(private, MESSAGE),
        lambda: sm2_engine.decrypt(private, CIPHER),
    ):
        with pytest.raises(Sm2KeyInvalid):
            call()


OFF_CURVE = [
    b"",
    bytes(64),
    PUBLIC[:-1],
    b"\x04" + PUBLIC,
    PUBLIC[:63] + bytes((PUBLIC[63] ^ 1,)),
    # The same point with x + p: not a field element, though it solves the equation modulo p.
    b"\xff" * 32 + PUBLIC[32:],
]


@pytest.mark.parametrize("public", OFF_CURVE)
def test_a_public_key_off_the_curve_is_none(sm2_engine: Sm2, public: bytes) -> None:
    with pytest.raises(Sm2KeyInvalid):
        sm2_engine.verify(public, MESSAGE, SIGNATURE)
    with pytest.raises(Sm2KeyInvalid):
        sm2_engine.encrypt(public, PLAIN)


@pytest.mark.parametrize(
    "signature",
    [
        b"",
        SIGNATURE[:-1],
        SIGNATURE + b"\0",
        bytes(64),
        bytes(32) + SIGNATURE[32:],
        SIGNATURE[:32] + bytes(32),
        curve.N.to_bytes(32, "big") + SIGNATURE[32:],
        SIGNATURE[:32] + b"\xff" * 32,
        # r + s = n: t is zero.
        SIGNATURE[:32] + (curve.N - int.from_bytes(SIGNATURE[:32], "big")).to_bytes(32, "big"),
    ],
)
def test_a_malformed_signature_is_wrong_and_no_error(sm2_engine: Sm2, signature: bytes) -> None:
    assert sm2_engine.verify(PUBLIC, MESSAGE, signature) is False


def test_every_changed_byte_of_a_signature_is_noticed(sm2_engine: Sm2) -> None:
    for position in range(0, 64, 3):
        changed = bytearray(SIGNATURE)
        changed[position] ^= 0x10
        assert not sm2_engine.verify(PUBLIC, MESSAGE, bytes(changed))


def test_every_changed_byte_of_a_cipher_text_is_noticed(sm2_engine: Sm2) -> None:
    """C3 is checked, and C1 is a point of the curve."""
    for position in [*range(0, 64, 13), *range(64, 96, 7), *range(96, len(CIPHER), 5)]:
        changed = bytearray(CIPHER)
        changed[position] ^= 1
        with pytest.raises(Sm2CipherInvalid):
            sm2_engine.decrypt(PRIVATE, bytes(changed))
    for wrong in (b"", CIPHER[:96], CIPHER[:-1], CIPHER + b"\0"):
        with pytest.raises(Sm2CipherInvalid):
            sm2_engine.decrypt(PRIVATE, wrong)
    with pytest.raises(Sm2CipherInvalid):
        sm2_engine.decrypt(private_of(1), CIPHER)


def test_nothing_at_all_is_not_encrypted(sm2_engine: Sm2) -> None:
    with pytest.raises(ValueError, match="at least one byte"):
        sm2_engine.encrypt(PUBLIC, b"")


@pytest.mark.parametrize("length", [1, 31, 32, 33, 48, 200])
def test_any_length_goes_there_and_back(sm2_engine: Sm2, length: int) -> None:
    plain = bytes(range(length))
    cipher = sm2_engine.encrypt(PUBLIC, plain)
    assert len(cipher) == length + sm2.CIPHER_OVERHEAD
    assert sm2_engine.decrypt(PRIVATE, cipher) == plain


def test_without_libcrypto_the_fallback_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    def unusable() -> Sm2:
        raise LibcryptoUnusable("none here")

    engine.provider.cache_clear()
    monkeypatch.setattr(engine, "LibcryptoSm2", unusable)
    try:
        assert sm2.provider().name == "gmssl"
        private, public = sm2.provider().generate()
        assert sm2.provider().verify(public, b"x", sm2.provider().sign(private, b"x"))
    finally:
        engine.provider.cache_clear()
