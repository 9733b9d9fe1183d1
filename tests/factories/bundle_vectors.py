"""tests/vectors/bundles.json: proofs with the one answer that every verifier must give.

python -m tests.factories.bundle_vectors    # writes it anew
"""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from nodes.anchoring.bundle import parse_bundle
from nodes.anchoring.cached_roots import (
    CachedAnchor,
    CachedMember,
    CachedNoteKey,
    CachedRoots,
)
from nodes.anchoring.finality import SealFault
from nodes.anchoring.note import NoteSigner
from nodes.anchoring.verifier import Reason, verify
from tests.unit.anchoring.chain_view import (
    MEMBER,
    REGISTRY,
    SIGNER,
    View,
    make_event_log,
    make_log,
)
from tests.unit.anchoring.lies import (
    BUNDLES,
    CASES,
    EVENT_LIES,
    EVENT_VIEW,
    EVENTS,
    VIEW,
    altered,
    with_evidence,
)

PATH = Path(__file__).parents[1] / "vectors" / "bundles.json"


def roots_of(view: View) -> CachedRoots:
    """A test's chain as a file of cached roots."""
    members = {}
    for member_id, (key, first, last) in view.keys.items():
        members[member_id] = CachedMember(
            note_keys=(CachedNoteKey(key, first, last),),
            promise_keys=(),
            anchors=tuple(
                CachedAnchor(
                    seq=seq,
                    size=anchor.size,
                    root=anchor.root,
                    meta_hash=anchor.meta_hash,
                    block_number=anchor.block_number,
                    block_hash=anchor.block_hash,
                    tx_hash=anchor.tx_hash,
                    timestamp=anchor.timestamp,
                )
                for (owner, seq), anchor in view.anchors.items()
                if owner == member_id
            ),
        )
    return CachedRoots(
        view.chain_id,
        view.anchor_registry,
        None,
        604_800,
        100,
        0,
        members,
        predecessors=view.predecessors,
    )


def _extra(raw: bytes, old: bytes, new: bytes) -> bytes:
    """A bundle with something in its JSON replaced."""
    head, line, *rest = raw.split(b"\n")
    document = base64.b64decode(line.removeprefix(b"extra "))
    assert old in document
    changed = base64.b64encode(document.replace(old, new, 1))
    return b"\n".join([head, b"extra " + changed, *rest])


def _padding_bits(raw: bytes) -> bytes:
    """The last hash of the path with bits set that base64 pads: decoders may ignore them."""
    head, rest = raw.split(b"=\n\n", 1)
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = alphabet[alphabet.index(head[-1:]) | 1]
    return head[:-1] + bytes([last]) + b"=\n\n" + rest


def _texts() -> dict[str, bytes]:
    """Bytes that are no bundle, or one only almost."""
    raw = BUNDLES[0]
    return {
        "nothing": b"",
        "another header": raw.replace(b"@v1", b"@v2", 1),
        "not UTF-8": raw + b"\xff",
        "a byte order mark": b"\xef\xbb\xbf" + raw,
        "carriage returns": raw.replace(b"\n", b"\r\n"),
        "index with a leading zero": raw.replace(b"index 0", b"index 00", 1),
        "padding bits in base64": raw.replace(b"=\n\n", b"=\n\n", 1).replace(
            b"extra ey", b"extra ez", 1
        ),
        "too large": raw + b"x" * 70_000,
        "spaces in the JSON": _extra(raw, b'"seq":1', b'"seq": 1'),
        "a number as a text": _extra(raw, b'"seq":1', b'"seq":"1"'),
        "a number in floating point": _extra(raw, b'"seq":1', b'"seq":1.0'),
        "63 bits and one": _extra(raw, b'"seq":1', b'"seq":9223372036854775808'),
        "a field twice": _extra(raw, b'"hidden":{', b'"hidden":{"1":"' + b"0" * 64 + b'",'),
        "an unknown key": _extra(raw, b'"seq":1', b'"seq":1,"set":2'),
        "another finality": _extra(raw, b"DEV_FINALITY", b"FINALITY"),
        "upper-case hex": _extra(raw, b'"tx_hash":"78', b'"tx_hash":"7A'),
    }


def _event_views() -> dict[str, View]:
    return {"events": EVENT_VIEW} | {
        f"events, {len(chosen)} disclosed": make_event_log(2, chosen)[1] for chosen in _CHOSEN
    }


_CHOSEN = frozenset({2, 6, 8}), frozenset[int]()


