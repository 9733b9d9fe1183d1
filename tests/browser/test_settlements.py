"""Settlement statements: from the confirmed close to both signatures, and a dispute."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.closing import Closing
from tests.browser.conftest import Watch
from tests.factories.ledger import ISSUER
from tests.integration.clearing.institutions import DAY
from tests.integration.clearing.test_audit import log_of

Visit = Callable[..., Page]
BOTH_SIGNED = DAY - timedelta(days=3)
ONE_SIGNED = DAY - timedelta(days=4)
UNSETTLED = DAY - timedelta(days=6)
DISPUTED = DAY - timedelta(days=7)


def _statement(closing: Closing, day: Any) -> dict[str, Any]:
    assert closing.pair is not None
    with closing.pair.acquirer.api.http("reader") as http:
        query = {"business_date": str(day)}
        [item] = http.get("/v1/settlements", params=query).json()["items"]
        found: dict[str, Any] = http.get(f"/v1/settlements/{item['settlement_id']}").json()
    return found


def _sign_out(page: Page) -> None:
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/sign-in*")


def _propose_for(page: Page, closing: Closing, day: Any) -> None:
    """Propose a day's statement from the page of its close."""
    assert closing.pair is not None
    with closing.pair.acquirer.api.http("reader") as http:
        [close] = http.get("/v1/closes", params={"business_date": str(day)}).json()["items"]
    page.goto(f"{closing.home()}/closes/{close['close_id']}")
    page.get_by_role("button", name="Propose a statement").click()
    page.wait_for_url("**/settlements?close_id=*")
    closing.work()
    page.reload()
    page.locator("#results tr.row-link a").first.click()
    expect(page.locator("[data-settlement-state=PROPOSED]")).to_be_visible()


def _countersign(page: Page, visit: Visit, closing: Closing, number: str) -> None:
    _sign_out(page)
    visit(f"/settlements/{number}", username="ivan")
    page.get_by_label("to confirm").fill(number[:8])
    page.get_by_role("button", name="Countersign").click()
    expect(page.locator("[data-order=waiting]")).to_be_visible()
    closing.work()
    expect(page.locator("[data-settlement-state=CONFIRMED]")).to_be_visible(timeout=15_000)


def test_the_list_shows_who_has_signed(page: Page, closing: Closing, visit: Visit) -> None:
    visit("/settlements")
    row = page.locator(f'[data-settlement="{closing.statements[BOTH_SIGNED]}"]')
    expect(row.locator(".tick-done")).to_have_count(2)
    row = page.locator(f'[data-settlement="{closing.statements[ONE_SIGNED]}"]')
    expect(row.locator(".tick-done")).to_have_count(1)
    expect(row.locator("[data-signed=acquirer]")).to_contain_text("Meridian Acquiring")
    item = _statement(closing, ONE_SIGNED)
    expect(row).to_contain_text(f"{item['net'] / 100:,.2f}")
    page.get_by_label("State", exact=True).select_option("CONFIRMED")
    expect(row).to_have_count(0)
    assert "state=CONFIRMED" in page.url
    page.get_by_label("Business date").fill("2020-01-01")
    expect(page.get_by_text("No statement fits")).to_be_visible()


def test_a_statement_shows_each_signatures_address_time_and_transaction(
    page: Page, closing: Closing, visit: Visit
) -> None:
    assert closing.pair is not None
    number = closing.statements[BOTH_SIGNED]
    visit(f"/settlements/{number}")
    steps = {step["state"]: step for step in _statement(closing, BOTH_SIGNED)["steps"]}
    for role, member, state in (
        ("acquirer", "meridian", "PROPOSED"),
        ("issuer", "aurora", "CONFIRMED"),
    ):
        signer = page.locator(f"[data-signer={role}][data-signed=yes]")
        expect(signer.locator(f'[title="{steps[state]["tx_hash"]}"]')).to_be_visible()
        address = closing.pair.chain.operators[member].address
        expect(signer.locator(f'[title="{address}"]')).to_be_visible()
        expect(signer).to_contain_text("its operator")
    expect(page.locator("[data-chain-state=CONFIRMED]")).to_be_visible()
    page.goto(f"{closing.home()}/settlements/{closing.statements[ONE_SIGNED]}")
    expect(page.locator("[data-chain-state=PROPOSED]")).to_be_visible()
    expect(page.locator("[data-signer=issuer][data-signed=no]")).to_be_visible()
    expect(page.get_by_text("the other one has to countersign")).to_be_visible()
    expect(page.get_by_role("button", name="Countersign")).to_have_count(0)


