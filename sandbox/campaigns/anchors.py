"""Anchors that mustn't be: forked, replayed and impersonated ones, sent to the real chain.

The contract (or the chain's node) has to refuse each by name, and the log it was aimed at has to
stay where it was.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg

from nodes.chain.anchors import AnchorHead
from nodes.chain.errors import ChainRefused, ChainReverted
from nodes.chain.signer import LocalSigner
from nodes.crypto.merkle import EMPTY_ROOT
from sandbox.campaigns.ledger import MEMBERS
from sandbox.campaigns.scene import Scene
from sandbox.campaigns.tally import Tallies
from sandbox.campaigns.thief import consistency_path, merkle_root

FORKED, REPLAYED, IMPERSONATED = "ANCHOR_FORKED", "ANCHOR_REPLAYED", "ANCHOR_IMPERSONATED"
_CLEAN_EVERY = 50


@dataclass
class Log:
    """A member's log as its owner has it."""

    member_id: str
    hashes: list[bytes]
    sent: list[tuple[bytes, bytes]]  # raw transactions of its anchors, and their hashes


@dataclass
class Attack:
    """The arguments of an anchor, by whom it is signed, and what has to be said about it."""

    what: str
    reasons: frozenset[str]
    signer: LocalSigner
    seq: int
    size: int
    prev_root: bytes
    root: bytes
    proof: list[bytes]
    block_hash: bytes | None = None
    chain_id: int | None = None
    data: str | None = None


@dataclass
class Chain:
    """The chain with the members' logs, and who sends to it."""

    scene: Scene
    source: random.Random
    logs: list[Log] = field(default_factory=list)

    def __post_init__(self) -> None:
        for member in MEMBERS:
            with psycopg.connect(self.scene.postgres.superuser_dsn(member)) as connection:
                rows = connection.execute("SELECT leaf_hash FROM log_leaves ORDER BY log_index")
                hashes = [bytes(row[0]) for row in rows]
                rows = connection.execute("SELECT raw_tx, tx_hash FROM anchor_submissions")
                sent = [(bytes(raw), bytes(tx_hash)) for raw, tx_hash in rows]
            self.logs.append(Log(member, hashes, sent))

    def head(self, log: Log) -> AnchorHead:
        """The log's newest anchor."""
        found = self.scene.view.registry.head(log.member_id)
        assert found is not None
        return found

    def next_anchor(self, log: Log) -> dict[str, Any]:
        """What the member's next honest anchor could be."""
        head = self.head(log)
        hashes = [
            *log.hashes[: head.size],
            *(self.source.randbytes(32) for _ in range(self._more())),
        ]
        return {
            "seq": head.seq + 1,
            "size": len(hashes),
            "prev_root": head.root,
            "root": merkle_root(hashes),
            "proof": consistency_path(head.size, hashes),
        }

    def _more(self) -> int:
        return self.source.randrange(1, 40)

    def send(self, attack: Attack) -> str:
        """Sign and send; the name by which it was refused, empty if it was not."""
        client, registry = self.scene.client, self.scene.view.registry
        transaction = registry.build_anchor_tx(
            sender=attack.signer.address,
            nonce=client.nonce(attack.signer.address),
            seq=attack.seq,
            size=attack.size,
            prev_root=attack.prev_root,
            root=attack.root,
            proof=attack.proof,
            recent_block_hash=attack.block_hash,
            chain_id=attack.chain_id,
            gas_price=0,
        )
        if attack.data is not None:
            transaction["data"] = attack.data
        raw, _ = attack.signer.sign_transaction(transaction)
        return self.broadcast(raw)

    def broadcast(self, raw: bytes) -> str:
        """Send signed bytes; why they had no effect, empty if they had."""
        client = self.scene.client
        try:
            receipt = client.wait_for_receipt(client.send_raw(raw))
        except ChainReverted as refused:
            return refused.reason
        except ChainRefused as refused:
            return f"refused: {refused.message}"
        return "" if receipt.ok else client.revert_of(receipt.tx_hash).reason


def tamper_anchors(scene: Scene, name: str, count: int, tallies: Tallies) -> None:
    """`count` attacks of one class."""
    chain = Chain(scene, random.Random(f"{tallies.seed} {name}"))
    for number in range(count):
        log = chain.logs[number % len(chain.logs)]
        before = chain.head(log)
        if name == REPLAYED and chain.source.random() < 0.25:
            what, reasons, said = _again(chain, log)
        else:
            attack = _ATTACKS[name](chain, log)
            what, reasons, said = attack.what, attack.reasons, chain.send(attack)
        same = chain.head(log) == before
        tallies.add(
            name,
            found=bool(said) and same,
            named=any(said == r or (r.endswith("...") and r[:-3] in said) for r in reasons),
            what=f"{log.member_id}: {what}: {said!r}, not {sorted(reasons)}; head kept: {same}",
        )
        if number % _CLEAN_EVERY == 0:
            _clean(chain, log, tallies)


