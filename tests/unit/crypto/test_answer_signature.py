"""The issuer's signature over (txid, C, pair_seq): one a batch; a share stands alone."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from nodes.crypto import answer_signature
from nodes.crypto.answer_signature import (
    AnswerSignatureMalformed,
    AnswerSigner,
    answer_leaf,
    decode_answer_signature,
    sign_answers,
    signed_message,
    verify_answer,
    verify_answers,
)
from nodes.crypto.merkle import root_from_inclusion

VECTORS = json.loads(
    (Path(__file__).parents[2] / "vectors" / "answer_signatures.json").read_text(encoding="ascii")
)
SIGNER = AnswerSigner(bytes.fromhex(VECTORS["seed"]))


def answers(count: int) -> list[tuple[bytes, bytes, int]]:
    return [
        (hashlib.sha256(b"t%d" % n).digest(), hashlib.sha256(b"c%d" % n).digest(), n + 1)
        for n in range(count)
    ]


def with_signatures(count: int) -> list[tuple[bytes, bytes, int, bytes]]:
    batch = answers(count)
    return [(*a, s) for a, s in zip(batch, sign_answers(SIGNER, batch), strict=True)]


def recursive_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 9162, 2.1.1, word for word, over leaf hashes."""
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    left, right = recursive_root(leaves[:k]), recursive_root(leaves[k:])
    return hashlib.sha256(b"\x01" + left + right).digest()


def recursive_path(index: int, leaves: list[bytes]) -> list[bytes]:
    """PATH of RFC 9162, 2.1.3.1, word for word, over leaf hashes."""
    if len(leaves) == 1:
        return []
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if index < k:
        return [*recursive_path(index, leaves[:k]), recursive_root(leaves[k:])]
    return [*recursive_path(index - k, leaves[k:]), recursive_root(leaves[:k])]


@pytest.mark.parametrize("batch", VECTORS["batches"], ids=lambda batch: f"{len(batch)} answers")
def test_the_vectors_are_what_this_code_signs(batch: list[dict[str, object]]) -> None:
    given_answers = [
        (
            bytes.fromhex(str(a["txid"])),
            bytes.fromhex(str(a["commitment"])),
            int(str(a["pair_seq"])),
        )
        for a in batch
    ]
    signed = [bytes.fromhex(str(a["answer_signature"])) for a in batch]
    assert SIGNER.public_key.hex() == VECTORS["public_key"]
    assert sign_answers(SIGNER, given_answers) == signed
    for answer, share in zip(given_answers, signed, strict=True):
        assert verify_answer(SIGNER.public_key, *answer, share)


@given(st.integers(1, 70))
def test_a_share_is_written_as_the_definition_says(size: int) -> None:
    batch = answers(size)
    leaves = [
        hashlib.sha256(
            b"\x00" + b"countersign/answer/1" + txid + c + seq.to_bytes(8, "big")
        ).digest()
        for txid, c, seq in batch
    ]
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(VECTORS["seed"]))
    signature = key.sign(
        b"countersign/answers/1" + recursive_root(leaves) + size.to_bytes(4, "big")
    )
    expected = [
        signature
        + index.to_bytes(2, "big")
        + size.to_bytes(2, "big")
        + b"".join(recursive_path(index, leaves))
        for index in range(size)
    ]
    assert sign_answers(SIGNER, batch) == expected


