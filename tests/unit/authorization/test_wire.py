"""What is refused by the message alone, at the issuer and at the acquirer."""

from __future__ import annotations

from typing import Any

import pytest

from nodes import money
from nodes.authorization import rules
from nodes.authorization.model import ACQUIRERS_KINDS, FOLLOW_UPS, Kind, Outcome, TerminalRequest
from nodes.crypto.pan import luhn_digit
from tests.unit.authorization.cases import request

_PAN = "622300100000000" + luhn_digit("622300100000000")


def good(kind: Kind, **changes: Any) -> dict[str, Any]:
    amount = 0 if kind is Kind.BALANCE_INQUIRY else 100
    original = b"o" * 32 if kind in FOLLOW_UPS else None
    return {"amount": amount, "original_txid": original} | changes


@pytest.mark.parametrize("kind", sorted(ACQUIRERS_KINDS))
def test_a_well_formed_request_of_every_kind_is_read(kind: Kind) -> None:
    assert rules.malformed(request(kind, **good(kind)), "aurora") is None
    named = good(kind, pan="6223001000000001")
    assert rules.malformed(request(kind, **named), "aurora") is None


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"txid": b"t" * 32}, "txid is not derived from network_ref"),
        ({"txid": b"t" * 31}, "txid is not 32 bytes"),
        ({"salt_fin": b""}, "salt_fin is not 32 bytes"),
        ({"salt_pii": bytes(33)}, "salt_pii is not 32 bytes"),
        ({"original_txid": b"o" * 31}, "original_txid is not 32 bytes"),
        ({"original_txid": b"o" * 32}, "original_txid is not for this kind"),
        ({"network_ref": b"n"}, "network_ref is not 16 bytes"),
        ({"issuer": "harbor"}, "issuer is another member"),
        ({"acquirer": "Harbor!"}, "acquirer is not a member id"),
        ({"kind": Kind.LOAD}, "kind is not one that acquirers send"),
        ({"kind": Kind.EXPIRY}, "kind is not one that acquirers send"),
        ({"kind": Kind.TRANSFER}, "kind is not one that acquirers send"),
        ({"currency": "XXX"}, "currency is unknown"),
        ({"amount": -1}, "amount is out of range"),
        ({"amount": 0}, "amount is out of range"),
        ({"amount": money.MAX_TRANSACTION_AMOUNT + 1}, "amount is out of range"),
        ({"kind": Kind.BALANCE_INQUIRY, "amount": 1}, "amount is out of range"),
        ({"transmitted_ms": 0}, "a time is out of range"),
        ({"deadline_ms": 1 << 53}, "a time is out of range"),
        ({"terminal_seq": -1}, "terminal_seq is out of range"),
        ({"pan": None}, "pan is missing"),
        ({"kind": Kind.CAPTURE, "pan": "1"}, "original_txid is missing"),
        ({"kind": Kind.VOID, "pan": None}, "pan is missing"),
        ({"kind": Kind.REVERSAL, "pan": None}, "original_txid is missing"),
        ({"channel": "phone"}, "channel is not pos or ecommerce"),
        ({"merchant_id": ""}, "merchant_id is empty, too long or not printable"),
        ({"merchant_name": "n" * 81}, "merchant_name is empty, too long or not printable"),
        ({"stan": "1" * 13}, "stan is empty, too long or not printable"),
        ({"rrn": "\x1f"}, "rrn is empty, too long or not printable"),
        ({"mcc": "５４１１"}, "mcc is not ASCII"),
        ({"local_time": "2026\x00"}, "local_time is empty, too long or not printable"),
        ({"business_date": "2026-13-40"}, "business_date is not YYYY-MM-DD"),
        ({"business_date": "20260910"}, "business_date is not YYYY-MM-DD"),
    ],
)
def test_what_is_wrong_with_a_request_is_named(changes: dict[str, Any], verdict: str) -> None:
    assert rules.malformed(request(**changes), "aurora") == verdict


@pytest.mark.parametrize("name", ["Café Zürich", "海港百货"])
def test_a_merchants_name_is_in_any_script(name: str) -> None:
    assert rules.malformed(request(merchant_name=name), "aurora") is None


@pytest.mark.parametrize(("kind", "amount"), [(Kind.VOID, 0), (Kind.REVERSAL, 0)])
def test_a_void_and_a_reversal_may_leave_the_amount_open(kind: Kind, amount: int) -> None:
    asked = request(kind, amount, original_txid=b"o" * 32)
    assert rules.malformed(asked, "aurora") is None


def terminal(kind: Kind = Kind.PURCHASE, **changes: Any) -> TerminalRequest:
    values: dict[str, Any] = {
        "terminal_id": "T0000001",
        "merchant_id": "MERIDIAN0000001",
        "business_date": "2026-09-10",
        "batch": "000001",
        "stan": "000001",
        "kind": kind,
        "fingerprint": bytes(32),
        "amount": 0 if kind is Kind.BALANCE_INQUIRY else 100,
        "currency": "CNY",
        "pan": _PAN,
        "entry_mode": "051",
        "local_time": "2026-09-10T08:00:00",
        "rrn": "000000000001" if kind in FOLLOW_UPS - {Kind.REVERSAL} else None,
        "deadline_ms": 1,
    }
    return TerminalRequest(**(values | changes))


@pytest.mark.parametrize("kind", sorted(ACQUIRERS_KINDS))
def test_an_acquirer_takes_what_is_well_formed(kind: Kind) -> None:
    assert rules.refuse_at_acquirer(terminal(kind)) is None


@pytest.mark.parametrize(
    ("kind", "changes", "outcome"),
    [
        (Kind.PURCHASE, {"fingerprint": b""}, Outcome.MALFORMED),
        (Kind.PURCHASE, {"business_date": "2026-13-40"}, Outcome.MALFORMED),
        (Kind.PURCHASE, {"local_time": "2026\x00"}, Outcome.MALFORMED),
        (Kind.PURCHASE, {"terminal_id": ""}, Outcome.MALFORMED),
        (Kind.PURCHASE, {"batch": "1" * 13}, Outcome.MALFORMED),
        (Kind.PURCHASE, {"rrn": "1" * 13}, Outcome.MALFORMED),
        (Kind.PURCHASE, {"deadline_ms": 0}, Outcome.MALFORMED),
        (Kind.PURCHASE, {"channel": ""}, Outcome.MALFORMED),
        (Kind.CAPTURE, {"rrn": None}, Outcome.MALFORMED),
        (Kind.LOAD, {}, Outcome.TRANSACTION_NOT_SUPPORTED),
        (Kind.ADJUSTMENT, {"amount": -1}, Outcome.TRANSACTION_NOT_SUPPORTED),
        (Kind.PURCHASE, {"amount": 0}, Outcome.AMOUNT_INVALID),
        (Kind.VOID, {"amount": -1}, Outcome.AMOUNT_INVALID),
        (Kind.REVERSAL, {"amount": 0}, Outcome.AMOUNT_INVALID),
        (Kind.BALANCE_INQUIRY, {"amount": 1}, Outcome.AMOUNT_INVALID),
        (Kind.PURCHASE, {"currency": "XXX", "pan": "4" * 16}, Outcome.AMOUNT_INVALID),
        (Kind.PURCHASE, {"pan": "4" * 16}, Outcome.CARD_NUMBER_INVALID),
    ],
)
def test_an_acquirer_refuses_by_the_message_alone(
    kind: Kind, changes: dict[str, Any], outcome: Outcome
) -> None:
    assert rules.refuse_at_acquirer(terminal(kind, **changes)) is outcome
