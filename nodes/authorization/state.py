"""What a decision depends on: frozen snapshots of card, account and original.

They are read under row locks, replaced by the rules' results, and written in the same transaction.
"""

from __future__ import annotations

import msgspec

from nodes.authorization.model import Kind, Outcome


class Card(msgspec.Struct, frozen=True):
    """A card as the issuer has it. `status` is one of the schema's (cards.status)."""

    card_id: int
    card_token: bytes
    account_id: int
    pan_masked: str
    expiry: str  # YYMM
    service_code: str
    status: str
    pin_lookup: bytes | None
    pin_tries_left: int


class Account(msgspec.Struct, frozen=True):
    """A cardholder's account; minor units. Available is balance - held + overdraft_limit."""

    account_id: int
    currency: str
    balance: int
    held: int
    overdraft_limit: int

    @property
    def available(self) -> int:
        return self.balance - self.held + self.overdraft_limit


class Original(msgspec.Struct, frozen=True):
    """An earlier transaction that a reversal or a refund names, and what became of it."""

    txid: bytes
    kind: Kind
    outcome: Outcome
    amount: int
    currency: str
    acquirer: str
    merchant_id: str
    terminal_id: str
    account_id: int | None
    card_token: bytes | None
    pan_masked: str | None
    refunded: int = 0
    reversed: bool = False


class Facts(msgspec.Struct, frozen=True):
    """All that the issuer's rules may look at, for one request."""

    now_ms: int
    #: The day at the issuer as YYMM, for the expiry check.
    year_month: str
    card: Card | None = None
    account: Account | None = None
    original: Original | None = None
    #: A reversal of this very txid came first.
    reversed_before: bool = False
    #: Whether the PIN block holds the card's PIN; None where no PIN block came or it is unusable.
    pin_matches: bool | None = None


class Decision(msgspec.Struct, frozen=True):
    """The outcome and what it changes."""

    outcome: Outcome
    #: Added to the cardholder's balance, minor units; negative in a purchase.
    balance_change: int = 0
    #: The card's PIN tries after the decision; None: unchanged.
    pin_tries_left: int | None = None
    #: Added to what was refunded of the original.
    refunded_change: int = 0
    #: The original is reversed by this.
    reverses: bool = False
    #: The original is unknown: should it come, it is declined.
    tombstone: bool = False
