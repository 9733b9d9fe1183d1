"""Receipts of recorded transactions: node, gateway's HTTP, and the command that writes a file."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import psycopg
import pytest
from typer.testing import CliRunner

from gateway.http.receipts import ReceiptService
from gateway.http.status import StatusServer
from gateway.metrics import Metrics
from nodes.acquiring.fleet.model import ChangeKind, Parameters
from nodes.acquiring.fleet.operations import Ordered, change_terminal
from nodes.acquiring.model import Merchant
from nodes.acquiring.operations import register_merchant, register_terminal
from nodes.authorization.store.presented import append_partial_approvals
from nodes.clock import to_datetime
from nodes.db.writes import Writes, execute
from nodes.money import Money
from sandbox.cli import make_app
from tests.conftest import NodeDatabase
from tests.factories.chain import ChainFixture, start_chain
from tests.factories.evidence import LogMember, make_member
from tests.factories.ledger import LedgerFactory
from tests.factories.qr_reading import read_png
from tests.factories.receipts import make_promising
from tests.integration.api.running import KEYS, RunningNode
from tests.integration.api.served_log import served


@pytest.fixture(scope="module")
def receipts_chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChainFixture]:
    chain = start_chain(tmp_path_factory.mktemp("printed-receipts-chain"))
    yield chain
    chain.stop()


@pytest.fixture
def member(database: NodeDatabase, receipts_chain: ChainFixture) -> LogMember:
    return make_member(database, receipts_chain, ("acquirer",))


@pytest.fixture
def recorded(member: LogMember) -> Any:
    """A transaction in the acquirer's books."""
    return LedgerFactory(member.database.engine, "acquirer").add(1)[0]


@pytest.fixture
def node(member: LogMember) -> Iterator[RunningNode]:
    promising = make_promising(member)
    address = member.chain.omission_registry
    with served(
        member, secrets={"promise": promising.key}, omission_registry=address, merge_delay_s=600
    ) as running:
        yield running


def fetch(node: RunningNode, path: str, role: str | None = "operator") -> tuple[int, str, bytes]:
    """GET at the gateway's HTTP port: status, media type, body."""

    async def asked() -> tuple[int, str, bytes]:
        server = StatusServer(Metrics(), dict, ReceiptService(node.url).routes())
        port = await server.start("127.0.0.1", 0)
        headers = {} if role is None else {"Authorization": f"Bearer {KEYS[role]}"}
        try:
            async with (
                aiohttp.ClientSession(headers=headers) as session,
                session.get(f"http://127.0.0.1:{port}{path}") as answer,
            ):
                return answer.status, answer.content_type, await answer.read()
        finally:
            await server.close()

    return asyncio.run(asked())


def test_a_receipt_is_to_be_had_in_every_form(node: RunningNode, recorded: Any) -> None:
    txid = recorded.txid.hex()
    with node.http("operator") as client:
        said = client.post(f"/v1/transactions/{txid}/receipt", json={}).json()
        promised = client.post(f"/v1/transactions/{txid}/promise", json={}).json()
    assert said["proof_url"] == promised["url"]
    assert said["txid"] == txid
    assert said["local_time"].endswith("+08:00")
    status, kind, picture = fetch(node, f"/receipts/{txid}.png?width=80&lang=en&copy=merchant")
    assert (status, kind) == (200, "image/png")
    assert read_png(picture) == promised["url"]
    status, kind, document = fetch(node, f"/receipts/{txid}.pdf")
    assert (status, kind, document[:5]) == (200, "application/pdf", b"%PDF-")
    status, _, paper = fetch(node, f"/receipts/{txid}.escpos?duplicate=1")
    assert (status, paper[:2]) == (200, b"\x1b@")
    assert "重打印".encode("gb18030") in paper
    status, _, text = fetch(node, f"/receipts/{txid}.txt?lang=en")
    assert said["rrn"] in text.decode()


