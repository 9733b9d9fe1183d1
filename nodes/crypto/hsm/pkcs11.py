"""An Hsm over a PKCS#11 token; SoftHSM2 is the tested one (docs/keys.md, PKCS#11).

In the token, marked sensitive and not extractable, are the AES and 3DES keys and the PIN lookup
key that were put there (`store`): CMAC, ECB, GCM and HMAC under them are computed by the token, so
the local master key never leaves it. AES keys that are derived from one of them become session
objects of the token.

What a token such as SoftHSM2 can't do is done in this process, by SoftwareHsm: SM4 and SM2, MAC
algorithm 3, 3DES keys that were derived, DUKPT below the initial key, TR-31. Keys for that lie
outside encrypted under the local master key (`protect`), or are derived by its CMAC when needed.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pkcs11
from pkcs11 import Attribute, GCMParams, KeyType, Mechanism, ObjectClass

from nodes.crypto.hsm.model import (
    BLOCK,
    PIN_LOOKUP_KEY,
    Algorithm,
    CoverInvalid,
    KeyUnavailable,
    WrappedKeyInvalid,
)
from nodes.crypto.hsm.pin_blocks import check_pin
from nodes.crypto.hsm.software import SoftwareHsm

_NONCE, _TAG = 12, 16
_KEY_TYPES = {Algorithm.AES: KeyType.AES, Algorithm.TDES: KeyType.DES2}
_ECB = {KeyType.AES: Mechanism.AES_ECB, KeyType.DES2: Mechanism.DES3_ECB}
_KINDS = {KeyType.AES: Algorithm.AES, KeyType.DES2: Algorithm.TDES}


class TokenUnusable(OSError):
    """The library, the token or its PIN isn't as the settings say."""


def open_session(library: Path | str, token: str, pin: str) -> Any:
    """A logged-in read/write session on a token. TokenUnusable."""
    try:
        found = pkcs11.lib(str(library)).get_token(token_label=token)
        try:
            return found.open(rw=True, user_pin=pin)
        except pkcs11.UserAlreadyLoggedIn:
            return found.open(rw=True)  # a login counts for the whole process
    except (pkcs11.PKCS11Error, RuntimeError) as error:
        reason = ": ".join(filter(None, (type(error).__name__, str(error))))
        raise TokenUnusable(f"PKCS#11 token {token!r} of {library}: {reason}") from None


