"""The campaign's flipped bits in proofs with seals: what is counted, and that it can miss."""

from __future__ import annotations

import pytest

from nodes.anchoring.verifier import Reason, SealTrust, Verdict
from sandbox.campaigns import bundles, sealed_bundles
from sandbox.campaigns.sealed_bundles import (
    SEALED_BITS,
    TRIES_A_ROUND,
    Recorded,
    recorded,
    tamper_sealed,
)
from sandbox.campaigns.tally import Tallies

BUNDLES = 6


def test_flipped_bits_of_both_consensuses_are_named() -> None:
    tallies = Tallies(3)
    tamper_sealed(4, tallies)
    tally = tallies.classes[SEALED_BITS]
    assert tally.complete, tally.misses
    assert tally.tried > 300
    assert (tallies.clean_runs, tallies.false_alarms) == (BUNDLES + 2, 0)


def test_a_whole_round_has_every_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[list[int]] = []

    def note(name: str, raw: bytes, bits: object, *rest: object) -> None:
        tried.append(list(bits))  # type: ignore[call-overload]

    monkeypatch.setattr(sealed_bundles, "flip_bits", note)
    tamper_sealed(TRIES_A_ROUND, Tallies(1))
    assert [len(bits) for bits in tried[:BUNDLES]] == [0] * BUNDLES
    for bits in tried[BUNDLES:]:
        assert bits == list(range(len(bits)))
        assert len(bits) > 60_000


def test_a_wrong_name_and_a_bit_that_passes_are_misses(monkeypatch: pytest.MonkeyPatch) -> None:
    for said, found in ((Verdict(False, Reason.NOT_ANCHORED), True), (Verdict(True), False)):
        monkeypatch.setattr(bundles, "verify", lambda *_, said=said: said)
        tallies = Tallies(3)
        tamper_sealed(1, tallies)
        tally = tallies.classes[SEALED_BITS]
        assert (tally.found, tally.named) == (tally.tried if found else 0, 0)


def test_a_sound_proof_refused_is_a_false_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    network = recorded("qbft")
    strangers = SealTrust(network.chain_id, network.anchor_registry, frozenset({bytes(20)}))
    monkeypatch.setattr(Recorded, "trust", property(lambda _: strangers))
    tallies = Tallies(3)
    tamper_sealed(1, tallies)
    assert tallies.false_alarms == BUNDLES + 2
