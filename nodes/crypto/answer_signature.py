"""The issuer's signature over (txid, C, pair_seq) in every answer: one Ed25519 signature a batch.

The answers of a batch are the leaves of a small RFC 9162 tree (section 2.1); the issuer's message
key signs its root and size, and each answer carries the signature with its own path. So an answer
stands alone as evidence (evidence.md, Identity and leaves: agreement is non-repudiable before any
sealing), and the hot path pays a signature a batch and a few hashes an answer.

    leaf      SHA-256(0x00 || "countersign/answer/1" || txid || C || uint64 pair_seq)
    node      SHA-256(0x01 || left || right)
    signed    "countersign/answers/1" || root || uint32 size
    encoding  signature (64) || uint16 index || uint16 size || path (32 bytes a node, lowest first)

Numbers are big-endian. The length of the path follows from index and size, so an encoding is
canonical: each of its bits counts. On the authorization path: trees are written out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from struct import Struct
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

#: Answers in one signature at most.
MAX_BATCH = 0xFFFF
#: Bytes of the longest encoding: that of a place in a batch of MAX_BATCH.
MAX_SHARE = 64 + 4 + 32 * 16
_LEAF = b"\x00countersign/answer/1"
_SIGNED = b"countersign/answers/1"
_PLACE = Struct(">HH")
_PLACE_END = 64 + _PLACE.size
_SIZE = Struct(">I")
_MAX_SEQ = 2**64 - 1


class Signs(Protocol):
    """An Ed25519 private key, or what holds one (cryptography's Ed25519PrivateKey is one)."""

    def sign(self, data: bytes, /) -> bytes:
        """The 64-byte Ed25519 signature of `data`."""
        ...


class AnswerSignatureMalformed(ValueError):
    """The bytes are no encoded answer signature; the text says why."""


@dataclass(frozen=True, slots=True)
class AnswerSignature:
    """One answer's share of its batch's signature."""

    signature: bytes  # 64 bytes, over the root and the size
    index: int
    size: int
    path: bytes  # 32 bytes a node, from the leaf's sibling upward

    def encode(self) -> bytes:
        """The bytes that travel with the answer."""
        return self.signature + _PLACE.pack(self.index, self.size) + self.path


def decode_answer_signature(raw: bytes) -> AnswerSignature:
    """Read an encoding. AnswerSignatureMalformed unless encoding it again gives the same bytes."""
    if len(raw) < _PLACE_END:
        raise AnswerSignatureMalformed(f"an answer signature has at least {_PLACE_END} bytes")
    index, size = _PLACE.unpack(raw[64:_PLACE_END])
    if index >= size:
        raise AnswerSignatureMalformed(f"no answer {index} in a batch of {size}")
    path = raw[_PLACE_END:]
    if len(path) != 32 * path_length(index, size):
        raise AnswerSignatureMalformed("the path has not the length of its place in the batch")
    return AnswerSignature(raw[:64], index, size, path)


def answer_leaf(txid: bytes, commitment: bytes, pair_seq: int) -> bytes:
    """The leaf hash of one answer. ValueError if a part has not its length."""
    if len(txid) != 32 or len(commitment) != 32:
        raise ValueError("txid and C are 32 bytes")
    if not 0 <= pair_seq <= _MAX_SEQ:
        raise ValueError("pair_seq is a number of 64 bits")
    return sha256(_LEAF + txid + commitment + pair_seq.to_bytes(8, "big")).digest()


def signed_message(root: bytes, size: int) -> bytes:
    """What the message key signs for a batch."""
    return _SIGNED + root + _SIZE.pack(size)


def path_length(index: int, size: int) -> int:
    """How many nodes the path of answer `index` has in a batch of `size`."""
    last, length = size - 1, 0
    while last:
        if index & 1 or index != last:
            length += 1
        index >>= 1
        last >>= 1
    return length


def sign_answers(signer: Signs, answers: Sequence[tuple[bytes, bytes, int]]) -> list[bytes]:
    """Each answer's encoded AnswerSignature, in order; one signature for all of them.

    `answers`: (txid, C, pair_seq) each, at most MAX_BATCH. No answers: no signature, an empty list.
    """
    size = len(answers)
    if size == 0:
        return []
    if size > MAX_BATCH:
        raise ValueError(f"a batch has at most {MAX_BATCH} answers, not {size}")
    root, paths = _tree([answer_leaf(*answer) for answer in answers])
    signature = signer.sign(signed_message(root, size))
    pack = _PLACE.pack
    return [signature + pack(index, size) + path for index, path in enumerate(paths)]


def _tree(leaves: list[bytes]) -> tuple[bytes, list[bytes]]:
    """The root over leaf hashes, and each leaf's path."""
    levels = []
    level = leaves
    while len(level) > 1:
        levels.append(level)
        pairs = iter(level)
        above = [
            sha256(b"\x01" + left + right).digest()
            for left, right in zip(pairs, pairs, strict=False)
        ]
        if len(level) & 1:
            above.append(level[-1])
        level = above
    # Downward: a node's path is its sibling and then its parent's path.
    paths = [b""]
    for level_below in reversed(levels):
        below: list[bytes] = []
        pairs = iter(level_below)
        for (left, right), above_path in zip(zip(pairs, pairs, strict=False), paths, strict=False):
            below += (right + above_path, left + above_path)
        if len(level_below) & 1:
            below.append(paths[-1])
        paths = below
    return level[0], paths


def verify_answer(
    public_key: bytes, txid: bytes, commitment: bytes, pair_seq: int, encoded: bytes
) -> bool:
    """Whether the holder of that message key said so of this transaction.

    False for whatever doesn't hold, malformed encodings included. Stands alone: nothing of the rest
    of the batch is needed. `public_key`: raw Ed25519, valid at that time by the directory.
    """
    return verify_answers(public_key, [(txid, commitment, pair_seq, encoded)])[0]


def verify_answers(
    public_key: bytes, answers: Sequence[tuple[bytes, bytes, int, bytes]]
) -> list[bool]:
    """`verify_answer` for each (txid, C, pair_seq, encoding); one signature check a batch.

    A whole batch in its order is checked by building its tree once, anything else by the paths;
    what several of them share is hashed once.
    """
    whole = _whole_batch(public_key, answers)
    if whole:
        return [True] * len(answers)
    trees: dict[tuple[bytes, int], _SignedTree] = {}
    return [_holds(public_key, answer, trees) for answer in answers]


class _SignedTree:
    """What is known of one batch's tree while parts of it are checked.

    `nodes`: by level and index, the hash of a node and the path above it, for nodes that the
    signature is known to cover. A share that meets one of them needs no hashing beyond.
    """

    def __init__(self, public_key: bytes, signature: bytes, size: int) -> None:
        self._claim = (public_key, signature, size)
        self._nodes: dict[tuple[int, int], tuple[bytes, bytes]] = {}
        self._roots: dict[bytes, bool] = {}

    def covers(self, leaf: bytes, index: int, path: bytes) -> bool:
        """Whether this leaf at this place leads to the signed root by exactly this path."""
        met: list[tuple[tuple[int, int], tuple[bytes, bytes]]] = []
        level, last, node = 0, self._claim[2] - 1, leaf
        while (known := self._nodes.get((level, index))) is None:
            met.append(((level, index), (node, path)))
            if not last:
                if not self._is_signed(node):
                    return False
                break
            if index & 1 or index != last:
                sibling, above = path[:32], path[32:]
                # It is covered if this node is, by the path that leads over this node.
                met.append(((level, index ^ 1), (sibling, node + above)))
                pair = sibling + node if index & 1 else node + sibling
                node, path = sha256(b"\x01" + pair).digest(), above
            level, index, last = level + 1, index >> 1, last >> 1
        if known is not None and known != (node, path):
            return False
        self._nodes.update(met)
        return True

    def _is_signed(self, root: bytes) -> bool:
        if root not in self._roots:
            public_key, signature, size = self._claim
            self._roots[root] = _signed(public_key, signature, root, size)
        return self._roots[root]


def _whole_batch(public_key: bytes, answers: Sequence[tuple[bytes, bytes, int, bytes]]) -> bool:
    """Whether these are all answers of one batch, in order, and all of them hold."""
    size = len(answers)
    if size < 2 or size > MAX_BATCH or answers[0][3][64:_PLACE_END] != _PLACE.pack(0, size):
        return False
    try:
        leaves = [answer_leaf(txid, c, pair_seq) for txid, c, pair_seq, _ in answers]
    except ValueError:
        return False
    root, paths = _tree(leaves)
    signature, pack = answers[0][3][:64], _PLACE.pack
    for index, ((_, _, _, encoded), path) in enumerate(zip(answers, paths, strict=True)):
        if encoded != signature + pack(index, size) + path:
            return False
    return _signed(public_key, signature, root, size)


def _holds(
    public_key: bytes,
    answer: tuple[bytes, bytes, int, bytes],
    trees: dict[tuple[bytes, int], _SignedTree],
) -> bool:
    txid, commitment, pair_seq, encoded = answer
    try:
        part = decode_answer_signature(encoded)
        leaf = answer_leaf(txid, commitment, pair_seq)
    except ValueError:
        return False
    tree = trees.get((part.signature, part.size))
    if tree is None:
        tree = _SignedTree(public_key, part.signature, part.size)
        trees[part.signature, part.size] = tree
    return tree.covers(leaf, part.index, part.path)


def _signed(public_key: bytes, signature: bytes, root: bytes, size: int) -> bool:
    try:
        _public_key(public_key).verify(signature, signed_message(root, size))
    except (InvalidSignature, ValueError):
        return False
    return True


@lru_cache(maxsize=1024)
def _public_key(raw: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(raw)


class AnswerSigner:
    """`Signs` with a member's message key, which no repr shows."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public_key = self._key.public_key().public_bytes_raw()
        self.sign = self._key.sign

    def __repr__(self) -> str:
        return f"AnswerSigner({self.public_key.hex()})"
