"""The verifier's page in a real browser, from a file: it says what the command says."""

from __future__ import annotations

import base64
import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from eth_hash.auto import keccak
from playwright.sync_api import Page, expect

from nodes.anchoring.cached_roots import parse_roots
from nodes.anchoring.verifier import verify
from nodes.crypto import merkle
from tests.factories.bundle_vectors import PATH as VECTORS
from tests.factories.bundle_vectors import roots_of
from tests.factories.logs import PUBLIC_LEAVES, PUBLIC_ROOT, consistency_proof, tree_hash
from tests.unit.anchoring.chain_view import View
from tests.unit.anchoring.lies import BUNDLES, EVENT_VIEW, EVENTS, VIEW

FILE = Path(__file__).parents[2] / "docs" / "verify.html"
SEED = 20_261_122

JUDGE = """async ([bundles, roots]) => {
  const { Bytes, Bundle, RootsView } = window.countersign;
  const view = new RootsView(roots);
  const reasons = [];
  for (const text of bundles) {
    reasons.push((await Bundle.verify(Bytes.fromBase64(text), view)).reason);
  }
  return reasons;
}"""


@pytest.fixture
def verifier(page: Page) -> Page:
    """The page, opened from its file."""
    page.goto(FILE.as_uri())
    return page


def judged(page: Page, bundles: list[bytes], roots: str) -> list[str | None]:
    encoded = [base64.b64encode(raw).decode() for raw in bundles]
    found: list[str | None] = page.evaluate(JUDGE, [encoded, roots])
    return found


def test_page_and_command_agree_on_every_vector(verifier: Page) -> None:
    document = json.loads(VECTORS.read_text(encoding="ascii"))
    assert len(document["cases"]) > 60
    for name, roots in document["roots"].items():
        cases = [case for case in document["cases"] if case["roots"] == name]
        bundles = [base64.b64decode(case["bundle"]) for case in cases]
        cached = parse_roots(json.dumps(roots))
        expected = [case["reason"] for case in cases]
        assert [verify(raw, cached).reason for raw in bundles] == expected
        assert judged(verifier, bundles, json.dumps(roots)) == expected


def mutated(rng: random.Random, bundles: list[bytes]) -> bytes:
    """A bundle with one thing wrong, mostly; sometimes inside the JSON of its `extra`."""
    raw = bytearray(rng.choice(bundles))
    if rng.random() < 0.5:
        lines = bytes(raw).split(b"\n")
        inner = bytearray(base64.b64decode(lines[1].removeprefix(b"extra ")))
        _hurt(inner, rng)
        lines[1] = b"extra " + base64.b64encode(inner)
        return b"\n".join(lines)
    _hurt(raw, rng)
    return bytes(raw)


def _hurt(raw: bytearray, rng: random.Random) -> None:
    place = rng.randrange(len(raw))
    match rng.randrange(6):
        case 0:
            raw[place] ^= 1 << rng.randrange(8)
        case 1:
            raw[place : place + 1] = rng.choice(b'0123456789abcdefA"\n ,').to_bytes()
        case 2:
            del raw[place : place + rng.randrange(1, 4)]
        case 3:
            raw[place:place] = rng.randbytes(rng.randrange(1, 4))
        case 4:
            other = rng.randrange(len(raw))
            raw[place], raw[other] = raw[other], raw[place]
        case _:
            digits = [k for k, byte in enumerate(raw) if byte in b"0123456789"]
            raw[rng.choice(digits)] = rng.choice(b"0123456789")


@pytest.mark.parametrize(("valid", "view"), [(BUNDLES, VIEW), (EVENTS, EVENT_VIEW)])
def test_page_and_command_agree_on_fuzzed_bundles(
    verifier: Page, valid: list[bytes], view: View
) -> None:
    rng = random.Random(SEED)
    bundles = [mutated(rng, valid) for _ in range(4_000)]
    roots = roots_of(view)
    expected = [verify(raw, roots).reason for raw in bundles]
    found = judged(verifier, bundles, roots.encode())
    differing = [
        n for n, (mine, its) in enumerate(zip(expected, found, strict=True)) if mine != its
    ]
    assert differing == []
    assert len(set(expected)) >= 9


