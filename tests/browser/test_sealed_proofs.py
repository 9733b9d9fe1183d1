"""The console before several validators: which finality a proof has, and who judged it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from console.app import create_app
from nodes.anchoring.cached_roots import CachedAnchor
from nodes.anchoring.chain_view import CachedChain
from sandbox.campaigns.sealed_bundles import DIRECTORY, recorded
from tests.browser.fake_node import Server
from tests.browser.network import PASSWORD, ConsoleNetwork

QBFT = recorded("qbft")


class RecordedChain:
    """A `ChainReader` of what the validators' chain said when its blocks were recorded."""

    async def ask(self, question: Callable[[Any], Any]) -> Any:
        return question(_Seen(QBFT.roots))

    async def members(self) -> tuple[()]:
        return ()


class _Seen(CachedChain):
    """A view that knows which anchor was looked up last."""

    seen: CachedAnchor | None = None

    def anchor(self, member_id: str, seq: int) -> CachedAnchor | None:
        self.seen = super().anchor(member_id, seq)
        return self.seen


@contextmanager
def console(network: ConsoleNetwork, directory: Path, validators: Any) -> Iterator[str]:
    """One that names these validators in its settings."""
    document = {"validators": validators, "state_file": directory / "sealed.sqlite"}
    settings = type(network.settings).model_validate(network.settings.model_dump() | document)
    app = create_app(settings)
    server = Server(app).start()
    app.state.console = replace(app.state.console, chain=RecordedChain())
    try:
        yield server.url
    finally:
        server.stop()


def inspect(page: Page, url: str, raw: bytes) -> None:
    page.goto(f"{url}/i/aurora/proofs")
    page.get_by_label("User name").fill("ada")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_label("A proof file's text").fill(raw.decode())
    page.get_by_role("button", name="Draw and judge").click()


def test_the_inspector_says_who_judged_the_seals(
    page: Page, network: ConsoleNetwork, tmp_path: Path, accessible: Callable[[Page], None]
) -> None:
    genesis = json.loads((DIRECTORY / "qbft.json").read_text(encoding="ascii"))["genesis"]
    (tmp_path / "genesis.json").write_text(json.dumps(genesis))
    with console(network, tmp_path, str(tmp_path / "genesis.json")) as url:
        inspect(page, url, QBFT.bundles[1])
        expect(page.locator("[data-verdict=verified]")).to_be_visible()
        found = page.locator("[data-finality]")
        expect(found).to_have_attribute("data-finality", "QBFT_FINALITY")
        expect(found).to_contain_text("sealed by 3 of 4 validators")
        for address in QBFT.validators:
            expect(found).to_contain_text(address)
        accessible(page)


@pytest.mark.parametrize(
    ("validators", "shown"),
    [
        ((), "not judged: no validators were given (the proof carries 3 for QBFT_FINALITY)"),
        (recorded("clique").validators, "SEALER_UNKNOWN"),
    ],
)
def test_seals_that_nobody_judged_or_strangers_made_are_named(
    page: Page, network: ConsoleNetwork, tmp_path: Path, validators: Any, shown: str
) -> None:
    with console(network, tmp_path, validators) as url:
        inspect(page, url, QBFT.bundles[0])
        expect(page.locator("#results")).to_contain_text(shown)
        sealed = page.locator("[data-finality=QBFT_FINALITY]")
        expect(sealed).to_have_count(0)
