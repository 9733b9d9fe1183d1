"""Put value on a card: the issuer's own transaction, from its funding account."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime
from enum import StrEnum
from zoneinfo import ZoneInfo

import msgspec
import psycopg
from sqlalchemy import Engine

from nodes import clock, ids, money
from nodes.authorization import store
from nodes.authorization.model import Kind, Outcome
from nodes.authorization.operations.issuing import approval_code
from nodes.authorization.store import StoredRequest
from nodes.crypto.commitment import SharedFacts, shared_commitment
from nodes.db.engine import transaction
from nodes.ledger.model import AccountKey, TransactionRecord, Transfer
from nodes.ledger.store import find_or_open_accounts, record_transactions, write_balances


class LoadOutcome(StrEnum):
    """How a load ends, in order of precedence."""

    AMOUNT_INVALID = "amount_invalid"
    KEY_REUSED = "key_reused"
    CARD_UNKNOWN = "card_unknown"
    CARD_ENDED = "card_ended"
    CURRENCY_NOT_PERMITTED = "currency_not_permitted"
    DONE = "done"


class LoadResult(msgspec.Struct, frozen=True):
    """A load's outcome; txid and the balance after it (minor units) where it is done."""

    outcome: LoadOutcome
    txid: bytes | None = None
    balance: int | None = None


def load_card(
    engine: Engine,
    member_id: str,
    *,
    card_token: bytes,
    amount: int,
    currency: str,
    reference: str,
    idempotency_key: str,
    now: datetime,
    time_zone: str = "Asia/Shanghai",
) -> LoadResult:
    """Credit a card from the issuer's funding account, once an idempotency key.

    `amount` in minor units. A repeat gets the stored result, another content KEY_REUSED.
    """
    if not 0 < amount <= money.MAX_TRANSACTION_AMOUNT:
        return LoadResult(LoadOutcome.AMOUNT_INVALID)
    key = hashlib.sha256(b"countersign/load/1\x1f" + idempotency_key.encode()).digest()
    content = msgspec.msgpack.encode((card_token, amount, currency, reference))
    fingerprint = hashlib.sha256(content).digest()
    for _ in range(3):
        try:
            return _load(
                engine,
                member_id,
                key,
                fingerprint,
                card_token,
                amount,
                currency,
                reference,
                now,
                time_zone,
            )
        except psycopg.errors.UniqueViolation:
            continue  # the same key at the same moment: the other one's result is stored now
    raise RuntimeError("a load's key is taken, but nothing is stored under it")


def _load(
    engine: Engine,
    member_id: str,
    key: bytes,
    fingerprint: bytes,
    card_token: bytes,
    amount: int,
    currency: str,
    reference: str,
    now: datetime,
    time_zone: str,
) -> LoadResult:
    with transaction(engine) as connection:
        known = store.stored_requests(connection, [key], "issuer").get(key)
        if known is not None:
            if known.fingerprint != fingerprint or known.answer is None:
                return LoadResult(LoadOutcome.KEY_REUSED)
            return msgspec.json.decode(known.answer, type=LoadResult)
        row = connection.execute(
            "SELECT status, account_id, pan_masked FROM cards WHERE card_token = %b FOR SHARE",
            (card_token,),
        ).fetchone()
        if row is None:
            return LoadResult(LoadOutcome.CARD_UNKNOWN)
        status, account_id, pan_masked = row
        if status in ("lost", "stolen", "cancelled"):
            return LoadResult(LoadOutcome.CARD_ENDED)
        account = store.lock_accounts(connection, [account_id])[account_id]
        if account.currency != currency:
            return LoadResult(LoadOutcome.CURRENCY_NOT_PERMITTED)
        funding_key = AccountKey("funding", member_id, currency)
        funding = find_or_open_accounts(connection, [funding_key], now)[funding_key]
        balance = account.balance + amount
        write_balances(connection, {account_id: balance})
        record = _record(
            member_id,
            card_token,
            account_id,
            pan_masked,
            amount,
            currency,
            reference,
            now,
            time_zone,
            Transfer(funding, account_id, amount, balance),
        )
        record_transactions(connection, [record])
        result = LoadResult(LoadOutcome.DONE, record.txid, balance)
        stored = StoredRequest(
            key,
            fingerprint,
            "answered",
            record.txid,
            member_id,
            None,
            msgspec.json.encode(result),
            0,
        )
        store.insert_requests(connection, "issuer", [stored])
        return result


def _record(
    member_id: str,
    card_token: bytes,
    account_id: int,
    pan_masked: str,
    amount: int,
    currency: str,
    reference: str,
    now: datetime,
    time_zone: str,
    moved: Transfer,
) -> TransactionRecord:
    network_ref = ids.new_network_ref()
    txid = ids.txid(member_id, member_id, network_ref)
    salt_fin, salt_pii = secrets.token_bytes(32), secrets.token_bytes(32)
    now_ms = clock.to_ms(now)
    facts = SharedFacts(
        amount=amount,
        currency=currency.encode("ascii"),
        kind=Kind.LOAD.word,
        time_ms=now_ms,
        merchant=b"",
        outcome=Outcome.APPROVED.word,
        original=b"",
        card_token=card_token,
    )
    return TransactionRecord(
        txid=txid,
        side="issuer",
        network_ref=network_ref,
        acquirer=member_id,
        issuer=member_id,
        kind=Kind.LOAD.value,
        outcome=Outcome.APPROVED.value,
        amount=amount,
        currency=currency,
        approval_code=approval_code(txid),
        merchant_id="",
        merchant_name=reference,
        mcc="",
        country="",
        terminal_id="",
        terminal_seq=0,
        pair_seq=0,
        business_date=now.astimezone(ZoneInfo(time_zone)).date(),
        batch="",
        stan="",
        rrn="",
        entry_mode="",
        pan_masked=pan_masked,
        card_token=card_token,
        account_id=account_id,
        original_txid=None,
        transmitted_ms=now_ms,
        decided_ms=now_ms,
        salt_fin=salt_fin,
        salt_pii=salt_pii,
        card_token_leaf=None,
        salt_private=secrets.token_bytes(32),
        commitment=shared_commitment(txid, facts, salt_fin, salt_pii),
        transfers=(moved,),
    )