def test_a_close_is_settled_by_two_institutions(
    page: Page, watch: Watch, closing: Closing, visit: Visit
) -> None:
    watch.expected.append("422")
    visit("/closes")
    _propose_for(page, closing, UNSETTLED)
    number = _statement(closing, UNSETTLED)["settlement_id"]
    _sign_out(page)
    visit(f"/settlements/{number}", username="ivan")
    page.get_by_role("button", name="Countersign").click()
    expect(page.get_by_text(f"Type {number[:8]} to confirm.")).to_be_visible()
    _countersign(page, visit, closing, number)
    expect(page.locator("[data-signed=yes]")).to_have_count(2)


def test_the_node_refuses_the_proposer_itself(page: Page, closing: Closing, visit: Visit) -> None:
    number = closing.statements[ONE_SIGNED]
    visit(f"/settlements/{number}")
    refused = page.request.post(
        f"{closing.home()}/settlements/{number}/countersign",
        form={"confirm": number[:8], "key": "not-the-other-side"},
        headers={"Origin": closing.url},
    )
    assert refused.status == 409
    assert "There is nothing to sign" in refused.text()


def test_a_statement_is_disputed_and_the_arbiters_have_something_to_sign(
    page: Page, watch: Watch, closing: Closing, visit: Visit
) -> None:
    watch.expected.append("422")
    watch.expected.append("409")
    assert closing.pair is not None
    visit("/closes")
    _propose_for(page, closing, DISPUTED)
    number = _statement(closing, DISPUTED)["settlement_id"]
    _countersign(page, visit, closing, number)
    page.get_by_text("Dispute it").click()
    page.get_by_label("Transaction that speaks against it").fill("abc")
    page.get_by_label("to confirm").fill(number[:8])
    page.get_by_role("button", name="Dispute").click()
    expect(page.get_by_text("A transaction id has 64 hexadecimal digits.")).to_be_visible()
    with ThreadPoolExecutor(1) as thread:
        thread.submit(log_of(closing.pair, closing.pair.issuer).anchor_all).result()
    [(txid,)] = closing.pair.issuer.rows("SELECT min(txid) FROM transactions")
    page.get_by_label("Transaction that speaks against it").fill(txid.hex())
    page.get_by_label("Reason").fill("it was paid twice")
    page.get_by_label("to confirm").fill(number[:8])
    page.get_by_role("button", name="Dispute").click()
    expect(page.locator("[data-order=waiting]")).to_be_visible()
    closing.work()
    expect(page.locator("[data-settlement-state=DISPUTED]")).to_be_visible(timeout=15_000)
    expect(page.locator("[data-dispute]")).to_contain_text("it was paid twice")
    page.get_by_label("Upheld").check()
    page.get_by_label("Reason").fill("the receipt shows one")
    page.get_by_label("Signatures good until").fill("2030-01-01T12:00")
    page.get_by_role("button", name="Show what they sign").click()
    digest = page.locator("[data-to-sign] code[title]").first.get_attribute("title")
    assert digest is not None
    signatures = [judge.sign_digest(bytes.fromhex(digest)).hex() for judge in closing.judges[:2]]
    page.get_by_label("Their signatures").fill("\n".join(signatures))
    page.get_by_label("to confirm").fill(number[:8])
    page.get_by_role("button", name="Bring it to the chain").click()
    expect(page.locator("[data-order=waiting]")).to_be_visible()
    closing.work()
    expect(page.locator("[data-settlement-state=RESOLVED]")).to_be_visible(timeout=15_000)
    expect(page.get_by_text("Upheld: the statement stands")).to_be_visible()


def test_who_has_no_key_of_their_own_only_looks(page: Page, closing: Closing, visit: Visit) -> None:
    number = closing.statements[ONE_SIGNED]
    visit(f"/settlements/{number}", username="otto", member=ISSUER)
    expect(page.get_by_text("a key of your own at this node")).to_be_visible()
    expect(page.get_by_role("button", name="Countersign")).to_have_count(0)


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_list_and_statements_are_accessible(
    page: Page,
    closing: Closing,
    visit: Visit,
    accessible: Callable[[Page], None],
    theme: str,
) -> None:
    visit("/settlements", username="ivan")
    page.get_by_role("button", name=theme).click()
    accessible(page)
    for day in (BOTH_SIGNED, ONE_SIGNED):
        page.goto(f"{closing.home(ISSUER)}/settlements/{closing.statements[day]}")
        accessible(page)
