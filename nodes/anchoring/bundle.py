"""The proof of one log entry as a file: C2SP tlog-proof@v1 (c2sp.org/tlog-proof).

    c2sp.org/tlog-proof@v1
    extra <base64 of canonical JSON>
    index <decimal>
    <base64 hash>                       one line a node, from the leaf's sibling upward
                                        (an empty line)
    <the checkpoint, a signed note>

`extra` holds the leaf's ten words, C's fields (disclosed with field salt and value, or hidden as a
bare leaf hash) and where the batch is anchored; of an event (nodes.anchoring.events) also the texts
whose hashes are disclosed. Where the chain's blocks are sealed by several validators the anchor has
its block too: header, seals and the proofs that the event is in it (nodes.anchoring.finality).
Everything is strict: a file is read only if writing what was read gives the same bytes, so each
byte counts.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nodes.anchoring.finality import BlockEvidence, Finality
from nodes.anchoring.leaf import LEAF_BYTES, WORD_NAMES
from nodes.crypto.commitment import Opening, SharedField

HEADER = "c2sp.org/tlog-proof@v1"
TYPE = "countersign/transaction-proof/1"
EVENT_TYPE = "countersign/event-proof/1"
#: The fields of an event's C whose value is a text's SHA-256: subject, actor, detail.
TEXT_FIELDS = (4, 5, 6)
MAX_BYTES = 65_536
_DECIMAL = re.compile(r"(0|[1-9][0-9]{0,18})\Z")
_HEX = re.compile(r"([0-9a-f]{2})*\Z")
_MAX_INT = 2**63 - 1
#: More than any list of a block's evidence has: trie nodes, headers, sealers.
_MAX_PARTS = 256


class BundleMalformed(ValueError):
    """The bytes are no bundle of the one canonical form; the text says where."""


@dataclass(frozen=True, slots=True)
class AnchorEvidence:
    """Where on the chain the batch's root stands, and what its metaHash is made of."""

    seq: int
    tx_hash: bytes
    block_number: int
    block_hash: bytes
    sealed_us: int  # microseconds since 1970
    totals_hash: bytes
    #: The block with its seals; None where the file says nothing of finality (DEV_FINALITY).
    block: BlockEvidence | None = None


@dataclass(frozen=True, slots=True)
class Bundle:
    """A proof that an entry stands at `index` of a member's log."""

    leaf: bytes  # 320 bytes
    opening: Opening
    evidence: AnchorEvidence
    index: int
    path: tuple[bytes, ...]
    note: str  # the checkpoint as a signed note, verbatim
    #: Of an event's proof the texts (UTF-8) of those TEXT_FIELDS that are disclosed; else None.
    texts: Mapping[int, bytes] | None = None

    def encode(self) -> bytes:
        """The file's bytes."""
        document: dict[str, Any] = {
            "type": TYPE if self.texts is None else EVENT_TYPE,
            "leaf": {
                name: self.leaf[start : start + 32].hex()
                for name, start in zip(WORD_NAMES, range(0, LEAF_BYTES, 32), strict=True)
            },
            "disclosed": {
                str(int(number)): {"salt": salt.hex(), "value": value.hex()}
                for number, (salt, value) in self.opening.disclosed.items()
            },
            "hidden": {
                str(int(number)): leaf_hash.hex()
                for number, leaf_hash in self.opening.hidden.items()
            },
            "anchor": _anchor_document(self.evidence),
        }
        if self.texts is not None:
            document["texts"] = {str(number): text.hex() for number, text in self.texts.items()}
        extra = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        lines = [HEADER, f"extra {_base64(extra.encode())}", f"index {self.index}"]
        lines += [_base64(node) for node in self.path]
        return ("\n".join(lines) + "\n\n" + self.note).encode()


