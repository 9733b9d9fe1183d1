"""Proof bundles of a real network, altered bit by bit and lie by lie, judged by the verifier."""

from __future__ import annotations

import base64
import binascii
import json
import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psycopg

from nodes.anchoring.bundle import Bundle, parse_bundle
from nodes.anchoring.chain_view import CachedChain
from nodes.anchoring.leaf import decode_leaf, encode_leaf
from nodes.anchoring.proof_queries import proof_bundle
from nodes.anchoring.roots_reader import read_roots
from nodes.anchoring.verifier import Reason, SealTrust, verify
from nodes.crypto.commitment import Opening
from sandbox.campaigns.ledger import MEMBERS
from sandbox.campaigns.scene import Scene
from sandbox.campaigns.tally import Tallies, Tally

BITS, LIES = "BUNDLE_BIT", "BUNDLE_LIE"
#: Every bit of one bundle for so many tries of the other classes.
TRIES_A_BUNDLE = 100
_HASH = re.compile(r"[0-9a-f]{64}\Z")
_DECIMAL = re.compile(r"(0|[1-9][0-9]{0,18})\Z")
#: A field of `extra` by the names that lead to it (of a list: its place), and what it holds.
FieldName = tuple[str, ...]
Value = int | str
OfField = Callable[[FieldName, Value, Value], set[Reason]]


@dataclass
class Proofs:
    """All bundles of the members' transactions, and the roots to judge them by."""

    raw: list[bytes]
    view: CachedChain


def proofs_of(scene: Scene) -> Proofs:
    """Every transaction's bundle, from the members' own databases."""
    raw: list[bytes] = []
    for member in MEMBERS:
        with psycopg.connect(scene.postgres.superuser_dsn(member)) as connection:
            rows = connection.execute(
                "SELECT txid, side FROM transactions ORDER BY transaction_id"
            ).fetchall()
            raw += [proof_bundle(connection, bytes(txid), side) for txid, side in rows]
    contracts = scene.state.contracts
    roots = read_roots(scene.client, scene.anchor_registry, contracts["OmissionRegistry"])
    return Proofs(raw, CachedChain(roots))


