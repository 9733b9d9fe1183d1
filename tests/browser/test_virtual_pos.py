"""The virtual POS: the simulator, a real gateway and real nodes behind it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from playwright.sync_api import Page, expect

from nodes.anchoring.receipt import parse_promise
from nodes.authorization.store import hotlist
from tests.browser.conftest import Watch
from tests.browser.fleet import Fleet
from tests.factories.network import ISSUER
from tests.factories.qr_reading import read_png


def test_a_card_is_inserted_the_pin_entered_and_the_receipt_shown(
    fleet: Fleet,
    attend: Callable[..., Page],
    accessible: Callable[[Page], None],
    tmp_path: Path,
) -> None:
    page = attend("/virtual-pos")
    expect(page.get_by_text("Sandbox: a simulated terminal")).to_be_visible()
    # The longest menu there is, 900 pixels high.
    menu = page.locator("#sidebar-menu")
    assert menu.evaluate("menu => menu.scrollHeight <= menu.clientHeight")
    expect(page.locator(".nav-group[open]")).to_have_count(2)
    accessible(page)
    for digit in "123456":
        page.get_by_role("button", name=digit, exact=True).click()
    assert page.locator("#pin").input_value() == "123456"
    page.get_by_role("button", name="Pay").click()
    expect(page.locator("[data-code]")).to_have_attribute("data-code", "00", timeout=30_000)
    expect(page.locator("#outcome")).to_contain_text("Approved")
    expect(page.locator("optgroup")).to_have_attribute("label", "Harbor Stores")
    accessible(page)
    content = page.content()
    bytes_shown = page.locator(".pos-bytes").first.inner_text()
    assert "•" in bytes_shown
    image = page.locator(".pos-receipt").get_attribute("src") or ""
    txid = (page.locator("#outcome a").first.get_attribute("href") or "").rpartition("/")[2]
    code = read_png(base64.b64decode(image.partition(",")[2]))
    assert code.startswith(f"{fleet.nodes.acquirer.url}/r#")
    assert parse_promise(code.partition("#")[2]).txid.hex() == txid
    proof = page.get_by_role("link", name="Open the proof of its code")
    expect(proof).to_have_attribute("href", code)
    alternative = page.locator(".pos-receipt").get_attribute("alt") or ""
    assert "12.50 CNY" in alternative
    with fleet.nodes.issuer.http("reader") as client:
        masked = {card["pan_masked"] for card in client.get("/v1/cards").json()["items"]}
    assert any(number in content for number in masked)
    page.screenshot(path=str(tmp_path / "virtual-pos.png"), full_page=True)


@pytest.mark.parametrize(
    ("card", "way", "pin", "fault", "code"),
    [
        ("chip", "Tap", "", "", "00"),
        ("chip", "Tap", "123456", "", "00"),
        ("chip", "Insert", "654321", "", "55"),
        ("chip", "Swipe", "123456", "", "57"),
        ("chip", "Swipe (fallback)", "123456", "", "00"),
        ("chip", "Scan its code", "", "", "00"),
        ("virtual", "Scan its code", "", "", "00"),
        ("virtual", "Key in", "123456", "", "57"),
        ("plain", "Key in", "123456", "", "00"),
        ("stripe", "Swipe", "123456", "", "00"),
        ("plain", "Key in", "123456", "bad_mac", "A0"),
        ("plain", "Key in", "123456", "lose_answer", "none"),
        ("chip-poor", "Insert", "123456", "", "51"),
    ],
)
def test_every_way_to_pay(
    fleet: Fleet,
    attend: Callable[..., Page],
    tmp_path: Path,
    card: str,
    way: str,
    pin: str,
    fault: str,
    code: str,
) -> None:
    page = attend("/virtual-pos")
    page.locator("#card").select_option(card)
    page.get_by_label(way, exact=True).check()
    page.locator("#fault").select_option(fault)
    page.locator("#pin").fill(pin)
    page.get_by_role("button", name="Pay").click()
    expect(page.locator("[data-code]")).to_have_attribute("data-code", code, timeout=30_000)
    words = {"00": "Approved", "55": "Wrong PIN", "51": "Insufficient funds", "A0": "its MAC"}
    expect(page.locator("#outcome")).to_contain_text(words.get(code, ""))
    if code in ("00", "51", "55", "57"):
        txid = page.locator("#outcome a").get_attribute("href") or ""
        assert len(txid.rpartition("/")[2]) == 64
    page.screenshot(path=str(tmp_path / f"{card}-{way}-{code}.png"), full_page=True)
    if fault == "lose_answer":
        expect(page.locator("#outcome")).to_contain_text("acknowledged")


def test_the_holder_signs_the_merchant_s_copy(attend: Callable[..., Page]) -> None:
    page = attend("/virtual-pos")
    page.get_by_label("Tap", exact=True).check()
    page.get_by_label("the holder signs").check()
    page.locator("#whose").select_option("merchant")
    page.get_by_role("button", name="Pay").click()
    expect(page.locator("[data-code]")).to_have_attribute("data-code", "00", timeout=30_000)
    printed = page.locator(".pos-receipt").get_attribute("alt") or ""
    assert "MERCHANT COPY" in printed
    assert "Signature:" in printed
    # Tag 9F34 of what the chip was asked: signature (EMV 4.3 Book 3, C3).
    expect(page.locator(".pos-value").filter(has_text="9F34031E0300")).to_have_count(1)


def test_an_offline_payment_is_kept_uploaded_and_posted(
    fleet: Fleet, attend: Callable[..., Page], accessible: Callable[[Page], None], tmp_path: Path
) -> None:
    _know_the_hotlists(fleet)
    page = attend("/virtual-pos")
    page.get_by_label("Offline, by card and terminal").check()
    page.get_by_role("button", name="Pay").click()
    expect(page.locator("[data-code]")).to_have_attribute("data-code", "Z1", timeout=30_000)
    expect(page.locator("#outcome")).to_contain_text("hotlist is too old: download it")

    page.get_by_role("button", name="Download parameters and hotlist").click()
    expect(page.locator("[data-told]")).to_contain_text("on the hotlist", timeout=30_000)
    expect(page.locator("h2").filter(has_text="Sent 0800")).to_have_count(2)

    page.get_by_label("Offline, by card and terminal").check()
    page.locator("#amount").fill("7.35")
    page.get_by_role("button", name="Pay").click()
    expect(page.locator("[data-code]")).to_have_attribute("data-code", "Y1", timeout=30_000)
    expect(page.locator("[data-waiting='1']")).to_contain_text("7.35")
    expect(page.locator("h2").filter(has_text="Kept record")).to_be_visible()
    expect(page.get_by_role("cell", name="735", exact=True)).to_be_visible()
    accessible(page)
    page.screenshot(path=str(tmp_path / "offline.png"), full_page=True)

    page.get_by_role("button", name="Upload offline records").click()
    expect(page.locator("[data-code]")).to_have_attribute("data-code", "00", timeout=30_000)
    expect(page.locator("h2").filter(has_text="Sent 0220")).to_be_visible()
    expect(page.locator("h2").filter(has_text="Answered 0230")).to_be_visible()
    expect(page.locator("[data-waiting='0']")).to_be_visible()
    with fleet.nodes.issuer.http("reader") as client:
        [posted] = [
            item
            for item in client.get("/v1/transactions").json()["items"]
            if item["amount"] == 735 and item["side"] == "issuer"
        ]
    assert posted["outcome"] == "approved"


def _know_the_hotlists(fleet: Fleet) -> None:
    """What the acquirer's worker does every 30 s."""
    with psycopg.connect(fleet.nodes.network.acquirer_db.dsn) as connection:
        hotlist.checked(connection, ISSUER, fleet.nodes.network.clock.now_ms())


