"""A transaction's receipt, printed from the console: what it says, whose it is, who may."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from structlog.testing import capture_logs

from tests.browser.conftest import Watch
from tests.browser.fleet import Fleet
from tests.browser.network import PASSWORD
from tests.browser.promising import Receipts
from tests.factories.qr_reading import read_png


@pytest.fixture
def counter(page: Page, promising: Receipts) -> Callable[..., Page]:
    """A transaction's page, somebody signed in."""

    def sign(name: str, username: str = "olga") -> Page:
        page.goto(f"{promising.home}/transactions/{promising.records[name].txid.hex()}")
        page.get_by_label("User name").fill(username)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_selector("#content h1")
        return page

    return sign


def shown(page: Page) -> tuple[str, bytes]:
    """The receipt on the page: its text and its picture."""
    image = page.locator("#receipt img")
    expect(image).to_be_visible(timeout=30_000)
    source = image.get_attribute("src") or ""
    return image.get_attribute("alt") or "", base64.b64decode(source.partition(",")[2])


def saved(page: Page, button: str) -> tuple[str, bytes]:
    with page.expect_download() as downloading:
        page.locator("#printing").get_by_role("button", name=button, exact=True).click()
    download = downloading.value
    return download.suggested_filename, Path(download.path()).read_bytes()


def test_a_receipt_is_shown_with_the_code_of_its_promise(
    counter: Callable[..., Page], promising: Receipts, in_both_colours: Callable[[Page], None]
) -> None:
    page = counter("waiting")
    page.get_by_label("Language").select_option("en")
    page.get_by_role("button", name="Show", exact=True).click()
    text, picture = shown(page)
    assert "CUSTOMER COPY" in text
    assert "*** DUPLICATE ***" in text
    assert promising.records["waiting"].rrn in text
    assert read_png(picture) == promising.link("waiting")
    in_both_colours(page)


def test_it_is_saved_in_each_form_as_it_was_chosen(
    counter: Callable[..., Page], promising: Receipts
) -> None:
    page = counter("kept")
    txid = promising.records["kept"].txid.hex()
    page.get_by_label("Whose").select_option("merchant")
    page.get_by_label("Language").select_option("zh")
    page.get_by_label("Paper").select_option("80")
    name, paper = saved(page, "ESC/POS")
    assert name == f"receipt-{txid[:16]}.escpos"
    assert "商户存根".encode("gb18030") in paper
    assert "重打印".encode("gb18030") in paper
    name, document = saved(page, "PDF")
    assert (name[-4:], document[:5]) == (".pdf", b"%PDF-")
    page.get_by_label("Mark it as a duplicate").uncheck()
    assert "重打印".encode("gb18030") not in saved(page, "ESC/POS")[1]
    name, picture = saved(page, "PNG")
    assert name[-4:] == ".png"
    assert int.from_bytes(picture[16:20], "big") == 576  # IHDR: as wide as 80 mm paper has dots
    assert read_png(picture) == promising.link("kept")


def test_the_log_says_who_printed_what(counter: Callable[..., Page], promising: Receipts) -> None:
    page = counter("sealed")
    page.get_by_label("Mark it as a duplicate").uncheck()
    with capture_logs() as logs:
        saved(page, "PDF")
    [event] = [entry for entry in logs if entry["event"] == "receipt_printed"]
    assert event["by"] == "olga"
    assert event["txid"] == promising.records["sealed"].txid.hex()
    assert (event["form"], event["copy"], event["duplicate"]) == ("pdf", "customer", "0")


def test_who_only_reads_prints_nothing(
    counter: Callable[..., Page], promising: Receipts, watch: Watch
) -> None:
    page = counter("kept", "ada")
    expect(page.locator("#printing")).to_have_count(0)
    txid = promising.records["kept"].txid.hex()
    watch.expected.append("403")
    status = page.evaluate(
        "path => fetch(path, {method: 'POST', body: new FormData()}).then(each => each.status)",
        f"/i/{promising.member.member_id}/transactions/{txid}/receipt",
    )
    assert status == 403


def test_what_the_printer_refuses_is_said(
    counter: Callable[..., Page], promising: Receipts, watch: Watch
) -> None:
    page = counter("kept")
    page.evaluate("document.querySelector('#width').options[1].value = '72'")
    page.get_by_label("Paper").select_option("72")
    watch.expected.append("422")
    page.get_by_role("button", name="Show", exact=True).click()
    expect(page.locator("#receipt [data-notice='422']")).to_contain_text("58 or 80 mm")


def test_a_chip_payment_at_a_terminal_is_printed_again(
    fleet: Fleet, attend: Callable[..., Page], tmp_path: Path
) -> None:
    page = attend("/virtual-pos")
    page.locator("#pin").fill("123456")
    page.get_by_role("button", name="Pay").click()
    expect(page.locator("[data-code]")).to_have_attribute("data-code", "00", timeout=30_000)
    page.locator("#outcome a").first.click()
    page.get_by_label("Language").select_option("en")
    page.get_by_label("Whose").select_option("merchant")
    page.get_by_role("button", name="Show", exact=True).click()
    text, _ = shown(page)
    assert "MERCHANT COPY" in text
    assert "ARQC" in text
    assert "12.50" in text
    page.screenshot(path=str(tmp_path / "printed.png"), full_page=True)


def test_a_gateway_that_is_away_is_named(
    fleet: Fleet, attend: Callable[..., Page], watch: Watch
) -> None:
    page = attend("/transactions")
    page.locator("tr.row-link a").first.click()
    expect(page.locator("#printing")).to_be_visible()
    fleet.loop.run(fleet.gateway.close())
    watch.expected.append("503")
    page.get_by_role("button", name="Show", exact=True).click()
    notice = page.locator("#receipt [data-notice='503']")
    expect(notice).to_contain_text("is not answering", timeout=30_000)
