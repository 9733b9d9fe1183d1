"""One transaction of the issuer: asked for and approved, purses, its story, and why a decline."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.browser.issuing import Issuing

Enter = Callable[..., Page]


def test_a_decline_names_the_rule_and_the_values_that_were_compared(
    page: Page, issuing: Issuing, enter: Enter
) -> None:
    enter(f"/transactions/{issuing.txids['banquet']}")
    why = page.locator("[data-reason=amount_limit]")
    expect(why).to_contain_text(
        "The rule “500.00 a day at restaurants” allows 500.00 CNY a day: "
        "370.00 CNY were used before, and this asks for 200.00 CNY."
    )
    expect(why).to_contain_text(issuing.rules["500.00 a day at restaurants"])
    rows = page.locator("#decision .compared tr").all_inner_texts()
    assert [row.split("\t") for row in rows] == [
        ["Limit", "500.00 CNY"],
        ["Used before", "370.00 CNY"],
        ["Asked for", "200.00 CNY"],
        ["Counted over", "a day"],
    ]
    page.get_by_role("link", name=f"Account {issuing.cards['mei'].account_id}").click()
    expect(page.get_by_role("heading", name="History")).to_be_visible()


def test_purses_that_paid_stand_with_their_parts(
    page: Page, issuing: Issuing, enter: Enter
) -> None:
    enter(f"/transactions/{issuing.txids['dinner']}")
    paid = page.locator("#decision .datagrid-item").filter(has=page.locator("[data-purse]"))
    expect(paid).to_have_count(2)
    expect(paid.nth(0)).to_contain_text("meal 180.00 CNY")
    expect(paid.nth(1)).to_contain_text("cash 70.00 CNY")


def test_a_part_that_was_approved_stands_beside_what_was_asked_for(
    page: Page, issuing: Issuing, enter: Enter
) -> None:
    enter(f"/transactions/{issuing.txids['part']}")
    expect(page.locator("h1")).to_contain_text("150.00 CNY")
    expect(page.locator("h1")).to_contain_text("of 400.00 asked for")
    expect(page.locator("#decision")).to_contain_text(
        "A part was approved: 150.00 CNY of 400.00 CNY."
    )


def test_hold_captures_and_refund_are_one_story_from_each_of_them(
    page: Page, issuing: Issuing, enter: Enter
) -> None:
    enter(f"/transactions/{issuing.txids['room']}")
    kinds = ["authorization", "capture", "capture", "refund"]
    for name in ("room", "breakfast", "goodwill"):
        page.goto(f"{issuing.home}/transactions/{issuing.txids[name]}")
        steps = page.locator("#story [data-step]")
        assert [step.get_attribute("data-step") for step in steps.all()] == kinds, name
        expect(page.locator("#story [aria-current=step]")).to_contain_text("this one")
    page.locator("#story").get_by_role("link", name="Authorization").click()
    progress = page.locator("#progress-of .datagrid-item")
    expect(progress.filter(has_text="Captured")).to_contain_text("350.00")
    expect(progress.filter(has_text="Still held")).to_contain_text("250.00")


def test_rules_in_shadow_mode_that_would_have_declined_are_named(
    page: Page, issuing: Issuing, enter: Enter
) -> None:
    enter(f"/transactions/{issuing.txids['room']}")
    expect(page.locator("#shadow")).to_contain_text(
        "The rule “400.00 a payment” allows 400.00 CNY a transaction, and this asks for 600.00 CNY."
    )


def test_a_forced_posting_tells_what_is_owed(page: Page, issuing: Issuing, enter: Enter) -> None:
    enter(f"/transactions/{issuing.txids['forced']}")
    expect(page.locator("#decision")).to_contain_text(
        "Posted although 25.00 CNY were missing: the cardholder owes them."
    )
