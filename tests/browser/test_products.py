"""Products: their terms, proposed by one person and checked by another."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Watch
from tests.browser.issuing import Issuing

Enter = Callable[..., Page]
_numbers = itertools.count(1)


@pytest.fixture
def product(issuing: Issuing) -> str:
    """A product of this test's own, with two purses."""
    product_id = f"canteen-{next(_numbers)}"
    meal = {"name": "meal", "mccs": ["5811-5814"], "fallback": ["cash"]}
    terms = {"purses": [meal, {"name": "cash"}], "max_balance": 100_000, "hold_seconds": 129_600}
    body = {"product_id": product_id, "name": "Canteen card", "terms": terms}
    issuing.post("/v1/products", body)
    return product_id


def _propose(page: Page, issuing: Issuing, product: str, **fields: str) -> None:
    page.goto(f"{issuing.home}/products/{product}")
    page.get_by_role("link", name="Propose other terms").click()
    for label, text in fields.items():
        page.locator(f"#{label}").fill(text)
    page.get_by_role("button", name="Propose").click()


def test_terms_that_one_proposes_another_approves_and_they_are_in_force(
    page: Page,
    issuing: Issuing,
    enter: Enter,
    product: str,
    accessible: Callable[[Page], None],
) -> None:
    enter(path="/products", username="operator")
    row = page.locator(f"[data-product={product}]")
    expect(row).to_contain_text("meal, cash")
    accessible(page)
    row.get_by_role("link").click()
    expect(page.locator("#in-force")).to_contain_text("1,000.00 CNY")
    expect(page.locator("#in-force")).to_contain_text("36 hours")
    _propose(page, issuing, product, max_balance="2,500", holds="14 days", reason="hotels ask")
    version = page.locator("[data-version='2']")
    expect(version).to_have_attribute("data-terms-state", "proposed")
    expect(version.locator("tbody tr")).to_have_count(2)
    expect(version).to_contain_text("2,500.00 CNY")
    expect(version).to_contain_text("You proposed this: somebody else must check it.")
    expect(version.get_by_role("button")).to_have_count(0)
    # The buttons are a help; the node itself refuses the maker.
    refused = page.request.post(
        f"{issuing.home}/products/{product}/terms/2/approve",
        headers={"Origin": issuing.url},
        max_redirects=0,
    )
    assert refused.status == 409
    assert "somebody else must check it" in refused.text()
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/sign-in*")
    enter(path=f"/products/{product}", username="admin")
    version.get_by_role("button", name="Approve").click()
    for _ in range(40):
        if version.get_attribute("data-terms-state") == "in_force":
            break
        page.wait_for_timeout(250)
        page.reload()
    expect(version).to_have_attribute("data-terms-state", "in_force")
    expect(page.locator("#in-force")).to_contain_text("14 days")
    terms = issuing.get(f"/v1/products/{product}")["terms"]
    assert (terms["max_balance"], terms["hold_seconds"]) == (250_000, 14 * 86_400)
    # What wasn't in the form's focus stays: purses with their MCCs and fallback.
    assert terms["purses"][0] == {"name": "meal", "mccs": ["5811-5814"], "fallback": ["cash"]}
    accessible(page)


def test_rejected_terms_change_nothing(
    page: Page, issuing: Issuing, enter: Enter, product: str
) -> None:
    proposal = {
        "terms": issuing.get(f"/v1/products/{product}")["terms"] | {"transfers": True},
        "reason": "asked for by holders",
    }
    issuing.post(f"/v1/products/{product}/terms", proposal)
    enter(path=f"/products/{product}", username="admin")
    version = page.locator("[data-version='2']")
    version.get_by_role("button", name="Reject").click()
    expect(version).to_have_attribute("data-terms-state", "rejected")
    expect(version.get_by_role("button")).to_have_count(0)
    assert issuing.get(f"/v1/products/{product}")["version"] == 1


def test_terms_that_can_not_be_meant_are_explained_at_their_fields(
    page: Page,
    watch: Watch,
    issuing: Issuing,
    enter: Enter,
    product: str,
    accessible: Callable[[Page], None],
) -> None:
    watch.expected.append("422")
    enter(username="operator")
    _propose(page, issuing, product, holds="soon", max_balance="lots", reason="")
    for name in ("holds", "max_balance", "reason"):
        expect(page.locator(f"#{name}")).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#holds")).to_have_value("soon")
    accessible(page)
    # What only the node knows stands at its field, too.
    _propose(page, issuing, product, fallback_0="wallet", reason="another fallback")
    expect(page.locator("#fallback_0")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_text("a fallback names another purse of the product")).to_be_visible()
    _propose(page, issuing, product, reason="nothing at all")
    expect(page.get_by_text("These are the terms in force")).to_be_visible()


def test_who_has_no_key_of_their_own_only_reads_terms(
    page: Page, watch: Watch, issuing: Issuing, enter: Enter, product: str
) -> None:
    watch.expected.append("403")
    enter(path=f"/products/{product}", username="otto")
    expect(page.get_by_role("link", name="Propose other terms")).to_have_count(0)
    page.goto(f"{issuing.home}/products/{product}/propose")
    expect(page.get_by_text("Not allowed")).to_be_visible()
