"""A card is presented: what is refused, in which order, and what an approval makes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from nodes.authorization import rules
from nodes.authorization.controls import Conditions, Limit, Measure, PurseTerms, Rule, Terms, Window
from nodes.authorization.model import ACQUIRERS_KINDS, Kind, Outcome
from nodes.authorization.state import (
    CardStanding,
    Decision,
    Facts,
    Hold,
    Move,
    Original,
    Progress,
    Purse,
    Side,
)
from tests.unit.authorization.cases import CARD, START_MS, Books, account, at, moment, request

_PIN_CARD = msgspec.structs.replace(CARD, service_code="206")


def decide(amount: int = 100, facts: dict[str, Any] | None = None, **changes: Any) -> Decision:
    values: dict[str, Any] = {"card": CARD, "account": account(1_000), "terms": Terms()}
    values |= facts or {}
    terms = values.pop("terms")
    kind = changes.pop("kind", Kind.PURCHASE)
    return rules.decide(request(kind, amount, **changes), Facts(moment(), terms, **values))


def test_an_approved_purchase_is_the_next_version_with_one_move() -> None:
    decision = decide(300)
    assert decision.outcome is Outcome.APPROVED
    assert decision.amount == 300
    assert decision.moves == (Move(100, Side.SETTLEMENT, 300),)
    assert decision.account is not None
    assert (decision.account.version, decision.account.balance) == (2, 700)
    assert decision.account.cards == {1: CardStanding("active", uses=1)}
    assert decision.detail.parts == ((100, 300),)


@pytest.mark.parametrize(
    ("amount", "outcome"),
    [(999, Outcome.APPROVED), (1_000, Outcome.APPROVED), (1_001, Outcome.INSUFFICIENT_FUNDS)],
)
@pytest.mark.parametrize("kind", [Kind.PURCHASE, Kind.AUTHORIZATION])
def test_all_that_is_available_can_be_spent(kind: Kind, amount: int, outcome: Outcome) -> None:
    assert decide(amount, kind=kind).outcome is outcome


@pytest.mark.parametrize("kind", [Kind.PURCHASE, Kind.AUTHORIZATION])
@pytest.mark.parametrize(
    ("purse", "available"),
    [
        (Purse(100, "main", 1_000, 400), 600),
        (Purse(100, "main", 1_000, 0, 250), 1_250),
        (Purse(100, "main", -100, 0, 250), 150),
        (Purse(100, "main", 0, 0, 0), 0),
    ],
)
def test_available_is_balance_less_held_plus_overdraft(
    kind: Kind, purse: Purse, available: int
) -> None:
    facts = {"account": account(purses=(purse,))}
    assert decide(available + 1, facts, kind=kind).outcome is Outcome.INSUFFICIENT_FUNDS
    if available:
        assert decide(available, facts, kind=kind).outcome is Outcome.APPROVED


def test_a_refusal_for_funds_names_what_was_compared() -> None:
    purse = Purse(100, "main", 1_000, 400)
    reason = decide(700, {"account": account(purses=(purse,))}).detail.reason
    assert reason is not None
    assert reason.values == {"amount": 700, "available": 600, "balance": 1_000, "held": 400}
    assert rules.explain(reason) == (
        "700 was asked for and 600 is available (balance 1000, held 400)."
    )


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        ("active", Outcome.APPROVED),
        ("inactive", Outcome.CARD_BLOCKED),
        ("blocked", Outcome.CARD_BLOCKED),
        ("cancelled", Outcome.CARD_BLOCKED),
        ("lost", Outcome.CARD_LOST),
        ("stolen", Outcome.CARD_STOLEN),
    ],
)
@pytest.mark.parametrize("kind", [Kind.PURCHASE, Kind.AUTHORIZATION, Kind.BALANCE_INQUIRY])
def test_only_an_active_card_is_taken(kind: Kind, status: str, outcome: Outcome) -> None:
    facts = {"account": account(cards={1: CardStanding(status)})}
    assert decide(0, facts, kind=kind).outcome is outcome


@pytest.mark.parametrize(
    ("expiry", "asked", "outcome"),
    [
        ("2609", None, Outcome.APPROVED),
        ("2609", "2609", Outcome.APPROVED),
        ("2608", None, Outcome.CARD_EXPIRED),
        ("2609", "2610", Outcome.CARD_EXPIRED),
        ("2601", None, Outcome.CARD_EXPIRED),
        ("2701", None, Outcome.APPROVED),
    ],
)
def test_a_card_is_good_to_the_end_of_its_month(
    expiry: str, asked: str | None, outcome: Outcome
) -> None:
    card = msgspec.structs.replace(CARD, expiry=expiry)
    now = at("2026-09-30 23:59")
    facts = Facts(now, Terms(), card=card, account=account())
    assert rules.decide(request(expiry=asked), facts).outcome is outcome


@pytest.mark.parametrize(
    ("left", "block", "matches", "outcome", "left_after"),
    [
        (3, b"b", True, Outcome.APPROVED, 3),
        (1, b"b", True, Outcome.APPROVED, 3),
        (3, b"b", False, Outcome.PIN_WRONG, 2),
        (1, b"b", False, Outcome.PIN_WRONG, 0),
        (1, b"b", None, Outcome.PIN_WRONG, 0),
        (0, b"b", True, Outcome.PIN_TRIES_EXCEEDED, 0),
        (0, None, None, Outcome.PIN_TRIES_EXCEEDED, 0),
        (2, None, None, Outcome.PIN_REQUIRED, 2),
    ],
)
@pytest.mark.parametrize("kind", [Kind.PURCHASE, Kind.AUTHORIZATION, Kind.BALANCE_INQUIRY])
def test_the_pin_has_three_tries(
    kind: Kind,
    left: int,
    block: bytes | None,
    matches: bool | None,
    outcome: Outcome,
    left_after: int,
) -> None:
    facts = {
        "card": _PIN_CARD,
        "account": account(cards={1: CardStanding("active", left)}),
        "pin_matches": matches,
    }
    decision = decide(0, facts, kind=kind, pin_block=block)
    assert decision.outcome is outcome
    assert decision.account is not None
    assert decision.account.cards[1].pin_tries_left == left_after


def test_a_right_pin_gives_the_tries_back_though_funds_are_short() -> None:
    facts = {
        "card": _PIN_CARD,
        "account": account(10, cards={1: CardStanding("active", 1)}),
        "pin_matches": True,
    }
    decision = decide(11, facts, pin_block=b"b")
    assert decision.outcome is Outcome.INSUFFICIENT_FUNDS
    assert decision.account is not None
    assert decision.account.cards[1] == CardStanding("active", 3, 0)


#: Each makes its outcome apply; all that come later in the list apply as well.
_TROUBLES: list[tuple[Outcome, dict[str, Any], dict[str, Any]]] = [
    (Outcome.REVERSED_BEFORE_ARRIVAL, {"reversed_before": True}, {}),
    (Outcome.DEADLINE_PASSED, {}, {"deadline_ms": START_MS - 1}),
    (Outcome.CARD_STOLEN, {"status": "stolen"}, {}),
    (Outcome.CARD_EXPIRED, {}, {"expiry": "3002"}),
    (Outcome.CURRENCY_NOT_PERMITTED, {}, {"currency": "USD"}),
    (Outcome.PIN_WRONG, {}, {"pin_block": b"b"}),
    (Outcome.ACCOUNT_FROZEN, {"frozen": True}, {}),
    (Outcome.CARD_NOT_PERMITTED, {}, {"merchant_id": "MERIDIAN0000009"}),
    (Outcome.USES_EXHAUSTED, {"uses": 2}, {}),
    (Outcome.RULE_DECLINED, {"rules": 3}, {}),
    (Outcome.AMOUNT_LIMIT, {"rules": 2}, {}),
    (Outcome.COUNT_LIMIT, {"rules": 1}, {}),
    (Outcome.INSUFFICIENT_FUNDS, {"balance": 99}, {}),
]
_RULES = (
    Rule("count", "One", limit=Limit(Window.TRANSACTION, Measure.COUNT, 0)),
    Rule("amount", "Little", limit=Limit(Window.TRANSACTION, Measure.AMOUNT, 99)),
    Rule("never", "Never"),
)


@pytest.mark.parametrize("first", range(len(_TROUBLES)))
@pytest.mark.parametrize("kind", [Kind.PURCHASE, Kind.AUTHORIZATION])
def test_of_several_refusals_the_upper_one_is_answered(kind: Kind, first: int) -> None:
    state: dict[str, Any] = {}
    message: dict[str, Any] = {}
    for _, has, says in reversed(_TROUBLES[first:]):
        state |= has
        message |= says
    held = account(
        state.get("balance", 1_000),
        cards={1: CardStanding(state.get("status", "active"), uses=state.get("uses", 0))},
        status="frozen" if state.get("frozen") else "open",
    )
    facts = {
        "account": held,
        "terms": Terms(uses=2, merchants=("MERIDIAN0000001",)),
        "rules": _RULES[: state.get("rules", 0)],
        "reversed_before": state.get("reversed_before", False),
    }
    decision = decide(100, facts, kind=kind, **message)
    assert decision.outcome is _TROUBLES[first][0]
    assert decision.account is not None
    assert decision.account.version == 2
    assert decision.detail.reason is not None
    assert decision.detail.reason.code == decision.outcome.value


@pytest.mark.parametrize("kind", sorted(ACQUIRERS_KINDS - {Kind.REVERSAL}))
def test_an_unknown_card_or_original_is_said_so(kind: Kind) -> None:
    decision = decide(100, {"card": None, "account": None}, kind=kind)
    missing = kind in (Kind.REFUND, Kind.CAPTURE, Kind.INCREMENT, Kind.VOID)
    assert decision.outcome is (Outcome.ORIGINAL_NOT_FOUND if missing else Outcome.CARD_UNKNOWN)
    assert decision.account is None


def test_what_comes_at_its_deadline_is_decided_and_a_moment_later_not() -> None:
    assert decide(deadline_ms=START_MS).outcome is Outcome.APPROVED
    assert decide(deadline_ms=START_MS - 1).outcome is Outcome.DEADLINE_PASSED


def test_a_partial_approval_needs_terminal_and_product() -> None:
    yes = Terms(partial_approval=True)
    part = decide(1_500, {"terms": yes}, partial_ok=True)
    assert (part.outcome, part.amount, part.detail.requested) == (Outcome.APPROVED, 1_000, 1_500)
    assert decide(1_500, {"terms": yes}).outcome is Outcome.INSUFFICIENT_FUNDS
    assert decide(1_500, partial_ok=True).outcome is Outcome.INSUFFICIENT_FUNDS
    empty = {"terms": yes, "account": account(0)}
    assert decide(1_500, empty, partial_ok=True).outcome is Outcome.INSUFFICIENT_FUNDS
    whole = decide(1_000, {"terms": yes}, partial_ok=True)
    assert (whole.amount, whole.detail.requested) == (1_000, None)


def test_an_authorization_holds_and_moves_nothing() -> None:
    decision = decide(300, {"terms": Terms(hold_seconds=60)}, kind=Kind.AUTHORIZATION, number=9)
    assert decision.account is not None
    assert decision.moves == ()
    assert decision.account.purses == (Purse(100, "main", 1_000, 300),)
    txid = request(number=9).txid
    assert decision.account.holds == (Hold(txid, ((100, 300),), START_MS + 60_000),)


_MEAL = PurseTerms("meal", mccs=("5811-5814",), fallback=("gift", "main"))
_PURSES = Terms(purses=(_MEAL, PurseTerms("bus", mccs=("4111",)), PurseTerms("main")))


@pytest.mark.parametrize(
    ("mcc", "amount", "parts"),
    [
        ("5812", 50, ((200, 50),)),
        ("5811", 51, ((200, 50), (300, 1))),
        ("5814", 100, ((200, 50), (300, 30), (100, 20))),
        ("5814", 180, ((200, 50), (300, 30), (100, 100))),
        ("5814", 181, None),
        ("5815", 100, ((100, 100),)),
        ("5815", 101, None),
        ("4111", 40, ((400, 40),)),
        ("4111", 41, None),
    ],
)
@pytest.mark.parametrize("kind", [Kind.PURCHASE, Kind.AUTHORIZATION])
def test_the_mcc_picks_the_purse_and_its_fallbacks_pay_the_rest(
    kind: Kind, mcc: str, amount: int, parts: tuple[tuple[int, int], ...] | None
) -> None:
    purses = (
        Purse(100, "main", 100),
        Purse(200, "meal", 50),
        Purse(300, "gift", 30),
        Purse(400, "bus", 40),
    )
    decision = decide(
        amount, {"account": account(purses=purses), "terms": _PURSES}, kind=kind, mcc=mcc
    )
    if parts is None:
        assert decision.outcome is Outcome.INSUFFICIENT_FUNDS
    else:
        assert decision.outcome is Outcome.APPROVED
        assert decision.detail.parts == parts


def test_an_mcc_that_no_purse_takes_is_not_for_this_card() -> None:
    terms = Terms(purses=(PurseTerms("main", mccs=("5812",)),))
    decision = decide(10, {"terms": terms}, mcc="5411")
    assert decision.outcome is Outcome.CARD_NOT_PERMITTED
    assert decide(10, {"terms": terms}, mcc="5812").outcome is Outcome.APPROVED


def test_a_card_of_three_uses_is_used_three_times_and_a_reversal_gives_one_back() -> None:
    books = Books(account(1_000), Terms(uses=3))
    outcomes = [books.ask(kind, 10).outcome for kind in (Kind.PURCHASE, Kind.AUTHORIZATION)]
    outcomes += [books.ask(Kind.PURCHASE, 2_000).outcome, books.ask(Kind.PURCHASE, 10).outcome]
    third = books.last
    outcomes.append(books.ask(Kind.PURCHASE, 10).outcome)
    assert outcomes == [
        Outcome.APPROVED,
        Outcome.APPROVED,
        Outcome.INSUFFICIENT_FUNDS,
        Outcome.APPROVED,
        Outcome.USES_EXHAUSTED,
    ]
    assert books.ask(Kind.BALANCE_INQUIRY, 0).outcome is Outcome.APPROVED
    assert books.ask(Kind.REVERSAL, 4, third).outcome is Outcome.APPROVED
    assert books.ask(Kind.PURCHASE, 10).outcome is Outcome.USES_EXHAUSTED
    assert books.ask(Kind.REVERSAL, 6, third).outcome is Outcome.APPROVED
    assert books.ask(Kind.PURCHASE, 10).outcome is Outcome.APPROVED
    assert books.ask(Kind.PURCHASE, 10).outcome is Outcome.USES_EXHAUSTED


@pytest.mark.parametrize("status", ["active", "blocked", "stolen"])
@pytest.mark.parametrize("frozen", ["open", "frozen", "closed"])
def test_an_advice_posts_whatever_stands_against_it(status: str, frozen: str) -> None:
    held = account(60, cards={1: CardStanding(status, 0, 5)}, status=frozen)
    facts = {"account": held, "terms": Terms(uses=1, merchants=("X",)), "rules": _RULES}
    decision = decide(100, facts, kind=Kind.ADVICE)
    assert (decision.outcome, decision.amount) == (Outcome.APPROVED, 100)
    assert decision.moves == (
        Move(100, Side.SETTLEMENT, 60),
        Move(Side.RECEIVABLE, Side.SETTLEMENT, 40),
    )
    assert decision.account is not None
    assert (decision.account.balance, decision.account.receivable) == (0, 40)
    assert decision.detail.shortfall == 40
    assert decision.account.cards[1].uses == 6
    assert [reason.code for reason in decision.detail.shadow] == ["rule_declined"]


def test_an_advice_in_another_currency_cannot_be_posted() -> None:
    decision = decide(100, kind=Kind.ADVICE, currency="USD")
    assert decision.outcome is Outcome.CURRENCY_NOT_PERMITTED


def test_what_is_owed_is_repaid_by_the_next_money_that_comes() -> None:
    books = Books(account(60))
    books.ask(Kind.ADVICE, 100)
    assert books.load(30).moves == (
        Move(Side.FUNDING, 100, 30),
        Move(100, Side.RECEIVABLE, 30),
    )
    assert (books.account.balance, books.account.receivable) == (0, 10)
    books.load(25)
    assert (books.account.balance, books.account.receivable) == (15, 0)


def test_holds_whose_time_is_over_are_released_before_anything_is_decided() -> None:
    txid = b"h" * 32
    held = account(
        purses=(Purse(100, "main", 1_000, 900),), holds=(Hold(txid, ((100, 900),), START_MS),)
    )
    decision = decide(1_000, {"account": held})
    assert decision.outcome is Outcome.APPROVED
    assert decision.detail.expired == ((txid, 900),)
    refused = decide(1_001, {"account": held})
    assert refused.outcome is Outcome.INSUFFICIENT_FUNDS
    assert refused.detail.expired == ((txid, 900),)
    assert refused.account is not None
    assert (refused.account.held, refused.account.holds) == (0, ())
    later = msgspec.structs.replace(held, holds=(Hold(txid, ((100, 900),), START_MS + 1),))
    assert decide(101, {"account": later}).outcome is Outcome.INSUFFICIENT_FUNDS


def test_an_acquirer_learns_by_a_late_follow_up_that_there_is_no_original() -> None:
    late = decide(10, kind=Kind.REFUND, original_txid=b"?" * 32, deadline_ms=1)
    assert late.outcome is Outcome.ORIGINAL_NOT_FOUND
    original = Original(
        b"p" * 32,
        Kind.PURCHASE,
        Outcome.APPROVED,
        10,
        "CNY",
        "harbor",
        "MERIDIAN0000001",
        "T0000001",
        100,
        CARD.card_token,
        None,
        "5411",
        START_MS,
        Progress(10),
        parts=((100, 10),),
    )
    facts = {"original": original, "card": None}
    known = decide(10, facts, kind=Kind.REFUND, original_txid=b"p" * 32, deadline_ms=1)
    assert known.outcome is Outcome.DEADLINE_PASSED


def test_conditions_about_other_kinds_leave_a_purchase_alone() -> None:
    only = Rule("loads", "No loads", Conditions(kinds=("load",)))
    assert decide(10, {"rules": (only,)}).outcome is Outcome.APPROVED
