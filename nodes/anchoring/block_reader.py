"""Reads an anchor's block from the chain, with what proves that its validators sealed it.

What is told as JSON is put into RLP again and counts only if that gives the hashes and roots that
the header has. Where it doesn't, or blocks are one process's word, the bundle goes without
(DEV_FINALITY).
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from eth_hash.auto import keccak

from nodes.anchoring.block_header import (
    ISTANBUL_DIGEST,
    BlockHeader,
    Consensus,
    HeaderMalformed,
    clique_signers,
    parse_header,
)
from nodes.anchoring.bundle import MAX_BYTES, AnchorEvidence, parse_bundle
from nodes.anchoring.finality import BlockEvidence, Finality
from nodes.chain.errors import ChainError, ChainRefused, ChainUnavailable
from nodes.crypto import rlp
from nodes.crypto.patricia import trie_proof

#: The fields of a header in their order; those after nonce came with later rules.
_HEADER = (
    ("parentHash", bytes),
    ("sha3Uncles", bytes),
    ("miner", bytes),
    ("stateRoot", bytes),
    ("transactionsRoot", bytes),
    ("receiptsRoot", bytes),
    ("logsBloom", bytes),
    ("difficulty", int),
    ("number", int),
    ("gasLimit", int),
    ("gasUsed", int),
    ("timestamp", int),
    ("extraData", bytes),
    ("mixHash", bytes),
    ("nonce", bytes),
    ("baseFeePerGas", int),
    ("withdrawalsRoot", bytes),
    ("blobGasUsed", int),
    ("excessBlobGas", int),
    ("parentBeaconBlockRoot", bytes),
    ("requestsHash", bytes),
)
_LEGACY = ("nonce", "gasPrice", "gas", "to", "value", "input", "v", "r", "s")
#: EIP-2930 and EIP-1559: what stands before the access list; v, r and s follow it.
_TYPED = {
    1: ("chainId", "nonce", "gasPrice", "gas", "to", "value", "input"),
    2: ("chainId", "nonce", "maxPriorityFeePerGas", "maxFeePerGas", "gas", "to", "value", "input"),
}
_BYTES_OF_TRANSACTION = frozenset({"to", "input"})
_GENESIS = ("0x0", False)
_KEPT = 512
#: How long a chain that gave no answer isn't asked again: proofs go without seals, not late.
_REST_S = 5.0


class _NoEvidence(Exception):
    """This block has no seals that we can prove."""


class Rpc(Protocol):
    """The chain's JSON-RPC (nodes.chain.client.ChainClient)."""

    def request(self, method: str, params: Sequence[Any]) -> Any: ...


