"""Authorizations, completions, voids, advices, partial approvals: from the frame to the request.

And back: what the terminal is told of a decision about them.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest

from gateway.iso8583.codec import Message
from gateway.pos.response_codes import CODE_OF_OUTCOME
from gateway.pos.session import Forward, Session, Step
from gateway.pos.session import Reply as Answered
from nodes.authorization.model import ACQUIRERS_KINDS, FOLLOW_UPS, Kind, Outcome, TerminalAnswer
from sandbox.terminal import (
    BALANCE,
    INCREMENTAL,
    NORMAL,
    PREAUTHORIZED,
    PURCHASE,
    REFUND,
    VOID,
    Reply,
    Terminal,
)
from tests.factories.pos import CARD, NOW_MS, PIN, content, luhn, make_session, message_of, terminal

NOW = datetime.fromtimestamp(NOW_MS / 1000, tz=UTC)
RRN = "632608000001"


class Counter:
    """A terminal whose frames go straight to a session; decisions are given by the test."""

    def __init__(self) -> None:
        self.session: Session = make_session()
        self.pos: Terminal = terminal()

    def message(
        self,
        mti: str,
        code: str,
        condition: str = NORMAL,
        rrn: str | None = None,
        amount: int = 500,
    ) -> Message:
        return self.pos.request(mti, code, CARD, amount, condition=condition, original=rrn, now=NOW)

    def send(self, message: Message) -> Step:
        return self.session.receive(content(self.pos.seal(message)), NOW_MS)

    def forwarded(self, message: Message) -> Forward:
        step = self.send(message)
        assert isinstance(step, Forward), step
        return step

    def refused(self, message: Message) -> str:
        step = self.send(message)
        assert isinstance(step, Answered), step
        return step.code

    def answer(self, message: Message, **decision: object) -> Reply:
        """The terminal's reading of the answer to a message that was decided so."""
        frame = self.pos.seal(message)
        step = self.session.receive(content(frame), NOW_MS)
        assert isinstance(step, Forward), step
        values = {"outcome": Outcome.APPROVED, "rrn": RRN, "currency": "CNY", **decision}
        made = TerminalAnswer(**values)  # type: ignore[arg-type]
        return self.pos._read(frame, self.session.answer(step.request, step.address, made).frame)


#: MTI, DE3, DE25, whether DE37 names an original, and what it means.
SERVED = [
    ("0100", PURCHASE, PREAUTHORIZED, False, Kind.AUTHORIZATION),
    ("0100", PURCHASE, NORMAL, False, Kind.AUTHORIZATION),
    ("0100", PURCHASE, INCREMENTAL, True, Kind.INCREMENT),
    ("0100", VOID, PREAUTHORIZED, True, Kind.VOID),
    ("0200", PURCHASE, NORMAL, False, Kind.PURCHASE),
    ("0200", VOID, NORMAL, True, Kind.VOID),
    ("0200", VOID, PREAUTHORIZED, True, Kind.VOID),
    ("0200", REFUND, NORMAL, True, Kind.REFUND),
    ("0200", "210000", NORMAL, False, Kind.TOP_UP),
    ("0120", PURCHASE, NORMAL, False, Kind.AUTHORIZATION),
    ("0221", PURCHASE, PREAUTHORIZED, True, Kind.CAPTURE),
    ("0401", PURCHASE, NORMAL, False, Kind.REVERSAL),
    ("0420", "210000", NORMAL, False, Kind.REVERSAL),
    ("0421", PURCHASE, NORMAL, False, Kind.REVERSAL),
    ("0220", PURCHASE, PREAUTHORIZED, True, Kind.CAPTURE),
    ("0220", PURCHASE, NORMAL, False, Kind.ADVICE),
    ("0400", PURCHASE, PREAUTHORIZED, False, Kind.REVERSAL),
    ("0400", PURCHASE, INCREMENTAL, False, Kind.REVERSAL),
]


