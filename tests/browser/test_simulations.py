"""Simulate an authorization: what would happen and why, with nothing posted."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.browser.conftest import Watch
from tests.browser.issuing import Issuing

Enter = Callable[..., Page]


def _simulate(page: Page, **fields: str) -> None:
    for name, value in fields.items():
        page.locator(f"#{name}").fill(value)
    page.get_by_role("button", name="Simulate", exact=True).click()


def test_it_says_what_would_happen_and_posts_nothing(
    page: Page, issuing: Issuing, enter: Enter
) -> None:
    mei = issuing.cards["mei"]
    before = issuing.get(f"/v1/accounts/{mei.account_id}")
    enter(f"/accounts/{mei.account_id}")
    page.get_by_role("link", name="Simulate a payment").click()
    expect(page.locator("h1 .sandbox")).to_have_text("Sandbox: nothing is posted")
    expect(page.get_by_label("Card")).to_have_value(mei.card_token.hex())
    _simulate(page, amount="40", mcc="5812")
    answer = page.locator("[data-simulated=approved]")
    expect(answer).to_contain_text("Would be approved: 40.00 CNY")
    expect(answer).to_contain_text("The PIN was taken as right.")
    rule = page.locator("#rules-seen .window").filter(has_text="500.00 a day")
    expect(rule).to_contain_text("370.00 → 410.00 of 500.00 CNY a day")
    expect(rule).to_contain_text("Lets it pass")
    ledger = page.locator("#around tr").filter(has_text="Ledger balance")
    expect(ledger).to_contain_text(f"{(before['card_account']['balance'] - 4_000) / 100:,.2f}")
    assert issuing.get(f"/v1/accounts/{mei.account_id}") == before


def test_a_decline_names_the_rule_the_limit_and_what_was_compared(
    page: Page, issuing: Issuing, enter: Enter
) -> None:
    enter(f"/simulate?card={issuing.cards['mei'].card_token.hex()}")
    _simulate(page, amount="200.00", mcc="5812")
    answer = page.locator("[data-simulated=amount_limit]")
    expect(answer).to_contain_text("Would be declined: Over an amount limit")
    expect(answer).to_contain_text(
        "The rule “500.00 a day at restaurants” allows 500.00 CNY a day: "
        "370.00 CNY were used before, and this asks for 200.00 CNY."
    )
    expect(answer.locator(".compared tr").filter(has_text="Limit")).to_contain_text("500.00 CNY")
    declining = page.locator("#rules-seen .window").filter(has_text="Declines")
    expect(declining).to_have_count(1)
    expect(page.get_by_label("MCC")).to_have_value("5812")


def test_a_rule_in_shadow_mode_shows_what_it_would_say(
    page: Page, issuing: Issuing, enter: Enter
) -> None:
    enter(f"/simulate?card={issuing.cards['mei'].card_token.hex()}")
    _simulate(page, amount="450")
    expect(page.locator("[data-simulated=approved]")).to_be_visible()
    shadow = page.locator("#rules-seen .window").filter(has_text="400.00 a payment")
    expect(shadow).to_contain_text("Shadow")
    expect(shadow).to_contain_text("Would decline")


def test_a_card_is_found_by_its_last_digits_and_from_the_list(
    page: Page, issuing: Issuing, enter: Enter
) -> None:
    lin = issuing.cards["lin"]
    enter("/simulate")
    offered = page.locator("#card-list option")
    assert lin.card_token.hex() in [one.get_attribute("value") for one in offered.all()]
    _simulate(page, card=lin.pan_masked[-4:], amount="1")
    expect(page.locator("#answer")).to_contain_text(lin.pan_masked[-4:])


def test_another_moment_is_read_in_the_zone_shown(
    page: Page, issuing: Issuing, enter: Enter
) -> None:
    enter(f"/simulate?card={issuing.cards['mei'].card_token.hex()}")
    # In another week the windows are empty.
    _simulate(page, amount="200", mcc="5812", at="2027-03-01T12:30")
    expect(page.locator("[data-simulated=approved]")).to_contain_text("2027-03-01 12:30:00")


def test_what_can_not_be_used_is_said_at_its_field(
    page: Page, watch: Watch, issuing: Issuing, enter: Enter
) -> None:
    watch.expected.append("422")
    enter("/simulate")
    _simulate(page, card="nonsense", amount="lots", mcc="12", country="C", merchant_id="x")
    for name, text in (
        ("card", "last four digits"),
        ("amount", "An amount in CNY"),
        ("mcc", "Four digits"),
        ("country", "Two capitals"),
        ("merchant_id", "15 letters"),
    ):
        expect(page.locator(f"#{name}")).to_have_attribute("aria-invalid", "true")
        expect(page.locator(f"#{name}-note")).to_contain_text(text)
    expect(page.locator("#answer")).to_contain_text("No answer yet")
    expect(page.locator("#amount")).to_have_value("lots")
    _simulate(page, card="ab" * 16, amount="1", mcc="5411", country="CN", merchant_id="A" * 15)
    expect(page.locator("#card-note")).to_contain_text("There is no such card")


def test_a_whole_card_number_is_neither_taken_nor_kept_in_the_address(
    page: Page, watch: Watch, issuing: Issuing, enter: Enter
) -> None:
    watch.expected.append("422")
    enter("/simulate")
    _simulate(page, card="6223001000000000", amount="1")
    expect(page.locator("#card-note")).to_contain_text("Never type a whole card number")
    assert "6223001000000000" not in page.url
    expect(page.locator("#card")).to_have_value("")


def test_the_keyboard_stays_where_it_was_and_the_answer_is_announced(
    page: Page, issuing: Issuing, enter: Enter
) -> None:
    enter(f"/simulate?card={issuing.cards['mei'].card_token.hex()}")
    page.locator("#amount").fill("5")
    page.keyboard.press("Enter")
    expect(page.locator("[data-simulated]")).to_be_visible()
    expect(page.locator("#amount")).to_be_focused()
    expect(page.locator("#announcements")).to_have_text("Would be approved")


def test_an_acquirer_has_nothing_to_simulate(
    page: Page, watch: Watch, issuing: Issuing, enter: Enter
) -> None:
    watch.expected.append("404")
    enter()
    page.goto(f"{issuing.url}/i/meridian/overview")
    expect(page.get_by_role("link", name="Simulate")).to_have_count(0)
    page.goto(f"{issuing.url}/i/meridian/simulate")
    expect(page.get_by_text("Nothing found here")).to_be_visible()