def _anchor_document(evidence: AnchorEvidence) -> dict[str, Any]:
    document: dict[str, Any] = {
        "seq": evidence.seq,
        "tx_hash": evidence.tx_hash.hex(),
        "block_number": evidence.block_number,
        "block_hash": evidence.block_hash.hex(),
        "sealed_us": evidence.sealed_us,
        "totals_hash": evidence.totals_hash.hex(),
        "finality": Finality.DEV.value,
    }
    block = evidence.block
    if block is not None:
        document["finality"] = block.finality.value
        document["block"] = {
            "header": block.header.hex(),
            "place": block.place,
            "transaction": [node.hex() for node in block.transaction],
            "receipt": [node.hex() for node in block.receipt],
            "following": [header.hex() for header in block.following],
            "sealers": [address.hex() for address in block.sealers],
        }
    return document


def parse_bundle(raw: bytes) -> Bundle:
    """Read a bundle. BundleMalformed unless it is in canonical form, byte for byte."""
    if len(raw) > MAX_BYTES:
        raise BundleMalformed("larger than any proof")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise BundleMalformed("not UTF-8") from None
    head, separator, note = text.partition("\n\n")
    lines = head.split("\n")
    if not separator or len(lines) < 3 or lines[0] != HEADER:
        raise BundleMalformed(f"a bundle begins with the line {HEADER}")
    extra = _labelled(lines[1], "extra")
    index = _labelled(lines[2], "index")
    if not _DECIMAL.match(index):
        raise BundleMalformed("index is no canonical decimal")
    path = tuple(_hash(_unbase64(line, "proof"), "proof") for line in lines[3:])
    if len(path) > 64:
        raise BundleMalformed("a proof has at most 64 nodes")
    leaf, opening, evidence, texts = _parse_extra(_unbase64(extra, "extra"))
    bundle = Bundle(leaf, opening, evidence, int(index), path, note, texts)
    if bundle.encode() != raw:
        raise BundleMalformed("not in canonical form")
    return bundle


def _parse_extra(raw: bytes) -> tuple[bytes, Opening, AnchorEvidence, dict[int, bytes] | None]:
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        raise BundleMalformed("extra is not JSON") from None
    kind = document.get("type") if isinstance(document, dict) else None
    of_event = ("texts",) if kind == EVENT_TYPE else ()
    top = _object(document, ("anchor", "disclosed", "hidden", "leaf", *of_event, "type"), "extra")
    if kind not in (TYPE, EVENT_TYPE):
        raise BundleMalformed("extra.type is unknown")
    words = _object(top["leaf"], WORD_NAMES, "extra.leaf")
    leaf = b"".join(_word(words[name], f"leaf.{name}") for name in WORD_NAMES)
    opening = _parse_opening(top["disclosed"], top["hidden"])
    texts = _parse_texts(top["texts"], opening) if of_event else None
    return leaf, opening, _parse_evidence(top["anchor"]), texts


def _parse_texts(value: Any, opening: Opening) -> dict[int, bytes]:
    disclosed = [number for number in TEXT_FIELDS if number in opening.disclosed]
    parts = _object(value, tuple(str(number) for number in disclosed), "extra.texts")
    if not all(isinstance(text, str) and _HEX.match(text) for text in parts.values()):
        raise BundleMalformed("a text is not bytes in lower-case hex")
    return {number: bytes.fromhex(parts[str(number)]) for number in disclosed}


def _parse_opening(disclosed: Any, hidden: Any) -> Opening:
    numbers = {str(int(number)): int(number) for number in SharedField}
    if not isinstance(disclosed, dict) or not isinstance(hidden, dict):
        raise BundleMalformed("extra.disclosed and extra.hidden are objects")
    if disclosed.keys() & hidden.keys() or disclosed.keys() | hidden.keys() != numbers.keys():
        raise BundleMalformed("each field of C is either disclosed or hidden")
    opened: dict[int, tuple[bytes, bytes]] = {}
    for name, value in disclosed.items():
        parts = _object(value, ("salt", "value"), f"disclosed.{name}")
        opened[numbers[name]] = (
            _word(parts["salt"], f"disclosed.{name}.salt"),
            _word(parts["value"], f"disclosed.{name}.value"),
        )
    return Opening(
        opened, {numbers[name]: _word(value, f"hidden.{name}") for name, value in hidden.items()}
    )