def test_a_batch_is_closed_and_a_lost_payment_uploaded(
    fleet: Fleet, attend: Callable[..., Page], accessible: Callable[[Page], None], tmp_path: Path
) -> None:
    page = attend("/virtual-pos")
    page.locator("#card").select_option("plain")
    page.get_by_label("Key in", exact=True).check()
    page.locator("#pin").fill("123456")
    page.get_by_role("button", name="Pay").click()
    expect(page.locator("[data-code]")).to_have_attribute("data-code", "00", timeout=30_000)
    counted = page.locator("#memory").get_by_text("debits")
    expect(counted).to_be_visible()

    page.get_by_label("loses its last payment").check()
    page.get_by_role("button", name="Close the batch").click()
    expect(page.locator("[data-code]")).to_have_attribute("data-code", "95", timeout=30_000)
    expect(page.locator("[data-told]")).to_contain_text("The totals differ")
    expect(page.locator("h2").filter(has_text="Sent 0500")).to_be_visible()
    accessible(page)
    page.screenshot(path=str(tmp_path / "differs.png"), full_page=True)
    if counted.count():
        page.get_by_role("button", name="Upload the batch").click()
        expect(page.locator("h2").filter(has_text="Sent 0320").first).to_be_visible()
        expect(page.locator("[data-told]")).to_contain_text("uploaded")
    page.get_by_role("button", name="Close the batch").click()
    expect(page.locator("[data-code]")).to_have_attribute("data-code", "00", timeout=30_000)
    expect(page.locator("[data-told]")).to_contain_text("The totals agree")
    expect(counted).to_have_count(0)