@pytest.mark.parametrize(("mti", "code", "condition", "follow_up", "kind"), SERVED)
def test_type_processing_code_and_condition_give_the_kind(
    mti: str, code: str, condition: str, follow_up: bool, kind: Kind
) -> None:
    counter = Counter()
    request = counter.forwarded(counter.message(mti, code, condition, RRN)).request
    assert request.kind is kind
    assert (request.amount, request.pan, request.channel) == (500, CARD.pan, "pos")
    # An original is passed on only where the message follows one up.
    assert request.rrn == (RRN if follow_up else None)


def test_everything_an_acquirer_may_ask_for_has_a_message() -> None:
    assert {kind for *_, kind in SERVED} | {Kind.BALANCE_INQUIRY} == ACQUIRERS_KINDS


@pytest.mark.parametrize(("mti", "code", "condition", "follow_up", "kind"), SERVED)
def test_a_follow_up_names_its_original(
    mti: str, code: str, condition: str, follow_up: bool, kind: Kind
) -> None:
    counter = Counter()
    message = counter.message(mti, code, condition)
    if follow_up:
        assert counter.refused(message) == "30"
    else:
        assert counter.forwarded(message).request.kind is kind


@pytest.mark.parametrize(
    ("mti", "code", "condition"),
    [
        ("0100", REFUND, NORMAL),
        ("0100", BALANCE, NORMAL),
        ("0100", "010000", NORMAL),
        ("0220", PURCHASE, INCREMENTAL),
        ("0220", PURCHASE, "59"),
        ("0220", VOID, NORMAL),
        ("0220", REFUND, NORMAL),
        ("0400", VOID, NORMAL),
        ("0400", BALANCE, NORMAL),
        ("0120", VOID, NORMAL),
        ("0201", PURCHASE, NORMAL),
        ("0221", PURCHASE, INCREMENTAL),
        ("0421", VOID, NORMAL),
        ("0500", PURCHASE, NORMAL),
    ],
)
def test_other_combinations_are_answered_12(mti: str, code: str, condition: str) -> None:
    counter = Counter()
    assert counter.refused(counter.message(mti, code, condition, RRN)) == "12"


def test_a_0220_says_what_it_is_in_de25() -> None:
    counter = Counter()
    message = counter.message("0220", PURCHASE, NORMAL, RRN)
    del message.text[25]
    assert counter.refused(message) == "12"


@pytest.mark.parametrize(("mti", "code", "condition", "follow_up", "kind"), SERVED)
def test_the_amount_is_checked_whatever_the_message(
    mti: str, code: str, condition: str, follow_up: bool, kind: Kind
) -> None:
    counter = Counter()
    assert counter.refused(counter.message(mti, code, condition, RRN, amount=0)) == "13"
    over = counter.message(mti, code, condition, RRN, amount=10_000_000_001)
    assert counter.refused(over) == "13"
    message = counter.message(mti, code, condition, RRN)
    del message.text[4]
    assert counter.refused(message) == "30"


@pytest.mark.parametrize(
    ("mti", "code", "condition", "needed"),
    [
        ("0100", PURCHASE, PREAUTHORIZED, True),
        ("0100", PURCHASE, INCREMENTAL, True),
        ("0220", PURCHASE, NORMAL, True),
        ("0220", PURCHASE, PREAUTHORIZED, False),
        ("0100", VOID, NORMAL, False),
        ("0200", VOID, NORMAL, False),
    ],
)
def test_what_takes_back_or_takes_from_a_hold_needs_no_expiry(
    mti: str, code: str, condition: str, needed: bool
) -> None:
    counter = Counter()
    message = counter.message(mti, code, condition, RRN)
    del message.text[14]
    if needed:
        assert counter.refused(message) == "30"
    else:
        assert counter.forwarded(message).request.expiry is None
    del message.text[2]
    assert counter.refused(message) == "30"


def test_an_authorization_carries_its_pin() -> None:
    counter = Counter()
    message = counter.pos.request("0100", PURCHASE, CARD, 500, PIN, now=NOW)
    block = counter.forwarded(message).request.pin_block
    purchase = counter.pos.request("0200", PURCHASE, CARD, 500, PIN, now=NOW)
    assert block is not None
    assert counter.forwarded(purchase).request.pin_block == block
    message.text[2] = luhn("622300100009999")
    assert counter.refused(message) == "55"