def test_a_partial_approval_prints_what_was_asked_for(
    node: RunningNode, member: LogMember, recorded: Any
) -> None:
    txid = recorded.txid.hex()
    plain = fetch(node, f"/receipts/{txid}.txt?lang=en")[2].decode()
    writes = Writes()
    append_partial_approvals(writes, [(recorded.txid, recorded.amount + 12_345)])
    with psycopg.connect(member.database.dsn) as connection:
        execute(connection, writes)
    with node.http("operator") as client:
        said = client.post(f"/v1/transactions/{txid}/receipt", json={}).json()
    assert (said["requested"], said["amount"]) == (recorded.amount + 12_345, recorded.amount)
    asked = str(Money(recorded.amount + 12_345, recorded.currency))
    for language, words in (("en", "Asked for"), ("zh", "请求金额")):
        text = fetch(node, f"/receipts/{txid}.txt?lang={language}")[2].decode()
        [line] = [line for line in text.splitlines() if words in line]
        assert asked in line
    assert "Asked for" not in plain


def test_who_may_not_print_gets_the_nodes_refusal(node: RunningNode, recorded: Any) -> None:
    path = f"/receipts/{recorded.txid.hex()}.png"
    assert fetch(node, path, None)[0] == 401
    assert fetch(node, path, "reader")[0] == 403
    assert fetch(node, f"/receipts/{'0' * 64}.png")[0] == 404
    assert fetch(node, "/receipts/zz.png")[0] == 404
    assert fetch(node, path.replace(".png", ".exe"))[0] == 404
    for query in ("width=72", "copy=mine", "lang=fr", "duplicate=yes", "colour=red", "width=x"):
        status, _, body = fetch(node, f"{path}?{query}")
        assert status == 422, (query, body)


def test_a_terminal_prints_as_its_parameters_say(node: RunningNode, recorded: Any) -> None:
    txid = recorded.txid.hex()
    with node.http("operator") as client:
        first = client.post(f"/v1/transactions/{txid}/receipt", json={}).json()
    assert (first["language"], first["width_mm"]) == ("zh", 58)
    engine = node.node.engine
    merchant = Merchant(first["merchant_id"], "Harbor Stores", "5411", "CN", "CNY")
    register_merchant(engine, merchant, now=to_datetime(1_790_000_000_000))
    register_terminal(engine, first["terminal_id"], first["merchant_id"])
    change_terminal(
        engine,
        first["terminal_id"],
        ChangeKind.PARAMETERS,
        order=Ordered("test", "English, wide", 1_790_000_000_000),
        content=Parameters(receipt_language="en", receipt_width_mm=80),
    )
    status, _, text = fetch(node, f"/receipts/{txid}.txt")
    assert status == 200
    lines = text.decode().splitlines()
    assert "CUSTOMER COPY" in text.decode()
    assert max(len(line) for line in lines) == 48


def test_without_a_promise_key_there_is_a_receipt_without_a_proof(
    member: LogMember, recorded: Any
) -> None:
    with served(member) as node:
        status, _, text = fetch(node, f"/receipts/{recorded.txid.hex()}.txt?lang=en")
    assert status == 200
    assert "no proof" in text.decode()


def test_the_command_writes_the_file(node: RunningNode, recorded: Any, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(KEYS["operator"])
    file = tmp_path / "receipt.png"
    base = ["receipt", recorded.txid.hex(), "--node", node.url, "--key-file", str(key), "--print"]
    done = CliRunner().invoke(make_app(), [*base, str(file), "--lang", "en", "--width", "80"])
    assert done.exit_code == 0, done.output
    with node.http("operator") as client:
        path = f"/v1/transactions/{recorded.txid.hex()}/promise"
        assert read_png(file.read_bytes()) == client.get(path).json()["url"]
    wrong = CliRunner().invoke(make_app(), [*base, str(tmp_path / "receipt.doc")])
    assert (wrong.exit_code, "ends in one of" in wrong.output) == (2, True)
    key.write_text(KEYS["reader"])
    refused = CliRunner().invoke(make_app(), [*base, str(file)])
    assert (refused.exit_code, "caller-not-permitted" in refused.output) == (2, True)
