"""Whether a block's seals show that an anchor stands for good: judged with no node. Pure.

What is trusted: the addresses of the chain's validators and of the anchor contract. QBFT:
ceil(2n/3) of n validators signed the block (Besu's quorum). Clique: floor(n/2) + 1 of n signers
sealed the block and those after it, more than one side of a cut network makes. Named reasons for
what doesn't hold.
"""

from __future__ import annotations

import itertools
from collections.abc import Set
from dataclasses import dataclass
from enum import StrEnum

from eth_hash.auto import keccak

from nodes import ids
from nodes.anchoring.block_header import (
    BlockHeader,
    Consensus,
    HeaderMalformed,
    parse_header,
)
from nodes.crypto import rlp
from nodes.crypto.patricia import value_at

#: Topic of AnchorRegistry's event; size, prevRoot, root and metaHash are its data.
_ANCHORED = keccak(b"Anchored(bytes32,uint64,uint64,bytes32,bytes32,bytes32)")
_ANCHORED_DATA = 4 * 32


class Finality(StrEnum):
    """What a bundle says of its block's finality, and what a verifier found of it."""

    #: The word of the chain endpoint that the verifier asks.
    DEV = "DEV_FINALITY"
    QBFT = "QBFT_FINALITY"
    CLIQUE = "CLIQUE_FINALITY"


_FINALITY_OF = {Consensus.QBFT: Finality.QBFT, Consensus.CLIQUE: Finality.CLIQUE}


class SealFault(StrEnum):
    """Why seals show nothing; in order of precedence."""

    BLOCK_MISMATCH = "BLOCK_MISMATCH"
    TRANSACTION_NOT_IN_BLOCK = "TRANSACTION_NOT_IN_BLOCK"
    RECEIPT_NOT_IN_BLOCK = "RECEIPT_NOT_IN_BLOCK"
    EVENT_NOT_IN_RECEIPT = "EVENT_NOT_IN_RECEIPT"
    SEAL_INVALID = "SEAL_INVALID"
    SEALER_UNKNOWN = "SEALER_UNKNOWN"
    SEALS_TOO_FEW = "SEALS_TOO_FEW"


class SealRefused(Exception):
    """A fault, with words for people."""

    def __init__(self, fault: SealFault, detail: str) -> None:
        super().__init__(detail)
        self.fault = fault
        self.detail = detail


@dataclass(frozen=True, slots=True)
class BlockEvidence:
    """An anchor's block as its validators sealed it."""

    finality: Finality
    header: bytes  # RLP
    #: The anchoring transaction's place in the block, from 0.
    place: int
    #: Trie nodes from the header's roots to transaction and receipt.
    transaction: tuple[bytes, ...]
    receipt: tuple[bytes, ...]
    #: On clique the RLP of the headers after it; on QBFT none.
    following: tuple[bytes, ...]
    #: Whose seals these are, 20 bytes each, in their order.
    sealers: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class SealedAnchor:
    """An anchor as the event in a sealed block's receipt states it; a verifier's `Anchored`."""

    size: int
    root: bytes
    meta_hash: bytes
    block_number: int
    block_hash: bytes
    tx_hash: bytes
    timestamp: int


@dataclass(frozen=True, slots=True)
class AnchorPlace:
    """Which anchor a bundle says stands in which block. `anchor_registries`: the versions of the
    contract, in lower case, of which any may have taken it."""

    anchor_registries: tuple[str, ...]
    member_id: str
    seq: int
    block_number: int
    block_hash: bytes
    tx_hash: bytes


