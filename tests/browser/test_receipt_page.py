"""The page behind a receipt's code: it asks the node that serves it, and judges for itself."""

from __future__ import annotations

import http.server
import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from typer.testing import CliRunner

from nodes.anchoring import proof_queries
from nodes.anchoring.chain_view import CachedChain
from nodes.anchoring.operations.promising import promise_transaction
from nodes.anchoring.qr_code import qr_svg
from nodes.anchoring.receipt import Promise, judge_receipt
from nodes.anchoring.roots_reader import read_roots
from nodes.anchoring.store import transaction
from nodes.api.verify_page import verify_page
from nodes.chain.challenges import ClaimState, OmissionRegistry, claim_id_of
from nodes.chain.deploy import Terms
from nodes.claims.operations import RelayContext, relay_claims
from nodes.clock import SystemClock
from sandbox.cli import make_app
from tests.browser.conftest import Watch
from tests.browser.test_verify_page import FILE
from tests.conftest import Cluster, NodeDatabase
from tests.factories.chain import ChainFixture, start_chain
from tests.factories.evidence import LogMember, make_member
from tests.factories.ledger import LedgerFactory
from tests.factories.receipts import Promising, make_promising
from tests.factories.relay import PATH, Relay, relay_node, sent_of
from tests.factories.sealed_receipts import sealed_receipt
from tests.integration.api.running import RunningNode
from tests.integration.api.served_log import served


@pytest.fixture(scope="module")
def receipt_chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChainFixture]:
    chain = start_chain(tmp_path_factory.mktemp("receipt-chain"), terms=Terms(answer_s=3))
    yield chain
    chain.stop()


@pytest.fixture
def member(database: NodeDatabase, receipt_chain: ChainFixture) -> LogMember:
    return make_member(database, receipt_chain, ("acquirer",))


@contextmanager
def promising_node(member: LogMember, promising: Promising) -> Iterator[RunningNode]:
    address = member.chain.omission_registry
    with served(
        member, secrets={"promise": promising.key}, omission_registry=address, merge_delay_s=600
    ) as node:
        yield node


@contextmanager
def browsers_door(rpc_url: str) -> Iterator[str]:
    """What an operator puts before a chain node that browsers may ask: the same, with CORS."""

    class Door(http.server.BaseHTTPRequestHandler):
        def do_OPTIONS(self) -> None:
            self.send_response(204)
            self._allow()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            request = urllib.request.Request(rpc_url, body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request) as answer:
                raw = answer.read()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self._allow()
            self.wfile.write(raw)

        def _allow(self) -> None:
            self.send_header("Access-Control-Allow-Origin", "*")
            self.send_header("Access-Control-Allow-Headers", "content-type")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Door)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_receipts_code_leads_to_its_proof(member: LogMember, page: Page, watch: Watch) -> None:
    promising = make_promising(member)
    record = LedgerFactory(member.database.engine, "acquirer").add(2)[0]
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    with promising_node(member, promising) as node, node.http("operator") as client:
        path = f"/v1/transactions/{record.txid.hex()}/promise"
        assert client.get(path).status_code == 404
        made = client.post(path, json={})
        assert made.status_code == 200, made.text
        assert client.get(path).json() == client.post(path, json={}).json() == made.json()
        url = made.json()["url"]
        code = client.get(path + "/code")
        assert code.headers["content-type"] == "image/svg+xml"
        assert code.text == qr_svg(url)
        assert url.startswith(f"{node.url}/r#")
        # The node has no proof yet: the browser's console says 409.
        watch.expected = ["409"]
        page.goto(url)
        verdict = page.locator("#verdict")
        expect(verdict).to_have_text("NOT YET PROMISE_PENDING")
        member.anchor_all()
        page.get_by_role("button", name="Ask this node for the proof").click()
        expect(verdict).to_have_text("PROVEN")
        expect(page.locator("#details")).to_contain_text(record.txid.hex())
        expect(page.locator("#roots-told")).to_contain_text("word of 127.0.0.1")
        expect(page.locator("#details")).to_contain_text("not judged: the proof carries none")
        judge_by_own_trust(page, member.chain.anchor_registry)
    promise = made.json()["promise"]
    assert all("#" not in url for url in asked if "/v1/" in url)
    assert not any(promise[40:] in url for url in asked if "/v1/" in url)
    assert not any(record.salt_fin.hex() in url for url in asked)


