"""docs/http-api.md against the code: its examples are taken, its table of errors is complete."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec

from gateway.http.bodies import (
    OrderBody,
    OrderPaymentBody,
    PaymentBody,
    PinBody,
    PinKeyBody,
)
from gateway.http.signatures import Claims
from nodes.crypto import sm2
from nodes.crypto.pan import is_valid_pan
from nodes.emv.qr import decode_consumer

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "http-api.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"```json ([a-z]+)\n(.*?)```", TEXT, re.DOTALL))
OF = {
    "payment": PaymentBody,
    "order": OrderBody,
    "protected": Claims,
    "wallet": OrderPaymentBody,
    "pinkey": PinKeyBody,
    "pin": PinBody,
}


def test_each_example_is_taken() -> None:
    assert EXAMPLES.keys() == OF.keys()
    for name, text in EXAMPLES.items():
        msgspec.json.decode(text, type=OF[name])
    sm2.check_public(bytes.fromhex(json.loads(EXAMPLES["pinkey"])["public_key"]))
    card = json.loads(EXAMPLES["payment"])["card"]
    assert is_valid_pan(card["pan"])
    code = decode_consumer(json.loads(EXAMPLES["wallet"])["code"])
    assert len(code.number) >= 13


def test_every_error_is_documented() -> None:
    kinds: set[str] = set()
    for source in (ROOT / "gateway" / "http").glob("*.py"):
        text = source.read_text(encoding="utf-8")
        kinds |= set(re.findall(r'ApiProblem\(\s*[0-9]+,\s*"([a-z-]+)"', text))
        kinds |= set(re.findall(r'refused\(\s*"([a-z-]+)"', text))
    assert len(kinds) > 25
    known = {"internal"}  # a defect
    assert sorted(kind for kind in kinds - known if f"`{kind}`" not in TEXT) == []
