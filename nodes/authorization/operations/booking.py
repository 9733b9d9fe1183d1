"""How the issuer's own transactions are decided and appended: on fresh snapshots, again if passed.

An own transaction reads the accounts it is about, lets the pure rules decide and appends their next
versions, all in one database transaction. If another process was first with a version or a key,
nothing stands and it is done again.
"""

from __future__ import annotations

import hashlib
import random
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

import msgspec
import psycopg
from sqlalchemy import Engine

from nodes import clock, ids
from nodes.authorization.controls import Rule, Terms
from nodes.authorization.model import Kind, Outcome
from nodes.authorization.operations.answering import approval_code
from nodes.authorization.state import (
    Account,
    Card,
    Decision,
    Detail,
    Facts,
    Moment,
    Reason,
    Side,
)
from nodes.authorization.store import accounts
from nodes.authorization.store.accounts import Connection, Holder, NewVersion
from nodes.authorization.store.requests import StoredRequest, insert_requests, stored_requests
from nodes.crypto.commitment import SharedFacts, shared_commitment
from nodes.db.engine import transaction
from nodes.ledger.model import AccountKey, TransactionRecord, Transfer
from nodes.ledger.store import find_or_open_accounts, record_transactions, take_transaction_ids

T = TypeVar("T")
R = TypeVar("R")

#: A busy engine is first again and again at its card: an own transaction must not give up early.
ATTEMPTS = 24
_PAUSE_S = 0.002
_PASSED = (
    psycopg.errors.UniqueViolation,
    psycopg.errors.SerializationFailure,
    psycopg.errors.DeadlockDetected,
)
#: Own requests have no terminal's business date. They are all stored under this one: a repeat
#: after midnight must find the first.
OWN_DATE = date(1970, 1, 1)
PLAIN_TERMS = Terms()


class AccountBusy(Exception):
    """Others were first with the account each time; nothing was done."""


def settled(engine: Engine, attempt: Callable[[Connection], T], attempts: int = ATTEMPTS) -> T:
    """`attempt(connection)` in a transaction of its own, again if others were first."""
    for number in range(attempts):
        try:
            with transaction(engine) as connection:
                return attempt(connection)
        except _PASSED:
            time.sleep(random.uniform(0, _PAUSE_S * number))  # noqa: S311 - only spreads the tries
    raise AccountBusy


@dataclass(frozen=True)
class Scene:
    """Accounts with their products, read in one transaction at `now_ms`."""

    now_ms: int
    products: dict[str, tuple[Terms, tuple[Rule, ...]]]
    holders: dict[int, Holder]

    def terms_of(self, account_id: int) -> Terms:
        return self.products.get(self.holders[account_id].product_id, (PLAIN_TERMS, ()))[0]

    def facts(self, account_id: int, card: Card | None = None) -> Facts:
        """All that the rules look at, for an own transaction of this account."""
        holder = self.holders[account_id]
        terms, rules = self.products.get(holder.product_id, (PLAIN_TERMS, ()))
        rules += holder.rules
        if card is not None:
            rules += holder.card_rules.get(card.card_id, ())
        local = clock.to_datetime(self.now_ms).astimezone(ZoneInfo(terms.time_zone))
        return Facts(
            moment=Moment(self.now_ms, local),
            terms=terms,
            rules=rules,
            card=card,
            account=holder.account,
        )


def read_scene(
    connection: Connection, account_ids: Iterable[int], now_ms: int, *, asking: bool = False
) -> Scene:
    """Accounts at their last versions; ids that are no card account's are left out.

    Own transactions of one account queue up for it, as they would only pass each other; engines,
    which are many times as many, don't: of them the account's next version protects. `asking`:
    nothing will be appended.
    """
    wanted = sorted(set(account_ids))
    if not asking:
        accounts.queue_up(connection, wanted)
    products = accounts.products(connection, now_ms)
    terms = {product_id: own for product_id, (own, _) in products.items()}
    return Scene(now_ms, products, accounts.holders(connection, wanted, terms))


@dataclass(frozen=True)
class Own:
    """An approved own transaction, as it is to be appended."""

    member_id: str
    kind: Kind
    currency: str
    decision: Decision
    before: Account
    at_ms: int
    time_zone: str
    #: What the cardholder and the books read: a reference, a reason.
    note: str
    card: Card | None = None
    to_before: Account | None = None
    original_txid: bytes | None = None


def append_own(connection: Connection, own: Own) -> bytes:
    """Append an own transaction with the accounts' next versions; its txid."""
    decision, after = own.decision, own.decision.account
    if after is None:
        raise ValueError("an own transaction changes an account")
    [number] = take_transaction_ids(connection, 1)
    versions = [NewVersion(own.before, after, number, own.at_ms, decision.detail)]
    other, to_before = decision.to_account, own.to_before
    if other is not None and to_before is not None:
        received = Detail(parts=((other.purses[0].account_id, decision.amount),))
        versions.append(NewVersion(to_before, other, number, own.at_ms, received))
    # First: whoever is decided on the same version meanwhile waits for this one, and loses.
    # In one order everywhere: two transfers that cross wait for each other only one way.
    accounts.append_versions(connection, sorted(versions, key=lambda new: new.after.account_id))
    record = _record(own, number, after, _transfers(connection, own))
    accounts.append_progress(
        connection,
        [
            (after.account_id, after.version, txid, progress)
            for txid, progress in decision.progress.items()
        ],
    )
    record_transactions(connection, [record])
    return record.txid