def judge_by_own_trust(page: Page, registry: str) -> None:
    """Beside the roots that the node tells: a contract and validators of the reader's own count."""
    verdict = page.locator("#verdict")
    check = page.get_by_role("button", name="Check", exact=True)
    page.get_by_label("Anchor contract").fill("0x" + "cd" * 20)
    check.click()
    expect(verdict).to_have_text("REFUSED UNTRUSTED_REGISTRY")
    page.get_by_label("Anchor contract").fill(registry)
    check.click()
    expect(verdict).to_have_text("PROVEN")
    page.get_by_label("Validators").fill("0x" + "11" * 20)
    check.click()
    expect(verdict).to_have_text("REFUSED NOT_SEALED")


def test_only_the_receipts_holder_gets_the_proof(member: LogMember) -> None:
    promising = make_promising(member)
    record = LedgerFactory(member.database.engine, "acquirer").add(1)[0]
    member.anchor_all()
    with promising_node(member, promising) as node, node.http(None) as public:
        for what in ("proof", "roots"):
            path = f"/v1/receipts/{record.txid.hex()}/{what}"
            assert public.get(path).status_code == 422
            for key in ("", "00", "00" * 32, "zz"):
                assert public.get(path, params={"key": key}).status_code == 404
            unknown = public.get(f"/v1/receipts/{'0' * 64}/{what}", params={"key": "00" * 32})
            assert unknown.status_code == 404
        path = f"/v1/transactions/{record.txid.hex()}/promise"
        assert public.get(path).status_code == 401
        with node.http("reader") as reader:
            assert reader.post(path, json={}).status_code == 403


def test_without_a_registered_key_nothing_is_promised(member: LogMember) -> None:
    promising = make_promising(member)
    record = LedgerFactory(member.database.engine, "acquirer").add(1)[0]
    path = f"/v1/transactions/{record.txid.hex()}/promise"
    stranger = Promising(bytes(31) + b"\x01", promising.promiser)
    with promising_node(member, stranger) as node, node.http("operator") as client:
        refused = client.post(path, json={})
        assert refused.status_code == 409
        assert refused.json()["type"].endswith("promises-not-made")


def test_the_page_asks_the_chain_itself(member: LogMember, page: Page) -> None:
    """From a file, over RPC, with the reader's own trust; page and command agree on the promise."""
    promising = make_promising(member)
    record = LedgerFactory(member.database.engine, "acquirer").add(3)[1]
    member.anchor_all()
    promise = promising.promiser.promise(record.txid, record.commitment, record.salt_fin)
    with transaction(member.database.engine) as connection:
        proof = proof_queries.proof_bundle(connection, record.txid, "acquirer")
    chain = member.chain
    with browsers_door(chain.rpc_url) as rpc:
        page.goto(FILE.as_uri())
        page.get_by_label("Chain node (URL)").fill(rpc)
        page.get_by_label("Anchor contract").fill(chain.anchor_registry)
        page.get_by_label("Omission contract").fill(chain.omission_registry)
        page.locator("#promise").fill(promise.encode())
        page.get_by_label("Or paste it").fill(proof.decode())
        page.get_by_role("button", name="Check", exact=True).click()
        verdict = page.locator("#verdict")
        expect(verdict).to_have_text("PROVEN")
        spoiled = promise.encode()[:-2] + "AA"
        page.locator("#promise").fill(spoiled)
        page.get_by_role("button", name="Check", exact=True).click()
        expect(verdict).to_have_text("REFUSED PROMISE_KEY_UNKNOWN")
        page.locator("#promise").fill("")
        page.get_by_label("Anchor contract").fill("0x" + "cd" * 20)
        page.get_by_role("button", name="Check", exact=True).click()
        expect(verdict).to_have_text("REFUSED UNTRUSTED_REGISTRY")


