"""Proof bundles of the log's entries: transactions and events. Reads only.

Each function takes a psycopg connection or an SQLAlchemy one, and reads within its transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from nodes.anchoring import event_store, queries
from nodes.anchoring.bundle import AnchorEvidence, Bundle
from nodes.anchoring.checkpoint import totals_hash
from nodes.anchoring.events import opening_of
from nodes.anchoring.leaf import event_ref
from nodes.anchoring.model import AnchorState, Batch, LedgerRow
from nodes.anchoring.note import NoteInvalid, parse_note, signature_holds
from nodes.anchoring.rules import SHARED_COLUMNS, shared_word, words_of
from nodes.anchoring.store import driver
from nodes.crypto.commitment import Opening, SharedField, field_salt

#: What a proof discloses unless it is asked for something else: all but the card token.
DISCLOSED = frozenset(int(field) for field in SharedField) - {int(SharedField.CARD_TOKEN)}

#: The member's note key that was valid at a block, by the chain; None if none was.
NoteKeyAt = Callable[[int], bytes | None]


class UnknownTransaction(LookupError):
    """There is no such transaction in these books."""


class NotAnchoredYet(LookupError):
    """There is no proof yet. `state` says how far the transaction is."""

    def __init__(self, state: AnchorState) -> None:
        super().__init__(f"the transaction is {state.value}")
        self.state = state


def proof_bundle(
    connection: queries.AnyConnection,
    txid: bytes,
    side: str,
    disclose: Iterable[SharedField] = tuple(SharedField)[:-1],
    *,
    key_at: NoteKeyAt | None = None,
) -> bytes:
    """The bundle file of one transaction; by default all fields of C but the card token.

    `key_at` as `anchored_entry` takes it. UnknownTransaction, or NotAnchoredYet with the state.
    """
    link = driver(connection)
    row = next(
        (row for row in queries.rows_by_txid(link, [txid]) if row.values["side"] == side), None
    )
    if row is None:
        raise UnknownTransaction(f"no transaction {txid.hex()} in the {side}'s books")
    entry = anchored_entry(link, row.transaction_id, key_at)
    opening = _opening(row, txid, words_of(entry.shared_leaves), set(disclose))
    return entry.bundle(opening).encode()


@dataclass(frozen=True, slots=True)
class AnchoredEntry:
    """A log entry with what proves it, all but the opening of its C."""

    leaf: bytes
    shared_leaves: bytes
    evidence: AnchorEvidence
    index: int
    path: tuple[bytes, ...]
    note: str

    def bundle(self, opening: Opening, texts: Mapping[int, bytes] | None = None) -> Bundle:
        """Its proof."""
        return Bundle(self.leaf, opening, self.evidence, self.index, self.path, self.note, texts)


def anchored_entry(
    connection: queries.AnyConnection, number: int, key_at: NoteKeyAt | None = None
) -> AnchoredEntry:
    """The entry under a transaction's number (an event's is negative); NotAnchoredYet.

    A checkpoint that was signed before the note key's rotation and anchored after it proves
    nothing. Every later tree holds the entry too: with `key_at` the first anchor from its own on
    is taken whose checkpoint is signed by the key of its block. If none is, its own.
    """
    link = driver(connection)
    place = queries.log_places(link, [number])[number]
    if place.log_index is None or place.batch_seq is None:
        raise NotAnchoredYet(AnchorState.UNSEALED)
    own = _anchored(link, place.batch_seq)
    if own is None:
        raise NotAnchoredYet(place.state)
    sealed, evidence = own if key_at is None else _provable(link, own, key_at)
    stored = link.execute(
        "SELECT leaf, shared_leaves FROM log_leaves WHERE log_index = %s", (place.log_index,)
    ).fetchone()
    if stored is None:
        raise LookupError(f"the log lacks entry {place.log_index}")
    path = tuple(queries.inclusion_proof(link, place.log_index, sealed.size))
    return AnchoredEntry(stored[0], stored[1], evidence, place.log_index, path, sealed.note)


def _anchored(link: queries.AnyConnection, seq: int) -> tuple[Batch, AnchorEvidence] | None:
    """A batch and where it is anchored, if that is final."""
    sent = queries.submission(link, seq)
    if sent is None or sent.block_number is None or sent.block_hash is None:
        return None
    sealed = queries.batch(link, seq)
    if sealed is None:
        raise LookupError(f"the log lacks batch {seq}")
    return sealed, AnchorEvidence(
        seq=seq,
        tx_hash=sent.tx_hash,
        block_number=sent.block_number,
        block_hash=sent.block_hash,
        sealed_us=sealed.sealed_us,
        totals_hash=totals_hash(sealed.totals),
    )


def _provable(
    link: queries.AnyConnection, own: tuple[Batch, AnchorEvidence], key_at: NoteKeyAt
) -> tuple[Batch, AnchorEvidence]:
    """The first anchor from `own` on whose checkpoint the key of its block has signed; else own."""
    found: tuple[Batch, AnchorEvidence] | None = own
    while found is not None:
        sealed, evidence = found
        key = key_at(evidence.block_number)
        if key is not None and _signed(sealed.note, key):
            return found
        found = _anchored(link, sealed.seq + 1)
    return own


def _signed(note: str, key: bytes) -> bool:
    try:
        return signature_holds(parse_note(note), key)
    except NoteInvalid:
        return False


def _opening(
    row: LedgerRow, txid: bytes, leaves: Sequence[bytes], disclose: set[SharedField]
) -> Opening:
    """The fields to disclose from the live row, the others from the log."""
    disclosed: dict[int, tuple[bytes, bytes]] = {}
    hidden: dict[int, bytes] = {}
    for field in SharedField:
        salt = row.values["salt_pii" if field is SharedField.CARD_TOKEN else "salt_fin"]
        word = shared_word(field, row.values[SHARED_COLUMNS[field]])
        if field in disclose and isinstance(salt, bytes) and word is not None:
            disclosed[int(field)] = (field_salt(salt, txid, field), word)
        else:
            hidden[int(field)] = leaves[field - 1]
    return Opening(disclosed, hidden)


class UnknownEvent(LookupError):
    """There is no such event here."""


def event_bundle(
    connection: queries.AnyConnection,
    member_id: str,
    event_id: int,
    disclose: Set[int] = DISCLOSED,
    *,
    key_at: NoteKeyAt | None = None,
) -> bytes:
    """The bundle file of one event of this member; UnknownEvent, or NotAnchoredYet.

    `key_at` as `anchored_entry` takes it.
    """
    link = driver(connection)
    row = event_store.events_by_id(link, [event_id]).get(event_id)
    if row is None:
        raise UnknownEvent(f"no event {event_id}")
    entry = anchored_entry(link, -event_id, key_at)
    reference, shared = event_ref(member_id, event_id), words_of(entry.shared_leaves)
    return entry.bundle(*opening_of(row, reference, shared, disclose)).encode()
