"""The fleet's pages before real nodes and a real gateway."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import psycopg
from cryptography.hazmat.primitives.asymmetric import ec
from playwright.sync_api import Page, expect

from nodes.authorization.store import forwards
from nodes.crypto.offline_record import (
    RecordChain,
    decode_record,
    key_id_of,
    public_key_of,
    sign_as_card,
)
from tests.browser.conftest import Watch
from tests.browser.fleet import Fleet
from tests.factories.network import ACQUIRER, MERCHANT, TERMINAL


def enrolled(fleet: Fleet, name: str, store: str) -> None:
    body = {
        "terminal_id": name,
        "merchant_id": MERCHANT,
        "store": store,
        "label": "Till 7",
        "suite": "AES",
        "capabilities": ["chip", "offline", "printer"],
        "with_key": True,
    }
    with fleet.nodes.acquirer.http("operator") as client:
        assert client.post("/v1/terminals", json=body).status_code == 201


def test_a_terminal_is_found_and_switched_off_with_a_typed_confirmation(
    fleet: Fleet,
    attend: Callable[..., Page],
    accessible: Callable[[Page], None],
    watch: Watch,
    tmp_path: Path,
) -> None:
    watch.expected = ["422"]
    enrolled(fleet, "BROWSE01", "Pier 3")
    page = attend("/terminals")
    accessible(page)
    page.get_by_label("Store").fill("Pier 3")
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url("**store=Pier+3**")
    expect(page.locator("[data-terminal]")).to_have_count(1)
    page.get_by_role("link", name="BROWSE01").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("BROWSE01")
    page.wait_for_timeout(600)  # the gateway derives its key and reports
    page.reload()
    expect(page.locator("[data-check-value]")).to_have_count(1)
    accessible(page)
    page.get_by_text("Disable this terminal").click()
    form = page.locator("form[action$='/disable']")
    form.get_by_label("Reason").fill("reported stolen")
    form.get_by_role("button", name="Disable").click()
    expect(form.locator(".field-wrong")).to_have_text("Type BROWSE01 to confirm.")
    accessible(page)
    form.get_by_label("Reason").fill("reported stolen")
    form.get_by_label("Type BROWSE01 to confirm").fill("BROWSE01")
    form.get_by_role("button", name="Disable").click()
    expect(page.locator("h1 [data-terminal-state=disabled]")).to_be_visible()
    expect(page.locator("[data-change=disabled]")).to_contain_text("reported stolen")
    expect(page.locator("[data-change=disabled]")).to_contain_text("operator")
    page.screenshot(path=str(tmp_path / "terminal.png"), full_page=True)


def test_parameters_are_set_and_nonsense_is_named(
    fleet: Fleet, attend: Callable[..., Page], watch: Watch
) -> None:
    watch.expected = ["422"]
    enrolled(fleet, "BROWSE02", "Pier 4")
    page = attend("/terminals/BROWSE02")
    page.get_by_label("Floor limit (CNY)").fill("lots")
    page.locator("#parameters-reason").fill("more trust")
    page.get_by_role("button", name="Set parameters").click()
    expect(page.locator("#parameters-floor_limit-note")).to_contain_text("An amount in CNY")
    page.get_by_label("Floor limit (CNY)").fill("300.00")
    page.get_by_role("button", name="Set parameters").click()
    expect(page.get_by_role("alert")).to_contain_text("contradict each other")
    page.get_by_label("Floor limit (CNY)").fill("50.00")
    page.get_by_role("button", name="Set parameters").click()
    expect(page.locator("[data-change=parameters]")).to_contain_text("more trust")
    with fleet.nodes.acquirer.http("reader") as client:
        assert client.get("/v1/terminals/BROWSE02").json()["parameters"]["floor_limit"] == 5_000


def test_readers_see_no_buttons(fleet: Fleet, attend: Callable[..., Page]) -> None:
    page = attend(f"/terminals/{TERMINAL}", "rita")
    expect(page.get_by_text("Disable this terminal")).to_have_count(0)
    expect(page.get_by_role("button", name="Set parameters")).to_have_count(0)


def test_a_terminal_is_enrolled_changed_and_retired(
    fleet: Fleet,
    attend: Callable[..., Page],
    accessible: Callable[[Page], None],
    watch: Watch,
    tmp_path: Path,
) -> None:
    watch.expected = ["422"]
    page = attend("/terminals")
    page.get_by_role("link", name="New terminal").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("New terminal")
    accessible(page)
    page.get_by_label("Terminal", exact=True).fill("BROWSE")
    page.get_by_role("button", name="Enrol").click()
    expect(page.locator("#terminal_id-note")).to_contain_text("Eight letters")
    expect(page.locator("#merchant_id-note")).to_contain_text("Fifteen")
    page.get_by_label("Terminal", exact=True).fill("BROWSE09")
    page.get_by_label("Merchant number").fill(MERCHANT)
    page.get_by_label("Store").fill("Pier 9")
    page.get_by_label("Keys by").select_option("sm2")
    page.get_by_label("Certificate").fill("no certificate")
    page.get_by_label("Printer").check()
    page.get_by_role("button", name="Enrol").click()
    expect(page.locator("#certificate-note")).to_contain_text("Not a CERTIFICATE in PEM")
    accessible(page)
    page.get_by_label("Certificate").fill("")
    page.get_by_label("Keys by").select_option("tmk")
    page.screenshot(path=str(tmp_path / "new.png"), full_page=True)
    page.get_by_role("button", name="Enrol").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("BROWSE09")

    page.get_by_text("Change store, label and abilities").click()
    form = page.locator("form[action$='/details']")
    form.get_by_label("Label").fill("Bar")
    form.get_by_role("button", name="Change details").click()
    expect(form.locator(".field-wrong")).to_contain_text("Why")
    accessible(page)
    form.get_by_label("Reason").fill("moved inside")
    form.get_by_role("button", name="Change details").click()
    expect(page.locator("[data-change=details]")).to_contain_text("moved inside")
    page.get_by_text("Move it to another merchant").click()
    form = page.locator("form[action$='/merchant']")
    form.get_by_label("Merchant number").fill(MERCHANT[:-1] + "X")
    form.get_by_label("Reason").fill("sold")
    form.get_by_role("button", name="Move").click()
    expect(page.get_by_role("alert")).to_contain_text("There is no such merchant")
    page.get_by_text("Change algorithms or certificate").click()
    form = page.locator("form[action$='/suite']")
    form.get_by_label("Suite").select_option("AES")
    form.get_by_label("Reason").fill("AES from today")
    page.screenshot(path=str(tmp_path / "changes.png"), full_page=True)
    form.get_by_role("button", name="Change algorithms").click()
    expect(page.locator("[data-change=suite]")).to_contain_text("AES from today")
    page.get_by_text("Retire it").click()
    form = page.locator("form[action$='/retire']")
    form.get_by_label("Reason").fill("broken")
    form.get_by_label("Type BROWSE09 to confirm").fill("BROWSE09")
    form.get_by_role("button", name="Retire").click()
    expect(page.locator("h1 [data-terminal-state=retired]")).to_be_visible()
    expect(page.get_by_role("button", name="Set parameters")).to_have_count(0)
    accessible(page)
    with fleet.nodes.acquirer.http("reader") as client:
        found = client.get("/v1/terminals/BROWSE09").json()
    assert (found["label"], found["suite"], found["status"]) == ("Bar", "AES", "retired")


def test_what_of_offline_payments_needs_people_is_shown(
    fleet: Fleet, attend: Callable[..., Page], accessible: Callable[[Page], None], tmp_path: Path
) -> None:
    page = attend("/offline")
    expect(page.get_by_text("No alarms")).to_be_visible()
    private = ec.generate_private_key(ec.SECP256R1())
    chain = RecordChain(TERMINAL, 7)
    records = [
        decode_record(
            chain.append(
                card_key_id=key_id_of(public_key_of(private)),
                atc=atc,
                amount=1_500,
                currency="CNY",
                nonce=bytes(8),
                at_ms=1_790_000_000_000,
                sign=lambda message: sign_as_card(private, message),
            )
        )
        for atc in (1, 2, 3)
    ]
    day, now_ms = date(2026, 11, 23), 1_790_000_000_000
    kept = [
        forwards.OfflineRow("acquirer", ACQUIRER, one, now_ms, one.hash, one.hash, day)
        for one in (records[0], records[2])
    ]
    alarms = [
        forwards.Alarm("fork", "acquirer", TERMINAL, "another record", now_ms, 7, 1),
        forwards.Alarm("refused", "acquirer", TERMINAL, "hold_ended", now_ms, txid=bytes(32)),
    ]
    with psycopg.connect(fleet.nodes.network.acquirer_db.dsn) as connection:
        forwards.append_records(connection, kept)
        forwards.append_alarms(connection, alarms)
    page.goto(f"{fleet.home}/offline")
    expect(page.locator("[data-alarm]")).to_have_count(2)
    expect(page.locator("[data-alarm=fork]")).to_contain_text("Two records in one place")
    expect(page.locator(f"[data-chain='{TERMINAL}/7']")).to_contain_text("30.00")
    expect(page.locator(f"[data-chain='{TERMINAL}/7'] .badge")).to_have_text("1")
    accessible(page)
    page.screenshot(path=str(tmp_path / "offline.png"), full_page=True)
    page.locator("#kind").select_option("refused")
    page.get_by_role("button", name="Filter").click()
    expect(page.locator("[data-alarm]")).to_have_count(1)
    expect(page.locator("[data-alarm=refused] a")).to_have_attribute(
        "href", f"/i/{ACQUIRER}/transactions/{'00' * 32}"
    )
