"""BER-TLV: round trips, and what hostile bytes come to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.emv import chip_data, tlv
from nodes.emv.chip_data import ChipDataMalformed
from nodes.emv.tlv import TlvMalformed

tags = st.sampled_from(["4F", "57", "5F2A", "9F02", "9F26", "DF8101", "95", "82"])
elements = st.lists(st.tuples(tags, st.binary(max_size=300)), max_size=12)


@given(elements)
def test_what_is_written_is_read(wanted: list[tuple[str, bytes]]) -> None:
    assert tlv.decode(tlv.encode(wanted)) == wanted


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    for reader in (tlv.decode, tlv.decode_deep):
        try:
            found = reader(raw)
        except TlvMalformed:
            continue
        assert len(found) <= tlv.MAX_ELEMENTS
    with pytest.raises(ChipDataMalformed):
        chip_data.parse(raw)


def test_templates_are_opened_to_a_depth() -> None:
    inner = tlv.encode([("57", b"\x12")])
    assert tlv.decode_deep(tlv.encode([("61", inner), ("82", b"ab")])) == [
        ("57", b"\x12"),
        ("82", b"ab"),
    ]
    for _ in range(tlv.MAX_DEPTH):
        inner = tlv.encode([("61", inner)])
    with pytest.raises(TlvMalformed, match="too deep"):
        tlv.decode_deep(inner)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ("9F", "tag"),
        ("9F8080", "tag"),
        ("82", "length"),
        ("8280", "length"),
        ("8283000001", "length"),
        ("820541", "cut off"),
        ("5700" * 65, "elements"),
    ],
)
def test_what_is_refused_says_why(raw: str, why: str) -> None:
    with pytest.raises(TlvMalformed, match=why):
        tlv.decode(bytes.fromhex(raw))
