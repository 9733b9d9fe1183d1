"""A terminal's message to an authorization request, and a decision back to a message. Pure.

What a request must carry stands in ROUTES; the same table is printed in docs/iso8583.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache

from gateway.iso8583.codec import Message
from gateway.iso8583.mask import passes_luhn
from gateway.pos import entry
from gateway.pos.response_codes import APPROVED, CODE_OF_OUTCOME, PARTIALLY_APPROVED, Refusal
from gateway.terminal_keys.ring import ZONE_KEY
from nodes import money
from nodes.authorization.model import Kind, TerminalAnswer, TerminalRequest
from nodes.authorization.services import Service
from nodes.crypto.hsm import Hsm, PinBlockInvalid

#: Name of the HSM key under which card data enters a fingerprint.
FINGERPRINT_KEY = "fingerprint"
#: What that key is derived by from the gateway's master key.
FINGERPRINT_LABEL = b"countersign/fingerprint/1"

#: Elements that make the content of a request beside card data; 7, 53, 62 and 64 may differ in a
#: repeat.
_FINGERPRINTED = (3, 4, 11, 12, 13, 22, 23, 25, 26, 32, 37, 41, 42, 49, 60)
_ABSENT = ("",) * len(_FINGERPRINTED)

#: DE25 of an order over the network (ISO 8583:1987, POS condition code); others are at the counter.
_CHANNEL_OF_CONDITION = {"59": "ecommerce"}
#: DE60: six digits of the batch number, then perhaps two flags: whether the terminal can do with a
#: part of the amount, and whether further completions of the same authorization will follow.
_BATCH_DIGITS = 6
_FLAGS = {"00": (False, False), "01": (False, True), "10": (True, False), "11": (True, True)}
_MS_A_DAY = 86_400_000


class Refused(Exception):
    """The gateway refuses the message by itself; `element` says because of which one."""

    def __init__(self, refusal: Refusal, element: int = 0) -> None:
        super().__init__(f"{refusal.value} (element {element})")
        self.refusal = refusal
        self.element = element


@dataclass(frozen=True, slots=True)
class Route:
    """A message that this gateway serves; without kind and service: network management."""

    kind: Kind | None
    required: frozenset[int]
    #: Whether PAN (2 or 35) and expiry (14 or 35) must be there.
    card: bool = False
    expiry: bool = False
    #: Whether DE37 names an original, which the node is told; elsewhere DE37 is nothing to it.
    follow_up: bool = False
    #: Whether the flags of DE60 mean something here: partial approval, several completions.
    partial: bool = False
    several: bool = False
    #: An authorization that was given already: what is there is held.
    advice: bool = False
    #: What else is asked of the acquirer's node (gateway/pos/services.py).
    service: Service | None = None


_FINANCIAL = frozenset({3, 4, 11, 12, 13, 22, 41, 42, 49, 60})
_FOLLOW_UP = _FINANCIAL | {37}
SIGN_ON = Route(None, frozenset({3, 11, 41, 42, 62}))
ECHO = Route(None, frozenset({3, 11, 41, 42}))
_REVERSAL = Route(Kind.REVERSAL, _FINANCIAL, card=True)
_VOID = Route(Kind.VOID, _FOLLOW_UP, card=True, follow_up=True)
_UPLOAD = Route(None, _FINANCIAL | {63}, service=Service.BATCH_UPLOAD)

#: The transition table of the POS link: what a terminal may send, and what it must carry then. By
#: MTI, then by DE3, or by DE3/DE25 where the condition code tells two messages apart.
ROUTES: Mapping[str, Mapping[str, Route]] = {
    "0100": {
        "000000": Route(Kind.AUTHORIZATION, _FINANCIAL, card=True, expiry=True, partial=True),
        "000000/60": Route(Kind.INCREMENT, _FOLLOW_UP, card=True, expiry=True, follow_up=True),
        "020000": _VOID,
    },
    "0200": {
        "000000": Route(Kind.PURCHASE, _FINANCIAL, card=True, expiry=True, partial=True),
        "020000": _VOID,
        "200000": Route(Kind.REFUND, _FOLLOW_UP, card=True, expiry=True, follow_up=True),
        "210000": Route(Kind.TOP_UP, _FINANCIAL, card=True, expiry=True),
        "310000": Route(Kind.BALANCE_INQUIRY, _FINANCIAL - {4}, card=True, expiry=True),
    },
    "0220": {
        "000000/00": Route(Kind.ADVICE, _FINANCIAL | {25}, card=True, expiry=True),
        "000000/06": Route(
            Kind.CAPTURE, _FOLLOW_UP | {25}, card=True, follow_up=True, several=True
        ),
    },
    "0120": {"000000": Route(Kind.AUTHORIZATION, _FINANCIAL, card=True, expiry=True, advice=True)},
    "0320": dict.fromkeys(("000000", "020000", "200000", "210000"), _UPLOAD),
    "0400": dict.fromkeys(("000000", "200000", "210000"), _REVERSAL),
    "0420": dict.fromkeys(("000000", "200000", "210000"), _REVERSAL),
    "0500": {
        "920000": Route(None, frozenset({3, 11, 13, 41, 42, 60, 63}), service=Service.BATCH_CLOSE)
    },
    "0800": {
        "990000": SIGN_ON,
        "990001": ECHO,
        "990002": Route(None, frozenset({3, 11, 41, 42, 63}), service=Service.HOTLIST),
        "990003": Route(None, frozenset({3, 11, 41, 42}), service=Service.PARAMETERS),
    },
}
#: Each MTI that is served, and the one that it means: a repeat (ISO 8583:1987, 3.1.1: the last
#: digit is 1) is the same message as the first.
BASE: Mapping[str, str] = {mti: mti for mti in ROUTES} | {
    f"{mti[:3]}1": mti for mti in ("0120", "0220", "0320", "0400", "0420", "0500")
}
#: What a terminal uploads of a batch whose totals differ: what was approved.
UPLOADED = frozenset({"0100", "0120", "0200", "0220"})


@dataclass(frozen=True, slots=True)
class Policy:
    """What this gateway lets through. Amounts in minor units, times in milliseconds."""

    currencies: frozenset[str]
    max_amount: int
    deadline_ms: int


def is_answer(mti: str) -> bool:
    """Whether an MTI is one of an answer: its third digit, the function, is 1, 3, 5 or 7."""
    return mti[2] in "1357"


@lru_cache(maxsize=256)  # bounded: the peer picks MTIs
def answer_mti(mti: str) -> str:
    """The MTI of the answer: 0200 -> 0210, and 0401 (a repeat) -> 0410.

    For any MTI: the lowest bit of the third digit set, that of the fourth cleared.
    """
    return f"{mti[:2]}{int(mti[2]) | 1}{int(mti[3]) & ~1}"


def route_of(message: Message) -> Route:
    """The route of a message whose MTI is known. Refused if it has none or lacks an element."""
    text = message.text
    code = text.get(3)
    if code is None:
        raise Refused(Refusal.ELEMENT_MISSING, 3)
    routes = ROUTES[BASE[message.mti]]
    route = routes.get(f"{code}/{text.get(25)}") or routes.get(code)
    if route is None:
        raise Refused(Refusal.PROCESSING_CODE_UNKNOWN, 3)
    for number in route.required:
        if number not in text and number not in message.binary:
            raise Refused(Refusal.ELEMENT_MISSING, number)
    return route


def to_request(
    message: Message, route: Route, pin_key: str, hsm: Hsm, policy: Policy, now_ms: int
) -> TerminalRequest:
    """The request for the acquirer's node; the PIN block is translated to the zone key.

    `message` passed its MAC and is of `route`, a financial one. Raises Refused.
    """
    text = message.text
    kind = route.kind
    assert kind is not None
    pan, expiry, service_code = _card(text)
    if expiry is None and route.expiry:
        raise Refused(Refusal.ELEMENT_MISSING, 14)
    icc = message.binary.get(55)
    wrong = entry.contradiction(text, icc)
    if wrong is not None:
        raise Refused(Refusal.FORMAT, wrong)
    day = business_date(text[13], now_ms)
    local_time = _local_time(day, text[12])
    batch, partial_ok, final = _processing(text[60], route)
    amount = _amount(kind, text, policy)
    currency = money.from_numeric(text[49])
    if currency is None or currency not in policy.currencies:
        raise Refused(Refusal.CURRENCY, 49)
    if len(pan) < 13 or not passes_luhn(pan):
        raise Refused(Refusal.CARD_NUMBER, 2)
    pin_block = message.binary.get(52)
    if pin_block is not None:
        try:
            pin_block = hsm.translate_pin(pin_key, ZONE_KEY, pin_block, pan)
        except PinBlockInvalid:
            raise Refused(Refusal.PIN_BLOCK, 52) from None
    return TerminalRequest(
        terminal_id=text[41],
        merchant_id=text[42],
        business_date=local_time[:10],
        batch=batch,
        stan=text[11],
        kind=kind,
        fingerprint=_fingerprint(message, hsm, pan, expiry, pin_block),
        amount=amount,
        currency=currency,
        pan=pan,
        expiry=expiry,
        service_code=service_code,
        entry_mode=text[22],
        pin_block=pin_block,
        local_time=local_time,
        rrn=text[37] if route.follow_up else None,
        channel=_CHANNEL_OF_CONDITION.get(text.get(25, ""), "pos"),
        partial_ok=partial_ok or route.advice,
        final=final,
        deadline_ms=now_ms + policy.deadline_ms,
        icc=icc,
        card_sequence=text.get(23) if icc is not None else None,
        track2=entry.discretionary(text.get(35)),
        advice=route.advice,
        offline=message.binary.get(57),
    )


#: Kinds of which a part may be approved. Of others the answer's amount says nothing of that: a
#: reversal reverses what was approved, whatever the message says.
_PARTIAL_KINDS = frozenset(
    route.kind
    for routes in ROUTES.values()
    for route in routes.values()
    if route.partial or route.advice
)


def to_answer(
    mti: str, echo: Mapping[int, str], request: TerminalRequest, answer: TerminalAnswer
) -> Message:
    """The message for a node's decision, without DE64. DE37 is the acquirer's reference number."""
    code = CODE_OF_OUTCOME[answer.outcome]
    text = dict(echo)
    text[37] = answer.rrn
    if code == APPROVED:
        if answer.approval_code is not None:
            text[38] = answer.approval_code
        if request.kind is Kind.BALANCE_INQUIRY:
            amounts = _additional_amounts(answer)
            if amounts:
                text[54] = amounts
        elif 0 < answer.amount < request.amount and request.kind in _PARTIAL_KINDS:
            code = PARTIALLY_APPROVED
            text[4] = f"{answer.amount:012d}"
    text[39] = code
    return Message.of(answer_mti(mti), text, {} if answer.icc is None else {55: answer.icc})


def refusal_answer(mti: str, echo: Mapping[int, str], code: str) -> Message:
    """The message for what the gateway answers by itself, without DE64."""
    return Message.of(answer_mti(mti), {**echo, 39: code}, {})


def business_date(month_day: str, now_ms: int) -> str:
    """The date (YYYY-MM-DD) that DE13 (MMDD) means: of the years around now the nearest one's.

    Refused if no such day exists.
    """
    day = _nearest(month_day, now_ms // _MS_A_DAY)
    if day is None:
        raise Refused(Refusal.FORMAT, 13)
    return day


def day_of(now_ms: int) -> date:
    """The day of a moment, UTC."""
    return date(1970, 1, 1) + timedelta(days=now_ms // _MS_A_DAY)


@lru_cache(maxsize=1024)
def _nearest(month_day: str, days_since_epoch: int) -> str | None:
    today = date(1970, 1, 1) + timedelta(days=days_since_epoch)
    candidates: list[date] = []
    for year in (today.year - 1, today.year, today.year + 1):
        try:
            candidates.append(date(year, int(month_day[:2]), int(month_day[2:])))
        except ValueError:
            continue  # 29 February, or no date at all
    if not candidates:
        return None
    return min(candidates, key=lambda day: abs((day - today).days)).isoformat()


def _local_time(day: str, time_of_day: str) -> str:
    hour, minute, second = time_of_day[:2], time_of_day[2:4], time_of_day[4:]
    if hour > "23" or minute > "59" or second > "59":
        raise Refused(Refusal.FORMAT, 12)
    return f"{day}T{hour}:{minute}:{second}"


def _processing(de60: str, route: Route) -> tuple[str, bool, bool]:
    """Batch number, whether a part of the amount will do, and whether a completion is the last."""
    if len(de60) == _BATCH_DIGITS:
        return de60, False, route.several
    flags = _FLAGS.get(de60[_BATCH_DIGITS:])
    if flags is None:
        raise Refused(Refusal.FORMAT, 60)
    partial_ok, more = flags
    return de60[:_BATCH_DIGITS], partial_ok and route.partial, route.several and not more


def _amount(kind: Kind, text: Mapping[int, str], policy: Policy) -> int:
    amount = int(text.get(4, "0"))
    if kind is Kind.BALANCE_INQUIRY:
        if amount:
            raise Refused(Refusal.AMOUNT, 4)
    elif not 0 < amount <= policy.max_amount:
        raise Refused(Refusal.AMOUNT, 4)
    return amount


def _card(text: Mapping[int, str]) -> tuple[str, str | None, str | None]:
    """PAN, expiry and service code, from DE2, DE14 and track 2, which must agree."""
    pan, expiry, service_code = text.get(2), text.get(14), None
    track2 = text.get(35)
    if track2 is not None:
        # ISO/IEC 7813: PAN, separator, YYMM, service code, discretionary data.
        track_pan, separator, rest = track2.partition("D")
        if not separator or len(track_pan) > 19 or len(rest) < 7 or not rest.isdigit():
            raise Refused(Refusal.FORMAT, 35)
        if (pan is not None and pan != track_pan) or (expiry is not None and expiry != rest[:4]):
            raise Refused(Refusal.FORMAT, 35)
        pan, expiry, service_code = track_pan, rest[:4], rest[4:7]
    if pan is None:
        raise Refused(Refusal.ELEMENT_MISSING, 2)
    if expiry is not None and not "01" <= expiry[2:] <= "12":
        raise Refused(Refusal.FORMAT, 14)
    return pan, expiry, service_code


def _fingerprint(
    message: Message, hsm: Hsm, pan: str, expiry: str | None, zone_pin_block: bytes | None
) -> bytes:
    """SHA-256 over what makes the content, 32 bytes.

    Card data enters as a keyed tag, for a bare hash of a PAN can be reversed by trying. The PIN
    block is the translated one, so that a repeat after a sign-on is still the same content.
    """
    text = message.text
    find = text.get
    card = f"{pan}\x1f{expiry or ''}\x1f{find(35, '')}\x1f"
    tag = hsm.mac(FINGERPRINT_KEY, card.encode("ascii") + (zone_pin_block or b""))
    parts = "\x1f".join(map(find, _FINGERPRINTED, _ABSENT))
    chip = message.binary.get(55, b"") + message.binary.get(57, b"")
    content = f"{BASE[message.mti]}\x1f{parts}\x1f".encode("ascii") + tag + chip
    return hashlib.sha256(content).digest()


def _additional_amounts(answer: TerminalAnswer) -> str:
    """DE54: the ledger balance (amount type 01), then the available one (02)."""
    numeric = money.numeric_code(answer.currency)
    parts = [
        f"00{amount_type}{numeric}{'D' if value < 0 else 'C'}{abs(value):012d}"
        for amount_type, value in (("01", answer.ledger), ("02", answer.available))
        if value is not None
    ]
    return "".join(parts)
