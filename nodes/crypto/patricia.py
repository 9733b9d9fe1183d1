"""Ethereum's Merkle-Patricia tries of a block's transactions and receipts: made and proven.

Yellow Paper, appendix D: keys are the RLP of a place in the block, values what stands there; a node
is named by the Keccak-256 of its RLP. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from eth_hash.auto import keccak

from nodes.crypto import rlp

_Pairs = Sequence[tuple[bytes, bytes]]


def trie_proof(values: Sequence[bytes], place: int) -> tuple[bytes, tuple[bytes, ...]]:
    """The root over a block's values in their order, and the nodes from it to the value at `place`,
    as `value_at` takes them. No value may be empty."""
    pairs = sorted((_nibbles(rlp.encode(rlp.number(n))), value) for n, value in enumerate(values))
    way: list[bytes] = []
    root = rlp.encode(_node(pairs, 0, _nibbles(rlp.encode(rlp.number(place))), way))
    return bytes(keccak(root)), (root, *reversed(way))


def value_at(root: bytes, place: int, nodes: Sequence[bytes]) -> bytes | None:
    """The value that a proof shows at a place under a root; None if it shows none. Every node has
    to be needed."""
    wanted = _nibbles(rlp.encode(rlp.number(place)))
    reference: rlp.Item = root
    left = list(nodes)
    while True:
        if isinstance(reference, bytes):
            # A reference by hash: the proof's next node is the one.
            if len(reference) != 32 or not left or keccak(left[0]) != reference:
                return None
            try:
                node = rlp.decode(left.pop(0))
            except rlp.RlpMalformed:
                return None
        else:
            node = reference  # shorter than a hash, so it stands in the node above
        step = _step(node, wanted)
        if step is None:
            return None
        reference, wanted, ended = step
        if ended:
            return reference if isinstance(reference, bytes) and reference and not left else None


def _step(node: rlp.Item, wanted: bytes) -> tuple[rlp.Item, bytes, bool] | None:
    """What a node holds on the way: a reference, the rest of the way, whether it is the value."""
    if isinstance(node, bytes):
        return None
    if len(node) == 17:
        return (node[wanted[0]], wanted[1:], False) if wanted else (node[16], b"", True)
    if len(node) != 2 or not isinstance(node[0], bytes):
        return None
    part = _unpacked(node[0])
    if part is None:
        return None
    path, is_leaf = part
    if is_leaf:
        return (node[1], b"", True) if path == wanted else None
    if not path or not wanted.startswith(path):
        return None
    return node[1], wanted[len(path) :], False


def _node(pairs: _Pairs, depth: int, wanted: bytes, way: list[bytes]) -> rlp.Item:
    """The node over sorted pairs that agree up to `depth`. `way` gets the RLP of those below it
    that lead to `wanted` and are referred to by hash, the deepest first."""
    first, value = pairs[0]
    if len(pairs) == 1:
        return [_packed(first[depth:], is_leaf=True), value]
    last = pairs[-1][0]
    same = depth
    while same < min(len(first), len(last)) and first[same] == last[same]:
        same += 1
    if same > depth:
        below = _reference(_node(pairs, same, wanted, way), first[:same], wanted, way)
        return [_packed(first[depth:same], is_leaf=False), below]
    slots: list[rlp.Item] = [b""] * 17
    for nibble in range(16):
        under = [pair for pair in pairs if len(pair[0]) > depth and pair[0][depth] == nibble]
        if under:
            prefix = under[0][0][: depth + 1]
            slots[nibble] = _reference(_node(under, depth + 1, wanted, way), prefix, wanted, way)
    if len(first) == depth:
        slots[16] = value
    return slots


def _reference(node: rlp.Item, prefix: bytes, wanted: bytes, way: list[bytes]) -> rlp.Item:
    raw = rlp.encode(node)
    if len(raw) < 32:
        return node
    if wanted.startswith(prefix):
        way.append(raw)
    return bytes(keccak(raw))


def _nibbles(raw: bytes) -> bytes:
    """A byte for each half of a byte."""
    return bytes(half for byte in raw for half in (byte >> 4, byte & 15))


def _packed(path: bytes, *, is_leaf: bool) -> bytes:
    """Hex-prefix encoding (appendix C)."""
    odd = len(path) & 1
    flag = 2 * is_leaf + odd
    halves = bytes([flag]) + path if odd else bytes([flag, 0]) + path
    return bytes(high << 4 | low for high, low in zip(halves[::2], halves[1::2], strict=True))


def _unpacked(raw: bytes) -> tuple[bytes, bool] | None:
    """A path and whether it ends in a leaf; None if it isn't hex-prefix encoding."""
    halves = _nibbles(raw)
    if not halves or halves[0] > 3:
        return None
    if halves[0] & 1:
        return halves[1:], halves[0] > 1
    return (halves[2:], halves[0] > 1) if halves[1] == 0 else None
