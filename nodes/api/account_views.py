"""Snapshots, versions and decisions of card accounts, as the API shows them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection

from nodes.api.dependencies import moment
from nodes.api.issuing_schemas import (
    AccountCardItem,
    BalancesItem,
    CardAccountItem,
    DisputedItem,
    HoldItem,
    PurseItem,
    VersionItem,
    VersionTransaction,
    WindowItem,
)
from nodes.api.schemas import (
    CountedItem,
    DecisionItem,
    ExpiredHold,
    PartItem,
    ProgressItem,
    ReasonItem,
    RelatedItem,
)
from nodes.authorization import queries as authorization
from nodes.authorization.controls import Terms
from nodes.authorization.operations.windows import WindowUsed, windows_used
from nodes.authorization.queries import Version
from nodes.authorization.rules import explain
from nodes.authorization.state import Account, CardStanding, Detail, Reason
from nodes.cards import queries as cards
from nodes.ledger.queries import Row


def reason_item(reason: Reason) -> ReasonItem:
    """A reason with its sentence."""
    return ReasonItem(
        code=reason.code,
        text=explain(reason),
        rule_id=reason.rule_id,
        rule_name=reason.rule_name,
        values=reason.values,
    )


def reason_or_none(reason: Reason | None) -> ReasonItem | None:
    """The same of what may be absent."""
    return None if reason is None else reason_item(reason)


def part_items(parts: Iterable[tuple[int, int]], account: Account) -> list[PartItem]:
    """Amounts by purse, with the purses' names."""
    names = {purse.account_id: purse.name for purse in account.purses}
    return [
        PartItem(account_id=purse, purse=names.get(purse), amount=amount) for purse, amount in parts
    ]


def purse_items(account: Account) -> list[PurseItem]:
    """An account's purses in their order."""
    return [
        PurseItem(
            account_id=purse.account_id,
            name=purse.name,
            balance=purse.balance,
            held=purse.held,
            overdraft_limit=purse.overdraft_limit,
            available=purse.available,
        )
        for purse in account.purses
    ]


def balances_item(account: Account) -> BalancesItem:
    """What is on an account."""
    return BalancesItem(
        balance=account.balance,
        held=account.held,
        available=account.available,
        receivable=account.receivable,
        purses=purse_items(account),
    )


def card_account_item(connection: Connection, account: Account, now_ms: int) -> CardAccountItem:
    """A card account with all that counts on it now."""
    own_cards = cards.cards_of(connection, [account.account_id])
    product_id = own_cards[0]["product_id"] if own_cards else "standard"
    product = authorization.product(connection, product_id, now_ms)
    terms: Terms = product["terms"] if product is not None else Terms()
    rules = [row["rule"] for row in authorization.rules_on(connection, account.account_id)]
    return CardAccountItem(
        account_id=account.account_id,
        version=account.version,
        status=account.status,
        currency=account.currency,
        product_id=product_id,
        balance=account.balance,
        held=account.held,
        available=account.available,
        receivable=account.receivable,
        disputed=[
            DisputedItem(txid=one.txid.hex(), amount=one.amount, paid=one.paid)
            for one in account.disputed
        ],
        loads=account.loads,
        purses=purse_items(account),
        holds=[
            HoldItem(
                txid=hold.txid.hex(),
                amount=hold.amount,
                expires_at=moment(hold.expires_ms),
                parts=part_items(hold.parts, account),
            )
            for hold in account.holds
        ],
        windows=[_window(used) for used in windows_used(rules, account, now_ms, terms.time_zone)],
        cards=[_card(row, account) for row in own_cards],
    )


def _window(used: WindowUsed) -> WindowItem:
    return WindowItem(
        rule_id=used.rule.rule_id,
        rule_name=used.rule.name,
        window=used.limit.window.value,
        measure=used.limit.measure.value,
        maximum=used.limit.maximum,
        used=used.used,
        resets_at=used.resets_at,
        shadow=used.rule.shadow,
    )