def _of_events() -> list[tuple[str, str, bytes]]:
    """Proofs of events, and what is wrong with some."""
    cases = [(f"event {index} of 3", "events", raw) for index, raw in enumerate(EVENTS)]
    for chosen in _CHOSEN:
        name = f"events, {len(chosen)} disclosed"
        cases.append((name, name, make_event_log(2, chosen)[0][0]))
    cases += [
        (f"an event: {name}", "events", change(parse_bundle(EVENTS[1])).encode())
        for name, _, change in EVENT_LIES
    ]
    subject = f'"4":"{b"rule 1".hex()}"'.encode()
    cases += [
        ("an event without a text", "events", _extra(EVENTS[1], subject + b",", b"")),
        ("an event's text of no such field", "events", _extra(EVENTS[1], b'{"4":"', b'{"7":"')),
        ("an event's text in upper case", "events", _extra(EVENTS[1], b"e7ae", b"E7ae")),
        ("an event's text of half a byte", "events", _extra(EVENTS[1], b'"6":""', b'"6":"0"')),
        ("a transaction with texts", "usual", _extra(BUNDLES[0], b'"type"', b'"texts":{},"type"')),
        (
            "an event as a transaction",
            "events",
            replace(parse_bundle(EVENTS[1]), texts=None).encode(),
        ),
    ]
    return cases


def documents() -> dict[str, Any]:
    """What the file holds; the answers are the Python verifier's."""
    stranger = NoteSigner(b"o" * 32).public_key
    other_root = replace(VIEW.anchors[MEMBER, 1], root=bytes(32))
    views = {
        "usual": VIEW,
        "no anchors": replace(VIEW, anchors={}),
        "another chain": replace(VIEW, chain_id=1),
        "another contract": replace(VIEW, anchor_registry="0x" + "cd" * 20),
        "its successor": replace(
            VIEW, anchor_registry="0x" + "cd" * 20, predecessors=("0x" + "ef" * 20, REGISTRY)
        ),
        "another's successor": replace(
            VIEW, anchor_registry="0x" + "cd" * 20, predecessors=("0x" + "ef" * 20,)
        ),
        "another root": replace(VIEW, anchors={(MEMBER, 1): other_root}),
        "key retired before": replace(VIEW, keys={MEMBER: (SIGNER.public_key, 1, 8)}),
        "key of somebody else": replace(VIEW, keys={MEMBER: (stranger, 1, 100)}),
    }
    cases: list[tuple[str, str, bytes]] = []
    for size in (1, 2, 3, 7, 8):
        bundles, view = make_log(size)
        views[f"log of {size}"] = view
        cases += [
            (f"entry {index} of {size}", f"log of {size}", raw) for index, raw in enumerate(bundles)
        ]
    disclosed, views["card token disclosed"] = make_log(2, frozenset({1, 8}))
    cases.append(("card token and amount disclosed", "card token disclosed", disclosed[0]))
    hidden, views["all hidden"] = make_log(2, frozenset())
    cases.append(("every field hidden", "all hidden", hidden[1]))
    views |= _event_views()
    cases += _of_events()
    cases += [
        (f"{reason.value} {number}", "usual", altered(change))
        for number, (reason, change) in enumerate(CASES)
    ]
    for name in (
        *("no anchors", "another chain", "another contract", "another root"),
        *("its successor", "another's successor"),
    ):
        cases.append((name, name, BUNDLES[0]))
    for name in ("key retired before", "key of somebody else"):
        cases.append((name, name, BUNDLES[0]))
    for seq in (2**53 + 1, 2**63 - 1):
        cases.append((f"seq {seq}", "usual", altered(with_evidence(seq=seq))))
    big = replace(parse_bundle(BUNDLES[0]), index=9_999_999_999_999_999_999).encode()
    cases.append(("index of 19 digits", "usual", big))
    cases += [(name, "usual", raw) for name, raw in _texts().items()]
    judged = [(name, roots, raw, verify(raw, views[roots])) for name, roots, raw in cases]
    of_seals = {Reason.NOT_SEALED, *(Reason(fault.value) for fault in SealFault)}
    assert {verdict.reason for *_, verdict in judged} == {None, *Reason} - of_seals
    return {
        "about": "Proofs (base64), the cached roots to judge them by, and the reason of the refusal"
        " (null: proven). docs/evidence.md, The bundle and Verifying.",
        "roots": {name: json.loads(roots_of(view).encode()) for name, view in views.items()},
        "cases": [
            {
                "name": name,
                "roots": roots,
                "bundle": base64.b64encode(raw).decode(),
                "reason": verdict.reason,
            }
            for name, roots, raw, verdict in judged
        ],
    }


if __name__ == "__main__":
    PATH.write_text(json.dumps(documents(), indent=1) + "\n", encoding="ascii")
