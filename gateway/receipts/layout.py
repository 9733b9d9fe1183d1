"""What stands where on a receipt: pure, the same for paper, PDF and picture."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.receipts import columns
from gateway.receipts.model import (
    Copy,
    Cvm,
    ReceiptContent,
    Wanted,
    check,
    cvm_of,
)
from gateway.receipts.wording import (
    COPIES,
    CVMS,
    ENTRIES,
    GIVEN_BACK,
    kind_name,
    label,
    reason_name,
)
from nodes.authorization.entry_modes import entry_mode_of
from nodes.money import Money


@dataclass(frozen=True, slots=True)
class Text:
    """A line in the middle; `large`: twice as high."""

    text: str
    bold: bool = False
    large: bool = False


@dataclass(frozen=True, slots=True)
class Pair:
    """A label and its value, at both edges."""

    label: str
    value: str
    bold: bool = False
    large: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """A line across the paper."""


@dataclass(frozen=True, slots=True)
class Space:
    """Empty lines, e.g. to sign in."""

    lines: int = 1


@dataclass(frozen=True, slots=True)
class Code:
    """The QR code of a link."""

    link: str


Part = Text | Pair | Rule | Space | Code


def compose(content: ReceiptContent, wanted: Wanted) -> list[Part]:
    """The parts of a receipt, from above. ReceiptRefused for a content that must not be printed."""
    check(content)
    parts: list[Part] = [Text(content.merchant_name, bold=True, large=True)]
    parts.append(Text(COPIES[wanted.copy][wanted.language]))
    if wanted.duplicate:
        parts.append(Text(label("duplicate", wanted.language), bold=True))
    parts += [Rule(), *_parties(content, wanted), Rule(), *_payment(content, wanted), Rule()]
    parts += [*_amounts(content, wanted), Rule(), *_numbers(content, wanted)]
    parts += [*_signature(content, wanted), *_proof(content, wanted)]
    return parts


def _parties(content: ReceiptContent, wanted: Wanted) -> list[Part]:
    rows = [
        ("store", content.store),
        ("merchant", content.merchant_id),
        ("terminal", content.terminal_id),
        ("acquirer", content.acquirer),
        ("issuer", content.issuer),
    ]
    return [Pair(label(name, wanted.language), value) for name, value in rows if value]


def _payment(content: ReceiptContent, wanted: Wanted) -> list[Part]:
    language = wanted.language
    rows = [
        ("card", content.pan_masked),
        ("entry", ENTRIES[entry_mode_of(content.entry_mode)][language]),
        ("cvm", CVMS[cvm_of(content)][language]),
    ]
    parts: list[Part] = [Text(kind_name(content.kind, language), bold=True)]
    parts += [Pair(label(name, language), value) for name, value in rows]
    if content.chip is not None:
        chip = content.chip
        rows = [
            ("application", chip.label),
            ("aid", chip.aid.upper()),
            ("atc", f"{chip.atc:04X}"),
        ]
        parts += [Pair(label(name, language), value) for name, value in rows if value]
        parts.append(Pair(chip.kind, chip.cryptogram.upper()))
    return parts


def _amounts(content: ReceiptContent, wanted: Wanted) -> list[Part]:
    language = wanted.language
    sign = "-" if content.kind in GIVEN_BACK and content.amount else ""
    money = f"{sign}{Money(content.amount, content.currency)}"
    partial = content.requested is not None and content.requested > content.amount
    parts: list[Part] = []
    if partial and content.requested is not None:
        asked = str(Money(content.requested, content.currency))
        parts.append(Pair(label("requested", language), asked))
    parts.append(Pair(label("amount", language), money, bold=True, large=True))
    if not content.approved:
        why = reason_name(content.outcome, language)
        parts.append(Text(f"{label('declined', language)}: {why}", bold=True))
    else:
        parts.append(Text(label("partial" if partial else "approved", language), bold=True))
    if content.offline:
        parts.append(Text(label("offline", language)))
    return parts


def _numbers(content: ReceiptContent, wanted: Wanted) -> list[Part]:
    rows = [
        ("time", f"{content.local_time:%Y-%m-%d %H:%M:%S}"),
        ("batch", content.batch),
        ("stan", content.stan),
        ("code", content.approval_code or ""),
        ("rrn", content.rrn),
        ("original", content.original_rrn or ""),
    ]
    return [Pair(label(name, wanted.language), value) for name, value in rows if value]


def _signature(content: ReceiptContent, wanted: Wanted) -> list[Part]:
    if wanted.copy is not Copy.MERCHANT or cvm_of(content) is not Cvm.SIGNATURE:
        return []
    signed = f"{label('signature', wanted.language)}:"
    return [Rule(), Pair(signed, ""), Space(3), Text(label("agreed", wanted.language))]


def _proof(content: ReceiptContent, wanted: Wanted) -> list[Part]:
    if content.proof_url is None:
        return [Rule(), Text(label("no_proof", wanted.language))]
    parts: list[Part] = [Rule(), Text(label("proof", wanted.language)), Code(content.proof_url)]
    if content.promised_by is not None:
        due = content.promised_by.astimezone(content.local_time.tzinfo)
        parts.append(Pair(label("promised", wanted.language), f"{due:%Y-%m-%d %H:%M}"))
    return parts


def lines_of(part: Part, wide: int) -> list[str]:
    """A part as lines of a printer's columns; a code has none."""
    match part:
        case Text(text):
            return [columns.centred(line, wide) for line in columns.wrapped(text, wide)]
        case Pair(name, value):
            return columns.paired(name, value, wide)
        case Rule():
            return ["-" * wide]
        case Space(lines):
            return [""] * lines
        case Code():
            return []
