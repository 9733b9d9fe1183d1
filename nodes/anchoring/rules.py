"""From a ledger row to its evidence, and from evidence back to the column that changed. Pure.

Each column of `transactions` is bound by the leaf's words, by C's fields or by P's copy. So no
column can be changed without a hash that tells it, and a field or mark that says which one it was.
Sealing does this for every row, on the processors that authorizations need too: where the same is
said twice here, the first is the quick way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import lru_cache
from operator import itemgetter
from typing import Any

from nodes import ids
from nodes.anchoring.checkpoint import Totals
from nodes.anchoring.leaf import ZERO_WORD, Leaf, LeafKind, encode_leaf
from nodes.anchoring.model import (
    TRANSFER_COLUMNS,
    FeedItem,
    LedgerRow,
    RowEvidence,
    Value,
)
from nodes.authorization.model import Kind, Outcome
from nodes.crypto.commitment import (
    SharedFacts,
    SharedField,
    field_leaf,
    field_salt,
    field_salts,
    shared_field_leaves,
    shared_root,
    uint_word,
)
from nodes.crypto.merkle import leaf_hash
from nodes.crypto.private_copy import (
    Mark,
    person_mark,
    private_commitment,
    private_copy,
    salt_mark,
)
from nodes.money import CURRENCIES

#: Columns that are words of the leaf itself (pair_id follows from acquirer and issuer).
LEAF_COLUMNS = ("txid", "side", "commitment", "pair_seq", "terminal_id", "terminal_seq")
#: The column behind each field of C.
SHARED_COLUMNS: Mapping[SharedField, str] = {
    SharedField.AMOUNT: "amount",
    SharedField.CURRENCY: "currency",
    SharedField.KIND: "kind",
    SharedField.TIME: "transmitted_ms",
    SharedField.MERCHANT: "merchant_id",
    SharedField.OUTCOME: "outcome",
    SharedField.ORIGINAL: "original_txid",
    SharedField.CARD_TOKEN: "card_token",
}
SALT_COLUMN = "salt_private"
#: The columns in P's copy, in its order; behind them the number of transfers, then each transfer's
#: TRANSFER_COLUMNS. pan_masked, card_token and salt_pii tell of a person: see private_marks.
PRIVATE_COLUMNS = (
    SALT_COLUMN,
    "transaction_id",
    "network_ref",
    "acquirer",
    "issuer",
    "approval_code",
    "merchant_name",
    "mcc",
    "country",
    "business_date",
    "batch",
    "stan",
    "rrn",
    "entry_mode",
    "pan_masked",
    "card_token",
    "account_id",
    "account_version",
    "decided_ms",
    "salt_fin",
    "salt_pii",
    "card_token_leaf",
    "recorded_at",
    "xact",
)
#: Where the copy's transfers begin.
FIRST_TRANSFER = len(PRIVATE_COLUMNS) + 1
_PAN, _TOKEN, _SALT_PII = map(PRIVATE_COLUMNS.index, ("pan_masked", "card_token", "salt_pii"))
_NO_TOKEN = bytes(16)
#: More rows than this within BUSY_S: a load that sealing would take processor time from.
BUSY_ROWS = 400
BUSY_S = 1.0

_KINDS = {kind.value: kind.word for kind in Kind}
_OUTCOMES = {outcome.value: outcome.word for outcome in Outcome}
_SIDES = {kind.side: kind for kind in LeafKind}


class RowUnsound(Exception):
    """A row that must not be sealed: it contradicts itself. Says which row and column."""

    def __init__(self, transaction_id: int, column: str, why: str) -> None:
        super().__init__(f"transactions {transaction_id}, column {column}: {why}")
        self.transaction_id = transaction_id
        self.column = column


def shared_word(field: SharedField, value: Value) -> bytes | None:
    """The word of a column in C; None if the value can't be one (then C can't be it either)."""
    try:
        return _SHARED_WORDS[field](value)
    except (KeyError, ValueError, OverflowError, TypeError):
        return None


def _number(value: Value) -> bytes:
    if not isinstance(value, int):
        raise TypeError("not a number")
    return uint_word(value)


def _text(value: Value) -> bytes:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return ids.ascii_word(value)


def _padded(length: int) -> Callable[[Value], bytes]:
    def word(value: Value) -> bytes:
        if value is None:
            return ZERO_WORD
        if not isinstance(value, bytes) or len(value) != length or not any(value):
            raise ValueError(f"not {length} bytes, or all zero, which says that there is none")
        return value.ljust(32, b"\0")

    return word


_SHARED_WORDS: dict[SharedField, Callable[[Value], bytes]] = {
    SharedField.AMOUNT: _number,
    SharedField.CURRENCY: _text,
    SharedField.KIND: lambda value: uint_word(_KINDS[str(value)]),
    SharedField.TIME: _number,
    SharedField.MERCHANT: _text,
    SharedField.OUTCOME: lambda value: uint_word(_OUTCOMES[str(value)]),
    SharedField.ORIGINAL: _padded(32),
    SharedField.CARD_TOKEN: _padded(16),
}


def shared_fields(row: LedgerRow, txid: bytes) -> list[bytes | None]:
    """The eight field leaf hashes of C as the row has them now; None where it has no such value.

    `txid` is what the salts are derived with: the row's own at sealing, the anchored one later.
    """
    values = row.values
    whole = _all_shared_fields(values, txid)
    if whole is not None:
        return [*whole]
    salt_fin, salt_pii = values["salt_fin"], values["salt_pii"]
    words = [shared_word(field, values[column]) for field, column in SHARED_COLUMNS.items()]
    leaves: list[bytes | None] = [None] * len(words)
    if isinstance(salt_fin, bytes):
        for number, salt in enumerate(field_salts(salt_fin, txid, len(words) - 1), start=1):
            word = words[number - 1]
            leaves[number - 1] = None if word is None else field_leaf(number, salt, word)
    word = words[-1]
    if isinstance(salt_pii, bytes) and word is not None:
        number = int(SharedField.CARD_TOKEN)
        leaves[-1] = field_leaf(number, field_salt(salt_pii, txid, number), word)
    elif salt_pii is None:
        stand_in = values["card_token_leaf"]
        leaves[-1] = stand_in if isinstance(stand_in, bytes) else None
    return leaves


def _all_shared_fields(values: Mapping[str, Value], txid: bytes) -> list[bytes] | None:
    """The field leaf hashes of a row that has a word for each field, or None."""
    original, token, salt_pii = values["original_txid"], values["card_token"], values["salt_pii"]
    # What pads to the same word, or is the word of NULL, is another value all the same.
    if original is not None and (len(original) != 32 or original == ZERO_WORD):  # type: ignore[arg-type]
        return None
    if salt_pii is None:
        token = None  # the stand-in below says what it was
    elif token is not None and (len(token) != 16 or token == _NO_TOKEN):  # type: ignore[arg-type]
        return None
    try:
        facts = SharedFacts(
            values["amount"],  # type: ignore[arg-type]
            values["currency"].encode("ascii"),  # type: ignore[union-attr]
            _KINDS[values["kind"]],  # type: ignore[index]
            values["transmitted_ms"],  # type: ignore[arg-type]
            values["merchant_id"].encode("ascii"),  # type: ignore[union-attr]
            _OUTCOMES[values["outcome"]],  # type: ignore[index]
            original or b"",  # type: ignore[arg-type]
            token or b"",  # type: ignore[arg-type]
        )
        leaves = shared_field_leaves(txid, facts, values["salt_fin"], salt_pii or b"")  # type: ignore[arg-type]
    except (KeyError, ValueError, OverflowError, TypeError, AttributeError):
        return None
    if salt_pii is None:
        stand_in = values["card_token_leaf"]
        if not isinstance(stand_in, bytes):
            return None
        leaves[-1] = stand_in
    return leaves


def private_marks(row: LedgerRow, txid: bytes) -> list[Mark]:
    """The marks of P's copy as the row has them now (see PRIVATE_COLUMNS).

    Each is the column's value. Only where a row has salt_pii, three of them are not: of the card
    token there is none, for C's eighth field binds it, and of salt_pii and pan_masked hashes.
    """
    values = row.values
    marks: list[Mark] = list(_PRIVATE_VALUES(values))
    salt_pii, pan = marks[_SALT_PII], marks[_PAN]
    if isinstance(salt_pii, bytes):
        marks[_SALT_PII] = salt_mark(salt_pii)
        marks[_TOKEN] = None
        if isinstance(pan, str):
            marks[_PAN] = person_mark(salt_pii, txid, pan.encode())
    marks.append(len(row.transfers))
    for transfer in row.transfers:
        marks += _TRANSFER_VALUES(transfer)
    return marks


_PRIVATE_VALUES: Callable[[Mapping[str, Any]], tuple[Any, ...]] = itemgetter(*PRIVATE_COLUMNS)
_TRANSFER_VALUES: Callable[[Mapping[str, Any]], tuple[Any, ...]] = itemgetter(*TRANSFER_COLUMNS)


def row_evidence(member_id: str, row: LedgerRow) -> RowEvidence:
    """The leaf of a row that is about to be sealed.

    RowUnsound if the row's fields don't lead to its own C: it was changed since it was recorded,
    or recorded wrongly, and neither must be given the log's word.
    """
    number, values = row.transaction_id, row.values
    txid = values["txid"]
    kind = _SIDES.get(values["side"])  # type: ignore[arg-type]
    if not isinstance(txid, bytes) or len(txid) != 32:
        raise RowUnsound(number, "txid", "is not 32 bytes")
    if kind is None:
        raise RowUnsound(number, "side", "is none of the three")
    for line, transfer in enumerate(row.transfers, start=1):
        if transfer["line"] != line:
            raise RowUnsound(number, "transfers", "lines are not numbered from 1 without gaps")
    shared = _all_shared_fields(values, txid)
    if shared is None:
        lacking = shared_fields(row, txid).index(None)
        raise RowUnsound(number, SHARED_COLUMNS[SharedField(lacking + 1)], "has no word in C")
    commitment = shared_root(shared)
    if commitment != values["commitment"]:
        raise RowUnsound(number, "commitment", "is not the root over the row's fields")
    salt = values[SALT_COLUMN]
    if not isinstance(salt, bytes) or len(salt) != 32:
        raise RowUnsound(number, SALT_COLUMN, "is not 32 bytes")
    copy = private_copy(private_marks(row, txid))
    leaf_value = Leaf(
        kind=kind,
        member_id=member_id,
        txid=txid,
        commitment=commitment,
        private_commitment=private_commitment(copy),
        pair_id=pair_word(values),
        pair_seq=_counter(values, "pair_seq"),
        terminal_id=str(values["terminal_id"]),
        terminal_seq=_counter(values, "terminal_seq"),
    )
    try:
        encoded = encode_leaf(leaf_value)
    except (ValueError, UnicodeEncodeError) as error:
        raise RowUnsound(number, "terminal_id", str(error)) from None
    return RowEvidence(leaf_value, encoded, leaf_hash(encoded), b"".join(shared), copy)


def may_wait(oldest_s: float, recent_s: float, patience_s: float) -> bool:
    """Whether sealing leaves the processors to terminals for now.

    `oldest_s`: for how long the oldest row has waited; `recent_s`: how long ago the last rows
    but BUSY_ROWS were recorded; `patience_s`: how long a row may wait at most.
    """
    return recent_s < BUSY_S and oldest_s < patience_s


def moved_amounts(rows: Sequence[LedgerRow]) -> dict[int, int]:
    """What the rows' transfers add to each account (minor units; a debit counts below zero)."""
    moved: dict[int, int] = defaultdict(int)
    for row in rows:
        for transfer in row.transfers:
            amount: int = transfer["amount"]  # type: ignore[assignment]
            moved[transfer["debit_account"]] -= amount  # type: ignore[index]
            moved[transfer["credit_account"]] += amount  # type: ignore[index]
    return moved