def tamper_bundles(scene: Scene, name: str, count: int, tallies: Tallies, part: int = 0) -> None:
    """One of the two classes (`part`: of its bundles); every bundle as it is is a clean run."""
    proofs = proofs_of(scene)
    source = random.Random(f"{tallies.seed} {name} {part}")
    if name == BITS:
        for _ in range(max(1, count // TRIES_A_BUNDLE)):
            raw = source.choice(proofs.raw)
            flip_bits(BITS, raw, range(8 * len(raw)), proofs.view, tallies)
        return
    for raw in proofs.raw:
        verdict = verify(raw, proofs.view)
        tallies.clean(alarm="" if verdict.ok else f"a sound bundle is refused: {verdict.reason}")
    for _ in range(count):
        raw = source.choice(proofs.raw)
        expected, what, altered = _lie(source, parse_bundle(raw), proofs)
        verdict = verify(altered, proofs.view)
        tallies.add(
            name,
            found=not verdict.ok,
            named=verdict.reason in expected,
            what=f"{what}: {verdict.reason}, not {sorted(expected)}",
        )


def flip_bits(
    name: str,
    raw: bytes,
    bits: Iterable[int],
    trust: CachedChain | SealTrust,
    tallies: Tallies,
    of_field: OfField | None = None,
) -> None:
    """Try a bundle with each of the bits flipped by itself; as it is it is a clean run."""
    tally = tallies.classes.setdefault(name, Tally())
    verdict = verify(raw, trust)
    tallies.clean(alarm="" if verdict.ok else f"a sound bundle is refused: {verdict.reason}")
    for number in bits:
        place, bit = divmod(number, 8)
        altered = bytearray(raw)
        altered[place] ^= 1 << bit
        verdict = verify(bytes(altered), trust)
        expected = reasons_of(raw, bytes(altered), of_field)
        tally.add(
            found=not verdict.ok,
            named=verdict.reason in expected,
            what=f"bit {bit} of byte {place}: {verdict.reason}, not {sorted(expected)}",
        )
    tallies.progress(name)


# -- what a flipped bit has to be called


def reasons_of(raw: bytes, altered: bytes, of_field: OfField | None = None) -> set[Reason]:
    """The reasons that fit where the two differ, told from the file's format alone. `of_field`: of
    one field of `extra` that has another value of its form; MALFORMED if it has not."""
    try:
        text = altered.decode()
    except UnicodeDecodeError:
        return {Reason.MALFORMED}
    before, after = raw.decode().split("\n"), text.split("\n")
    if len(before) != len(after):
        place = next(n for n, (a, b) in enumerate(zip(before, after, strict=False)) if a != b)
        if "" in after[: before.index("")]:
            # A letter became a line's end, and what is left of its line is the note's beginning.
            return {Reason.MALFORMED, Reason.NOTE_MALFORMED}
        return {Reason.NOTE_MALFORMED} if place > before.index("") else _line_lost(before, place)
    number = next(n for n, (a, b) in enumerate(zip(before, after, strict=True)) if a != b)
    head = before.index("")
    if number < 3:
        return _of_head(number, before[number], after[number], of_field or of_plain_field)
    if number < head:
        return {Reason.NOT_INCLUDED} if _hash64(after[number]) else {Reason.MALFORMED}
    return _of_note(number - head - 1, after[number])


def _line_lost(before: Sequence[str], place: int) -> set[Reason]:
    return (
        {Reason.MALFORMED, Reason.NOTE_MALFORMED}
        if place >= before.index("") - 1
        else {Reason.MALFORMED}
    )


def _of_head(line: int, before: str, after: str, of_field: OfField) -> set[Reason]:
    label = ("", "extra ", "index ")[line]
    if not label or not after.startswith(label):
        return {Reason.MALFORMED}
    value = after.removeprefix(label)
    if line == 2:
        return {Reason.NOT_INCLUDED} if _DECIMAL.match(value) else {Reason.MALFORMED}
    mine, theirs = _json(before.removeprefix(label)), _json(value)
    if mine is None or theirs is None:
        return {Reason.MALFORMED}
    paths = _paths(mine) ^ _paths(theirs)
    names = {path for path, _ in paths}
    if len(paths) != 2 or len(names) != 1:
        return {Reason.MALFORMED}
    [name] = names
    return of_field(name, dict(_paths(mine))[name], dict(_paths(theirs))[name])


def of_plain_field(name: FieldName, before: Value, after: Value) -> set[Reason]:
    """What a changed field has to be called where the chain's word judges."""
    if not has_form(after, _HASH):
        return {Reason.MALFORMED}
    match name:
        case ("leaf", "commitment"):
            return {Reason.COMMITMENT_MISMATCH}
        case ("leaf", "version"):
            return {Reason.LEAF_MALFORMED}
        case ("leaf", "member_id" | "member"):
            return {Reason.LEAF_MALFORMED, Reason.LEAF_MISMATCH}
        case ("leaf", _):
            return {Reason.LEAF_MALFORMED, Reason.NOT_INCLUDED}
        case ("disclosed" | "hidden", *_):
            return {Reason.COMMITMENT_MISMATCH}
        case ("anchor", "seq"):
            return {Reason.NOT_ANCHORED, Reason.SIZE_MISMATCH}
        case ("anchor", "sealed_us" | "totals_hash"):
            return {Reason.META_MISMATCH}
        case ("anchor", "tx_hash" | "block_number" | "block_hash"):
            return {Reason.ANCHOR_MISMATCH}
    return {Reason.MALFORMED}


def has_form(value: Value, text: re.Pattern[str]) -> bool:
    """Whether it is a number that bundles may have, or such a text."""
    if isinstance(value, int):
        return 0 <= value < 1 << 63
    return bool(text.match(value))


def _of_note(line: int, after: str) -> set[Reason]:
    """Origin, size, root, an empty line, the signature."""
    if line == 1 and _DECIMAL.match(after):
        return {Reason.SIZE_MISMATCH}
    if line == 2 and _hash64(after):
        return {Reason.ROOT_MISMATCH}
    if line == 4:
        signature = after.rpartition(" ")[2]
        return (
            {Reason.SIGNATURE_INVALID, Reason.NOTE_MALFORMED}
            if _bytes64(signature)
            else {Reason.NOTE_MALFORMED}
        )
    return {Reason.NOTE_MALFORMED}


def _bytes64(text: str) -> bytes | None:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if base64.b64encode(raw).decode() == text else None


def _hash64(text: str) -> bool:
    raw = _bytes64(text)
    return raw is not None and len(raw) == 32


def _json(text: str) -> Any:
    """The document, if it is in canonical form."""
    raw = _bytes64(text)
    if raw is None:
        return None
    try:
        document = json.loads(raw)
        canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    except (ValueError, RecursionError):
        return None
    return document if canonical.encode() == raw else None


def _paths(document: Any, before: FieldName = ()) -> set[tuple[FieldName, Value]]:
    if isinstance(document, list):
        document = {str(place): part for place, part in enumerate(document)}
    if not isinstance(document, dict):
        return {(before, document if isinstance(document, int) else str(document))}
    found: set[tuple[FieldName, Value]] = set()
    for name, value in document.items():
        found |= _paths(value, (*before, name))
    return found


# -- lies in good form


def _lie(source: random.Random, bundle: Bundle, proofs: Proofs) -> tuple[set[Reason], str, bytes]:
    """A bundle that says something else in canonical form, and what it has to be called."""
    expected, what, change = source.choice(_LIES)
    return expected, what, change(source, bundle, proofs).encode()


Change = Callable[[random.Random, Bundle, Proofs], Bundle]


def _leaf(name: str) -> Change:
    def change(source: random.Random, bundle: Bundle, proofs: Proofs) -> Bundle:
        other: dict[str, Any] = {name: source.randbytes(32)}
        leaf = replace(decode_leaf(bundle.leaf), **other)
        return replace(bundle, leaf=encode_leaf(leaf))

    return change


def _counter(name: str) -> Change:
    def change(source: random.Random, bundle: Bundle, proofs: Proofs) -> Bundle:
        leaf = decode_leaf(bundle.leaf)
        value = getattr(leaf, name) + source.randrange(1, 1000)
        return replace(bundle, leaf=encode_leaf(replace(leaf, **{name: value})))

    return change


def _evidence(name: str) -> Change:
    def change(source: random.Random, bundle: Bundle, proofs: Proofs) -> Bundle:
        old = getattr(bundle.evidence, name)
        new: Any = old + source.randrange(1, 9999) if isinstance(old, int) else source.randbytes(32)
        return replace(bundle, evidence=replace(bundle.evidence, **{name: new}))

    return change


def _disclosed(source: random.Random, bundle: Bundle, proofs: Proofs) -> Bundle:
    number = source.choice(sorted(bundle.opening.disclosed))
    salt, value = bundle.opening.disclosed[number]
    new = (salt, source.randbytes(32)) if source.random() < 0.7 else (source.randbytes(32), value)
    disclosed = dict(bundle.opening.disclosed) | {number: new}
    return replace(bundle, opening=Opening(disclosed, bundle.opening.hidden))


def _member(source: random.Random, bundle: Bundle, proofs: Proofs) -> Bundle:
    leaf = decode_leaf(bundle.leaf)
    other = source.choice([member for member in MEMBERS if member != leaf.member_id])
    return replace(bundle, leaf=encode_leaf(replace(leaf, member_id=other)))


def _origin(part: int) -> Change:
    def change(source: random.Random, bundle: Bundle, proofs: Proofs) -> Bundle:
        old = bundle.note.split("\n", 1)[0]
        parts = old.split("/")
        parts[part] = (
            str(int(parts[part]) + source.randrange(1, 99))
            if part == 1
            else "0x" + source.randbytes(20).hex()
        )
        return replace(bundle, note=bundle.note.replace(old, "/".join(parts)))

    return change


def _note_line(line: int) -> Change:
    def change(source: random.Random, bundle: Bundle, proofs: Proofs) -> Bundle:
        lines = bundle.note.split("\n")
        if line == 1:
            lines[1] = str(int(lines[1]) + source.randrange(1, 99))
        elif line == 2:
            lines[2] = base64.b64encode(source.randbytes(32)).decode()
        else:
            words = lines[4].split(" ")
            raw = base64.b64decode(words[2])
            words[2] = base64.b64encode(raw[:4] + source.randbytes(64)).decode()
            lines[4] = " ".join(words)
        return replace(bundle, note="\n".join(lines))

    return change


def _index(source: random.Random, bundle: Bundle, proofs: Proofs) -> Bundle:
    return replace(bundle, index=bundle.index + source.randrange(1, 200))


def _path(source: random.Random, bundle: Bundle, proofs: Proofs) -> Bundle:
    path = list(bundle.path)
    way = source.randrange(3)
    if way == 0 and path:
        path.pop(source.randrange(len(path)))
    elif way == 1 and path:
        path[source.randrange(len(path))] = source.randbytes(32)
    else:
        path.insert(source.randrange(len(path) + 1), source.randbytes(32))
    return replace(bundle, path=tuple(path))


def _other_path(source: random.Random, bundle: Bundle, proofs: Proofs) -> Bundle:
    """The way of another entry of whatever log."""
    while True:
        other = parse_bundle(source.choice(proofs.raw))
        if other.path != bundle.path:
            return replace(bundle, path=other.path, index=other.index)


_LIES: list[tuple[set[Reason], str, Change]] = [
    ({Reason.COMMITMENT_MISMATCH}, "another C", _leaf("commitment")),
    ({Reason.COMMITMENT_MISMATCH}, "another disclosed field", _disclosed),
    ({Reason.NOT_INCLUDED}, "another txid", _leaf("txid")),
    ({Reason.NOT_INCLUDED}, "another P", _leaf("private_commitment")),
    ({Reason.NOT_INCLUDED}, "another terminal number", _counter("terminal_seq")),
    ({Reason.LEAF_MISMATCH}, "another member", _member),
    ({Reason.WRONG_CHAIN}, "another chain", _origin(1)),
    ({Reason.UNTRUSTED_REGISTRY}, "another contract", _origin(2)),
    ({Reason.SIZE_MISMATCH}, "another size", _note_line(1)),
    ({Reason.ROOT_MISMATCH}, "another root", _note_line(2)),
    ({Reason.SIGNATURE_INVALID}, "another signature", _note_line(4)),
    ({Reason.NOT_ANCHORED, Reason.SIZE_MISMATCH}, "another anchor", _evidence("seq")),
    ({Reason.ANCHOR_MISMATCH}, "another block", _evidence("block_number")),
    ({Reason.ANCHOR_MISMATCH}, "another block hash", _evidence("block_hash")),
    ({Reason.ANCHOR_MISMATCH}, "another transaction", _evidence("tx_hash")),
    ({Reason.META_MISMATCH}, "another moment", _evidence("sealed_us")),
    ({Reason.META_MISMATCH}, "other totals", _evidence("totals_hash")),
    ({Reason.NOT_INCLUDED}, "another place", _index),
    ({Reason.NOT_INCLUDED}, "another path", _path),
    ({Reason.NOT_INCLUDED}, "another entry's path", _other_path),
]
