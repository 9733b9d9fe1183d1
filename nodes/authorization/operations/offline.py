"""What a card may spend offline: its key is registered, and money set aside for it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec
from sqlalchemy import Engine

from nodes import clock
from nodes.authorization import rules
from nodes.authorization.model import Kind, Outcome
from nodes.authorization.operations.booking import (
    Once,
    Own,
    append_own,
    earlier,
    keep,
    own_key,
    read_scene,
    reason_of,
    settled,
    settled_once,
)
from nodes.authorization.state import Reason
from nodes.authorization.store import accounts, offline
from nodes.authorization.store.accounts import Connection
from nodes.crypto.offline_record import is_public_key, key_id_of


class ReserveOutcome(StrEnum):
    """How setting aside (or giving back) ends, in order of precedence."""

    KEY_REUSED = "key_reused"
    CARD_UNKNOWN = "card_unknown"
    CURRENCY_NOT_PERMITTED = "currency_not_permitted"
    AMOUNT_INVALID = "amount_invalid"
    CARD_NOT_ACTIVE = "card_not_active"
    NO_OFFLINE_KEY = "no_offline_key"
    OVER_RESERVE_LIMIT = "over_reserve_limit"
    INSUFFICIENT_FUNDS = "insufficient_funds"
    DONE = "done"


class ReserveResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """The outcome; txid, what the card has reserved then and what is available (minor units)."""

    outcome: ReserveOutcome
    txid: bytes | None = None
    reserved: int | None = None
    available: int | None = None
    reason: Reason | None = None


class KeyOutcome(StrEnum):
    """How registering a card's key ends, in order of precedence."""

    KEY_REUSED = "key_reused"
    KEY_INVALID = "key_invalid"
    CARD_UNKNOWN = "card_unknown"
    KEY_TAKEN = "key_taken"
    DONE = "done"


def register_offline_key(
    engine: Engine,
    member_id: str,
    *,
    card_token: bytes,
    public_key: bytes,
    actor: str,
    now: datetime,
    under: Once | None = None,
) -> KeyOutcome:
    """Let a card sign offline payments with a key (P-256, 65 bytes). A card may have several."""
    if not is_public_key(public_key):
        return KeyOutcome.KEY_INVALID

    def attempt(connection: Connection) -> KeyOutcome:
        if card_token not in accounts.cards_by_token(connection, [card_token]):
            return KeyOutcome.CARD_UNKNOWN
        done = offline.insert_key(
            connection,
            key_id_of(public_key),
            card_token,
            member_id,
            public_key,
            actor,
            clock.to_ms(now),
        )
        return KeyOutcome.DONE if done else KeyOutcome.KEY_TAKEN

    return settled_once(
        engine,
        under,
        "offline-key",
        (card_token, public_key, actor),
        KeyOutcome,
        KeyOutcome.KEY_REUSED,
        attempt,
        lambda outcome: outcome is KeyOutcome.DONE,
    )


def reserve_offline(
    engine: Engine,
    member_id: str,
    *,
    card_token: bytes,
    amount: int,
    currency: str,
    idempotency_key: str,
    now: datetime,
    time_zone: str = "Asia/Shanghai",
) -> ReserveResult:
    """Set an amount (minor units) aside for a card's offline payments; negative: give it back.

    Once an idempotency key. A card without a registered key can't spend offline, so nothing is
    set aside for it.
    """
    key = own_key("offline", idempotency_key, card_token, amount, currency)

    def attempt(connection: Connection) -> ReserveResult:
        known = earlier(connection, key, ReserveResult, ReserveResult(ReserveOutcome.KEY_REUSED))
        if known is not None:
            return known
        made = _reserve(
            connection, member_id, card_token, amount, currency, clock.to_ms(now), time_zone
        )
        if made.outcome is ReserveOutcome.DONE:
            keep(connection, key, member_id, made.txid, made)
        return made

    return settled(engine, attempt)


def _reserve(
    connection: Connection,
    member_id: str,
    card_token: bytes,
    amount: int,
    currency: str,
    at_ms: int,
    time_zone: str,
) -> ReserveResult:
    card = accounts.cards_by_token(connection, [card_token]).get(card_token)
    if card is None:
        return ReserveResult(ReserveOutcome.CARD_UNKNOWN)
    scene = read_scene(connection, [card.account_id], at_ms)
    before = scene.holders[card.account_id].account
    if before.currency != currency:
        return ReserveResult(ReserveOutcome.CURRENCY_NOT_PERMITTED)
    if amount > 0 and offline.key_of_card(connection, card_token) is None:
        return ReserveResult(ReserveOutcome.NO_OFFLINE_KEY)
    facts = scene.facts(card.account_id, card)
    decide = rules.decide_reserve if amount > 0 else rules.decide_release
    decision = decide(abs(amount), facts)
    after = decision.account
    if decision.outcome is not Outcome.APPROVED or after is None:
        refusal = _REFUSALS.get(decision.outcome, ReserveOutcome.CARD_NOT_ACTIVE)
        return ReserveResult(refusal, reason=reason_of(decision))
    kind = Kind.RESERVE if amount > 0 else Kind.RELEASE
    own = Own(member_id, kind, currency, decision, before, at_ms, time_zone, "offline", card=card)
    txid = append_own(connection, own)
    reserved = after.offline.get(card.card_id, 0)
    return ReserveResult(ReserveOutcome.DONE, txid, reserved, after.available)


_REFUSALS = {
    Outcome.AMOUNT_INVALID: ReserveOutcome.AMOUNT_INVALID,
    Outcome.CARD_UNKNOWN: ReserveOutcome.CARD_UNKNOWN,
    Outcome.AMOUNT_LIMIT: ReserveOutcome.OVER_RESERVE_LIMIT,
    Outcome.INSUFFICIENT_FUNDS: ReserveOutcome.INSUFFICIENT_FUNDS,
}
