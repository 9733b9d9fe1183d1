"""Spend rules made and ended, accounts frozen and opened, by the people of an institution."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from playwright.sync_api import Page, expect

from nodes.authorization.model import Outcome
from tests.browser.conftest import Watch
from tests.browser.issuing import Issuing

Enter = Callable[..., Page]


def _pay(issuing: Issuing, *payment: Any) -> Outcome:
    """The outcome of a payment; in a thread of its own: Playwright's loop runs in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(issuing.pay, *payment).result().outcome


def test_a_rule_is_made_declines_and_is_ended(
    page: Page, watch: Watch, issuing: Issuing, enter: Enter, accessible: Callable[[Page], None]
) -> None:
    watch.expected += ["422", "409"]
    issuing.card("ruled", "standard", {"main": 50_000})
    account = issuing.cards["ruled"].account_id
    enter(path="/rules", username="operator")
    page.get_by_role("link", name="New rule").click()
    page.get_by_role("button", name="Make it").click()
    for name in ("subject", "name", "maximum"):
        expect(page.locator(f"#{name}")).to_have_attribute("aria-invalid", "true")
    accessible(page)
    page.get_by_label("Product, account number or card token").fill(str(account))
    page.get_by_label("Name").fill("Twenty a day")
    page.get_by_label("At most").fill("20.00")
    page.get_by_role("button", name="Make it").dblclick()
    row = page.locator("#results .window").filter(has_text="Twenty a day")
    expect(row).to_contain_text("at most 20.00 CNY a day")
    assert _pay(issuing, "over_rule", "ruled", "stores", 2_500) is Outcome.AMOUNT_LIMIT
    rule_id = row.get_attribute("data-rule") or ""
    row.get_by_text("End it").click()
    row.get_by_label("Type").fill("no")
    row.get_by_role("button", name="End this rule").click()
    expect(page.get_by_text(f"Type {rule_id[:8]} to confirm")).to_be_visible()
    page.get_by_role("link", name="Back").click()
    row.get_by_text("End it").click()
    row.get_by_label("Type").fill(rule_id[:8])
    row.get_by_role("button", name="End this rule").click()
    expect(row).to_contain_text("Ended")
    assert _pay(issuing, "after_rule", "ruled", "stores", 2_500) is Outcome.APPROVED


def test_an_account_is_frozen_and_opened_again_with_a_reason(
    page: Page, watch: Watch, issuing: Issuing, enter: Enter, accessible: Callable[[Page], None]
) -> None:
    watch.expected.append("409")
    issuing.card("iced", "standard", {"main": 50_000})
    account = issuing.cards["iced"].account_id
    enter(path=f"/accounts/{account}", username="operator")
    page.get_by_text("Freeze this account").click()
    accessible(page)
    page.get_by_label("Reason").fill("lost phone")
    page.get_by_role("button", name="Freeze").click()
    expect(page.get_by_text(f"Type the account's number, {account}")).to_be_visible()
    page.get_by_role("link", name="Back").click()
    page.get_by_text("Freeze this account").click()
    page.get_by_label("Reason").fill("lost phone")
    page.get_by_label("to confirm").fill(str(account))
    page.get_by_role("button", name="Freeze").click()
    expect(page.locator("[data-account-state=frozen]").first).to_be_visible()
    assert _pay(issuing, "iced_pay", "iced", "stores", 1_000) is Outcome.ACCOUNT_FROZEN
    page.get_by_text("Open this account again").click()
    page.get_by_label("Reason").fill("found")
    page.get_by_label("to confirm").fill(str(account))
    page.get_by_role("button", name="Open", exact=True).click()
    expect(page.locator("[data-account-state=open]").first).to_be_visible()
    assert _pay(issuing, "warm_pay", "iced", "stores", 1_000) is Outcome.APPROVED


def test_who_has_no_key_of_their_own_changes_nothing(
    page: Page, issuing: Issuing, enter: Enter
) -> None:
    account = issuing.cards["mei"].account_id
    enter(path=f"/accounts/{account}", username="otto")
    expect(page.get_by_text("Freeze this account")).to_have_count(0)
    for path, form in (
        (f"accounts/{account}/status", {"status": "frozen", "reason": "x", "confirm": "x"}),
        ("rules/new", {"scope": "account"}),
    ):
        refused = page.request.post(
            f"{issuing.home}/{path}", form=form, headers={"Origin": issuing.url}
        )
        assert refused.status == 403
