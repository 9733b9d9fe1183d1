"""What is signed for the contracts: EIP-712 data of the domain ("Countersign", "1").

Pure; the same as contracts/src/TypedData.sol, so that promises and settlements can be signed and
checked without a chain.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from eth_abi.abi import encode
from eth_hash.auto import keccak
from eth_keys.datatypes import PrivateKey
from eth_utils.address import to_canonical_address, to_checksum_address

from nodes.crypto.recovery import signing_address

try:
    import coincurve
except ImportError:  # no wheel for this Python: eth_keys signs, more slowly
    coincurve = None

SIGNATURE_BYTES = 65
_DOMAIN_TYPE = keccak(
    b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
_NAME = keccak(b"Countersign")
_VERSION = keccak(b"1")


@functools.lru_cache(maxsize=64)
def domain_separator(chain_id: int, contract: str) -> bytes:
    """hashStruct of the EIP712Domain of one of our contracts (EIP-712, domainSeparator)."""
    encoded = encode(
        ["bytes32", "bytes32", "bytes32", "uint256", "address"],
        [_DOMAIN_TYPE, _NAME, _VERSION, chain_id, to_canonical_address(contract)],
    )
    return bytes(keccak(encoded))


def typed_digest(*, chain_id: int, contract: str, struct_hash: bytes) -> bytes:
    """The 32 bytes that are signed for a struct's hash in a contract's domain."""
    return bytes(keccak(b"\x19\x01" + domain_separator(chain_id, contract) + struct_hash))


class DigestKey:
    """A secp256k1 key in memory that signs digests; keep it where many are signed."""

    __slots__ = ("_sign", "address")

    def __init__(self, key: bytes) -> None:
        if len(key) != 32:
            raise ValueError("a secp256k1 key is 32 bytes")
        own = PrivateKey(key)
        self.address: str = own.public_key.to_checksum_address()
        self._sign: Callable[[bytes], bytes] = lambda digest: own.sign_msg_hash(digest).to_bytes()
        if coincurve is not None:
            # The same signature (RFC 6979), at a third of the time.
            fast = coincurve.PrivateKey(key)
            self._sign = lambda digest: fast.sign_recoverable(digest, hasher=None)

    def sign_digest(self, digest: bytes) -> bytes:
        """65 bytes r, s, v; s in the lower half of the order, v 27 or 28."""
        if len(digest) != 32:
            raise ValueError("a digest is 32 bytes")
        signature = self._sign(digest)
        return signature[:64] + bytes([signature[64] + 27])

    def __repr__(self) -> str:
        return f"DigestKey({self.address})"


def sign_digest(key: bytes, digest: bytes) -> bytes:
    """One signature of a secp256k1 key (32 bytes) over a digest: as DigestKey's."""
    return DigestKey(key).sign_digest(digest)


def signer_of(digest: bytes, signature: bytes) -> str | None:
    """The checksummed address whose key made a signature; None if it isn't one as the contracts
    take it (65 bytes, low s, v 27 or 28)."""
    if len(signature) != SIGNATURE_BYTES or signature[64] not in (27, 28):
        return None
    address = signing_address(digest, signature[:64] + bytes([signature[64] - 27]))
    return None if address is None else to_checksum_address(address)
