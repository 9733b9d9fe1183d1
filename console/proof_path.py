"""A proof bundle as a drawing: from the disclosed facts by C and the leaf up to the root, and on to
checkpoint, anchor and block. Pure; it draws what is in the file, the verifier judges it.

Whatever can still be read of a broken bundle is drawn, up to where it breaks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from console import presentation
from nodes.anchoring.bundle import Bundle, BundleMalformed, parse_bundle
from nodes.anchoring.checkpoint import Checkpoint, CheckpointInvalid, parse_checkpoint
from nodes.anchoring.leaf import WORD_NAMES, EventKind, Leaf, LeafKind, decode_leaf
from nodes.anchoring.note import NoteInvalid, SignedNote, parse_note
from nodes.anchoring.verifier import EVENT_FIELDS, printable
from nodes.authorization.model import Kind, Outcome
from nodes.crypto.commitment import SharedField, field_leaf
from nodes.crypto.merkle import leaf_hash, node_hash, root_from_inclusion

Side = Literal["left", "right"]


@dataclass(frozen=True)
class FieldDrawn:
    """One field of C: its value if it is disclosed, and the hash of its leaf."""

    name: str
    value: str | None
    hash: str


@dataclass(frozen=True)
class Rung:
    """One step upward: the sibling from the file, on which side it stands, and what the two hash
    to. `covers`: the log entries [first, end) under the result; `beside`: under the sibling."""

    level: int
    side: Side
    sibling: str
    result: str
    covers: tuple[int, int]
    beside: tuple[int, int]


@dataclass(frozen=True)
class Drawing:
    """All that is drawn. None where the file says nothing that could be read."""

    fields: tuple[FieldDrawn, ...] = ()
    commitment: str | None = None  # what the fields lead to
    leaf: tuple[tuple[str, str], ...] = ()  # its words by name
    stated_commitment: str | None = None  # what the leaf says
    leaf_hash: str | None = None
    index: int | None = None
    rungs: tuple[Rung, ...] = ()
    root: str | None = None  # what the path leads to
    checkpoint: Checkpoint | None = None
    note: SignedNote | None = None
    anchor_seq: int | None = None
    block_number: int | None = None
    block_hash: str | None = None
    tx_hash: str | None = None
    sealed_at: str | None = None
    trouble: str = ""  # why no more could be drawn

    @property
    def commitment_holds(self) -> bool:
        """Whether the fields lead to the leaf's commitment."""
        return self.commitment is not None and self.commitment == self.stated_commitment

    @property
    def root_holds(self) -> bool:
        """Whether the path leads to the checkpoint's root."""
        stated = self.checkpoint
        return self.root is not None and stated is not None and self.root == stated.root.hex()


def draw(raw: bytes) -> Drawing:
    """The drawing of a bundle file's bytes."""
    try:
        bundle = parse_bundle(raw)
    except BundleMalformed as error:
        return Drawing(trouble=str(error))
    note, checkpoint, trouble = _checkpoint(bundle)
    index, hashed = bundle.index, leaf_hash(bundle.leaf)
    rungs: tuple[Rung, ...] = ()
    root: bytes | None = None
    if checkpoint is not None:
        rungs = climb(index, checkpoint.size, hashed, bundle.path)
        root = root_from_inclusion(index, checkpoint.size, hashed, bundle.path)
        if root is None:
            trouble = trouble or (
                f"a path of {len(bundle.path)} hashes can't lead from entry {index:,} to the root "
                f"of {checkpoint.size:,}"
            )
    leaf = _leaf(bundle)
    commitment = bundle.opening.commitment()
    evidence = bundle.evidence
    return Drawing(
        fields=_fields(bundle),
        commitment=commitment.hex() if commitment else None,
        leaf=_words(bundle, leaf),
        stated_commitment=_word(bundle, "commitment"),
        leaf_hash=hashed.hex(),
        index=index,
        rungs=rungs,
        root=root.hex() if root else None,
        checkpoint=checkpoint,
        note=note,
        anchor_seq=evidence.seq,
        block_number=evidence.block_number,
        block_hash=evidence.block_hash.hex(),
        tx_hash=evidence.tx_hash.hex(),
        sealed_at=_moment(evidence.sealed_us / 1_000_000),
        trouble=trouble,
    )


def climb(index: int, size: int, leaf: bytes, path: tuple[bytes, ...]) -> tuple[Rung, ...]:
    """The steps of an inclusion proof (RFC 9162, 2.1.3.2), as far as the path goes with the size;
    the last one's result is `root_from_inclusion` where that has one."""
    if not 0 <= index < size:
        return ()
    rungs: list[Rung] = []
    current, under = leaf, (index, index + 1)
    for (side, covers), sibling in zip(_places(index, size), path, strict=False):
        pair = (sibling, current) if side == "left" else (current, sibling)
        beside = (covers[0], under[0]) if side == "left" else (under[1], covers[1])
        current, under = node_hash(*pair), covers
        rungs.append(Rung(len(rungs) + 1, side, sibling.hex(), current.hex(), covers, beside))
    return tuple(rungs)


