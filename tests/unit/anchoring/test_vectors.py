"""tests/vectors/bundles.json, which the page and the command are held to, is what is made now."""

import base64
import json
from dataclasses import replace

import pytest

from nodes.anchoring.cached_roots import RootsMalformed, parse_roots
from nodes.anchoring.verifier import Reason, verify
from tests.factories.bundle_vectors import PATH, documents, roots_of
from tests.factories.finality_vectors import PATH as SEALED
from tests.unit.anchoring.lies import BUNDLES, VIEW

DOCUMENT = json.loads(PATH.read_text(encoding="ascii"))


def test_the_file_is_what_the_verifier_says() -> None:
    assert json.loads(json.dumps(documents())) == DOCUMENT


def test_every_reason_has_a_vector() -> None:
    """Those of seals in the other file, which test_finality.py holds to the verifier."""
    sealed = json.loads(SEALED.read_text(encoding="ascii"))
    cases = DOCUMENT["cases"] + sealed["cases"]
    assert {case["reason"] for case in cases} == {None, *Reason}


@pytest.mark.parametrize("case", DOCUMENT["cases"], ids=lambda case: case["name"])
def test_cached_roots_lead_to_the_same_verdict(case: dict[str, str]) -> None:
    roots = parse_roots(json.dumps(DOCUMENT["roots"][case["roots"]]))
    verdict = verify(base64.b64decode(case["bundle"]), roots)
    assert (verdict.reason, verdict.ok) == (case["reason"], case["reason"] is None)


def test_cached_roots_are_read_back_as_written() -> None:
    roots = roots_of(VIEW)
    assert parse_roots(roots.encode()) == roots
    assert verify(BUNDLES[0], parse_roots(roots.encode())).ok
    assert "predecessors" not in json.loads(roots.encode())
    moved = replace(roots, predecessors=("0x" + "ef" * 20, "0x" + "ee" * 20))
    assert parse_roots(moved.encode()) == moved


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"type": "x"}, "countersign/roots/1"),
        ({"chain_id": "1"}, "chain_id"),
        ({"chain_id": 2**53}, "chain_id"),
        ({"anchor_registry": "0x12"}, "anchor_registry"),
        ({"predecessors": "0x"}, "predecessors is not a list"),
        ({"predecessors": ["0x12"]}, "a predecessor is not an address"),
        ({"members": []}, "members"),
        ({"members": {"aurora": {}}}, "note_keys"),
        ({"members": {"aurora": {"note_keys": [{"key": "00", "first": 1, "last": None}]}}}, "key"),
    ],
)
def test_what_is_no_roots_file_is_named(change: dict[str, object], said: str) -> None:
    document = json.loads(roots_of(VIEW).encode()) | change
    with pytest.raises(RootsMalformed, match=said):
        parse_roots(json.dumps(document))
