"""SM2 by the system's libcrypto (OpenSSL 3, its EVP functions) through ctypes.

Only functions of OpenSSL's stable ABI are called, each with its types declared. Key objects are
kept for a while, so a key that signs often is read once.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_ulong, c_void_p
from functools import lru_cache

from nodes.crypto.sm2 import curve, der
from nodes.crypto.sm2.curve import DEFAULT_ID, N, Sm2CipherInvalid

_NID_SM2 = 1172
_POINT_UNCOMPRESSED = 4
_PUBLIC, _KEYPAIR = 0x86, 0x87  # EVP_PKEY_PUBLIC_KEY, EVP_PKEY_KEYPAIR

_FUNCTIONS: dict[str, tuple[object, list[object]]] = {
    "OpenSSL_version_num": (c_ulong, []),
    "BN_new": (c_void_p, []),
    "BN_bin2bn": (c_void_p, [c_char_p, c_int, c_void_p]),
    "BN_clear_free": (None, [c_void_p]),
    "EC_GROUP_new_by_curve_name": (c_void_p, [c_int]),
    "EC_POINT_new": (c_void_p, [c_void_p]),
    "EC_POINT_free": (None, [c_void_p]),
    "EC_POINT_mul": (c_int, [c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_void_p]),
    "EC_POINT_point2oct": (
        c_size_t,
        [c_void_p, c_void_p, c_int, c_char_p, c_size_t, c_void_p],
    ),
    "OSSL_PARAM_BLD_new": (c_void_p, []),
    "OSSL_PARAM_BLD_free": (None, [c_void_p]),
    "OSSL_PARAM_BLD_push_utf8_string": (c_int, [c_void_p, c_char_p, c_char_p, c_size_t]),
    "OSSL_PARAM_BLD_push_octet_string": (c_int, [c_void_p, c_char_p, c_char_p, c_size_t]),
    "OSSL_PARAM_BLD_push_BN": (c_int, [c_void_p, c_char_p, c_void_p]),
    "OSSL_PARAM_BLD_to_param": (c_void_p, [c_void_p]),
    "OSSL_PARAM_free": (None, [c_void_p]),
    "EVP_PKEY_CTX_new_from_name": (c_void_p, [c_void_p, c_char_p, c_char_p]),
    "EVP_PKEY_CTX_new": (c_void_p, [c_void_p, c_void_p]),
    "EVP_PKEY_CTX_free": (None, [c_void_p]),
    "EVP_PKEY_CTX_set1_id": (c_int, [c_void_p, c_char_p, c_int]),
    "EVP_PKEY_fromdata_init": (c_int, [c_void_p]),
    "EVP_PKEY_fromdata": (c_int, [c_void_p, POINTER(c_void_p), c_int, c_void_p]),
    "EVP_PKEY_free": (None, [c_void_p]),
    "EVP_MD_CTX_new": (c_void_p, []),
    "EVP_MD_CTX_free": (None, [c_void_p]),
    "EVP_MD_CTX_set_pkey_ctx": (None, [c_void_p, c_void_p]),
    "EVP_sm3": (c_void_p, []),
    "EVP_DigestSignInit": (c_int, [c_void_p, c_void_p, c_void_p, c_void_p, c_void_p]),
    "EVP_DigestSign": (c_int, [c_void_p, c_char_p, POINTER(c_size_t), c_char_p, c_size_t]),
    "EVP_DigestVerifyInit": (c_int, [c_void_p, c_void_p, c_void_p, c_void_p, c_void_p]),
    "EVP_DigestVerify": (c_int, [c_void_p, c_char_p, c_size_t, c_char_p, c_size_t]),
    "EVP_PKEY_encrypt_init": (c_int, [c_void_p]),
    "EVP_PKEY_encrypt": (c_int, [c_void_p, c_char_p, POINTER(c_size_t), c_char_p, c_size_t]),
    "EVP_PKEY_decrypt_init": (c_int, [c_void_p]),
    "EVP_PKEY_decrypt": (c_int, [c_void_p, c_char_p, POINTER(c_size_t), c_char_p, c_size_t]),
    "ERR_clear_error": (None, []),
    "RAND_priv_bytes": (c_int, [c_char_p, c_int]),
}


class LibcryptoUnusable(OSError):
    """There is no OpenSSL 3 here, or one without SM2."""


class _EngineFailed(RuntimeError):
    """A call failed that can't fail with checked arguments: out of memory or a broken library."""


