"""A browser and a console for the browser tests; every page is watched for errors and for
violations of the content security policy."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from console.app import create_app
from console.settings import ConsoleSettings
from tests.browser.closing import Closing, closing_network
from tests.browser.fleet import Fleet, fleet_network
from tests.browser.issuing import Issuing, console_settings, issuing_network, node_people
from tests.browser.network import PASSWORD, ConsoleNetwork, console_network, people
from tests.browser.promising import Receipts, promising_network
from tests.conftest import Cluster
from tests.factories.ledger import ACQUIRER, ISSUER

AXE = Path(__file__).parent / "vendor" / "axe.min.js"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs a Chromium."""
    here = str(Path(__file__).parent)
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The machine's Chromium."""
    path = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"no Chromium on this machine (looked for {', '.join(_NAMES)})")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def _started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsoleNetwork]:
    with console_network(tmp_path_factory.mktemp("console")) as network:
        yield network


@pytest.fixture
def network(_started: ConsoleNetwork) -> Iterator[ConsoleNetwork]:
    """The console and its nodes, well behaved at the start of each test."""
    yield _started
    for node in _started.nodes.values():
        node.away = node.refuses = False
        node.checkpoint = None
        node.tampered.clear()
        node.swapped.clear()
        node.falsified.clear()


@pytest.fixture(scope="session")
def issuing(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Issuing]:
    """Real nodes with a day's business, and a console before them."""

    def console(entries: list[dict[str, Any]], directory: Path) -> Any:
        document = console_settings(entries, [*people(), *node_people()])
        document["state_file"] = directory / "console.sqlite"
        return create_app(ConsoleSettings.model_validate(document))

    with issuing_network(cluster, tmp_path_factory.mktemp("issuing"), console) as network:
        yield network


@pytest.fixture(scope="module")  # what one file does to its days is not another's to see
def closing(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Closing]:
    """Real nodes whose days are closed on a real chain, and a console before them."""
    with closing_network(cluster, tmp_path_factory.mktemp("closing")) as network:
        yield network


@pytest.fixture(scope="session")
def promising(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receipts]:
    """A real node that has given receipts, and a console before it."""
    with promising_network(cluster, tmp_path_factory.mktemp("promising")) as network:
        yield network


class Watch:
    """What a page complained of."""

    def __init__(self) -> None:
        self.troubles: list[str] = []
        #: Parts of messages that a test expects (a refused sign-in is logged by the browser).
        self.expected: list[str] = []

    def on(self, page: Page) -> None:
        page.on("pageerror", lambda error: self.troubles.append(f"error: {error}"))
        page.on("console", self._console)

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.troubles.append(f"{message.type}: {message.text}")

    def unexpected(self) -> list[str]:
        return [text for text in self.troubles if not any(part in text for part in self.expected)]


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser with no cookies, 1440 pixels wide, light."""
    made = browser.new_context(
        viewport={"width": 1440, "height": 900}, color_scheme="light", locale="en-GB"
    )
    made.set_default_timeout(10_000)
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext, watch: Watch) -> Iterator[Page]:
    """A page; at the end of the test it must not have complained of anything unexpected."""
    opened = context.new_page()
    watch.on(opened)
    yield opened
    assert watch.unexpected() == []


@pytest.fixture
def sign_in(page: Page, network: ConsoleNetwork) -> Callable[..., Page]:
    """Signs a person in through the form; the page is then on their overview."""

    def sign(username: str = "ada", path: str = "/") -> Page:
        page.goto(network.url + path)
        page.get_by_label("User name").fill(username)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_selector("#content")
        return page

    return sign


@pytest.fixture
def enter(page: Page, issuing: Issuing) -> Callable[..., Page]:
    """Signs somebody in at the console of the real nodes, at one of the issuer's pages."""

    def sign(path: str = "/overview", username: str = "otto") -> Page:
        page.goto(issuing.home + path)
        page.get_by_label("User name").fill(username)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_selector("#content")
        return page

    return sign


@pytest.fixture
def visit(page: Page, closing: Closing) -> Callable[..., Page]:
    """Signs somebody in at the console of the closed days, at one of an institution's pages."""

    def sign(path: str = "/closes", username: str = "mara", member: str = "") -> Page:
        home = {"mara": ACQUIRER, "ivan": ISSUER}.get(username, ACQUIRER)
        page.goto(closing.home(member or home) + path)
        page.get_by_label("User name").fill(username)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_selector("#content")
        return page

    return sign


@pytest.fixture(scope="module")  # what one file does with its terminals is not another's to see
def fleet(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Real nodes, a real gateway, the terminal simulator, and a console before them."""
    with fleet_network(cluster, tmp_path_factory.mktemp("fleet-console")) as network:
        yield network


@pytest.fixture
def attend(page: Page, fleet: Fleet) -> Callable[..., Page]:
    """Signs somebody in at one of the acquirer's pages, in the console of the fleet."""

    def sign(path: str, username: str = "olga") -> Page:
        page.goto(fleet.home + path)
        page.get_by_label("User name").fill(username)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_selector("#content h1")
        return page

    return sign


@pytest.fixture
def accessible() -> Callable[[Page], None]:
    """Asserts that axe-core finds no violation on the page (WCAG 2.2 A and AA, best practices)."""

    def check(page: Page) -> None:
        # Animations of new rows blend colours: judge the page at rest.
        page.evaluate(
            "document.getAnimations().forEach(each => "
            "each.effect.getComputedTiming().iterations === Infinity || each.finish())"
        )
        page.evaluate(AXE.read_text(encoding="utf-8") + "; 0")
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        problems = [
            f"{violation['id']}: {node['target']} {node['failureSummary']}"
            for violation in found["violations"]
            for node in violation["nodes"]
        ]
        assert problems == []

    return check


@pytest.fixture
def in_both_colours(accessible: Callable[[Page], None]) -> Callable[[Page], None]:
    """The same in light and dark."""

    def check(page: Page) -> None:
        for scheme in ("dark", "light"):
            page.emulate_media(color_scheme=scheme)
            page.wait_for_timeout(400)  # buttons fade from one scheme to the other
            accessible(page)

    return check
