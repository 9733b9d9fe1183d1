"""The documentation page: vendored, complete, drawn by a real browser under a strict policy."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

import nodes.api
from tests.integration.api.running import TwoNodes

VENDOR = Path(nodes.api.__file__).with_name("static") / "vendor"
CHROMIUM = Path("/usr/bin/chromium")


def test_the_vendored_files_are_those_of_the_manifest_and_have_their_licence() -> None:
    manifest = json.loads((VENDOR / "manifest.json").read_text())
    named = set()
    for package in manifest["packages"]:
        assert (VENDOR / package["licence_file"]).stat().st_size > 0
        named.add(package["licence_file"])
        for name, digest in package["files"].items():
            assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == digest, name
            named.add(name)
    there = {str(p.relative_to(VENDOR)) for p in VENDOR.rglob("*") if p.is_file()}
    assert there - {"manifest.json"} == named


@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM.exists(), reason="no Chromium on this machine")
def test_a_browser_draws_all_operations_and_reports_nothing(nodes: TwoNodes) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM))
        page = browser.new_page()
        said: list[str] = []
        page.on(
            "console", lambda m: said.append(m.text) if m.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: said.append(str(error)))
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(nodes.issuer.url + "/docs")
        page.wait_for_selector('[data-path="/v1/authorizations"]')
        page.click('[data-path="/v1/authorizations"]')
        page.wait_for_selector("text=Decide a batch of an acquirer's requests")
        browser.close()
    assert said == []
    assert all(url.startswith((nodes.issuer.url, "data:")) for url in asked)
