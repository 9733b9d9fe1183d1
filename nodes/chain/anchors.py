"""Anchors: the sizes and roots of the members' logs, as the AnchorRegistry contract holds them.

A receipt alone proves nothing (a call into nothing succeeds too): an anchor counts once its
decoded event is there, see `decode_anchored`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from eth_abi.abi import decode
from eth_hash.auto import keccak
from eth_utils.address import to_checksum_address

from nodes.chain.client import ChainClient, Log, Receipt
from nodes.chain.contracts import ANCHOR_REGISTRY
from nodes.chain.errors import ChainReverted, WrongChain
from nodes.crypto.merkle import EMPTY_ROOT
from nodes.ids import member_from_word, member_word

# Anchored(memberId, seq; size, prevRoot, root, metaHash), indexed before the semicolon.
ANCHORED_TOPIC = keccak(b"Anchored(bytes32,uint64,uint64,bytes32,bytes32,bytes32)")
ZERO_WORD = bytes(32)

# What an anchor costs at most: about 100,000 gas, up to 256 BLOCKHASH look-ups of some 140 gas
# and about 2,500 gas (calldata and two hashes) a node of the proof, doubled.
_BASE_GAS = 300_000
_GAS_PER_NODE = 5_000
# A bound for contracts that lead on for ever; a network has a handful of versions.
_MOST_VERSIONS = 64


@dataclass(frozen=True, slots=True)
class AnchorHead:
    """A member's newest anchor: its number, the log's size in leaves and its root."""

    seq: int
    size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class Anchored:
    """The decoded event of an anchor. `prev_root` of the first is the root of the empty log."""

    member_id: str
    seq: int
    size: int
    prev_root: bytes
    root: bytes
    meta_hash: bytes
    block_number: int
    block_hash: bytes
    tx_hash: bytes


@dataclass(frozen=True, slots=True)
class Anchor:
    """An anchor with its place on the chain; `timestamp` is its block's, in seconds (UTC)."""

    seq: int
    size: int
    prev_root: bytes
    root: bytes
    meta_hash: bytes
    block_number: int
    block_hash: bytes
    tx_hash: bytes
    timestamp: int


