"""A large day in two databases, with breaks of every class planted into it."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any, Literal

import msgspec
import psycopg

from nodes import ids
from nodes.authorization.model import Kind, Outcome
from nodes.clearing.model import BreakKind, DayKey
from nodes.crypto.commitment import SharedFacts, shared_commitment
from nodes.ledger.model import TransactionRecord
from nodes.ledger.store import record_transactions

KEY = DayKey("meridian", "aurora", "CNY", date(2026, 11, 20))
Name = tuple[str, bytes | None, tuple[str, ...], int | None]
Records = tuple[list[TransactionRecord], list[TransactionRecord], set[Name], list[bytes]]
_START_MS = 1_795_000_000_000
_A_TERMINAL = 1_000

#: Sound transactions, alike on both sides. Their commitments are random: nobody ever opens them.
_BULK = """
    INSERT INTO transactions (transaction_id, txid, side, network_ref, acquirer, issuer, kind,
        outcome, amount, currency, approval_code, merchant_id, merchant_name, mcc, country,
        terminal_id, terminal_seq, pair_seq, business_date, batch, stan, rrn, entry_mode,
        pan_masked, card_token, transmitted_ms, decided_ms, salt_fin, salt_pii, salt_private,
        commitment, shard)
    SELECT n, sha256(convert_to('t' || n, 'UTF8')), %(side)s,
        substr(sha256(convert_to('r' || n, 'UTF8')), 1, 16), %(acquirer)s, %(issuer)s,
        CASE WHEN n %% 9 = 0 THEN 'refund' ELSE 'purchase' END,
        CASE WHEN n %% 7 = 0 THEN 'insufficient_funds' ELSE 'approved' END, 100 + n %% 9000,
        %(currency)s, NULL, 'HARBOR000000001', 'Harbor Stores', '5411', 'CN',
        'T' || lpad((n / 1000)::text, 7, '0'), n %% 1000, n, %(day)s, '000001',
        lpad((n %% 1000)::text, 6, '0'), lpad(n::text, 12, '0'), '051', '622300******1234',
        substr(sha256(convert_to('k' || n, 'UTF8')), 1, 16), %(start)s + n, %(start)s + n + 9,
        sha256(convert_to('s' || n, 'UTF8')), sha256(convert_to('p' || n, 'UTF8')),
        sha256(convert_to('v' || n, 'UTF8')), sha256(convert_to('c' || n, 'UTF8')),
        shard_of(sha256(convert_to('t' || n, 'UTF8')))
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n WHERE n <> ALL(%(without)s)
"""


#: What one day may have together: salts are compared only where the lists are alike.
TOGETHER = tuple(kind for kind in BreakKind if kind is not BreakKind.TOTALS_MISMATCH)


def broken_day(
    rows: int,
    breaks: int,
    now_ms: int,
    seed: int,
    kinds: tuple[BreakKind, ...] = TOGETHER,
) -> tuple[list[int], Records]:
    """Which numbers aren't bulk, and what each side has of them. Classes come in turn."""
    source = random.Random(seed)
    # Their predecessors are sound and approved: what a duplicate repeats.
    places = [n for n in range(2, rows - 1, 2) if (n - 1) % 7 and n % _A_TERMINAL]
    numbers = sorted(source.sample(places, breaks))
    mine: list[TransactionRecord] = []
    theirs: list[TransactionRecord] = []
    names: set[Name] = set()
    unsigned: list[bytes] = []
    for place, number in enumerate(numbers):
        kind = kinds[place % len(kinds)]
        changes: dict[str, Any] = {}
        if kind is BreakKind.LATE:
            changes["transmitted_ms"] = now_ms - 60_000
        record = drawn_record(number, "acquirer", source, **changes)
        other = msgspec.structs.replace(record, side="issuer")
        fields: tuple[str, ...] = ()
        match kind:
            case BreakKind.SEQ_GAP:
                names.add((kind.value, None, (), number))
                continue
            case BreakKind.MISSING_AT_ISSUER:
                mine.append(record)
            case BreakKind.MISSING_AT_ACQUIRER:
                theirs.append(other)
            case BreakKind.LATE:
                if source.random() < 0.5:
                    mine.append(record)
                else:
                    theirs.append(other)
            case BreakKind.DUPLICATE:
                first = number - 1
                repeat = {
                    "stan": f"{first % _A_TERMINAL:06d}",
                    "terminal_id": f"T{first // _A_TERMINAL:07d}",
                }
                holders = source.choice(["acquirer", "issuer", "both"])
                if holders != "issuer":
                    mine.append(msgspec.structs.replace(record, **repeat))
                if holders != "acquirer":
                    theirs.append(msgspec.structs.replace(other, **repeat))
            case BreakKind.FIELD_MISMATCH:
                changed, fields = _mismatch(source, other)
                mine.append(record)
                theirs.append(changed)
            case BreakKind.TOTALS_MISMATCH:
                mine.append(record)
                theirs.append(msgspec.structs.replace(other, salt_fin=source.randbytes(32)))
            case BreakKind.WRONG_DATE:
                days = [KEY.business_date, KEY.business_date + timedelta(days=1)]
                source.shuffle(days)
                mine.append(msgspec.structs.replace(record, business_date=days[0]))
                theirs.append(msgspec.structs.replace(other, business_date=days[1]))
            case BreakKind.UNSIGNED:
                mine.append(record)
                theirs.append(other)
                unsigned.append(record.txid)
        names.add((kind.value, record.txid, fields, None))
    return numbers, (mine, theirs, names, unsigned)


