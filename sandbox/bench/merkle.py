"""How fast the log's tree grows, beside plain hashing and beside other libraries.

The yardstick is a Python loop over hashlib that hashes what any RFC 9162 tree must: each leaf with
its prefix, and as many inner nodes less one. pymerkle and merkletools are development packages
at most (licence, age): they are measured where they can be imported.
"""

from __future__ import annotations

import hashlib
import importlib
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

from nodes.anchoring.leaf import LEAF_BYTES
from nodes.anchoring.operations.sealing import SEAL_LIMIT
from nodes.anchoring.tree import Frontier
from nodes.crypto.merkle import leaf_hash

#: Appending and the root may take this many times as long as the plain loop.
MERKLE_BOUND = 2.0


def measure_merkle(leaves: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Seconds of each way over the same leaves, and whether the bound holds."""
    content = [secrets.token_bytes(LEAF_BYTES) for _ in range(leaves)]
    seconds: dict[str, float] = {}
    roots: dict[str, bytes] = {}
    missing: list[str] = []
    for name, grow in _WAYS.items():
        began = time.perf_counter()
        try:
            roots[name] = grow(content)
        except ImportError:
            missing.append(name)
            continue
        seconds[name] = round(time.perf_counter() - began, 3)
        say(f"{name}: {leaves:,} leaves in {seconds[name]:.2f} s")
    ratio = seconds["countersign"] / seconds["hashlib loop"]
    slower = [name for name in seconds if name not in ("countersign", "hashlib loop")]
    return {
        "leaves": leaves,
        "seconds": seconds,
        "not_installed": missing,
        "vs_hashlib_loop": round(ratio, 3),
        # pymerkle hashes as RFC 9162 does; merkletools leaves the prefixes out.
        "same_root_as_pymerkle": roots.get("pymerkle", roots["countersign"])
        == roots["countersign"],
        "bound": MERKLE_BOUND,
        "bound_met": ratio <= MERKLE_BOUND
        and all(seconds[name] > seconds["countersign"] for name in slower),
    }


def _countersign(content: Sequence[bytes]) -> bytes:
    """As sealing does it: batches of SEAL_LIMIT leaves."""
    edge = Frontier()
    for start in range(0, len(content), SEAL_LIMIT):
        edge.extend(map(leaf_hash, content[start : start + SEAL_LIMIT]))
    return edge.root()


def _loop(content: Sequence[bytes]) -> bytes:
    node = b"\x01" + bytes(64)
    digest = b""
    for leaf in content:
        digest = hashlib.sha256(b"\x00" + leaf).digest()
    for _ in range(len(content) - 1):
        digest = hashlib.sha256(node).digest()
    return digest


def _pymerkle(content: Sequence[bytes]) -> bytes:
    tree = importlib.import_module("pymerkle").InmemoryTree(algorithm="sha256")
    for leaf in content:
        tree.append_entry(leaf)
    root: bytes = tree.get_state()
    return root


def _merkletools(content: Sequence[bytes]) -> bytes:
    tree = importlib.import_module("merkletools").MerkleTools(hash_type="sha256")
    tree.add_leaf([leaf.hex() for leaf in content], True)
    tree.make_tree()
    root: str = tree.get_merkle_root()
    return bytes.fromhex(root)


_WAYS: dict[str, Callable[[Sequence[bytes]], bytes]] = {
    "hashlib loop": _loop,
    "countersign": _countersign,
    "pymerkle": _pymerkle,
    "merkletools": _merkletools,
}
