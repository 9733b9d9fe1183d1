"""What would be answered to a payment, and why; nothing is posted, no use and no window counts.

The rules decide on the account as it is now (or at another moment of it), with the PIN taken as
right. What is told is what they looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import Engine

from nodes import ids
from nodes.authorization import rules
from nodes.authorization.controls import Measure, Rule
from nodes.authorization.model import AuthorizationRequest, Kind, Outcome
from nodes.authorization.operations.booking import Scene, read_scene
from nodes.authorization.operations.windows import used_of
from nodes.authorization.rules import limits
from nodes.authorization.state import Account, Card, Decision, Facts, Reason
from nodes.authorization.store import accounts
from nodes.authorization.store.accounts import Connection
from nodes.db.engine import transaction

#: What can be simulated: what needs no original.
SIMULATED_KINDS = (
    Kind.PURCHASE,
    Kind.AUTHORIZATION,
    Kind.BALANCE_INQUIRY,
    Kind.ADVICE,
    Kind.LOAD,
)
_PATIENCE_MS = 15_000


class Supposed(msgspec.Struct, frozen=True, kw_only=True):
    """A payment that nobody has asked for. Amount in minor units; `at_ms` None: now."""

    kind: Kind
    amount: int
    currency: str
    merchant_id: str = "SIMULATION00001"
    merchant_name: str = "simulated"
    mcc: str = "5411"
    country: str = "CN"
    channel: str = "pos"
    entry_mode: str = "051"
    partial_ok: bool = False
    at_ms: int | None = None


class RuleSeen(msgspec.Struct, frozen=True):
    """One rule over the payment. `used` and `would_be` are in the limit's measure."""

    rule: Rule
    in_force: bool
    concerns: bool
    used: int | None
    would_be: int | None
    #: Why it objects, in shadow mode too; None if it doesn't.
    reason: Reason | None


class Simulated(msgspec.Struct, frozen=True):
    """The decision, with the account before and after it."""

    decision: Decision
    card: Card
    before: Account
    after: Account
    rules: tuple[RuleSeen, ...]
    at_ms: int


def simulate(
    engine: Engine,
    member_id: str,
    supposed: Supposed,
    *,
    card_token: bytes | None,
    account_id: int | None,
    now_ms: int,
) -> Simulated | str | None:
    """What the issuer would decide; None if there is no such card or account, a text if the
    payment is not one that could come. An account is looked at through its first card.
    """
    at_ms = supposed.at_ms if supposed.at_ms is not None else now_ms
    with transaction(engine) as connection:
        card = _card(connection, card_token, account_id)
        found = None if card is None else _decided(connection, member_id, supposed, card, at_ms)
        # Reading a new account may open its further purses: not for a question.
        connection.rollback()
    return found


def _card(connection: Connection, token: bytes | None, account_id: int | None) -> Card | None:
    if token is not None:
        return accounts.cards_by_token(connection, [token]).get(token)
    cards = accounts.cards_of(connection, [account_id]) if account_id is not None else []
    return cards[0] if cards else None


def _decided(
    connection: Connection, member_id: str, supposed: Supposed, card: Card, at_ms: int
) -> Simulated | str:
    scene = read_scene(connection, [card.account_id], at_ms, asking=True)
    facts = _facts(scene, card)
    before = scene.holders[card.account_id].account
    if supposed.kind is Kind.LOAD:
        decision = rules.decide_load(supposed.amount, facts)
    else:
        request = _request(member_id, supposed, card, at_ms)
        wrong = rules.malformed(request, member_id)
        if wrong is not None:
            return wrong
        decision = rules.decide(request, facts)
    # Of a partial approval the rules are asked about the part.
    amount = decision.amount if decision.outcome is Outcome.APPROVED else supposed.amount
    return Simulated(
        decision=decision,
        card=card,
        before=before,
        after=decision.account or before,
        rules=tuple(_seen(rule, supposed, amount, before, facts) for rule in facts.rules),
        at_ms=at_ms,
    )


def _facts(scene: Scene, card: Card) -> Facts:
    return msgspec.structs.replace(scene.facts(card.account_id, card), pin_matches=True)


def _request(member_id: str, supposed: Supposed, card: Card, at_ms: int) -> AuthorizationRequest:
    network_ref = bytes(16)
    fields: Mapping[str, Any] = msgspec.structs.asdict(supposed)
    return AuthorizationRequest(
        txid=ids.txid(member_id, member_id, network_ref),
        network_ref=network_ref,
        acquirer=member_id,
        issuer=member_id,
        # Whose card it is was found by the token; the rules ask only whether a number came.
        pan=card.pan_masked,
        pin_block=bytes(8),
        terminal_id="SIMULATE",
        terminal_seq=0,
        business_date="1970-01-01",
        batch="000000",
        stan="000000",
        rrn="000000000000",
        transmitted_ms=at_ms,
        local_time="simulated",
        salt_fin=bytes(32),
        salt_pii=bytes(32),
        deadline_ms=at_ms + _PATIENCE_MS,
        **{name: value for name, value in fields.items() if name != "at_ms"},
    )


def _seen(rule: Rule, supposed: Supposed, amount: int, before: Account, facts: Facts) -> RuleSeen:
    local = facts.moment.local
    spend = limits.Spend(
        supposed.kind,
        amount,
        supposed.mcc,
        supposed.merchant_id,
        supposed.country,
        supposed.channel,
        supposed.entry_mode,
    )
    in_force = limits.in_force(rule, facts.moment.now_ms)
    concerns = limits.concerns(rule, spend, local)
    used = would_be = None
    if rule.limit is not None:
        used = used_of(rule, rule.limit, before, local)
        counted = spend.amount if rule.limit.measure is Measure.AMOUNT else 1
        would_be = used + counted if concerns else used
    found = limits.objection(rule, spend, local, before.counters) if concerns else None
    return RuleSeen(
        rule=rule,
        in_force=in_force,
        concerns=concerns,
        used=used,
        would_be=would_be,
        reason=found[1] if found is not None and in_force else None,
    )