def _parse_evidence(value: Any) -> AnchorEvidence:
    names = (
        "block_hash",
        "block_number",
        "finality",
        "seq",
        "sealed_us",
        "totals_hash",
        "tx_hash",
    )
    finality = value.get("finality") if isinstance(value, dict) else None
    if not isinstance(finality, str) or finality not in set(Finality):
        raise BundleMalformed("anchor.finality is unknown")
    sealed = finality != Finality.DEV
    parts = _object(value, (*names, "block") if sealed else names, "extra.anchor")
    return AnchorEvidence(
        seq=_integer(parts["seq"], "anchor.seq"),
        tx_hash=_word(parts["tx_hash"], "anchor.tx_hash"),
        block_number=_integer(parts["block_number"], "anchor.block_number"),
        block_hash=_word(parts["block_hash"], "anchor.block_hash"),
        sealed_us=_integer(parts["sealed_us"], "anchor.sealed_us"),
        totals_hash=_word(parts["totals_hash"], "anchor.totals_hash"),
        block=_parse_block(parts["block"], Finality(finality)) if sealed else None,
    )


def _parse_block(value: Any, finality: Finality) -> BlockEvidence:
    names = ("following", "header", "place", "receipt", "sealers", "transaction")
    parts = _object(value, names, "anchor.block")
    sealers = _list_of_bytes(parts["sealers"], "block.sealers")
    if any(len(address) != 20 for address in sealers):
        raise BundleMalformed("block.sealers are addresses of 20 bytes")
    return BlockEvidence(
        finality=finality,
        header=_bytes(parts["header"], "block.header"),
        place=_integer(parts["place"], "block.place"),
        transaction=_list_of_bytes(parts["transaction"], "block.transaction"),
        receipt=_list_of_bytes(parts["receipt"], "block.receipt"),
        following=_list_of_bytes(parts["following"], "block.following"),
        sealers=sealers,
    )


def _list_of_bytes(value: Any, where: str) -> tuple[bytes, ...]:
    if not isinstance(value, list) or len(value) > _MAX_PARTS:
        raise BundleMalformed(f"{where} is not a list of at most {_MAX_PARTS}")
    return tuple(_bytes(part, where) for part in value)


def _bytes(value: Any, where: str) -> bytes:
    if not isinstance(value, str) or not _HEX.match(value):
        raise BundleMalformed(f"{where} is not bytes in lower-case hex")
    return bytes.fromhex(value)


def _object(value: Any, names: tuple[str, ...], where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or value.keys() != set(names):
        raise BundleMalformed(f"{where} has not exactly the keys {', '.join(sorted(names))}")
    return value


def _word(value: Any, where: str) -> bytes:
    if not isinstance(value, str) or len(value) != 64 or not _HEX.match(value):
        raise BundleMalformed(f"{where} is not 32 bytes in lower-case hex")
    return bytes.fromhex(value)


def _integer(value: Any, where: str) -> int:
    if type(value) is not int or not 0 <= value <= _MAX_INT:
        raise BundleMalformed(f"{where} is not a whole number of at most 63 bits")
    return value


def _labelled(line: str, label: str) -> str:
    found, space, rest = line.partition(" ")
    if found != label or not space:
        raise BundleMalformed(f"the line '{label} ...' is missing")
    return rest


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _unbase64(text: str, where: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BundleMalformed(f"{where} is not base64") from None


def _hash(raw: bytes, where: str) -> bytes:
    if len(raw) != 32:
        raise BundleMalformed(f"{where}: a node has 32 bytes")
    return raw