def _mismatch(
    source: random.Random, record: TransactionRecord
) -> tuple[TransactionRecord, tuple[str, ...]]:
    """The record with one to three fields of C changed, and their names in C's order."""
    others: dict[str, dict[str, Any]] = {
        "amount": {"amount": record.amount + source.randrange(1, 500)},
        "kind": {"kind": Kind.CAPTURE.value},
        "time": {"transmitted_ms": record.transmitted_ms + 1},
        "merchant": {"merchant_id": "HARBOR000000002"},
        "outcome": {"outcome": Outcome.INSUFFICIENT_FUNDS.value},
        "original": {"original_txid": source.randbytes(32)},
        "card_token": {"card_token": source.randbytes(16)},
    }
    drawn = source.sample(list(others), source.randrange(1, 4))
    names = tuple(name for name in others if name in drawn)
    changes = {column: value for name in names for column, value in others[name].items()}
    return committed(msgspec.structs.replace(record, **changes)), names


def write_side(
    dsn: str,
    side: Literal["acquirer", "issuer"],
    rows: int,
    without: list[int],
    records: list[TransactionRecord],
    unsigned: list[bytes],
    progress: Callable[[int], None],
) -> None:
    """Write one side's books of the day. `progress` is told how many rows are there."""
    step = 100_000
    with psycopg.connect(dsn) as connection:
        indexes = connection.execute(
            "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index"
            " WHERE indrelid = 'transactions'::regclass AND NOT indisprimary"
            " AND indexrelid NOT IN (SELECT conindid FROM pg_constraint)"
        ).fetchall()
        for name, _ in indexes:
            connection.execute(f"DROP INDEX {name}")
        for first in range(1, rows + 1, step):
            last = min(first + step - 1, rows)
            connection.execute(
                _BULK,
                {
                    "side": side,
                    "acquirer": KEY.acquirer,
                    "issuer": KEY.issuer,
                    "currency": KEY.currency,
                    "day": KEY.business_date,
                    "start": _START_MS,
                    "first": first,
                    "last": last,
                    "without": [n for n in without if first <= n <= last],
                },
            )
            connection.commit()
            progress(last)
        record_transactions(connection, records)
        for txid in unsigned:
            connection.execute(
                "INSERT INTO unsigned_answers (txid, why) VALUES (%s, 'no signature')", (txid,)
            )
        # Made again at once: twice as fast as a row at a time.
        for _, definition in indexes:
            connection.execute(definition)
        connection.commit()
        connection.autocommit = True
        connection.execute("VACUUM ANALYZE transactions")


def drawn_record(
    number: int, side: Literal["acquirer", "issuer"], source: random.Random, **changes: Any
) -> TransactionRecord:
    """An approved purchase with the C of its fields; `changes` are columns."""
    network_ref = source.randbytes(16)
    fields: dict[str, Any] = {
        "transaction_id": number,
        "txid": ids.txid(KEY.acquirer, KEY.issuer, network_ref),
        "side": side,
        "network_ref": network_ref,
        "acquirer": KEY.acquirer,
        "issuer": KEY.issuer,
        "kind": Kind.PURCHASE.value,
        "outcome": Outcome.APPROVED.value,
        "amount": source.randrange(1, 50_000),
        "currency": KEY.currency,
        "approval_code": None,
        "merchant_id": "HARBOR000000001",
        "merchant_name": "Harbor Stores",
        "mcc": "5411",
        "country": "CN",
        "terminal_id": f"U{number % 10_000_000:07d}",
        "terminal_seq": number,
        "pair_seq": number,
        "business_date": KEY.business_date,
        "batch": "000001",
        "stan": f"{number % 1_000_000:06d}",
        "rrn": f"{number:012d}",
        "entry_mode": "051",
        "pan_masked": "622300******1234",
        "card_token": source.randbytes(16),
        "account_id": None,
        "account_version": None,
        "original_txid": None,
        "transmitted_ms": _START_MS + number,
        "decided_ms": _START_MS + number + 9,
        "salt_fin": source.randbytes(32),
        "salt_pii": source.randbytes(32),
        "card_token_leaf": None,
        "salt_private": secrets.token_bytes(32),
        "commitment": bytes(32),
    }
    return committed(TransactionRecord(**(fields | changes)))


def committed(record: TransactionRecord) -> TransactionRecord:
    """The record with the C of what its columns say."""
    facts = SharedFacts(
        record.amount,
        record.currency.encode(),
        Kind(record.kind).word,
        record.transmitted_ms,
        record.merchant_id.encode(),
        Outcome(record.outcome).word,
        record.original_txid or b"",
        record.card_token or b"",
    )
    commitment = shared_commitment(record.txid, facts, record.salt_fin, record.salt_pii or b"")
    return msgspec.structs.replace(record, commitment=commitment)