def _card(row: cards.Row, account: Account) -> AccountCardItem:
    standing = account.cards.get(row["card_id"]) or CardStanding(row["status"])
    return AccountCardItem(
        card_token=row["card_token"].hex(),
        pan_masked=row["pan_masked"],
        expiry=row["expiry"],
        status=standing.status,
        uses=standing.uses,
        pin_tries_left=standing.pin_tries_left,
        product_id=row["product_id"],
    )


def version_item(version: Version) -> VersionItem:
    """One version of an account's history."""
    state, detail, row = version.state, version.detail, version.transaction
    return VersionItem(
        version=state.version,
        at=moment(version.at_ms),
        status=state.status,
        balance=state.balance,
        held=state.held,
        available=state.available,
        receivable=state.receivable,
        open_holds=len(state.holds),
        transaction=None
        if row is None
        else VersionTransaction(
            txid=row["txid"].hex(),
            kind=row["kind"],
            outcome=row["outcome"],
            amount=row["amount"],
            merchant_name=row["merchant_name"],
        ),
        reason=reason_or_none(detail.reason),
        shadow=[reason_item(reason) for reason in detail.shadow],
        expired=expired_items(detail.expired),
    )


def expired_items(expired: Iterable[tuple[bytes, int]]) -> list[ExpiredHold]:
    """Holds that a decision released because their time was over."""
    return [ExpiredHold(txid=txid.hex(), amount=amount) for txid, amount in expired]


def decision_item(connection: Connection, row: Row) -> DecisionItem | None:
    """The issuer's decision on a transaction; None where no account was found, or at others."""
    version = authorization.version_by(connection, row["transaction_id"])
    if row["side"] != "issuer" or version is None:
        return None
    state, detail = version.state, version.detail
    approved = row["outcome"] == "approved"
    return DecisionItem(
        account_id=state.account_id,
        account_version=state.version,
        requested=detail.requested if detail.requested is not None else row["amount"],
        approved=row["amount"] if approved else 0,
        parts=part_items(detail.parts, state),
        shortfall=detail.shortfall,
        counted=_counted(connection, detail),
        reason=reason_or_none(detail.reason),
        shadow=[reason_item(reason) for reason in detail.shadow],
        expired=expired_items(detail.expired),
        balance_after=state.balance,
        held_after=state.held,
        available_after=state.available,
        stand_in=detail.stand_in,
        progress=_progress(connection, row, state.account_id) if approved else None,
    )


def _counted(connection: Connection, detail: Detail) -> list[CountedItem]:
    items: list[CountedItem] = []
    for counted in detail.counted:
        row = authorization.spend_rule(connection, counted.rule_id)
        rule = row["rule"] if row is not None else None
        items.append(
            CountedItem(
                rule_id=counted.rule_id,
                rule_name=rule.name if rule is not None else counted.rule_id,
                window=rule.limit.window.value if rule is not None and rule.limit else None,
            )
        )
    return items


def _progress(connection: Connection, row: Row, account_id: int) -> ProgressItem | None:
    found = authorization.progress_of(connection, row["txid"])
    account = authorization.snapshots(connection, [account_id]).get(account_id)
    holds = account.holds if account is not None else ()
    held = sum(hold.amount for hold in holds if hold.txid == row["txid"])
    if found is None and row["kind"] != "authorization":
        return None
    return ProgressItem(
        authorized=found.authorized if found is not None else row["amount"],
        captured=found.captured if found is not None else 0,
        refunded=found.refunded if found is not None else 0,
        reversed=found.reversed if found is not None else 0,
        held=held,
        ended=found is not None and found.ended,
    )


def related_items(row: Row, related: Iterable[Row]) -> list[RelatedItem]:
    """What belongs to a transaction, once each."""
    found: dict[bytes, Any] = {other["txid"]: other for other in related}
    return [
        RelatedItem(
            txid=txid.hex(),
            kind=other["kind"],
            outcome=other["outcome"],
            amount=other["amount"],
            currency=other["currency"],
            decided_at=moment(other["decided_ms"]),
            is_original=txid == row["original_txid"],
        )
        for txid, other in found.items()
    ]