def _clean(chain: Chain, log: Log, tallies: Tallies) -> None:
    """The honest next anchor would be taken: asked of the contract, not sent."""
    signer = chain.scene.operator(log.member_id)
    registry = chain.scene.view.registry
    transaction = registry.build_anchor_tx(
        sender=signer.address, nonce=0, gas_price=0, **chain.next_anchor(log)
    )
    try:
        registry.check_anchor_tx(transaction)
        tallies.clean()
    except (ChainReverted, ChainRefused) as refused:
        tallies.clean(alarm=f"{log.member_id}: an honest anchor is refused: {refused}")


def _fork(chain: Chain, log: Log) -> Attack:
    source, parts = chain.source, chain.next_anchor(log)
    head, signer = chain.head(log), chain.scene.operator(log.member_id)
    way = source.randrange(5)
    if way == 0:
        parts |= {"seq": source.randrange(1, head.seq + 1), "root": source.randbytes(32)}
        return Attack("another root under a number", frozenset({"WrongSequence"}), signer, **parts)
    if way == 1:
        hashes = log.hashes[: head.size] + [source.randbytes(32) for _ in range(3)]
        hashes[source.randrange(head.size)] = source.randbytes(32)
        parts |= {
            "size": len(hashes),
            "root": merkle_root(hashes),
            "proof": consistency_path(head.size, hashes),
        }
        return Attack("another past", frozenset({"InconsistentTree"}), signer, **parts)
    if way == 2:
        parts["prev_root"] = source.choice([EMPTY_ROOT, source.randbytes(32)])
        return Attack("another head before", frozenset({"WrongPreviousRoot"}), signer, **parts)
    if way == 3:
        size = source.randrange(1, head.size + 1)
        parts |= {"size": size, "root": merkle_root(log.hashes[:size]), "proof": []}
        return Attack("a shorter log", frozenset({"SizeNotGrowing"}), signer, **parts)
    parts["seq"] += source.randrange(1, 5)
    return Attack("a number left out", frozenset({"WrongSequence"}), signer, **parts)


def _replay(chain: Chain, log: Log) -> Attack:
    source, parts = chain.source, chain.next_anchor(log)
    signer, way = chain.scene.operator(log.member_id), source.randrange(3)
    if way == 0:
        _, tx_hash = source.choice(log.sent)
        sent = chain.scene.client.request("eth_getTransactionByHash", ["0x" + tx_hash.hex()])
        reasons = frozenset({"UnknownBlockHash", "WrongSequence"})
        return Attack("an anchor's data again", reasons, signer, **parts, data=sent["input"])
    if way == 1:
        other = chain.scene.state.chain_id + source.randrange(1, 1000)
        return Attack(
            "signed for another chain", frozenset({"chain..."}), signer, **parts, chain_id=other
        )
    return Attack(
        "a block of another chain",
        frozenset({"UnknownBlockHash"}),
        signer,
        **parts,
        block_hash=source.randbytes(32),
    )


def _again(chain: Chain, log: Log) -> tuple[str, frozenset[str], str]:
    """The very bytes of an anchor that stands: they are mined already, once."""
    raw, tx_hash = chain.source.choice(log.sent)
    client = chain.scene.client
    before = client.receipt(tx_hash)
    client.send_raw(raw)
    said = "" if client.receipt(tx_hash) != before or before is None else "mined already"
    return "the same bytes again", frozenset({"mined already"}), said


def _impersonate(chain: Chain, log: Log) -> Attack:
    source, parts = chain.source, chain.next_anchor(log)
    way = source.randrange(3)
    if way == 0:
        stranger = LocalSigner(secrets.token_bytes(32))
        return Attack("by a stranger", frozenset({"NotOperator", "permi..."}), stranger, **parts)
    if way == 1:
        others = [other for other in chain.logs if other.member_id != log.member_id]
        signer = chain.scene.operator(source.choice(others).member_id)
        # It counts for the sender's own log, where it doesn't fit.
        reasons = frozenset({"WrongSequence", "WrongPreviousRoot"})
        return Attack("by another member", reasons, signer, **parts)
    key = chain.scene.secret("governance", "operator")
    return Attack("by governance", frozenset({"NotOperator"}), LocalSigner(key), **parts)


_ATTACKS: dict[str, Callable[[Chain, Log], Attack]] = {
    FORKED: _fork,
    REPLAYED: _replay,
    IMPERSONATED: _impersonate,
}