def test_page_and_command_agree_on_altered_promises(member: LogMember, page: Page) -> None:
    promising = make_promising(member)
    records = LedgerFactory(member.database.engine, "acquirer").add(2)
    member.anchor_all()
    record = records[0]
    promise = promising.promiser.promise(record.txid, record.commitment, record.salt_fin)
    with transaction(member.database.engine) as connection:
        proof = proof_queries.proof_bundle(connection, record.txid, "acquirer")
    chain = member.chain
    roots = read_roots(chain.client(), chain.anchor_registry, chain.omission_registry)
    text, now_s = promise.encode(), int(time.time())
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    texts = [text, text + "A", text[:-4], "", "=", text.replace(text[0], "B", 1)]
    for place in range(0, len(text), 3):
        letter = alphabet[alphabet.index(text[place]) ^ (1 << place % 6)]
        texts.append(text[:place] + letter + text[place + 1 :])
    cached = CachedChain(roots)
    expected = [judge_receipt(each, proof, cached, now_s).reason for each in texts]
    expected += [judge_receipt(text, None, cached, now_s + d).reason for d in (0, 10**9)]
    page.goto(FILE.as_uri())
    found = page.evaluate(
        """async ([texts, text, proof, roots, now]) => {
          const { Bytes, Receipt, RootsView } = window.countersign;
          const view = new RootsView(roots);
          const raw = Bytes.utf8(proof);
          const reasons = [];
          for (const each of texts) {
            reasons.push((await Receipt.judge(each, raw, view, now)).reason);
          }
          for (const d of [0, 10 ** 9]) {
            reasons.push((await Receipt.judge(text, null, view, now + d)).reason);
          }
          return reasons;
        }""",
        [texts, text, proof.decode(), roots.encode(), now_s],
    )
    assert found == expected
    assert len(set(expected)) >= 5


@pytest.fixture
def relay() -> Iterator[Relay]:
    with relay_node() as node:
        node.page = verify_page()[0]
        yield node


@pytest.fixture(params=["served", "file"])
def overdue(
    request: pytest.FixtureRequest, page: Page, relay: Relay, tmp_path: Path
) -> tuple[Page, Promise]:
    """The page, from a node or a file, that shows a promise to be overdue."""
    receipt = sealed_receipt(merge_deadline=1_700_000_000)
    roots = tmp_path / "roots.json"
    roots.write_text(receipt.roots.encode())
    page.goto(FILE.as_uri() if request.param == "file" else f"{relay.url}/r")
    page.get_by_label("File of cached roots").set_input_files(roots)
    page.locator("#promise").fill(receipt.promise.encode())
    assert not page.get_by_role("button", name="Take it to the chain").is_visible()
    page.get_by_role("button", name="Check", exact=True).click()
    expect(page.locator("#verdict")).to_have_text("REFUSED PROMISE_OVERDUE")
    node = page.get_by_label("A member's node (URL)")
    expect(node).to_have_value("" if request.param == "file" else f"{relay.url}/")
    node.fill(relay.url)
    return page, receipt.promise


def test_an_overdue_promise_is_taken_to_the_chain(
    overdue: tuple[Page, Promise], relay: Relay, in_both_colours: Callable[[Page], None]
) -> None:
    page, promise = overdue
    member, told = promise.member_id, page.locator("#chain-told")
    expect(page.locator("#chain-member")).to_have_text(member)
    again = page.get_by_role("button", name="Look again")
    expect(again).to_be_hidden()
    relay.answers(promise, "queued")
    page.get_by_role("button", name="Take it to the chain").click()
    expect(told).to_have_text(
        "Taken on. The node is going to send it to the chain: look again in a minute."
    )
    for state, by, words in (
        ("claimed", 4_000_000_000, f"{member} may answer until 2096-10-02T07:06:40.000Z."),
        ("claimed", 1_700_000_000, f"{member} could answer until 2023-11-14T22:13:20.000Z; the"),
        ("answered", 1_700_000_000, f"Answered. {member} has shown the chain"),
        ("refused", None, "Refused: PromiseTooOld."),
        ("proven", 1_700_000_000, f"Proven. It stands on the chain that {member} left it out"),
    ):
        relay.answers(promise, state, by, "PromiseTooOld" if state == "refused" else None)
        again.click()
        expect(told).to_contain_text(words)
        assert told.get_attribute("aria-live") == "polite"
    in_both_colours(page)
    claim_id = claim_id_of(member, promise.txid, promise.commitment).hex()
    looks = [("GET", f"{PATH}/{claim_id}", None)] * 5
    assert relay.asked == [("POST", PATH, sent_of(promise)), *looks]
    assert promise.salt_fin.hex() not in json.dumps(relay.asked)
    page.locator("#promise").fill("")
    expect(page.locator("#chain-part")).to_be_hidden()


