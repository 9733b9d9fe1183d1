"""The menu: it fits the window, its groups fold, and the page that is open is always to be seen."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.network import ConsoleNetwork


def scrolls(page: Page) -> bool:
    """Whether a part of the menu is out of sight."""
    return bool(
        page.locator("#sidebar-menu").evaluate("menu => menu.scrollHeight > menu.clientHeight")
    )


def heading(page: Page, name: str) -> Locator:
    return page.locator("summary").filter(has_text=name)


@pytest.mark.parametrize("member", ["aurora", "meridian"])
def test_it_is_seen_whole_900_pixels_high(
    page: Page, network: ConsoleNetwork, sign_in: Callable[..., Page], member: str
) -> None:
    sign_in(path=f"/i/{member}/members")
    assert not scrolls(page)
    expect(page.locator(".nav-group[open]")).to_have_count(2)


@pytest.mark.parametrize("height", [700, 768])
def test_in_a_low_window_groups_fold_but_not_that_of_the_open_page(
    page: Page, network: ConsoleNetwork, sign_in: Callable[..., Page], height: int
) -> None:
    page.set_viewport_size({"width": 1440, "height": height})
    sign_in(path="/i/meridian/receipts")
    assert not scrolls(page)
    expect(page.get_by_role("link", name="Receipts", exact=True)).to_be_visible()
    expect(page.get_by_role("link", name="Terminals", exact=True)).not_to_be_visible()
    page.goto(f"{network.url}/i/meridian/members")
    expect(page.locator(".nav-group:not([open])")).to_have_count(1)
    assert not scrolls(page)


def test_a_group_is_folded_by_the_keyboard_and_stays_so(
    page: Page,
    network: ConsoleNetwork,
    sign_in: Callable[..., Page],
    in_both_colours: Callable[[Page], None],
) -> None:
    sign_in(path="/i/meridian/members")
    logs = page.get_by_role("link", name="Logs", exact=True)
    expect(logs).to_be_visible()
    heading(page, "Shared record").focus()
    page.keyboard.press("Enter")
    expect(logs).not_to_be_visible()
    in_both_colours(page)
    page.reload()
    expect(logs).not_to_be_visible()
    page.goto(f"{network.url}/i/meridian/logs")
    expect(logs).to_be_visible()
    page.goto(f"{network.url}/i/aurora/batches")
    expect(logs).not_to_be_visible()
    heading(page, "Shared record").click()
    page.reload()
    expect(logs).to_be_visible()


def test_what_somebody_opened_stays_open_in_a_low_window(
    page: Page, network: ConsoleNetwork, sign_in: Callable[..., Page]
) -> None:
    page.set_viewport_size({"width": 1440, "height": 600})
    sign_in(path="/i/meridian/members")
    for name in ("Shared record", "Acquiring"):
        if not page.locator(".nav-group[open]").filter(has_text=name).count():
            heading(page, name).click()
    page.reload()
    expect(page.locator(".nav-group[open]")).to_have_count(2)


def test_on_a_small_screen_nothing_is_folded(page: Page, sign_in: Callable[..., Page]) -> None:
    page.set_viewport_size({"width": 390, "height": 700})
    sign_in()
    page.get_by_role("button", name="Show or hide the menu").click()
    link = page.get_by_role("link", name="Receipts", exact=True)
    expect(link).to_be_visible()
    assert link.evaluate("each => each.getBoundingClientRect().height") >= 44
