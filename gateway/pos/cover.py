"""Card data that travels covered: DE2, DE14 and DE35 inside DE62 (docs/keys.md, Cover). Pure.

The plain text is a list of values as in DE62 itself: tag (the element's number), length, value.
"""

from __future__ import annotations

import re

from gateway.iso8583.codec import Message
from gateway.terminal_keys import tlv
from nodes.crypto.hsm import CoverInvalid, Hsm

#: Elements that can be covered, and what they look like (gateway.iso8583.spec).
_ELEMENTS = {
    2: re.compile(rb"[0-9]{1,19}"),
    14: re.compile(rb"[0-9]{4}"),
    35: re.compile(rb"[0-9D]{1,37}"),
}


def associated(message: Message) -> bytes:
    """What the cover is bound to: the message's type, trace number and terminal."""
    return f"{message.mti}{message.text[11]}{message.text[41]}".encode("ascii")


def uncover(message: Message, key: str, hsm: Hsm) -> bool:
    """Put covered elements into the message, if there are any; False if they can't be read."""
    values = tlv.read(message.binary[62])
    if values is None:
        return False
    covered = values.get(tlv.COVER)
    if covered is None:
        return True
    try:
        plain = tlv.read(hsm.uncover(key, covered, associated(message)))
    except CoverInvalid:
        return False
    if not plain or not all(_fits(message, number, value) for number, value in plain.items()):
        return False
    message.text.update({number: value.decode("ascii") for number, value in plain.items()})
    return True


def _fits(message: Message, number: int, value: bytes) -> bool:
    form = _ELEMENTS.get(number)
    return form is not None and number not in message.text and form.fullmatch(value) is not None
