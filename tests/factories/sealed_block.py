"""Blocks that validators of a test sealed, with a bundle's anchor in them: to try quorums and lies.

The form is that of the recorded blocks (sandbox/campaigns/sealed/), which real engines made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from eth_hash.auto import keccak
from eth_keys.datatypes import PrivateKey

from nodes.anchoring.block_header import ISTANBUL_DIGEST
from nodes.anchoring.bundle import Bundle
from nodes.anchoring.checkpoint import meta_hash, parse_checkpoint
from nodes.anchoring.finality import BlockEvidence, Finality
from nodes.anchoring.note import parse_note
from nodes.chain.anchors import ANCHORED_TOPIC
from nodes.crypto import rlp
from nodes.crypto.patricia import trie_proof
from nodes.ids import member_word

KEYS = [PrivateKey(bytes([number]) * 32) for number in range(1, 10)]
_PLACE, _NUMBER = 1, 77
_EMPTY = bytes(32)


def address(key: PrivateKey) -> bytes:
    return bytes(key.public_key.to_canonical_address())


def addresses(count: int) -> frozenset[bytes]:
    """The first keys' addresses."""
    return frozenset(address(key) for key in KEYS[:count])


def sealed(
    bundle: Bundle,
    keys: Sequence[PrivateKey],
    finality: Finality = Finality.QBFT,
    *,
    round_number: int = 0,
    company: int = 3,
    emitter: str = "",
) -> Bundle:
    """The bundle with a block that its anchor stands in. QBFT: each key seals it; clique: each one
    of the blocks from it on. `company`: how many transactions it has. `emitter`: the contract
    whose event it is, by default the one that the checkpoint names."""
    receipts = [_receipt(bundle, emitter, with_event=n == _PLACE) for n in range(company)]
    sent = [rlp.encode([b"transaction", rlp.number(n)]) for n in range(company)]
    transactions_root, of_transaction = trie_proof(sent, _PLACE)
    receipts_root, of_receipt = trie_proof(receipts, _PLACE)
    roots = transactions_root, receipts_root
    if finality is Finality.QBFT:
        headers = [_qbft(roots, keys, round_number)]
        named = keccak(_header(roots, _extra(0, []), _NUMBER, _EMPTY, ISTANBUL_DIGEST))
    else:
        headers = []
        parent = _EMPTY
        for after, key in enumerate(keys):
            headers.append(_clique(roots, key, _NUMBER + after, parent))
            parent = bytes(keccak(headers[-1]))
        named = keccak(headers[0])
    block = BlockEvidence(
        finality=finality,
        header=headers[0],
        place=_PLACE,
        transaction=of_transaction,
        receipt=of_receipt,
        following=tuple(headers[1:]),
        sealers=tuple(address(key) for key in keys),
    )
    evidence = replace(
        bundle.evidence,
        block_number=_NUMBER,
        block_hash=bytes(named),
        tx_hash=bytes(keccak(sent[_PLACE])),
        block=block,
    )
    return replace(bundle, evidence=evidence)


def _receipt(bundle: Bundle, emitter: str, *, with_event: bool) -> bytes:
    checkpoint = parse_checkpoint(parse_note(bundle.note).text)
    evidence, origin = bundle.evidence, checkpoint.origin
    topics = [
        bytes(ANCHORED_TOPIC),
        member_word(origin.member_id),
        evidence.seq.to_bytes(32, "big"),
    ]
    meta = meta_hash(bundle.note, evidence.sealed_us, evidence.totals_hash)
    data = checkpoint.size.to_bytes(32, "big") + _EMPTY + checkpoint.root + meta
    log = [bytes.fromhex((emitter or origin.anchor_registry)[2:]), topics, data]
    return rlp.encode([b"\x01", rlp.number(21_000), bytes(256), [log] if with_event else []])


def _header(
    roots: tuple[bytes, bytes], extra: bytes, number: int, parent: bytes, mix: bytes
) -> bytes:
    transactions, receipts = roots
    before = [parent, _EMPTY, bytes(20), _EMPTY, transactions, receipts, bytes(256)]
    numbers = [rlp.number(n) for n in (1, number, 30_000_000, 63_000, 1_800_000_000)]
    return rlp.encode([*before, *numbers, extra, mix, bytes(8)])


def _extra(round_number: int, seals: Sequence[bytes]) -> bytes:
    validators = [address(key) for key in KEYS[:4]]
    return rlp.encode([_EMPTY, validators, [], rlp.number(round_number), seals])


def _qbft(roots: tuple[bytes, bytes], keys: Sequence[PrivateKey], round_number: int) -> bytes:
    def made(seals: Sequence[bytes]) -> bytes:
        return _header(roots, _extra(round_number, seals), _NUMBER, _EMPTY, ISTANBUL_DIGEST)

    digest = keccak(made([]))
    return made([key.sign_msg_hash(digest).to_bytes() for key in keys])


def _clique(roots: tuple[bytes, bytes], key: PrivateKey, number: int, parent: bytes) -> bytes:
    digest = keccak(_header(roots, _EMPTY, number, parent, _EMPTY))
    seal = key.sign_msg_hash(digest).to_bytes()
    return _header(roots, _EMPTY + seal, number, parent, _EMPTY)
