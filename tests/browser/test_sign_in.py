"""Signing in, locking, signing out, and what a session may and may not do."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.browser.conftest import Watch
from tests.browser.network import PASSWORD, ConsoleNetwork


def _try(page: Page, username: str, password: str) -> None:
    page.get_by_label("User name").fill(username)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def test_a_person_signs_in_sees_their_institution_and_signs_out(
    page: Page, network: ConsoleNetwork, sign_in: Callable[..., Page]
) -> None:
    sign_in("rita")
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    expect(page.get_by_role("button", name="Meridian Acquiring")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.goto(f"{network.url}/i/meridian/overview")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_sign_in_leads_to_the_page_that_was_asked_for(
    page: Page, sign_in: Callable[..., Page]
) -> None:
    sign_in("otto", "/i/meridian/batches")
    expect(page.get_by_role("heading", name="Batches")).to_be_visible()


def test_another_institution_is_not_found(
    page: Page, watch: Watch, network: ConsoleNetwork, sign_in: Callable[..., Page]
) -> None:
    watch.expected.append("404")
    sign_in("rita")
    page.goto(f"{network.url}/i/aurora/overview")
    expect(page.get_by_text("Nothing found here")).to_be_visible()
    expect(page.get_by_text("Aurora Bank")).to_have_count(0)


def test_the_session_cookie_is_out_of_reach_of_scripts_and_of_other_sites(
    page: Page, sign_in: Callable[..., Page]
) -> None:
    sign_in()
    cookie = next(c for c in page.context.cookies() if c["name"] == "countersign_session")
    assert cookie["httpOnly"] is True
    assert cookie["sameSite"] == "Strict"
    assert "countersign_session" not in page.evaluate("document.cookie")


def test_ten_failures_lock_an_account_until_an_administrator_unlocks_it(
    page: Page, watch: Watch, network: ConsoleNetwork, sign_in: Callable[..., Page]
) -> None:
    watch.expected += ["401", "429"]
    page.goto(f"{network.url}/sign-in")
    for _ in range(10):
        _try(page, "otto", "wrong")
        expect(page.get_by_text("User name or password is wrong")).to_be_visible()
    _try(page, "otto", PASSWORD)
    expect(page.get_by_text("This account is locked")).to_be_visible()
    sign_in("ada")
    page.goto(f"{network.url}/access")
    row = page.locator("[data-account=otto]")
    expect(row).to_contain_text("Locked until")
    row.get_by_role("button", name="Unlock").click()
    expect(page.locator("[data-account=otto]")).to_contain_text("Open")
    expect(page.get_by_text("Unlocked by ada").first).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    sign_in("otto")
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()


def test_a_reader_sees_own_sessions_only(page: Page, sign_in: Callable[..., Page]) -> None:
    sign_in("rita")
    page.get_by_role("link", name="rita").click()
    expect(page.get_by_role("heading", name="Your sessions")).to_be_visible()
    expect(page.get_by_role("heading", name="People")).to_have_count(0)
    expect(page.get_by_role("heading", name="Trail")).to_have_count(0)


def test_an_ended_session_is_out_at_its_next_step(
    page: Page, network: ConsoleNetwork, sign_in: Callable[..., Page]
) -> None:
    sign_in("rita")
    page.goto("about:blank")  # a live page would notice by itself, sooner or later
    other = page.context.browser.new_context()  # type: ignore[union-attr]
    try:
        admin = other.new_page()
        admin.goto(f"{network.url}/sign-in")
        _try(admin, "ada", PASSWORD)
        admin.goto(f"{network.url}/access")
        rows = admin.get_by_role("row").filter(has_text="rita").filter(
            has=admin.get_by_role("button", name="End")
        )  # fmt: skip
        while rows.count():
            rows.first.get_by_role("button", name="End").click()
            admin.wait_for_load_state()
    finally:
        other.close()
    page.goto(f"{network.url}/i/aurora/transactions")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
