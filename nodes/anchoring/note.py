"""C2SP signed notes (c2sp.org/signed-note) with one Ed25519 signature (type 0x01).

A note is a text that ends in a newline, an empty line and the signature line
`— <key name> <base64(key id || signature)>`. The specification lets a reader ignore signatures
of unknown keys; here a note has exactly one signature, so that every byte of it counts.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_ED25519 = b"\x01"
_DASH = "\u2014 "


class NoteInvalid(ValueError):
    """The bytes are no note of the one canonical form."""


@dataclass(frozen=True, slots=True)
class SignedNote:
    """A parsed note; its signature is not checked yet."""

    text: str
    key_name: str
    key_id: bytes  # 4 bytes
    signature: bytes  # 64 bytes

    def encode(self) -> str:
        """The note as it is stored and sent."""
        blob = base64.b64encode(self.key_id + self.signature).decode()
        return f"{self.text}\n{_DASH}{self.key_name} {blob}\n"


def key_id(key_name: str, public_key: bytes) -> bytes:
    """SHA-256(name || 0x0A || 0x01 || public key), first four bytes (signed-note, Ed25519)."""
    return hashlib.sha256(key_name.encode() + b"\n" + _ED25519 + public_key).digest()[:4]


class NoteSigner:
    """Signs notes with a member's Ed25519 note key, which no repr shows."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public_key = self._key.public_key().public_bytes_raw()

    def sign(self, key_name: str, text: str) -> SignedNote:
        """The note over `text`, which must end in a newline."""
        if not text.endswith("\n"):
            raise NoteInvalid("a note's text ends in a newline")
        if not _good_name(key_name):
            raise NoteInvalid("a key name has neither spaces nor plus signs")
        identity = key_id(key_name, self.public_key)
        return SignedNote(text, key_name, identity, self._key.sign(text.encode()))

    def __repr__(self) -> str:
        return f"NoteSigner({self.public_key.hex()})"


def parse_note(raw: str) -> SignedNote:
    """Read a note. NoteInvalid unless encoding it again gives the same characters."""
    text, separator, line = raw.rpartition("\n\n")
    if not separator or not line.startswith(_DASH) or not line.endswith("\n"):
        raise NoteInvalid("a note is a text, an empty line and one signature line")
    name, space, encoded = line[len(_DASH) : -1].partition(" ")
    if not space or not _good_name(name):
        raise NoteInvalid("a signature line has a key name and a signature")
    try:
        blob = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise NoteInvalid("the signature is not base64") from None
    if len(blob) != 68:
        raise NoteInvalid("an Ed25519 signature line has 68 bytes")
    note = SignedNote(text + "\n", name, blob[:4], blob[4:])
    if note.encode() != raw or any(ord(c) < 32 and c != "\n" for c in raw):
        raise NoteInvalid("not the canonical form of a note")
    return note


def signature_holds(note: SignedNote, public_key: bytes) -> bool:
    """Whether the note was signed by that Ed25519 key under the name that it states."""
    if note.key_id != key_id(note.key_name, public_key):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(note.signature, note.text.encode())
    except (InvalidSignature, ValueError):
        return False
    return True


def _good_name(name: str) -> bool:
    return bool(name) and "+" not in name and not any(c.isspace() or ord(c) < 32 for c in name)