def test_a_whole_batch_costs_one_signature_and_one_check(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counting:
        calls = 0

        def sign(self, data: bytes) -> bytes:
            self.calls += 1
            return SIGNER.sign(data)

    counting, batch, checks = Counting(), answers(64), []
    shares = sign_answers(counting, batch)
    real = answer_signature._signed
    monkeypatch.setattr(
        answer_signature, "_signed", lambda *args: checks.append(args) or real(*args)
    )
    whole = [(*a, s) for a, s in zip(batch, shares, strict=True)]
    assert verify_answers(SIGNER.public_key, whole) == [True] * 64
    assert counting.calls == len(checks) == 1
    checks.clear()
    assert verify_answers(SIGNER.public_key, whole[::-1]) == [True] * 64
    assert len(checks) == 1


def test_no_answers_need_no_signature() -> None:
    assert sign_answers(SIGNER, []) == []
    assert verify_answers(SIGNER.public_key, []) == []


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_every_bit_of_a_share_counts(size: int) -> None:
    for txid, commitment, pair_seq, share in with_signatures(size):
        for bit in range(len(share) * 8):
            altered = bytearray(share)
            altered[bit // 8] ^= 1 << bit % 8
            assert not verify_answer(
                SIGNER.public_key, txid, commitment, pair_seq, bytes(altered)
            ), (size, bit)
        for length in (0, 64, len(share) - 1):
            assert not verify_answer(SIGNER.public_key, txid, commitment, pair_seq, share[:length])
        assert not verify_answer(SIGNER.public_key, txid, commitment, pair_seq, share + bytes(32))


@given(st.integers(1, 20), st.data())
def test_a_share_says_nothing_of_other_answers(size: int, data: st.DataObject) -> None:
    batch = with_signatures(size)
    txid, commitment, pair_seq, share = batch[data.draw(st.integers(0, size - 1))]
    other = bytes(32)
    assert not verify_answer(SIGNER.public_key, other, commitment, pair_seq, share)
    assert not verify_answer(SIGNER.public_key, txid, other, pair_seq, share)
    assert not verify_answer(SIGNER.public_key, txid, commitment, pair_seq + 1, share)
    assert not verify_answer(AnswerSigner(bytes(32)).public_key, txid, commitment, pair_seq, share)


def test_one_wrong_answer_of_a_batch_is_found_and_the_others_hold() -> None:
    batch = with_signatures(9)
    batch[4] = (batch[4][0], bytes(32), *batch[4][2:])
    assert verify_answers(SIGNER.public_key, batch) == [n != 4 for n in range(9)]


def test_shares_of_several_batches_may_come_together() -> None:
    mixed = [*with_signatures(3), *with_signatures(5)]
    assert verify_answers(SIGNER.public_key, mixed) == [True] * 8


def test_what_can_not_be_signed_is_named() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        sign_answers(SIGNER, [(b"short", bytes(32), 1)])
    for wrong in (-1, 2**64):
        with pytest.raises(ValueError, match="64 bits"):
            sign_answers(SIGNER, [(bytes(32), bytes(32), wrong)])
    with pytest.raises(ValueError, match="65535"):
        sign_answers(SIGNER, [(bytes(32), bytes(32), 1)] * 65536)


def test_malformed_shares_say_why() -> None:
    share = with_signatures(5)[4][3]
    with pytest.raises(AnswerSignatureMalformed, match="at least"):
        decode_answer_signature(share[:67])
    with pytest.raises(AnswerSignatureMalformed, match="no answer 5"):
        decode_answer_signature(share[:64] + b"\x00\x05\x00\x05" + share[68:])
    with pytest.raises(AnswerSignatureMalformed, match="length"):
        decode_answer_signature(share + bytes(32))
    assert decode_answer_signature(share).encode() == share
    assert len(share) == 64 + 4 + 32  # the fifth of five has one sibling


def test_no_repr_shows_the_key() -> None:
    assert VECTORS["seed"] not in repr(SIGNER)


def test_a_key_of_the_wrong_length_proves_nothing() -> None:
    txid, commitment, pair_seq, share = with_signatures(1)[0]
    assert not verify_answer(b"short", txid, commitment, pair_seq, share)


def holds_alone(txid: bytes, commitment: bytes, pair_seq: int, share: bytes) -> bool:
    """A share by itself, by RFC 9162's own algorithm for an inclusion proof."""
    try:
        part = decode_answer_signature(share)
    except AnswerSignatureMalformed:
        return False
    path = [part.path[at : at + 32] for at in range(0, len(part.path), 32)]
    leaf = answer_leaf(txid, commitment, pair_seq)
    root = root_from_inclusion(part.index, part.size, leaf, path)
    if root is None:
        return False
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(VECTORS["seed"])).public_key()
    try:
        key.verify(part.signature, signed_message(root, part.size))
    except InvalidSignature:
        return False
    return True


@given(st.integers(2, 40), st.data())
def test_parts_of_a_batch_are_judged_as_each_share_would_be_alone(
    size: int, data: st.DataObject
) -> None:
    """Nodes that several paths share are hashed once: that must not let a wrong share through."""
    batch = with_signatures(size)
    taken = data.draw(st.lists(st.sampled_from(range(size)), min_size=1, max_size=size))
    shares = []
    for place in taken:
        txid, commitment, pair_seq, share = batch[place]
        if data.draw(st.booleans()):
            at = data.draw(st.integers(0, len(share) - 1))
            bit = 1 << data.draw(st.integers(0, 7))
            share = share[:at] + bytes([share[at] ^ bit]) + share[at + 1 :]
        elif data.draw(st.integers(0, 3)) == 0:
            pair_seq += 1
        shares.append((txid, commitment, pair_seq, share))
    alone = [holds_alone(*share) for share in shares]
    assert verify_answers(SIGNER.public_key, shares) == alone


def test_a_part_of_a_batch_costs_one_check_and_no_hash_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch = with_signatures(64)
    hashed: list[bytes] = []
    checks: list[object] = []
    real = answer_signature._signed

    def counting(data: bytes) -> Any:
        hashed.append(data)
        return hashlib.sha256(data)

    monkeypatch.setattr(answer_signature, "sha256", counting)
    monkeypatch.setattr(
        answer_signature, "_signed", lambda *args: checks.append(args) or real(*args)
    )
    assert verify_answers(SIGNER.public_key, batch[:48]) == [True] * 48
    assert len(checks) == 1
    assert len(hashed) == len(set(hashed)) <= 2 * 48
