"""Proofs with the seals of real validators' blocks, altered bit by bit, judged with no node.

The embedded chain seals nothing that a proof could carry. So these were recorded once of networks
of four validators (sealed/README.md), and are judged by the validators' addresses.
"""

from __future__ import annotations

import base64
import json
import random
import re
from dataclasses import dataclass, replace
from pathlib import Path

from nodes.anchoring.bundle import parse_bundle
from nodes.anchoring.cached_roots import CachedRoots, parse_roots
from nodes.anchoring.finality import BlockEvidence, Finality
from nodes.anchoring.verifier import Reason, SealTrust
from sandbox.campaigns.bundles import (
    FieldName,
    OfField,
    Value,
    flip_bits,
    has_form,
    of_plain_field,
)
from sandbox.campaigns.tally import Tallies

SEALED_BITS = "SEALED_BUNDLE_BIT"
DIRECTORY = Path(__file__).with_name("sealed")
#: The networks, by their files' names.
NAMES = ("qbft", "qbft-one-down", "clique")
#: Every bit of one bundle with QBFT's seals and of one with clique's for so many tries of others.
TRIES_A_ROUND = 1_000
_BYTES = re.compile(r"([0-9a-f]{2})+\Z")
# Of a QBFT header, from its end: nonce and mixHash, the seals, each with the bytes of its length.
_AFTER_SEALS, _SEAL, _LENGTH_OF_SEAL = 9 + 33, 2 + 65, 2
#: Before the seals: the round (up to 127) and their list's length.
_BEFORE_SEALS = 1 + 2


@dataclass(frozen=True)
class Recorded:
    """A real network's bundles, of the first anchor and of the second, and its validators."""

    bundles: list[bytes]
    roots: CachedRoots
    validators: list[str]
    chain_id: int
    anchor_registry: str

    @property
    def addresses(self) -> frozenset[bytes]:
        """The validators' addresses, 20 bytes each."""
        return frozenset(bytes.fromhex(text[2:]) for text in self.validators)

    @property
    def trust(self) -> SealTrust:
        """Validators, chain and contract alone."""
        return SealTrust(self.chain_id, self.anchor_registry, self.addresses)

    @property
    def trust_with_keys(self) -> SealTrust:
        """The same with the members' note keys."""
        keys = {name: member.note_keys for name, member in self.roots.members.items()}
        return replace(self.trust, note_keys=keys)


def recorded(name: str) -> Recorded:
    """What sealed/NAME.json holds."""
    document = json.loads((DIRECTORY / f"{name}.json").read_text(encoding="ascii"))
    return Recorded(
        [base64.b64decode(text) for text in document["bundles"]],
        parse_roots(json.dumps(document["roots"])),
        document["validators"],
        document["chain_id"],
        document["anchor_registry"],
    )


def tamper_sealed(count: int, tallies: Tallies) -> None:
    """Flip bits of recorded bundles; each bundle as it is is a clean run, by seals alone too."""
    source = random.Random(f"{tallies.seed} {SEALED_BITS}")
    by_kind: dict[Finality, list[tuple[bytes, Recorded]]] = {}
    for network in map(recorded, NAMES):
        for raw in network.bundles:
            by_kind.setdefault(_block(raw).finality, []).append((raw, network))
            flip_bits(SEALED_BITS, raw, (), network.trust, tallies)
    for start in range(0, count, TRIES_A_ROUND):
        for kind in by_kind.values():
            raw, network = source.choice(kind)
            bits = range(8 * len(raw))
            share = len(bits) * min(count - start, TRIES_A_ROUND) // TRIES_A_ROUND
            chosen = sorted(source.sample(bits, share))
            flip_bits(SEALED_BITS, raw, chosen, network.trust_with_keys, tallies, of_field(raw))


def _block(raw: bytes) -> BlockEvidence:
    block = parse_bundle(raw).evidence.block
    assert block is not None
    return block


# -- what a flipped bit has to be called


def of_field(raw: bytes) -> OfField:
    """What a changed field of this bundle has to be called where its block's seals judge it."""
    block = _block(raw)

    def reasons(name: FieldName, before: Value, after: Value) -> set[Reason]:
        if name[:2] == ("anchor", "block"):
            if not has_form(after, _BYTES):
                return {Reason.MALFORMED}
            return _of_block(block, name[2:], str(before), str(after))
        if of_plain_field(name, before, after) == {Reason.MALFORMED}:
            return {Reason.MALFORMED}
        match name:
            case ("anchor", "seq"):
                return {Reason.EVENT_NOT_IN_RECEIPT}
            case ("anchor", "tx_hash"):
                return {Reason.TRANSACTION_NOT_IN_BLOCK}
            case ("anchor", "block_number" | "block_hash"):
                return {Reason.BLOCK_MISMATCH}
        return of_plain_field(name, before, after)

    return reasons


def _of_block(block: BlockEvidence, name: FieldName, before: str, after: str) -> set[Reason]:
    """Of the block with its seals; values in hex."""
    match name:
        case ("header",) if block.finality is Finality.QBFT:
            return _of_qbft_header(block, before, after)
        case ("following", place) if int(place) == len(block.following) - 1:
            # No block after it holds its hash: what isn't its place shows by the seal.
            return {Reason.BLOCK_MISMATCH, Reason.SEAL_INVALID}
        case ("header",) | ("following", _):
            return {Reason.BLOCK_MISMATCH}
        case ("place",) | ("transaction", _):
            return {Reason.TRANSACTION_NOT_IN_BLOCK}
        case ("receipt", _):
            return {Reason.RECEIPT_NOT_IN_BLOCK}
        case ("sealers", _):
            return {Reason.SEAL_INVALID}
    return {Reason.MALFORMED}


def _of_qbft_header(block: BlockEvidence, before: str, after: str) -> set[Reason]:
    """The block's hash is over all of it but round and seals, which stand before mixHash."""
    end = len(block.header) - _AFTER_SEALS
    first = end - _SEAL * len(block.sealers)
    places = [n // 2 for n, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    if all(place < first - _BEFORE_SEALS or place >= end for place in places):
        return {Reason.BLOCK_MISMATCH}
    if all(first <= place and (place - first) % _SEAL >= _LENGTH_OF_SEAL for place in places):
        return {Reason.SEAL_INVALID}
    # The round, or how long something is: another round's digest, or nothing that can be read.
    return {Reason.BLOCK_MISMATCH, Reason.SEAL_INVALID}
