"""What holds on every page: accessibility, keyboard, small screens, switcher, time zones."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.network import ConsoleNetwork

PAGES = ("overview", "transactions", "batches", "batches/2", "anchors", "members")


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_no_page_has_an_accessibility_violation(
    page: Page,
    network: ConsoleNetwork,
    sign_in: Callable[..., Page],
    accessible: Callable[[Page], None],
    theme: str,
) -> None:
    page.goto(f"{network.url}/sign-in")
    page.emulate_media(color_scheme="dark" if theme == "Dark" else "light")
    accessible(page)
    sign_in()
    page.get_by_role("button", name=theme).click()
    for name in PAGES:
        page.goto(f"{network.url}/i/aurora/{name}")
        page.wait_for_load_state("networkidle") if name != "overview" else None
        accessible(page)
    page.goto(f"{network.url}/i/aurora/transactions/{network.anchored()['txid']}")
    page.get_by_role("button", name="Verify").click()
    expect(page.locator("[data-verdict=verified]")).to_be_visible()
    expect(page.locator("[data-agreement=equal]")).to_be_visible()
    accessible(page)
    page.goto(f"{network.url}/i/aurora/transactions?outcome=pin_wrong")
    page.get_by_text("More filters").click()
    accessible(page)
    page.goto(f"{network.url}/i/borealis/overview")
    accessible(page)
    page.goto(f"{network.url}/access")
    accessible(page)


def test_the_switcher_stays_on_the_same_kind_of_page(
    page: Page, network: ConsoleNetwork, sign_in: Callable[..., Page]
) -> None:
    sign_in("otto", "/i/aurora/batches")
    page.get_by_role("button", name="Aurora Bank").click()
    choices = page.locator(".switcher-menu").get_by_role("link")
    assert choices.count() == 2  # otto doesn't see Borealis Pay
    choices.filter(has_text="Meridian").click()
    expect(page.get_by_role("button", name="Meridian Acquiring")).to_be_visible()
    expect(page.get_by_role("heading", name="Batches")).to_be_visible()
    assert page.url == f"{network.url}/i/meridian/batches"


def test_everything_is_reached_with_the_keyboard(
    page: Page, network: ConsoleNetwork, sign_in: Callable[..., Page]
) -> None:
    sign_in(path="/i/aurora/transactions")
    page.goto(page.url)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#content")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_label("Search")).to_be_focused()
    page.locator("#results tr.row-link a").first.focus()
    outline = page.locator("#results tr.row-link").first.evaluate(
        "row => getComputedStyle(row).outlineStyle"
    )
    assert outline == "solid"
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Verify")).to_be_visible()


def test_after_turning_a_page_the_keyboard_goes_on_in_the_table(
    page: Page, sign_in: Callable[..., Page]
) -> None:
    sign_in(path="/i/aurora/transactions")
    page.get_by_role("link", name="Older").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="Newest")).to_be_visible()
    expect(page.locator("#results")).to_be_focused()


@pytest.mark.parametrize("width", [360, 768, 1024])
def test_no_page_is_wider_than_the_screen(
    page: Page, network: ConsoleNetwork, sign_in: Callable[..., Page], width: int
) -> None:
    sign_in()
    page.set_viewport_size({"width": width, "height": 800})
    paths = [*PAGES, f"transactions/{network.anchored()['txid']}"]
    for name in paths:
        page.goto(f"{network.url}/i/aurora/{name}")
        overflow = page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert overflow <= 0, name


def test_the_menu_opens_on_a_small_screen(page: Page, sign_in: Callable[..., Page]) -> None:
    sign_in()
    page.set_viewport_size({"width": 390, "height": 844})
    link = page.get_by_role("link", name="Batches", exact=True)
    expect(link).not_to_be_visible()
    page.get_by_role("button", name="Show or hide the menu").click()
    expect(link).to_be_visible()


def test_times_are_shown_in_business_time_or_in_utc(
    page: Page, network: ConsoleNetwork, sign_in: Callable[..., Page]
) -> None:
    sign_in(path="/i/aurora/batches")
    expect(page.get_by_text("Times in Asia/Shanghai")).to_be_visible()
    local = page.locator("#results tbody tr").last.inner_text()
    page.get_by_role("button", name="UTC").click()
    expect(page.get_by_text("Times in UTC")).to_be_visible()
    assert page.locator("#results tbody tr").last.inner_text() != local
    hour = f"{network.node().books.batches[0]['sealed_at']:%H:%M:%S}"
    expect(page.locator("#results tbody tr").last).to_contain_text(hour)
    page.get_by_role("button", name="Local").click()
    expect(page.get_by_text("Times in Asia/Shanghai")).to_be_visible()


def test_a_batch_that_the_chain_contradicts_stands_out(
    page: Page, network: ConsoleNetwork, sign_in: Callable[..., Page]
) -> None:
    batch = network.node("meridian").books.batches[1]
    kept = batch["root"]
    batch["root"] = bytes(32)
    try:
        sign_in("rita", "/i/meridian/anchors")
        expect(page.locator("[data-agreement=different]")).to_have_count(1)
        page.goto(f"{network.url}/i/meridian/batches/2")
        expect(page.locator("#anchor [data-agreement=different]")).to_be_visible()
        expect(page.locator("#anchor .row-bad")).to_contain_text(re.compile("^Root"))
    finally:
        batch["root"] = kept


def test_members_are_compared_with_the_chain(
    page: Page, network: ConsoleNetwork, sign_in: Callable[..., Page]
) -> None:
    member = network.node().members[3]
    sign_in(path="/i/aurora/members")
    expect(page.locator("[data-agreement=equal]")).to_have_count(4)
    member["active"] = False
    try:
        page.reload()
        expect(page.locator("[data-agreement=different]")).to_have_count(1)
        expect(page.get_by_text("Revoked")).to_be_visible()
    finally:
        member["active"] = True
