"""A product's terms as people type and read them."""

from __future__ import annotations

from typing import Any

import pytest

from console import product_terms
from nodes.api.issuing_schemas import TermsBody

PLAIN: dict[str, Any] = TermsBody().model_dump(mode="json")
WALLET: dict[str, Any] = TermsBody.model_validate(
    {
        "reloadable": False,
        "uses": 20,
        "merchants": ["HARBOR000000001"],
        "purses": [
            {"name": "meal", "mccs": ["5811-5814"], "fallback": ["cash"]},
            {"name": "cash"},
        ],
        "partial_approval": True,
        "hold_seconds": 90 * 60,
        "over_capture_percent": {"5812": 20, "7011-7012": 15},
        "transfers": True,
        "max_balance": 123_450,
        "entry": {"manual": True, "quick_pay_count": 2, "signature_amount": 5_000},
    }
).model_dump(mode="json")


@pytest.mark.parametrize("terms", [PLAIN, WALLET])
def test_a_form_that_is_sent_as_it_was_shown_says_the_same(terms: dict[str, Any]) -> None:
    assert product_terms.for_node(terms, product_terms.texts_of(terms)) == (terms, {})


def test_what_differs_is_named_with_both_values() -> None:
    later = WALLET | {"max_balance": None, "hold_seconds": 86_400, "over_capture_percent": {}}
    assert product_terms.changes(WALLET, later) == [
        ("Highest balance", "1,234.50 CNY", "no limit"),
        ("Holds last", "90 minutes", "1 day"),
        ("Captures above the hold", "5812 20 %, 7011-7012 15 %", "no"),
    ]
    assert product_terms.changes(WALLET, WALLET) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("holds", "a while"),
        ("holds", ""),
        ("max_balance", "12.345"),
        ("uses", "-1"),
        ("over_capture", "5812"),
        ("over_capture", "20 %"),
        ("quick_pay_amount", ""),
        ("fallback_count", "three"),
    ],
)
def test_what_can_not_be_meant_is_named_by_its_field(name: str, text: str) -> None:
    typed = product_terms.texts_of(PLAIN) | {name: text}
    assert set(product_terms.for_node(PLAIN, typed)[1]) == {name}


def test_what_the_node_finds_wrong_stands_at_the_field_that_shows_it() -> None:
    places = {
        "hold_seconds": "a hold lasts 1 to 31622400 seconds",
        "purses.fallback": "a fallback names another purse of the product",
        "body.terms.entry.quick_pay_count": "at most 100",
        "time_zone": "the time zone stays",
    }
    assert product_terms.fields_of(places, WALLET) == {
        "holds": "a hold lasts 1 to 31622400 seconds",
        "fallback_0": "a fallback names another purse of the product",
        "quick_pay_count": "at most 100",
        "form": "time_zone: the time zone stays",
    }
