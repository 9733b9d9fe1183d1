"""The logs of all members side by side, beside the checkpoints that their nodes give out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from nodes.anchoring.checkpoint import Checkpoint, Origin
from tests.browser.network import ConsoleNetwork

SignIn = Callable[..., Page]


def test_each_member_is_shown_as_the_chain_has_it(
    page: Page, network: ConsoleNetwork, sign_in: SignIn
) -> None:
    sign_in(path="/i/aurora/logs")
    expect(page.locator("[data-log]")).to_have_count(4)
    for member in ("aurora", "meridian"):
        newest = [b for b in network.node(member).books.batches if b["anchor"]][-1]
        card = page.locator(f"[data-log={member}]")
        expect(card).to_contain_text(f"{newest['size']:,}")
        expect(card).to_contain_text(f"#{newest['seq']}")
        expect(card.locator(f'[title="{newest["root"].hex()}"]')).to_be_visible()
        expect(card.locator("[data-agreement]")).to_have_attribute("data-agreement", "equal")
    waiting = len(network.node().books.rows) - newest["size"]
    expect(page.locator("[data-log=aurora]")).to_contain_text(f"{waiting} more wait")
    # Nothing is anchored of the third; the fourth has no node at its address.
    expect(page.locator("[data-log=borealis] [data-agreement=nothing]")).to_be_visible()
    expect(page.locator("[data-log=harbor] [data-agreement=away]")).to_be_visible()
    expect(page.locator("#growth-chart")).to_have_attribute("data-drawn", "2")


def test_members_whose_node_one_may_not_see_are_shown_by_the_chain_alone(
    page: Page, sign_in: SignIn
) -> None:
    sign_in("rita", "/i/meridian/logs")
    expect(page.locator("[data-log]")).to_have_count(4)
    expect(page.locator("[data-log=aurora]")).to_contain_text("isn't told to others")
    expect(page.locator("[data-log=aurora]")).to_contain_text("#6")


@pytest.mark.parametrize(
    "agreement", ["behind", "different", "ahead", "unsigned", "malformed", "away"]
)
def test_a_node_that_says_something_else_stands_out(
    page: Page, network: ConsoleNetwork, sign_in: SignIn, agreement: str
) -> None:
    node = network.node("meridian")
    books = node.books
    origin = Origin(network.chain.chain_id, network.chain.anchor_registry.lower(), "meridian")
    newest = [batch for batch in books.batches if batch["anchor"]][-1]
    root, size = newest["root"], newest["size"]

    def signed(size: int, root: bytes, by: ConsoleNetwork | None = None) -> str:
        signer = network.node().books.signer if by else books.signer
        return signer.sign(str(origin), Checkpoint(origin, size, root).text()).encode()

    notes = {
        "behind": books.batches[1]["note"],
        "different": signed(size, bytes(32)),
        "ahead": signed(size + 1, root),
        "unsigned": signed(size, root, by=network),
        "malformed": network.node().books.batches[0]["note"],
    }
    node.checkpoint = notes.get(agreement)
    node.away = agreement == "away"
    sign_in(path="/i/aurora/logs")
    expect(page.locator(f"[data-log=meridian] [data-agreement={agreement}]")).to_be_visible()
    expect(page.locator("[data-log=aurora] [data-agreement=equal]")).to_be_visible()
    contradicts = agreement not in ("behind", "away")
    expect(page.get_by_text("A node contradicts the chain")).to_have_count(int(contradicts))


def test_the_page_keeps_up_by_itself(page: Page, network: ConsoleNetwork, sign_in: SignIn) -> None:
    sign_in(path="/i/aurora/logs")
    expect(page.locator("[data-log=aurora] [data-agreement=equal]")).to_be_visible()
    page.locator("[data-log=aurora] [data-copy]").focus()
    network.node().checkpoint = network.node().books.batches[0]["note"]
    behind = page.locator("[data-log=aurora] [data-agreement=behind]")
    expect(behind).to_be_visible(timeout=15_000)
    expect(page.locator("[data-log=aurora] [data-copy]")).to_be_focused()


def test_roles_and_reach_stand_in_the_address(
    page: Page, network: ConsoleNetwork, sign_in: SignIn
) -> None:
    sign_in(path="/i/aurora/logs")
    page.get_by_role("link", name="Acquirers").click()
    expect(page.locator("[data-log]")).to_have_count(1)
    page.get_by_role("link", name="50 anchors").click()
    assert page.url == f"{network.url}/i/aurora/logs?role=acquirer&last=50"
    expect(page.locator("[data-log]")).to_have_count(1)
    page.goto(f"{network.url}/i/aurora/logs?role=harbourmaster&last=7")
    expect(page.locator("[data-log]")).to_have_count(4)


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_the_page_is_accessible(
    page: Page,
    network: ConsoleNetwork,
    sign_in: SignIn,
    accessible: Callable[[Page], None],
    theme: str,
) -> None:
    network.node("meridian").checkpoint = "nonsense"
    sign_in(path="/i/aurora/logs")
    page.get_by_role("button", name=theme).click()
    expect(page.locator("[data-log=meridian] [data-agreement=malformed]")).to_be_visible()
    accessible(page)
