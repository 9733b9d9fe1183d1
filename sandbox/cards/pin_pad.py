"""The secure module of a smart terminal on the HTTP API: gets a key, seals a PIN under it."""

from __future__ import annotations

import base64
from typing import Any

from gateway.http.pins import granted
from nodes.crypto import sm2
from nodes.crypto.hsm import SoftwareHsm

_KEY, _PAIR = "pin", "ephemeral"


class KeyRefused(Exception):
    """The gateway has not signed this key, or it isn't the one that the check value is of."""


class PinPad:
    """One session. `gateway_key`: the gateway's SM2 public key, known from enrolment."""

    def __init__(self, gateway_key: bytes) -> None:
        self._gateway_key = gateway_key
        self._private, self._public = sm2.provider().generate()
        self._session = ""
        self._hsm = SoftwareHsm({_PAIR: self._private})

    def request(self) -> dict[str, str]:
        """The body that asks for a key."""
        return {"public_key": self._public.hex()}

    def accept(self, caller: str, answer: dict[str, Any]) -> None:
        """Take the key; KeyRefused."""
        key = base64.b64decode(answer["key"])
        check = bytes.fromhex(answer["check_value"])
        text = granted(caller, answer["session"], self._public, key, check)
        signature = base64.b64decode(answer["signature"])
        if not sm2.provider().verify(self._gateway_key, text, signature):
            raise KeyRefused("the gateway's signature doesn't fit")
        self._hsm.unwrap_sm2(_PAIR, key, {_KEY: check})
        self._session = answer["session"]

    def seal(self, pin: str, pan: str) -> dict[str, str]:
        """`card.pin` of a payment."""
        block = self._hsm.seal_pin(_KEY, pin, pan)
        return {"session": self._session, "block": base64.b64encode(block).decode()}