def sealed_anchor(evidence: BlockEvidence, place: AnchorPlace) -> SealedAnchor:
    """The anchor that the evidence holds, if header, proofs and seals belong together. SealRefused.

    Whether those who sealed it are the chain's validators is `check_sealers`' to say.
    """
    headers = _headers(evidence, place)
    block = headers[0]
    sent = value_at(block.transactions_root, evidence.place, evidence.transaction)
    if sent is None or keccak(sent) != place.tx_hash:
        raise SealRefused(
            SealFault.TRANSACTION_NOT_IN_BLOCK, "the anchor's transaction is not in the block"
        )
    receipt = value_at(block.receipts_root, evidence.place, evidence.receipt)
    if receipt is None:
        raise SealRefused(SealFault.RECEIPT_NOT_IN_BLOCK, "the receipt is not in the block")
    data = _anchored_data(receipt, place)
    if data is None:
        raise SealRefused(
            SealFault.EVENT_NOT_IN_RECEIPT, "the receipt has no such anchor of the trusted contract"
        )
    found = tuple(sealer for header in headers for sealer in header.sealers)
    if found != evidence.sealers:
        raise SealRefused(SealFault.SEAL_INVALID, "a seal is not that of the sealer it names")
    return SealedAnchor(
        size=int.from_bytes(data[:32], "big"),
        root=data[64:96],
        meta_hash=data[96:],
        block_number=block.number,
        block_hash=block.hash,
        tx_hash=place.tx_hash,
        timestamp=block.timestamp,
    )


def check_sealers(evidence: BlockEvidence, validators: Set[bytes]) -> str:
    """How many of the validators sealed it, in words; SealRefused if that isn't enough."""
    sealers = set(evidence.sealers)
    if stranger := sorted(sealers - validators):
        raise SealRefused(
            SealFault.SEALER_UNKNOWN, f"0x{stranger[0].hex()} is none of the validators given"
        )
    count = len(validators)
    needed = -(-2 * count // 3) if evidence.finality is Finality.QBFT else count // 2 + 1
    said = f"{len(sealers)} of {count} validators"
    if evidence.finality is Finality.CLIQUE:
        said += f", {1 + len(evidence.following)} blocks"
    if len(sealers) < max(needed, 1):
        raise SealRefused(SealFault.SEALS_TOO_FEW, f"sealed by {said}; {needed} are needed")
    return said


def seals_judged(evidence: BlockEvidence | None, validators: Set[bytes] | None) -> str:
    """In words for people: by which validators a proof's seals are judged, or why they aren't."""
    if evidence is None:
        return "not judged: the proof carries none"
    if validators is None:
        carried = f"the proof carries {len(evidence.sealers)} for {evidence.finality}"
        return f"not judged: no validators were given ({carried})"
    named = ", ".join(f"0x{address.hex()}" for address in sorted(validators))
    return f"judged by the {len(validators)} validators given: {named}"


def _headers(evidence: BlockEvidence, place: AnchorPlace) -> list[BlockHeader]:
    """The block and those after it, each the child of the one before."""

    def fault(detail: str) -> SealRefused:
        return SealRefused(SealFault.BLOCK_MISMATCH, detail)

    try:
        headers = [parse_header(raw) for raw in (evidence.header, *evidence.following)]
    except HeaderMalformed as error:
        raise fault(str(error)) from None
    if {_FINALITY_OF[header.consensus] for header in headers} != {evidence.finality}:
        raise fault(f"a header is not one of {evidence.finality}")
    if evidence.finality is Finality.QBFT and evidence.following:
        raise fault("a block of QBFT needs none after it")
    if (headers[0].hash, headers[0].number) != (place.block_hash, place.block_number):
        raise fault("the header is another block's")
    for parent, child in itertools.pairwise(headers):
        if (child.parent_hash, child.number) != (parent.hash, parent.number + 1):
            raise fault(f"block {child.number} doesn't follow block {parent.number}")
    return headers


def _anchored_data(receipt: bytes, place: AnchorPlace) -> bytes | None:
    """The data of the Anchored event in a receipt (EIP-2718: a type's byte may stand before it)."""
    try:
        parts = rlp.decode(receipt[1:] if receipt[0] < 0x80 else receipt)
    except rlp.RlpMalformed:
        return None
    if isinstance(parts, bytes) or len(parts) != 4 or isinstance(parts[3], bytes):
        return None
    topics = [_ANCHORED, ids.member_word(place.member_id), place.seq.to_bytes(32, "big")]
    emitters = [bytes.fromhex(address[2:]) for address in place.anchor_registries]
    for log in parts[3]:
        if isinstance(log, bytes) or len(log) != 3:
            return None
        data = log[2]
        if log[0] in emitters and log[1] == topics and isinstance(data, bytes):
            return data if len(data) == _ANCHORED_DATA else None
    return None
