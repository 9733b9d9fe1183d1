"""The merchant's side of the feed: check what the acquirer sends, and keep an own record of it."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import date

import sqlalchemy
import structlog

from nodes.anchoring import feed_queries, store
from nodes.anchoring.model import FeedItem
from nodes.anchoring.rules import feed_refusal
from nodes.authorization.model import Kind, Outcome
from nodes.clock import Clock, to_datetime
from nodes.ledger.model import AccountKey, TransactionRecord, Transfer
from nodes.ledger.store import (
    find_or_open_accounts,
    record_transactions,
    take_transaction_ids,
)

log = structlog.get_logger(__name__)

Effects = dict[bytes, tuple[str, str, int]]  # txid -> kind, outcome, amount
#: What the merchant gets (1) or gives (-1) of an approved amount; the other kinds move nothing.
_SIGNS = {
    Kind.PURCHASE.value: 1,
    Kind.CAPTURE.value: 1,
    Kind.ADVICE.value: 1,
    Kind.REFUND.value: -1,
    Kind.TOP_UP.value: -1,
}


class FeedRefused(Exception):
    """An entry that the merchant doesn't take; the entries before it are recorded."""

    def __init__(self, acquirer: str, log_index: int, why: str) -> None:
        super().__init__(f"{acquirer}'s entry {log_index}: {why}")
        self.acquirer = acquirer
        self.log_index = log_index


def record_feed(
    engine: sqlalchemy.Engine, acquirer: str, items: Sequence[FeedItem], clock: Clock
) -> int:
    """Record a page of an acquirer's feed in one transaction and move the cursor; how many are new.

    Entries at or below the cursor are passed over, so a page may come any number of times. Each
    entry's C is computed anew. FeedRefused at the first that doesn't hold, after those before it
    are recorded.
    """
    refusal: FeedRefused | None = None
    with store.transaction(engine) as connection:
        cursor = store.lock_feed_cursor(connection, acquirer)
        sound: list[FeedItem] = []
        last = cursor
        for item in items:
            if item.log_index <= cursor:
                continue
            why = "out of order" if item.log_index <= last else feed_refusal(acquirer, item)
            if why:
                refusal = FeedRefused(acquirer, item.log_index, why)
                break
            sound.append(item)
            last = item.log_index
        fresh, conflict = _fresh(connection, acquirer, sound)
        if conflict is not None:
            refusal = conflict
            taken = (item.log_index for item in sound if item.log_index < conflict.log_index)
            last = max(taken, default=cursor)
        _record(connection, acquirer, fresh, clock)
        if last > cursor:
            store.move_feed_cursor(connection, acquirer, last)
    if refusal is not None:
        raise refusal
    if fresh:
        log.info("feed_recorded", acquirer=acquirer, count=len(fresh), log_index=last)
    return len(fresh)


def _fresh(
    connection: store.Connection, acquirer: str, items: Sequence[FeedItem]
) -> tuple[list[FeedItem], FeedRefused | None]:
    """Those not recorded yet; a refusal if one is recorded with another commitment."""
    known = feed_queries.commitments(connection, "merchant", [item.txid for item in items])
    originals = [item.original_txid for item in items if item.original_txid is not None]
    effects: Effects = feed_queries.effects(connection, "merchant", originals)
    undone = feed_queries.undone_amounts(connection, "merchant", originals)
    fresh: dict[bytes, FeedItem] = {}
    for item in items:
        commitment = fresh[item.txid].commitment if item.txid in fresh else known.get(item.txid)
        if commitment is None:
            if _undoes(item) and _over_original(item, effects, undone):
                why = "of its original more was reversed before than is left for it"
                return list(fresh.values()), FeedRefused(acquirer, item.log_index, why)
            fresh[item.txid] = item
            effects[item.txid] = (item.kind, item.outcome, item.amount)
        elif commitment != item.commitment:
            why = "the same transaction came before with another commitment"
            return list(fresh.values()), FeedRefused(acquirer, item.log_index, why)
    return list(fresh.values()), None


