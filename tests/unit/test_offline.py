"""The offline record, a terminal's decision to pay offline, and the pages that it downloads."""

from __future__ import annotations

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes.acquiring.fleet.model import Parameters
from nodes.acquiring.offline import (
    HotlistPage,
    OfflineRefusal,
    TerminalOffline,
    decode_hotlist_page,
    decode_parameters,
    encode_hotlist_page,
    encode_parameters,
    may_spend,
    spent_offline,
    take_page,
    uploaded,
)
from nodes.crypto.offline_record import (
    RECORD_LENGTH,
    OfflineRecord,
    RecordChain,
    RecordMalformed,
    decode_record,
    encode_record,
    is_genuine,
    is_public_key,
    key_id_of,
    public_key_of,
    sign_as_card,
)

KEY = ec.derive_private_key(20_261_123, ec.SECP256R1())
PUBLIC = public_key_of(KEY)
CARD = key_id_of(PUBLIC)
CAPS = Parameters()
NOW = 1_795_400_000_000
READY = TerminalOffline(hotlist_as_of_ms=NOW)


def record(chain: RecordChain | None = None, amount: int = 1_500, atc: int = 7) -> bytes:
    return (chain or RecordChain("POS00001", 3)).append(
        card_key_id=CARD, atc=atc, amount=amount, currency="CNY", nonce=b"12345678", at_ms=NOW,
        sign=lambda message: sign_as_card(KEY, message),
    )  # fmt: skip


def test_a_record_comes_back_as_it_was_and_is_the_cards() -> None:
    data = record()
    assert len(data) == RECORD_LENGTH
    decoded = decode_record(data)
    assert encode_record(decoded) == data
    assert is_genuine(decoded, PUBLIC)
    assert (decoded.terminal_id, decoded.epoch, decoded.seq, decoded.atc) == ("POS00001", 3, 1, 7)
    other = public_key_of(ec.derive_private_key(5, ec.SECP256R1()))
    assert not is_genuine(decoded, other)
    assert is_public_key(PUBLIC)
    assert not is_public_key(PUBLIC[:64] + bytes((PUBLIC[64] ^ 1,)))


@pytest.mark.parametrize("change", [{"amount": 1_501}, {"atc": 8}, {"terminal_id": "POS00002"},
    {"nonce": b"12345679"}, {"currency": "USD"}])  # fmt: skip
def test_the_signature_covers_what_makes_the_payment(change: dict[str, object]) -> None:
    changed = msgspec.structs.replace(decode_record(record()), **change)
    assert not is_genuine(changed, PUBLIC)


def test_records_are_chained() -> None:
    chain = RecordChain("POS00001", 3)
    first, second = (decode_record(record(chain)) for _ in range(2))
    assert (first.seq, second.seq) == (1, 2)
    assert first.previous == bytes(32)
    assert second.previous == first.hash


@given(st.binary(max_size=200))
@settings(max_examples=200)
def test_other_bytes_are_refused_by_name(data: bytes) -> None:
    with pytest.raises(RecordMalformed):
        decode_record(data[: RECORD_LENGTH - 1])
    with pytest.raises(RecordMalformed):
        decode_record(b"\2" + data.ljust(RECORD_LENGTH, b"\0")[: RECORD_LENGTH - 1])


@given(st.integers(min_value=0, max_value=RECORD_LENGTH - 1), st.integers(1, 255))
@settings(max_examples=150)
def test_a_changed_byte_never_stays_the_same_record(place: int, flip: int) -> None:
    data = bytearray(record())
    original = decode_record(bytes(data))
    data[place] ^= flip
    try:
        changed = decode_record(bytes(data))
    except RecordMalformed:
        return
    assert isinstance(changed, OfflineRecord)
    assert changed.hash != original.hash


