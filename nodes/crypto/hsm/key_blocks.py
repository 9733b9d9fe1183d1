"""TR-31 (ANSI X9.143) key blocks: version D under AES, version B under 3DES, by `psec`."""

from __future__ import annotations

from collections.abc import Mapping

from psec import tr31

from nodes.crypto import des_warnings
from nodes.crypto.hsm.model import BLOCK, Algorithm, KeyUse, WrappedKeyInvalid

des_warnings.silence()

_VERSIONS = {Algorithm.AES: ("D", "A"), Algorithm.TDES: ("B", "T")}
#: Key usage and mode of use: PIN encryption, MAC (CMAC or algorithm 3), data, key block protection.
_USAGES: Mapping[tuple[Algorithm, KeyUse], tuple[str, str]] = {
    (Algorithm.AES, KeyUse.PIN): ("P0", "E"),
    (Algorithm.AES, KeyUse.MAC): ("M6", "C"),
    (Algorithm.AES, KeyUse.DATA): ("D0", "B"),
    (Algorithm.AES, KeyUse.WRAPPING): ("K1", "B"),
    (Algorithm.TDES, KeyUse.PIN): ("P0", "E"),
    (Algorithm.TDES, KeyUse.MAC): ("M3", "C"),
    (Algorithm.TDES, KeyUse.DATA): ("D0", "B"),
    (Algorithm.TDES, KeyUse.WRAPPING): ("K1", "B"),
}


def wrap(
    algorithm: Algorithm, protection_key: bytes, key_algorithm: Algorithm, key: bytes, use: KeyUse
) -> str:
    """The key block. ValueError for a key that no such block can carry."""
    found = _USAGES.get((key_algorithm, use))
    if algorithm not in _VERSIONS or found is None:
        raise ValueError(f"no key block for a {key_algorithm} {use} key under {algorithm}")
    version, _ = _VERSIONS[algorithm]
    _, letter = _VERSIONS[key_algorithm]
    usage, mode = found
    header = tr31.Header(version, usage, letter, mode, "00", "N")
    return tr31.wrap(protection_key, header, key, masked_key_len=BLOCK)


def unwrap(
    algorithm: Algorithm, protection_key: bytes, block: str, use: KeyUse
) -> tuple[Algorithm, bytes]:
    """The key and its algorithm. WrappedKeyInvalid: changed, another use, another version."""
    if algorithm not in _VERSIONS:
        raise WrappedKeyInvalid("key blocks are protected by AES or 3DES keys")
    version, _ = _VERSIONS[algorithm]
    try:
        header, key = tr31.unwrap(protection_key, block)
    except (ValueError, IndexError):
        raise WrappedKeyInvalid("the key block was changed or is under another key") from None
    key_algorithm = {"A": Algorithm.AES, "T": Algorithm.TDES}.get(header.algorithm)
    if header.version_id != version or key_algorithm is None or len(key) != BLOCK:
        raise WrappedKeyInvalid("the key block is of another kind")
    if _USAGES[key_algorithm, use] != (header.key_usage, header.mode_of_use):
        raise WrappedKeyInvalid("the key block's key is for another use")
    return key_algorithm, key
