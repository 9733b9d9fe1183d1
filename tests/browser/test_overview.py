"""The overview: figures, chart, live rows, dark and light, empty, away."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from playwright.sync_api import Page, expect

from nodes.authorization.model import Outcome
from tests.browser.conftest import Watch
from tests.browser.network import ConsoleNetwork


def test_figures_chart_and_declines_come_from_the_node(
    page: Page, network: ConsoleNetwork, sign_in: Callable[..., Page]
) -> None:
    sign_in()
    told = network.node().overview(60)
    expect(page.locator("[data-figure=approved]")).to_have_text(f"{told['totals']['approved']:,}")
    amount = f"{told['totals']['amount'] / 100:,.2f}"
    expect(page.locator("[data-figure=amount]")).to_contain_text(amount)
    expect(page.locator("#volume-chart")).to_have_attribute("data-drawn", "60")
    expect(page.locator("#volume-chart canvas")).to_be_visible()
    reasons = page.locator("#declines li")
    assert reasons.count() == len(told["declines"])
    expect(reasons.first).to_contain_text(str(max(told["declines"].values())))


def test_a_reason_leads_to_its_transactions(page: Page, sign_in: Callable[..., Page]) -> None:
    sign_in()
    page.locator("#declines").get_by_role("link", name="Insufficient funds").click()
    expect(page.get_by_role("heading", name="Transactions")).to_be_visible()
    badges = page.locator("#results tbody .badge")
    assert set(badges.all_inner_texts()) == {"Insufficient funds"}


def test_a_new_transaction_appears_by_itself_and_the_list_keeps_its_length(
    page: Page, network: ConsoleNetwork, sign_in: Callable[..., Page]
) -> None:
    sign_in()
    expect(page.locator("#feed")).to_have_attribute("data-state", "live")
    entry = network.day.entry(datetime.now(UTC), Outcome.CARD_EXPIRED)
    network.node().happens(entry)
    first = page.locator("#live tr").first
    expect(first).to_have_attribute("data-txid", entry.txid.hex())
    expect(first).to_contain_text("Card expired")
    expect(page.locator("#live tr")).to_have_count(12)


def test_pausing_holds_new_rows_back_and_resuming_shows_them(
    page: Page, network: ConsoleNetwork, sign_in: Callable[..., Page]
) -> None:
    sign_in()
    expect(page.locator("#feed")).to_have_attribute("data-state", "live")
    page.get_by_role("button", name="Pause").click()
    entry = network.day.entry(datetime.now(UTC))
    network.node().happens(entry)
    expect(page.locator("#feed")).to_contain_text("Paused (1)")
    expect(page.locator(f"[data-txid='{entry.txid.hex()}']")).to_have_count(0)
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#live tr").first).to_have_attribute("data-txid", entry.txid.hex())
    expect(page.locator("#feed")).to_have_attribute("data-state", "live")


def test_a_listed_transaction_goes_on_to_the_chain_before_ones_eyes(
    page: Page, network: ConsoleNetwork, sign_in: Callable[..., Page]
) -> None:
    sign_in()
    row = page.locator("#live tr").first
    expect(row).to_contain_text("Recorded")
    books = network.node().books
    while books.batches[-1]["anchor"] is None or len(books.leaves) < len(books.rows):
        waiting = [batch for batch in books.batches if batch["anchor"] is None]
        books.anchor(waiting[0] if waiting else books.seal(datetime.now(UTC)), datetime.now(UTC))
    txid = row.get_attribute("data-txid")
    expect(page.locator(f"[data-state-of='{txid}']")).to_contain_text("Anchored", timeout=15_000)


def test_the_chart_follows_the_colours(page: Page, sign_in: Callable[..., Page]) -> None:
    sign_in()
    html = page.locator("html")
    expect(html).to_have_attribute("data-bs-theme", "light")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    before = page.locator("#volume-chart canvas").screenshot()
    page.get_by_role("button", name="Dark").click()
    expect(html).to_have_attribute("data-bs-theme", "dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    page.wait_for_timeout(400)
    assert page.locator("#volume-chart canvas").screenshot() != before
    page.reload()
    expect(html).to_have_attribute("data-bs-theme", "dark")


def test_colours_follow_the_system_unless_chosen(page: Page, sign_in: Callable[..., Page]) -> None:
    sign_in()
    page.emulate_media(color_scheme="dark")
    expect(page.locator("html")).to_have_attribute("data-bs-theme", "dark")
    page.get_by_role("button", name="Light").click()
    expect(page.locator("html")).to_have_attribute("data-bs-theme", "light")


def test_the_chart_explains_a_bar_under_the_pointer(
    page: Page, sign_in: Callable[..., Page]
) -> None:
    sign_in()
    expect(page.locator("#volume-chart")).to_have_attribute("data-drawn", "60")
    page.locator("#volume-chart canvas").hover(position={"x": 400, "y": 150})
    expect(page.locator(".chart-tip")).to_contain_text("Approved amount")


def test_an_institution_without_transactions_says_so(
    page: Page, network: ConsoleNetwork, sign_in: Callable[..., Page]
) -> None:
    sign_in()
    for name, words in (
        ("overview", "No transactions yet"),
        ("transactions", "No transactions yet"),
        ("batches", "No batches yet"),
        ("anchors", "No anchors yet"),
    ):
        page.goto(f"{network.url}/i/borealis/{name}")
        expect(page.get_by_text(words)).to_be_visible()


def test_a_node_that_does_not_answer_is_named_and_the_others_go_on(
    page: Page, watch: Watch, network: ConsoleNetwork, sign_in: Callable[..., Page]
) -> None:
    watch.expected.append("503")
    sign_in()
    network.node().away = True
    for name in ("overview", "transactions", "batches", "members"):
        answer = page.goto(f"{network.url}/i/aurora/{name}")
        assert answer is not None
        assert answer.status == 503
        expect(page.get_by_text("Aurora Bank's node is not answering")).to_be_visible()
    page.goto(f"{network.url}/i/meridian/overview")
    expect(page.locator("#live tr")).to_have_count(12)


def test_a_node_that_goes_away_under_an_open_page_is_noticed_and_comes_back(
    page: Page, watch: Watch, network: ConsoleNetwork, sign_in: Callable[..., Page]
) -> None:
    watch.expected.append("503")
    sign_in()
    expect(page.locator("#feed")).to_have_attribute("data-state", "live")
    network.node().away = True
    expect(page.locator("#feed")).to_have_attribute("data-state", "away")
    expect(page.locator("#figures [data-notice='503']")).to_be_visible()
    network.node().away = False
    expect(page.locator("#feed")).to_have_attribute("data-state", "live", timeout=15_000)
    expect(page.locator("[data-figure=approved]")).to_be_visible()


def test_a_node_that_refuses_the_console_is_named(
    page: Page, watch: Watch, network: ConsoleNetwork, sign_in: Callable[..., Page]
) -> None:
    watch.expected.append("502")
    sign_in()
    network.node().refuses = True
    answer = page.goto(f"{network.url}/i/aurora/batches")
    assert answer is not None
    assert answer.status == 502
    expect(page.get_by_text("doesn't accept this console")).to_be_visible()
