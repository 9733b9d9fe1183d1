"""Receipt look-up: by the code, which the browser reads, and by what is printed beside it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Watch
from tests.browser.network import PASSWORD
from tests.browser.promising import STATES, Receipts


@pytest.fixture
def counter(page: Page, promising: Receipts) -> Page:
    """The receipts' page, somebody signed in."""
    page.goto(promising.home + "/receipts")
    page.get_by_label("User name").fill("ada")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_selector("#code")
    return page


def look_up(page: Page, text: str) -> None:
    page.get_by_label("The code on the receipt").fill(text)
    page.get_by_role("button", name="Look it up").click()


@pytest.mark.parametrize("name", [name for name in STATES if name != "silent"])
def test_a_code_leads_to_what_became_of_its_promise(
    counter: Page, promising: Receipts, name: str
) -> None:
    look_up(counter, promising.link(name))
    found = counter.locator("#results [data-receipt]")
    expect(found).to_have_attribute("data-receipt", STATES[name])
    expect(found).to_contain_text("by the member's promise key")
    finality = found.locator("[data-finality=DEV_FINALITY]")
    expect(finality).to_have_count(1 if name == "kept" else 0)
    if name == "kept":
        expect(finality).to_contain_text("not judged: the proof carries none")
    txid = promising.promises[name].txid.hex()
    expect(found.locator(f'[title="{txid}"]')).to_be_visible()


def test_what_opens_the_purchase_never_leaves_the_browser(
    counter: Page, promising: Receipts
) -> None:
    sent: list[str] = []
    counter.on("request", lambda one: sent.append(f"{one.url} {one.post_data or ''}"))
    promise = promising.promises["kept"]
    look_up(counter, promising.link("kept"))
    expect(counter.locator("[data-receipt=anchored]")).to_be_visible()
    assert any(promise.txid.hex() in text for text in sent)
    for text in sent:
        assert promise.encode() not in text
        assert promise.salt_fin.hex() not in text
    assert "#" not in counter.url


def test_a_code_in_the_address_is_read_and_taken_out_of_it(
    counter: Page, promising: Receipts
) -> None:
    counter.goto("about:blank")
    counter.goto(f"{promising.home}/receipts#{promising.promises['kept'].encode()}")
    expect(counter.locator("[data-receipt=anchored]")).to_be_visible()
    assert counter.url == f"{promising.home}/receipts"


def test_an_altered_code_is_refused_by_name(
    counter: Page, watch: Watch, promising: Receipts
) -> None:
    text = promising.promises["waiting"].encode()
    look_up(counter, text[:-1])
    expect(counter.locator("#code-note")).to_contain_text("PROMISE_MALFORMED")
    last = "A" if text[60] != "A" else "B"
    look_up(counter, text[:60] + last + text[61:])
    found = counter.locator("#results [data-receipt]")
    expect(found).to_have_attribute("data-receipt", "invalid")
    expect(found).to_contain_text("PROMISE_KEY_UNKNOWN")
    look_up(counter, "")
    expect(counter.locator("#code-note")).to_contain_text("Paste what the code")


def test_a_receipt_is_found_by_what_is_printed_on_it(
    counter: Page, promising: Receipts, accessible: Callable[[Page], None]
) -> None:
    record = promising.records["sealed"]
    counter.get_by_label("Terminal").fill(record.terminal_id or "")
    counter.get_by_role("button", name="Search").click()
    expect(counter.locator("#results tr.row-link")).to_have_count(len(promising.records))
    assert "terminal_id=" in counter.url
    accessible(counter)
    silent = promising.records["silent"]
    row = counter.locator("#results tr.row-link").filter(has_text=silent.rrn or "-")
    expect(row.locator("[data-receipt=none]")).to_be_visible()
    counter.get_by_label("RRN").fill(record.rrn or "")
    counter.get_by_role("button", name="Search").click()
    expect(counter.locator("[data-receipt=sealed]")).to_be_visible()
    expect(counter.locator("#results")).to_contain_text("Harbor Stores")


def test_what_can_not_be_meant_is_explained_at_its_field(
    counter: Page, watch: Watch, promising: Receipts
) -> None:
    watch.expected.append("422")
    counter.goto(f"{promising.home}/receipts?rrn=12")
    expect(counter.locator("#rrn-note")).to_have_text("An RRN has twelve digits.")
    counter.goto(f"{promising.home}/receipts?day=2020-01-01")
    expect(counter.get_by_text("No transaction fits")).to_be_visible()


def test_the_proof_of_a_kept_promise_is_drawn(counter: Page, promising: Receipts) -> None:
    look_up(counter, promising.link("kept"))
    counter.get_by_role("button", name="Draw the proof").click()
    expect(counter.locator("[data-verdict=verified]")).to_be_visible()
    expect(counter.locator("[data-joint=broken]")).to_have_count(0)


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_every_state_is_accessible(
    counter: Page, promising: Receipts, accessible: Callable[[Page], None], theme: str
) -> None:
    counter.get_by_role("button", name=theme).click()
    for name in ("kept", "waiting", "overdue", "claimed"):
        look_up(counter, promising.link(name))
        shown = counter.locator("#results [data-receipt]")
        expect(shown).to_have_attribute("data-receipt", STATES[name])
        accessible(counter)
    counter.goto(f"{promising.home}/receipts?txid={promising.records['silent'].txid.hex()}")
    expect(counter.locator("[data-receipt=none]")).to_be_visible()
    accessible(counter)
