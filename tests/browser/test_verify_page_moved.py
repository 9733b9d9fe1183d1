"""The verifier's page on proofs of both sides of a move: it says what the command says."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from nodes.anchoring.bundle import parse_bundle
from nodes.anchoring.chain_view import TrustedChain
from nodes.anchoring.verifier import Reason, SealTrust, verify
from tests.browser.test_receipt_page import browsers_door
from tests.browser.test_verify_page import FILE
from tests.conftest import NodeDatabase
from tests.factories.chain import ChainFixture, start_chain
from tests.factories.evidence import make_member
from tests.factories.ledger import LedgerFactory
from tests.factories.sealed_block import KEYS, addresses, sealed
from tests.integration.anchoring.test_moved_registry import bundle_of, moved, told
from tests.unit.anchoring.chain_view import CHAIN_ID, REGISTRY
from tests.unit.anchoring.lies import BUNDLES

NEWEST, BETWEEN = "0x" + "cd" * 20, "0x" + "ef" * 20

BY_SEALS = """async ([cases, validators, chainId]) => {
  const { Bytes, Blocks, Bundle, SealsView } = window.countersign;
  const named = Blocks.parseValidators(validators).addresses;
  const found = [];
  for (const [bundle, [contract, ...before]] of cases) {
    const view = new SealsView(named, BigInt(chainId), contract, null, before);
    view.validators = named;
    found.push((await Bundle.verify(Bytes.fromBase64(bundle), view)).reason);
  }
  return found;
}"""


@pytest.fixture
def verifier(page: Page) -> Page:
    """The page, opened from its file."""
    page.goto(FILE.as_uri())
    return page


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[ChainFixture]:
    chain = start_chain(tmp_path)
    yield chain
    chain.stop()


def test_page_and_command_agree_on_who_may_have_taken_a_sealed_anchor(verifier: Page) -> None:
    """The checkpoint names REGISTRY; each version's event, each order of what is trusted."""
    known = (NEWEST, BETWEEN, REGISTRY)
    lines = [line for count in (1, 2, 3) for line in itertools.permutations(known, count)]
    made = {
        emitter: sealed(parse_bundle(BUNDLES[0]), KEYS[:3], emitter=emitter).encode()
        for emitter in known
    }
    cases = [(raw, line) for raw in made.values() for line in lines]
    expected = [
        verify(raw, SealTrust(CHAIN_ID, line[0], addresses(4), predecessors=line[1:])).reason
        for raw, line in cases
    ]
    validators = " ".join("0x" + address.hex() for address in addresses(4))
    encoded = [[base64.b64encode(raw).decode(), list(line)] for raw, line in cases]
    assert verifier.evaluate(BY_SEALS, [encoded, validators, CHAIN_ID]) == expected
    refused = {Reason.UNTRUSTED_REGISTRY, Reason.EVENT_NOT_IN_RECEIPT}
    assert refused < set(expected)


def test_a_reader_names_the_contract_and_its_predecessor(verifier: Page) -> None:
    raw = sealed(parse_bundle(BUNDLES[0]), KEYS[:3]).encode()
    verdict = verifier.locator("#verdict")
    check = verifier.get_by_role("button", name="Check", exact=True)
    verifier.get_by_label("Or paste it").fill(raw.decode())
    verifier.get_by_label("Validators").fill(
        " ".join("0x" + address.hex() for address in addresses(4))
    )
    verifier.get_by_label("Chain id").fill(str(CHAIN_ID))
    for line, said in (
        (NEWEST, "REFUSED UNTRUSTED_REGISTRY"),
        (f"{NEWEST}, {REGISTRY}", "PROVEN"),
        (f"{NEWEST} {BETWEEN}", "REFUSED UNTRUSTED_REGISTRY"),
        (f"{NEWEST} 0x12", "CAN'T BE CHECKED"),
    ):
        verifier.get_by_label("Anchor contract").fill(line)
        check.click()
        expect(verdict).to_have_text(said)


def test_the_page_asks_the_chain_for_the_predecessors(
    verifier: Page, database: NodeDatabase, chain: ChainFixture
) -> None:
    member = make_member(database, chain, ("acquirer",))
    books = LedgerFactory(database.engine, "acquirer")
    old_record = books.add(2)[0]
    member.anchor_all()
    late_record = books.add(1)[0]
    member.seal()  # signed before the move, anchored after it
    old, new = chain.anchor_registry, moved(chain, chain.anchor_registry)
    after = told(member, new)
    after.settle()
    new_record = books.add(1)[0]
    after.anchor_all()
    proofs = [bundle_of(after, each.txid) for each in (old_record, late_record, new_record)]
    verdict = verifier.locator("#verdict")
    with browsers_door(chain.rpc_url) as rpc:
        verifier.get_by_label("Chain node (URL)").fill(rpc)
        for contract, expected in (
            (new, ["PROVEN"] * 3),
            (old, ["PROVEN", "REFUSED NOT_ANCHORED", "REFUSED UNTRUSTED_REGISTRY"]),
        ):
            verifier.get_by_label("Anchor contract").fill(contract)
            for raw, said in zip(proofs, expected, strict=True):
                verifier.get_by_label("Or paste it").fill(raw.decode())
                verifier.get_by_role("button", name="Check", exact=True).click()
                expect(verdict).to_have_text(said)
                reason = verify(raw, TrustedChain(chain.client(), contract)).reason
                assert said == (f"REFUSED {reason}" if reason else "PROVEN")
