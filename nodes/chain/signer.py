"""The Signer seam: who holds a node's chain key."""

from __future__ import annotations

from typing import Any, Protocol

from eth_account import Account

from nodes.chain.typed_data import DigestKey


class Signer(Protocol):
    """Signs transactions with one key, which stays where it is."""

    @property
    def address(self) -> str:
        """The key's address, checksummed (EIP-55)."""
        ...

    def sign_transaction(self, transaction: dict[str, Any]) -> tuple[bytes, bytes]:
        """(raw transaction, its hash). The dictionary is web3.py's, with all fields set."""
        ...


class DigestSigner(Protocol):
    """Signs EIP-712 digests with the key of one address."""

    @property
    def address(self) -> str:
        """The key's address, checksummed (EIP-55)."""
        ...

    def sign_digest(self, digest: bytes) -> bytes:
        """65 bytes r, s, v; s in the lower half of the order, v 27 or 28."""
        ...


class OperatorSigner(Signer, DigestSigner, Protocol):
    """An operator's key: it sends transactions and signs settlements."""


class LocalSigner:
    """A secp256k1 key in memory; for nodes it comes from the encrypted keystore."""

    __slots__ = ("_account", "_digests")

    def __init__(self, key: bytes) -> None:
        if len(key) != 32:
            raise ValueError("a chain key is 32 bytes")
        self._account = Account.from_key(key)
        self._digests = DigestKey(key)

    @property
    def address(self) -> str:
        return str(self._account.address)

    def sign_transaction(self, transaction: dict[str, Any]) -> tuple[bytes, bytes]:
        signed = self._account.sign_transaction(transaction)
        return bytes(signed.raw_transaction), bytes(signed.hash)

    def sign_digest(self, digest: bytes) -> bytes:
        return self._digests.sign_digest(digest)

    def __repr__(self) -> str:
        return f"LocalSigner({self.address})"
