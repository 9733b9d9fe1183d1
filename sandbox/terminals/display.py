"""What the virtual POS shows of a message: its bytes in hex and its elements, without card data."""

from __future__ import annotations

import json
from collections.abc import Set
from typing import Any

import httpx

from gateway.iso8583 import codec
from gateway.iso8583.codec import Message
from gateway.iso8583.dialect import Dialect
from gateway.iso8583.spec import Suite
from gateway.pos import framing
from nodes.crypto.offline_record import decode_record
from nodes.crypto.pan import mask

_NAMES = {
    2: "Card number",
    3: "Processing code",
    4: "Amount",
    7: "Transmitted (UTC)",
    11: "Trace number",
    12: "Local time",
    13: "Local date",
    14: "Expiry",
    22: "Entry mode",
    23: "Card sequence number",
    25: "Condition",
    26: "PIN length",
    35: "Track 2",
    37: "Retrieval reference",
    38: "Approval code",
    39: "Response code",
    41: "Terminal",
    42: "Merchant",
    49: "Currency",
    52: "PIN block",
    54: "Balances",
    55: "Chip data",
    56: "Downloaded",
    57: "Offline record",
    60: "Batch and flags",
    62: "Keys",
    63: "Totals and versions",
    64: "MAC",
}
_COVER = "•"
#: Members of a call's JSON that stand for a card or its PIN (an answer has none).
_PRIVATE = frozenset({"code", "pan", "pin", "track2", "expiry"})
#: Elements whose bytes are not shown at all.
_HIDDEN = frozenset({14, 52, 62})


def shown(frame: bytes, dialect: Dialect, suite: Suite) -> dict[str, Any]:
    """A frame as {"mti", "hex", "fields": [{"number", "name", "value"}]}, card data masked."""
    message = codec.decode(frame[framing.LENGTH_BYTES + dialect.message_start :], suite, dialect)
    return {
        "mti": message.mti,
        "hex": _hex(frame, message, dialect),
        "fields": [
            {"number": number, "name": _NAMES.get(number, ""), "value": _value(message, number)}
            for number in sorted({*message.text, *message.binary})
        ],
    }


def shown_record(record: bytes) -> dict[str, Any]:
    """A record that the terminal keeps, in the same form; `mti` is "record"."""
    read = decode_record(record)
    parts = {
        "Terminal": read.terminal_id,
        "Epoch": str(read.epoch),
        "Number": str(read.seq),
        "Hash of the record before": read.previous.hex().upper(),
        "Card key": read.card_key_id.hex().upper(),
        "Chip's counter": str(read.atc),
        "Amount": str(read.amount),
        "Currency": read.currency,
        "Nonce": read.nonce.hex().upper(),
        "Card's signature": read.signature.hex().upper(),
    }
    return {"mti": "record", "hex": record.hex().upper(), "fields": _named(parts)}


def shown_call(answer: httpx.Response) -> list[dict[str, Any]]:
    """A call of the HTTP API and its answer, in the same form: for hex the text on the wire."""
    asked = answer.request
    head = [f"{asked.method} {asked.url.raw_path.decode()} HTTP/1.1"]
    head += [
        f"{name}: {asked.headers[name]}"
        for name in ("Host", "Idempotency-Key", "JWS-Signature")
        if name in asked.headers
    ]
    return [
        _call(f"{asked.method} {asked.url.path}", head, asked.content, _PRIVATE),
        _call(str(answer.status_code), [f"HTTP/1.1 {answer.status_code}"], answer.content, set()),
    ]


def _call(name: str, head: list[str], content: bytes, private: Set[str]) -> dict[str, Any]:
    body = dict(json.loads(content or b"{}"))
    covered = {key: _COVER * 8 if key in private else value for key, value in body.items()}
    text = "\n".join([*head, "", json.dumps(covered, ensure_ascii=False)])
    return {"mti": name, "hex": text, "fields": _named(covered)}


def _named(parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "number": "",
            "name": name,
            "value": value if isinstance(value, str) else json.dumps(value),
        }
        for name, value in parts.items()
    ]


def _value(message: Message, number: int) -> str:
    if number in _HIDDEN:
        return _COVER * 8
    if number == 2:
        return mask(message.text[2])
    if number == 35:
        return f"{mask(message.text[35].partition('D')[0])}D{_COVER * 4}"
    if number in message.text:
        return message.text[number]
    raw = message.binary[number]
    # Of chip data tag 57 and 5A are card data, which terminals here send in DE35.
    return raw.hex().upper()


def _hex(frame: bytes, message: Message, dialect: Dialect) -> str:
    """The frame in hex; the digits of the card number, track, expiry and PIN are covered."""
    text = frame.hex()
    secret = [message.text[n] for n in (35, 2, 14) if n in message.text]
    for value in secret:
        for digits in _written(value):
            kept = 6 if value is not secret[-1] or len(value) > 4 else 0
            wide = len(digits) // len(value) or 1
            head = digits[: kept * wide]
            text = text.replace(digits, head + _COVER * (len(digits) - len(head)))
    for number in (52, 62):
        raw = message.binary.get(number)
        if raw:
            text = text.replace(raw.hex(), _COVER * len(raw.hex()))
            for encoded in (raw.hex().encode().hex(), raw.hex().upper().encode("cp037").hex()):
                text = text.replace(encoded, _COVER * len(encoded))
            text = text.replace(raw.hex().upper().encode().hex(), _COVER * 4 * len(raw))
    return text.upper()


def _written(value: str) -> list[str]:
    """How digits, with D or = between, can stand in a frame, as hex: BCD, ASCII, EBCDIC."""
    written = [value.lower()]
    for text in {value, value.replace("D", "=")}:
        written += [text.encode("ascii").hex(), text.encode("cp037").hex()]
    return written
