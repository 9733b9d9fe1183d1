"""Adjustments by maker and checker, and spend rules with their back-test."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from playwright.sync_api import Page, expect

from nodes.authorization.model import Kind
from tests.browser.conftest import Watch
from tests.browser.issuing import SHOPS, Issuing
from tests.factories.offline import OfflineCard, new_chain

Enter = Callable[..., Page]


def _sign_out(page: Page) -> None:
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/sign-in*")


def _propose(page: Page, issuing: Issuing, name: str, amount: str, reason: str) -> str:
    """Propose through the form; the adjustment's page."""
    page.goto(f"{issuing.home}/accounts/{issuing.cards[name].account_id}")
    page.get_by_role("link", name="Propose an adjustment").click()
    page.get_by_label("Amount").fill(amount)
    page.get_by_label("Reason").fill(reason)
    page.get_by_role("button", name="Propose").click()
    expect(page.locator("[data-adjustment-state=proposed]")).to_be_visible()
    address: str = page.url
    return address


def test_what_one_proposes_another_approves_and_it_is_posted(
    page: Page, issuing: Issuing, enter: Enter
) -> None:
    enter(username="operator")
    before = issuing.get(f"/v1/accounts/{issuing.cards['new'].account_id}")["balance"]
    address = _propose(page, issuing, "new", "12.50", "fee charged twice")
    expect(page.get_by_text("You proposed this: somebody else must check it.")).to_be_visible()
    expect(page.get_by_role("button", name="Approve")).to_have_count(0)
    # The buttons are a help; the node itself refuses the maker.
    refused = page.request.post(
        f"{address}/approve", headers={"Origin": issuing.url}, max_redirects=0
    )
    assert refused.status == 409
    assert "somebody else must check it" in refused.text()
    _sign_out(page)
    enter(path="/adjustments?state=proposed", username="admin")
    page.locator("#results tr.row-link").filter(has_text="fee charged twice").get_by_role(
        "link"
    ).click()
    page.get_by_role("button", name="Approve and post").click()
    expect(page.locator("[data-adjustment-state=posted]")).to_be_visible()
    after = issuing.get(f"/v1/accounts/{issuing.cards['new'].account_id}")["balance"]
    assert after == before + 1_250
    page.locator(".datagrid").get_by_role("link").click()
    expect(page.get_by_role("heading", name="Adjustment 12.50")).to_be_visible()


def _copied_card(issuing: Issuing) -> str:
    """A card whose copy has paid 3.00 under a counter that had paid 8.00; its account's page."""
    assert issuing.nodes is not None
    card = issuing.card("copied", "standard", {"main": 5_000})
    signer = OfflineCard(card, issuing.nodes.network)
    chain = new_chain(terminal_id=SHOPS["tea"][3])
    for amount in (800, 300):
        record = signer.record(chain, amount, atc=1)
        told = issuing.pay(f"copied {amount}", "copied", "tea", amount, Kind.ADVICE, offline=record)
        assert told.amount == amount
    return f"{issuing.home}/accounts/{card.account_id}"


def test_who_bears_a_copys_payment_is_decided_by_two(
    page: Page, issuing: Issuing, enter: Enter, accessible: Callable[[Page], None]
) -> None:
    with ThreadPoolExecutor(1) as thread:  # Playwright's loop runs in this one
        address = thread.submit(_copied_card, issuing).result()
    enter(username="operator")
    page.goto(address)
    expect(page.locator("#disputed tbody tr")).to_have_count(1)
    expect(page.locator("#disputed")).to_contain_text("3.00")
    expect(page.get_by_text("3.00 of it disputed")).to_be_visible()
    accessible(page)
    page.locator("#disputed").get_by_role("link", name="Decide").click()
    expect(page.get_by_label("Amount")).to_have_value("3.00")
    page.get_by_label("Decision").select_option(label="The issuer bears it")
    page.get_by_label("Reason").fill("the card was copied at a fair")
    accessible(page)
    page.get_by_role("button", name="Propose").click()
    expect(page.locator("[data-adjustment-state=proposed]")).to_be_visible()
    expect(page.get_by_text("the issuer bears it")).to_be_visible()
    proposed = page.url
    _sign_out(page)
    enter(username="admin")
    page.goto(proposed)
    page.get_by_role("button", name="Approve and post").click()
    expect(page.locator("[data-adjustment-state=posted]")).to_be_visible()
    page.goto(address)
    expect(page.locator("#disputed")).to_have_count(0)
    state = issuing.get(f"/v1/accounts/{address.rsplit('/', 1)[1]}")["card_account"]
    assert (state["balance"], state["receivable"], state["disputed"]) == (4_200, 0, [])


def test_a_rejected_one_posts_nothing(page: Page, issuing: Issuing, enter: Enter) -> None:
    enter(username="operator")
    address = _propose(page, issuing, "lin", "3", "a mistake")
    _sign_out(page)
    enter(username="admin")
    page.goto(address)
    page.get_by_role("button", name="Reject").click()
    expect(page.locator("[data-adjustment-state=rejected]")).to_be_visible()
    expect(page.get_by_role("button", name="Approve and post")).to_have_count(0)


