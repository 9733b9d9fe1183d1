"""A small log with its chain, in memory: what bundles are made from and judged against."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nodes import ids
from nodes.anchoring import tree
from nodes.anchoring.bundle import AnchorEvidence, Bundle
from nodes.anchoring.checkpoint import Checkpoint, Origin, Totals, meta_hash, totals_hash
from nodes.anchoring.events import event_evidence, opening_of
from nodes.anchoring.leaf import Leaf, LeafKind, encode_leaf
from nodes.anchoring.model import Value
from nodes.anchoring.note import NoteSigner
from nodes.crypto.commitment import (
    Opening,
    SharedFacts,
    SharedField,
    field_salt,
    shared_field_leaves,
)
from nodes.crypto.merkle import inclusion_path, leaf_hash, root_of

CHAIN_ID, REGISTRY, MEMBER = 31337, "0x" + "ab" * 20, "aurora"
SIGNER = NoteSigner(b"s" * 32)


@dataclass
class OnChain:
    """An anchor as the contract's event and block state it."""

    size: int
    root: bytes
    meta_hash: bytes
    block_number: int = 9
    block_hash: bytes = b"b" * 32
    tx_hash: bytes = b"x" * 32
    timestamp: int = 1_800_000_100


@dataclass
class View:
    """A ChainView over dictionaries."""

    chain_id: int = CHAIN_ID
    anchor_registry: str = REGISTRY
    anchors: dict[tuple[str, int], OnChain] = field(default_factory=dict)
    keys: dict[str, tuple[bytes, int, int]] = field(default_factory=dict)  # key, first, last
    predecessors: tuple[str, ...] = ()

    def anchor(self, member_id: str, seq: int) -> OnChain | None:
        return self.anchors.get((member_id, seq))

    def note_key(self, member_id: str, block_number: int) -> bytes | None:
        key, first, last = self.keys.get(member_id, (b"", 1, 0))
        return key if first <= block_number <= last else None


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def facts(number: int) -> SharedFacts:
    return SharedFacts(
        amount=100 + number,
        currency=b"CNY",
        kind=1,
        time_ms=1_800_000_000_000 + number,
        merchant=b"HARBOR000000001",
        outcome=0,
        original=b"",
        card_token=digest(f"token {number}")[:16],
    )


def make_log(
    size: int, disclose: frozenset[int] = frozenset(range(1, 8))
) -> tuple[list[bytes], View]:
    """Bundles of all `size` entries of one batch, and the chain that anchors it."""
    return _anchored(*make_entries(size, disclose))


def make_entries(
    size: int, disclose: frozenset[int] = frozenset(range(1, 8))
) -> tuple[list[bytes], list[Opening]]:
    """The leaves of `size` transactions, and the openings of their C."""
    openings, leaves = [], []
    for number in range(size):
        txid = digest(f"tx {number}")
        fin, pii = digest(f"fin {number}"), digest(f"pii {number}")
        fields = shared_field_leaves(txid, facts(number), fin, pii)
        words = facts(number).words()
        openings.append(
            Opening(
                {
                    int(f): (field_salt(pii if f == 8 else fin, txid, f), words[f - 1])
                    for f in SharedField
                    if f in disclose
                },
                {int(f): fields[f - 1] for f in SharedField if f not in disclose},
            )
        )
        leaves.append(
            encode_leaf(
                Leaf(
                    kind=LeafKind.ISSUER,
                    member_id=MEMBER,
                    txid=txid,
                    commitment=root_of(fields),
                    private_commitment=digest(f"private {number}"),
                    pair_id=ids.pair_id("meridian", MEMBER),
                    pair_seq=number + 1,
                    terminal_id="T0000001",
                    terminal_seq=number + 1,
                )
            )
        )
    return leaves, openings


def event(number: int) -> dict[str, Value]:
    """A row of `events`: an audit event with texts of two scripts, about a card."""
    return {
        "event_id": number + 1,
        "kind": "audit",
        "action": "rule.ended",
        "subject": f"rule {number}",
        "actor": "key:ops \u7ba1\u7406",
        "detail": "",
        "occurred_ms": 1_800_000_000_000 + number,
        "card_token": digest(f"token {number}")[:16],
        "salt_fin": digest(f"event fin {number}"),
        "salt_pii": digest(f"event pii {number}"),
        "card_token_leaf": None,
        "salt_private": digest(f"event private {number}"),
        "xact": 700 + number,
    }


def make_event_log(
    size: int, disclose: frozenset[int] = frozenset(range(1, 8))
) -> tuple[list[bytes], View]:
    """The same of a log of events."""
    openings, leaves, texts = [], [], []
    for number in range(size):
        evidence = event_evidence(MEMBER, event(number))
        shared = [evidence.shared_leaves[k : k + 32] for k in range(0, 256, 32)]
        opening, disclosed = opening_of(event(number), evidence.leaf.txid, shared, disclose)
        openings.append(opening)
        texts.append(disclosed)
        leaves.append(evidence.encoded)
    return _anchored(leaves, openings, texts)


def _anchored(
    leaves: list[bytes],
    openings: list[Opening],
    texts: Sequence[Mapping[int, bytes]] | None = None,
) -> tuple[list[bytes], View]:
    size = len(leaves)
    root, note = signed_tree(leaves, Origin(CHAIN_ID, REGISTRY, MEMBER))
    totals = totals_hash([Totals("CNY", size, 100 * size, 0)])
    anchor = OnChain(size, root, meta_hash(note, 5, totals))
    evidence = AnchorEvidence(1, anchor.tx_hash, anchor.block_number, anchor.block_hash, 5, totals)
    hashes = [leaf_hash(leaf) for leaf in leaves]
    bundles = [
        Bundle(
            leaves[n],
            openings[n],
            evidence,
            n,
            tuple(inclusion_path(n, hashes)),
            note,
            texts[n] if texts else None,
        ).encode()
        for n in range(size)
    ]
    view = View(anchors={(MEMBER, 1): anchor}, keys={MEMBER: (SIGNER.public_key, 1, 100)})
    return bundles, view


def signed_tree(leaves: Sequence[bytes], origin: Origin) -> tuple[bytes, str]:
    """The root over leaves, and its checkpoint as a signed note."""
    frontier = tree.Frontier()
    frontier.extend([leaf_hash(leaf) for leaf in leaves])
    checkpoint = Checkpoint(origin, len(leaves), frontier.root())
    return frontier.root(), SIGNER.sign(str(origin), checkpoint.text()).encode()
