"""What a bundle proves, and the one name of each refusal."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nodes
from nodes.anchoring.bundle import AnchorEvidence, Bundle, BundleMalformed, parse_bundle
from nodes.anchoring.note import NoteSigner
from nodes.anchoring.verifier import Reason, verify
from tests.unit.anchoring.chain_view import MEMBER, REGISTRY, SIGNER, View, digest, make_log
from tests.unit.anchoring.lies import BUNDLES, CASES, VIEW, altered, with_evidence


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8])
def test_each_entry_of_a_log_is_proven(size: int) -> None:
    bundles, view = make_log(size)
    for index, raw in enumerate(bundles):
        verdict = verify(raw, view)
        assert verdict.ok, verdict
        assert verdict.reason is None
        assert verdict.details["index"] == index
        assert verdict.details["amount"] == 100 + index
        assert verdict.details["merchant"] == "HARBOR000000001"
        assert "card_token" not in verdict.details


def test_what_is_disclosed_is_the_senders_choice() -> None:
    bundles, view = make_log(2, frozenset({1, 8}))
    verdict = verify(bundles[0], view)
    assert verdict.ok
    assert "merchant" not in verdict.details
    assert verdict.details["card_token"] == digest("token 0")[:16].hex() + "00" * 16


@pytest.mark.parametrize("index", [0, 3, 4])
def test_a_flipped_bit_anywhere_is_refused_with_a_name(index: int) -> None:
    raw = BUNDLES[index]
    reasons = set()
    for place in range(len(raw)):
        for bit in range(8):
            altered = bytearray(raw)
            altered[place] ^= 1 << bit
            verdict = verify(bytes(altered), VIEW)
            assert not verdict.ok, f"bit {bit} of byte {place} doesn't matter"
            assert isinstance(verdict.reason, Reason)
            reasons.add(verdict.reason)
    assert len(reasons) >= 8


@given(st.integers(0, len(BUNDLES[0])), st.binary(min_size=1, max_size=4))
def test_inserted_and_cut_bytes_are_refused(place: int, extra: bytes) -> None:
    raw = BUNDLES[0]
    assert not verify(raw[:place] + extra + raw[place:], VIEW).ok
    if place < len(raw):
        assert not verify(raw[:place] + raw[place + 1 :], VIEW).ok
        assert not verify(raw[:place], VIEW).ok


@given(st.binary(max_size=400))
def test_garbage_is_malformed(raw: bytes) -> None:
    assert verify(raw, VIEW).reason is Reason.MALFORMED
    prefixed = b"c2sp.org/tlog-proof@v1\nextra " + raw
    assert verify(prefixed, VIEW).reason is Reason.MALFORMED


@pytest.mark.parametrize(
    "document",
    [b"{}", b"[]", b"null", b"1e999", b"[" * 50_000, b'{"type":NaN}', b'"' + b"9" * 5000 + b'"'],
)
def test_any_other_extra_is_malformed(document: bytes) -> None:
    import base64

    line = b"extra " + base64.b64encode(document)
    parts = BUNDLES[0].split(b"\n")
    assert verify(b"\n".join([parts[0], line, *parts[2:]]), VIEW).reason is Reason.MALFORMED


@pytest.mark.parametrize(("reason", "change"), CASES)
def test_each_lie_has_its_name(reason: Reason, change: Callable[[Bundle], Bundle]) -> None:
    assert verify(altered(change), VIEW).reason is reason


def test_a_root_that_the_chain_does_not_hold_is_named() -> None:
    other, _ = make_log(5, frozenset({1}))
    anchor = replace(VIEW.anchors[MEMBER, 1], root=bytes(32))
    view = replace(VIEW, anchors={(MEMBER, 1): anchor})
    assert verify(other[0], view).reason is Reason.ROOT_MISMATCH


def test_the_key_must_have_been_valid_at_the_anchors_block() -> None:
    retired = replace(VIEW, keys={MEMBER: (SIGNER.public_key, 1, 8)})
    assert verify(BUNDLES[0], retired).reason is Reason.KEY_NOT_VALID_AT_BLOCK
    unknown = replace(VIEW, keys={})
    assert verify(BUNDLES[0], unknown).reason is Reason.KEY_NOT_VALID_AT_BLOCK
    stranger = replace(VIEW, keys={MEMBER: (NoteSigner(b"o" * 32).public_key, 1, 100)})
    assert verify(BUNDLES[0], stranger).reason is Reason.SIGNATURE_INVALID


def test_the_callers_trust_decides_not_the_bundle() -> None:
    assert verify(BUNDLES[0], replace(VIEW, chain_id=1)).reason is Reason.WRONG_CHAIN
    look_alike = replace(VIEW, anchor_registry="0x" + "cd" * 20)
    assert verify(BUNDLES[0], look_alike).reason is Reason.UNTRUSTED_REGISTRY
    assert verify(BUNDLES[0], replace(VIEW, anchors={})).reason is Reason.NOT_ANCHORED
    assert verify(BUNDLES[0], replace(VIEW, anchor_registry=REGISTRY.upper().replace("X", "x"))).ok


def test_a_contract_speaks_for_the_versions_before_it() -> None:
    """A checkpoint that was made out before a move names a version before the trusted one."""
    newest = replace(VIEW, anchor_registry="0x" + "cd" * 20)
    assert verify(BUNDLES[0], replace(newest, predecessors=("0x" + "ef" * 20, REGISTRY))).ok
    stranger = replace(newest, predecessors=("0x" + "ef" * 20,))
    assert verify(BUNDLES[0], stranger).reason is Reason.UNTRUSTED_REGISTRY
    # A version is no word for the one after it.
    older = replace(VIEW, anchor_registry="0x" + "cd" * 20, predecessors=())
    assert verify(BUNDLES[0], older).reason is Reason.UNTRUSTED_REGISTRY


def test_of_two_lies_the_upper_is_named() -> None:
    order = list(Reason)
    for position, (reason, change) in enumerate(CASES):
        for other_reason, other in CASES[position + 1 :]:
            if other_reason is reason or "leaf" in (reason.value + other_reason.value).lower():
                continue
            try:
                both = other(change(parse_bundle(BUNDLES[0]))).encode()
            except ValueError:
                continue
            found = verify(both, VIEW).reason
            assert found is not None
            assert order.index(found) <= max(order.index(reason), order.index(other_reason))


def test_every_reason_has_a_meaning() -> None:
    assert all(reason.meaning for reason in Reason)


def test_evidence_that_is_no_evidence_is_malformed() -> None:
    with pytest.raises(BundleMalformed):
        parse_bundle(altered(with_evidence(seq=-1)))
    with pytest.raises(BundleMalformed):
        parse_bundle(altered(with_evidence(seq=True)))


def test_the_verifier_reaches_no_heavy_package() -> None:
    """Leaf, inclusion and consistency on the standard library; Ed25519 at the note's edge alone,
    Keccak-256 and secp256k1 at that of the seals."""
    package = Path(nodes.__file__).parent
    allowed = {
        "nodes/anchoring/note.py": {"cryptography"},
        "nodes/anchoring/block_header.py": {"eth_hash"},
        "nodes/anchoring/finality.py": {"eth_hash"},
        "nodes/crypto/patricia.py": {"eth_hash"},
        "nodes/crypto/recovery.py": {"eth_keys"},
    }
    todo, seen = ["nodes.anchoring.verifier", "nodes.anchoring.tree"], set()
    while todo:
        module = todo.pop()
        if module in seen:
            continue
        seen.add(module)
        path = package.parent / (module.replace(".", "/") + ".py")
        for statement in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(statement, ast.Import):
                names = [alias.name for alias in statement.names]
            elif isinstance(statement, ast.ImportFrom):
                names = [statement.module or ""]
                names += [f"{statement.module}.{alias.name}" for alias in statement.names]
            for name in names:
                top = name.split(".")[0]
                if top == "nodes":
                    if (package.parent / (name.replace(".", "/") + ".py")).exists():
                        todo.append(name)
                elif top not in sys.stdlib_module_names:
                    where = str(path.relative_to(package.parent))
                    assert top in allowed.get(where, set()), f"{where} imports {name}"
    assert {"nodes.crypto.merkle", "nodes.anchoring.leaf", "nodes.anchoring.bundle"} <= seen


def test_the_view_of_the_tests_is_a_chain_view() -> None:
    assert isinstance(parse_bundle(BUNDLES[0]).evidence, AnchorEvidence)
    assert isinstance(VIEW, View)