class _Key:
    """An EVP_PKEY; freed with this object."""

    __slots__ = ("_free", "pointer")

    def __init__(self, pointer: int, free: object) -> None:
        self.pointer = pointer
        self._free = free

    def __del__(self) -> None:
        self._free(self.pointer)  # type: ignore[operator]


class LibcryptoSm2:
    """See Sm2. LibcryptoUnusable if the library can't do it."""

    name = "libcrypto"

    def __init__(self) -> None:
        self._lib = _load()
        group = self._lib.EC_GROUP_new_by_curve_name(_NID_SM2)
        if not group:
            raise LibcryptoUnusable("libcrypto was built without SM2")
        self._group = group
        # Bounded; a private key stays in memory for as long as whoever holds this object.
        self._private = lru_cache(maxsize=64)(self._private_key)
        self._public = lru_cache(maxsize=1024)(self._public_key)

    def generate(self) -> tuple[bytes, bytes]:
        """See Sm2.generate."""
        while True:
            private = ctypes.create_string_buffer(32)
            self._done(self._lib.RAND_priv_bytes(private, 32))
            if 1 <= int.from_bytes(private.raw, "big") <= N - 2:
                return private.raw, self.public_key(private.raw)

    def public_key(self, private: bytes) -> bytes:
        """See Sm2.public_key."""
        curve.check_private(private)
        lib = self._lib
        number = lib.BN_bin2bn(private, len(private), None)
        point = lib.EC_POINT_new(self._group)
        try:
            self._done(lib.EC_POINT_mul(self._group, point, number, None, None, None))
            octets = ctypes.create_string_buffer(65)
            self._done(
                lib.EC_POINT_point2oct(self._group, point, _POINT_UNCOMPRESSED, octets, 65, None)
            )
            return octets.raw[1:]
        finally:
            lib.EC_POINT_free(point)
            lib.BN_clear_free(number)

    def sign(self, private: bytes, message: bytes, user_id: bytes = DEFAULT_ID) -> bytes:
        """See Sm2.sign."""
        lib = self._lib
        key = self._private(private)
        digest, context = self._digest(key, user_id)
        try:
            self._done(lib.EVP_DigestSignInit(digest, None, lib.EVP_sm3(), None, key.pointer))
            size = c_size_t(128)
            out = ctypes.create_string_buffer(size.value)
            self._done(lib.EVP_DigestSign(digest, out, byref(size), message, len(message)))
            return der.read_signature(out.raw[: size.value])
        finally:
            lib.EVP_MD_CTX_free(digest)
            lib.EVP_PKEY_CTX_free(context)

    def verify(
        self, public: bytes, message: bytes, signature: bytes, user_id: bytes = DEFAULT_ID
    ) -> bool:
        """See Sm2.verify."""
        lib = self._lib
        key = self._public(public)
        numbers = curve.check_signature(signature)
        if numbers is None:
            return False
        encoded = der.write_signature(*numbers)
        digest, context = self._digest(key, user_id)
        try:
            self._done(lib.EVP_DigestVerifyInit(digest, None, lib.EVP_sm3(), None, key.pointer))
            good = lib.EVP_DigestVerify(digest, encoded, len(encoded), message, len(message))
            lib.ERR_clear_error()
            return bool(good == 1)
        finally:
            lib.EVP_MD_CTX_free(digest)
            lib.EVP_PKEY_CTX_free(context)

    def encrypt(self, public: bytes, plain: bytes) -> bytes:
        """See Sm2.encrypt."""
        if not plain:
            raise ValueError("SM2 encrypts at least one byte")
        lib = self._lib
        # Not one of those that are kept: what is encrypted to is an ephemeral key as a rule.
        key = self._public_key(public)
        context = lib.EVP_PKEY_CTX_new(key.pointer, None)
        try:
            self._done(lib.EVP_PKEY_encrypt_init(context))
            size = c_size_t(len(plain) + 160)
            out = ctypes.create_string_buffer(size.value)
            self._done(lib.EVP_PKEY_encrypt(context, out, byref(size), plain, len(plain)))
            return der.read_cipher(out.raw[: size.value])
        finally:
            lib.EVP_PKEY_CTX_free(context)

    def decrypt(self, private: bytes, cipher: bytes) -> bytes:
        """See Sm2.decrypt."""
        key = self._private(private)
        x, y = int.from_bytes(cipher[:32], "big"), int.from_bytes(cipher[32:64], "big")
        if len(cipher) <= curve.CIPHER_OVERHEAD or not curve.on_curve(x, y):
            raise Sm2CipherInvalid
        lib = self._lib
        encoded = der.write_cipher(cipher)
        context = lib.EVP_PKEY_CTX_new(key.pointer, None)
        try:
            self._done(lib.EVP_PKEY_decrypt_init(context))
            size = c_size_t(len(encoded))
            out = ctypes.create_string_buffer(size.value)
            good = lib.EVP_PKEY_decrypt(context, out, byref(size), encoded, len(encoded))
            lib.ERR_clear_error()
            if good != 1 or size.value != len(cipher) - curve.CIPHER_OVERHEAD:
                raise Sm2CipherInvalid
            return out.raw[: size.value]
        finally:
            lib.EVP_PKEY_CTX_free(context)

    def _digest(self, key: _Key, user_id: bytes) -> tuple[int, int]:
        """A digest context that knows whose Z goes in, and the key context it refers to."""
        lib = self._lib
        context = lib.EVP_PKEY_CTX_new(key.pointer, None)
        self._done(lib.EVP_PKEY_CTX_set1_id(context, user_id, len(user_id)))
        digest = lib.EVP_MD_CTX_new()
        lib.EVP_MD_CTX_set_pkey_ctx(digest, context)
        return digest, context

    def _private_key(self, private: bytes) -> _Key:
        return self._key(self.public_key(private), private)

    def _public_key(self, public: bytes) -> _Key:
        curve.check_public(public)
        return self._key(public, None)

    def _key(self, public: bytes, private: bytes | None) -> _Key:
        lib = self._lib
        builder = lib.OSSL_PARAM_BLD_new()
        number = lib.BN_bin2bn(private, len(private), None) if private is not None else None
        context = lib.EVP_PKEY_CTX_new_from_name(None, b"SM2", None)
        parameters = None
        try:
            self._done(lib.OSSL_PARAM_BLD_push_utf8_string(builder, b"group", b"SM2", 0))
            octets = b"\x04" + public
            self._done(lib.OSSL_PARAM_BLD_push_octet_string(builder, b"pub", octets, len(octets)))
            if number is not None:
                self._done(lib.OSSL_PARAM_BLD_push_BN(builder, b"priv", number))
            parameters = lib.OSSL_PARAM_BLD_to_param(builder)
            self._done(lib.EVP_PKEY_fromdata_init(context))
            made = c_void_p()
            selection = _PUBLIC if private is None else _KEYPAIR
            self._done(lib.EVP_PKEY_fromdata(context, byref(made), selection, parameters))
            assert made.value is not None
            return _Key(made.value, lib.EVP_PKEY_free)
        finally:
            lib.OSSL_PARAM_free(parameters)
            lib.EVP_PKEY_CTX_free(context)
            lib.BN_clear_free(number)
            lib.OSSL_PARAM_BLD_free(builder)

    def _done(self, result: int) -> None:
        if result <= 0:
            self._lib.ERR_clear_error()
            raise _EngineFailed("a call of libcrypto failed")


def _load() -> ctypes.CDLL:
    for name in ("libcrypto.so.3", "libcrypto.3.dylib", ctypes.util.find_library("crypto")):
        if name is None:
            continue
        try:
            library = ctypes.CDLL(name)
            for function, (result, arguments) in _FUNCTIONS.items():
                declared = getattr(library, function)
                declared.restype, declared.argtypes = result, arguments
        except (OSError, AttributeError):
            continue
        if library.OpenSSL_version_num() >> 28 >= 3:
            return library
    raise LibcryptoUnusable("no OpenSSL 3 libcrypto on this system")
