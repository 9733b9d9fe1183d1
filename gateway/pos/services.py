"""Batch close, upload and downloads: a terminal's message to a service request, and back. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from gateway.iso8583.codec import Message
from gateway.pos import translate
from gateway.pos.response_codes import CODE_OF_SERVICE, Refusal
from gateway.pos.translate import Policy, Refused, Route
from nodes import money
from nodes.authorization.services import (
    CurrencyTotals,
    Service,
    ServiceAnswer,
    ServiceRequest,
)
from nodes.crypto.hsm import Hsm

#: DE63 of a batch close: a group a currency, at most six of them.
_GROUP = re.compile(r"([A-Z]{3})([0-9]{6})([0-9]{12})([0-9]{6})([0-9]{12})")
_GROUP_LENGTH = 39
_VERSION = re.compile(r"[0-9]{10}\Z")
_DOWNLOADS = frozenset({Service.HOTLIST, Service.PARAMETERS})
_FINGERPRINTED = (3, 4, 11, 12, 13, 22, 25, 37, 41, 42, 49, 60, 63)


def to_service_request(
    message: Message, route: Route, pin_key: str, hsm: Hsm, policy: Policy, now_ms: int
) -> ServiceRequest:
    """The request for the acquirer's node. Raises Refused."""
    service, text = route.service, message.text
    assert service is not None
    today = translate.day_of(now_ms).isoformat()
    item = None
    totals: tuple[CurrencyTotals, ...] = ()
    version = 0
    if service is Service.BATCH_UPLOAD:
        if text[63] not in translate.UPLOADED:
            raise Refused(Refusal.FORMAT, 63)
        original = Message.of(text[63], dict(text), dict(message.binary))
        item_route = translate.route_of(original)
        item = translate.to_request(original, item_route, pin_key, hsm, policy, now_ms)
    elif service is Service.BATCH_CLOSE:
        totals = parse_totals(text[63])
    elif service is Service.HOTLIST:
        if not _VERSION.match(text[63]):
            raise Refused(Refusal.FORMAT, 63)
        version = int(text[63])
    return ServiceRequest(
        service=service,
        terminal_id=text[41],
        merchant_id=text[42],
        business_date=today if 13 not in text else translate.business_date(text[13], now_ms),
        batch="" if service in _DOWNLOADS else text[60][:6],
        stan=text[11],
        fingerprint=_fingerprint(message, item.fingerprint if item is not None else b""),
        totals=totals,
        item=item,
        version=version,
        deadline_ms=now_ms + policy.deadline_ms,
    )


def to_message(mti: str, echo: Mapping[int, str], answer: ServiceAnswer) -> Message:
    """The message for a node's answer, without DE64."""
    text = dict(echo)
    text[39] = CODE_OF_SERVICE[answer.outcome]
    if answer.next_batch is not None:
        text[60] = answer.next_batch
    if answer.totals:
        text[63] = "".join(map(_group, answer.totals))
    binary = {} if answer.data is None else {56: answer.data}
    return Message.of(translate.answer_mti(mti), text, binary)


def parse_totals(text: str) -> tuple[CurrencyTotals, ...]:
    """DE63 of a batch close, sorted by currency. Refused if it isn't well-formed."""
    found: list[CurrencyTotals] = []
    for start in range(0, len(text), _GROUP_LENGTH):
        match = _GROUP.fullmatch(text[start : start + _GROUP_LENGTH])
        if match is None or match[1] not in money.CURRENCIES:
            raise Refused(Refusal.FORMAT, 63)
        found.append(CurrencyTotals(match[1], *(int(part) for part in match.groups()[1:])))
    if len({one.currency for one in found}) < len(found):
        raise Refused(Refusal.FORMAT, 63)
    return tuple(sorted(found))


def format_totals(totals: tuple[CurrencyTotals, ...]) -> str:
    """DE63 of a batch close, as a terminal writes it."""
    return "".join(map(_group, totals))


def _group(one: CurrencyTotals) -> str:
    return (
        f"{one.currency}{one.debits:06d}{one.debit_amount:012d}"
        f"{one.credits:06d}{one.credit_amount:012d}"
    )


def _fingerprint(message: Message, item: bytes) -> bytes:
    parts = "\x1f".join(message.text.get(number, "") for number in _FINGERPRINTED)
    content = f"{translate.BASE[message.mti]}\x1f{parts}\x1f".encode("ascii")
    return hashlib.sha256(content + item).digest()
