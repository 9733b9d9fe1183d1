"""Ledger rows with right commitments and balances, written straight into a node's database."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, cast

import sqlalchemy

from nodes import ids
from nodes.anchoring.store import Connection, transaction
from nodes.authorization.model import Kind, Outcome
from nodes.crypto.commitment import SharedFacts, shared_commitment, shared_field_leaves
from nodes.ledger.model import AccountKey, Side, TransactionRecord, Transfer
from nodes.ledger.store import (
    find_or_open_accounts,
    record_transactions,
)

ACQUIRER, ISSUER, MERCHANT_MEMBER = "meridian", "aurora", "harbor"
MERCHANT_ID, TERMINAL_ID = "HARBOR000000001", "T0000001"
START_MS = 1_790_000_000_000


@dataclass
class LedgerFactory:
    """One member's books of one side. Random values come from a seed: runs repeat exactly."""

    engine: sqlalchemy.Engine
    side: Side
    seed: int = 1
    balance: int = 1_000_000
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _ids: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        with transaction(self.engine) as connection:
            self.accounts = find_or_open_accounts(
                connection, self._keys(), datetime(2026, 9, 1, tzinfo=UTC)
            )

    def _keys(self) -> tuple[AccountKey, AccountKey]:
        """The account of the customer in these books, and the other party's."""
        if self.side == "issuer":
            return AccountKey("cardholder", "A-1", "CNY"), AccountKey("settlement", ACQUIRER, "CNY")
        other = ISSUER if self.side == "acquirer" else ACQUIRER
        return AccountKey("merchant", MERCHANT_ID, "CNY"), AccountKey("settlement", other, "CNY")

    def add(self, count: int = 1) -> list[TransactionRecord]:
        """Write `count` transactions of mixed kinds in one commit."""
        with transaction(self.engine) as connection:
            return self.write(connection, count)

    def write(self, connection: Connection, count: int) -> list[TransactionRecord]:
        """The same within the caller's transaction."""
        records = [self.record() for _ in range(count)]
        record_transactions(connection, records)
        return records

    def _next_id(self) -> int:
        if not self._ids:
            with transaction(self.engine) as connection:
                # From 1 on, so that tests can name them.
                row = connection.execute("SELECT max(transaction_id) FROM transactions").fetchone()
                first = (row[0] if row and row[0] else 0) + 1
                self._ids = list(range(first, first + 1_000))[::-1]
        return self._ids.pop()

    def record(self, **change: Any) -> TransactionRecord:
        """The next transaction: mostly approved purchases, some declined, some refunds."""
        number, draw = next(self._numbers), self.random.random()
        kind = Kind.REFUND if draw < 0.15 else Kind.PURCHASE
        outcome = Outcome.INSUFFICIENT_FUNDS if draw > 0.8 else Outcome.APPROVED
        amount = self.random.randrange(1, 5_000)
        network_ref = self.random.randbytes(16)
        txid = ids.txid(ACQUIRER, ISSUER, network_ref)
        facts = SharedFacts(
            amount=amount,
            currency=b"CNY",
            kind=kind.word,
            time_ms=START_MS + number * 1000,
            merchant=MERCHANT_ID.encode(),
            outcome=outcome.word,
            original=b"o" * 32 if kind is Kind.REFUND else b"",
            card_token=self.random.randbytes(16),
        )
        salt_fin, salt_pii = self.random.randbytes(32), self.random.randbytes(32)
        merchant = self.side == "merchant"
        values: dict[str, Any] = {
            "transaction_id": self._next_id(),
            "txid": txid,
            "side": self.side,
            "network_ref": network_ref,
            "acquirer": ACQUIRER,
            "issuer": ISSUER,
            "kind": kind.value,
            "outcome": outcome.value,
            "amount": amount,
            "currency": "CNY",
            "approval_code": f"{number:06d}" if outcome is Outcome.APPROVED else None,
            "merchant_id": MERCHANT_ID,
            "merchant_name": "Harbor Stores 港",
            "mcc": "5411",
            "country": "CN",
            "terminal_id": TERMINAL_ID,
            "terminal_seq": number,
            "pair_seq": number,
            "business_date": date(2026, 9, 22),
            "batch": "000001",
            "stan": f"{number % 1_000_000:06d}",
            "rrn": f"{number:012d}",
            "entry_mode": "051",
            "pan_masked": None if merchant else "622300******1234",
            "card_token": None if merchant else facts.card_token,
            "account_id": self.accounts[self._keys()[0]] if self.side == "issuer" else None,
            "account_version": number if self.side == "issuer" else None,
            "original_txid": facts.original or None,
            "transmitted_ms": facts.time_ms,
            "decided_ms": facts.time_ms + 12,
            "salt_fin": salt_fin,
            "salt_pii": None if merchant else salt_pii,
            "card_token_leaf": shared_field_leaves(txid, facts, salt_fin, salt_pii)[7]
            if merchant
            else None,
            "salt_private": self.random.randbytes(32),
            "commitment": shared_commitment(txid, facts, salt_fin, salt_pii),
            "transfers": self._transfers(kind, outcome, amount),
        }
        return TransactionRecord(**cast(dict[str, Any], values | change))

    def _transfers(self, kind: Kind, outcome: Outcome, amount: int) -> tuple[Transfer, ...]:
        if outcome is not Outcome.APPROVED:
            return ()
        customer, other = (self.accounts[key] for key in self._keys())
        purchase_debits_customer = self.side == "issuer"
        if (kind is Kind.PURCHASE) == purchase_debits_customer:
            return (Transfer(customer, other, amount, self._after(-amount)),)
        return (Transfer(other, customer, amount, self._after(amount)),)

    def _after(self, change: int) -> int | None:
        if self.side != "issuer":
            return None
        self.balance += change
        return self.balance
