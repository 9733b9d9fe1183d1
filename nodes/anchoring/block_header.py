"""A block's header, and who sealed it: QBFT's commit seals and clique's seals. Pure.

QBFT (Besu and GoQuorum): extraData = RLP[vanity, validators, vote, round, seals]. The block's hash
is that of the header with round 0 and no seals; what a validator signs is the header with its round
and no seals. Clique (EIP-225): extraData ends in the sealer's 65 bytes over the header without
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from eth_hash.auto import keccak

from nodes.crypto import rlp
from nodes.crypto.recovery import signing_address


class Consensus(StrEnum):
    """How a block was sealed, told by its header."""

    QBFT = "QBFT"
    CLIQUE = "CLIQUE"


#: mixHash of every block of Istanbul's family, IBFT and QBFT.
ISTANBUL_DIGEST = b"ctical byzantine fault tolerance"
VANITY_BYTES, SEAL_BYTES = 32, 65
# Places in a header's list (Yellow Paper, 4.3; later rules append).
_PARENT, _TRANSACTIONS, _RECEIPTS, _NUMBER, _TIME, _EXTRA, _MIX = 0, 4, 5, 8, 11, 12, 13
_HASHES = (_PARENT, _TRANSACTIONS, _RECEIPTS, _MIX)
_SHORTEST = 15
# Places in QBFT's extraData.
_ROUND, _SEALS, _EXTRA_PARTS = 3, 4, 5


class HeaderMalformed(ValueError):
    """The bytes are no header of a block sealed by QBFT or clique."""


@dataclass(frozen=True, slots=True)
class BlockHeader:
    """What a proof needs of a header; `timestamp` in seconds since 1970."""

    consensus: Consensus
    hash: bytes
    parent_hash: bytes
    transactions_root: bytes
    receipts_root: bytes
    number: int
    timestamp: int
    #: The 20-byte addresses whose seals it bears, in their order; None for what is no signature.
    sealers: tuple[bytes | None, ...]


def parse_header(raw: bytes) -> BlockHeader:
    """Read a header's RLP. HeaderMalformed."""
    try:
        fields = rlp.decode(raw)
    except rlp.RlpMalformed as error:
        raise HeaderMalformed(f"not RLP: {error}") from None
    if isinstance(fields, bytes) or len(fields) < _SHORTEST:
        raise HeaderMalformed("a header is a list of 15 fields or more")
    plain = [field for field in fields if isinstance(field, bytes)]
    if len(plain) != len(fields) or any(len(plain[place]) != 32 for place in _HASHES):
        raise HeaderMalformed("a field has not its form")
    if len(plain[_NUMBER]) > 8 or len(plain[_TIME]) > 8:
        raise HeaderMalformed("number or time has more than 64 bits")
    if plain[_MIX] == ISTANBUL_DIGEST:
        consensus, named, sealers = Consensus.QBFT, *_qbft(plain)
    elif not any(plain[_MIX]):
        consensus, named, sealers = Consensus.CLIQUE, raw, _clique(plain)
    else:
        raise HeaderMalformed("neither QBFT nor clique made it")
    return BlockHeader(
        consensus=consensus,
        hash=bytes(keccak(named)),
        parent_hash=plain[_PARENT],
        transactions_root=plain[_TRANSACTIONS],
        receipts_root=plain[_RECEIPTS],
        number=int.from_bytes(plain[_NUMBER], "big"),
        timestamp=int.from_bytes(plain[_TIME], "big"),
        sealers=sealers,
    )


def _qbft(fields: Sequence[bytes]) -> tuple[bytes, tuple[bytes | None, ...]]:
    """What is hashed, and the sealers."""
    try:
        extra = rlp.decode(fields[_EXTRA])
    except rlp.RlpMalformed as error:
        raise HeaderMalformed(f"extraData is not RLP: {error}") from None
    if isinstance(extra, bytes) or len(extra) != _EXTRA_PARTS:
        raise HeaderMalformed("QBFT's extraData has five parts")
    seals = extra[_SEALS]
    if not isinstance(extra[_ROUND], bytes) or isinstance(seals, bytes):
        raise HeaderMalformed("QBFT's round or seals have not their form")
    signed = bytes(keccak(_with_extra(fields, rlp.encode([*extra[:_SEALS], []]))))
    sealers = tuple(
        signing_address(signed, seal) if isinstance(seal, bytes) else None for seal in seals
    )
    return _with_extra(fields, rlp.encode([*extra[:_ROUND], b"", []])), sealers


def _clique(fields: Sequence[bytes]) -> tuple[bytes | None, ...]:
    extra = fields[_EXTRA]
    if len(extra) < VANITY_BYTES + SEAL_BYTES:
        raise HeaderMalformed("clique's extraData is vanity, signers and a seal")
    signed = bytes(keccak(_with_extra(fields, extra[:-SEAL_BYTES])))
    return (signing_address(signed, extra[-SEAL_BYTES:]),)


def _with_extra(fields: Sequence[bytes], extra: bytes) -> bytes:
    return rlp.encode([*fields[:_EXTRA], extra, *fields[_EXTRA + 1 :]])


def qbft_validators(extra: bytes) -> tuple[bytes, ...]:
    """The validators that a QBFT extraData lists (a genesis' or a block's); HeaderMalformed."""
    try:
        parts = rlp.decode(extra)
    except rlp.RlpMalformed as error:
        raise HeaderMalformed(f"extraData is not RLP: {error}") from None
    if isinstance(parts, bytes) or len(parts) != _EXTRA_PARTS:
        raise HeaderMalformed("QBFT's extraData has five parts")
    found = parts[1]
    if isinstance(found, bytes):
        raise HeaderMalformed("QBFT's extraData lists no validators")
    return tuple(address for address in found if isinstance(address, bytes) and len(address) == 20)


def clique_signers(extra: bytes) -> tuple[bytes, ...]:
    """The signers that a clique genesis' extraData lists; HeaderMalformed."""
    listed = extra[VANITY_BYTES:-SEAL_BYTES]
    if len(extra) < VANITY_BYTES + SEAL_BYTES or len(listed) % 20:
        raise HeaderMalformed("clique's extraData is vanity, signers of 20 bytes and a seal")
    return tuple(listed[at : at + 20] for at in range(0, len(listed), 20))