def test_a_wallet_pays_the_code_that_the_merchant_shows_once(
    fleet: Fleet, attend: Callable[..., Page], accessible: Callable[[Page], None], tmp_path: Path
) -> None:
    page = attend("/virtual-pos")
    page.get_by_label("The merchant shows a code").check()
    page.locator("#amount").fill("8.20")
    page.get_by_role("button", name="Pay", exact=True).click()
    image = page.locator(".order-code")
    expect(image).to_be_visible(timeout=30_000)
    expect(page.locator("h2").filter(has_text="Sent POST /v1/orders")).to_be_visible()
    expect(page.locator(".pos-bytes").first).to_contain_text("JWS-Signature: ")
    accessible(page)
    page.screenshot(path=str(tmp_path / "order.png"), full_page=True)
    page.locator("#wallet").select_option("virtual")
    page.get_by_role("button", name="Scan and pay").click()
    expect(page.locator("[data-code]")).to_have_attribute("data-code", "00", timeout=30_000)
    expect(page.locator("#outcome")).to_contain_text("Approved")
    alternative = page.locator(".pos-receipt").get_attribute("alt") or ""
    assert "8.20 CNY" in alternative
    # The wallet's single-use code isn't shown.
    expect(page.locator(".pos-bytes").first).to_contain_text('"code": "••••••••"')
    expect(page.locator(".pos-bytes").nth(1)).to_contain_text('"code": "00"')
    page.screenshot(path=str(tmp_path / "paid.png"), full_page=True)
    page.locator("#wallet").select_option("plain")
    page.get_by_role("button", name="Scan and pay").click()
    expect(page.locator("#outcome")).to_contain_text("was paid before", timeout=30_000)


def test_what_can_t_be_played_is_said(
    fleet: Fleet, attend: Callable[..., Page], watch: Watch
) -> None:
    watch.expected = ["422"]
    page = attend("/virtual-pos")
    page.locator("#card").select_option("plain")
    page.get_by_role("button", name="Pay").click()
    expect(page.get_by_role("alert")).to_contain_text("has no chip")
    page.locator("#amount").fill("nothing")
    page.get_by_role("button", name="Pay").click()
    expect(page.get_by_role("alert")).to_contain_text("above 0")