def test_a_proof_is_checked_by_hand(
    verifier: Page, tmp_path: Path, accessible: Callable[[Page], None]
) -> None:
    asked: list[str] = []
    verifier.on("request", lambda request: asked.append(request.url))
    (tmp_path / "roots.json").write_text(roots_of(VIEW).encode())
    (tmp_path / "purchase.tlog-proof").write_bytes(BUNDLES[3])
    verifier.get_by_label("Or paste it").fill(BUNDLES[3].decode())
    verifier.get_by_role("button", name="Check", exact=True).click()
    verdict = verifier.locator("#verdict")
    expect(verdict).to_have_text("CAN'T BE CHECKED")
    verifier.get_by_label("File of cached roots").set_input_files(tmp_path / "roots.json")
    verifier.get_by_role("button", name="Check", exact=True).click()
    expect(verdict).to_have_text("PROVEN")
    expect(verifier.locator("#steps .good")).to_have_count(9)
    expect(verifier.locator("#details")).to_contain_text("HARBOR000000001")
    expect(verifier.locator("#details")).to_contain_text("3 of 5")
    accessible(verifier)

    spoiled = BUNDLES[3].replace(b"index 3", b"index 2")
    (tmp_path / "purchase.tlog-proof").write_bytes(spoiled)
    verifier.get_by_label("File, or drop it here").set_input_files(tmp_path / "purchase.tlog-proof")
    expect(verdict).to_have_text("REFUSED NOT_INCLUDED")
    expect(verifier.locator("#steps .good")).to_have_count(8)
    expect(verifier.locator("#steps .bad")).to_have_count(1)
    assert [url for url in asked if not url.startswith(("data:", "blob:"))] == []


def test_an_events_proof_is_shown(verifier: Page, tmp_path: Path) -> None:
    (tmp_path / "roots.json").write_text(roots_of(EVENT_VIEW).encode())
    verifier.get_by_label("File of cached roots").set_input_files(tmp_path / "roots.json")
    verifier.get_by_label("Or paste it").fill(EVENTS[1].decode())
    verifier.get_by_role("button", name="Check", exact=True).click()
    expect(verifier.locator("#verdict")).to_have_text("PROVEN")
    details = verifier.locator("#details")
    for shown in ("2 (audit)", "rule.ended", "rule 1", "key:ops \u7ba1\u7406", "2027-01-15T08:00"):
        expect(details).to_contain_text(shown)
    expect(details).not_to_contain_text("terminal")


def test_a_dropped_file_is_checked(verifier: Page, tmp_path: Path) -> None:
    (tmp_path / "roots.json").write_text(roots_of(VIEW).encode())
    verifier.get_by_label("File of cached roots").set_input_files(tmp_path / "roots.json")
    verifier.evaluate(
        """([text]) => {
          const data = new DataTransfer();
          data.items.add(new File([text], "p.tlog-proof"));
          const drop = new DragEvent("drop", { dataTransfer: data, cancelable: true });
          document.getElementById("proof-drop").dispatchEvent(drop);
        }""",
        [BUNDLES[0].decode()],
    )
    expect(verifier.locator("#verdict")).to_have_text("PROVEN")


def test_the_pages_own_arithmetic_is_right(verifier: Page) -> None:
    """What stands in where the browser lacks WebCrypto, and Keccak, which none has."""
    rng = random.Random(SEED)
    messages = [rng.randbytes(length) for length in (0, 1, 55, 56, 63, 64, 111, 112, 135, 136, 300)]
    found = verifier.evaluate(
        """async (texts) => {
          const { Bytes, Hashes } = window.countersign;
          return Promise.all(texts.map(async (text) => {
            const bytes = Bytes.fromHex(text);
            return [Hashes.plainSha256(bytes), Hashes.plainSha512(bytes), Hashes.keccak256(bytes),
                    await Hashes.sha256(bytes)].map(Bytes.hex);
          }));
        }""",
        [message.hex() for message in messages],
    )
    for message, (sha256, sha512, keccak256, native) in zip(messages, found, strict=True):
        assert sha256 == native == hashlib.sha256(message).hexdigest()
        assert sha512 == hashlib.sha512(message).hexdigest()
        assert keccak256 == keccak(message).hex()


def test_ed25519_without_the_browsers_help_says_the_same(verifier: Page) -> None:
    rng = random.Random(SEED)
    cases: list[tuple[str, str, str, bool]] = []
    for number in range(12):
        key = Ed25519PrivateKey.from_private_bytes(rng.randbytes(32))
        message = rng.randbytes(number * 7)
        signature = bytearray(key.sign(message))
        if spoil := number % 3:
            signature[rng.randrange(64) if spoil == 1 else 63] ^= 0x10
        public = key.public_key().public_bytes_raw().hex()
        cases.append((public, bytes(signature).hex(), message.hex(), not spoil))
    order = 2**252 + 27742317777372353535851937790883648493
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    good = key.sign(b"")
    tall = good[:32] + (int.from_bytes(good[32:], "little") + order).to_bytes(32, "little")
    cases.append((key.public_key().public_bytes_raw().hex(), tall.hex(), "", False))
    found = verifier.evaluate(
        """async (cases) => {
          const { Bytes, Ed25519 } = window.countersign;
          const answers = [];
          for (const [key, signature, message] of cases) {
            const given = [key, signature, message].map(Bytes.fromHex);
            answers.push([await Ed25519.plainVerify(...given), await Ed25519.verify(...given)]);
          }
          return answers;
        }""",
        cases,
    )
    assert found == [[holds, holds] for *_, holds in cases]