def batch_totals(rows: Sequence[LedgerRow]) -> tuple[Totals, ...]:
    """The sums over a batch's rows, by currency in alphabetic order."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    approved = Outcome.APPROVED.value
    for row in rows:
        values = row.values
        entry, amount = sums[values["currency"]], values["amount"]  # type: ignore[index]
        if values["outcome"] == approved:
            entry[0] += 1
            entry[1] += amount if isinstance(amount, int) else 0
        else:
            entry[2] += 1
    return tuple(Totals(currency, *sums[currency]) for currency in sorted(sums))


def pair_word(values: Mapping[str, Value]) -> bytes:
    """The leaf's pairId: zero where the issuer took no part (pair_seq 0)."""
    if values["pair_seq"] == 0:
        return ZERO_WORD
    return _pair_id(values["acquirer"], values["issuer"])


_pair_id = lru_cache(maxsize=4096)(ids.pair_id)


def _counter(values: Mapping[str, Value], column: str) -> int:
    value = values[column]
    return value if isinstance(value, int) else -1


def words_of(joined: bytes) -> list[bytes]:
    """Split stored field leaves into their 32-byte hashes."""
    return [joined[start : start + 32] for start in range(0, len(joined), 32)]


def changed_columns(
    row: LedgerRow, leaf: Leaf, shared: Sequence[bytes], private: Sequence[Mark]
) -> list[str]:
    """The columns of `transactions` in which a row differs from its anchored evidence.

    `leaf`, `shared` and `private` (the copy's marks) must be known to be authentic. A changed salt
    makes what is under it unreadable: then the salt's column is named and the others aren't judged.
    """
    values = row.values
    words: dict[str, Value] = {
        "txid": leaf.txid,
        "side": leaf.kind.side,
        "commitment": leaf.commitment,
        "pair_seq": leaf.pair_seq,
        "terminal_id": leaf.terminal_id,
        "terminal_seq": leaf.terminal_seq,
    }
    changed = [column for column in LEAF_COLUMNS if values[column] != words[column]]
    pairs = zip(PRIVATE_COLUMNS, private_marks(row, leaf.txid), private, strict=False)
    differing = [column for column, mine, theirs in pairs if mine != theirs]
    unreadable: set[str] = set()
    if "salt_fin" in differing:
        unreadable |= {column for column in SHARED_COLUMNS.values() if column != "card_token"}
    if "salt_pii" in differing:
        unreadable |= {"card_token", "pan_masked"}
    if "card_token_leaf" in differing:
        unreadable.add("card_token")
    fields = shared_fields(row, leaf.txid)
    differing += [
        column
        for field, column in SHARED_COLUMNS.items()
        if fields[field - 1] != shared[field - 1] and column not in differing
    ]
    return changed + [column for column in differing if column not in unreadable]


