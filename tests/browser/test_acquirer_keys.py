"""Authorities, callers' keys and refusals, before real nodes and a real gateway."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from playwright.sync_api import Page, expect

from gateway.terminal_keys.authority import authority_certificate
from gateway.terminal_keys.ring import MASTER_KEY
from nodes.crypto.hsm import SoftwareHsm
from sandbox.terminal import Card, Terminal
from tests.browser.conftest import Watch
from tests.browser.fleet import Fleet
from tests.factories.network import MERCHANT, TERMINAL
from tests.factories.pos import secret, tmk


def test_an_authority_is_trusted_and_ended_with_a_typed_confirmation(
    fleet: Fleet,
    attend: Callable[..., Page],
    in_both_colours: Callable[[Page], None],
    watch: Watch,
    tmp_path: Path,
) -> None:
    watch.expected = ["422"]
    hsm = SoftwareHsm({MASTER_KEY: secret("another-authority")})
    authority = authority_certificate(hsm, fleet.nodes.network.clock.now_ms())
    lines = textwrap.wrap(authority.text(), 64)
    pem = "\n".join(["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----"])
    page = attend("/authorities")
    page.get_by_role("button", name="Trust it").click()
    expect(page.locator("#certificate-note")).to_contain_text("as a PEM file has it")
    page.get_by_label("Its own certificate").fill(pem[:80])
    page.get_by_role("button", name="Trust it").click()
    expect(page.get_by_role("alert")).to_contain_text("It was not done")
    expect(page.locator("#certificate-note")).to_contain_text("Not a CERTIFICATE in PEM")
    in_both_colours(page)
    page.get_by_label("Its own certificate").fill(pem)
    page.get_by_role("button", name="Trust it").click()
    row = page.locator(f"[data-authority='{authority.fingerprint}']")
    expect(row).to_contain_text(authority.subject)
    expect(row.locator("[data-trust-state=active]")).to_be_visible()

    row.get_by_text("End it").first.click()
    row.get_by_role("button", name="End it").click()
    expect(row.locator(".field-wrong")).to_have_text(
        f"Type {authority.fingerprint[:8]} to confirm."
    )
    in_both_colours(page)
    page.screenshot(path=str(tmp_path / "authorities.png"), full_page=True)
    row.locator("input[name=confirm]").fill(authority.fingerprint[:8])
    row.get_by_role("button", name="End it").click()
    expect(row.locator("[data-trust-state=ended]")).to_be_visible()
    page.get_by_label("Its own certificate").fill(pem)
    page.get_by_role("button", name="Trust it").click()
    expect(page.locator("#certificate-note")).to_contain_text("ended: that is for good")
    assert events_of(fleet, authority.fingerprint) == [
        ("authority.trusted", "key:operator"),
        ("authority.ended", "key:operator"),
    ]


def events_of(fleet: Fleet, subject: str) -> list[tuple[str, str]]:
    """What the anchored log will say of it: action and who."""
    with psycopg.connect(fleet.nodes.network.acquirer_db.dsn) as connection:
        return connection.execute(
            "SELECT action, actor FROM events WHERE subject = %s ORDER BY event_id", (subject,)
        ).fetchall()


def test_a_caller_s_key_is_enrolled_and_revoked(
    fleet: Fleet,
    attend: Callable[..., Page],
    in_both_colours: Callable[[Page], None],
    watch: Watch,
    tmp_path: Path,
) -> None:
    watch.expected = ["422"]
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    page = attend("/front-keys")
    page.get_by_label("Name").fill("harbor-server-1")
    page.get_by_label("Terminal or merchant number").fill(MERCHANT)
    page.get_by_label("Public key").fill("nothing like it")
    page.get_by_role("button", name="Enrol").click()
    expect(page.locator("#of-note")).to_have_text("8 characters.")
    expect(page.locator("#public_key-note")).to_contain_text("x and y in hex")
    in_both_colours(page)
    page.get_by_label("For", exact=True).select_option("merchant_id")
    page.get_by_label("Public key").fill(pem)
    page.get_by_role("button", name="Enrol").click()
    row = page.locator("[data-front-key=harbor-server-1]")
    expect(row).to_contain_text("merchant, all terminals")
    with fleet.nodes.acquirer.http("reader") as client:
        [shown] = [
            key
            for key in client.get("/v1/front-keys?limit=500").json()["items"]
            if key["key_id"] == "harbor-server-1"
        ]
    assert (shown["merchant_id"], shown["created_by"]) == (MERCHANT, "key:operator")

    row.get_by_text("Revoke it").first.click()
    row.locator("input[name=confirm]").fill("harbor")
    row.get_by_role("button", name="Revoke it").click()
    expect(row.locator(".field-wrong")).to_have_text("Type harbor-server-1 to confirm.")
    in_both_colours(page)
    page.screenshot(path=str(tmp_path / "front-keys.png"), full_page=True)
    row.locator("input[name=confirm]").fill("harbor-server-1")
    row.get_by_role("button", name="Revoke it").click()
    expect(row.locator("[data-trust-state=revoked]")).to_be_visible()
    assert events_of(fleet, "harbor-server-1") == [
        ("front_key.enrolled", "key:operator"),
        ("front_key.revoked", "key:operator"),
    ]


def test_what_terminals_were_told_without_a_transaction_is_found(
    fleet: Fleet,
    attend: Callable[..., Page],
    in_both_colours: Callable[[Page], None],
    tmp_path: Path,
) -> None:
    async def pay() -> str:
        port = fleet.gateway.ports["bcd-tpdu"]
        terminal = Terminal(TERMINAL, MERCHANT, tmk(TERMINAL), "127.0.0.1", port, batch="770001")
        async with terminal:
            await terminal.sign_on()
            return (await terminal.purchase(Card("9999990000000006", "3112"), 4321)).code

    assert fleet.loop.run(pay()) == "15"
    page = attend(f"/refusals?terminal_id={TERMINAL}")
    row = page.locator("[data-refusal]").filter(has_text="43.21")
    expect(row).to_contain_text("9999 99•• •••• 0006")
    expect(row).not_to_contain_text("9999990000000006")
    in_both_colours(page)
    page.screenshot(path=str(tmp_path / "refusals.png"), full_page=True)
    page.get_by_label("Terminal", exact=True).fill("NOTTHERE")
    page.get_by_role("button", name="Filter").click()
    expect(page.get_by_text("No refusal fits these filters.")).to_be_visible()


@pytest.mark.parametrize("path", ["/authorities", "/front-keys", "/webhooks"])
def test_readers_change_no_keys(attend: Callable[..., Page], path: str) -> None:
    page = attend(path, "rita")
    expect(page.locator("form[action*='/i/']")).to_have_count(0)


def test_a_merchant_is_told_and_a_message_sent_again(
    fleet: Fleet,
    attend: Callable[..., Page],
    in_both_colours: Callable[[Page], None],
    watch: Watch,
    tmp_path: Path,
) -> None:
    watch.expected = ["422"]
    page = attend("/webhooks")
    page.get_by_label("Merchant number").fill(MERCHANT)
    page.get_by_label("Address").fill("https://user:secret@shop.example/hook")
    page.get_by_role("button", name="Make the endpoint").click()
    expect(page.get_by_role("alert")).to_contain_text("It was not done")
    page.get_by_label("Address").fill("https://shop.example/hook")
    page.get_by_role("button", name="Make the endpoint").click()
    expect(page.locator("[data-secret] code")).to_contain_text("whsec_")
    in_both_colours(page)
    name = page.locator("[data-endpoint] code").first.inner_text()
    page.goto(f"{fleet.home}/webhooks")
    expect(page.locator("[data-secret]")).to_have_count(0)

    with psycopg.connect(fleet.nodes.network.acquirer_db.dsn) as connection:
        connection.execute(
            "INSERT INTO webhook_deliveries (message_id, endpoint_id, body, created_ms,"
            " attempts, last_status, last_error) VALUES ('msg_one', %s, %s, %s, 17, 503, 'away')",
            (name, b"{}", fleet.nodes.network.clock.now_ms()),
        )
    page.reload()
    row = page.locator("[data-delivery]").filter(has_text="msg_one")
    expect(row).to_contain_text("Given up")
    expect(row).to_contain_text("503")
    page.screenshot(path=str(tmp_path / "webhooks.png"), full_page=True)
    row.get_by_role("button", name="Send again").click()
    expect(row).to_contain_text("Waiting")

    endpoint = page.locator(f"[data-endpoint='{name}']")
    endpoint.get_by_text("End it").first.click()
    endpoint.get_by_role("button", name="End it").click()
    expect(endpoint.locator(".field-wrong")).to_have_text(f"Type {name} to confirm.")
    endpoint.locator("input[name=confirm]").fill(name)
    endpoint.get_by_role("button", name="End it").click()
    expect(endpoint.locator("[data-trust-state=ended]")).to_be_visible()
    assert [action for action, _ in events_of(fleet, name)] == [
        "endpoint.made",
        "endpoint.ended",
    ]
