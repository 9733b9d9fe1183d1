"""Cases of breaks: filters, both versions, and the workflow between two institutions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from nodes.clearing.model import BreakKind
from tests.browser.closing import Closing
from tests.browser.conftest import Watch
from tests.factories.ledger import ISSUER

Visit = Callable[..., Page]


def _sign_out(page: Page) -> None:
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/sign-in*")


def _case_at(closing: Closing, ref: str) -> dict[str, Any]:
    assert closing.pair is not None
    with closing.pair.acquirer.api.http("reader") as http:
        found: dict[str, Any] = http.get(f"/v1/breaks/{ref}").json()
    return found


def _reach(page: Page, closing: Closing, visit: Visit, username: str, ref: str) -> None:
    visit(f"/breaks/{ref}", username=username)
    page.wait_for_selector("#move")


def _propose(page: Page, ref: str, version: str, reason: str) -> None:
    page.get_by_label(version).check()
    page.get_by_label("Reason").fill(reason)
    page.get_by_label("to confirm").fill(ref[:8])
    page.get_by_role("button", name="Propose").click()


def test_every_class_is_listed_and_the_filters_stand_in_the_address(
    page: Page, closing: Closing, visit: Visit
) -> None:
    visit("/breaks")
    assert {kind.value for kind in BreakKind} == set(closing.refs)
    for ref in closing.refs.values():
        expect(page.locator(f'[data-break="{ref}"]')).to_be_visible()
    page.get_by_label("Class").select_option("FIELD_MISMATCH")
    expect(page.locator("#results tr.row-link")).to_have_count(2)
    assert page.url.endswith("/breaks?kind=FIELD_MISMATCH")
    expect(page.locator("#results")).to_contain_text("Amount, Merchant")
    page.get_by_label("Older than").select_option("24")
    expect(page.get_by_text("No case fits")).to_be_visible()
    page.goto(f"{closing.home()}/breaks?owner={ISSUER}&state=open")
    expect(page.get_by_label("Whose move")).to_have_value(ISSUER)
    for row in page.locator("#results tr.row-link").all():
        expect(row.locator("td").nth(4)).to_have_text("Aurora")


def test_cases_are_filtered_by_when_they_are_due(
    page: Page, closing: Closing, visit: Visit
) -> None:
    visit("/breaks?due=later")
    count = page.locator("#results tr.row-link").count()
    assert count >= len(closing.refs)
    page.get_by_label("Due", exact=True).select_option("overdue")
    expect(page.get_by_text("No case fits")).to_be_visible()


def test_both_versions_stand_beside_each_other(page: Page, closing: Closing, visit: Visit) -> None:
    assert closing.pair is not None
    [file] = [
        file
        for file in closing.pair.acquirer.cases()
        if file.found["fields"] == ["amount", "merchant"]
    ]
    ref = file.case.break_ref.hex()
    visit(f"/breaks/{ref}")
    versions = _case_at(closing, ref)["versions"]
    row = page.locator('[data-field="amount"]')
    for party in ("acquirer", "issuer"):
        expect(row).to_contain_text(f"{versions[party]['amount'] / 100:.2f}")
    differing = page.locator("tr.row-differs")
    names = {row.get_attribute("data-field") for row in differing.all()}
    assert names == {"amount", "merchant", "effect", "commitment"}


def test_a_missing_transaction_shows_who_lacks_it(
    page: Page, closing: Closing, visit: Visit
) -> None:
    visit(f"/breaks/{closing.refs['MISSING_AT_ISSUER']}")
    expect(page.locator('[data-field="amount"]')).to_contain_text("not in its books")
    page.goto(f"{closing.home()}/breaks/{closing.refs['SEQ_GAP']}")
    expect(page.get_by_text("stands in neither of the two books")).to_be_visible()
    page.goto(f"{closing.home()}/breaks/{closing.refs['LATE']}")
    expect(page.get_by_text("It may still come")).to_be_visible()
    expect(page.get_by_role("button", name="Propose")).to_have_count(0)


def test_a_case_goes_from_proposal_to_the_confirmed_correction(
    page: Page, watch: Watch, closing: Closing, visit: Visit
) -> None:
    watch.expected.append("422")
    ref = closing.break_anew(6)
    _reach(page, closing, visit, "mara", ref)
    page.get_by_role("button", name="Propose").click()
    expect(page.get_by_text("A reason: the other institution reads it.")).to_be_visible()
    expect(page.get_by_text(f"Type {ref[:8]} to confirm.")).to_be_visible()
    assert _case_at(closing, ref)["state"] == "open"
    _propose(page, ref, "The acquirer's version stands", "the terminal's log shows it")
    expect(page.locator("[data-case-state=proposed]").first).to_be_visible()
    expect(page.get_by_text("Your institution proposed this")).to_be_visible()
    expect(page.get_by_role("button", name="Countersign")).to_have_count(0)
    closing.work()
    _sign_out(page)
    _reach(page, closing, visit, "ivan", ref)
    expect(page.locator('[data-step="proposed"]')).to_contain_text("the terminal's log shows it")
    page.get_by_label("to confirm").first.fill(ref[:8])
    page.get_by_role("button", name="Countersign").click()
    expect(page.locator("[data-case-state=countersigned]").first).to_be_visible()
    closing.work()
    page.reload()
    expect(page.locator("[data-case-state=closed]").first).to_be_visible()
    expect(page.locator('[data-step="corrected"]').get_by_role("link")).to_be_visible()
    steps = [row.get_attribute("data-step") for row in page.locator("[data-step]").all()]
    assert steps == ["opened", "proposed", "countersigned", "corrected", "closed"]


def test_the_node_itself_refuses_the_maker(page: Page, closing: Closing, visit: Visit) -> None:
    ref = closing.break_anew(7)
    _reach(page, closing, visit, "mara", ref)
    _propose(page, ref, "The issuer's version stands", "not ours")
    expect(page.locator("[data-case-state=proposed]").first).to_be_visible()
    refused = page.request.post(
        f"{closing.home()}/breaks/{ref}/countersign",
        form={"confirm": ref[:8], "key": "a-second-try-of-it"},
        headers={"Origin": closing.url},
        max_redirects=0,
    )
    assert refused.status == 409
    assert "the other one has to countersign it" in refused.text()
    assert _case_at(closing, ref)["state"] == "proposed"


def test_a_refusal_opens_the_case_again(page: Page, closing: Closing, visit: Visit) -> None:
    ref = closing.break_anew(8)
    _reach(page, closing, visit, "mara", ref)
    _propose(page, ref, "The issuer's version stands", "a mistake of ours?")
    closing.work()
    _sign_out(page)
    _reach(page, closing, visit, "ivan", ref)
    page.get_by_text("Refuse instead").click()
    page.get_by_label("Why not").fill("the receipt says otherwise")
    page.get_by_label("to confirm").last.fill(ref[:8])
    page.get_by_role("button", name="Refuse").click()
    expect(page.locator("[data-case-state=open]").first).to_be_visible()
    expect(page.locator('[data-step="refused"]')).to_contain_text("the receipt says otherwise")


def test_somebody_takes_a_case_on_and_lays_it_down(
    page: Page, closing: Closing, visit: Visit
) -> None:
    ref = closing.refs["DUPLICATE"]
    _reach(page, closing, visit, "mara", ref)
    page.get_by_role("button", name="Take it on").click()
    expect(page.get_by_role("button", name="Yours: lay it down")).to_be_visible()
    page.goto(f"{closing.home()}/breaks?taken=mine")
    expect(page.locator("#results tr.row-link")).to_have_count(1)
    expect(page.locator("#results")).to_contain_text("mara")
    page.get_by_label("Taken on").select_option("nobody")
    expect(page.locator(f'[data-break="{ref}"]')).to_have_count(0)
    page.goto(f"{closing.home()}/breaks/{ref}")
    page.get_by_role("button", name="Yours: lay it down").click()
    expect(page.get_by_role("button", name="Take it on")).to_be_visible()


def test_who_has_no_key_of_their_own_only_looks(page: Page, closing: Closing, visit: Visit) -> None:
    ref = closing.refs["UNSIGNED"]
    visit(f"/breaks/{ref}", username="otto")
    expect(page.get_by_text("a key of your own at this node")).to_be_visible()
    expect(page.get_by_role("button", name="Take it on")).to_have_count(0)
    refused = page.request.post(
        f"{closing.home()}/breaks/{ref}/take", headers={"Origin": closing.url}, form={"x": "y"}
    )
    assert refused.status == 403


def test_a_keeper_that_is_away_is_named(page: Page, closing: Closing, visit: Visit) -> None:
    """An issuer's step goes to the acquirer's node first."""
    assert closing.pair is not None
    ref = closing.break_anew(9)
    _reach(page, closing, visit, "ivan", ref)
    member = closing.pair.issuer.node.directory.known["meridian"]
    closing.pair.issuer.node.directory.add("meridian", "acquirer", "http://127.0.0.1:1")
    try:
        refused = page.request.post(
            f"{closing.home(ISSUER)}/breaks/{ref}/propose",
            form={"resolution": "TAKE_ISSUER", "note": "n", "confirm": ref[:8], "key": "k" * 12},
            headers={"Origin": closing.url},
        )
        assert refused.status == 409
        assert "keeps the case and doesn&#39;t answer now" in refused.text()
    finally:
        closing.pair.issuer.node.directory.known["meridian"] = member


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_list_and_cases_are_accessible(
    page: Page,
    closing: Closing,
    visit: Visit,
    accessible: Callable[[Page], None],
    theme: str,
) -> None:
    visit("/breaks")
    page.get_by_role("button", name=theme).click()
    accessible(page)
    for kind in ("FIELD_MISMATCH", "MISSING_AT_ISSUER", "SEQ_GAP"):
        page.goto(f"{closing.home()}/breaks/{closing.refs[kind]}")
        accessible(page)