class BlockReader:
    """One chain's blocks as evidence. Thread-safe; what was read of a final block is kept."""

    def __init__(self, client: Rpc) -> None:
        self._client = client
        self._kept: OrderedDict[tuple[bytes, bytes], BlockEvidence | None] = OrderedDict()
        self._lock = threading.Lock()
        # How many blocks after its own make one final; None: one process seals. Unset: not asked.
        self._needs: int | None = None
        self._knows_needs = False
        self._rests_until = 0.0

    def sealed(self, raw: bytes) -> bytes:
        """A bundle with its block's evidence; as it is where the chain gives none or is away."""
        if self._knows_needs and self._needs is None:
            return raw
        bundle = parse_bundle(raw)
        block = self.evidence(bundle.evidence)
        if block is None:
            return raw
        with_block = replace(bundle, evidence=replace(bundle.evidence, block=block)).encode()
        return with_block if len(with_block) <= MAX_BYTES else raw

    def evidence(self, anchor: AnchorEvidence) -> BlockEvidence | None:
        """The anchor's block; None where there is no evidence to be had (now)."""
        key = (anchor.block_hash, anchor.tx_hash)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        if time.monotonic() < self._rests_until:
            return None
        try:
            found = self._read(anchor)
        except ChainUnavailable:
            self._rests_until = time.monotonic() + _REST_S
            return None
        except (ChainError, _NoEvidence):
            return None
        with self._lock:
            self._kept[key] = found
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return found

    def _read(self, anchor: AnchorEvidence) -> BlockEvidence | None:
        """None: such blocks never have any. _NoEvidence: not now."""
        if not self._knows_needs:
            self._needs = _blocks_needed(self._client.request("eth_getBlockByNumber", _GENESIS))
            self._knows_needs = True
        if self._needs is None:
            return None
        block = self._client.request("eth_getBlockByHash", ["0x" + anchor.block_hash.hex(), True])
        if block is None:
            raise _NoEvidence("the block is not on this chain")
        try:
            raw, header = _header(block)
            after = self._following(header, self._needs)
            transactions = [_transaction(entry) for entry in block["transactions"]]
            hashes = [bytes(keccak(transaction)) for transaction in transactions]
            if anchor.tx_hash not in hashes:
                raise _NoEvidence("the transaction is not in the block")
            place = hashes.index(anchor.tx_hash)
            receipts = [_receipt(entry) for entry in self._receipts(block)]
            of_transaction = _proof(transactions, place, header.transactions_root)
            of_receipt = _proof(receipts, place, header.receipts_root)
            sealers = tuple(s for each in (header, *(h for _, h in after)) for s in each.sealers)
        except (HeaderMalformed, KeyError, TypeError, ValueError):
            return None
        known = tuple(sealer for sealer in sealers if sealer is not None)
        if len(known) != len(sealers):
            return None
        is_qbft = header.consensus is Consensus.QBFT
        return BlockEvidence(
            finality=Finality.QBFT if is_qbft else Finality.CLIQUE,
            header=raw,
            place=place,
            transaction=of_transaction,
            receipt=of_receipt,
            following=tuple(raw for raw, _ in after),
            sealers=known,
        )

    def _following(self, header: BlockHeader, needed: int) -> list[tuple[bytes, BlockHeader]]:
        """The blocks after it that make it final."""
        found = []
        for number in range(header.number + 1, header.number + 1 + needed):
            block = self._client.request("eth_getBlockByNumber", [hex(number), False])
            if block is None:
                raise _NoEvidence("the blocks after it aren't there yet")
            found.append(_header(block))
        return found

    def _receipts(self, block: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        try:
            found = self._client.request("eth_getBlockReceipts", [block["hash"]])
            if isinstance(found, list):
                return found
        except ChainRefused:
            pass  # older engines have no such method
        each = [
            self._client.request("eth_getTransactionReceipt", [entry["hash"]])
            for entry in block["transactions"]
        ]
        if None in each:
            raise _NoEvidence("a receipt isn't there")
        return each


def _blocks_needed(genesis: Mapping[str, Any]) -> int | None:
    """How many blocks after its own make one final, by the chain's first block; None where one
    process seals all of them (the embedded chain, clique of one) or nobody that we know of."""
    try:
        if _bytes(genesis["mixHash"]) == ISTANBUL_DIGEST:
            return 0
        return len(clique_signers(_bytes(genesis["extraData"]))) // 2 or None
    except (HeaderMalformed, KeyError, TypeError, ValueError):
        return None


def _header(block: Mapping[str, Any]) -> tuple[bytes, BlockHeader]:
    """A block's header as RLP, and read; it must have the hash that the chain told."""
    fields = [
        _bytes(block[name]) if form is bytes else _number(block[name])
        for name, form in _HEADER
        if block.get(name) is not None
    ]
    raw = rlp.encode(fields)
    header = parse_header(raw)
    if header.hash != _bytes(block["hash"]):
        raise HeaderMalformed("the header has fields that are not known here")
    return raw, header


def _transaction(entry: Mapping[str, Any]) -> bytes:
    """A transaction as it was sent (EIP-2718)."""
    kind = int(entry.get("type") or "0x0", 16)
    if kind == 0:
        return rlp.encode([_field(entry, name) for name in _LEGACY])
    access: list[rlp.Item] = [
        [_bytes(part["address"]), [_bytes(key) for key in part["storageKeys"]]]
        for part in entry["accessList"]
    ]
    before = [_field(entry, name) for name in _TYPED[kind]]
    return bytes([kind]) + rlp.encode(
        [*before, access, *(_field(entry, name) for name in ("v", "r", "s"))]
    )


def _field(entry: Mapping[str, Any], name: str) -> bytes:
    value = entry[name]
    if name in _BYTES_OF_TRANSACTION:
        return b"" if value is None else _bytes(value)
    return _number(value)


def _receipt(entry: Mapping[str, Any]) -> bytes:
    """A receipt as it stands in the block's trie."""
    kind = int(entry.get("type") or "0x0", 16)
    logs: list[rlp.Item] = [
        [_bytes(log["address"]), [_bytes(topic) for topic in log["topics"]], _bytes(log["data"])]
        for log in entry["logs"]
    ]
    raw = rlp.encode(
        [
            _number(entry["status"]),
            _number(entry["cumulativeGasUsed"]),
            _bytes(entry["logsBloom"]),
            logs,
        ]
    )
    return bytes([kind]) + raw if kind else raw


def _proof(values: Sequence[bytes], place: int, root: bytes) -> tuple[bytes, ...]:
    found, nodes = trie_proof(values, place)
    if found != root:
        raise HeaderMalformed("the block's contents are not those of its header")
    return nodes


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text[2:])


def _number(text: str) -> bytes:
    return rlp.number(int(text, 16))
