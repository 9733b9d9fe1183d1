"""The verifier's page on proofs with their blocks' seals: it says what the command says."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from nodes.anchoring.verifier import verify
from nodes.crypto.patricia import trie_proof
from sandbox.campaigns.sealed_bundles import DIRECTORY, recorded
from tests.browser.test_verify_page import FILE, mutated
from tests.factories.finality_vectors import PATH
from tests.factories.sealed_receipts import sealed_receipt

JUDGE = """async ([cases, network]) => {
  const { Bytes, Blocks, Bundle, RootsView, SealsView } = window.countersign;
  const found = [];
  for (const { bundle, by, validators } of cases) {
    const roots = new RootsView(JSON.stringify(network.roots));
    const named = validators.length ? Blocks.parseValidators(validators.join(" ")).addresses : null;
    const keys = by === "seals and keys" ? roots : null;
    const alone = new SealsView(named, BigInt(network.chain_id), network.anchor_registry, keys);
    roots.validators = named;
    const view = by === "roots" ? roots : alone;
    const verdict = await Bundle.verify(Bytes.fromBase64(bundle), view);
    found.push([verdict.reason, verdict.finality ?? null, verdict.sealedBy || null]);
  }
  return found;
}"""


@pytest.fixture
def verifier(page: Page) -> Page:
    """The page, opened from its file."""
    page.goto(FILE.as_uri())
    return page


def test_page_and_command_agree_on_every_vector(verifier: Page) -> None:
    document = json.loads(PATH.read_text(encoding="ascii"))
    for name, network in document["networks"].items():
        cases = [case for case in document["cases"] if case["network"] == name]
        expected = [[case["reason"], case["finality"], case["sealed_by"]] for case in cases]
        assert verifier.evaluate(JUDGE, [cases, network]) == expected


@pytest.mark.parametrize("name", ["qbft", "clique"])
def test_page_and_command_agree_on_fuzzed_bundles(verifier: Page, name: str) -> None:
    found = recorded(name)
    source = random.Random(f"seals {name}")
    raw = [mutated(source, found.bundles) for _ in range(300)]
    raw += [hurt_block(source, found.bundles[0]) for _ in range(60)]
    cases: list[dict[str, Any]] = [
        {"bundle": base64.b64encode(b).decode(), "by": "seals", "validators": found.validators}
        for b in raw
    ]
    network = json.loads(PATH.read_text(encoding="ascii"))["networks"][name]
    expected = [verify(b, found.trust).reason for b in raw]
    judged = [reason for reason, _, _ in verifier.evaluate(JUDGE, [cases, network])]
    assert judged == expected
    assert len(set(expected)) >= 7


def hurt_block(source: random.Random, raw: bytes) -> bytes:
    """A bundle with one digit of its block's evidence changed."""
    head, line, *rest = raw.split(b"\n")
    extra = bytearray(base64.b64decode(line[6:]))
    place = source.randrange(extra.index(b'"header"'), extra.index(b'"block_hash"'))
    if chr(extra[place]) in "0123456789abcdef":
        extra[place] = ord(source.choice("0123456789abcdef"))
    return b"\n".join([head, b"extra " + base64.b64encode(extra), *rest])