def _over_original(item: FeedItem, effects: Effects, undone: dict[bytes, int]) -> bool:
    """Count what a reversal or void undoes; whether it comes to more than its original."""
    original = item.original_txid or b""
    undone[original] = undone.get(original, 0) + item.amount
    kind, outcome, amount = effects.get(original, ("", "", 0))
    return kind in _SIGNS and outcome == Outcome.APPROVED.value and undone[original] > amount


def _record(
    connection: store.Connection, acquirer: str, items: Sequence[FeedItem], clock: Clock
) -> None:
    keys = {key for item in items for key in _account_keys(acquirer, item)}
    accounts = find_or_open_accounts(connection, keys, to_datetime(clock.now_ms()))
    originals = [item.original_txid for item in items if item.original_txid is not None]
    effects: Effects = feed_queries.effects(connection, "merchant", originals)
    undone = feed_queries.undone_amounts(connection, "merchant", [i.txid for i in items])
    numbers = take_transaction_ids(connection, len(items)) if items else []
    records = []
    for number, item in zip(numbers, items, strict=True):
        settlement, merchant = (accounts[key] for key in _account_keys(acquirer, item))
        amount = _credit(item, effects, undone)
        if _undoes(item):
            original = item.original_txid or b""
            undone[original] = undone.get(original, 0) + item.amount
        transfers: tuple[Transfer, ...] = ()
        if amount > 0:
            transfers = (Transfer(settlement, merchant, amount),)
        elif amount < 0:
            transfers = (Transfer(merchant, settlement, -amount),)
        effects[item.txid] = (item.kind, item.outcome, item.amount)
        records.append(_row(number, item, transfers))
    record_transactions(connection, records)


def _undoes(item: FeedItem) -> bool:
    kinds = (Kind.REVERSAL.value, Kind.VOID.value)
    return item.kind in kinds and item.outcome == Outcome.APPROVED.value


def _account_keys(acquirer: str, item: FeedItem) -> tuple[AccountKey, AccountKey]:
    return (
        AccountKey("settlement", acquirer, item.currency),
        AccountKey("merchant", item.merchant_id, item.currency),
    )


def _credit(item: FeedItem, effects: Effects, undone: dict[bytes, int]) -> int:
    """What the transaction adds to the merchant's balance, minor units; negative takes away.

    What a reversal undoes of an original that isn't recorded yet is left out when the original
    comes: together they come to the same, in whichever order they come.
    """
    if item.outcome != Outcome.APPROVED.value:
        return 0
    if _undoes(item):
        kind, outcome, _ = effects.get(item.original_txid or b"", ("", "", 0))
        sign = _SIGNS.get(kind, 0) if outcome == Outcome.APPROVED.value else 0
        return -sign * item.amount
    return _SIGNS.get(item.kind, 0) * max(item.amount - undone.get(item.txid, 0), 0)


def _row(number: int, item: FeedItem, transfers: tuple[Transfer, ...]) -> TransactionRecord:
    return TransactionRecord(
        transaction_id=number,
        txid=item.txid,
        side="merchant",
        network_ref=item.network_ref,
        acquirer=item.acquirer,
        issuer=item.issuer,
        kind=item.kind,
        outcome=item.outcome,
        amount=item.amount,
        currency=item.currency,
        approval_code=item.approval_code,
        merchant_id=item.merchant_id,
        merchant_name=item.merchant_name,
        mcc=item.mcc,
        country=item.country,
        terminal_id=item.terminal_id,
        terminal_seq=item.terminal_seq,
        pair_seq=item.pair_seq,
        business_date=date.fromisoformat(item.business_date),
        batch=item.batch,
        stan=item.stan,
        rrn=item.rrn,
        entry_mode=item.entry_mode,
        pan_masked=None,
        card_token=None,
        account_id=None,
        account_version=None,
        original_txid=item.original_txid,
        transmitted_ms=item.transmitted_ms,
        decided_ms=item.decided_ms,
        salt_fin=item.salt_fin,
        salt_pii=None,
        card_token_leaf=item.card_token_leaf,
        salt_private=secrets.token_bytes(32),
        commitment=item.commitment,
        transfers=transfers,
    )
