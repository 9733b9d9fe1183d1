"""What sealing, anchoring and the merchant's feed handle: frozen records, no behaviour.

A ledger row is a mapping of column names to `Value`: every column is evidence, so code that treats
all of them alike is the shorter and the safer code. Dates are ISO 8601 texts, moments are
microseconds since 1970 (UTC), xact is PostgreSQL's 64-bit transaction number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from nodes.anchoring.checkpoint import Origin, Totals
from nodes.anchoring.leaf import Leaf

Value = int | str | bytes | None

#: The columns of `transactions` in the order of the schema.
ROW_COLUMNS = (
    "transaction_id",
    "txid",
    "side",
    "network_ref",
    "acquirer",
    "issuer",
    "kind",
    "outcome",
    "amount",
    "currency",
    "approval_code",
    "merchant_id",
    "merchant_name",
    "mcc",
    "country",
    "terminal_id",
    "terminal_seq",
    "pair_seq",
    "business_date",
    "batch",
    "stan",
    "rrn",
    "entry_mode",
    "pan_masked",
    "card_token",
    "account_id",
    "account_version",
    "original_txid",
    "transmitted_ms",
    "decided_ms",
    "salt_fin",
    "salt_pii",
    "card_token_leaf",
    "salt_private",
    "commitment",
    "recorded_at",
    "xact",
)
#: The columns of `transfers` in P's copy; transaction_id is the row's own.
TRANSFER_COLUMNS = (
    "line",
    "debit_account",
    "credit_account",
    "amount",
    "currency",
    "balance_after",
)


class AnchorState(StrEnum):
    """How far the evidence of a row is (evidence.md, Sending to the chain)."""

    UNSEALED = "UNSEALED"
    SEALED = "SEALED"
    SUBMITTED = "SUBMITTED"
    ANCHORED = "ANCHORED"


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """A row of `transactions` with its transfers, ordered by line."""

    values: Mapping[str, Value]
    transfers: tuple[Mapping[str, Value], ...] = ()

    @property
    def transaction_id(self) -> int:
        """The primary key."""
        number = self.values["transaction_id"]
        if not isinstance(number, int):
            raise TypeError("transaction_id is a number")
        return number


@dataclass(frozen=True, slots=True)
class RowEvidence:
    """What a ledger row becomes in the log; C's field leaves are 32 bytes each, in order."""

    leaf: Leaf
    encoded: bytes
    leaf_hash: bytes
    shared_leaves: bytes
    private_copy: bytes


@dataclass(frozen=True, slots=True)
class LogIdentity:
    """Whose log it is and where it is anchored."""

    member_id: str
    chain_id: int
    anchor_registry: str

    @property
    def origin(self) -> Origin:
        """The origin of the log's checkpoints, and its note key's name."""
        return Origin(self.chain_id, self.anchor_registry.lower(), self.member_id)


@dataclass(frozen=True, slots=True)
class Position:
    """How far sealing has come: the last row's (xact, transaction_id)."""

    xact: int
    transaction_id: int


START = Position(0, 0)


@dataclass(frozen=True, slots=True)
class Batch:
    """A sealed interval [first_index, size) of the log."""

    seq: int
    first_index: int
    size: int
    prev_root: bytes
    root: bytes
    note: str  # the checkpoint, signed
    consistency: tuple[bytes, ...]
    position: Position
    sealed_us: int
    totals: tuple[Totals, ...] = ()

    @property
    def leaf_count(self) -> int:
        return self.size - self.first_index


@dataclass(frozen=True, slots=True)
class Submission:
    """The transaction by which a batch goes to the chain; `raw` is what is broadcast."""

    seq: int
    state: AnchorState
    nonce: int
    tx_hash: bytes
    raw: bytes
    block_number: int | None = None
    block_hash: bytes | None = None


class FeedItem(msgspec.Struct, frozen=True, kw_only=True):
    """A sealed transaction as an acquirer hands it to the merchant: nothing of card or holder.

    `card_token_leaf` stands in for the card token, so that the merchant computes the same C.
    """

    log_index: int
    txid: bytes
    network_ref: bytes
    acquirer: str
    issuer: str
    kind: str
    outcome: str
    amount: int
    currency: str
    approval_code: str | None
    merchant_id: str
    merchant_name: str
    mcc: str
    country: str
    terminal_id: str
    terminal_seq: int
    pair_seq: int
    business_date: str  # YYYY-MM-DD
    batch: str
    stan: str
    rrn: str
    entry_mode: str
    original_txid: bytes | None
    transmitted_ms: int
    decided_ms: int
    salt_fin: bytes
    card_token_leaf: bytes
    commitment: bytes
