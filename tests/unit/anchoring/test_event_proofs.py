"""The proof of one event: what it shows, and the one name of each refusal."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nodes.anchoring.bundle import Bundle, BundleMalformed, parse_bundle
from nodes.anchoring.leaf import decode_leaf, event_ref
from nodes.anchoring.verifier import Reason, printable, verify
from tests.unit.anchoring.chain_view import MEMBER, digest, event, make_event_log
from tests.unit.anchoring.lies import BUNDLES, EVENT_LIES, EVENT_VIEW, EVENTS, VIEW


@pytest.mark.parametrize("size", [1, 2, 5])
def test_each_event_of_a_log_is_proven(size: int) -> None:
    bundles, view = make_event_log(size)
    for index, raw in enumerate(bundles):
        verdict = verify(raw, view)
        assert verdict.ok, verdict
        told = event(index)
        for name in ("action", "subject", "actor", "detail", "occurred_ms", "event_id"):
            assert verdict.details[name] == told[name]
        assert verdict.details["event_kind"] == "audit"
        assert verdict.details["event_ref"] == event_ref(MEMBER, index + 1).hex()
        assert "card_token" not in verdict.details
        assert "txid" not in verdict.details


def test_a_hidden_text_is_nowhere_in_the_file() -> None:
    bundles, view = make_event_log(2, frozenset({2, 8}))
    verdict = verify(bundles[0], view)
    assert verdict.ok
    assert verdict.details["action"] == "rule.ended"
    assert verdict.details["card_token"] == digest("token 0")[:16].hex() + "00" * 16
    assert {"subject", "actor", "detail", "occurred_ms"}.isdisjoint(verdict.details)
    assert parse_bundle(bundles[0]).texts == {}


@pytest.mark.parametrize(("what", "reason", "change"), EVENT_LIES)
def test_each_lie_has_its_name(
    what: str, reason: Reason, change: Callable[[Bundle], Bundle]
) -> None:
    verdict = verify(change(parse_bundle(EVENTS[1])).encode(), EVENT_VIEW)
    assert verdict.reason is reason, what


def test_a_flipped_bit_anywhere_is_refused_with_a_name() -> None:
    raw = EVENTS[2]
    for place in range(len(raw)):
        for bit in range(8):
            altered = bytearray(raw)
            altered[place] ^= 1 << bit
            verdict = verify(bytes(altered), EVENT_VIEW)
            assert not verdict.ok, f"bit {bit} of byte {place} doesn't matter"
            assert isinstance(verdict.reason, Reason)


def test_a_text_goes_with_its_field() -> None:
    bundle = parse_bundle(EVENTS[0])
    for texts in ({}, {4: b"rule 0"}, {**(bundle.texts or {}), 7: b""}):
        made = Bundle(
            bundle.leaf,
            bundle.opening,
            bundle.evidence,
            bundle.index,
            bundle.path,
            bundle.note,
            texts,
        )
        with pytest.raises(BundleMalformed, match=r"extra\.texts"):
            parse_bundle(made.encode())


def test_an_event_is_no_proof_of_a_transaction_nor_the_other_way() -> None:
    as_event = Bundle(*_parts(BUNDLES[0]), {4: b"", 5: b"", 6: b""})
    assert verify(as_event.encode(), VIEW).reason is Reason.LEAF_MALFORMED
    as_transaction = Bundle(*_parts(EVENTS[0]))
    assert verify(as_transaction.encode(), EVENT_VIEW).reason is Reason.LEAF_MALFORMED
    assert decode_leaf(parse_bundle(EVENTS[0]).leaf).kind == 8


def _parts(raw: bytes) -> tuple:  # type: ignore[type-arg]
    found = parse_bundle(raw)
    return found.leaf, found.opening, found.evidence, found.index, found.path, found.note


def test_a_text_can_not_steer_the_readers_terminal() -> None:
    assert printable("规则 \x1b[2J\r\n".encode() + b"\xff") == "规则 \ufffd[2J\ufffd\ufffd\ufffd"
