"""The receipt look-up before a chain of several validators: the settings' ones judge the seals."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from console.receipts import Place
from console.views.receipts import Looked, _judged
from nodes.anchoring.chain_view import CachedChain
from nodes.anchoring.verifier import Reason
from nodes.clock import SystemClock
from tests.factories.sealed_receipts import SealedReceipt, sealed_receipt


class Chain:
    """A `ChainReader` that knows the recorded anchors and the receipt's promise key."""

    def __init__(self, receipt: SealedReceipt) -> None:
        anchored = receipt.network.roots.members
        members = {
            name: replace(member, anchors=anchored[name].anchors)
            for name, member in receipt.roots.members.items()
        }
        self.view = CachedChain(replace(receipt.roots, members=members))

    async def ask_of_receipts(self, question: Callable[[Any, Any], Any]) -> Any:
        return question(self.view, SimpleNamespace(claim=lambda *_: None))


def looked_up(receipt: SealedReceipt, sealers: frozenset[bytes] | None) -> Looked:
    console = SimpleNamespace(
        chain=Chain(receipt), settings=SimpleNamespace(sealers=sealers), clock=SystemClock()
    )
    request: Any = SimpleNamespace(app=SimpleNamespace(state=SimpleNamespace(console=console)))
    return asyncio.run(_judged(request, receipt.promise, receipt.proof, Place.ANCHORED))


@pytest.mark.parametrize(
    ("network", "finality"), [("qbft", "QBFT_FINALITY"), ("clique", "CLIQUE_FINALITY")]
)
def test_the_settings_validators_judge_the_seals(network: str, finality: str) -> None:
    receipt = sealed_receipt(network)
    kept = looked_up(receipt, receipt.network.addresses)
    assert kept.state == "anchored"
    assert kept.found is not None
    assert kept.found.verdict is not None
    assert kept.found.verdict.details["finality"] == finality
    plain = looked_up(receipt, None)
    assert plain.state == "anchored"
    assert plain.found is not None
    assert plain.found.verdict is not None
    assert plain.found.verdict.details["finality"] == "DEV_FINALITY"


def test_strangers_seals_are_refused() -> None:
    found = looked_up(sealed_receipt(), frozenset({bytes(20)}))
    assert found.state == "invalid"
    assert found.found is not None
    assert found.found.verdict is not None
    assert found.found.verdict.reason is Reason.SEALER_UNKNOWN


def test_late_is_told_by_the_blocks_time() -> None:
    receipt = sealed_receipt(merge_deadline=1_700_000_000)
    assert looked_up(receipt, receipt.network.addresses).state == "late"
