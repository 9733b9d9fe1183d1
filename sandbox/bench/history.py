"""The rows of a made-up history, by number: what each purchase puts into every table. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from typing import Any

import msgspec

from nodes import ids
from nodes.anchoring.model import ROW_COLUMNS, LedgerRow
from nodes.anchoring.rules import row_evidence
from nodes.authorization.model import Kind, Outcome
from nodes.authorization.operations.answering import approval_code
from nodes.authorization.operations.pending import Pending, encode_pending
from nodes.authorization.state import Account, Detail
from nodes.crypto.commitment import SharedFacts, shared_commitment
from nodes.ledger.model import shard_of

#: Rows of a chunk, which is also a batch of the log.
CHUNK = 20_000
AMOUNT = 100
_BATCH = "900001"
_FIRST_RRN = 500_000_000_000
#: The history is spread over this many days before today.
DAYS = 30
_PG_EPOCH_US = 946_684_800_000_000


class PreloadError(RuntimeError):
    """The books aren't in the state that a history can be put upon; the text says why."""


@dataclass(frozen=True)
class HistoryTerminal:
    """A terminal of the history; where its merchant's money goes in the acquirer's books."""

    terminal_id: str
    merchant_id: str
    merchant_name: str
    mcc: str
    country: str
    merchant_account: int = 0
    last_seq: int = 0


@dataclass(frozen=True)
class HistoryCard:
    """A card of the history, with its account as it stands before."""

    card_token: bytes
    pan_masked: str
    account: Account


@dataclass(frozen=True)
class History:
    """The same transactions for both institutions: what happened, between whom, on which cards."""

    acquirer: str
    issuer: str
    count: int
    seed: str
    terminals: tuple[HistoryTerminal, ...]
    cards: tuple[HistoryCard, ...]
    today: date


@dataclass(frozen=True)
class Plot:
    """All that a chunk needs."""

    history: History
    dsn: str
    member_id: str
    side: str
    pattern: Mapping[str, Any]
    #: The pattern's stored request, answer and late answer, and the detail of its version.
    request: Pending | None
    answer: bytes | None
    late_answer: bytes | None
    detail: Detail
    uses: int
    debit: int
    credit: int
    first_id: int
    first_pair_seq: int
    first_leaf: int
    first_batch: int
    xact: int


class Template:
    """Stored JSON with some of its members' values left open."""

    def __init__(self, raw: bytes, names: frozenset[str]) -> None:
        pattern = re.compile(rb'"(\w+)":("(?:[^"\\]|\\.)*"|-?\d+|null)')
        self._pieces: list[bytes] = []
        self._names: list[str] = []
        start = 0
        for found in pattern.finditer(raw):
            if found[1].decode() in names:
                self._pieces.append(raw[start : found.start(2)])
                self._names.append(found[1].decode())
                start = found.end(2)
        self._tail = raw[start:]
        if raw[:1] != b"{" or "txid" not in self._names:
            raise PreloadError("what is stored with a request isn't the JSON that was expected")

    def fill(self, values: Mapping[str, bytes]) -> bytes:
        """The JSON with these values, which are JSON themselves."""
        parts = [
            part
            for piece, name in zip(self._pieces, self._names, strict=True)
            for part in (piece, values[name])
        ]
        return b"".join((*parts, self._tail))


#: What differs between two answers.
_FILLED = frozenset(
    {
        *("txid", "card_token", "commitment", "pair_seq", "decided_ms", "amount"),
        *("approval_code", "rrn"),
    }
)
#: Fields of AuthorizationRequest that are columns of the row.
_KEPT = (
    *("txid", "network_ref", "amount", "merchant_id", "merchant_name", "mcc", "country"),
    *("terminal_id", "terminal_seq", "batch", "stan", "rrn", "transmitted_ms"),
    *("salt_fin", "salt_pii"),
)


