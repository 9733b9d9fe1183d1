"""Card data in logs: as text, packed, in hexadecimal and in base64, wherever in a line."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path

from sandbox.campaigns.fuzz_frames import Planted


def forms_of(planted: Planted) -> dict[bytes, str]:
    """What to look for, and what it is."""
    forms: dict[bytes, str] = {}
    for kind, texts in (("PAN", planted.pans), ("track 2", planted.tracks), ("PIN", planted.pins)):
        for text in texts:
            for form in _of_text(text):
                forms[form] = kind
    for block in planted.blocks:
        for form in _of_bytes(block):
            forms[form] = "PIN block"
    return forms


def _of_text(text: str) -> Iterable[bytes]:
    plain = text.encode()
    yield from _of_bytes(plain)
    digits = text.replace("D", "d")
    # Packed, from either nibble on; what it is in hexadecimal is the text itself.
    for shifted in (digits, "0" + digits):
        packed = bytes.fromhex(shifted[: len(shifted) // 2 * 2])
        yield packed[1:] if shifted is not digits else packed
        yield from _base64(packed)
    yield digits.encode()
    yield plain.replace(b"D", b"=")
    # Digits in EBCDIC.
    yield text.encode("cp037")


def _of_bytes(raw: bytes) -> Iterable[bytes]:
    yield raw
    yield raw.hex().encode()
    yield raw.hex().upper().encode()
    yield repr(raw)[2:-1].encode()
    yield from _base64(raw)


def _base64(raw: bytes) -> Iterable[bytes]:
    """What any base64 text that holds these bytes has in it, at each of three places."""
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + raw)
        whole = encoded[4 if before else 0 : len(encoded) - 4]
        yield whole
        yield whole.translate(bytes.maketrans(b"+/", b"-_"))


def traces(logs: Iterable[Path], planted: Planted) -> list[str]:
    """What stands in which log, without showing it."""
    forms = {form: kind for form, kind in forms_of(planted).items() if len(form) >= 6}
    by_length: dict[int, dict[bytes, str]] = {}
    for form, kind in forms.items():
        by_length.setdefault(len(form), {})[form] = kind
    found = []
    for path in logs:
        content = path.read_bytes()
        for length, wanted in by_length.items():
            # All windows of this length at once, instead of each form by itself.
            windows = {content[n : n + length] for n in range(len(content) - length + 1)}
            found += [f"{path.name}: {wanted[form]}" for form in wanted.keys() & windows]
    return found
