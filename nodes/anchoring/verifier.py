"""Whether a bundle proves what it says, judged against the chain: pure, one named reason a refusal.

The bundle is never believed: size and root come from the anchor that the chain holds, keys from the
chain's registry, and which chain and contracts count is the caller's to say (`ChainView`). Or the
caller says who the chain's validators are (`SealTrust`): then the anchor is the one in the block
that enough of them sealed, and no node is asked. Leaf, opening and inclusion need the standard
library alone; the note's Ed25519 signature is checked by `nodes.anchoring.note`, seals by
`nodes.anchoring.finality`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Protocol

from nodes.anchoring.bundle import Bundle, BundleMalformed, parse_bundle
from nodes.anchoring.checkpoint import (
    Checkpoint,
    CheckpointInvalid,
    meta_hash,
    parse_checkpoint,
)
from nodes.anchoring.finality import (
    AnchorPlace,
    Finality,
    SealedAnchor,
    SealRefused,
    check_sealers,
    sealed_anchor,
    seals_judged,
)
from nodes.anchoring.leaf import Leaf, LeafKind, decode_leaf, is_event
from nodes.anchoring.note import NoteInvalid, SignedNote, parse_note, signature_holds
from nodes.crypto.commitment import SharedField
from nodes.crypto.merkle import leaf_hash, root_from_inclusion

#: C's fields in an event's leaf; of 4 to 6 the value is the text's SHA-256.
EVENT_FIELDS = {
    1: "kind",
    2: "action",
    3: "occurred_ms",
    4: "subject",
    5: "actor",
    6: "detail",
    8: "card_token",
}


class Reason(StrEnum):
    """Why a bundle is refused, in order of precedence: of two that apply the upper is named."""

    MALFORMED = "MALFORMED"
    LEAF_MALFORMED = "LEAF_MALFORMED"
    COMMITMENT_MISMATCH = "COMMITMENT_MISMATCH"
    NOTE_MALFORMED = "NOTE_MALFORMED"
    LEAF_MISMATCH = "LEAF_MISMATCH"
    WRONG_CHAIN = "WRONG_CHAIN"
    UNTRUSTED_REGISTRY = "UNTRUSTED_REGISTRY"
    NOT_SEALED = "NOT_SEALED"
    BLOCK_MISMATCH = "BLOCK_MISMATCH"
    TRANSACTION_NOT_IN_BLOCK = "TRANSACTION_NOT_IN_BLOCK"
    RECEIPT_NOT_IN_BLOCK = "RECEIPT_NOT_IN_BLOCK"
    EVENT_NOT_IN_RECEIPT = "EVENT_NOT_IN_RECEIPT"
    SEAL_INVALID = "SEAL_INVALID"
    SEALER_UNKNOWN = "SEALER_UNKNOWN"
    SEALS_TOO_FEW = "SEALS_TOO_FEW"
    NOT_ANCHORED = "NOT_ANCHORED"
    SIZE_MISMATCH = "SIZE_MISMATCH"
    ROOT_MISMATCH = "ROOT_MISMATCH"
    ANCHOR_MISMATCH = "ANCHOR_MISMATCH"
    KEY_NOT_VALID_AT_BLOCK = "KEY_NOT_VALID_AT_BLOCK"
    SIGNATURE_INVALID = "SIGNATURE_INVALID"
    META_MISMATCH = "META_MISMATCH"
    NOT_INCLUDED = "NOT_INCLUDED"

    @property
    def meaning(self) -> str:
        """The reason in a sentence."""
        return _MEANINGS[self]


_MEANINGS = {
    Reason.MALFORMED: "the file is not a bundle in canonical form",
    Reason.LEAF_MALFORMED: "the leaf is not the canonical encoding of a log entry",
    Reason.COMMITMENT_MISMATCH: "the disclosed fields do not lead to the commitment in the leaf",
    Reason.NOTE_MALFORMED: "the checkpoint is not a signed note of this network",
    Reason.LEAF_MISMATCH: "the leaf and the checkpoint name different members",
    Reason.WRONG_CHAIN: "the checkpoint is for another chain",
    Reason.UNTRUSTED_REGISTRY: "the checkpoint names another anchor contract than the trusted one",
    Reason.NOT_SEALED: "the proof carries no seals, and only by seals it was to be judged",
    Reason.BLOCK_MISMATCH: "the block's header is not that of the block that is stated",
    Reason.TRANSACTION_NOT_IN_BLOCK: "the anchor's transaction is not in the block",
    Reason.RECEIPT_NOT_IN_BLOCK: "the receipt is not in the block",
    Reason.EVENT_NOT_IN_RECEIPT: "the receipt has no such anchor of the trusted contract",
    Reason.SEAL_INVALID: "a seal of the block is not that of the sealer it names",
    Reason.SEALER_UNKNOWN: "somebody sealed the block who is none of the validators given",
    Reason.SEALS_TOO_FEW: "fewer validators sealed the block than make it final",
    Reason.NOT_ANCHORED: "the chain holds no anchor of that member with that number",
    Reason.SIZE_MISMATCH: "the checkpoint states another size than the anchor on the chain",
    Reason.ROOT_MISMATCH: "the checkpoint states another root than the anchor on the chain",
    Reason.ANCHOR_MISMATCH: "the bundle states another block or transaction than the chain",
    Reason.KEY_NOT_VALID_AT_BLOCK: "the member had no note key at that block",
    Reason.SIGNATURE_INVALID: "the checkpoint is not signed by the member's note key",
    Reason.META_MISMATCH: "checkpoint, moment or totals differ from what was anchored",
    Reason.NOT_INCLUDED: "the proof does not lead from the leaf to the anchored root",
}


class Anchored(Protocol):
    """An anchor as the chain holds it (nodes.chain.anchors.Anchor is one)."""

    @property
    def size(self) -> int: ...
    @property
    def root(self) -> bytes: ...
    @property
    def meta_hash(self) -> bytes: ...
    @property
    def block_number(self) -> int: ...
    @property
    def block_hash(self) -> bytes: ...
    @property
    def tx_hash(self) -> bytes: ...
    @property
    def timestamp(self) -> int:
        """Its block's moment in seconds (UTC)."""
        ...


