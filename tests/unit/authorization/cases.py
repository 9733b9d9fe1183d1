"""Requests, cards and accounts for the tests of the rules; and an engine of a few lines.

The engine does with decisions what the real one does, in memory: it keeps the account's newest
version and what follow-ups must know of earlier transactions.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from nodes import ids
from nodes.authorization import rules
from nodes.authorization.controls import Rule, Terms
from nodes.authorization.model import AuthorizationRequest, Kind, Outcome
from nodes.authorization.state import (
    Account,
    Card,
    CardStanding,
    Decision,
    Facts,
    Moment,
    Original,
    Progress,
    Purse,
)

START_MS = 1_789_000_000_000
CARD = Card(1, b"c" * 16, 100, "622300******0001", "3001", "201", None)
OTHER_CARD = Card(2, b"o" * 16, 300, "622300******0002", "3001", "201", None)


def moment(now_ms: int = START_MS, zone: str = "Asia/Shanghai") -> Moment:
    return Moment(now_ms, datetime.fromtimestamp(now_ms / 1000, UTC).astimezone(ZoneInfo(zone)))


def at(text: str, zone: str = "Asia/Shanghai") -> Moment:
    """A local time, "2026-03-01 09:30"."""
    local = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))
    return Moment(round(local.timestamp() * 1000), local)


def request(kind: Kind = Kind.PURCHASE, amount: int = 100, **changes: Any) -> AuthorizationRequest:
    """A request as a well-behaved acquirer sends it; its number makes its txid."""
    number = changes.pop("number", 1)
    network_ref = number.to_bytes(16, "big")
    values: dict[str, Any] = {
        "txid": ids.txid("harbor", "aurora", network_ref),
        "network_ref": network_ref,
        "acquirer": "harbor",
        "issuer": "aurora",
        "kind": kind,
        "amount": amount,
        "currency": "CNY",
        "pan": "6223001000000001" if changes.get("original_txid") is None else None,
        "entry_mode": "051",
        "merchant_id": "MERIDIAN0000001",
        "merchant_name": "Meridian",
        "mcc": "5411",
        "country": "CN",
        "terminal_id": "T0000001",
        "terminal_seq": number,
        "business_date": "2026-09-10",
        "batch": "000001",
        "stan": f"{number % 1_000_000:06d}",
        "rrn": f"{number:012d}",
        "transmitted_ms": START_MS,
        "local_time": "2026-09-10T08:00:00",
        "salt_fin": bytes(32),
        "salt_pii": bytes(32),
        "deadline_ms": 1 << 52,
    }
    return AuthorizationRequest(**(values | changes))


def account(balance: int = 1_000, **changes: Any) -> Account:
    """One main purse with this balance, and the card."""
    values: dict[str, Any] = {
        "account_id": 100,
        "version": 1,
        "currency": "CNY",
        "purses": (Purse(100, "main", balance),),
        "cards": {1: CardStanding("active")},
    }
    return Account(**(values | changes))


class Books:
    """One account, one other to transfer to, and the transactions of both: the engine in small."""

    def __init__(
        self,
        start: Account | None = None,
        terms: Terms | None = None,
        limits: tuple[Rule, ...] = (),
    ) -> None:
        self.account = start if start is not None else account()
        self.other = Account(
            300, 1, "CNY", (Purse(300, "main"),), cards={2: CardStanding("active")}
        )
        self.terms = terms if terms is not None else Terms()
        self.rules = limits
        self.moment = moment()
        self.originals: dict[bytes, Original] = {}
        self.number = 0
        self.ledger: dict[object, int] = {}

    def go_to(self, now: Moment) -> None:
        self.moment = now

    def pass_ms(self, milliseconds: int) -> None:
        self.moment = moment(self.moment.now_ms + milliseconds)

    def facts(self, **changes: Any) -> Facts:
        values: dict[str, Any] = {"card": CARD, "account": self.account, "rules": self.rules}
        return Facts(self.moment, self.terms, **(values | changes))

    def ask(self, kind: Kind, amount: int, of: bytes | None = None, **changes: Any) -> Decision:
        """Decide a request and keep what it makes; `of` is the original's txid."""
        self.number += 1
        asked = request(kind, amount, number=self.number, original_txid=of, **changes)
        original = self.originals.get(of) if of is not None else None
        behind = original.original_txid if original is not None else None
        facts = self.facts(
            card=None if asked.pan is None else CARD,
            original=original,
            root=self.originals.get(behind) if behind is not None else None,
        )
        decision = rules.decide(asked, facts)
        self.keep(decision)
        self.originals[asked.txid] = _original(asked, decision)
        self.last = asked.txid
        return decision

    def keep(self, decision: Decision) -> None:
        """The next versions, the moves, and what became of earlier transactions."""
        if decision.account is not None:
            assert decision.account.version == self.account.version + 1
            self.account = decision.account
        if decision.to_account is not None:
            self.other = decision.to_account
        for move in decision.moves:
            assert move.amount > 0
            self.ledger[move.debit] = self.ledger.get(move.debit, 0) - move.amount
            self.ledger[move.credit] = self.ledger.get(move.credit, 0) + move.amount
        for txid, progress in decision.progress.items():
            self.originals[txid] = msgspec.structs.replace(self.originals[txid], progress=progress)

    def load(self, amount: int, **changes: Any) -> Decision:
        decision = rules.decide_load(amount, self.facts(), **changes)
        self.keep(decision)
        return decision

    def transfer(self, amount: int, **changes: Any) -> Decision:
        values = {"to_card": OTHER_CARD, "to_account": self.other}
        decision = rules.decide_transfer(amount, self.facts(**(values | changes)))
        self.keep(decision)
        return decision

    def set_card(self, status: str) -> None:
        self.keep(rules.decide_standing(self.facts(), 1, status))

    def set_account(self, status: str) -> None:
        self.keep(rules.decide_account_status(self.facts(), status))


def _original(asked: AuthorizationRequest, decision: Decision) -> Original:
    yes = decision.outcome is Outcome.APPROVED
    amount = decision.amount if yes else asked.amount
    detail = decision.detail
    return Original(
        txid=asked.txid,
        kind=asked.kind,
        outcome=decision.outcome,
        amount=amount,
        currency=asked.currency,
        acquirer=asked.acquirer,
        merchant_id=asked.merchant_id,
        terminal_id=asked.terminal_id,
        account_id=None if decision.account is None else decision.account.account_id,
        card_token=CARD.card_token,
        pan_masked=CARD.pan_masked,
        mcc=asked.mcc,
        decided_ms=START_MS,
        progress=Progress(amount),
        original_txid=asked.original_txid,
        parts=detail.parts,
        shortfall=detail.shortfall,
        counted=detail.counted,
        card_id=detail.card_id,
        used=detail.used,
        requested=detail.requested,
    )