def _transfers(connection: Connection, own: Own) -> tuple[Transfer, ...]:
    """The decision's moves between ledger accounts, with the purses' running balances."""
    moves = own.decision.moves
    sides = {
        place for move in moves for place in (move.debit, move.credit) if isinstance(place, Side)
    }
    keys = {side: AccountKey(side.value, own.member_id, own.currency) for side in sides}
    opened = find_or_open_accounts(connection, keys.values(), clock.to_datetime(own.at_ms))
    befores = (own.before, *((own.to_before,) if own.to_before is not None else ()))
    running = {purse.account_id: purse.balance for one in befores for purse in one.purses}
    found: list[Transfer] = []
    for move in moves:
        after: int | None = None
        for place, change in ((move.credit, move.amount), (move.debit, -move.amount)):
            if isinstance(place, int):
                running[place] += change
                after = running[place]
        debit, credit = (
            opened[keys[place]] if isinstance(place, Side) else place
            for place in (move.debit, move.credit)
        )
        found.append(Transfer(debit, credit, move.amount, after))
    return tuple(found)


def _record(
    own: Own, number: int, after: Account, transfers: tuple[Transfer, ...]
) -> TransactionRecord:
    network_ref = ids.new_network_ref()
    txid = ids.txid(own.member_id, own.member_id, network_ref)
    salt_fin, salt_pii = secrets.token_bytes(32), secrets.token_bytes(32)
    card_token = own.card.card_token if own.card is not None else None
    facts = SharedFacts(
        amount=own.decision.amount,
        currency=own.currency.encode("ascii"),
        kind=own.kind.word,
        time_ms=own.at_ms,
        merchant=b"",
        outcome=Outcome.APPROVED.word,
        original=own.original_txid or b"",
        card_token=card_token or b"",
    )
    local = clock.to_datetime(own.at_ms).astimezone(ZoneInfo(own.time_zone))
    return TransactionRecord(
        transaction_id=number,
        txid=txid,
        side="issuer",
        network_ref=network_ref,
        acquirer=own.member_id,
        issuer=own.member_id,
        kind=own.kind.value,
        outcome=Outcome.APPROVED.value,
        amount=own.decision.amount,
        currency=own.currency,
        approval_code=approval_code(txid),
        merchant_id="",
        merchant_name=own.note,
        mcc="",
        country="",
        terminal_id="",
        terminal_seq=0,
        pair_seq=0,
        business_date=local.date(),
        batch="",
        stan="",
        rrn="",
        entry_mode="",
        pan_masked=own.card.pan_masked if own.card is not None else None,
        card_token=card_token,
        account_id=after.account_id,
        account_version=after.version,
        original_txid=own.original_txid,
        transmitted_ms=own.at_ms,
        decided_ms=own.at_ms,
        salt_fin=salt_fin,
        salt_pii=salt_pii,
        card_token_leaf=None,
        salt_private=secrets.token_bytes(32),
        commitment=shared_commitment(txid, facts, salt_fin, salt_pii),
        transfers=transfers,
    )


# --- once an idempotency key -------------------------------------------------------------------


class Once(NamedTuple):
    """Whose books, and the caller's idempotency key: a repeat under it gets the same result."""

    member_id: str
    idempotency_key: str


@dataclass(frozen=True)
class OwnKey:
    """A caller's idempotency key with the fingerprint of what was asked under it."""

    key: bytes
    fingerprint: bytes


def own_key(operation: str, idempotency_key: str, *content: object) -> OwnKey:
    """`operation` keeps the keys of loads, transfers ... apart; `content`: what is asked for."""
    prefix = f"countersign/{operation}/1\x1f"
    return OwnKey(
        hashlib.sha256(prefix.encode() + idempotency_key.encode()).digest(),
        hashlib.sha256(msgspec.msgpack.encode(content)).digest(),
    )


def settled_once(
    engine: Engine,
    under: Once | None,
    operation: str,
    content: tuple[object, ...],
    result: Any,
    reused: R,
    attempt: Callable[[Connection], R],
    done: Callable[[R], bool],
) -> R:
    """A change that moves no money, in a transaction of its own, once under a key (own_key).

    `result`: the type that `attempt` gives. It is kept if it is `done`; without a key never.
    """
    key = own_key(operation, under.idempotency_key, *content) if under is not None else None

    def attempt_once(connection: Connection) -> R:
        known: R | None = earlier(connection, key, result, reused) if key is not None else None
        if known is not None:
            return known
        made = attempt(connection)
        if key is not None and under is not None and done(made):
            keep(connection, key, under.member_id, None, made)
        return made

    return settled(engine, attempt_once, 2 * ATTEMPTS)


def earlier(connection: Connection, key: OwnKey, result: Any, reused: R) -> R | None:
    """The result stored under the key; `reused` if other content is; None if nothing is."""
    known = stored_requests(connection, [(key.key, OWN_DATE)], "issuer").get(key.key)
    if known is None:
        return None
    if known.fingerprint != key.fingerprint or known.answer is None:
        return reused
    decoded: R = msgspec.json.decode(known.answer, type=result)
    return decoded


def keep(
    connection: Connection, key: OwnKey, member_id: str, txid: bytes | None, result: object
) -> None:
    """Store a result under its key, in the transaction that it comes from."""
    answer = msgspec.json.encode(result)
    row = StoredRequest(key.key, OWN_DATE, key.fingerprint, txid, member_id, None, answer)
    insert_requests(connection, "issuer", [row])


def reason_of(decision: Decision) -> Reason:
    """Why a decision is a refusal; rules always say it."""
    return decision.detail.reason or Reason(decision.outcome.value)