class ChainView(Protocol):
    """The verifier's trusted look at the chain. Look-ups may raise if the chain is out of reach."""

    @property
    def chain_id(self) -> int: ...
    @property
    def anchor_registry(self) -> str:
        """The trusted contract's address."""
        ...

    @property
    def predecessors(self) -> Sequence[str]:
        """The versions before it, in lower case, the newest first: their anchors are its own."""
        ...

    def anchor(self, member_id: str, seq: int) -> Anchored | None:
        """The member's anchor of that number, if final."""
        ...

    def note_key(self, member_id: str, block_number: int) -> bytes | None:
        """The member's Ed25519 note key valid at that block."""
        ...


class HeldNoteKey(Protocol):
    """A note key and the blocks, both included, of its validity; `last` None: in use."""

    @property
    def key(self) -> bytes: ...
    @property
    def first(self) -> int: ...
    @property
    def last(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class SealTrust:
    """What judges a bundle by its block's seals, with no node.

    `validators`: the chain's, 20-byte addresses. `note_keys`: of members whose keys are known; of
    others the note's signature isn't checked. (The member's operator anchored the note's hash, so
    the seals vouch for the note as they do for the root.) `predecessors`: the versions before the
    anchor contract, in lower case, the newest first: no seal tells them.
    """

    chain_id: int
    anchor_registry: str
    validators: Set[bytes]
    note_keys: Mapping[str, Sequence[HeldNoteKey]] = field(default_factory=dict)
    predecessors: Sequence[str] = ()

    def note_key(self, member_id: str, block_number: int) -> bytes | None:
        """The member's note key valid at that block; of two the newer."""
        for held in reversed(self.note_keys.get(member_id, ())):
            if held.first <= block_number and (held.last is None or block_number <= held.last):
                return held.key
        return None


@dataclass(frozen=True, slots=True)
class Verdict:
    """`ok` or the one reason against. `details` are for people; trust them only if `ok`."""

    ok: bool
    reason: Reason | None = None
    details: dict[str, object] = field(default_factory=dict)
    #: What it was judged by: the chain's anchor, or the one in the sealed block. Only if `ok`.
    anchor: Anchored | None = None


class _Refused(Exception):
    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.detail = detail


def verify(
    raw: bytes, chain: ChainView | SealTrust, validators: Set[bytes] | None = None
) -> Verdict:
    """Judge a bundle file's bytes. `validators`: who has to have sealed the block, beside what a
    `ChainView` says of it; without them the block's finality is that view's word."""
    if isinstance(chain, SealTrust):
        validators = chain.validators
    try:
        bundle, leaf, note, checkpoint = _read(raw)
        anchor, sealed = _against_chain(bundle, leaf, note, checkpoint, chain, validators)
    except _Refused as refusal:
        detail = refusal.detail or refusal.reason.meaning
        return Verdict(False, refusal.reason, {"detail": detail})
    details = _details(bundle, leaf, checkpoint) | sealed
    if isinstance(chain, SealTrust) and leaf.member_id not in chain.note_keys:
        details["note_signature"] = "not checked: no key of the member's was given"
    return Verdict(True, None, details, anchor)


def _read(raw: bytes) -> tuple[Bundle, Leaf, SignedNote, Checkpoint]:
    """Everything that can be said without the chain."""
    try:
        bundle = parse_bundle(raw)
    except BundleMalformed as error:
        raise _Refused(Reason.MALFORMED, str(error)) from None
    try:
        leaf = decode_leaf(bundle.leaf)
    except ValueError as error:
        raise _Refused(Reason.LEAF_MALFORMED, str(error)) from None
    if bundle.texts is None and not isinstance(leaf.kind, LeafKind):
        raise _Refused(Reason.LEAF_MALFORMED, "the leaf is not a transaction's")
    if bundle.texts is not None and not is_event(leaf):
        raise _Refused(Reason.LEAF_MALFORMED, "the leaf is not an event's")
    if bundle.opening.commitment() != leaf.commitment:
        raise _Refused(Reason.COMMITMENT_MISMATCH)
    for number, text in (bundle.texts or {}).items():
        if sha256(text).digest() != bundle.opening.disclosed[number][1]:
            raise _Refused(Reason.COMMITMENT_MISMATCH, f"{EVENT_FIELDS[number]} is another text")
    try:
        note = parse_note(bundle.note)
        checkpoint = parse_checkpoint(note.text)
    except (NoteInvalid, CheckpointInvalid) as error:
        raise _Refused(Reason.NOTE_MALFORMED, str(error)) from None
    if note.key_name != str(checkpoint.origin):
        raise _Refused(Reason.NOTE_MALFORMED, "the key's name is not the origin")
    if checkpoint.origin.member_id != leaf.member_id:
        raise _Refused(Reason.LEAF_MISMATCH)
    return bundle, leaf, note, checkpoint


def _against_chain(
    bundle: Bundle,
    leaf: Leaf,
    note: SignedNote,
    checkpoint: Checkpoint,
    chain: ChainView | SealTrust,
    validators: Set[bytes] | None,
) -> tuple[Anchored, dict[str, object]]:
    """The anchor, and what was found of its block's finality."""
    if checkpoint.origin.chain_id != chain.chain_id:
        raise _Refused(Reason.WRONG_CHAIN)
    versions = _versions(checkpoint.origin.anchor_registry, chain)
    evidence = bundle.evidence
    sealed, finality = _sealed(bundle, leaf, versions, validators)
    anchor: Anchored | None
    if isinstance(chain, SealTrust):
        if sealed is None:
            raise _Refused(Reason.NOT_SEALED)
        anchor = sealed
    else:
        anchor = chain.anchor(leaf.member_id, evidence.seq)
    if anchor is None:
        raise _Refused(Reason.NOT_ANCHORED)
    if checkpoint.size != anchor.size:
        raise _Refused(Reason.SIZE_MISMATCH)
    if checkpoint.root != anchor.root:
        raise _Refused(Reason.ROOT_MISMATCH)
    if (evidence.block_number, evidence.block_hash, evidence.tx_hash) != (
        anchor.block_number,
        anchor.block_hash,
        anchor.tx_hash,
    ):
        raise _Refused(Reason.ANCHOR_MISMATCH)
    if not isinstance(chain, SealTrust) or leaf.member_id in chain.note_keys:
        key = chain.note_key(leaf.member_id, anchor.block_number)
        if key is None:
            raise _Refused(Reason.KEY_NOT_VALID_AT_BLOCK)
        if not signature_holds(note, key):
            raise _Refused(Reason.SIGNATURE_INVALID)
    if meta_hash(bundle.note, evidence.sealed_us, evidence.totals_hash) != anchor.meta_hash:
        raise _Refused(Reason.META_MISMATCH)
    root = root_from_inclusion(bundle.index, anchor.size, leaf_hash(bundle.leaf), bundle.path)
    if root != anchor.root:
        raise _Refused(Reason.NOT_INCLUDED)
    return anchor, finality


def _versions(stated: str, chain: ChainView | SealTrust) -> tuple[str, ...]:
    """The contracts that may have taken an anchor whose checkpoint states this one: it, and the
    trusted ones after it, since what was signed before a move may be anchored after it."""
    trusted = chain.anchor_registry.lower()
    if stated == trusted:
        return (trusted,)
    line = (trusted, *chain.predecessors)
    if stated not in line:
        raise _Refused(Reason.UNTRUSTED_REGISTRY)
    return line[: line.index(stated) + 1]


def _sealed(
    bundle: Bundle, leaf: Leaf, versions: tuple[str, ...], validators: Set[bytes] | None
) -> tuple[SealedAnchor | None, dict[str, object]]:
    """The anchor in the sealed block, where the bundle has one; its finality, and who judged the
    seals or why nobody did."""
    evidence = bundle.evidence
    if evidence.block is None:
        return None, {"finality": Finality.DEV.value, "seals": seals_judged(None, validators)}
    place = AnchorPlace(
        versions,
        leaf.member_id,
        evidence.seq,
        evidence.block_number,
        evidence.block_hash,
        evidence.tx_hash,
    )
    try:
        anchor = sealed_anchor(evidence.block, place)
        seals = seals_judged(evidence.block, validators)
        if validators is None:
            return anchor, {"finality": Finality.DEV.value, "seals": seals}
        said = check_sealers(evidence.block, validators)
    except SealRefused as refused:
        raise _Refused(Reason(refused.fault.value), refused.detail) from None
    finality = evidence.block.finality.value
    return anchor, {"finality": finality, "sealed_by": said, "seals": seals}


def _details(bundle: Bundle, leaf: Leaf, checkpoint: Checkpoint) -> dict[str, object]:
    details: dict[str, object] = {
        "member_id": leaf.member_id,
        "side": leaf.kind.side,
        "txid": leaf.txid.hex(),
        "commitment": leaf.commitment.hex(),
        "pair_seq": leaf.pair_seq,
        "terminal_id": leaf.terminal_id,
        "terminal_seq": leaf.terminal_seq,
        "index": bundle.index,
        "size": checkpoint.size,
        "root": checkpoint.root.hex(),
        "origin": str(checkpoint.origin),
        "seq": bundle.evidence.seq,
        "block_number": bundle.evidence.block_number,
        "tx_hash": bundle.evidence.tx_hash.hex(),
    }
    if bundle.texts is not None:
        return _of_event(details, bundle.texts, bundle.opening.disclosed)
    for number, (_, value) in bundle.opening.disclosed.items():
        shared = SharedField(number)
        details[shared.name.lower()] = _readable(shared, value)
    return details


def _of_event(
    details: dict[str, object],
    texts: Mapping[int, bytes],
    disclosed: Mapping[int, tuple[bytes, bytes]],
) -> dict[str, object]:
    """The same of an event: its number and reference for what a transaction has there."""
    for name in ("pair_seq", "terminal_id"):
        del details[name]
    details["event_kind"] = details.pop("side")
    details["event_ref"] = details.pop("txid")
    details["event_id"] = details.pop("terminal_seq")
    for number, (_, value) in disclosed.items():
        match number:
            case 2:
                details["action"] = printable(value.rstrip(b"\0"))
            case 3:
                details["occurred_ms"] = int.from_bytes(value, "big")
            case 4 | 5 | 6:
                details[EVENT_FIELDS[number]] = printable(texts[number])
            case 8 if any(value):
                details["card_token"] = value.hex()
    return details


def printable(text: bytes) -> str:
    """A proof's text for people: what is no UTF-8 or steers a terminal shows as U+FFFD."""
    decoded = text.decode(errors="replace")
    return "".join(c if c.isprintable() else "\ufffd" for c in decoded)


_NUMBERS = {SharedField.AMOUNT, SharedField.KIND, SharedField.TIME, SharedField.OUTCOME}
_TEXTS = {SharedField.CURRENCY, SharedField.MERCHANT}


def _readable(shared: SharedField, value: bytes) -> object:
    if shared in _NUMBERS:
        return int.from_bytes(value, "big")
    if shared in _TEXTS:
        return value.rstrip(b"\0").decode("ascii", errors="replace")
    if shared is SharedField.ORIGINAL and value == bytes(32):
        return None
    return value.hex()
