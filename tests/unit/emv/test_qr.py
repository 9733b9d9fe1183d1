"""Payment QR codes: the specifications' examples, round trips, hostile input."""

from __future__ import annotations

import base64

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodes.emv import qr, tlv
from nodes.emv.qr import ConsumerCode, QrMalformed

#: The worked example of EMV QRCPS Merchant-Presented Mode 1.0, annex A.
MERCHANT_EXAMPLE = (
    "00020101021229300012D156000000000510A93FO3230Q31280012D15600000001030812345678520441115802CN"
    "5914BEST TRANSPORT6007BEIJING64200002ZH0104最佳运输0202北京540523.72530315655020162330304"
    "12340603***0708A60086670902ME91320016A0112233449988770708123456786304A13A"
)
#: The worked example of EMV QRCPS Consumer-Presented Mode 1.0 with two applications and a common
#: data template.
CONSUMER_EXAMPLE = (
    "hQVDUFYwMWETTwegAAAAVVVVUAhQcm9kdWN0MWETTwegAAAAZmZmUAhQcm9kdWN0MmJJWggSNFZ4kBI0WF8gDkNBUkRIT0"
    "xERVIvRU1WXy0IcnVlc2RlZW5kIZ8QBwYBCgMAAACfJghYT9OF+iNLzJ82AgABnzcEbVjvEw=="
)

digits = st.text("0123456789", min_size=13, max_size=19)
values = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1, max_size=40)
tags = st.integers(2, 62).map(lambda number: f"{number:02d}")


def test_the_merchant_example_of_the_specification_is_read() -> None:
    found = qr.decode_merchant(MERCHANT_EXAMPLE)
    assert found["01"] == "12"
    assert found["54"] == "23.72"
    assert found["59"] == "BEST TRANSPORT"
    assert dict(qr.decode_fields(found["64"]))["01"] == "最佳运输"
    rest = [(tag, value) for tag, value in found.items() if tag not in ("00", "63")]
    assert qr.encode_merchant(rest) == MERCHANT_EXAMPLE


def test_the_consumer_example_of_the_specification_is_read() -> None:
    templates = qr.consumer_templates(CONSUMER_EXAMPLE)
    read = [dict(tlv.decode(template)) for template in templates]
    assert [one["50"] for one in read] == [b"Product1", b"Product2"]
    assert read[0]["4F"].hex() == "a0000000555555"
    with pytest.raises(QrMalformed, match="no application of this network"):
        qr.decode_consumer(CONSUMER_EXAMPLE)
    # Tags repeat: a reader that makes a dict of them would lose an application.
    elements = tlv.decode(base64.b64decode(CONSUMER_EXAMPLE))
    assert [element.tag for element in elements] == ["85", "61", "61", "62"]
    assert base64.b64encode(tlv.encode(elements)).decode() == CONSUMER_EXAMPLE


# How fast values are drawn says nothing of the code: a busy machine is no failure.
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(tags, values, max_size=6))
def test_what_is_written_for_a_merchant_is_read(fields: dict[str, str]) -> None:
    text = qr.encode_merchant(list(fields.items()))
    found = qr.decode_merchant(text)
    assert {tag: value for tag, value in found.items() if tag not in ("00", "63")} == fields


@given(digits, st.integers(0, 99), st.integers(1, 12), st.integers(0, 999))
def test_what_a_wallet_shows_is_read(number: str, year: int, month: int, service: int) -> None:
    code = ConsumerCode(number, f"{year:02d}{month:02d}", f"{service:03d}")
    assert qr.decode_consumer(qr.encode_consumer(code)) == code


@given(st.text(max_size=600))
def test_any_text_is_read_or_refused(text: str) -> None:
    for reader in (qr.decode_merchant, qr.decode_consumer):
        try:
            found = reader(text)
        except QrMalformed:
            continue
        assert found


@given(st.binary(max_size=400))
def test_any_bytes_in_base64_are_read_or_refused(raw: bytes) -> None:
    text = base64.b64encode(b"\x85\x05CPV01" + raw).decode()
    try:
        code = qr.decode_consumer(text)
    except QrMalformed:
        return
    assert qr.decode_consumer(qr.encode_consumer(code)) == code


@given(st.integers(0, 400), st.integers(1, 255))
def test_a_changed_character_is_noticed(place: int, change: int) -> None:
    place %= len(MERCHANT_EXAMPLE)
    altered = chr((ord(MERCHANT_EXAMPLE[place]) ^ change) or 1)
    text = MERCHANT_EXAMPLE[:place] + altered + MERCHANT_EXAMPLE[place + 1 :]
    with pytest.raises(QrMalformed):
        qr.decode_merchant(text)
