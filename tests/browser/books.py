"""Made-up books of an issuer and an acquirer, with real commitments, real logs and real anchors.

What a proof is about is genuine here: leaves, trees, signed checkpoints and anchors on the embedded
chain are made by the product's own pure functions, so the console's Verify button has something to
verify. Only the ledger behind it is a list in memory.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from nodes import ids
from nodes.anchoring.bundle import AnchorEvidence, Bundle
from nodes.anchoring.checkpoint import Checkpoint, Origin, Totals, meta_hash, totals_hash
from nodes.anchoring.leaf import Leaf, LeafKind, encode_leaf
from nodes.anchoring.note import NoteSigner
from nodes.anchoring.tree import consistency_ranges
from nodes.authorization.model import Kind, Outcome
from nodes.chain.anchors import EMPTY_ROOT, AnchorRegistry
from nodes.chain.signer import LocalSigner
from nodes.crypto.commitment import (
    Opening,
    SharedFacts,
    SharedField,
    field_leaf,
    field_salt,
    shared_commitment,
)
from nodes.crypto.merkle import inclusion_path, leaf_hash, root_of
from tests.factories.chain import ChainFixture

ISSUER, ACQUIRER = "aurora", "meridian"
_SHOPS = (
    ("HARBOR000000001", "Harbor Stores", "HRB00001", 12_000),
    ("HARBOR000000001", "Harbor Stores", "HRB00002", 9_000),
    ("LANTERN00000001", "Lantern Tea House", "LTN00001", 3_200),
    ("METRO0000000001", "Metro Line 4", "MTR00017", 400),
    ("CAMPUS000000001", "North Campus Canteen", "CMP00003", 2_100),
)
_DECLINES = (
    *(Outcome.INSUFFICIENT_FUNDS,) * 6,
    *(Outcome.PIN_WRONG,) * 4,
    *(Outcome.CARD_EXPIRED,) * 2,
    Outcome.CARD_BLOCKED,
)


@dataclass
class Entry:
    """One transaction, as both institutions know it."""

    txid: bytes
    facts: SharedFacts
    salt_fin: bytes
    salt_pii: bytes
    commitment: bytes
    values: dict[str, Any]
    at: datetime

    def opening(self) -> Opening:
        """C with everything disclosed but the card token."""
        disclosed: dict[int, tuple[bytes, bytes]] = {}
        hidden: dict[int, bytes] = {}
        for number, word in zip(SharedField, self.facts.words(), strict=True):
            salt = self.salt_pii if number is SharedField.CARD_TOKEN else self.salt_fin
            of_field = field_salt(salt, self.txid, number)
            if number is SharedField.CARD_TOKEN:
                hidden[number] = field_leaf(number, of_field, word)
            else:
                disclosed[number] = (of_field, word)
        return Opening(disclosed, hidden)


class Day:
    """A stretch of traffic, the oldest first. Random, but the same for the same seed."""

    def __init__(self, seed: int = 7) -> None:
        self.random = random.Random(seed)
        self.sequence = 0

    def entry(self, at: datetime, outcome: Outcome | None = None) -> Entry:
        """One transaction at a moment."""
        draw = self.random
        self.sequence += 1
        merchant_id, name, terminal, size = draw.choice(_SHOPS)
        kind = draw.choices([Kind.PURCHASE, Kind.REFUND, Kind.BALANCE_INQUIRY], [92, 4, 4])[0]
        if outcome is None:
            good = draw.random() < 0.9
            outcome = Outcome.APPROVED if good else draw.choice(_DECLINES)
        amount = 0
        if kind is not Kind.BALANCE_INQUIRY:
            amount = max(100, round(draw.gauss(size, size / 3)))
        card = draw.randrange(40)
        token = hashlib.sha256(b"card%d" % card).digest()[:16]
        txid = ids.txid(ACQUIRER, ISSUER, draw.randbytes(16))
        milliseconds = int(at.timestamp() * 1000)
        at = datetime.fromtimestamp(milliseconds / 1000, UTC)
        facts = SharedFacts(
            amount, b"CNY", kind.word, milliseconds, merchant_id.encode(), outcome.word,
            bytes(32), token,
        )  # fmt: skip
        salt_fin, salt_pii = draw.randbytes(32), draw.randbytes(32)
        values = {
            "kind": kind.value,
            "outcome": outcome.value,
            "amount": amount,
            "currency": "CNY",
            "approval_code": f"{draw.randrange(10**6):06d}"
            if outcome.value == "approved"
            else None,
            "merchant_id": merchant_id,
            "merchant_name": name,
            "mcc": "5411",
            "country": "CN",
            "terminal_id": terminal,
            "acquirer": ACQUIRER,
            "issuer": ISSUER,
            "pan_masked": f"622300******{4000 + card}",
            "card_token": token.hex(),
            "stan": f"{self.sequence:06d}",
            "rrn": f"632618{self.sequence:06d}",
            "batch": "000001",
            "business_date": f"{at:%Y-%m-%d}",
            "pair_seq": self.sequence,
            "terminal_seq": self.sequence,
            "entry_mode": draw.choice(["051", "071", "901"]),
            "original_txid": None,
        }
        commitment = shared_commitment(txid, facts, salt_fin, salt_pii)
        return Entry(txid, facts, salt_fin, salt_pii, commitment, values, at)

    def traffic(self, now: datetime, minutes: int, count: int) -> list[Entry]:
        """`count` transactions spread over the minutes before `now`, busier at times."""
        moments = sorted(
            now - timedelta(minutes=minutes * (self.random.betavariate(1.3, 1.9)))
            for _ in range(count)
        )
        return [self.entry(moment) for moment in moments]


@dataclass
class Books:
    """One institution's record: rows, sealed batches, anchors."""

    member_id: str
    name: str
    side: str
    chain: ChainFixture
    operator: LocalSigner
    signer: NoteSigner
    rows: list[Entry] = field(default_factory=list)
    leaves: list[bytes] = field(default_factory=list)
    batches: list[dict[str, Any]] = field(default_factory=list)

    @property
    def hashes(self) -> list[bytes]:
        return [leaf_hash(leaf) for leaf in self.leaves]

    def record(self, entry: Entry) -> None:
        """Write a transaction down; it is not sealed yet."""
        self.rows.append(entry)

    def seal(self, at: datetime, *, count: int | None = None) -> dict[str, Any]:
        """Put the rows that aren't in the log into it (the oldest `count` of them)."""
        first = len(self.leaves)
        chosen = self.rows[first : None if count is None else first + count]
        prev = root_of(self.hashes) if self.leaves else EMPTY_ROOT
        kind = {"issuer": LeafKind.ISSUER, "acquirer": LeafKind.ACQUIRER}[self.side]
        for entry in chosen:
            leaf = Leaf(
                kind, self.member_id, entry.txid, entry.commitment,
                hashlib.sha256(self.member_id.encode() + entry.txid).digest(),
                ids.pair_id(ACQUIRER, ISSUER), entry.values["pair_seq"],
                entry.values["terminal_id"], entry.values["terminal_seq"],
            )  # fmt: skip
            self.leaves.append(encode_leaf(leaf))
        approved = [row for row in chosen if row.values["outcome"] == "approved"]
        totals = Totals(
            "CNY",
            len(approved),
            sum(row.values["amount"] for row in approved),
            len(chosen) - len(approved),
        )
        origin = Origin(self.chain.chain_id, self.chain.anchor_registry.lower(), self.member_id)
        size, root = len(self.leaves), root_of(self.hashes)
        note = self.signer.sign(str(origin), Checkpoint(origin, size, root).text()).encode()
        batch: dict[str, Any] = {
            "seq": len(self.batches) + 1,
            "first_index": first,
            "size": size,
            "prev_root": prev,
            "root": root,
            "note": note,
            "sealed_at": at,
            "totals": totals,
            "state": "SEALED",
            "anchor": None,
            "gas_used": None,
            "submitted_at": None,
            "anchored_at": None,
        }
        self.batches.append(batch)
        return batch

    def anchor(self, batch: dict[str, Any], at: datetime) -> None:
        """Put the batch's root on the chain."""
        client = self.chain.client()
        registry = AnchorRegistry(client, self.chain.anchor_registry)
        before = batch["first_index"]
        hashes = self.hashes[: batch["size"]]
        proof = [
            root_of(hashes[start:end])
            for start, end in (consistency_ranges(before, batch["size"]) if before else [])
        ]
        transaction = registry.build_anchor_tx(
            sender=self.operator.address,
            nonce=client.nonce(self.operator.address),
            seq=batch["seq"],
            size=batch["size"],
            prev_root=batch["prev_root"],
            root=batch["root"],
            proof=proof,
            meta_hash=meta_hash(
                batch["note"], _microseconds(batch["sealed_at"]), totals_hash([batch["totals"]])
            ),
        )
        raw, tx_hash = self.operator.sign_transaction(transaction)
        client.send_raw(raw)
        receipt = client.wait_for_receipt(tx_hash)
        anchored = registry.decode_anchored(receipt)
        assert anchored is not None
        batch |= {
            "state": "ANCHORED", "anchor": anchored, "gas_used": receipt.gas_used,
            "submitted_at": at, "anchored_at": at + timedelta(milliseconds=640),
        }  # fmt: skip

    def batch_of(self, index: int) -> dict[str, Any] | None:
        """The batch that holds a log index."""
        return next((batch for batch in self.batches if index < batch["size"]), None)

    def bundle(self, index: int) -> bytes | None:
        """The proof of a log entry; None before its batch is anchored."""
        batch = self.batch_of(index)
        if batch is None or batch["anchor"] is None:
            return None
        anchor = batch["anchor"]
        evidence = AnchorEvidence(
            seq=anchor.seq,
            tx_hash=anchor.tx_hash,
            block_number=anchor.block_number,
            block_hash=anchor.block_hash,
            sealed_us=_microseconds(batch["sealed_at"]),
            totals_hash=totals_hash([batch["totals"]]),
        )
        path = tuple(inclusion_path(index, self.hashes[: batch["size"]]))
        opening = self.rows[index].opening()
        return Bundle(self.leaves[index], opening, evidence, index, path, batch["note"]).encode()


def _microseconds(moment: datetime) -> int:
    return int(moment.timestamp()) * 1_000_000 + moment.microsecond