def _places(index: int, size: int) -> list[tuple[Side, tuple[int, int]]]:
    """From the leaf upward: on which side each sibling stands, and what its parent covers."""
    found: list[tuple[Side, tuple[int, int]]] = []
    first, end = 0, size
    while end - first > 1:
        middle = first + (1 << (end - first - 1).bit_length() - 1)
        found.append(("right" if index < middle else "left", (first, end)))
        first, end = (first, middle) if index < middle else (middle, end)
    return found[::-1]


def _checkpoint(bundle: Bundle) -> tuple[SignedNote | None, Checkpoint | None, str]:
    try:
        note = parse_note(bundle.note)
    except NoteInvalid as error:
        return None, None, f"checkpoint: {error}"
    try:
        return note, parse_checkpoint(note.text), ""
    except CheckpointInvalid as error:
        return note, None, f"checkpoint: {error}"


def _leaf(bundle: Bundle) -> Leaf | None:
    try:
        return decode_leaf(bundle.leaf)
    except ValueError:
        return None


def _word(bundle: Bundle, name: str) -> str:
    start = WORD_NAMES.index(name) * 32
    return bundle.leaf[start : start + 32].hex()


def _words(bundle: Bundle, leaf: Leaf | None) -> tuple[tuple[str, str], ...]:
    """The leaf's words, readable where it is one."""
    shown = {name: _word(bundle, name) for name in WORD_NAMES}
    if leaf is not None:
        shown |= {
            "version": "1",
            "kind": f"{leaf.kind.side} ({int(leaf.kind)})"
            if isinstance(leaf.kind, LeafKind)
            else leaf.kind.name.lower(),
            "member_id": leaf.member_id,
            "pair_seq": f"{leaf.pair_seq:,}",
            "terminal_id": leaf.terminal_id or "–",
            "terminal_seq": f"{leaf.terminal_seq:,}",
        }
    return tuple(shown.items())


def _fields(bundle: Bundle) -> tuple[FieldDrawn, ...]:
    if bundle.texts is not None:
        return _event_fields(bundle, bundle.texts)
    found = []
    currency = bundle.opening.disclosed.get(SharedField.CURRENCY)
    unit = _text(currency[1]) if currency else ""
    for number in SharedField:
        name = number.name.lower()
        opened = bundle.opening.disclosed.get(number)
        if opened is None:
            found.append(FieldDrawn(name, None, bundle.opening.hidden[number].hex()))
        else:
            value = _readable(number, opened[1], unit)
            found.append(FieldDrawn(name, value, field_leaf(number, *opened).hex()))
    return tuple(found)


def _event_fields(bundle: Bundle, texts: Mapping[int, bytes]) -> tuple[FieldDrawn, ...]:
    """The fields of an event's C; the seventh has no meaning, and isn't drawn."""
    found = []
    for number, name in EVENT_FIELDS.items():
        opened = bundle.opening.disclosed.get(number)
        if opened is None:
            found.append(FieldDrawn(name, None, bundle.opening.hidden[number].hex()))
            continue
        value = opened[1]
        whole = int.from_bytes(value, "big")
        shown = value.hex()
        if number in texts:
            shown = printable(texts[number])
        elif name == "action":
            shown = _text(value)
        elif name == "occurred_ms" and whole < 253_402_300_800_000:
            shown = _moment(whole / 1000)
        elif name == "kind":
            shown = next((kind.side for kind in EventKind if kind == whole), str(whole))
        found.append(FieldDrawn(name, shown, field_leaf(number, *opened).hex()))
    return tuple(found)


def _readable(number: SharedField, value: bytes, currency: str) -> str:
    """A field's value for people. Values outside what the network has are shown as they are."""
    whole = int.from_bytes(value, "big")
    match number:
        case SharedField.AMOUNT:
            return f"{presentation.amount(whole, currency)} {currency}".strip()
        case SharedField.TIME if whole < 253_402_300_800_000:
            return _moment(whole / 1000)
        case SharedField.KIND:
            return next((k.value for k in Kind if k.word == whole), str(whole))
        case SharedField.OUTCOME:
            return next((o.value for o in Outcome if o.word == whole), str(whole))
        case SharedField.CURRENCY | SharedField.MERCHANT:
            return _text(value)
        case SharedField.ORIGINAL if not any(value):
            return "none"
    return value.hex()


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode("ascii", errors="replace")


def _moment(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return str(seconds)