def same_transfer(transfer: Mapping[str, Value], stored: Sequence[Mark]) -> list[str]:
    """The columns in which a transfer differs from the six anchored values."""
    return [
        column
        for column, theirs in zip(TRANSFER_COLUMNS, stored, strict=True)
        if transfer[column] != theirs
    ]


def uncovered_columns(columns: Sequence[str]) -> set[str]:
    """Columns of the live table that no hash binds; empty unless the schema has grown."""
    bound = {*LEAF_COLUMNS, *SHARED_COLUMNS.values(), *PRIVATE_COLUMNS}
    return set(columns) - bound


def feed_refusal(acquirer: str, item: FeedItem) -> str | None:
    """Why a merchant doesn't take an entry of its acquirer's feed; None if it does.

    C is computed anew from the entry's own fields, and the txid from the parties and network_ref.
    """
    if item.acquirer != acquirer:
        return "it is of another acquirer"
    lengths = {"network_ref": 16, "txid": 32, "salt_fin": 32, "card_token_leaf": 32}
    if any(len(getattr(item, name)) != length for name, length in lengths.items()):
        return "a hash or salt has the wrong length"
    if item.amount < 0 or item.pair_seq < 0 or item.terminal_seq < 0:
        return "a number is negative"
    if item.kind not in _KINDS or item.outcome not in _OUTCOMES:
        return "its kind or outcome is unknown"
    if item.currency not in CURRENCIES or _not_a_date(item.business_date):
        return "its currency or date is unknown"
    try:
        if ids.txid(item.acquirer, item.issuer, item.network_ref) != item.txid:
            return "its txid is not of these parties"
    except ValueError:
        return "its parties are no members"
    values: dict[str, Value] = {
        name: getattr(item, name) for name in SHARED_COLUMNS.values() if name != "card_token"
    }
    values |= {
        "salt_fin": item.salt_fin,
        "salt_pii": None,
        "card_token": None,
        "card_token_leaf": item.card_token_leaf,
    }
    fields = shared_fields(LedgerRow(values), item.txid)
    known = [leaf for leaf in fields if leaf is not None]
    if len(known) != len(fields) or shared_root(known) != item.commitment:
        return "its fields do not lead to its commitment"
    return None


def _not_a_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() != text
    except ValueError:
        return True
