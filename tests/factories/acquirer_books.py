"""An acquirer's books alone: its issuer is played by hand, with the real commitment code."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import psycopg

from nodes.acquiring.model import Merchant
from nodes.acquiring.operations import register_merchant, register_terminal
from nodes.authorization.model import (
    AuthorizationAnswer,
    Kind,
    Outcome,
    TerminalAnswer,
    TerminalRequest,
)
from nodes.authorization.operations.accepting import Acquirer, open_batch
from nodes.authorization.operations.forwarding import (
    settle_reversals,
    take_reversals,
)
from nodes.authorization.operations.judging import own_commitment
from nodes.authorization.operations.pending import (
    Closing,
    Forward,
    Pending,
    decode_pending,
)
from nodes.authorization.operations.recording import close_batch
from nodes.clock import FixedClock, to_datetime
from nodes.crypto.hsm import SoftwareHsm
from nodes.crypto.pan import luhn_digit
from tests.conftest import NodeDatabase

NOW_MS = 1_790_000_000_000
ACQUIRER, ISSUER = "meridian", "aurora"
MERCHANT = "MERIDIAN0000001"
TERMINALS = ("T0000001", "T0000002")
PAN = "622300100000000" + luhn_digit("622300100000000")
GATEWAY_ZONE, ISSUER_ZONE = bytes(range(16)), bytes(range(16, 32))
TOKEN = bytes(range(16))


@dataclass
class Books:
    """An acquirer's database, its terminals' conventions, and an issuer that does as it is told."""

    database: NodeDatabase
    connection: psycopg.Connection[Any]
    clock: FixedClock = field(default_factory=lambda: FixedClock(NOW_MS))
    stans: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    pair_seqs: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.acquirer = self.new_acquirer()
        merchant = Merchant(MERCHANT, "Harbor Stores", "5411", "CN", "CNY")
        now = to_datetime(NOW_MS)
        register_merchant(self.database.engine, merchant, now=now)
        for terminal in TERMINALS:
            register_terminal(self.database.engine, terminal, MERCHANT)

    def new_acquirer(self) -> Acquirer:
        """As another thread or process of the same institution has one."""
        hsm = SoftwareHsm({"zone:gateway": GATEWAY_ZONE, f"zone:{ISSUER}": ISSUER_ZONE})
        return Acquirer(ACQUIRER, hsm, self.clock, lambda _: ISSUER)

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.database.dsn, autocommit=True)

    def request(
        self, amount: int, kind: Kind = Kind.PURCHASE, **changes: object
    ) -> TerminalRequest:
        fields: dict[str, Any] = {
            "terminal_id": TERMINALS[0],
            "merchant_id": MERCHANT,
            "business_date": "2026-09-21",
            "batch": "000001",
            "stan": f"{next(self.stans):06d}",
            "kind": kind,
            "amount": amount,
            "currency": "CNY",
            "pan": PAN,
            "entry_mode": "051",
            "local_time": "2026-09-21T12:00:00",
            "deadline_ms": self.clock.now_ms() + 15_000,
        } | changes
        content = repr(sorted(fields.items())).encode()
        return TerminalRequest(**fields, fingerprint=hashlib.sha256(content).digest())

    def reversal_of(self, request: TerminalRequest, amount: int | None = None) -> TerminalRequest:
        """The 0400 of a request, for all of it or for an amount."""
        return msgspec.structs.replace(
            request,
            kind=Kind.REVERSAL,
            amount=request.amount if amount is None else amount,
            fingerprint=hashlib.sha256(request.fingerprint).digest(),
        )

    def open(self, *requests: TerminalRequest) -> list[TerminalAnswer | Forward]:
        return open_batch(self.connection, self.acquirer, requests)

    def forward(self, request: TerminalRequest) -> Forward:
        [opened] = self.open(request)
        assert isinstance(opened, Forward)
        return opened

    def refusal(self, request: TerminalRequest) -> TerminalAnswer:
        [opened] = self.open(request)
        assert isinstance(opened, TerminalAnswer)
        return opened

    def answer(
        self,
        pending: Pending,
        outcome: Outcome = Outcome.APPROVED,
        amount: int | None = None,
        original: AuthorizationAnswer | None = None,
    ) -> AuthorizationAnswer:
        """What the issuer says: it numbers and commits as real ones do."""
        request = pending.request
        approved = request.amount if amount is None else amount
        made = AuthorizationAnswer(
            txid=request.txid,
            outcome=outcome,
            approval_code="123456" if outcome is Outcome.APPROVED else None,
            amount=approved if outcome is Outcome.APPROVED else 0,
            currency=request.currency,
            card_token=TOKEN,
            commitment=bytes(32),
            pair_seq=next(self.pair_seqs),
            decided_ms=self.clock.now_ms(),
            original=original,
        )
        return msgspec.structs.replace(made, commitment=own_commitment(request, made))

    def close(self, *closings: Closing) -> list[TerminalAnswer]:
        return close_batch(self.connection, self.acquirer, closings)

    def approve(self, request: TerminalRequest, amount: int | None = None) -> TerminalAnswer:
        """A request all the way, approved by the issuer."""
        forward = self.forward(request)
        [told] = self.close(Closing(forward, self.answer(forward.pending, amount=amount)))
        return told

    def undo(
        self, request: TerminalRequest, original: AuthorizationAnswer, amount: int | None = None
    ) -> TerminalAnswer:
        """A terminal's reversal all the way, approved by the issuer for what it asks."""
        forward = self.forward(self.reversal_of(request, amount))
        answer = self.answer(forward.pending, original=original)
        [told] = self.close(Closing(forward, answer))
        return told

    def settle(
        self, original: AuthorizationAnswer | None, outcome: Outcome = Outcome.APPROVED
    ) -> int:
        """What the worker does with the queue, the issuer acknowledging everything."""
        taken = take_reversals(self.connection, self.acquirer)
        pairs = []
        for row in taken:
            pending = decode_pending(row.request)
            amount = None if original is not None and original.outcome is Outcome.APPROVED else 0
            pairs.append((row, self.answer(pending, amount=amount, original=original)))
        return settle_reversals(self.connection, self.acquirer, pairs)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database.owner_dsn) as connection:
            return connection.execute(query).fetchall()

    def merchant_balance(self) -> int:
        [(balance,)] = self.rows(
            "SELECT coalesce(sum(p.amount), 0)::bigint FROM postings p"
            " JOIN accounts a USING (account_id) WHERE a.kind = 'merchant'"
        )
        assert isinstance(balance, int)
        return balance

    def open_batches(self) -> int:
        return int(self.rows("SELECT count(*) FROM open_batches")[0][0])

    def transactions(self) -> list[tuple[str, str, int]]:
        return self.rows("SELECT kind, outcome, amount FROM transactions ORDER BY transaction_id")

    def terminal_seqs(self, terminal: str = TERMINALS[0]) -> list[int]:
        """The numbers that the terminal's transactions have, in order."""
        query = f"SELECT terminal_seq FROM transactions WHERE terminal_id = '{terminal}' ORDER BY 1"
        return [row[0] for row in self.rows(query)]