@pytest.mark.parametrize(("condition", "channel"), [("00", "pos"), ("59", "ecommerce")])
def test_an_order_over_the_network_is_another_channel(condition: str, channel: str) -> None:
    counter = Counter()
    for mti in ("0100", "0200"):
        message = counter.message(mti, PURCHASE, condition)
        assert counter.forwarded(message).request.channel == channel


# The flags of DE60


@pytest.mark.parametrize(
    ("mti", "code", "condition", "flags", "partial_ok", "final"),
    [
        ("0100", PURCHASE, NORMAL, "", False, False),
        ("0100", PURCHASE, NORMAL, "10", True, False),
        ("0200", PURCHASE, NORMAL, "10", True, False),
        ("0200", PURCHASE, NORMAL, "00", False, False),
        # Where there is no partial approval the terminal's capability means nothing.
        ("0100", PURCHASE, INCREMENTAL, "10", False, False),
        ("0200", REFUND, NORMAL, "10", False, False),
        ("0400", PURCHASE, NORMAL, "11", False, False),
        # A completion is the last one unless it says otherwise.
        ("0220", PURCHASE, PREAUTHORIZED, "", False, True),
        ("0220", PURCHASE, PREAUTHORIZED, "00", False, True),
        ("0220", PURCHASE, PREAUTHORIZED, "10", False, True),
        ("0220", PURCHASE, PREAUTHORIZED, "01", False, False),
        ("0220", PURCHASE, NORMAL, "01", False, False),
    ],
)
def test_the_flags_mean_something_where_the_table_says_so(
    mti: str, code: str, condition: str, flags: str, partial_ok: bool, final: bool
) -> None:
    counter = Counter()
    message = counter.message(mti, code, condition, RRN)
    message.text[60] = f"000017{flags}"
    request = counter.forwarded(message).request
    assert request.batch == "000017"
    assert (request.partial_ok, request.final) == (partial_ok, final)


@pytest.mark.parametrize("flags", ["0", "1", "20", "02", "99"])
def test_other_flags_are_a_format_error(flags: str) -> None:
    counter = Counter()
    message = counter.message("0200", PURCHASE)
    message.text[60] += flags
    assert counter.refused(message) == "30"


def test_the_flags_are_content() -> None:
    counter = Counter()
    message = counter.message("0200", PURCHASE)
    plain = counter.forwarded(message).request.fingerprint
    message.text[60] += "10"
    assert counter.forwarded(message).request.fingerprint != plain


# Reversals


def test_a_reversal_may_be_of_a_part() -> None:
    counter = Counter()
    for mti in ("0100", "0200"):
        original = counter.pos.seal(counter.message(mti, PURCHASE, amount=1250))
        sent = message_of(original).text
        for amount, expected in ((None, 1250), (300, 300)):
            request = counter.forwarded(counter.pos.reversal_of(original, amount)).request
            assert (request.kind, request.amount) == (Kind.REVERSAL, expected)
            assert (request.stan, request.batch) == (sent[11], sent[60])
            assert request.rrn is None


def test_a_reversal_repeats_its_originals_flags_and_names_it_by_its_batch() -> None:
    counter = Counter()
    completion = counter.message("0220", PURCHASE, PREAUTHORIZED, RRN)
    completion.text[60] += "01"
    request = counter.forwarded(counter.pos.reversal_of(counter.pos.seal(completion))).request
    assert (request.kind, request.batch) == (Kind.REVERSAL, "000001")


# What the terminal is told


@pytest.mark.parametrize("mti", ["0100", "0200"])
@pytest.mark.parametrize("asked", [True, False])
def test_a_part_that_is_approved_is_told_with_its_amount(mti: str, asked: bool) -> None:
    """Also to a terminal that didn't ask for it: never 00 for less than the amount."""
    counter = Counter()
    message = counter.message(mti, PURCHASE, amount=1250)
    if asked:
        message.text[60] += "10"
    reply = counter.answer(message, amount=800, approval_code="A1B2C3")
    assert (reply.mti, reply.code, reply.partial_amount) == (f"{mti[:2]}10", "10", 800)
    assert reply.fields[4] == "000000000800"
    assert (reply.fields[37], reply.fields[38]) == (RRN, "A1B2C3")
    assert not reply.approved
    assert reply.authentic