class AnchorRegistry:
    """The contract at one address, read and written through one client."""

    def __init__(self, client: ChainClient, address: str) -> None:
        self.address = to_checksum_address(address)
        self._client = client
        self._contract = client.contract(ANCHOR_REGISTRY, address)
        self._before: tuple[str, ...] | None = None

    def member_registry(self) -> str:
        """The address of the MemberRegistry that this contract obeys."""
        return to_checksum_address(self._client.read(self._contract.functions.members()))

    def predecessors(self) -> tuple[str, ...]:
        """The versions before this contract, the newest first: what they hold counts here."""
        if self._before is None:
            self._before = tuple(_walk(self._client, "predecessor", self.address))
        return self._before

    def successors(self) -> tuple[str, ...]:
        """The versions after this contract, the next first. If there is one, its own heads are
        frozen. Its views ask these for what came later, for contracts that hold its address; here
        they are not followed: whoever trusts a contract chooses another one by themselves."""
        return tuple(_walk(self._client, "successor", self.address))

    def is_open(self) -> bool:
        """Whether it is the first version, or the one that its predecessor was retired for. No
        other takes anchors."""
        before = self.predecessors()
        return not before or next(_walk(self._client, "successor", before[0]), "") == self.address

    def head(self, member_id: str) -> AnchorHead | None:
        """A member's newest anchor, of a retired contract that in its newest successor; None
        before the first."""
        function = self._contract.functions.head(member_word(member_id))
        seq, size, root, _ = self._client.read(function)
        return AnchorHead(seq, size, bytes(root)) if seq else None

    def anchor(self, member_id: str, seq: int) -> Anchor | None:
        """A member's anchor by its number, from 1, in this version or one before; None if there is
        none (yet)."""
        word = member_word(member_id)
        if not 1 <= seq < 1 << 64:
            return None
        size, root, number = self._client.read(self._contract.functions.anchors(word, seq))
        if not size:
            return None
        topics = [ANCHORED_TOPIC, word, seq.to_bytes(32, "big")]
        events = (
            _anchored(log)
            for address in self._versions()
            for log in self._client.logs(address, number, number, topics)
        )
        event = next((e for e in events if (e.size, e.root) == (size, bytes(root))), None)
        if event is None:
            return None
        return Anchor(
            seq=event.seq,
            size=event.size,
            prev_root=event.prev_root,
            root=event.root,
            meta_hash=event.meta_hash,
            block_number=event.block_number,
            block_hash=event.block_hash,
            tx_hash=event.tx_hash,
            timestamp=self._client.block(number).timestamp,
        )

    def covering_seq(self, member_id: str, index: int) -> int | None:
        """The number of the first anchor whose tree holds leaf `index`; None if none does yet."""
        function = self._contract.functions.covering(member_word(member_id), index + 1)
        return int(self._client.read(function)) or None

    def covering(self, member_id: str, index: int) -> Anchor | None:
        """The first anchor whose tree holds leaf `index`; None if none does yet."""
        seq = self.covering_seq(member_id, index)
        return None if seq is None else self.anchor(member_id, seq)

    def anchors_since(
        self, from_block: int, to_block: int | None = None, member_id: str | None = None
    ) -> Iterator[Anchored]:
        """All members' (or one's) anchors from a block on, in the chain's order, of this version
        and those before it: there is none in one before the heads of its predecessor are frozen."""
        last = self._client.block_number() if to_block is None else to_block
        topics: list[bytes | None] = [ANCHORED_TOPIC]
        if member_id is not None:
            topics.append(member_word(member_id))
        versions = [*reversed(self.predecessors()), self.address]
        logs = (self._client.logs(address, from_block, last, topics) for address in versions)
        return map(_anchored, itertools.chain.from_iterable(logs))

    def build_anchor_tx(
        self,
        *,
        sender: str,
        nonce: int,
        seq: int,
        size: int,
        prev_root: bytes,
        root: bytes,
        proof: Sequence[bytes],
        meta_hash: bytes = ZERO_WORD,
        recent_block_hash: bytes | None = None,
        gas_price: int | None = None,
        chain_id: int | None = None,
    ) -> dict[str, Any]:
        """The unsigned transaction (legacy, type 0) of an anchor, ready for a Signer.

        `prev_root` of the first anchor is EMPTY_ROOT with an empty proof. What isn't given is
        asked of the chain. A transaction that isn't mined within 256 blocks of its recent block
        reverts with UnknownBlockHash and has to be built anew, with the next nonce.
        """
        if recent_block_hash is None:
            recent_block_hash = self._client.recent_block().hash
        arguments = [seq, size, prev_root, root, list(proof), recent_block_hash, meta_hash]
        return {
            "from": sender,
            "to": self.address,
            "nonce": nonce,
            "value": 0,
            "gas": _BASE_GAS + _GAS_PER_NODE * len(proof),
            "gasPrice": self._client.gas_price() if gas_price is None else gas_price,
            "chainId": self._client.chain_id() if chain_id is None else chain_id,
            "data": self._contract.encode_abi("anchor", args=arguments),
        }

    def check_anchor_tx(self, transaction: dict[str, Any]) -> None:
        """Runs an anchor's transaction without sending it: ChainReverted names what is wrong."""
        self._client.simulate(transaction)

    def is_consistent(
        self, size1: int, size2: int, root1: bytes, root2: bytes, proof: Sequence[bytes]
    ) -> bool:
        """The contract's own answer to whether (size2, root2) extends (size1, root1)."""
        function = self._contract.functions.isConsistent(size1, size2, root1, root2, list(proof))
        return bool(self._client.read(function))

    def decode_anchored(self, receipt: Receipt) -> Anchored | None:
        """The anchor that a transaction made, here or in a version before; None if it made none."""
        if not receipt.ok:
            return None
        for log in receipt.logs:
            if log.topics[:1] == (ANCHORED_TOPIC,) and log.address in self._versions():
                return _anchored(log)
        return None

    def _versions(self) -> Iterator[str]:
        """This contract and those before it, which are asked for only when it comes to that."""
        yield self.address
        yield from self.predecessors()


def _walk(client: ChainClient, step: str, address: str) -> Iterator[str]:
    """The contracts to which `step` leads, one after the other.

    None from what has no such function: an address that holds something else, or an
    AnchorRegistry of a time when versions didn't know each other.
    """
    for _ in range(_MOST_VERSIONS):
        try:
            function = client.contract(ANCHOR_REGISTRY, address).functions[step]
            found = to_checksum_address(client.read(function()))
        except (ChainReverted, WrongChain):
            return
        if not int(found, 16):
            return
        yield found
        address = found


def _anchored(log: Log) -> Anchored:
    size, prev_root, root, meta_hash = decode(["uint64", "bytes32", "bytes32", "bytes32"], log.data)
    return Anchored(
        member_id=member_from_word(log.topics[1]),
        seq=int.from_bytes(log.topics[2], "big"),
        size=size,
        prev_root=prev_root,
        root=root,
        meta_hash=meta_hash,
        block_number=log.block_number,
        block_hash=log.block_hash,
        tx_hash=log.tx_hash,
    )


__all__ = ["ANCHORED_TOPIC", "EMPTY_ROOT", "Anchor", "AnchorHead", "AnchorRegistry", "Anchored"]
