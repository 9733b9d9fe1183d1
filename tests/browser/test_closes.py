"""The day close board of two real nodes on a real chain, and one close."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from playwright.sync_api import Page, expect

from tests.browser.closing import CORRECTED_DAY, OPEN_DAY, QUIET_DAYS, Closing
from tests.browser.conftest import Watch
from tests.integration.clearing.institutions import DAY

Visit = Callable[..., Page]


def test_pairs_stand_by_dates_as_confirmed_broken_and_open(
    page: Page, closing: Closing, visit: Visit
) -> None:
    visit(f"/closes?until={OPEN_DAY}")
    for before, count in QUIET_DAYS.items():
        cell = page.locator(f'a.cell[id$="-{DAY - timedelta(days=before)}"]')
        expect(cell).to_have_attribute("data-stage", "CONFIRMED")
        expect(cell.locator(".cell-count")).to_have_text(re.compile(rf"^{count}\b"))
    broken = page.locator(f'a.cell[id$="-{DAY}"]')
    expect(broken).to_have_attribute("data-stage", "BROKEN")
    corrected = page.locator(f'a.cell[id$="-{CORRECTED_DAY}"]')
    expect(corrected).to_have_attribute("data-stage", "CONFIRMED")
    expect(corrected).to_contain_text("r2")
    opened = page.locator(f'a.cell[id$="-{OPEN_DAY}"]')
    expect(opened).to_have_class(re.compile("cell-open"))
    expect(page.locator("[data-figure=superseded]")).to_have_text("1")
    expect(page.locator("[data-figure=open]")).to_have_text("1")


def test_a_cell_opens_its_counts_totals_and_what_the_chain_says(
    page: Page, closing: Closing, visit: Visit
) -> None:
    visit(f"/closes?until={OPEN_DAY}")
    assert closing.pair is not None
    day = DAY - timedelta(days=4)
    page.locator(f'a.cell[id$="-{day}"]').click()
    panel = page.locator("#close-panel [data-close]")
    expect(panel).to_contain_text(str(day))
    with closing.pair.acquirer.api.http("reader") as http:
        [close] = http.get("/v1/closes", params={"business_date": str(day)}).json()["items"]
    expect(panel.locator("[data-figure=items]")).to_have_text(str(close["items"]))
    expect(panel).to_contain_text(f"{close['debits'] / 100:,.2f}")
    expect(panel.locator(f'[title="{close["close_root"]}"]')).to_have_count(4)
    expect(panel.locator("[data-chain-state=CONFIRMED]")).to_be_visible()
    page.locator(f'a.cell[id$="-{DAY}"]').click()
    expect(panel).to_contain_text(str(DAY))
    expect(panel.locator("[data-chain-state=BROKEN]")).to_be_visible()
    expect(panel.locator("tr.row-bad").first).to_contain_text("Root")
    panel.get_by_role("link", name="Its page").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Meridian Acquiring and Aurora")
    expect(page.get_by_role("link", name="Its page")).to_have_count(0)


def test_the_revisions_of_a_corrected_day_lead_to_each_other(
    page: Page, closing: Closing, visit: Visit
) -> None:
    visit(f"/closes?until={OPEN_DAY}")
    page.locator(f'a.cell[id$="-{CORRECTED_DAY}"]').click()
    panel = page.locator("#close-panel [data-close]")
    panel.get_by_role("link", name="1 Superseded").click()
    expect(page.locator("[data-stage=SUPERSEDED]")).to_be_visible()
    expect(page.locator("[data-chain-state=SUPERSEDED]")).to_be_visible()
    expect(page.locator("tbody tr.row-link")).to_have_count(1)


def test_the_board_keeps_up_by_itself_and_the_keyboard_stays(
    page: Page, closing: Closing, visit: Visit
) -> None:
    visit()
    cell = page.locator(f'a.cell[id$="-{DAY}"]')
    cell.focus()
    day = 5
    closing.break_anew(day)
    fresh = page.locator(f'a.cell[id$="-{DAY + timedelta(days=day)}"]')
    expect(fresh).to_have_attribute("data-stage", "BROKEN", timeout=20_000)
    expect(cell).to_be_focused()


def test_all_institutions_that_one_sees_are_on_one_board(
    page: Page, closing: Closing, visit: Visit
) -> None:
    visit("/closes?scope=all&days=30", username="ada")
    expect(page.locator("tbody .board-pair")).to_have_count(1)
    expect(page.locator("tbody .board-pair")).to_contain_text("Aurora Bank")
    page.get_by_role("link", name="7 days").click()
    assert page.url.endswith("/closes?days=7&scope=all")


def test_a_date_is_chosen_in_the_address(
    page: Page, watch: Watch, closing: Closing, visit: Visit
) -> None:
    watch.expected.append("422")
    visit(f"/closes?until={DAY - timedelta(days=200)}")
    expect(page.get_by_text("No closes in these days")).to_be_visible()
    page.goto(f"{closing.home()}/closes?until=soon")
    expect(page.get_by_text("A day, such as")).to_be_visible()


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_board_and_close_are_accessible(
    page: Page,
    closing: Closing,
    visit: Visit,
    accessible: Callable[[Page], None],
    theme: str,
) -> None:
    visit(f"/closes?until={OPEN_DAY}")
    page.get_by_role("button", name=theme).click()
    accessible(page)
    page.locator(f'a.cell[id$="-{DAY}"]').click()
    expect(page.locator("#close-panel [data-close]")).to_be_visible()
    accessible(page)


@pytest.mark.parametrize("width", [360, 768])
def test_no_page_of_the_shared_record_is_wider_than_the_screen(
    page: Page, closing: Closing, visit: Visit, width: int
) -> None:
    visit()
    page.set_viewport_size({"width": width, "height": 800})
    ref = closing.refs["FIELD_MISMATCH"]
    for path in ("closes", "breaks", f"breaks/{ref}", "logs", "proofs", "receipts"):
        page.goto(f"{closing.home()}/{path}")
        overflow = page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert overflow <= 0, path
