"""DE55: what a chip and its terminal say of one transaction (EMV 4.3 Book 3, Annex A)."""

from __future__ import annotations

from enum import IntEnum

import msgspec

from nodes.emv import tlv
from nodes.emv.tlv import TlvMalformed

#: What the cryptogram covers, in order: the recommended minimum set (EMV 4.3 Book 2, 8.1.1, table
#: 26) and the issuer application data, so that the card's own verification results are covered.
COVERED = ("9F02", "9F03", "9F1A", "95", "5F2A", "9A", "9C", "9F37", "82", "9F36", "9F10")
_LENGTHS = {
    "9F02": 6,  # amount authorised
    "9F03": 6,  # amount other
    "9F1A": 2,  # terminal country
    "95": 5,  # terminal verification results
    "5F2A": 2,  # transaction currency
    "9A": 3,  # transaction date
    "9C": 1,  # transaction type
    "9F37": 4,  # unpredictable number
    "82": 2,  # application interchange profile
    "9F36": 2,  # application transaction counter
    "9F26": 8,  # the cryptogram
    "9F27": 1,  # cryptogram information data
}
#: Numeric (BCD) elements.
_NUMERIC = ("9F02", "9F03", "9F1A", "5F2A", "9A", "9C")
_MAX_ISSUER_DATA = 32
_CVM_RESULTS, _CVM_LENGTH = "9F34", 3
_SCRIPT_RESULTS, _SCRIPT_RESULT_LENGTH = "9F5B", 5


class ChipDataMalformed(ValueError):
    """DE55 can't be used; `element` names the tag, where one is to blame."""

    def __init__(self, why: str, element: str = "") -> None:
        super().__init__(why)
        self.why = why
        self.element = element


class CryptogramType(IntEnum):
    """Bits 8 and 7 of the cryptogram information data (EMV 4.3 Book 3, 6.5.5.4)."""

    AAC = 0  # declined by the card
    TC = 1  # approved offline
    ARQC = 2  # to be decided online


class ScriptResult(msgspec.Struct, frozen=True):
    """What became of an issuer script (EMV 4.3 Book 4, A5): its identifier, and if it worked."""

    script_id: bytes  # 4 bytes, tag 9F18 of the script
    done: bool


class ChipData(msgspec.Struct, frozen=True):
    """One transaction's chip data. Amounts in minor units; codes as ISO numeric text."""

    cryptogram: bytes
    kind: CryptogramType
    atc: int
    unpredictable: bytes
    amount: int
    currency: str  # three digits
    day: str  # YYMMDD, of the terminal
    tvr: bytes
    #: The bytes that the cryptogram covers.
    covered: bytes
    #: Tag 9F34, 3 bytes; empty where the terminal didn't send it.
    cvm_results: bytes = b""
    scripts: tuple[ScriptResult, ...] = ()

    @property
    def signed_for(self) -> bool:
        """Whether the cardholder verified himself by signature."""
        return signed_for(self.cvm_results)


class ChipSlip(msgspec.Struct, frozen=True):
    """What a receipt tells of a chip: nothing that is a secret or names the holder."""

    aid: bytes  # 5 to 16 bytes; empty where the terminal didn't send it
    label: str
    kind: CryptogramType
    cryptogram: bytes
    atc: int
    cvm_results: bytes


def slip(icc: bytes) -> ChipSlip | None:
    """Of DE55 what a receipt prints; None if it can't be read. Whether it is right, its issuer
    says."""
    try:
        found = tlv.unique(tlv.decode(icc))
    except TlvMalformed:
        return None
    cryptogram, counter = found.get("9F26", b""), found.get("9F36", b"")
    information = found.get("9F27", b"")
    if (len(cryptogram), len(counter), len(information)) != (8, 2, 1):
        return None
    if information[0] >> 6 > CryptogramType.ARQC:
        return None
    aid = found.get("84") or found.get("9F06") or b""
    label = found.get("50", b"").decode("ascii", errors="replace")
    cvm = found.get(_CVM_RESULTS, b"")
    return ChipSlip(
        aid=aid if 5 <= len(aid) <= 16 else b"",
        label=label if label.isprintable() and len(label) <= 16 and label.isascii() else "",
        kind=CryptogramType(information[0] >> 6),
        cryptogram=cryptogram,
        atc=int.from_bytes(counter, "big"),
        cvm_results=cvm if len(cvm) == _CVM_LENGTH else b"",
    )


def amount_of(covered: bytes) -> int:
    """The amount (minor units) among the bytes that a cryptogram covers, as parse has read them."""
    return int(covered[: _LENGTHS[COVERED[0]]].hex())


def signed_for(cvm_results: bytes) -> bool:
    """Whether tag 9F34 says that the cardholder has signed (EMV 4.3 Book 3, annex C3)."""
    return cvm_results[:1] in (b"\x1e", b"\x5e")


def parse(icc: bytes) -> ChipData:
    """Read DE55 of a request; ChipDataMalformed says what is missing or wrong.

    Unknown tags are let pass: schemes and terminals add their own.
    """
    try:
        found = tlv.unique(tlv.decode(icc))
    except TlvMalformed as error:
        raise ChipDataMalformed(str(error)) from None
    for tag, length in _LENGTHS.items():
        value = found.get(tag)
        if value is None:
            raise ChipDataMalformed(f"tag {tag} is missing", tag)
        if len(value) != length:
            raise ChipDataMalformed(f"tag {tag} is not {length} bytes", tag)
    for tag in _NUMERIC:
        if not found[tag].hex().isdecimal():
            raise ChipDataMalformed(f"tag {tag} is not numeric", tag)
    issuer_data = found.get("9F10")
    if issuer_data is None or not 1 <= len(issuer_data) <= _MAX_ISSUER_DATA:
        raise ChipDataMalformed("tag 9F10 is missing or too long", "9F10")
    kind = found["9F27"][0] >> 6
    if kind > CryptogramType.ARQC:
        raise ChipDataMalformed("tag 9F27 names no cryptogram type", "9F27")
    cvm = found.get(_CVM_RESULTS, b"")
    if cvm and len(cvm) != _CVM_LENGTH:
        raise ChipDataMalformed(f"tag {_CVM_RESULTS} is not {_CVM_LENGTH} bytes", _CVM_RESULTS)
    return ChipData(
        cryptogram=found["9F26"],
        kind=CryptogramType(kind),
        atc=int.from_bytes(found["9F36"], "big"),
        unpredictable=found["9F37"],
        amount=int(found["9F02"].hex()),
        currency=found["5F2A"].hex()[1:],
        day=found["9A"].hex(),
        tvr=found["95"],
        covered=b"".join([found[tag] for tag in COVERED]),
        cvm_results=cvm,
        scripts=_script_results(found.get(_SCRIPT_RESULTS, b"")),
    )


def _script_results(raw: bytes) -> tuple[ScriptResult, ...]:
    if len(raw) % _SCRIPT_RESULT_LENGTH:
        raise ChipDataMalformed(f"tag {_SCRIPT_RESULTS} is cut off", _SCRIPT_RESULTS)
    starts = range(0, len(raw), _SCRIPT_RESULT_LENGTH)
    return tuple(ScriptResult(raw[at + 1 : at + 5], raw[at] >> 4 == 2) for at in starts)
