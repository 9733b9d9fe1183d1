"""The record of an offline payment: its bytes, its hash chain, the card's signature. Pure.

A record is what DE57 of a 0220 carries (docs/offline.md), 147 bytes, numbers big-endian:

    version 1 | terminal 8 | epoch 4 | seq 4 | hash of the previous record 32 | card key id 8
    | ATC 2 | amount 6 | currency 3 | terminal's nonce 8 | moment 6 (ms since 1970, UTC) | suite 1
    | signature 64 (r and s, 32 each)

The card signs terminal, currency, amount, ATC, nonce and its key's id, so that no other payment
can be made of its signature. A record's hash is SHA-256 over all of its bytes; the first one of an
epoch (seq 1) has 32 zero bytes as the previous hash. Suites: 1 is ECDSA over P-256 with SHA-256
(FIPS 186-5), its public keys in X9.62 uncompressed form (65 bytes).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

RECORD_LENGTH = 147
NONCE_LENGTH = 8
KEY_ID_LENGTH = 8
FIRST_PREVIOUS = bytes(32)
SUITE_P256 = 1
_VERSION = 1
_CONTEXT = b"countersign/offline/1"
_LAYOUT = struct.Struct(">B8sII32s8sH6s3s8s6sB64s")


class RecordMalformed(ValueError):
    """Bytes that are no record; says which part is wrong, never its value."""


class OfflineRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One offline payment as terminal and card made it. Amount in minor units."""

    terminal_id: str
    epoch: int
    seq: int  # from 1
    previous: bytes  # 32 bytes
    card_key_id: bytes  # 8 bytes
    atc: int
    amount: int
    currency: str
    nonce: bytes  # 8 bytes
    at_ms: int
    suite: int = SUITE_P256
    signature: bytes  # 64 bytes

    @property
    def signed(self) -> bytes:
        """What the card has signed."""
        return card_message(
            self.terminal_id, self.currency, self.amount, self.atc, self.nonce, self.card_key_id
        )

    @property
    def hash(self) -> bytes:
        """SHA-256 of the record (32 bytes): the next record's `previous`."""
        return hashlib.sha256(encode_record(self)).digest()


def card_message(
    terminal_id: str, currency: str, amount: int, atc: int, nonce: bytes, card_key_id: bytes
) -> bytes:
    """The bytes under a card's signature. ValueError, struct.error: a part doesn't fit."""
    if len(nonce) != NONCE_LENGTH or len(card_key_id) != KEY_ID_LENGTH:
        raise ValueError("nonce and key id are 8 bytes each")
    return b"".join(
        (
            _CONTEXT,
            _ascii(terminal_id, 8),
            _ascii(currency, 3),
            amount.to_bytes(6, "big"),
            struct.pack(">H", atc),
            nonce,
            card_key_id,
        )
    )


def key_id_of(public_key: bytes) -> bytes:
    """The name of a card's key: the first 8 bytes of SHA-256 of the public key."""
    return hashlib.sha256(public_key).digest()[:KEY_ID_LENGTH]


def encode_record(record: OfflineRecord) -> bytes:
    """The 147 bytes of a record. RecordMalformed if a part doesn't fit its place."""
    try:
        return _LAYOUT.pack(
            _VERSION,
            _ascii(record.terminal_id, 8),
            record.epoch,
            record.seq,
            _exactly(record.previous, 32, "previous"),
            _exactly(record.card_key_id, KEY_ID_LENGTH, "card_key_id"),
            record.atc,
            record.amount.to_bytes(6, "big"),
            _ascii(record.currency, 3),
            _exactly(record.nonce, NONCE_LENGTH, "nonce"),
            record.at_ms.to_bytes(6, "big"),
            record.suite,
            _exactly(record.signature, 64, "signature"),
        )
    except (struct.error, OverflowError):
        raise RecordMalformed("a number doesn't fit its place") from None


