"""What a receipt says. Pure data; amounts in minor units, moments with their zone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from nodes.money import CURRENCIES


class Copy(StrEnum):
    """Whose paper it is."""

    MERCHANT = "merchant"
    CUSTOMER = "customer"


class Language(StrEnum):
    """The language of the labels."""

    ENGLISH = "en"
    CHINESE = "zh"


class Cvm(StrEnum):
    """How the holder was verified."""

    PIN = "pin"
    SIGNATURE = "signature"
    NONE = "none"


class Chip(msgspec.Struct, frozen=True, kw_only=True):
    """What the chip said: `cryptogram` and `aid` in hex; `kind`: ARQC (online) or TC (offline)."""

    aid: str
    label: str = ""
    kind: str = "ARQC"
    cryptogram: str
    atc: int


class ReceiptContent(msgspec.Struct, frozen=True, kw_only=True):
    """One transaction as its receipt shows it: what `POST /v1/transactions/{txid}/receipt` answers.

    `entry_mode`: DE22. `cvm`: None where only DE22 tells of it. `amount`: approved. `proof_url`:
    the promise's link, None where the node promises nothing.
    """

    txid: str
    kind: str
    approved: bool
    outcome: str
    amount: int
    currency: str
    merchant_id: str
    merchant_name: str
    terminal_id: str
    acquirer: str
    issuer: str
    pan_masked: str
    entry_mode: str
    batch: str
    stan: str
    rrn: str
    local_time: datetime
    store: str = ""
    approval_code: str | None = None
    cvm: Cvm | None = None
    chip: Chip | None = None
    requested: int | None = None
    original_rrn: str | None = None
    offline: bool = False
    proof_url: str | None = None
    promised_by: datetime | None = None


class ReceiptRefused(ValueError):
    """A receipt that must not, or can't, be printed; says why, without the card number."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """How it is to be printed. `width_mm`: of the paper, 58 or 80."""

    copy: Copy = Copy.CUSTOMER
    language: Language = Language.CHINESE
    width_mm: int = 58
    duplicate: bool = False

    def __post_init__(self) -> None:
        if self.width_mm not in COLUMNS:
            raise ReceiptRefused("paper is 58 or 80 mm wide")

    @property
    def columns(self) -> int:
        """Characters a line of a printer's font A; a Chinese character takes two."""
        return COLUMNS[self.width_mm]

    @property
    def dots(self) -> int:
        """Dots a line at 8 dots a millimetre."""
        return DOTS[self.width_mm]


COLUMNS = {58: 32, 80: 48}
DOTS = {58: 384, 80: 576}

_MASKED = re.compile(r"[0-9]{0,6}\*{3,13}[0-9]{0,4}\Z")


def cvm_of(content: ReceiptContent) -> Cvm:
    """How the holder was verified: as the terminal said, else as DE22 does (third digit: PIN)."""
    if content.cvm is not None:
        return content.cvm
    return Cvm.PIN if content.entry_mode[2:3] == "1" else Cvm.NONE


def content_of(document: Any) -> ReceiptContent:
    """The content of a node's answer. ReceiptRefused if it is none, or shows a card number."""
    try:
        content = msgspec.convert(document, ReceiptContent, strict=False)
    except msgspec.ValidationError as error:
        raise ReceiptRefused(f"not a receipt's content: {error}") from None
    check(content)
    return content


def check(content: ReceiptContent) -> None:
    """ReceiptRefused unless the card number is masked, the currency known, the time in a zone."""
    if not _MASKED.match(content.pan_masked):
        raise ReceiptRefused("the card number must be masked but for 6 and 4 digits")
    if content.currency not in CURRENCIES:
        raise ReceiptRefused("the currency is none that the network knows")
    if content.local_time.tzinfo is None:
        raise ReceiptRefused("the local time must have its zone")
