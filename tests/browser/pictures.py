"""Takes the console's pictures for the docs: of the networks that the browser tests run before.

    python -m tests.browser.pictures docs/images              # all
    python -m tests.browser.pictures /tmp account virtual-pos # these

A merchant's name has a Chinese character: the machine needs a font for it (fontconfig finds
gateway/receipts/fonts if XDG_DATA_HOME/fonts leads there).

No test: pictures differ in times and ids each time, so look at each before it is committed.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from console.app import create_app
from console.settings import ConsoleSettings
from nodes.clearing.model import BreakKind
from sandbox.postgres import EmbeddedPostgres
from tests.browser.closing import closing_network
from tests.browser.fleet import fleet_network
from tests.browser.issuing import console_settings, issuing_network, node_people
from tests.browser.network import PASSWORD, console_network, people
from tests.browser.promising import promising_network
from tests.conftest import Cluster
from tests.factories.network import ACQUIRER, MERCHANT
from tests.integration.clearing.institutions import DAY

#: What is left to be done on a page, once it is there and somebody is signed in.
Shot = Callable[[Page], None]


def main(arguments: list[str]) -> None:
    """Take the pictures that are named, or all."""
    out, wanted = Path(arguments[0]), set(arguments[1:])
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    directory = Path(tempfile.mkdtemp(prefix="countersign-pictures-"))
    server = EmbeddedPostgres(directory / "postgres", durable=False)
    cluster = Cluster(server.start().superuser_dsn("postgres"))
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium)
            for network in (_record, _ledger, _days, _receipts, _terminals):
                (directory / network.__name__).mkdir()
                shots = network.__doc__ or ""
                if not wanted or wanted & set(shots.split()):
                    network(browser, cluster, directory / network.__name__, out)
            browser.close()
    finally:
        server.delete()
        shutil.rmtree(directory)


def _record(browser: Browser, cluster: Cluster, directory: Path, out: Path) -> None:
    """overview-light overview-dark batches logs transaction-verified proof-path-dark"""
    with console_network(directory) as network:
        home = f"{network.url}/i/aurora"
        txid = network.anchored()["txid"]
        with _signed_in(browser, f"{home}/overview", "ada") as page:
            _take(page, out, "overview-light", f"{home}/overview")
            _take(page, out, "batches", f"{home}/batches")
            _take(page, out, "logs", f"{home}/logs", _charts)
            _take(page, out, "transaction-verified", f"{home}/transactions/{txid}", _verify)
        with _signed_in(browser, f"{home}/overview", "ada", dark=True) as page:
            _take(page, out, "overview-dark", f"{home}/overview")
            _take(page, out, "proof-path-dark", f"{home}/proofs?txid={txid}")


def _ledger(browser: Browser, cluster: Cluster, directory: Path, out: Path) -> None:
    """account decline simulation-dark"""

    def console(entries: list[dict[str, Any]], state: Path) -> Any:
        document: dict[str, Any] = console_settings(entries, [*people(), *node_people()])
        document["state_file"] = state / "console.sqlite"
        return create_app(ConsoleSettings.model_validate(document))

    with issuing_network(cluster, directory, console) as network:
        mei = network.cards["mei"]
        with _signed_in(browser, f"{network.home}/overview", "operator") as page:
            _take(page, out, "account", f"{network.home}/accounts/{mei.account_id}")
            _take(page, out, "decline", f"{network.home}/transactions/{network.txids['banquet']}")

        def simulate(page: Page) -> None:
            page.get_by_label("Amount").fill("200")
            page.locator("#mcc").fill("5812")
            page.get_by_role("button", name="Simulate").click()
            page.wait_for_selector("text=What would happen")

        address = f"{network.home}/simulate?card={mei.card_token.hex()}"
        with _signed_in(browser, f"{network.home}/overview", "operator", dark=True) as page:
            _take(page, out, "simulation-dark", address, simulate)


def _days(browser: Browser, cluster: Cluster, directory: Path, out: Path) -> None:
    """day-close break-case settlement-dark"""
    with closing_network(cluster, directory) as network:
        home = network.home()

        def broken(page: Page) -> None:
            page.locator(f'a.cell[id$="-{DAY}"]').click()
            page.wait_for_selector("text=On chain")

        ref = network.refs[BreakKind.FIELD_MISMATCH.value]
        with _signed_in(browser, f"{home}/closes", "mara") as page:
            _take(page, out, "day-close", f"{home}/closes", broken)
            _take(page, out, "break-case", f"{home}/breaks/{ref}")
        signed = max(network.statements)
        with _signed_in(browser, f"{home}/closes", "mara", dark=True) as page:
            address = f"{home}/settlements/{network.statements[signed]}"
            _take(page, out, "settlement-dark", address)


def _receipts(browser: Browser, cluster: Cluster, directory: Path, out: Path) -> None:
    """receipt printing"""
    with promising_network(cluster, directory) as network:

        def look_up(page: Page) -> None:
            page.get_by_label("The code on the receipt").fill(network.link("claimed"))
            page.get_by_role("button", name="Look it up").click()
            page.wait_for_selector("#results [data-receipt]")

        with _signed_in(browser, f"{network.home}/receipts", "ada") as page:
            _take(page, out, "receipt", f"{network.home}/receipts", look_up)

        def show(page: Page) -> None:
            page.get_by_label("Language").select_option("en")
            page.get_by_role("button", name="Show", exact=True).click()
            page.wait_for_selector("#receipt img")

        bought = [one for one in network.records.values() if one.kind == "purchase"]
        txid = next(one.txid.hex() for one in bought if one.outcome == "approved")
        with _signed_in(browser, f"{network.home}/overview", "olga") as page:
            _take(page, out, "printing", f"{network.home}/transactions/{txid}", show)


def _terminals(browser: Browser, cluster: Cluster, directory: Path, out: Path) -> None:
    """virtual-pos virtual-pos-code-dark terminal"""
    with fleet_network(cluster, directory) as network:
        for name in ("T0000002", "T0000003"):
            body = {
                "terminal_id": name,
                "merchant_id": MERCHANT,
                "store": "Pier 3",
                "label": "Till 2",
                "suite": "AES",
                "capabilities": ["chip", "offline", "printer"],
                "with_key": True,
            }
            with network.nodes.acquirer.http("operator") as client:
                client.post("/v1/terminals", json=body).raise_for_status()

        def insert(page: Page) -> None:
            page.locator("#pin").fill("123456")
            page.get_by_role("button", name="Pay").click()
            page.wait_for_selector("[data-code='00']", timeout=60_000)

        def code(page: Page) -> None:
            page.get_by_label("The merchant shows a code").check()
            page.get_by_role("button", name="Pay", exact=True).click()
            page.get_by_role("button", name="Scan and pay").click(timeout=60_000)
            page.wait_for_selector(".pos-receipt", timeout=60_000)

        home = f"{network.url}/i/{ACQUIRER}"
        with _signed_in(browser, f"{home}/overview", "olga") as page:
            _take(page, out, "virtual-pos", f"{home}/virtual-pos", insert)
            _take(page, out, "terminal", f"{home}/terminals/T0000002")
        with _signed_in(browser, f"{home}/overview", "olga", dark=True) as page:
            _take(page, out, "virtual-pos-code-dark", f"{home}/virtual-pos", code)


def _charts(page: Page) -> None:
    page.wait_for_selector("canvas")


def _verify(page: Page) -> None:
    page.get_by_role("button", name="Verify").click()
    page.wait_for_selector("[data-verdict=verified]")
    page.wait_for_selector("[data-agreement=equal]")


@contextmanager
def _signed_in(
    browser: Browser, address: str, username: str, *, dark: bool = False
) -> Iterator[Page]:
    """A page of the console's with somebody signed in, 1440 pixels wide."""
    options: Mapping[str, Any] = {"color_scheme": "dark" if dark else "light", "locale": "en-GB"}
    context = browser.new_context(viewport={"width": 1440, "height": 960}, **options)
    context.set_default_timeout(90_000)
    page = context.new_page()
    page.goto(address)
    page.get_by_label("User name").fill(username)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_selector("#content h1")
    try:
        yield page
    finally:
        context.close()


def _take(page: Page, out: Path, name: str, address: str, act: Shot | None = None) -> None:
    page.goto(address)
    if act is not None:
        act(page)
    # As tall as the page, so that the menu at its side reaches its end.
    page.wait_for_timeout(900)
    height = page.evaluate("document.documentElement.scrollHeight")
    page.set_viewport_size({"width": 1440, "height": max(960, int(height))})
    page.wait_for_timeout(600)
    page.screenshot(path=str(out / f"{name}.png"))
    page.set_viewport_size({"width": 1440, "height": 960})
    print(name, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
