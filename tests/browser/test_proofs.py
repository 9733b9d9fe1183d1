"""The proof inspector: the path from leaf to root to block, and the reason of a refusal."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from playwright.sync_api import Page, expect

from nodes.anchoring.bundle import parse_bundle
from nodes.crypto.merkle import root_of
from tests.browser.conftest import Watch
from tests.browser.network import ConsoleNetwork

SignIn = Callable[..., Page]


def _bundle(network: ConsoleNetwork, member: str = "aurora") -> str:
    node = network.node(member)
    index = network.anchored(member)["log_index"]
    raw = node.books.bundle(index)
    assert raw is not None
    return raw.decode()


def _inspect(page: Page, text: str) -> None:
    page.get_by_label("A proof file's text").fill(text)
    page.get_by_role("button", name="Draw and judge").click()


def test_a_transactions_proof_is_drawn_up_to_its_block(
    page: Page, network: ConsoleNetwork, sign_in: SignIn
) -> None:
    item = network.anchored()
    books = network.node().books
    batch = books.batch_of(item["log_index"])
    assert batch is not None
    sign_in(path=f"/i/aurora/transactions/{item['txid']}")
    page.get_by_role("link", name="Path").click()
    expect(page.locator("[data-verdict=verified]")).to_be_visible()
    expect(page.locator("[data-joint=holds]")).to_have_count(4)
    expect(page.locator("[data-joint=broken]")).to_have_count(0)
    path = parse_bundle(_bundle(network).encode()).path
    expect(page.locator("[data-rung]")).to_have_count(len(path))
    drawing = page.locator(".drawing")
    for sibling in path:
        expect(drawing.locator(f'.node-sibling [title="{sibling.hex()}"]')).to_be_visible()
    # Path, checkpoint and chain: three times the same root.
    root = root_of(books.hashes[: batch["size"]]).hex()
    expect(drawing.locator(f'.node [title="{root}"]')).to_have_count(3)
    expect(drawing).to_contain_text(f"Block {batch['anchor'].block_number}")
    expect(drawing.locator(f'[title="{batch["anchor"].block_hash.hex()}"]')).to_be_visible()
    expect(drawing.locator(".facts")).to_contain_text(item["merchant_id"])
    expect(drawing.locator(".hidden-field")).to_contain_text("kept hidden")


def test_each_hash_can_be_copied(page: Page, network: ConsoleNetwork, sign_in: SignIn) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    sign_in(path=f"/i/aurora/proofs?txid={network.anchored()['txid']}")
    sibling = page.locator("[data-rung='1'] .node-sibling")
    sibling.get_by_role("button").click()
    wanted = sibling.locator("code").get_attribute("title")
    assert page.evaluate("navigator.clipboard.readText()") == wanted


def test_a_proof_of_another_member_is_judged_too(
    page: Page, network: ConsoleNetwork, sign_in: SignIn
) -> None:
    sign_in("rita", "/i/meridian/proofs")
    _inspect(page, _bundle(network, "aurora"))
    expect(page.locator("[data-verdict=verified]")).to_be_visible()


def _altered(network: ConsoleNetwork, what: str) -> str:
    lines = _bundle(network).split("\n")
    if what == "MALFORMED":
        return "\n".join(lines[1:])
    place = {"NOT_INCLUDED": 3, "SIGNATURE_INVALID": -2}[what]
    line = lines[place]
    at = 0 if place == 3 else line.rindex(" ") + 12
    lines[place] = line[:at] + ("A" if line[at] != "A" else "B") + line[at + 1 :]
    return "\n".join(lines)


@pytest.mark.parametrize("reason", ["MALFORMED", "NOT_INCLUDED", "SIGNATURE_INVALID"])
def test_a_refusal_is_named_and_stands_where_it_belongs(
    page: Page, network: ConsoleNetwork, sign_in: SignIn, reason: str
) -> None:
    sign_in(path="/i/aurora/proofs")
    _inspect(page, _altered(network, reason))
    shown = page.locator("[data-verdict]")
    expect(shown).to_have_attribute("data-verdict", reason)
    expect(shown.locator(".check-refused")).to_have_count(1)
    if reason == "MALFORMED":
        expect(page.get_by_text("This is no proof")).to_be_visible()
    else:
        expect(page.locator("[data-joint=broken]")).to_have_count(1)


def test_a_file_is_read_in_the_browser(
    page: Page, network: ConsoleNetwork, sign_in: SignIn
) -> None:
    sign_in(path="/i/aurora/proofs")
    page.locator("#file").set_input_files(
        {"name": "a.tlog-proof", "mimeType": "text/plain", "buffer": _bundle(network).encode()}
    )
    expect(page.locator("[data-verdict=verified]")).to_be_visible()
    page.locator("#file").set_input_files(
        {"name": "large", "mimeType": "text/plain", "buffer": b"x" * 70_000}
    )
    expect(page.get_by_text("No proof is that large.")).to_be_visible()


def test_what_can_not_be_drawn_is_explained(
    page: Page, watch: Watch, network: ConsoleNetwork, sign_in: SignIn
) -> None:
    watch.expected += ["422", "404", "409"]
    sign_in(path="/i/aurora/proofs?txid=abc")
    expect(page.get_by_text("has 64 hexadecimal digits")).to_be_visible()
    page.goto(f"{network.url}/i/aurora/proofs?txid={'0' * 64}")
    expect(page.get_by_text("Aurora Bank has no such transaction.")).to_be_visible()
    node = network.node()
    node.happens(network.day.entry(datetime.now(UTC)))
    waiting = node.item(len(node.books.rows) - 1)
    page.goto(f"{network.url}/i/aurora/proofs?txid={waiting['txid']}")
    expect(page.get_by_text("There is no proof yet")).to_be_visible()
    page.goto(f"{network.url}/i/aurora/proofs")
    page.get_by_role("button", name="Draw and judge").click()
    expect(page.get_by_text("a text that begins with c2sp.org/tlog-proof")).to_be_visible()


def test_an_offered_transaction_is_drawn(page: Page, sign_in: SignIn) -> None:
    sign_in(path="/i/aurora/proofs")
    page.locator(".examples a").first.click()
    expect(page.locator("[data-verdict=verified]")).to_be_visible()


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_a_drawing_is_accessible(
    page: Page,
    network: ConsoleNetwork,
    sign_in: SignIn,
    accessible: Callable[[Page], None],
    theme: str,
) -> None:
    sign_in(path="/i/aurora/proofs")
    page.get_by_role("button", name=theme).click()
    accessible(page)
    _inspect(page, _bundle(network))
    expect(page.locator("[data-verdict=verified]")).to_be_visible()
    accessible(page)
    _inspect(page, _altered(network, "NOT_INCLUDED"))
    expect(page.locator("[data-verdict=NOT_INCLUDED]")).to_be_visible()
    accessible(page)