def test_the_whole_amount_is_told_without_one() -> None:
    counter = Counter()
    reply = counter.answer(counter.message("0200", PURCHASE, amount=1250), amount=1250)
    assert (reply.code, reply.partial_amount) == ("00", None)
    assert 4 not in reply.fields


def test_a_declined_request_is_no_partial_approval() -> None:
    counter = Counter()
    message = counter.message("0200", PURCHASE, amount=1250)
    reply = counter.answer(message, amount=800, outcome=Outcome.INSUFFICIENT_FUNDS)
    assert reply.code == "51"
    assert 4 not in reply.fields


@pytest.mark.parametrize(
    ("mti", "code", "condition"),
    [
        ("0400", PURCHASE, NORMAL),  # reverses what was approved: perhaps less than was asked for
        ("0100", VOID, NORMAL),  # releases what is still held
        ("0220", PURCHASE, PREAUTHORIZED),
    ],
)
def test_a_lesser_amount_elsewhere_is_no_partial_approval(
    mti: str, code: str, condition: str
) -> None:
    counter = Counter()
    reply = counter.answer(counter.message(mti, code, condition, RRN, 1250), amount=800)
    assert reply.code == "00"
    assert 4 not in reply.fields


@pytest.mark.parametrize(("mti", "answer"), [("0100", "0110"), ("0220", "0230"), ("0400", "0410")])
def test_the_answer_has_the_requests_type(mti: str, answer: str) -> None:
    counter = Counter()
    reply = counter.answer(counter.message(mti, PURCHASE), amount=500)
    assert (reply.mti, reply.code, reply.rrn) == (answer, "00", RRN)


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (Outcome.HOLD_ENDED, "12"),
        (Outcome.UNDER_DISPUTE, "57"),
        (Outcome.ACCOUNT_FROZEN, "62"),
        (Outcome.CARD_NOT_PERMITTED, "57"),
        (Outcome.USES_EXHAUSTED, "65"),
        (Outcome.RULE_DECLINED, "57"),
        (Outcome.AMOUNT_LIMIT, "61"),
        (Outcome.COUNT_LIMIT, "65"),
        (Outcome.OVER_ORIGINAL_AMOUNT, "64"),
        (Outcome.ORIGINAL_NOT_FOUND, "25"),
    ],
)
def test_why_it_was_declined_is_told(outcome: Outcome, code: str) -> None:
    assert CODE_OF_OUTCOME[outcome] == code
    counter = Counter()
    message = counter.message("0220", PURCHASE, PREAUTHORIZED, RRN)
    assert counter.answer(message, outcome=outcome).code == code


def test_any_combination_is_served_as_the_table_says_or_refused() -> None:
    rng = random.Random(83)
    served = {(mti, code, condition): kind for mti, code, condition, _, kind in SERVED}
    counter = Counter()
    for _ in range(2000):
        mti = rng.choice(["0100", "0200", "0220", "0400"])
        code = rng.choice([PURCHASE, VOID, REFUND, BALANCE, "010000"])
        condition = rng.choice([NORMAL, PREAUTHORIZED, INCREMENTAL])
        message = counter.message(mti, code, condition, rng.choice([None, RRN]))
        message.text[60] += rng.choice(["", "00", "01", "10", "11", "1", "30"])
        if rng.random() < 0.1:
            del message.text[rng.choice([2, 4, 14, 22, 25, 49])]
        step = counter.send(message)
        if isinstance(step, Forward):
            request = step.request
            assert (request.rrn is not None) == (request.kind in FOLLOW_UPS - {Kind.REVERSAL})
            expected = served.get((mti, code, message.text.get(25, NORMAL)))
            assert expected is None or request.kind is expected
        else:
            assert isinstance(step, Answered)
            assert step.code in ("12", "13", "30")