@pytest.mark.parametrize(
    ("state", "changes", "refusal"),
    [
        (READY, {}, None),
        (READY, {"entry_mode": "072"}, None),
        (READY, {"entry_mode": "022"}, OfflineRefusal.NOT_CHIP),
        (READY, {"entry_mode": "012"}, OfflineRefusal.NOT_CHIP),
        (READY, {"amount": 20_000}, None),
        (READY, {"amount": 20_001}, OfflineRefusal.AMOUNT),
        (READY, {"amount": 0}, OfflineRefusal.AMOUNT),
        (TerminalOffline(), {}, OfflineRefusal.HOTLIST_OLD),
        (READY, {"now_ms": NOW + 86_400_000}, None),
        (READY, {"now_ms": NOW + 86_400_001}, OfflineRefusal.HOTLIST_OLD),
        (msgspec.structs.replace(READY, hotlist=frozenset({CARD})), {}, OfflineRefusal.HOTLISTED),
        (msgspec.structs.replace(READY, amount=1_990_000), {"amount": 10_000}, None),
        (msgspec.structs.replace(READY, amount=1_990_000), {"amount": 10_001},
         OfflineRefusal.TERMINAL_AMOUNT),
        (msgspec.structs.replace(READY, first_ms=NOW - 86_400_001), {},
         OfflineRefusal.TERMINAL_AGE),
    ],
)  # fmt: skip
def test_the_caps_of_the_design(
    state: TerminalOffline, changes: dict[str, object], refusal: OfflineRefusal | None
) -> None:
    asked = {"card_key_id": CARD, "amount": 100, "entry_mode": "052", "now_ms": NOW} | changes
    assert may_spend(state, CAPS, **asked) is refusal  # type: ignore[arg-type]


def test_three_payments_and_a_thousand_a_card_until_the_upload() -> None:
    state = READY
    for _ in range(3):
        asked = {"card_key_id": CARD, "amount": 20_000, "entry_mode": "052", "now_ms": NOW}
        assert may_spend(state, CAPS, **asked) is None  # type: ignore[arg-type]
        state = spent_offline(state, card_key_id=CARD, amount=20_000, now_ms=NOW)
    assert may_spend(state, CAPS, **asked) is OfflineRefusal.CARD_COUNT  # type: ignore[arg-type]
    assert may_spend(uploaded(state), CAPS, **asked) is None  # type: ignore[arg-type]
    more = msgspec.structs.replace(CAPS, offline_count_per_card=9)
    state = spent_offline(state, card_key_id=CARD, amount=20_000, now_ms=NOW)
    last = spent_offline(state, card_key_id=CARD, amount=20_000, now_ms=NOW)
    assert may_spend(state, more, **asked) is None  # type: ignore[arg-type]
    assert may_spend(last, more, **asked) is OfflineRefusal.CARD_AMOUNT  # type: ignore[arg-type]


def test_pages_and_parameters_come_back_as_they_were() -> None:
    page = HotlistPage(9, NOW, True, ((CARD, True), (b"abcdefgh", False)))
    assert decode_hotlist_page(encode_hotlist_page(page)) == page
    full = HotlistPage(1, NOW, False, tuple((bytes((n,)) * 8, True) for n in range(100)))
    assert len(encode_hotlist_page(full)) <= 999
    with pytest.raises(ValueError, match="another length"):
        decode_hotlist_page(encode_hotlist_page(page)[:-1])
    with pytest.raises(ValueError, match="at least 11"):
        decode_hotlist_page(b"\0")
    encoded = encode_parameters(4, CAPS)
    assert decode_parameters(encoded) == (4, CAPS)
    assert len(encoded) <= 999


def test_the_lists_age_counts_from_its_last_page() -> None:
    first = take_page(TerminalOffline(), HotlistPage(1, NOW, True, ((CARD, True),)))
    assert (first.hotlist, first.hotlist_as_of_ms) == ({CARD}, 0)
    last = take_page(first, HotlistPage(2, NOW, False, ((CARD, False),)))
    assert (last.hotlist, last.hotlist_version, last.hotlist_as_of_ms) == (set(), 2, NOW)
