"""Signed notes and checkpoints: their one form, and that a signature covers it."""

import base64

import pytest

from nodes.anchoring.checkpoint import (
    Checkpoint,
    CheckpointInvalid,
    Origin,
    Totals,
    meta_hash,
    parse_checkpoint,
    totals_hash,
)
from nodes.anchoring.note import (
    NoteInvalid,
    NoteSigner,
    SignedNote,
    key_id,
    parse_note,
    signature_holds,
)

SIGNER = NoteSigner(b"s" * 32)
ORIGIN = Origin(31337, "0x" + "ab" * 20, "aurora")
CHECKPOINT = Checkpoint(ORIGIN, 12, b"r" * 32)
NOTE = SIGNER.sign(str(ORIGIN), CHECKPOINT.text())

# The signed note of golang.org/x/mod/sumdb/note's documentation: an independent implementation.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1F"
    "FYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)


def test_a_note_that_go_signed_verifies() -> None:
    name, hashed, encoded = GO_KEY.split("+")
    public = base64.b64decode(encoded)[1:]
    note = parse_note(GO_NOTE)
    assert (note.key_name, note.key_id.hex()) == (name, hashed)
    assert key_id(name, public).hex() == hashed
    assert signature_holds(note, public)
    assert not signature_holds(note, SIGNER.public_key)


def test_a_note_is_read_as_it_was_signed() -> None:
    raw = NOTE.encode()
    assert parse_note(raw) == NOTE
    assert signature_holds(NOTE, SIGNER.public_key)
    assert parse_checkpoint(parse_note(raw).text) == CHECKPOINT
    assert raw.split("\n")[:3] == [
        f"countersign/31337/0x{'ab' * 20}/aurora",
        "12",
        base64.b64encode(b"r" * 32).decode(),
    ]


def test_another_text_name_or_key_is_not_signed() -> None:
    for other in (
        SignedNote(CHECKPOINT.text().replace("12", "13"), *_parts(NOTE)),
        SignedNote(NOTE.text, "somebody", NOTE.key_id, NOTE.signature),
        SignedNote(NOTE.text, NOTE.key_name, bytes(4), NOTE.signature),
        SignedNote(NOTE.text, NOTE.key_name, NOTE.key_id, bytes(64)),
    ):
        assert not signature_holds(other, SIGNER.public_key)
    assert not signature_holds(NOTE, NoteSigner(b"o" * 32).public_key)
    assert not signature_holds(NOTE, b"no key")


def _parts(note: SignedNote) -> tuple[str, bytes, bytes]:
    return note.key_name, note.key_id, note.signature


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[:-1],
        lambda raw: raw + "\n",
        lambda raw: raw.replace("\n\n", "\n"),
        lambda raw: raw.replace("\u2014 ", "- "),
        lambda raw: raw.replace("\u2014 ", "\u2014  "),
        lambda raw: raw + raw.split("\n\n")[1],
        lambda raw: raw[:-3] + "!\n",
        lambda raw: raw[:-5] + "\n",
        lambda raw: raw.replace("aurora\n", "aurora\r\n"),
        lambda raw: raw[:-2] + chr(ord(raw[-2]) + 1) + "\n",
        lambda raw: "",
    ],
)
def test_any_other_form_of_a_note_is_refused(damage) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(NoteInvalid):
        parse_note(damage(NOTE.encode()))


@pytest.mark.parametrize(
    ("name", "text"), [("a b", "t\n"), ("a+b", "t\n"), ("", "t\n"), ("a", "t")]
)
def test_what_no_note_can_hold_is_not_signed(name: str, text: str) -> None:
    with pytest.raises(NoteInvalid):
        SIGNER.sign(name, text)


def test_no_repr_shows_the_key() -> None:
    assert (b"s" * 32).hex() not in repr(SIGNER)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a\nb\nc\n",
        CHECKPOINT.text() + "extension\n",
        CHECKPOINT.text()[:-1],
        CHECKPOINT.text().replace("\n12\n", "\n012\n"),
        CHECKPOINT.text().replace("\n12\n", "\n-12\n"),
        CHECKPOINT.text().replace("31337", "031337"),
        CHECKPOINT.text().replace("0xab", "0xAB"),
        CHECKPOINT.text().replace("aurora", "Aurora"),
        CHECKPOINT.text().replace("=", ""),
        CHECKPOINT.text().replace("=", "=="),
    ],
)
def test_any_other_form_of_a_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(CheckpointInvalid):
        parse_checkpoint(text)


def test_the_meta_hash_binds_note_moment_and_totals() -> None:
    totals = [Totals("CNY", 3, 4500, 1), Totals("USD", 1, 10, 0)]
    whole = meta_hash(NOTE.encode(), 1_000_000, totals_hash(totals))
    assert whole == meta_hash(NOTE.encode(), 1_000_000, totals_hash(reversed(totals)))
    others = {
        meta_hash(NOTE.encode() + " ", 1_000_000, totals_hash(totals)),
        meta_hash(NOTE.encode(), 1_000_001, totals_hash(totals)),
        meta_hash(NOTE.encode(), 1_000_000, totals_hash(totals[:1])),
        meta_hash(NOTE.encode(), 1_000_000, totals_hash([Totals("CNY", 3, 4501, 1), totals[1]])),
    }
    assert whole not in others
    assert len(others) == 4
