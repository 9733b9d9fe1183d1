"""The software HSM: keys in this process.

Algorithms: SM4 (GB/T 32907-2016), AES (FIPS 197), 3DES with two keys (ISO/IEC 18033-3), CMAC (NIST
SP 800-38B), MAC algorithm 3 with padding method 2 (ISO/IEC 9797-1:2011), GCM (NIST SP 800-38D),
SM2 (nodes.crypto.sm2), HMAC-SHA256 (RFC 2104) over card token and PIN as what an issuer stores.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from cryptography.hazmat.primitives.cmac import CMAC

from nodes.crypto import sm2
from nodes.crypto.hsm import dukpt, key_blocks, pin_blocks
from nodes.crypto.hsm.model import (
    BLOCK,
    CHECK_VALUE_LENGTH,
    MAC_LENGTH,
    PIN_LOOKUP_KEY,
    Algorithm,
    CoverInvalid,
    KeyUnavailable,
    KeyUse,
    PinBlockInvalid,
    WrappedKeyInvalid,
)
from nodes.crypto.keyed_hash import KeyedHash

_CIPHERS: Mapping[Algorithm, Any] = {
    Algorithm.SM4: algorithms.SM4,
    Algorithm.AES: algorithms.AES,
    # Two keys of 3DES: the first one is the third one, too.
    Algorithm.TDES: lambda key: TripleDES(key + key[:8]),
}
_DES_BLOCK = 8
_NONCE, _TAG = 12, 16
_ECB = modes.ECB()  # noqa: S305 (blocks that are keys, or one by one)


class SoftwareHsm:
    """An Hsm whose keys live in this process. One a thread: it reuses cipher contexts.

    `keys` maps names to secrets: 16 bytes for a cipher's key, 32 for an SM2 private key, any length
    for `pin_lookup`. `kinds` names the algorithm of those that aren't SM4. Neither repr nor any
    error shows a key.
    """

    def __init__(
        self, keys: Mapping[str, bytes], kinds: Mapping[str, Algorithm] | None = None
    ) -> None:
        self._keys = {name: bytes(key) for name, key in keys.items()}
        #: Algorithms of keys that aren't SM4.
        self._kinds: dict[str, Algorithm] = dict(kinds or {})
        self._macs: dict[str, CMAC] = {}
        self._encryptors: dict[str, CipherContext] = {}
        self._decryptors: dict[str, CipherContext] = {}
        #: By base derivation key, of the terminal that was last served with it.
        self._derivations: dict[str, dukpt.Derivation] = {}
        self._pins: KeyedHash | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self._keys)} keys)"

    # PINs

    def translate_pin(self, from_key: str, to_key: str, pin_block: bytes, pan: str) -> bytes:
        """See Hsm.translate_pin."""
        kinds = self._kinds
        if from_key not in kinds and to_key not in kinds:
            # Checked, not only re-encrypted: a bad block ends here, not at the issuer. The clear
            # block is the same under both keys.
            clear = self._clear(from_key, pin_block)
            pin_blocks.sm_pin(clear, pan)
            return self._encrypt(to_key, clear)
        return self._seal_pin(to_key, self._open_pin(from_key, pin_block, pan), pan)

    def verify_pin(
        self, zone_key: str, pin_block: bytes, pan: str, card_token: bytes, stored: bytes
    ) -> bool:
        """See Hsm.verify_pin."""
        pin = self._open_pin(zone_key, pin_block, pan)
        return hmac.compare_digest(self.pin_lookup(card_token, pin), stored)

    def seal_pin(self, key: str, pin: str, pan: str, form: int = 0) -> bytes:
        """The PIN block of a PIN that was just entered: for the secure module of a terminal.

        No part of Hsm: a gateway or node never has a clear PIN to call it with. `form`: 0 or 3,
        the ISO 9564 format under a 3DES key.
        """
        pin_blocks.check_pin(pin)
        return self._seal_pin(key, pin, pan, form)

    def pin_lookup(self, card_token: bytes, pin: str) -> bytes:
        """See Hsm.pin_lookup."""
        pin_blocks.check_pin(pin)
        if self._pins is None:
            self._pins = KeyedHash(self._secret(PIN_LOOKUP_KEY))
        return self._pins.digest(card_token + pin.encode("ascii"))

    # Messages

    def mac(self, key: str, message: bytes) -> bytes:
        """See Hsm.mac."""
        if key in self._kinds and self._kinds[key] is Algorithm.TDES:
            return self._retail_mac(key, message)
        return self._cmac(key, message)[:MAC_LENGTH]

    def verify_mac(self, key: str, message: bytes, mac: bytes) -> bool:
        """See Hsm.verify_mac."""
        return hmac.compare_digest(self.mac(key, message), mac)

    def cover(self, key: str, plain: bytes, associated: bytes) -> bytes:
        """See Hsm.cover."""
        kind = self._kind(key)
        if kind is Algorithm.TDES:
            start = secrets.token_bytes(_DES_BLOCK)
            encryptor = self._cipher(key, modes.CBC(start)).encryptor()
            return start + encryptor.update(_padded(plain, _DES_BLOCK))
        nonce = secrets.token_bytes(_NONCE)
        encryptor = self._cipher(key, modes.GCM(nonce)).encryptor()
        encryptor.authenticate_additional_data(associated)
        return nonce + encryptor.update(plain) + encryptor.finalize() + encryptor.tag

    def uncover(self, key: str, covered: bytes, associated: bytes) -> bytes:
        """See Hsm.uncover."""
        if self._kind(key) is Algorithm.TDES:
            start, cipher = covered[:_DES_BLOCK], covered[_DES_BLOCK:]
            if not cipher or len(cipher) % _DES_BLOCK:
                raise CoverInvalid
            clear = self._cipher(key, modes.CBC(start)).decryptor().update(cipher)
            plain, mark, padding = clear.rpartition(b"\x80")
            if not mark or any(padding) or len(padding) >= _DES_BLOCK:
                raise CoverInvalid
            return plain
        nonce, cipher, tag = covered[:_NONCE], covered[_NONCE:-_TAG], covered[-_TAG:]
        if len(covered) < _NONCE + _TAG:
            raise CoverInvalid
        decryptor = self._cipher(key, modes.GCM(nonce, tag)).decryptor()
        decryptor.authenticate_additional_data(associated)
        try:
            return bytes(decryptor.update(cipher) + decryptor.finalize())
        except InvalidTag:
            raise CoverInvalid from None

    # Keys

    def derive(
        self, parent: str, label: bytes, name: str, algorithm: Algorithm = Algorithm.SM4
    ) -> None:
        """See Hsm.derive."""
        if self._kind(parent) is Algorithm.TDES:
            key = b"".join(self._cmac(parent, label + bytes((half,))) for half in (1, 2))
        else:
            key = self._cmac(parent, label)
        self._put(name, key, algorithm)

    def generate(self, name: str) -> None:
        """See Hsm.generate."""
        self._put(name, secrets.token_bytes(BLOCK), Algorithm.SM4)

    def derive_dukpt(
        self, base_key: str, serial_number: bytes, names: Mapping[KeyUse, str]
    ) -> None:
        """See Hsm.derive_dukpt."""
        dukpt.check_serial(serial_number)
        key_id = serial_number[: dukpt.KEY_ID_LENGTH]
        derivation = self._derivations.get(base_key)
        if derivation is None or derivation.key_id != key_id:
            initial_key = self._encrypt(base_key, dukpt.initial_key_data(key_id))
            derivation = self._derivations[base_key] = dukpt.Derivation(key_id, initial_key)
        self._put_transaction(derivation, serial_number, names)

    def derive_transaction(
        self, initial_key: str, serial_number: bytes, names: Mapping[KeyUse, str]
    ) -> None:
        """The same from the terminal's initial key: for the secure module of a terminal."""
        key_id = serial_number[: dukpt.KEY_ID_LENGTH]
        derivation = dukpt.Derivation(key_id, self._secret(initial_key))
        self._put_transaction(derivation, serial_number, names)

    def _put_transaction(
        self, derivation: dukpt.Derivation, serial_number: bytes, names: Mapping[KeyUse, str]
    ) -> None:
        transaction = derivation.transaction_key(_aes_blocks, serial_number)
        keys = dukpt.working_keys(_aes_blocks, transaction, serial_number, names)
        for name, key in zip(names.values(), keys, strict=True):
            self._put(name, key, Algorithm.AES)

    def derive_initial(self, base_key: str, key_id: bytes, name: str) -> None:
        """The initial key of a DUKPT terminal (8 bytes of key id) from the base derivation key."""
        data = dukpt.initial_key_data(key_id)
        self._put(name, self._encrypt(base_key, data), Algorithm.AES)

    def derive_sm2(self, parent: str, label: bytes, name: str) -> None:
        """See Hsm.derive_sm2."""
        halves = [self._cmac(parent, label + bytes((half,))) for half in (1, 2)]
        # 256 bits onto 1 .. n - 2: n is so close to 2**256 that no number is favoured by more
        # than 2**-32.
        number = int.from_bytes(b"".join(halves), "big") % (sm2.ORDER - 2) + 1
        self._put(name, number.to_bytes(sm2.PRIVATE_LENGTH, "big"), Algorithm.SM4)

    def forget(self, name: str) -> None:
        """See Hsm.forget."""
        self._keys.pop(name, None)
        self._kinds.pop(name, None)
        self._drop_contexts(name)

    def check_value(self, key: str) -> bytes:
        """See Hsm.check_value."""
        kind = self._kind(key)
        if kind is Algorithm.AES:
            return self._cmac(key, bytes(BLOCK))[:CHECK_VALUE_LENGTH]
        block = _DES_BLOCK if kind is Algorithm.TDES else BLOCK
        return self._encrypt(key, bytes(block))[:CHECK_VALUE_LENGTH]

    def wrap(self, wrapping_key: str, key: str) -> bytes:
        """See Hsm.wrap."""
        return self._encrypt(wrapping_key, self._secret(key))

    def unwrap(self, wrapping_key: str, wrapped: bytes, check_value: bytes, name: str) -> None:
        """See Hsm.unwrap."""
        if len(wrapped) != BLOCK or len(check_value) != CHECK_VALUE_LENGTH:
            raise WrappedKeyInvalid("a wrapped key is 16 bytes, its check value 4")
        self._take(self._decrypt(wrapping_key, wrapped), check_value, name, Algorithm.SM4)

    def wrap_block(self, wrapping_key: str, key: str, use: KeyUse) -> str:
        """See Hsm.wrap_block."""
        protection = self._secret(wrapping_key)
        kinds = self._kind(wrapping_key), self._kind(key)
        return key_blocks.wrap(kinds[0], protection, kinds[1], self._secret(key), use)

    def unwrap_block(self, wrapping_key: str, block: str, use: KeyUse, name: str) -> None:
        """See Hsm.unwrap_block."""
        protection = self._secret(wrapping_key)
        kind, key = key_blocks.unwrap(self._kind(wrapping_key), protection, block, use)
        self._put(name, key, kind)

    def wrap_sm2(self, public_key: bytes, keys: Sequence[str]) -> bytes:
        """See Hsm.wrap_sm2."""
        return sm2.provider().encrypt(public_key, b"".join(self._secret(key) for key in keys))

    def unwrap_sm2(self, key: str, wrapped: bytes, checks: Mapping[str, bytes]) -> None:
        """Take in what wrap_sm2 gave: name -> check value, in order. WrappedKeyInvalid.

        For the secure module of a terminal; no part of Hsm.
        """
        try:
            keys = sm2.provider().decrypt(self._secret(key), wrapped)
        except sm2.Sm2CipherInvalid:
            raise WrappedKeyInvalid("the keys aren't encrypted to this SM2 key") from None
        if len(keys) != BLOCK * len(checks):
            raise WrappedKeyInvalid("another number of keys is wrapped")
        for position, (name, check_value) in enumerate(checks.items()):
            part = keys[BLOCK * position : BLOCK * (position + 1)]
            self._take(part, check_value, name, Algorithm.SM4)

    def take_over(self, other: SoftwareHsm, names: Iterable[str]) -> None:
        """Take these keys of another software HSM as one's own: within a terminal."""
        for name in names:
            self._put(name, other._secret(name), other._kind(name))

    def sm2_sign(self, key: str, message: bytes) -> bytes:
        """See Hsm.sm2_sign."""
        return sm2.provider().sign(self._secret(key), message)

    def sm2_public_key(self, key: str) -> bytes:
        """See Hsm.sm2_public_key."""
        return sm2.provider().public_key(self._secret(key))

    def split(self, key: str) -> tuple[bytes, bytes]:
        """See Hsm.split."""
        whole = self._secret(key)
        first = secrets.token_bytes(len(whole))
        return first, _xor(first, whole)

    # Inside

    def _secret(self, name: str) -> bytes:
        try:
            return self._keys[name]
        except KeyError:
            raise KeyUnavailable(name) from None

    def _kind(self, name: str) -> Algorithm:
        return self._kinds.get(name, Algorithm.SM4)

    def _put(self, name: str, key: bytes, algorithm: Algorithm) -> None:
        if name in self._keys or name in self._kinds:
            self.forget(name)
        self._keys[name] = key
        if algorithm is not Algorithm.SM4:
            self._kinds[name] = algorithm

    def _take(self, key: bytes, check_value: bytes, name: str, algorithm: Algorithm) -> None:
        """Put a key that came from outside, if it fits its check value."""
        other = SoftwareHsm({name: key}, {name: algorithm})
        if not hmac.compare_digest(other.check_value(name), check_value):
            raise WrappedKeyInvalid("the check value is of another key")
        self._put(name, key, algorithm)

    def _drop_contexts(self, name: str) -> None:
        for contexts in (self._macs, self._encryptors, self._decryptors, self._derivations):
            contexts.pop(name, None)
        if name == PIN_LOOKUP_KEY:
            self._pins = None

    def _cipher(self, name: str, mode: Any) -> Cipher[Any]:
        return Cipher(_CIPHERS[self._kind(name)](self._secret(name)), mode)

    def _cmac(self, name: str, message: bytes) -> bytes:
        state = self._macs.get(name)
        if state is None:
            key = self._secret(name)
            state = self._macs[name] = CMAC(_CIPHERS[self._kind(name)](key))
        # A copy of the keyed state costs less than half of a new key schedule.
        state = state.copy()
        state.update(message)
        return state.finalize()

    def _retail_mac(self, name: str, message: bytes) -> bytes:
        """ISO/IEC 9797-1 MAC algorithm 3, padding method 2, all 8 bytes.

        Single DES is 3DES under one key; the last step, E(D'(E(x))), is 3DES under both.
        """
        padded = _padded(message, _DES_BLOCK)
        chain = bytes(_DES_BLOCK)
        if len(padded) > _DES_BLOCK:
            left = TripleDES(self._secret(name)[:_DES_BLOCK] * 3)
            encryptor = Cipher(left, modes.CBC(chain)).encryptor()
            chain = encryptor.update(padded[:-_DES_BLOCK])[-_DES_BLOCK:]
        return self._encrypt(name, _xor(chain, padded[-_DES_BLOCK:]))

    # In ECB whole blocks leave nothing in a context, so one serves any number of them.

    def _encrypt(self, name: str, blocks: bytes) -> bytes:
        context = self._encryptors.get(name)
        if context is None:
            cipher = self._cipher(name, _ECB)
            context = self._encryptors[name] = cipher.encryptor()
        return context.update(blocks)

    def _decrypt(self, name: str, blocks: bytes) -> bytes:
        context = self._decryptors.get(name)
        if context is None:
            cipher = self._cipher(name, _ECB)
            context = self._decryptors[name] = cipher.decryptor()
        return context.update(blocks)

    def _seal_pin(self, key: str, pin: str, pan: str, form: int = 0) -> bytes:
        kind = self._kind(key)
        if kind is Algorithm.SM4:
            return self._encrypt(key, pin_blocks.sm_block(pin, pan))
        if kind is Algorithm.TDES:
            return self._encrypt(key, pin_blocks.des_block(pin, pan, form))
        pan_field = pin_blocks.aes_pan_field(pan)
        first = self._encrypt(key, pin_blocks.aes_pin_field(pin))
        return self._encrypt(key, _xor(first, pan_field))

    def _open_pin(self, key: str, pin_block: bytes, pan: str) -> str:
        kind = self._kind(key)
        clear = self._clear(key, pin_block, _DES_BLOCK if kind is Algorithm.TDES else BLOCK)
        if kind is Algorithm.SM4:
            return pin_blocks.sm_pin(clear, pan)
        if kind is Algorithm.TDES:
            return pin_blocks.des_pin(clear, pan)
        first = _xor(clear, pin_blocks.aes_pan_field(pan))
        return pin_blocks.aes_pin(self._decrypt(key, first))

    def _clear(self, key: str, pin_block: bytes, length: int = BLOCK) -> bytes:
        if len(pin_block) != length:
            raise PinBlockInvalid
        return self._decrypt(key, pin_block)


def _aes_blocks(key: bytes, blocks: bytes) -> bytes:
    return Cipher(algorithms.AES(key), _ECB).encryptor().update(blocks)


def _padded(data: bytes, block: int) -> bytes:
    """Padding method 2 of ISO/IEC 9797-1: a one bit, then zero bits up to a whole block."""
    return data + b"\x80" + bytes(-(len(data) + 1) % block)


def _xor(left: bytes, right: bytes) -> bytes:
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).to_bytes(len(left), "big")
