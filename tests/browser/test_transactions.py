"""Transactions: filters in the address, paging, the way to the proof, and Verify."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser.conftest import Watch
from tests.browser.network import ConsoleNetwork


def _rows(page: Page) -> list[str]:
    return [
        row.get_attribute("data-txid") or "" for row in page.locator("#results tr.row-link").all()
    ]


def test_filters_stand_in_the_address_and_work_from_there(
    page: Page, network: ConsoleNetwork, sign_in: Callable[..., Page]
) -> None:
    sign_in(path="/i/aurora/transactions")
    page.get_by_label("Outcome").select_option("pin_wrong")
    expect(page.locator("#results .chip")).to_contain_text("Wrong PIN")
    assert set(page.locator("#results tbody .badge").all_inner_texts()) == {"Wrong PIN"}
    assert page.url == f"{network.url}/i/aurora/transactions?outcome=pin_wrong"
    listed = _rows(page)
    page.goto(page.url)
    assert _rows(page) == listed
    expect(page.get_by_label("Outcome")).to_have_value("pin_wrong")
    page.locator("#results .chip").click()
    expect(page.locator("#results .chip")).to_have_count(0)
    assert page.url == f"{network.url}/i/aurora/transactions"


def test_several_filters_narrow_the_list(
    page: Page, network: ConsoleNetwork, sign_in: Callable[..., Page]
) -> None:
    sign_in(path="/i/aurora/transactions?kind=purchase&min_amount=50&max_amount=100.00")
    query = {"kind": "purchase", "min_amount": "5000", "max_amount": "10000"}
    wanted = network.node().filtered(query)[:25]
    assert _rows(page) == [network.node().item(index)["txid"] for index in wanted]


def test_going_back_brings_back_the_filters_before(
    page: Page, sign_in: Callable[..., Page]
) -> None:
    sign_in(path="/i/aurora/transactions")
    page.get_by_label("Type").select_option("refund")
    expect(page.locator("#results .chip")).to_contain_text("Refund")
    page.get_by_label("Type").select_option("balance_inquiry")
    expect(page.locator("#results .chip")).to_contain_text("Balance inquiry")
    page.go_back()
    expect(page.locator("#results .chip")).to_contain_text("Refund")
    expect(page.get_by_label("Type")).to_have_value("refund")


def test_pages_follow_one_another_without_gap_or_repetition(
    page: Page, network: ConsoleNetwork, sign_in: Callable[..., Page]
) -> None:
    sign_in(path="/i/aurora/transactions")
    first = _rows(page)
    page.get_by_role("link", name="Older").click()
    expect(page.get_by_role("link", name="Newest")).to_be_visible()
    second = _rows(page)
    node = network.node()
    newest = [node.item(index)["txid"] for index in reversed(range(len(node.books.rows)))]
    assert first + second == newest[:50]
    assert "cursor=" in page.url


def test_the_search_box_knows_what_was_typed(
    page: Page, network: ConsoleNetwork, sign_in: Callable[..., Page]
) -> None:
    item = network.anchored()
    sign_in(path="/i/aurora/transactions")
    for text in (item["txid"], item["txid"].upper(), item["rrn"]):
        page.get_by_label("Search").fill(text)
        expect(page.locator("#results tr.row-link")).to_have_count(1)
        assert _rows(page) == [item["txid"]]


def test_values_that_can_not_be_meant_are_explained(
    page: Page, watch: Watch, network: ConsoleNetwork, sign_in: Callable[..., Page]
) -> None:
    watch.expected.append("422")
    sign_in()
    page.goto(f"{network.url}/i/aurora/transactions?min_amount=lots&start=yesterday&q=%3Cb%3E")
    alert = page.locator("#results").get_by_role("alert")
    expect(alert).to_contain_text("An amount in CNY")
    expect(alert).to_contain_text("2026-11-22T14:30")
    expect(alert).to_contain_text("64 hex digits")


def test_nothing_found_is_said(page: Page, sign_in: Callable[..., Page]) -> None:
    sign_in(path="/i/aurora/transactions?terminal_id=NOTTHERE")
    expect(page.get_by_text("No transaction fits")).to_be_visible()


def test_a_transaction_shows_its_way_and_links_to_batch_and_anchor(
    page: Page, network: ConsoleNetwork, sign_in: Callable[..., Page]
) -> None:
    item = network.anchored()
    sign_in(path="/i/aurora/transactions")
    page.goto(f"{network.url}/i/aurora/transactions/{item['txid']}")
    expect(page.locator(".way-station.reached")).to_have_count(4)
    expect(page.locator(".moment")).to_have_count(6)
    page.get_by_role("link", name=f"#{item['batch_seq']}", exact=True).click()
    expect(page.get_by_role("heading", name=f"Batch #{item['batch_seq']}")).to_be_visible()
    page.locator(f"tr[data-txid='{item['txid']}'] a").click()
    expect(page.get_by_role("heading", name="Purchase")).to_be_visible()
    page.get_by_role("link", name=re.compile(r"^block ")).click()
    first = page.locator("#results tbody tr").first
    expect(first).to_contain_text(f"#{item['batch_seq']}")
    expect(first.locator("[data-agreement=equal]")).to_be_visible()
    first.get_by_role("link").click()
    expect(page.locator("#anchor [data-agreement=equal]")).to_be_visible()


def test_verify_checks_the_proof_against_the_chain_step_by_step(
    page: Page, network: ConsoleNetwork, sign_in: Callable[..., Page]
) -> None:
    for member_id in ("aurora", "meridian"):
        item = network.anchored(member_id)
        if member_id == "aurora":
            sign_in("otto")
        page.goto(f"{network.url}/i/{member_id}/transactions/{item['txid']}")
        page.get_by_role("button", name="Verify").click()
        expect(page.locator("[data-verdict=verified]")).to_be_visible()
        expect(page.locator(".check-passed")).to_have_count(8)
        batch = network.node(member_id).books.batches[item["batch_seq"] - 1]
        expect(page.locator("#verdict")).to_contain_text(f"block {batch['anchor'].block_number}")


def test_a_changed_byte_is_refused_by_name(
    page: Page, network: ConsoleNetwork, sign_in: Callable[..., Page]
) -> None:
    item = network.anchored()
    bundle = network.node().books.bundle(item["log_index"])
    assert bundle is not None
    network.node().tampered[bytes.fromhex(item["txid"])] = bundle.index(b"index ") + 7
    sign_in()
    page.goto(f"{network.url}/i/aurora/transactions/{item['txid']}")
    page.get_by_role("button", name="Verify").click()
    expect(page.locator("[data-verdict=refused]")).to_be_visible()
    expect(page.locator("#verdict .verdict-head code")).to_have_text(
        re.compile(r"MALFORMED|NOT_INCLUDED")
    )
    expect(page.locator(".check-refused")).to_have_count(1)


def test_a_good_proof_of_something_else_is_refused(
    page: Page, network: ConsoleNetwork, sign_in: Callable[..., Page]
) -> None:
    node = network.node()
    item = network.anchored()
    other = node.books.rows[item["log_index"] + 1].txid
    node.swapped[bytes.fromhex(item["txid"])] = other
    sign_in()
    page.goto(f"{network.url}/i/aurora/transactions/{item['txid']}")
    page.get_by_role("button", name="Verify").click()
    expect(page.locator("#verdict .verdict-head code")).to_have_text("RECORD_MISMATCH")
    expect(page.locator(".check-passed")).to_have_count(7)


def test_an_amount_that_the_node_tells_otherwise_than_anchored_is_refused(
    page: Page, network: ConsoleNetwork, sign_in: Callable[..., Page]
) -> None:
    item = network.anchored()
    network.node().falsified[bytes.fromhex(item["txid"])] = {"amount": item["amount"] + 100}
    sign_in()
    page.goto(f"{network.url}/i/aurora/transactions/{item['txid']}")
    page.get_by_role("button", name="Verify").click()
    expect(page.locator("#verdict .verdict-head code")).to_have_text("RECORD_MISMATCH")
    expect(page.locator(".check-refused")).to_contain_text(f"shown {item['amount'] + 100}")


def test_before_the_anchor_there_is_no_proof_and_the_page_says_so(
    page: Page, network: ConsoleNetwork, sign_in: Callable[..., Page]
) -> None:
    books = network.node("meridian").books
    item = network.node("meridian").item(len(books.rows) - 1)
    sign_in("rita", f"/i/meridian/transactions/{item['txid']}")
    expect(page.get_by_role("link", name="Proof file")).to_have_count(0)
    page.get_by_role("button", name="Verify").click()
    expect(page.locator("[data-verdict=not-yet]")).to_be_visible()


def test_the_proof_file_is_the_nodes_bundle(
    page: Page, network: ConsoleNetwork, sign_in: Callable[..., Page]
) -> None:
    item = network.anchored()
    sign_in()
    page.goto(f"{network.url}/i/aurora/transactions/{item['txid']}")
    with page.expect_download() as download:
        page.get_by_role("link", name="Proof file").click()
    assert download.value.suggested_filename == f"aurora-{item['txid'][:16]}.tlog-proof"
    saved = download.value.path().read_bytes()
    assert saved == network.node().books.bundle(item["log_index"])


def test_the_other_partys_books_stand_beside_and_a_difference_shows(
    page: Page, network: ConsoleNetwork, sign_in: Callable[..., Page]
) -> None:
    item = network.anchored()
    sign_in("otto")
    page.goto(f"{network.url}/i/aurora/transactions/{item['txid']}")
    expect(page.locator("[data-agreement=equal]")).to_contain_text("Same commitment")
    network.node("meridian").falsified[bytes.fromhex(item["txid"])] = {"commitment": "ab" * 32}
    page.reload()
    expect(page.locator("[data-agreement=different]")).to_contain_text("Different commitment")


def test_an_institution_that_one_may_not_see_is_not_shown_beside(
    page: Page, network: ConsoleNetwork, sign_in: Callable[..., Page]
) -> None:
    item = network.anchored("meridian")
    sign_in("rita", f"/i/meridian/transactions/{item['txid']}")
    expect(page.get_by_role("heading", name="Purchase")).to_be_visible()
    expect(page.get_by_text("Aurora Bank")).to_have_count(0)


def test_an_unknown_transaction_is_not_found(
    page: Page, watch: Watch, network: ConsoleNetwork, sign_in: Callable[..., Page]
) -> None:
    watch.expected.append("404")
    sign_in()
    for name in ("ab" * 32, "nonsense"):
        page.goto(f"{network.url}/i/aurora/transactions/{name}")
        expect(page.get_by_text("Nothing found here")).to_be_visible()


def test_without_a_chain_nothing_is_verified_and_nothing_is_refused(
    page: Page, watch: Watch, network: ConsoleNetwork, sign_in: Callable[..., Page]
) -> None:
    watch.expected.append("503")
    item = network.anchored()
    process = network.chain.process
    assert process is not None
    sign_in()
    process.kill()
    try:
        page.goto(f"{network.url}/i/aurora/transactions/{item['txid']}")
        page.get_by_role("button", name="Verify").click()
        expect(page.locator("[data-verdict=unchecked]")).to_be_visible()
        page.goto(f"{network.url}/i/aurora/batches/1")
        expect(page.locator("#anchor [data-agreement=away]")).to_be_visible()
        page.goto(f"{network.url}/i/aurora/anchors")
        expect(page.get_by_text("The chain is not answering")).to_be_visible()
        page.goto(f"{network.url}/i/aurora/members")
        expect(page.locator("[data-agreement=unknown]")).to_have_count(4)
    finally:
        process.start()
    page.goto(f"{network.url}/i/aurora/transactions/{item['txid']}")
    page.get_by_role("button", name="Verify").click()
    expect(page.locator("[data-verdict=verified]")).to_be_visible()


def test_what_the_filters_leave_is_exported_whole(
    page: Page, network: ConsoleNetwork, sign_in: Callable[..., Page]
) -> None:
    sign_in(path="/i/aurora/transactions?kind=purchase&outcome=approved")
    with page.expect_download() as downloading:
        page.get_by_role("link", name="All of these as CSV").click()
    download = downloading.value
    assert download.suggested_filename.startswith("aurora-transactions-")
    with Path(download.path()).open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    node = network.node()
    chosen = {"kind": "purchase", "outcome": "approved"}
    wanted = [node.item(each) for each in node.filtered(chosen)]
    assert len(wanted) > 200  # more than the console asks of the node at once
    assert [row["txid"] for row in found] == [each["txid"] for each in wanted]
    assert {row["outcome"] for row in found} == {"approved"}
    assert sum(Decimal(row["amount"]) * 100 for row in found) == sum(
        each["amount"] for each in wanted
    )


def test_an_export_by_a_wrong_filter_says_so(
    page: Page, network: ConsoleNetwork, sign_in: Callable[..., Page], watch: Watch
) -> None:
    watch.expected.append("422")
    sign_in()
    page.goto(f"{network.url}/i/aurora/transactions.csv?min_amount=lots")
    expect(page.locator("[data-notice='422']")).to_contain_text("An amount in CNY, such as 12.50.")
