"""The fleet's pages and the virtual POS: real nodes, a real gateway, the simulator behind it."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from playwright.sync_api import Page, expect

from console.app import create_app
from console.settings import ConsoleSettings
from gateway.app import Gateway
from gateway.http.server import HttpFront
from gateway.settings import GatewaySettings
from gateway.terminal_keys.ring import MASTER_KEY, ZONE_KEY, tmk_name
from nodes.authorization.store import forwards, hotlist
from nodes.crypto.emv import TRANSPORT_KEY
from nodes.crypto.keystore import Keystore
from nodes.crypto.offline_record import (
    RecordChain,
    decode_record,
    key_id_of,
    public_key_of,
    sign_as_card,
)
from sandbox.terminals.service import SimulatorService
from sandbox.terminals.surroundings import Api, Surroundings
from tests.browser.conftest import Watch
from tests.browser.fake_node import Server
from tests.browser.issuing import console_settings
from tests.browser.network import PASSWORD, people
from tests.conftest import Cluster
from tests.factories.network import (
    ACQUIRER,
    EMV_KEYS,
    GATEWAY_ZONE,
    ISSUER,
    MERCHANT,
    TERMINAL,
)
from tests.factories.pos import secret, tmk
from tests.integration.api.running import GATEWAY, KEYS, SEEDS, TwoNodes, public, two_nodes
from tests.integration.gateway.running import document

T = TypeVar("T")
SECRETS = {
    MASTER_KEY: secret(MASTER_KEY),
    ZONE_KEY: GATEWAY_ZONE,
    tmk_name(TERMINAL): tmk(TERMINAL),
    "message": SEEDS[GATEWAY],
}
_SIMULATOR_KEY = "simulator-key-of-the-test"


class Loop:
    """An event loop in a thread of its own: Playwright's runs in the test's."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result(60)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


@dataclass
class Fleet:
    url: str
    nodes: TwoNodes
    gateway: Gateway

    @property
    def home(self) -> str:
        return f"{self.url}/i/{ACQUIRER}"


@pytest.fixture(scope="module")
def fleet(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Nodes, gateway, simulator, console."""
    loop = Loop()
    with two_nodes(cluster) as nodes:
        made = document(
            nodes.acquirer.url,
            public(ACQUIRER),
            key_id=GATEWAY,
            terminals=[{"terminal_id": TERMINAL, "merchant_id": MERCHANT}],
            fleet_poll_s=0.1,
            fleet_report_s=0.2,
        )
        gateway = Gateway(GatewaySettings.model_validate(made), Keystore(SECRETS, "memory"))
        loop.run(gateway.start())
        shop = document(
            nodes.acquirer.url, public(ACQUIRER), key_id=GATEWAY, terminals=[], api_port=0
        )
        front = HttpFront(GatewaySettings.model_validate(shop), Keystore(SECRETS, "memory"))
        loop.run(front.start())
        around = Surroundings(
            host="127.0.0.1",
            ports=gateway.ports,
            acquirer=Api(nodes.acquirer.url, KEYS["operator"]),
            issuers={ISSUER: Api(nodes.issuer.url, KEYS["operator"])},
            transport={ISSUER: EMV_KEYS[TRANSPORT_KEY]},
            master=secret(MASTER_KEY),
            merchants=(MERCHANT,),
            terminals=((TERMINAL, MERCHANT, tmk(TERMINAL)),),
            names={MERCHANT: "Harbor Stores"},
            front=f"http://127.0.0.1:{front.port}",
        )
        simulator = SimulatorService(around, _SIMULATOR_KEY)
        port = loop.run(simulator.start("127.0.0.1", 0))
        settings = _console(nodes, port, tmp_path_factory.mktemp("fleet-console"))
        server = Server(create_app(settings)).start()
        try:
            yield Fleet(server.url, nodes, gateway)
        finally:
            server.stop()
            loop.run(simulator.close())
            loop.run(front.close())
            loop.run(gateway.close())
            loop.stop()


def _console(nodes: TwoNodes, simulator: int, directory: Path) -> ConsoleSettings:
    entries = [
        {
            "member_id": member_id,
            "name": name,
            "roles": [role],
            "api_url": node.url,
            "api_key": KEYS["reader"],
        }
        for member_id, name, role, node in (
            (ACQUIRER, "Meridian Acquiring", "acquirer", nodes.acquirer),
            (ISSUER, "Aurora Bank", "issuer", nodes.issuer),
        )
    ]
    password = people()[0]["password_argon2"]
    users = [
        {
            "username": "olga",
            "password_argon2": password,
            "role": "operator",
            "members": ["*"],
            "node_keys": {ACQUIRER: KEYS["operator"]},
        },
        {"username": "rita", "password_argon2": password, "role": "reader", "members": ["*"]},
    ]
    made = console_settings(entries, users)
    made["state_file"] = directory / "console.sqlite"
    made["simulator"] = {"url": f"http://127.0.0.1:{simulator}", "key": _SIMULATOR_KEY}
    return ConsoleSettings.model_validate(made)


@pytest.fixture
def visit(page: Page, fleet: Fleet) -> Callable[..., Page]:
    """Signs somebody in at one of the acquirer's pages."""

    def sign(path: str, username: str = "olga") -> Page:
        page.goto(fleet.home + path)
        page.get_by_label("User name").fill(username)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_selector("#content h1")
        return page

    return sign


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
    visit: Callable[..., Page],
    accessible: Callable[[Page], None],
    watch: Watch,
    tmp_path: Path,
) -> None:
    watch.expected = ["422"]
    enrolled(fleet, "BROWSE01", "Pier 3")
    page = visit("/terminals")
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
    fleet: Fleet, visit: Callable[..., Page], watch: Watch
) -> None:
    watch.expected = ["422"]
    enrolled(fleet, "BROWSE02", "Pier 4")
    page = visit("/terminals/BROWSE02")
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