def decode_record(data: bytes) -> OfflineRecord:
    """A record of its bytes. RecordMalformed names what is wrong."""
    if len(data) != RECORD_LENGTH:
        raise RecordMalformed(f"a record has {RECORD_LENGTH} bytes, this has {len(data)}")
    (version, terminal, epoch, seq, previous, key_id, atc, amount, currency, nonce, moment, suite,
     signature) = _LAYOUT.unpack(data)  # fmt: skip
    if version != _VERSION:
        raise RecordMalformed("version")
    if suite != SUITE_P256:
        raise RecordMalformed("suite")
    if seq < 1 or (seq == 1) != (previous == FIRST_PREVIOUS):
        raise RecordMalformed("seq or previous")
    try:
        texts = terminal.decode("ascii"), currency.decode("ascii")
    except UnicodeDecodeError:
        raise RecordMalformed("terminal_id or currency") from None
    if not all(text.isprintable() for text in texts):
        raise RecordMalformed("terminal_id or currency")
    return OfflineRecord(
        terminal_id=texts[0],
        epoch=epoch,
        seq=seq,
        previous=previous,
        card_key_id=key_id,
        atc=atc,
        amount=int.from_bytes(amount, "big"),
        currency=texts[1],
        nonce=nonce,
        at_ms=int.from_bytes(moment, "big"),
        suite=suite,
        signature=signature,
    )


def is_genuine(record: OfflineRecord, public_key: bytes) -> bool:
    """Whether the card of this public key has signed the record. Never raises."""
    if key_id_of(public_key) != record.card_key_id:
        return False
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public_key)
        r, s = record.signature[:32], record.signature[32:]
        encoded = encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
        key.verify(encoded, record.signed, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError, struct.error, OverflowError):
        return False
    return True


def is_public_key(public_key: bytes) -> bool:
    """Whether these bytes are a point of P-256 in uncompressed form."""
    if len(public_key) != 65:
        return False
    try:
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public_key)
    except ValueError:
        return False
    return True


# --- what card and terminal do (emulation and simulator) -----------------------------------------


def sign_as_card(private_key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    """A card's signature (r and s, 64 bytes) over card_message(...)."""
    r, s = decode_dss_signature(private_key.sign(message, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def public_key_of(private_key: ec.EllipticCurvePrivateKey) -> bytes:
    """The public key as issuers register it (65 bytes)."""
    numbers = private_key.public_key().public_numbers()
    return b"\x04" + numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")


class RecordChain:
    """A terminal's records of one epoch, in order: seq from 1, each with the hash of the last."""

    def __init__(self, terminal_id: str, epoch: int) -> None:
        self.terminal_id = terminal_id
        self.epoch = epoch
        self.seq = 0
        self.last_hash = FIRST_PREVIOUS

    def append(
        self,
        *,
        card_key_id: bytes,
        atc: int,
        amount: int,
        currency: str,
        nonce: bytes,
        at_ms: int,
        sign: Callable[[bytes], bytes],
    ) -> bytes:
        """The next record's bytes (DE57). `sign`: the card's signature over what it is given."""
        message = card_message(self.terminal_id, currency, amount, atc, nonce, card_key_id)
        record = OfflineRecord(
            terminal_id=self.terminal_id,
            epoch=self.epoch,
            seq=self.seq + 1,
            previous=self.last_hash,
            card_key_id=card_key_id,
            atc=atc,
            amount=amount,
            currency=currency,
            nonce=nonce,
            at_ms=at_ms,
            signature=sign(message),
        )
        data = encode_record(record)
        self.seq, self.last_hash = record.seq, record.hash
        return data


def _ascii(text: str, length: int) -> bytes:
    data = text.encode("ascii", errors="replace")
    if len(data) != length:
        raise RecordMalformed(f"a text has {len(data)} characters in place of {length}")
    return data


def _exactly(data: bytes, length: int, name: str) -> bytes:
    if len(data) != length:
        raise RecordMalformed(f"{name} is not {length} bytes")
    return data