def test_the_pages_tries_are_ethereums(verifier: Page) -> None:
    source = random.Random(9)
    for count in (1, 2, 17, 130, 300):
        values = [source.randbytes(source.randint(1, 300)) for _ in range(count)]
        for place in {0, count // 2, count - 1}:
            root, nodes = trie_proof(values, place)
            arguments = [root.hex(), place, [node.hex() for node in nodes]]
            shown = verifier.evaluate(
                """([root, place, nodes]) => {
                  const { Bytes, Trie } = window.countersign;
                  const whole = nodes.map(Bytes.fromHex);
                  const look = (at, given) => Trie.valueAt(Bytes.fromHex(root), BigInt(at), given);
                  return [Bytes.hex(look(place, whole)), look(place + 1, whole), look(place, [])];
                }""",
                arguments,
            )
            assert shown == [values[place].hex(), None, None]


def test_a_sealed_proof_is_checked_by_hand(
    verifier: Page, tmp_path: Path, accessible: Callable[[Page], None]
) -> None:
    asked: list[str] = []
    verifier.on("request", lambda request: asked.append(request.url))
    found = recorded("qbft")
    document = json.loads((DIRECTORY / "qbft.json").read_text(encoding="ascii"))
    verdict, details = verifier.locator("#verdict"), verifier.locator("#details")
    check = verifier.get_by_role("button", name="Check", exact=True)
    verifier.get_by_label("Or paste it").fill(found.bundles[0].decode())
    verifier.get_by_label("Validators").fill("0x12")
    check.click()
    expect(verifier.locator("#reason")).to_contain_text('"0x12" is no validator\'s address')
    verifier.get_by_label("Validators").fill(", ".join(found.validators))
    check.click()
    expect(verifier.locator("#reason")).to_contain_text("Give the chain's id")
    verifier.get_by_label("Chain id").fill(str(found.chain_id))
    check.click()
    expect(verifier.locator("#reason")).to_contain_text("Give the anchor contract")
    verifier.get_by_label("Anchor contract").fill(found.anchor_registry)
    check.click()
    expect(verdict).to_have_text("PROVEN")
    expect(details).to_contain_text("QBFT_FINALITY: sealed by 3 of 4 validators")
    expect(details).to_contain_text("not checked: no key of the member's was given")
    expect(verifier.locator("#steps .good")).to_have_count(9)
    expect(verifier.locator("#steps")).to_contain_text("signature isn't checked")
    accessible(verifier)

    verifier.get_by_label("Chain id").fill("")
    verifier.get_by_label("Validators").fill(json.dumps(document["genesis"]))
    (tmp_path / "roots.json").write_text(json.dumps(document["roots"]))
    verifier.get_by_label("File of cached roots").set_input_files(tmp_path / "roots.json")
    check.click()
    expect(verdict).to_have_text("PROVEN")
    expect(details).not_to_contain_text("not checked")
    expect(verifier.locator("#steps .good")).to_have_count(10)

    verifier.get_by_label("Validators").fill("")
    check.click()
    expect(verdict).to_have_text("PROVEN")
    expect(details).to_contain_text("DEV_FINALITY")
    expect(verifier.locator("#steps .good")).to_have_count(9)
    expect(verifier.locator("#steps")).to_contain_text("no validators were given")

    verifier.get_by_label("Validators").fill(" ".join(recorded("clique").validators))
    check.click()
    expect(verdict).to_have_text("REFUSED SEALER_UNKNOWN")
    assert [url for url in asked if not url.startswith(("data:", "blob:"))] == []


@pytest.mark.parametrize(
    ("name", "finality"),
    [
        ("qbft", "QBFT_FINALITY: sealed by 3 of 4 validators"),
        ("clique", "CLIQUE_FINALITY: sealed by 3 of 4 validators, 3 blocks"),
    ],
)
def test_a_receipts_proof_is_judged_by_seals(
    verifier: Page, tmp_path: Path, name: str, finality: str
) -> None:
    """With roots that were read before the anchor; what the command says too."""
    receipt = sealed_receipt(name)
    verdict, details = verifier.locator("#verdict"), verifier.locator("#details")
    check = verifier.get_by_role("button", name="Check", exact=True)
    verifier.locator("#promise").fill(receipt.promise.encode())
    verifier.get_by_label("Or paste it").fill(receipt.proof.decode())
    verifier.get_by_label("Validators").fill(", ".join(receipt.network.validators))
    verifier.get_by_label("Chain id").fill(str(receipt.network.chain_id))
    verifier.get_by_label("Anchor contract").fill(receipt.network.anchor_registry)
    check.click()
    expect(verdict).to_have_text("CAN'T BE CHECKED")
    expect(verifier.locator("#reason")).to_contain_text("Seals don't tell who signs promises")

    (tmp_path / "roots.json").write_text(receipt.roots.encode())
    verifier.get_by_label("File of cached roots").set_input_files(tmp_path / "roots.json")
    expect(verifier.locator("#roots-told")).to_contain_text("roots.json")
    check.click()
    expect(verdict).to_have_text("PROVEN")
    expect(details).to_contain_text(finality)
    expect(details).to_contain_text("judged by the 4 validators given: 0x")
    for address in receipt.network.validators:
        expect(details).to_contain_text(address)

    verifier.get_by_label("Validators").fill("0x" + "11" * 20)
    check.click()
    expect(verdict).to_have_text("REFUSED SEALER_UNKNOWN")
    verifier.get_by_label("Validators").fill("")
    check.click()
    expect(verdict).to_have_text("REFUSED NOT_ANCHORED")
    (tmp_path / "anchored.json").write_text(receipt.network.roots.encode())
    verifier.get_by_label("File of cached roots").set_input_files(tmp_path / "anchored.json")
    expect(verifier.locator("#roots-told")).to_contain_text("anchored.json")
    verifier.locator("#promise").fill("")
    check.click()
    expect(verdict).to_have_text("PROVEN")
    carried = f"the proof carries 3 for {finality.partition(':')[0]}"
    expect(details).to_contain_text(f"not judged: no validators were given ({carried})")
