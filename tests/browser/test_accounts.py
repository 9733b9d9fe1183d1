"""Accounts: the list, and one account with purses, holds, limits, cards and its history."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Watch
from tests.browser.issuing import Issuing

Enter = Callable[..., Page]


def test_the_list_leads_to_an_account_and_keeps_its_filters_in_the_address(
    page: Page, issuing: Issuing, enter: Enter
) -> None:
    enter()
    page.get_by_role("link", name="Accounts", exact=True).click()
    page.get_by_label("Kind").select_option("cardholder")
    expect(page.locator("#results .chip")).to_contain_text("Cardholder")
    assert page.url == f"{issuing.home}/accounts?kind=cardholder"
    mei = issuing.cards["mei"]
    row = page.locator(f"tr[data-account='{mei.account_id}']")
    expect(row).to_contain_text("0.00 CNY")
    row.get_by_role("link").click()
    expect(page.get_by_role("heading", name=f"Account {mei.account_id}")).to_be_visible()


def test_a_card_token_or_a_number_leads_straight_to_its_account(
    page: Page, issuing: Issuing, enter: Enter
) -> None:
    enter("/accounts")
    mei = issuing.cards["mei"]
    for text in (mei.card_token.hex(), str(mei.account_id)):
        page.goto(f"{issuing.home}/accounts")
        page.get_by_label("Search").fill(text)
        page.keyboard.press("Enter")
        page.wait_for_url(f"{issuing.home}/accounts/{mei.account_id}")
    page.goto(f"{issuing.home}/accounts?q=nobody")
    expect(page.get_by_text("No account fits")).to_be_visible()


def test_balances_stand_by_purse(page: Page, issuing: Issuing, enter: Enter) -> None:
    enter(f"/accounts/{issuing.cards['mei'].account_id}")
    state = issuing.get(f"/v1/accounts/{issuing.cards['mei'].account_id}")["card_account"]
    figures = page.locator(".kpi-value").all_inner_texts()
    shown = [f"{state[name] / 100:,.2f} CNY" for name in ("balance", "held", "available")]
    assert figures == [*shown, "0.00 CNY"]
    rows = page.locator("#purses tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.nth(0)).to_contain_text("meal")
    expect(rows.nth(0)).to_contain_text("0.00 CNY")
    expect(rows.nth(1)).to_contain_text("cash")
    expect(rows.nth(1)).to_contain_text("1,043.60 CNY")


def test_open_holds_tell_merchant_and_expiry_and_lead_to_the_authorization(
    page: Page, issuing: Issuing, enter: Enter
) -> None:
    enter(f"/accounts/{issuing.cards['mei'].account_id}")
    rows = page.locator("#holds tbody tr")
    expect(rows).to_have_count(2)
    room = rows.filter(has_text="Pearl River Hotel")
    expect(room).to_contain_text("250.00")
    room.get_by_role("link").click()
    expect(page.get_by_role("heading", name="Authorization")).to_be_visible()
    assert page.url.endswith(issuing.txids["room"])


def test_limits_tell_what_is_used_and_when_they_begin_anew(
    page: Page, issuing: Issuing, enter: Enter
) -> None:
    enter(f"/accounts/{issuing.cards['mei'].account_id}")
    day = page.locator("#windows .window").filter(has_text="500.00 a day at restaurants")
    expect(day).to_contain_text("370.00 of 500.00 CNY a day")
    expect(day.get_by_role("progressbar")).to_have_attribute("value", "74")
    expect(day).to_contain_text("begins anew")
    week = page.locator("#windows .window").filter(has_text="Eight payments")
    expect(week).to_contain_text("5 of 8 payments a week")


def test_cards_tell_standing_tries_and_uses(page: Page, issuing: Issuing, enter: Enter) -> None:
    enter(f"/accounts/{issuing.cards['lin'].account_id}")
    card = page.locator("#cards .window")
    expect(card).to_contain_text("Active")
    expect(card).to_contain_text("PIN tries left 3 of 3")
    expect(card).to_contain_text("uses left 1 of 3")


def test_the_history_is_newest_first_with_reasons_and_links(
    page: Page, issuing: Issuing, enter: Enter
) -> None:
    enter(f"/accounts/{issuing.cards['mei'].account_id}")
    rows = page.locator("#results tbody tr")
    expect(rows.nth(0)).to_contain_text("Insufficient funds")
    expect(rows.nth(0)).to_contain_text("9,000.00 CNY was asked for")
    expect(rows.nth(1)).to_contain_text("“500.00 a day at restaurants” allows 500.00 CNY a day")
    versions = [int(row.get_attribute("data-version") or 0) for row in rows.all()]
    assert versions == sorted(versions, reverse=True)
    rows.nth(1).get_by_role("link").click()
    expect(page.locator("[data-reason=amount_limit]")).to_be_visible()


def test_a_frozen_account_that_owes_stands_out(page: Page, issuing: Issuing, enter: Enter) -> None:
    enter(f"/accounts/{issuing.cards['bo'].account_id}")
    expect(page.locator("h1 [data-account-state=frozen]")).to_be_visible()
    expect(page.get_by_text("It pays nothing; refunds")).to_be_visible()
    expect(page.locator(".kpi-value").nth(3)).to_have_text("25.00 CNY")
    expect(page.locator("#results tbody tr").first).to_contain_text("Frozen")


def test_an_account_that_nobody_has_used_says_so(
    page: Page, issuing: Issuing, enter: Enter
) -> None:
    enter(f"/accounts/{issuing.cards['new'].account_id}")
    for text in ("No history yet", "Nothing is held.", "No rule counts on this account."):
        expect(page.get_by_text(text)).to_be_visible()


def test_a_further_purse_is_shown_with_its_account(
    page: Page, issuing: Issuing, enter: Enter
) -> None:
    mei = issuing.cards["mei"].account_id
    purses = issuing.get(f"/v1/accounts/{mei}")["card_account"]["purses"]
    enter(f"/accounts/{purses[1]['account_id']}")
    assert page.url == f"{issuing.home}/accounts/{mei}"


def test_accounts_that_are_not_cardholders_have_pages_too(
    page: Page, issuing: Issuing, enter: Enter
) -> None:
    enter("/accounts?kind=receivable")
    page.locator("#results tbody a").first.click()
    expect(page.get_by_role("heading", name="Account")).to_be_visible()
    expect(page.locator(".kpi-value")).to_have_count(3)
    page.goto(f"{issuing.url}/i/meridian/accounts")
    expect(page.locator("#results tbody")).to_contain_text("Settlement")


def test_an_unknown_account_is_not_found(
    page: Page, watch: Watch, issuing: Issuing, enter: Enter
) -> None:
    watch.expected.append("404")
    enter()
    for name in ("999999999", "nonsense"):
        page.goto(f"{issuing.home}/accounts/{name}")
        expect(page.get_by_text("Nothing found here")).to_be_visible()


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_no_page_of_the_issuers_has_an_accessibility_violation(
    page: Page,
    watch: Watch,
    issuing: Issuing,
    enter: Enter,
    accessible: Callable[[Page], None],
    theme: str,
) -> None:
    enter(username="operator")
    page.get_by_role("button", name=theme).click()
    paths = ["accounts", "accounts?kind=cardholder", "simulate", "rules", "adjustments"]
    paths += ["adjustments/new", f"adjustments/{issuing.adjustment}"]
    paths += [f"accounts/{card.account_id}" for card in issuing.cards.values()]
    paths += [
        f"transactions/{issuing.txids[name]}" for name in ("room", "banquet", "dinner", "forced")
    ]
    for path in paths:
        page.goto(f"{issuing.home}/{path}")
        accessible(page)
    page.goto(f"{issuing.home}/simulate?card={issuing.cards['mei'].card_token.hex()}")
    page.get_by_label("Amount").fill("450")
    page.get_by_role("button", name="Simulate", exact=True).click()
    expect(page.locator("[data-simulated]")).to_be_visible()
    accessible(page)
    watch.expected.append("422")
    page.get_by_label("Amount").fill("lots")
    page.get_by_role("button", name="Simulate", exact=True).click()
    expect(page.locator("#amount-note")).to_be_visible()
    accessible(page)


@pytest.mark.parametrize("width", [360, 768, 1024])
def test_no_page_of_the_issuers_is_wider_than_the_screen(
    page: Page, issuing: Issuing, enter: Enter, width: int
) -> None:
    enter(username="operator")
    page.set_viewport_size({"width": width, "height": 800})
    paths = ["accounts", f"accounts/{issuing.cards['mei'].account_id}", "simulate", "rules"]
    paths += ["adjustments", "adjustments/new", f"adjustments/{issuing.adjustment}"]
    paths += [f"transactions/{issuing.txids[name]}" for name in ("room", "banquet")]
    for path in paths:
        page.goto(f"{issuing.home}/{path}")
        overflow = page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert overflow <= 0, path
