"""Events of a member's own business (cards, merchants, settlements, keys, audit) as log leaves.

    reference = SHA-256("countersign/event/1" || member word || uint64 event_id), as the leaf's txid
    C: the root over eight field leaves as a transaction's (nodes.crypto.commitment), the fields
       1 kind, 2 action (text), 3 occurred_ms, 4 SHA-256(subject), 5 SHA-256(actor),
       6 SHA-256(detail), 7 zero (under salt_fin), 8 card token (under salt_pii)
    P: over PRIVATE_COLUMNS (nodes.crypto.private_copy)
    leaf: kind 4 to 8, no pair, no terminal, terminal_seq = event_id

Erasing a person takes the card token and salt_pii away; card_token_leaf then stands in for the
eighth field, so that C is as it was. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence, Set

from nodes import ids
from nodes.anchoring.leaf import ZERO_WORD, EventKind, Leaf, encode_leaf, event_ref
from nodes.anchoring.model import RowEvidence, Value
from nodes.anchoring.rules import SALT_COLUMN, RowUnsound
from nodes.crypto.commitment import (
    Opening,
    SharedField,
    field_leaf,
    field_salt,
    field_salts,
    shared_root,
    uint_word,
)
from nodes.crypto.merkle import leaf_hash
from nodes.crypto.private_copy import Mark, private_commitment, private_copy, salt_mark

#: The columns of `events` in the order of the schema.
EVENT_COLUMNS = (
    "event_id",
    "kind",
    "action",
    "subject",
    "actor",
    "detail",
    "occurred_ms",
    "card_token",
    "salt_fin",
    "salt_pii",
    "card_token_leaf",
    "salt_private",
    "xact",
)
#: The columns in P's copy. Erasure takes card_token and salt_pii away; see ERASED_COLUMNS.
PRIVATE_COLUMNS = (
    SALT_COLUMN,
    "event_id",
    "kind",
    "action",
    "subject",
    "actor",
    "detail",
    "occurred_ms",
    "card_token",
    "salt_fin",
    "salt_pii",
    "xact",
)
#: What erasing a person changes in a row of `events` or `transactions`, and nothing else.
ERASED_COLUMNS = frozenset({"card_token", "salt_pii", "card_token_leaf", "pan_masked"})

EventRow = Mapping[str, Value]
_KINDS = {kind.side: kind for kind in EventKind}


def event_evidence(member_id: str, row: EventRow) -> RowEvidence:
    """The leaf of an event that is about to be sealed. RowUnsound if it can't be one."""
    number = _number(row)
    reference = event_ref(member_id, number)
    shared, copy = shared_fields(row, reference), private_copy(private_marks(row))
    leaf = Leaf(
        kind=_KINDS[str(row["kind"])],
        member_id=member_id,
        txid=reference,
        commitment=shared_root(shared),
        private_commitment=private_commitment(copy),
        pair_id=ZERO_WORD,
        pair_seq=0,
        terminal_id="",
        terminal_seq=number,
    )
    encoded = encode_leaf(leaf)
    return RowEvidence(leaf, encoded, leaf_hash(encoded), b"".join(shared), copy)


def shared_fields(row: EventRow, reference: bytes) -> list[bytes]:
    """The eight field leaf hashes of an event's C."""
    event_id = _number(row)
    kind, salt_fin, salt_pii = _KINDS.get(str(row["kind"])), row["salt_fin"], row["salt_pii"]
    if kind is None:
        raise RowUnsound(event_id, "kind", "is none of an event's")
    if not isinstance(salt_fin, bytes) or len(salt_fin) != 32:
        raise RowUnsound(event_id, "salt_fin", "is not 32 bytes")
    words = _words(row, kind)
    salts = field_salts(salt_fin, reference, len(words))
    leaves = [
        field_leaf(n, salt, word)
        for n, (salt, word) in enumerate(zip(salts, words, strict=True), 1)
    ]
    return [*leaves, _person_leaf(row, reference, salt_pii)]


def opening_of(
    row: EventRow, reference: bytes, shared: Sequence[bytes], disclose: Set[int]
) -> tuple[Opening, dict[int, bytes]]:
    """Some fields of an event's C disclosed, from the row, the others from the log's field hashes;
    and the texts of the disclosed. What an erasure took away stays hidden."""
    kind, salt_fin, salt_pii = _KINDS[str(row["kind"])], row["salt_fin"], row["salt_pii"]
    if not isinstance(salt_fin, bytes):
        raise RowUnsound(_number(row), "salt_fin", "is not 32 bytes")
    opened = {
        n: (field_salt(salt_fin, reference, n), word)
        for n, word in enumerate(_words(row, kind), 1)
        if n in disclose
    }
    token = int(SharedField.CARD_TOKEN)
    if token in disclose and isinstance(salt_pii, bytes):
        opened[token] = field_salt(salt_pii, reference, token), _token_word(row)
    hidden = {int(n): shared[n - 1] for n in SharedField if n not in opened}
    texts = {4: row["subject"], 5: row["actor"], 6: row["detail"]}
    return Opening(opened, hidden), {n: str(t).encode() for n, t in texts.items() if n in opened}


