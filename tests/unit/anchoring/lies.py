"""One lie for each reason of a refusal, as changes of a bundle of the log in `chain_view`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from nodes.anchoring.bundle import Bundle, parse_bundle
from nodes.anchoring.leaf import EventKind, LeafKind, decode_leaf, encode_leaf, event_ref
from nodes.anchoring.verifier import Reason
from nodes.crypto.commitment import Opening
from tests.unit.anchoring.chain_view import make_event_log, make_log

BUNDLES, VIEW = make_log(5)
EVENTS, EVENT_VIEW = make_event_log(3)


def altered(change: Callable[[Bundle], Bundle], index: int = 0) -> bytes:
    return change(parse_bundle(BUNDLES[index])).encode()


def with_leaf(**change: object) -> Callable[[Bundle], Bundle]:
    def apply(bundle: Bundle) -> Bundle:
        leaf = replace(decode_leaf(bundle.leaf), **change)  # type: ignore[arg-type]
        return replace(bundle, leaf=encode_leaf(leaf))

    return apply


def with_evidence(**change: object) -> Callable[[Bundle], Bundle]:
    def apply(bundle: Bundle) -> Bundle:
        return replace(bundle, evidence=replace(bundle.evidence, **change))  # type: ignore[arg-type]

    return apply


def with_value(number: int, value: bytes) -> Callable[[Bundle], Bundle]:
    def apply(bundle: Bundle) -> Bundle:
        disclosed = dict(bundle.opening.disclosed)
        disclosed[number] = (disclosed[number][0], value)
        return replace(bundle, opening=Opening(disclosed, bundle.opening.hidden))

    return apply


NOTE = parse_bundle(BUNDLES[0]).note
CASES: list[tuple[Reason, Callable[[Bundle], Bundle]]] = [
    (Reason.LEAF_MALFORMED, lambda b: replace(b, leaf=bytes(31) + b"\x02" + b.leaf[32:])),
    (Reason.COMMITMENT_MISMATCH, with_value(1, bytes(31) + b"\x01")),
    (Reason.COMMITMENT_MISMATCH, with_leaf(commitment=bytes(32))),
    (Reason.NOTE_MALFORMED, lambda b: replace(b, note=NOTE + "\n")),
    (Reason.NOTE_MALFORMED, lambda b: replace(b, note=NOTE.replace("\n5\n", "\n05\n"))),
    (Reason.LEAF_MISMATCH, with_leaf(member_id="borealis")),
    (Reason.WRONG_CHAIN, lambda b: replace(b, note=NOTE.replace("/31337/", "/31338/"))),
    (Reason.UNTRUSTED_REGISTRY, lambda b: replace(b, note=NOTE.replace("ab" * 20, "cd" * 20))),
    (Reason.NOT_ANCHORED, with_evidence(seq=2)),
    (Reason.SIZE_MISMATCH, lambda b: replace(b, note=NOTE.replace("\n5\n", "\n6\n"))),
    (Reason.ANCHOR_MISMATCH, with_evidence(block_number=10)),
    (Reason.ANCHOR_MISMATCH, with_evidence(tx_hash=bytes(32))),
    (Reason.ANCHOR_MISMATCH, with_evidence(block_hash=bytes(32))),
    (Reason.META_MISMATCH, with_evidence(sealed_us=6)),
    (Reason.META_MISMATCH, with_evidence(totals_hash=bytes(32))),
    (Reason.NOT_INCLUDED, with_leaf(private_commitment=bytes(32))),
    (Reason.NOT_INCLUDED, with_leaf(txid=bytes(32))),
    (Reason.NOT_INCLUDED, lambda b: replace(b, index=1)),
    (Reason.NOT_INCLUDED, lambda b: replace(b, index=9)),
    (Reason.NOT_INCLUDED, lambda b: replace(b, path=b.path[:-1])),
    (Reason.NOT_INCLUDED, lambda b: replace(b, path=(*b.path, bytes(32)))),
]


def with_text(number: int, text: bytes) -> Callable[[Bundle], Bundle]:
    def apply(bundle: Bundle) -> Bundle:
        return replace(bundle, texts={**(bundle.texts or {}), number: text})

    return apply


#: Of the second event: what is wrong, its name, the change.
EVENT_LIES: list[tuple[str, Reason, Callable[[Bundle], Bundle]]] = [
    ("a transaction's kind", Reason.LEAF_MALFORMED, with_leaf(kind=LeafKind.ISSUER)),
    ("another reference", Reason.LEAF_MALFORMED, with_leaf(txid=bytes(32))),
    ("another event's reference", Reason.LEAF_MALFORMED, with_leaf(txid=event_ref("aurora", 9))),
    ("another number", Reason.LEAF_MALFORMED, with_leaf(terminal_seq=3)),
    ("no number", Reason.LEAF_MALFORMED, with_leaf(terminal_seq=0, txid=event_ref("aurora", 0))),
    ("a number of 64 bits", Reason.LEAF_MALFORMED, with_leaf(terminal_seq=1 << 63)),
    ("a pair", Reason.LEAF_MALFORMED, with_leaf(pair_id=b"p" * 32)),
    ("a pair's number", Reason.LEAF_MALFORMED, with_leaf(pair_seq=1)),
    ("a terminal", Reason.LEAF_MALFORMED, with_leaf(terminal_id="T0000001")),
    ("another subject", Reason.COMMITMENT_MISMATCH, with_text(4, b"rule 2")),
    ("another actor", Reason.COMMITMENT_MISMATCH, with_text(5, b"key:ops")),
    ("a detail", Reason.COMMITMENT_MISMATCH, with_text(6, b"\xff\x00")),
    ("another moment", Reason.COMMITMENT_MISMATCH, with_value(3, bytes(32))),
    ("another kind of event", Reason.NOT_INCLUDED, with_leaf(kind=EventKind.KEY)),
    ("another commitment", Reason.COMMITMENT_MISMATCH, with_leaf(commitment=bytes(32))),
]