def test_a_proposal_that_can_not_be_meant_is_explained_at_its_fields(
    page: Page, watch: Watch, issuing: Issuing, enter: Enter
) -> None:
    watch.expected.append("422")  # the amount that is none
    enter(path="/adjustments/new?account=999999999", username="operator")
    page.get_by_label("Amount").fill("lots")
    page.get_by_role("button", name="Propose").click()
    for name in ("account", "amount", "reason"):
        expect(page.locator(f"#{name}")).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#amount")).to_have_value("lots")


def test_who_has_no_key_of_their_own_only_looks(
    page: Page, watch: Watch, issuing: Issuing, enter: Enter
) -> None:
    watch.expected.append("403")
    enter(path="/adjustments", username="otto")
    expect(page.get_by_role("link", name="Propose", exact=True)).to_have_count(0)
    page.goto(f"{issuing.home}/adjustments/new")
    expect(page.get_by_text("Not allowed")).to_be_visible()
    page.goto(f"{issuing.home}/rules")
    expect(page.get_by_role("button", name="Back-test")).to_have_count(0)


def test_rules_are_listed_and_tried_on_what_has_happened(
    page: Page, issuing: Issuing, enter: Enter, accessible: Callable[[Page], None]
) -> None:
    enter(path="/rules", username="operator")
    of_mei = page.get_by_role("link", name=str(issuing.cards["mei"].account_id), exact=True)
    expect(page.locator("#results .window").filter(has=of_mei)).to_have_count(4)
    large = page.locator("#results .window").filter(has_text="400.00 a payment")
    expect(large).to_contain_text("at most 400.00 CNY a transaction")
    expect(large).to_contain_text("Shadow")
    large.get_by_role("button", name=re.compile("Back-test")).click()
    tried = page.locator("[data-backtest]")
    expect(tried).to_contain_text("Would have been declined")
    expect(tried.locator("tbody tr")).to_have_count(1)
    expect(tried).to_contain_text("600.00")
    accessible(page)
    page.get_by_label("Set for").select_option("product")
    expect(page.get_by_text("No rule fits")).to_be_visible()
    assert page.url == f"{issuing.home}/rules?scope=product"


def _paid(issuing: Issuing) -> tuple[str, str]:
    """A card that has paid 40.00; its account's page, and the payment's."""
    card = issuing.card("disputing", "standard", {"main": 10_000})
    told = issuing.pay("disputed", "disputing", "tea", 4_000)
    assert told.txid is not None
    home = issuing.home
    return f"{home}/accounts/{card.account_id}", f"{home}/transactions/{told.txid.hex()}"


def test_a_dispute_is_opened_given_back_in_part_and_dropped(
    page: Page, watch: Watch, issuing: Issuing, enter: Enter, accessible: Callable[[Page], None]
) -> None:
    watch.expected.append("422")  # the amount that is none
    with ThreadPoolExecutor(1) as thread:  # Playwright's loop runs in this one
        account, payment = thread.submit(_paid, issuing).result()
    enter(username="operator")
    page.goto(payment)
    page.get_by_role("link", name="Dispute").click()
    expect(page.get_by_label("Disputed amount")).to_have_value("40.00")
    page.get_by_label("Disputed amount").fill("nothing")
    page.get_by_role("button", name="Open the dispute").click()
    expect(page.locator("#amount-note")).to_be_visible()
    accessible(page)
    page.get_by_label("Disputed amount").fill("25")
    page.get_by_label("What the cardholder says").fill("the tea was cold")
    page.get_by_role("button", name="Open the dispute").click()
    rows = page.locator("#disputes tbody tr")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("the tea was cold")
    expect(rows).to_contain_text("25.00")
    expect(page.locator("#disputed")).to_have_count(0)
    accessible(page)
    rows.get_by_role("link", name="Give back").click()
    expect(page.get_by_label("Decision").locator("option")).to_have_count(1)
    page.get_by_label("Amount").fill("10")
    page.get_by_label("Reason").fill("half a pot")
    page.get_by_role("button", name="Propose").click()
    expect(page.locator("[data-adjustment-state=proposed]")).to_be_visible()
    proposed = page.url
    _sign_out(page)
    enter(username="admin")
    page.goto(proposed)
    page.get_by_role("button", name="Approve and post").click()
    expect(page.locator("[data-adjustment-state=posted]")).to_be_visible()
    page.goto(account)
    expect(rows).to_contain_text("15.00")
    page.get_by_label("Why it is dropped").fill("the rest was warm")
    page.get_by_role("button", name="Drop").click()
    ended = page.locator("#disputes tr[data-dispute-state=dropped]")
    expect(ended).to_contain_text("the rest was warm")
    expect(page.get_by_role("button", name="Drop")).to_have_count(0)
    accessible(page)
    state = issuing.get(f"/v1/accounts/{account.rsplit('/', 1)[1]}")["card_account"]
    assert (state["balance"], state["disputed"]) == (7_000, [])