def test_what_a_node_refuses_is_told(
    overdue: tuple[Page, Promise], relay: Relay, watch: Watch
) -> None:
    page, promise = overdue
    watch.expected = ["409", "ERR_UNSAFE_PORT", "ERR_CONNECTION_REFUSED"]
    told, node = page.locator("#chain-told"), page.get_by_label("A member's node (URL)")

    def send() -> None:
        told.evaluate("told => (told.textContent = '')")
        page.get_by_role("button", name="Take it to the chain").click()

    relay.refuses(409, "claim-refused", "The promise is not <b>due</b>.", reason="PromiseNotDue")
    send()
    expect(told).to_have_text(
        "The node refuses: The promise is not <b>due</b>. (409, claim-refused, PromiseNotDue)"
    )
    other = {"claim_id": "00" * 32, "state": "proven", "answer_by": None, "reason": None}
    for document in (other, {}, other | {"claim_id": 7}):
        relay.says(202, document)
        send()
        expect(told).to_have_text("The answer is no state of this claim: is that a member's node?")
    for address in ("", "node.example", "ftp://node.example", "https://n/r#promise"):
        node.fill(address)
        send()
        expect(told).to_have_text("Give the address of a member's node: https:// and its name.")
    node.fill("http://127.0.0.1:1")
    send()
    expect(told).to_contain_text("The node at http://127.0.0.1:1 can't be asked")
    expect(page.get_by_role("button", name="Look again")).to_be_hidden()
    assert relay.asked == [("POST", PATH, sent_of(promise))] * 4


@pytest.fixture
def neighbour(cluster: Cluster, receipt_chain: ChainFixture) -> Iterator[LogMember]:
    """Another member of the same chain."""
    database = cluster.new_database()
    try:
        yield make_member(database, receipt_chain, ("acquirer",))
    finally:
        cluster.drop(database)


def test_another_members_node_proves_an_omission_for_a_shopper(
    member: LogMember, neighbour: LogMember, page: Page, watch: Watch
) -> None:
    """Real nodes, the page and the command: nobody but the relaying member has a chain key."""
    watch.expected = ["409"]  # the promising node has no proof
    promising, chain = make_promising(member, 1), member.chain
    record = LedgerFactory(member.database.engine, "acquirer").add(1)[0]
    promise = promise_transaction(member.database.engine, promising.promiser, record.txid)
    assert promise is not None
    while time.time() <= promise.merge_deadline + 1.5:
        time.sleep(0.2)
    omissions = OmissionRegistry(chain.client(), chain.omission_registry)
    context = neighbour.context
    worker = RelayContext(context.engine, context.client, omissions, context.signer, SystemClock())
    told, again = page.locator("#chain-told"), page.get_by_role("button", name="Look again")

    def work_until(word: str) -> None:
        deadline = time.monotonic() + 30
        while not (told.text_content() or "").startswith(word):
            assert time.monotonic() < deadline, told.text_content()
            relay_claims(worker)
            with page.expect_response(lambda response: PATH in response.url):
                again.click()
            page.wait_for_timeout(200)

    registry = chain.omission_registry
    with (
        promising_node(member, promising) as home,
        served(neighbour, omission_registry=registry) as node,
    ):
        page.goto(f"{home.url}/r#{promise.encode()}")
        expect(page.locator("#verdict")).to_have_text("REFUSED PROMISE_OVERDUE")
        page.get_by_label("A member's node (URL)").fill(node.url)
        page.get_by_role("button", name="Take it to the chain").click()
        expect(told).to_contain_text("Taken on.")
        work_until(f"Claimed on the chain. {member.member_id} ")
        work_until("Proven.")
        addresses = ["--rpc", chain.rpc_url, "--anchor-registry", chain.anchor_registry]
        addresses += ["--omission-registry", registry]
        via = ["receipt", promise.encode(), "--offline", "--challenge", "--via", node.url]
        said = CliRunner().invoke(make_app(), [*via, *addresses])
        assert said.exit_code == 1, said.output
        assert f"PROVEN; that {member.member_id} left it out" in said.stdout
    claim = omissions.claim(promise.member_id, promise.txid, promise.commitment)
    assert claim is not None
    assert (claim.state, claim.claimant) == (ClaimState.PROVEN, context.signer.address)