def _words(row: EventRow, kind: EventKind) -> tuple[bytes, ...]:
    """The values of the fields 1 to 7."""
    try:
        return (
            uint_word(int(kind)),
            ids.ascii_word(str(row["action"])),
            uint_word(int(str(row["occurred_ms"]))),
            _text_hash(row["subject"]),
            _text_hash(row["actor"]),
            _text_hash(row["detail"]),
            ZERO_WORD,
        )
    except (ValueError, OverflowError):
        raise RowUnsound(_number(row), "action", "or its moment has no word in C") from None


def _token_word(row: EventRow) -> bytes:
    token = row["card_token"]
    if token is None:
        return ZERO_WORD
    if not isinstance(token, bytes) or len(token) != 16 or not any(token):
        # Another value that pads to the same word, or the word of NULL.
        raise RowUnsound(_number(row), "card_token", "is not 16 bytes, or all zero")
    return token.ljust(32, b"\0")


def _person_leaf(row: EventRow, reference: bytes, salt_pii: Value) -> bytes:
    """Field 8, or after an erasure what stands in for it."""
    stand_in = row["card_token_leaf"]
    if isinstance(salt_pii, bytes):
        own = field_salt(salt_pii, reference, SharedField.CARD_TOKEN)
        return field_leaf(SharedField.CARD_TOKEN, own, _token_word(row))
    if not isinstance(stand_in, bytes) or len(stand_in) != 32:
        raise RowUnsound(_number(row), "card_token_leaf", "doesn't stand in for the card token")
    return stand_in


def private_marks(row: EventRow) -> list[Mark]:
    """The marks of an event's copy: values, but of salt_pii its hash, and of the card token
    nothing, for C's eighth field binds it."""
    salt = row[SALT_COLUMN]
    if not isinstance(salt, bytes) or len(salt) != 32:
        raise RowUnsound(_number(row), SALT_COLUMN, "is not 32 bytes")
    marks: dict[str, Mark] = {column: row[column] for column in PRIVATE_COLUMNS}
    salt_pii = row["salt_pii"]
    if isinstance(salt_pii, bytes):
        marks |= {"salt_pii": salt_mark(salt_pii), "card_token": None}
    return list(marks.values())


def changed_columns(
    row: EventRow, reference: bytes, shared: Sequence[bytes], private: Sequence[Mark]
) -> list[str]:
    """The columns in which an event differs from its anchored evidence (C's field hashes and the
    copy's marks).

    If salt_private can't be one, it alone is named. An erased row is no changed one: it lacks card
    token and salt_pii, and what stands in for the eighth field is the anchored hash.
    """
    try:
        now = private_marks(row)
    except RowUnsound:
        return [SALT_COLUMN]
    pairs = zip(PRIVATE_COLUMNS, now, private, strict=True)
    differing = [column for column, mine, theirs in pairs if mine != theirs]
    if is_erased(row, shared):
        return [column for column in differing if column not in ERASED_COLUMNS]
    if row["card_token_leaf"] is not None:
        differing.append("card_token_leaf")
    if "salt_pii" in differing:
        return [column for column in differing if column != "card_token"]
    if "card_token" not in differing and _another_person(row, reference, shared):
        differing.append("card_token")
    return differing


def _another_person(row: EventRow, reference: bytes, shared: Sequence[bytes]) -> bool:
    try:
        return _person_leaf(row, reference, row["salt_pii"]) != shared[SharedField.CARD_TOKEN - 1]
    except RowUnsound as unsound:
        # Without salt_pii there is no stand-in: that is named already.
        return unsound.column == "card_token"


def is_erased(row: EventRow, shared: Sequence[bytes]) -> bool:
    """Whether a row (of events or transactions) has lost its person and nothing else of C."""
    return (
        row["card_token"] is None
        and row.get("pan_masked") is None
        and row["salt_pii"] is None
        and row["card_token_leaf"] == shared[SharedField.CARD_TOKEN - 1]
    )


def _number(row: EventRow) -> int:
    number = row["event_id"]
    if not isinstance(number, int):
        raise TypeError("event_id is a number")
    return number


def _text_hash(value: Value) -> bytes:
    return hashlib.sha256(str(value).encode()).digest()