@dataclass
class Chunk:
    """The rows of a chunk, by table."""

    transactions: list[list[Any]]
    transfers: list[tuple[Any, ...]]
    versions: list[tuple[Any, ...]]
    requests: list[tuple[Any, ...]]
    answers: list[tuple[Any, ...]]
    leaves: list[tuple[Any, ...]]


class Maker:
    """Makes the rows of a purchase by its number."""

    def __init__(self, plot: Plot) -> None:
        self._plot = plot
        self._history = plot.history
        self._templates = [
            Template(raw, _FILLED) if raw is not None else None
            for raw in (plot.answer, plot.late_answer)
        ]
        first = plot.history.today - timedelta(days=DAYS)
        self._days = [first + timedelta(days=day) for day in range(DAYS)]
        midnight = datetime(first.year, first.month, first.day, tzinfo=UTC)
        self._start_ms = round(midnight.timestamp() * 1000)

    def add(self, number: int, chunk: Chunk) -> None:
        """Append the rows of one purchase to the chunk."""
        plot = self._plot
        row = self._transaction(number)
        transfer, account = self._money(number, row)
        if account is not None:
            chunk.versions.append(_version(plot, row, account))
        shard = shard_of(row["account_id"], row["txid"])
        chunk.transfers.append((*transfer.values(), shard))
        self._stored(row, chunk, number)
        read = row | {
            "business_date": row["business_date"].isoformat(),
            "recorded_at": row["recorded_at"] + _PG_EPOCH_US,
        }
        evidence = row_evidence(plot.member_id, LedgerRow(read, (transfer,)))
        chunk.transactions.append([*(row[name] for name in ROW_COLUMNS), shard])
        chunk.leaves.append(
            (
                plot.first_leaf + number,
                plot.first_batch + number // CHUNK,
                int(evidence.leaf.kind),
                row["transaction_id"],
                row["txid"],
                evidence.encoded,
                evidence.leaf_hash,
                evidence.shared_leaves,
                evidence.private_copy,
            )
        )

    def _transaction(self, number: int) -> dict[str, Any]:
        plot, history = self._plot, self._history
        reference = _hash(history.seed, number, "reference")[:16]
        txid = ids.txid(history.acquirer, history.issuer, reference)
        moment = self._start_ms + number * DAYS * 86_400_000 // history.count
        terminal = history.terminals[number % len(history.terminals)]
        turn = number // len(history.terminals) + 1
        card = history.cards[number % len(history.cards)]
        row = dict(plot.pattern)
        row.update(
            transaction_id=plot.first_id + number,
            txid=txid,
            network_ref=reference,
            amount=AMOUNT,
            approval_code=approval_code(txid),
            merchant_id=terminal.merchant_id,
            merchant_name=terminal.merchant_name,
            mcc=terminal.mcc,
            country=terminal.country,
            terminal_id=terminal.terminal_id,
            terminal_seq=terminal.last_seq + turn,
            pair_seq=plot.first_pair_seq + number,
            business_date=self._days[number * DAYS // history.count],
            batch=_BATCH,
            stan=f"{turn:06d}",
            rrn=f"{_FIRST_RRN + number:012d}",
            pan_masked=card.pan_masked,
            card_token=card.card_token,
            transmitted_ms=moment,
            decided_ms=moment + 5,
            salt_fin=_hash(history.seed, number, "fin"),
            salt_pii=_hash(history.seed, number, "pii"),
            salt_private=_hash(history.seed + plot.side, number, "private"),
            recorded_at=(moment + 5) * 1000 - _PG_EPOCH_US,
            xact=plot.xact,
        )
        row["commitment"] = _commitment(row)
        return row

    def _money(self, number: int, row: dict[str, Any]) -> tuple[dict[str, Any], Account | None]:
        """The transfer, and at the issuer the account's next version."""
        plot, history = self._plot, self._history
        transfer = {
            "transaction_id": row["transaction_id"],
            "line": 1,
            "debit_account": plot.debit,
            "credit_account": plot.credit,
            "amount": AMOUNT,
            "currency": row["currency"],
            "balance_after": None,
        }
        if plot.side == "acquirer":
            terminal = history.terminals[number % len(history.terminals)]
            transfer["credit_account"] = terminal.merchant_account
            return transfer, None
        card = history.cards[number % len(history.cards)]
        account = _after(card.account, number // len(history.cards) + 1, plot.uses)
        row["account_id"], row["account_version"] = account.account_id, account.version
        transfer["debit_account"] = account.account_id
        transfer["balance_after"] = account.purses[0].balance
        return transfer, account

    def _stored(self, row: dict[str, Any], chunk: Chunk, number: int) -> None:
        """The stored request and the exact answer, which a repeat would get."""
        day = row["business_date"]
        key = ids.idempotency_key(
            row["acquirer"],
            row["terminal_id"],
            day.isoformat(),
            row["batch"],
            row["stan"],
            "request",
        )
        terminal = self._history.terminals[number % len(self._history.terminals)]
        late_ms = row["transmitted_ms"] + 15_000
        values = {name: _JSON(row[name]) for name in _FILLED}
        answer, late = (
            template.fill(values) if template is not None else None for template in self._templates
        )
        request = self._request(row, terminal.merchant_account, late_ms)
        chunk.requests.append(
            (
                *(key, self._plot.side, day, _hash(self._history.seed, number, "fingerprint")),
                *(row["txid"], row["issuer"], request, answer, late_ms),
            )
        )
        if late is not None:
            chunk.answers.append((key, day, late))

    def _request(
        self, row: Mapping[str, Any], merchant_account: int, deadline_ms: int
    ) -> bytes | None:
        """What the acquirer keeps of a request; the issuer keeps none."""
        kept = self._plot.request
        if kept is None:
            return None
        day = row["business_date"].isoformat()
        made = {name: row[name] for name in _KEPT} | {
            "business_date": day,
            "local_time": f"{day}T12:00:00",
            "deadline_ms": deadline_ms,
        }
        return encode_pending(
            msgspec.structs.replace(
                kept,
                request=msgspec.structs.replace(kept.request, **made),
                pan_masked=row["pan_masked"],
                merchant_account=merchant_account,
            )
        )


_JSON = msgspec.json.Encoder().encode
_MSGPACK = msgspec.msgpack.Encoder().encode


def _hash(seed: str, number: int, use: str) -> bytes:
    return sha256(f"{seed}/{number}/{use}".encode()).digest()


def _commitment(row: Mapping[str, Any]) -> bytes:
    facts = SharedFacts(
        amount=row["amount"],
        currency=row["currency"].encode(),
        kind=Kind.PURCHASE.word,
        time_ms=row["transmitted_ms"],
        merchant=row["merchant_id"].encode(),
        outcome=Outcome.APPROVED.word,
        original=bytes(32),
        card_token=row["card_token"],
    )
    return shared_commitment(row["txid"], facts, row["salt_fin"], row["salt_pii"])


def _after(account: Account, turns: int, uses: int) -> Account:
    """The account after so many purchases of the history."""
    first, *others = account.purses
    spent = msgspec.structs.replace(first, balance=first.balance - turns * AMOUNT)
    cards = {
        number: msgspec.structs.replace(card, uses=card.uses + turns * uses)
        for number, card in account.cards.items()
    }
    return msgspec.structs.replace(
        account, version=account.version + turns, purses=(spent, *others), cards=cards
    )


def _version(plot: Plot, row: Mapping[str, Any], account: Account) -> tuple[Any, ...]:
    purse = account.purses[0]
    detail = msgspec.structs.replace(
        plot.detail,
        parts=((purse.account_id, AMOUNT),),
        card_id=next(iter(account.cards)) if plot.detail.card_id is not None else None,
    )
    return (
        *(account.account_id, account.version, 0, purse.account_id, row["transaction_id"]),
        *(row["decided_ms"], purse.balance, purse.held, purse.overdraft_limit),
        *(_MSGPACK(account), _MSGPACK(detail)),
    )
