"""An institution's secrets in one encrypted file.

The file is JSON: scrypt parameters and an AES-256-GCM ciphertext over {name: hex}. It stands where
an HSM or a KMS would stand in production; nothing outside this module sees the file's content.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_SCRYPT = {"n": 1 << 14, "r": 8, "p": 1}
_PURPOSE = b"countersign/keystore/1"


class KeystoreError(Exception):
    """The keystore can't be opened, or lacks a secret. Never says what a secret is."""


class Keystore:
    """Named secrets, held in memory after opening; no repr shows them."""

    def __init__(self, values: Mapping[str, bytes], where: str) -> None:
        self._values = dict(values)
        self._where = where

    @classmethod
    def create(cls, path: Path | str, passphrase: str, values: Mapping[str, bytes]) -> Keystore:
        """Write a new keystore (mode 0600, never over an existing file) and open it."""
        path = Path(path)
        salt, nonce = secrets.token_bytes(16), secrets.token_bytes(12)
        plain = json.dumps({name: value.hex() for name, value in values.items()}).encode()
        sealed = AESGCM(_derive(passphrase, salt, _SCRYPT)).encrypt(nonce, plain, _PURPOSE)
        document = {
            "version": 1,
            "kdf": {"name": "scrypt", **_SCRYPT, "salt": salt.hex()},
            "nonce": nonce.hex(),
            "ciphertext": sealed.hex(),
        }
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            json.dump(document, file)
            file.flush()
            os.fsync(file.fileno())
        return cls(values, str(path))

    @classmethod
    def open(cls, path: Path | str, passphrase: str) -> Keystore:
        """Read and decrypt. KeystoreError if the file or the passphrase is wrong."""
        try:
            document = json.loads(Path(path).read_text(encoding="ascii"))
            kdf = document["kdf"]
            key = _derive(passphrase, bytes.fromhex(kdf["salt"]), kdf)
            plain = AESGCM(key).decrypt(
                bytes.fromhex(document["nonce"]), bytes.fromhex(document["ciphertext"]), _PURPOSE
            )
        except OSError as error:
            raise KeystoreError(f"keystore {path}: {error.strerror}") from None
        except InvalidTag:
            raise KeystoreError(f"keystore {path}: wrong passphrase or altered file") from None
        except (ValueError, KeyError, TypeError):
            raise KeystoreError(f"keystore {path}: not a keystore file") from None
        values = {name: bytes.fromhex(value) for name, value in json.loads(plain).items()}
        return cls(values, str(path))

    def secret(self, name: str) -> bytes:
        """The secret of that name; KeystoreError if there is none."""
        try:
            return self._values[name]
        except KeyError:
            raise KeystoreError(f"keystore {self._where} has no secret {name!r}") from None

    def names(self) -> frozenset[str]:
        """The names of all secrets."""
        return frozenset(self._values)

    def __repr__(self) -> str:
        return f"Keystore({self._where!r}, {len(self._values)} secrets)"


def _derive(passphrase: str, salt: bytes, parameters: Mapping[str, int]) -> bytes:
    n, r, p = int(parameters["n"]), int(parameters["r"]), int(parameters["p"])
    return hashlib.scrypt(
        passphrase.encode(), salt=salt, n=n, r=r, p=p, maxmem=256 * n * r + (1 << 20), dklen=32
    )