class Pkcs11Hsm(SoftwareHsm):
    """See Hsm. `session`: open_session's.

    `protected` maps names to what `protect` gave for keys that the token can't hold; `kinds` names
    the algorithm of those that aren't SM4. `master` names the token's key they lie under.
    """

    def __init__(
        self,
        session: Any,
        protected: Mapping[str, bytes] | None = None,
        kinds: Mapping[str, Algorithm] | None = None,
        master: str = "master",
    ) -> None:
        super().__init__({})
        self._session = session
        self._master = master
        self._objects: dict[str, Any] = {}
        #: How a derived key that lies in the token came about: its parent and label.
        self._recipes: dict[str, tuple[str, bytes]] = {}
        stored = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.TOKEN: True}
        for key in session.get_objects(stored):
            self._adopt(key)
        for name, blob in (protected or {}).items():
            kind = (kinds or {}).get(name, Algorithm.SM4)
            self._put(name, self._open(name, blob), kind)

    # Getting keys in

    def store(self, name: str, key: bytes, algorithm: Algorithm) -> None:
        """Put an AES or 3DES key (16 bytes) into the token for good; ValueError for another.

        `name` pin_lookup: any algorithm and length; it becomes an HMAC key.
        """
        if name in self._objects:
            raise ValueError(f"the token has a key {name!r}")
        self._create(name, key, algorithm, permanent=True)

    def protect(self, name: str, key: bytes) -> bytes:
        """The key encrypted under the local master key, for a file outside: nonce, GCM."""
        nonce = secrets.token_bytes(_NONCE)
        return nonce + self._gcm(self._master, nonce, name).encrypt(key)

    def destroy(self, name: str) -> None:
        """Take a key out of the token for good; no error if it isn't there."""
        found = self._objects.pop(name, None)
        if found is not None:
            found.destroy()
        self._kinds.pop(name, None)

    # What the token computes

    def pin_lookup(self, card_token: bytes, pin: str) -> bytes:
        """See Hsm.pin_lookup."""
        held = self._objects.get(PIN_LOOKUP_KEY)
        if held is None:
            return super().pin_lookup(card_token, pin)
        check_pin(pin)
        return bytes(held.sign(card_token + pin.encode("ascii"), mechanism=Mechanism.SHA256_HMAC))

    def cover(self, key: str, plain: bytes, associated: bytes) -> bytes:
        """See Hsm.cover."""
        held = self._objects.get(key)
        if held is None or self._kind(key) is not Algorithm.AES:
            return super().cover(key, plain, associated)
        nonce = secrets.token_bytes(_NONCE)
        return nonce + bytes(_Gcm(held, nonce, associated).encrypt(plain))

    def uncover(self, key: str, covered: bytes, associated: bytes) -> bytes:
        """See Hsm.uncover."""
        held = self._objects.get(key)
        if held is None or self._kind(key) is not Algorithm.AES:
            return super().uncover(key, covered, associated)
        if len(covered) < _NONCE + _TAG:
            raise CoverInvalid
        try:
            return bytes(_Gcm(held, covered[:_NONCE], associated).decrypt(covered[_NONCE:]))
        except pkcs11.PKCS11Error:
            raise CoverInvalid from None

    def derive(
        self, parent: str, label: bytes, name: str, algorithm: Algorithm = Algorithm.SM4
    ) -> None:
        """See Hsm.derive."""
        if algorithm is not Algorithm.AES or self._kind(parent) is Algorithm.TDES:
            super().derive(parent, label, name, algorithm)
            return
        self.forget(name)
        self._create(name, self._cmac(parent, label), algorithm, permanent=False)
        self._recipes[name] = (parent, label)

    def forget(self, name: str) -> None:
        """See Hsm.forget. Keys that were stored for good stay."""
        if name in self._recipes:
            del self._recipes[name]
            self._objects.pop(name).destroy()
        elif name in self._objects:
            return
        super().forget(name)

    def __repr__(self) -> str:
        return f"Pkcs11Hsm({len(self._objects)} keys in the token, {len(self._keys)} outside)"

    # Inside

    def _cmac(self, name: str, message: bytes) -> bytes:
        held = self._objects.get(name)
        if held is None or self._kind(name) is not Algorithm.AES:
            return super()._cmac(name, message)
        return bytes(held.sign(message, mechanism=Mechanism.AES_CMAC))

    def _encrypt(self, name: str, blocks: bytes) -> bytes:
        held = self._objects.get(name)
        if held is None:
            return super()._encrypt(name, blocks)
        return bytes(held.encrypt(blocks, mechanism=_ECB[held.key_type]))

    def _decrypt(self, name: str, blocks: bytes) -> bytes:
        held = self._objects.get(name)
        if held is None:
            return super()._decrypt(name, blocks)
        return bytes(held.decrypt(blocks, mechanism=_ECB[held.key_type]))

    def _secret(self, name: str) -> bytes:
        recipe = self._recipes.get(name)
        if recipe is not None:
            return self._cmac(*recipe)
        if name in self._objects:
            raise KeyUnavailable(f"{name} doesn't leave the token")
        return super()._secret(name)

    def _adopt(self, key: Any) -> None:
        name = key.label
        self._objects[name] = key
        kind = _KINDS.get(key.key_type)
        if kind is not None:
            self._kinds[name] = kind

    def _create(self, name: str, key: bytes, algorithm: Algorithm, *, permanent: bool) -> None:
        lookup = name == PIN_LOOKUP_KEY
        if not lookup and (algorithm not in _KEY_TYPES or len(key) != BLOCK):
            raise ValueError(f"the token holds AES and 3DES keys of 16 bytes, not {name!r}")
        attributes = {
            Attribute.CLASS: ObjectClass.SECRET_KEY,
            Attribute.KEY_TYPE: KeyType.GENERIC_SECRET if lookup else _KEY_TYPES[algorithm],
            Attribute.LABEL: name,
            Attribute.VALUE: key,
            Attribute.TOKEN: permanent,
            Attribute.PRIVATE: True,
            Attribute.SENSITIVE: True,
            Attribute.EXTRACTABLE: False,
            Attribute.MODIFIABLE: False,
            Attribute.SIGN: True,
            Attribute.ENCRYPT: not lookup,
            Attribute.DECRYPT: not lookup,
        }
        self._adopt(self._session.create_object(attributes))

    def _gcm(self, master: str, nonce: bytes, name: str) -> _Gcm:
        held = self._objects.get(master)
        if held is None:
            raise KeyUnavailable(master)
        return _Gcm(held, nonce, b"countersign/protected/1" + name.encode())

    def _open(self, name: str, blob: bytes) -> bytes:
        try:
            return self._gcm(self._master, blob[:_NONCE], name).decrypt(blob[_NONCE:])
        except pkcs11.PKCS11Error:
            raise WrappedKeyInvalid(f"{name} doesn't lie under this token's key") from None


class _Gcm:
    """AES-GCM with one nonce under a key of the token."""

    def __init__(self, key: Any, nonce: bytes, associated: bytes) -> None:
        self._key = key
        self._parameters = GCMParams(nonce, associated, 8 * _TAG)

    def encrypt(self, plain: bytes) -> bytes:
        return bytes(
            self._key.encrypt(plain, mechanism=Mechanism.AES_GCM, mechanism_param=self._parameters)
        )

    def decrypt(self, cipher: bytes) -> bytes:
        return bytes(
            self._key.decrypt(cipher, mechanism=Mechanism.AES_GCM, mechanism_param=self._parameters)
        )