def test_readers_see_no_buttons(fleet: Fleet, visit: Callable[..., Page]) -> None:
    page = visit(f"/terminals/{TERMINAL}", "rita")
    expect(page.get_by_text("Disable this terminal")).to_have_count(0)
    expect(page.get_by_role("button", name="Set parameters")).to_have_count(0)


def test_a_card_is_inserted_the_pin_entered_and_the_receipt_shown(
    fleet: Fleet,
    visit: Callable[..., Page],
    accessible: Callable[[Page], None],
    tmp_path: Path,
) -> None:
    page = visit("/virtual-pos")
    expect(page.get_by_text("Sandbox: a simulated terminal")).to_be_visible()
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
    assert base64.b64decode(image.partition(",")[2]).startswith(b"\x89PNG")
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
    visit: Callable[..., Page],
    tmp_path: Path,
    card: str,
    way: str,
    pin: str,
    fault: str,
    code: str,
) -> None:
    page = visit("/virtual-pos")
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


def test_an_offline_payment_is_kept_uploaded_and_posted(
    fleet: Fleet, visit: Callable[..., Page], accessible: Callable[[Page], None], tmp_path: Path
) -> None:
    _know_the_hotlists(fleet)
    page = visit("/virtual-pos")
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
    expect(page.locator(".pos-value").filter(has_text="735")).to_be_visible()
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
    fleet: Fleet, visit: Callable[..., Page], accessible: Callable[[Page], None], tmp_path: Path
) -> None:
    page = visit("/virtual-pos")
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
    fleet: Fleet, visit: Callable[..., Page], accessible: Callable[[Page], None], tmp_path: Path
) -> None:
    page = visit("/virtual-pos")
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
    page.screenshot(path=str(tmp_path / "paid.png"), full_page=True)
    page.locator("#wallet").select_option("plain")
    page.get_by_role("button", name="Scan and pay").click()
    expect(page.locator("#outcome")).to_contain_text("was paid before", timeout=30_000)


def test_what_can_t_be_played_is_said(
    fleet: Fleet, visit: Callable[..., Page], watch: Watch
) -> None:
    watch.expected = ["422"]
    page = visit("/virtual-pos")
    page.locator("#card").select_option("plain")
    page.get_by_role("button", name="Pay").click()
    expect(page.get_by_role("alert")).to_contain_text("has no chip")
    page.locator("#amount").fill("nothing")
    page.get_by_role("button", name="Pay").click()
    expect(page.get_by_role("alert")).to_contain_text("above 0")


def test_a_terminal_is_enrolled_changed_and_retired(
    fleet: Fleet,
    visit: Callable[..., Page],
    accessible: Callable[[Page], None],
    watch: Watch,
    tmp_path: Path,
) -> None:
    watch.expected = ["422"]
    page = visit("/terminals")
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
    fleet: Fleet, visit: Callable[..., Page], accessible: Callable[[Page], None], tmp_path: Path
) -> None:
    page = visit("/offline")
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
