"""What each message leads to: every row of the answer table that needs no socket."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from gateway.iso8583.codec import Message, decode, encode
from gateway.pos import framing
from gateway.pos.response_codes import (
    CODE_OF_OUTCOME,
    CODE_OF_REFUSAL,
    Refusal,
)
from gateway.pos.session import Close, Drop, Forward, Reply, Session, Step
from nodes.authorization.model import Kind, Outcome, TerminalAnswer
from sandbox.terminal import BALANCE, PURCHASE, REFUND, Terminal
from tests.factories.pos import (
    CARD,
    DEADLINE_MS,
    MERCHANT,
    NOW_MS,
    PIN,
    Card,
    content,
    luhn,
    make_hsm,
    make_session,
    message_of,
    record,
    secret,
    terminal,
)

NOW = datetime.fromtimestamp(NOW_MS / 1000, tz=UTC)


def send(pos: Terminal, message: Message, session: Session | None = None) -> Step:
    return (session or make_session()).receive(content(pos.seal(message)), NOW_MS)


def purchase(pos: Terminal, amount: int = 1250, pin: str | None = PIN) -> Message:
    return pos.request("0200", PURCHASE, CARD, amount, pin, now=NOW)


def code_of(step: Step) -> str:
    assert isinstance(step, Reply), step
    return message_of(step.frame).text[39]


def changed(number: int, value: str | None) -> tuple[Terminal, Message]:
    pos = terminal()
    message = purchase(pos)
    if value is None:
        del message.text[number]
    else:
        message.text[number] = value
    return pos, message


# What goes to the node


def test_a_purchase_becomes_a_request() -> None:
    pos = terminal()
    step = send(pos, purchase(pos))
    assert isinstance(step, Forward)
    request = step.request
    assert request.kind is Kind.PURCHASE
    assert (request.terminal_id, request.merchant_id) == ("POS00001", MERCHANT)
    assert (request.business_date, request.batch, request.stan) == (
        "2026-11-22",
        "000001",
        "000001",
    )
    assert (request.amount, request.currency) == (1250, "CNY")
    assert (request.pan, request.expiry) == (CARD.pan, "2812")
    assert request.local_time == "2026-11-22T16:00:00"
    assert request.entry_mode == "011"
    assert request.deadline_ms == NOW_MS + DEADLINE_MS
    assert request.rrn is None
    # The PIN arrives under the zone key, and only there.
    gateway = make_hsm(record())
    assert request.pin_block == gateway.seal_pin("zone", PIN, CARD.pan)


def test_track_2_gives_number_expiry_and_service_code() -> None:
    pos = terminal()
    message = pos.request("0200", PURCHASE, CARD, 1250, track2=True, now=NOW)
    step = send(pos, message)
    assert isinstance(step, Forward)
    assert step.request.pan == CARD.pan
    assert step.request.expiry == "2812"
    assert step.request.service_code == "120"
    assert step.request.pin_block is None


@pytest.mark.parametrize(
    ("mti", "code", "amount", "kind"),
    [
        ("0200", PURCHASE, 1, Kind.PURCHASE),
        ("0200", REFUND, 1, Kind.REFUND),
        ("0200", BALANCE, 0, Kind.BALANCE_INQUIRY),
        ("0400", PURCHASE, 1, Kind.REVERSAL),
        ("0400", REFUND, 1, Kind.REVERSAL),
    ],
)
def test_type_and_processing_code_give_the_kind(
    mti: str, code: str, amount: int, kind: Kind
) -> None:
    pos = terminal()
    message = pos.request(mti, code, CARD, amount, now=NOW)
    message.text[37] = "RRN000000001"
    step = send(pos, message)
    assert isinstance(step, Forward)
    assert step.request.kind is kind
    assert step.request.rrn == ("RRN000000001" if kind is Kind.REFUND else None)


def test_a_balance_inquiry_needs_no_amount_and_a_reversal_no_expiry() -> None:
    pos = terminal()
    balance = pos.request("0200", BALANCE, CARD, 0, now=NOW)
    del balance.text[4]
    assert isinstance(send(pos, balance), Forward)
    reversal = pos.reversal_of(pos.seal(purchase(pos)))
    del reversal.text[14]
    assert isinstance(send(pos, reversal), Forward)


@pytest.mark.parametrize(
    ("now", "month_day", "expected"),
    [
        ("2026-11-22", "1122", "2026-11-22"),
        ("2026-12-31", "0101", "2027-01-01"),
        ("2027-01-01", "1231", "2026-12-31"),
        ("2028-02-28", "0229", "2028-02-29"),
        ("2027-12-31", "0229", "2028-02-29"),
    ],
)
def test_the_year_of_the_business_date_is_the_nearest(
    now: str, month_day: str, expected: str
) -> None:
    moment = datetime.fromisoformat(f"{now}T12:00:00+00:00")
    pos = terminal()
    message = pos.request("0200", PURCHASE, CARD, 100, now=moment)
    message.text[13] = month_day
    step = make_session().receive(content(pos.seal(message)), int(moment.timestamp() * 1000))
    assert isinstance(step, Forward)
    assert step.request.business_date == expected


# The fingerprint: what is the same content, and what is not


def fingerprint(message: Message, session: Session | None = None, pos: Terminal | None = None):  # type: ignore[no-untyped-def]
    step = send(pos or terminal(), message, session)
    assert isinstance(step, Forward), step
    return step.request.fingerprint


def test_a_repeat_has_the_same_fingerprint() -> None:
    pos = terminal()
    message = purchase(pos)
    first = fingerprint(message)
    message.text[7] = "0101000000"  # the transmission time is the repeat's own
    assert fingerprint(message) == first
    assert len(first) == 32


def test_a_repeat_under_other_keys_is_still_the_same_content() -> None:
    session, pos = make_session(), terminal()
    first = fingerprint(purchase(pos), session, pos)
    sign_on(pos, session)
    pos.stan = 0
    assert pos.epoch
    assert fingerprint(purchase(pos), session, pos) == first


@pytest.mark.parametrize(
    ("number", "value"),
    [
        (4, "000000001251"),
        (11, "000002"),
        (12, "160001"),
        (13, "1123"),
        (14, "2901"),
        (22, "051"),
        (60, "000002"),
        (2, luhn("622300100009999")),
    ],
)
def test_other_content_has_another_fingerprint(number: int, value: str) -> None:
    pos = terminal()
    first = fingerprint(purchase(pos, pin=None))
    other = purchase(terminal(), pin=None)
    other.text[number] = value
    assert fingerprint(other) != first


def test_another_pin_is_other_content() -> None:
    assert fingerprint(purchase(terminal(), pin="1111")) != fingerprint(purchase(terminal()))


# What the gateway refuses by itself


@pytest.mark.parametrize(
    ("number", "value", "code"),
    [
        (3, "990000", "12"),
        (3, "010000", "12"),
        (4, "000000000000", "13"),
        (4, "999999999999", "13"),
        (49, "840", "13"),
        (49, "999", "13"),
        (2, CARD.pan[:-1] + str((int(CARD.pan[-1]) + 1) % 10), "14"),
        (2, "000000000000", "14"),
        (42, "HARBOR000000002", "03"),
        (12, "240000", "30"),
        (12, "006000", "30"),
        (12, "000060", "30"),
        (13, "0230", "30"),
        (13, "1301", "30"),
        (14, "2813", "30"),
        (35, f"{CARD.pan}D2901120", "30"),
        (35, f"{luhn('622300100009999')}D2812120", "30"),
        (35, f"{CARD.pan}2812120", "30"),
        (35, f"{CARD.pan}D2812", "30"),
        (35, f"{CARD.pan}D28121D0", "30"),
        (38, "123456", "30"),
        (39, "00", "30"),
        (54, "0" * 20, "30"),
        *[(number, None, "30") for number in (3, 4, 12, 13, 22, 42, 49, 60, 2, 14)],
    ],
)
def test_refusals_by_value(number: int, value: str | None, code: str) -> None:
    step = send(*changed(number, value))
    assert code_of(step) == code
    assert isinstance(step, Reply)
    assert 64 in message_of(step.frame).binary


def test_an_amount_in_a_balance_inquiry_is_refused() -> None:
    pos = terminal()
    assert code_of(send(pos, pos.request("0200", BALANCE, CARD, 5, now=NOW))) == "13"


def test_a_refund_needs_its_original() -> None:
    pos = terminal()
    assert code_of(send(pos, pos.request("0200", REFUND, CARD, 5, now=NOW))) == "30"


def test_the_amount_may_reach_the_maximum_and_no_more() -> None:
    pos = terminal()
    assert isinstance(send(pos, purchase(pos, 10_000_000_000)), Forward)
    assert code_of(send(pos, purchase(pos, 10_000_000_001))) == "13"


def test_a_pin_block_of_another_card_is_a_wrong_pin() -> None:
    pos = terminal()
    message = purchase(pos)
    message.text[2] = luhn("622300100009999")
    assert code_of(send(pos, message)) == "55"


@pytest.mark.parametrize("mti", ["0101", "0201", "0229", "0402", "0900", "9999"])
def test_an_unknown_type_is_answered_12(mti: str) -> None:
    pos = terminal()
    message = purchase(pos)
    message.mti = mti
    step = send(pos, message)
    assert code_of(step) == "12"
    pos.bad_mac = True
    assert code_of(send(pos, message)) == "12"


def test_the_answers_type_follows_the_requests() -> None:
    pos = terminal()
    for mti, expected in [("0100", "0110"), ("0421", "0430"), ("0220", "0230"), ("0400", "0410")]:
        message = purchase(pos)
        message.mti = mti
        message.text[39] = "00"  # refused in any case
        step = send(pos, message)
        assert isinstance(step, Reply)
        assert message_of(step.frame).mti == expected


@pytest.mark.parametrize("mti", ["0210", "0110", "0410", "0430", "0810", "0330", "0150"])
def test_an_answer_that_nobody_asked_for_is_dropped(mti: str) -> None:
    pos = terminal()
    message = purchase(pos)
    message.mti = mti
    assert send(pos, message) == Drop("answer_unasked")
    raw = content(pos.seal(message)) + b"\0"  # malformed, too: never an answer to an answer
    assert make_session().receive(raw, NOW_MS) == Drop("answer_unasked")


def test_an_unknown_terminal_is_answered_58_without_a_mac() -> None:
    pos = terminal("POS09999")
    step = send(pos, purchase(pos))
    assert code_of(step) == "58"
    assert isinstance(step, Reply)
    assert 64 not in message_of(step.frame).binary


@pytest.mark.parametrize("fault", ["bad_mac", "no_mac"])
def test_a_bad_or_missing_mac_is_answered_a0(fault: str) -> None:
    pos = terminal()
    for message in (purchase(pos), pos._management("990001"), pos._management("990000")):
        setattr(pos, fault, True)
        step = send(pos, message)
        assert code_of(step) == "A0"
        assert isinstance(step, Reply)
        assert step.refusal is Refusal.MAC
        assert 64 not in message_of(step.frame).binary


def test_every_flipped_bit_of_a_request_is_noticed() -> None:
    """No bit of header or message can be changed on the way and still reach the node."""
    pos, session = terminal(), make_session()
    raw = content(pos.seal(purchase(pos)))
    for bit in range(framing.TPDU_BYTES * 8, len(raw) * 8):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << (bit % 8)
        step = session.receive(bytes(flipped), NOW_MS)
        assert not isinstance(step, Forward), bit
        if isinstance(step, Reply):
            assert step.code in ("A0", "30", "12", "58"), bit


def test_the_tpdu_is_outside_the_mac_and_comes_back_swapped() -> None:
    pos = terminal()
    pos.tpdu = bytes.fromhex("6012345678")
    pos_step = send(pos, pos._management("990001"))
    assert isinstance(pos_step, Reply)
    assert pos_step.frame[2:7] == bytes.fromhex("6056781234")


def test_header_flags_are_reserved() -> None:
    pos = terminal()
    message = purchase(pos)
    header = replace(framing.Header(pos.tpdu, framing.Suite.SM, 0), flags=1)
    complete = Message(message.mti, message.text, {**message.binary, 64: bytes(8)})
    body = encode(complete)[:-8]
    mac = pos._module.mac("mac:0", header.bytes_without_tpdu() + body)
    raw = framing.frame(header, body + mac)
    assert code_of(make_session().receive(content(raw), NOW_MS)) == "30"


# What can't be read


def test_what_is_unreadable_is_answered_30_when_it_says_from_whom() -> None:
    pos, session = terminal(), make_session()
    raw = content(pos.seal(purchase(pos)))
    step = session.receive(raw + b"\0", NOW_MS)
    assert code_of(step) == "30"
    assert isinstance(step, Reply)
    answer = message_of(step.frame)
    assert answer.mti == "0210"
    assert (answer.text[11], answer.text[41]) == ("000001", "POS00001")
    assert 64 not in answer.binary


@pytest.mark.parametrize("missing", [11, 41])
def test_without_trace_number_or_terminal_the_connection_is_closed(missing: int) -> None:
    assert send(*changed(missing, None)) == Close("no_address")


def test_what_cannot_be_answered_closes() -> None:
    session = make_session()
    head = bytes.fromhex("6000010002" + "010100000000")
    assert session.receive(head + b"\x02", NOW_MS) == Close("format_truncated")
    assert session.receive(head + b"\x0a\x00" + bytes(8), NOW_MS) == Close("format_mti")
    for bitmap, flaw in (("40", "truncated"), ("ff", "bitmap"), ("08", "bitmap")):
        raw = head + b"\x02\x00" + bytes.fromhex(bitmap).ljust(8, b"\0")
        assert session.receive(raw, NOW_MS) == Close(f"format_{flaw}")
    assert session.receive(head[:6], NOW_MS) == Close("frame_too_short")


# Answers


def answered(step: Step, answer: TerminalAnswer, session: Session | None = None) -> Message:
    assert isinstance(step, Forward)
    reply = (session or make_session()).answer(step.request, step.address, answer)
    return message_of(reply.frame)


def test_an_approval_carries_reference_and_approval_code() -> None:
    pos = terminal()
    step = send(pos, purchase(pos))
    answer = TerminalAnswer(
        outcome=Outcome.APPROVED,
        rrn="632608000001",
        approval_code="A1B2C3",
        amount=1250,
        currency="CNY",
        available=99,
    )
    message = answered(step, answer)
    assert message.mti == "0210"
    assert {n: v for n, v in message.text.items() if n != 7} == {
        11: "000001",
        37: "632608000001",
        38: "A1B2C3",
        39: "00",
        41: "POS00001",
        42: MERCHANT,
    }
    assert list(message.binary) == [64]


def test_a_balance_is_told_in_de54_and_only_when_approved() -> None:
    pos = terminal()
    step = send(pos, pos.request("0200", BALANCE, CARD, 0, PIN, now=NOW))
    answer = TerminalAnswer(
        outcome=Outcome.APPROVED, rrn="0" * 12, currency="CNY", available=12345, ledger=-50
    )
    assert answered(step, answer).text[54] == "0001156D0000000000500002156C000000012345"
    refused = TerminalAnswer(
        outcome=Outcome.PIN_WRONG, rrn="0" * 12, currency="CNY", available=1, ledger=1
    )
    message = answered(step, refused)
    assert 54 not in message.text
    assert message.text[39] == "55"


def test_equal_requests_and_decisions_give_equal_bytes_and_genuine_ones() -> None:
    pos, session = terminal(), make_session()
    frame = pos.seal(purchase(pos))
    answer = TerminalAnswer(outcome=Outcome.APPROVED, rrn="632608000001", currency="CNY")
    replies = set()
    for now_ms in (NOW_MS, NOW_MS + 5000):
        for gateway in (session, make_session()):  # a restarted gateway, too
            step = gateway.receive(content(frame), now_ms)
            assert isinstance(step, Forward)
            replies.add(gateway.answer(step.request, step.address, answer).frame)
    assert len(replies) == 1
    reply = pos._read(frame, replies.pop())
    assert reply.authentic
    assert reply.approved


def test_an_answer_belongs_to_its_request_alone() -> None:
    pos, session = terminal(), make_session()
    frames = [pos.seal(purchase(pos)) for _ in range(2)]
    step = session.receive(content(frames[0]), NOW_MS)
    assert isinstance(step, Forward)
    answer = TerminalAnswer(outcome=Outcome.APPROVED, rrn="632608000001", currency="CNY")
    response = session.answer(step.request, step.address, answer).frame
    assert pos._read(frames[0], response).authentic
    with pytest.raises(Exception, match="wrong MAC"):
        pos._read(frames[1], response)


def test_every_outcome_and_refusal_has_a_code() -> None:
    assert CODE_OF_OUTCOME.keys() == set(Outcome)
    assert CODE_OF_REFUSAL.keys() == set(Refusal)
    assert all(len(code) == 2 for code in (*CODE_OF_OUTCOME.values(), *CODE_OF_REFUSAL.values()))
    approved = [outcome for outcome, code in CODE_OF_OUTCOME.items() if code == "00"]
    assert approved == [Outcome.APPROVED]


@pytest.mark.parametrize("outcome", Outcome)
def test_every_outcome_can_be_told(outcome: Outcome) -> None:
    pos = terminal()
    answer = TerminalAnswer(outcome=outcome, rrn="0" * 12, currency="CNY")
    assert answered(send(pos, purchase(pos)), answer).text[39] == CODE_OF_OUTCOME[outcome]


# Keys: sign-on and epochs


def sign_on(pos: Terminal, session: Session, now_ms: int = NOW_MS) -> Reply:
    message = pos._management("990000")
    message.binary[62] = bytes(8)
    frame = pos.seal(message, epoch=0)
    step = session.receive(content(frame), now_ms)
    assert isinstance(step, Reply)
    reply = pos._read(frame, step.frame)
    if reply.approved:
        assert reply.authentic
        pos._take(reply.binary[62])
    return step


def purchase_at(pos: Terminal, session: Session, now_ms: int) -> str:
    step = session.receive(content(pos.seal(purchase(pos))), now_ms)
    return "forward" if isinstance(step, Forward) else code_of(step)


def test_without_static_keys_a_terminal_signs_on_first() -> None:
    strict = make_session(record(static_keys=False))
    pos = terminal()
    assert purchase_at(pos, strict, NOW_MS) == "A0"
    assert sign_on(pos, strict).code == "00"
    assert pos.epoch > 0
    assert purchase_at(pos, strict, NOW_MS) == "forward"
    # Another gateway process with the same master key has the same keys.
    assert purchase_at(pos, make_session(record(static_keys=False)), NOW_MS) == "forward"


def test_the_previous_epoch_is_accepted_for_ten_minutes() -> None:
    session, pos = make_session(), terminal()
    message = pos._management("990000")
    message.binary[62] = bytes(8)
    step = session.receive(content(pos.seal(message, epoch=0)), NOW_MS)
    assert isinstance(step, Reply)
    sign_on(pos, session)
    left_s = int.from_bytes(message_of(step.frame).binary[62][2:6], "big")
    assert 0 < left_s <= 86_400
    change = NOW_MS // 1000 * 1000 + left_s * 1000
    first = pos.epoch
    assert purchase_at(pos, session, change - 1) == "forward"
    assert purchase_at(pos, session, change + 599_000) == "forward"
    assert purchase_at(pos, session, change + 600_000) == "A0"
    sign_on(pos, session, change)
    assert pos.epoch == first + 1
    assert purchase_at(pos, session, change + 600_000) == "forward"
    assert purchase_at(pos, session, change - 1) == "A0"  # not before its time


def test_each_terminal_and_epoch_has_keys_of_its_own() -> None:
    session = make_session(record("POS00001"), record("POS00002"), period_s=60)
    seen = set()
    for name in ("POS00001", "POS00002"):
        for minutes in range(3):
            pos = terminal(name)
            sign_on(pos, session, NOW_MS + minutes * 60_000)
            for use in ("mac", "pin"):
                seen.add(pos._module.mac(f"{use}:{pos.epoch}", b"probe"))
    assert len(seen) == 12


@pytest.mark.parametrize("length", [0, 7, 17])
def test_a_sign_on_needs_a_nonce(length: int) -> None:
    pos = terminal()
    message = pos._management("990000")
    if length:
        message.binary[62] = bytes(length)
    assert code_of(send(pos, message)) == "30"


def test_an_echo_is_answered() -> None:
    pos = terminal()
    step = send(pos, pos._management("990001"))
    assert code_of(step) == "00"
    assert isinstance(step, Reply)
    assert message_of(step.frame).mti == "0810"


def test_no_step_shows_card_data() -> None:
    pos = terminal()
    step = send(pos, purchase(pos))
    assert CARD.pan not in repr(step)
    assert PIN not in repr(step)
    track = send(terminal(), pos.request("0200", PURCHASE, Card(CARD.pan, "2812"), 5, track2=True))
    assert CARD.pan not in repr(track)


def test_fuzzed_contents_never_raise() -> None:
    rng = random.Random(20261122)
    pos, session = terminal(), make_session()
    base = [
        content(pos.seal(purchase(pos))),
        content(pos.seal(pos._management("990001"))),
        content(pos.seal(pos.reversal_of(pos.seal(purchase(pos))))),
    ]
    for _ in range(5000):
        raw = bytearray(rng.choice(base))
        for _ in range(rng.randint(1, 6)):
            raw[rng.randrange(5, len(raw))] = rng.randrange(256)
        if rng.random() < 0.3:
            raw = raw[: rng.randint(1, len(raw))]
        step = session.receive(bytes(raw), NOW_MS)
        if isinstance(step, Reply):
            decode(step.frame[13:])


def test_fuzzed_values_under_a_good_mac_never_raise() -> None:
    """A terminal that has gone mad: well-formed, genuine, and senseless."""
    rng = random.Random(7)
    session = make_session()
    for _ in range(2000):
        pos = terminal()
        message = purchase(pos)
        for _ in range(rng.randint(1, 4)):
            number = rng.choice([2, 3, 4, 12, 13, 14, 22, 35, 37, 49, 52, 55, 60])
            if number in (52, 55):
                message.binary[number] = rng.randbytes(16)
            elif rng.random() < 0.2:
                message.text.pop(number, None)
            else:
                length = {2: rng.randint(1, 19), 35: rng.randint(1, 37)}.get(
                    number,
                    {3: 6, 4: 12, 12: 6, 13: 4, 14: 4, 22: 3, 37: 12, 49: 3, 60: 6}.get(number, 1),
                )
                alphabet = "0123456789D" if number == 35 else "0123456789"
                message.text[number] = "".join(rng.choice(alphabet) for _ in range(length))
        step = session.receive(content(pos.seal(message)), NOW_MS)
        assert isinstance(step, Forward | Reply)


def test_the_factories_keys_are_not_all_the_same() -> None:
    assert len({secret(name) for name in ("master", "zone", "tmk:POS00001")}) == 3
