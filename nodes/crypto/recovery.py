"""Whose secp256k1 signature it is (SEC 1, 4.1.6), as Ethereum names keys: by 20-byte addresses."""

from __future__ import annotations

from eth_keys.datatypes import Signature
from eth_keys.exceptions import BadSignature

# Half of the order of secp256k1 (SEC 2, 2.4.1): of a signature's two forms the lower counts.
_HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0


def signing_address(digest: bytes, signature: bytes) -> bytes | None:
    """The address whose key signed a 32-byte digest; None unless the signature is 65 bytes r, s, v
    with s in the lower half of the order and v 0 or 1."""
    if len(digest) != 32 or len(signature) != 65 or signature[64] > 1:
        return None
    if int.from_bytes(signature[32:64], "big") > _HALF_ORDER:
        return None
    try:
        public = Signature(signature).recover_public_key_from_msg_hash(digest)
    except (BadSignature, ValueError):
        return None
    return bytes(public.to_canonical_address())