def test_without_webcrypto_the_verdict_is_the_same(page: Page) -> None:
    page.add_init_script("Object.defineProperty(crypto, 'subtle', { value: undefined });")
    page.goto(FILE.as_uri())
    assert page.evaluate("crypto.subtle === undefined")
    roots = roots_of(VIEW).encode()
    assert judged(page, [BUNDLES[0], BUNDLES[4][:-3]], roots) == [None, "NOTE_MALFORMED"]


def test_consistency_proofs_are_judged_as_in_python(verifier: Page) -> None:
    from nodes.anchoring import tree

    hashes = [merkle.leaf_hash(bytes([n])) for n in range(9)]
    stored: dict[tuple[int, int], bytes] = {(0, n): h for n, h in enumerate(hashes)}
    stored |= {(lv, n): h for lv, n, h in tree.Frontier().extend(hashes)}
    cases: list[tuple[Any, ...]] = []
    expected = []
    rng = random.Random(SEED)
    for first in range(1, 10):
        for second in range(first, 10):
            ranges = tree.consistency_ranges(first, second)
            path = tree.resolve(ranges, stored.__getitem__)
            for spoil in range(3):
                nodes = list(path)
                if spoil == 1 and nodes:
                    nodes[rng.randrange(len(nodes))] = bytes(32)
                if spoil == 2:
                    nodes.append(bytes(32))
                roots = merkle.root_of(hashes[:first]), merkle.root_of(hashes[:second])
                expected.append(merkle.verify_consistency(first, second, *roots, nodes))
                cases.append((first, second, *(r.hex() for r in roots), [n.hex() for n in nodes]))
    found = verifier.evaluate(
        """async (cases) => {
          const { Bytes, Merkle } = window.countersign;
          const answers = [];
          for (const [first, second, root1, root2, nodes] of cases) {
            answers.push(await Merkle.verifyConsistency(BigInt(first), BigInt(second),
              Bytes.fromHex(root1), Bytes.fromHex(root2), nodes.map(Bytes.fromHex)));
          }
          return answers;
        }""",
        cases,
    )
    assert found == expected
    assert any(expected)
    assert not all(expected)


def test_the_page_leads_the_public_leaves_to_their_public_root(verifier: Page) -> None:
    """The tree that Python and the contract are held to, too (RFC 6962's test leaves)."""
    hashes = [hashlib.sha256(b"\0" + leaf).digest() for leaf in PUBLIC_LEAVES]
    paths = [merkle.inclusion_path(index, hashes) for index in range(8)]
    proofs = [consistency_proof(size, hashes) for size in range(1, 8)]
    heads = [tree_hash(hashes[:size]) for size in range(1, 8)]
    whole, included, grown = verifier.evaluate(
        """async ([leaves, paths, heads, proofs, root]) => {
          const { Bytes, Merkle } = window.countersign;
          const nodes = (list) => list.map(Bytes.fromHex);
          const hashes = await Promise.all(nodes(leaves).map(Merkle.leafHash));
          const included = [], grown = [];
          for (const [k, path] of paths.entries()) {
            const found = await Merkle.rootFromInclusion(BigInt(k), 8n, hashes[k], nodes(path));
            included.push(Bytes.hex(found));
          }
          for (const [k, proof] of proofs.entries()) {
            grown.push(await Merkle.verifyConsistency(BigInt(k + 1), 8n, Bytes.fromHex(heads[k]),
              Bytes.fromHex(root), nodes(proof)));
          }
          return [Bytes.hex(await Merkle.rootOf(hashes)), included, grown];
        }""",
        [
            [leaf.hex() for leaf in PUBLIC_LEAVES],
            *([[node.hex() for node in path] for path in paths], [head.hex() for head in heads]),
            [[node.hex() for node in proof] for proof in proofs],
            PUBLIC_ROOT.hex(),
        ],
    )
    assert whole == PUBLIC_ROOT.hex()
    assert included == [PUBLIC_ROOT.hex()] * 8
    assert grown == [True] * 7
