"""Whose transactions the embedded chain takes, and how its JSON-RPC answers."""

from __future__ import annotations

import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from eth_account import Account

from nodes.chain.deploy import govern, revoke_member, rotate_key, send
from nodes.chain.embedded.store import BlockRow, ChainStore, LogFilter, LogRow
from nodes.chain.errors import ChainRefused
from nodes.chain.signer import LocalSigner
from nodes.ids import member_word
from tests.factories.chain import ChainFixture, start_chain


def new_signer() -> LocalSigner:
    return LocalSigner(secrets.token_bytes(32))


def transaction(chain: ChainFixture, signer: LocalSigner, **changes: Any) -> bytes:
    fields = {
        "to": signer.address,
        "value": 0,
        "data": b"",
        "gas": 30_000,
        "gasPrice": 0,
        "chainId": chain.chain_id,
        "nonce": chain.client().nonce(signer.address),
    }
    raw, _ = signer.sign_transaction(fields | changes)
    return raw


def may_send(chain: ChainFixture, signer: LocalSigner) -> bool:
    client = chain.client()
    try:
        tx_hash = client.send_raw(transaction(chain, signer))
    except ChainRefused as refusal:
        if "is not permitted on this chain" not in refusal.message:
            raise
        return False
    return client.wait_for_receipt(tx_hash).ok


class TestPermission:
    def test_strangers_are_refused(self, embedded: ChainFixture) -> None:
        stranger = new_signer()
        with pytest.raises(ChainRefused, match=f"(?i)sender {stranger.address} is not permitted"):
            embedded.client().send_raw(transaction(embedded, stranger))
        assert embedded.client().nonce(stranger.address) == 0

    def test_admission_opens_and_revocation_closes_the_chain(self, embedded: ChainFixture) -> None:
        client, member_id = embedded.client(), f"m-{secrets.token_hex(6)}"
        operator = new_signer()
        assert not may_send(embedded, operator)
        embedded.add_member(member_id, operator=operator)
        assert may_send(embedded, operator)

        successor = new_signer()
        rotate_key(
            client,
            embedded.deployer,
            embedded.member_registry,
            member_id,
            "operator",
            bytes.fromhex(successor.address[2:]),
        )
        assert not may_send(embedded, operator)
        assert may_send(embedded, successor)

        revoke_member(client, embedded.deployer, embedded.member_registry, member_id)
        assert not may_send(embedded, successor)

    def test_what_waits_is_dropped_when_its_sender_is_revoked(self, embedded: ChainFixture) -> None:
        client, member_id = embedded.client(), f"m-{secrets.token_hex(6)}"
        operator = embedded.add_member(member_id)
        waiting = client.send_raw(transaction(embedded, operator, nonce=1))
        revoke_member(client, embedded.deployer, embedded.member_registry, member_id)
        assert client.receipt(waiting) is None
        with pytest.raises(ChainRefused, match="not permitted"):
            client.send_raw(transaction(embedded, operator, nonce=0))

    def test_new_governance_may_send(self, tmp_path: Path) -> None:
        chain = start_chain(tmp_path)
        client, successor = chain.client(), new_signer()
        registry = client.contract("MemberRegistry", chain.member_registry)
        assert not may_send(chain, successor)
        govern(
            client, chain.deployer, chain.member_registry, "transferOwnership", successor.address
        )
        assert may_send(chain, successor)
        send(
            client,
            successor,
            {"to": registry.address, "data": registry.encode_abi("acceptOwnership")},
        )
        assert client.read(registry.functions.owner()) == successor.address
        chain.deployer = successor
        chain.add_member("aurora")
        assert may_send(chain, successor)
        chain.stop()

    def test_a_look_alike_registry_admits_nobody(self, embedded: ChainFixture) -> None:
        from nodes.chain.deploy import deploy

        other = deploy(embedded.client(), embedded.deployer)
        operator = new_signer()
        own, embedded.member_registry = embedded.member_registry, other.member_registry
        embedded.add_member(f"m-{secrets.token_hex(6)}", operator=operator)
        embedded.member_registry = own
        assert not may_send(embedded, operator)


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"gasPrice": 1}, "insufficient funds"),
            ({"value": 1}, "insufficient funds"),
            ({"gas": 20_999}, "gas"),
            ({"gas": 30_000_001}, "block gas limit"),
            ({"chainId": 1}, "chain id"),
            ({"nonce": 10_000}, "nonce too high"),
        ],
    )
    def test_by_name(self, embedded: ChainFixture, changes: dict[str, Any], words: str) -> None:
        with pytest.raises(ChainRefused, match=words):
            embedded.client().send_raw(transaction(embedded, embedded.deployer, **changes))

    def test_a_signature_without_a_chain_id(self, embedded: ChainFixture) -> None:
        key = secrets.token_bytes(32)
        fields = {"to": "0x" + "11" * 20, "value": 0, "gas": 30_000, "gasPrice": 0, "nonce": 0}
        signed = Account.from_key(key).sign_transaction(fields | {"data": b""})
        with pytest.raises(ChainRefused, match="chain id"):
            embedded.client().send_raw(bytes(signed.raw_transaction))

    def test_a_second_transaction_under_a_waiting_nonce(self, embedded: ChainFixture) -> None:
        client, deployer = embedded.client(), embedded.deployer
        nonce = client.nonce(deployer.address) + 1
        client.send_raw(transaction(embedded, deployer, nonce=nonce))
        with pytest.raises(ChainRefused, match="underpriced"):
            client.send_raw(transaction(embedded, deployer, nonce=nonce, data=b"\1"))
        client.send_raw(transaction(embedded, deployer, nonce=nonce - 1))


def post(chain: ChainFixture, body: Any, **options: Any) -> httpx.Response:
    return httpx.post(chain.rpc_url, json=body, timeout=10, **options)


def error_of(chain: ChainFixture, body: Any) -> int:
    answer = post(chain, body)
    assert answer.status_code == 200
    content = answer.json()
    return int((content[0] if isinstance(content, list) else content)["error"]["code"])


class TestJsonRpc:
    def test_batches_are_answered_in_their_order(self, embedded: ChainFixture) -> None:
        requests = [
            {"jsonrpc": "2.0", "id": "a", "method": "eth_chainId", "params": []},
            {"jsonrpc": "2.0", "id": 2, "method": "no_such", "params": []},
            {"jsonrpc": "2.0", "method": "eth_blockNumber"},
            {"jsonrpc": "2.0", "id": None, "method": "net_version"},
        ]
        answers = post(embedded, requests).json()
        assert [answer["id"] for answer in answers] == ["a", 2, None]
        assert answers[0]["result"] == hex(embedded.chain_id)
        assert answers[1]["error"]["code"] == -32601
        assert post(embedded, []).json()["error"]["code"] == -32600
        assert post(embedded, requests[2]).content == b""

    @pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 5_000, b'"x"\x00'])
    def test_what_is_not_json(self, embedded: ChainFixture, body: bytes) -> None:
        headers = {"content-type": "application/json"}
        answer = httpx.post(embedded.rpc_url, content=body, headers=headers)
        assert answer.json()["error"]["code"] == -32700

    @pytest.mark.parametrize("body", [1, "x", {}, {"method": 5}, [None]])
    def test_what_is_no_request(self, embedded: ChainFixture, body: Any) -> None:
        assert error_of(embedded, body) == -32600

    @pytest.mark.parametrize(
        ("method", "params"),
        [
            ("eth_getBalance", []),
            ("eth_getBalance", ["0x12"]),
            ("eth_getBalance", [5]),
            ("eth_getBalance", {"address": "0x"}),
            ("eth_getBalance", ["0x" + "11" * 20, "0x01"]),
            ("eth_getBlockByNumber", ["newest", False]),
            ("eth_getBlockByNumber", ["-0x1", False]),
            ("eth_getBlockByNumber", [True, False]),
            ("eth_getBlockByNumber", ["0x" + "f" * 65, False]),
            ("eth_getBlockByHash", ["0x11", False]),
            ("eth_getTransactionReceipt", ["0x" + "11" * 31]),
            ("eth_call", ["0x"]),
            ("eth_call", [{"to": "0x1"}]),
            ("eth_call", [{"data": "0x1"}]),
            ("eth_call", [{"data": "0x11", "input": "0x22"}]),
            ("eth_getLogs", [[]]),
            ("eth_getLogs", [{"topics": [None] * 5}]),
            ("eth_getLogs", [{"topics": "0x"}]),
            ("eth_getLogs", [{"address": ["0x1"]}]),
            ("eth_getLogs", [{"blockHash": "0x" + "11" * 32}]),
            ("eth_sendRawTransaction", ["0xzz"]),
            ("eth_sendRawTransaction", [None]),
        ],
    )
    def test_wrong_parameters(self, embedded: ChainFixture, method: str, params: Any) -> None:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        assert error_of(embedded, body) == -32602

    def test_unknown_things_are_null(self, embedded: ChainFixture) -> None:
        client, word = embedded.client(), "0x" + "11" * 32
        for method, params in (
            ("eth_getBlockByNumber", ["0xffffffff", False]),
            ("eth_getBlockByHash", [word, True]),
            ("eth_getTransactionByHash", [word]),
            ("eth_getTransactionReceipt", [word]),
        ):
            assert client.request(method, params) is None

    def test_block_tags(self, embedded: ChainFixture) -> None:
        client = embedded.client()
        head = client.request("eth_getBlockByNumber", ["latest", False])
        for tag in ("pending", "safe", "finalized", head["number"]):
            assert client.request("eth_getBlockByNumber", [tag, False]) == head
        assert client.request("eth_getBlockByHash", [head["hash"], False]) == head
        first = client.request("eth_getBlockByNumber", ["earliest", False])
        assert int(first["number"], 16) == 0
        balance = client.request("eth_getBalance", ["0x" + "11" * 20, {"blockHash": head["hash"]}])
        assert balance == "0x0"

    def test_a_block_with_its_transactions_and_receipts(self, embedded: ChainFixture) -> None:
        client = embedded.client()
        receipt = send(client, embedded.deployer, {"to": embedded.deployer.address})
        number = hex(receipt.block_number)
        bare = client.request("eth_getBlockByNumber", [number, False])
        full = client.request("eth_getBlockByNumber", [number, True])
        assert bare["transactions"] == [full["transactions"][0]["hash"]]
        assert full["transactions"][0] == client.request(
            "eth_getTransactionByHash", [bare["transactions"][0]]
        )
        assert client.request("eth_getBlockReceipts", [number]) == [
            client.request("eth_getTransactionReceipt", [bare["transactions"][0]])
        ]
        assert len(bytes.fromhex(bare["extraData"][2:])) == 97

    def test_prices_are_zero(self, embedded: ChainFixture) -> None:
        client = embedded.client()
        assert client.gas_price() == 0
        assert client.request("eth_maxPriorityFeePerGas", []) == "0x0"
        history = client.request("eth_feeHistory", ["0x2", "latest", [50]])
        assert history["baseFeePerGas"] == ["0x0"] * 3
        assert history["reward"] == [["0x0"], ["0x0"]]


class TestHttp:
    def test_health(self, embedded: ChainFixture) -> None:
        answer = httpx.get(f"{embedded.rpc_url}/health").json()
        assert answer["status"] == "ok"
        assert answer["chain_id"] == embedded.chain_id
        assert answer["block_number"] == embedded.client().block_number()

    @pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "10.0.0.1", ""])
    def test_a_name_that_is_not_loopback_is_refused(
        self, embedded: ChainFixture, host: str
    ) -> None:
        body = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId"}
        assert post(embedded, body, headers={"host": host}).status_code == 403

    def test_other_requests_are_refused(self, embedded: ChainFixture) -> None:
        assert httpx.get(embedded.rpc_url).status_code == 405
        assert httpx.get(f"{embedded.rpc_url}/other").status_code == 404
        assert httpx.post(embedded.rpc_url, content=b"{}").status_code == 415
        large = b" " * ((4 << 20) + 1)
        headers = {"content-type": "application/json"}
        assert httpx.post(embedded.rpc_url, content=large, headers=headers).status_code == 413


class TestSpeed:
    def test_waiting_transactions_share_blocks(self, embedded: ChainFixture) -> None:
        client = embedded.client()
        operators = [embedded.add_member(f"m-{secrets.token_hex(6)}") for _ in range(4)]
        raws = [
            transaction(embedded, operator, nonce=nonce)
            for operator in operators
            for nonce in range(15)
        ]
        before = client.block_number()
        with ThreadPoolExecutor(8) as threads:
            hashes = list(threads.map(client.send_raw, raws))
            receipts = list(threads.map(client.wait_for_receipt, hashes))
        assert all(receipt.ok for receipt in receipts)
        assert client.block_number() - before < len(raws)

    def test_a_transaction_is_sealed_at_once(self, embedded: ChainFixture) -> None:
        client, deployer = embedded.client(), embedded.deployer
        raws = [
            transaction(embedded, deployer, nonce=client.nonce(deployer.address) + n)
            for n in range(10)
        ]
        blocks, took = [], []
        for raw in raws:
            start = time.perf_counter()
            blocks.append(client.wait_for_receipt(client.send_raw(raw)).block_number)
            took.append(time.perf_counter() - start)
        assert sorted(took)[5] < 0.2
        # No heartbeat and no later transaction had to come first: one block each.
        assert blocks == list(range(blocks[0], blocks[0] + len(raws)))

    def test_logs_among_thousands_of_blocks_are_found_by_index(self, tmp_path: Path) -> None:
        store = ChainStore(tmp_path / "logs.sqlite")
        contract, other = b"\1" * 20, b"\2" * 20
        topic = b"\3" * 32
        for number in range(3_000):
            word = number.to_bytes(32, "big")
            logs = [
                LogRow(number, place, b"\4" * 32, 0, address, (topic, word), b"")
                for place, address in enumerate((contract, other))
            ]
            store.commit(BlockRow(number, word, b"", 0), (), logs)
        steps = 0

        def count() -> None:
            nonlocal steps
            steps += 1

        store._connection.set_progress_handler(count, 100)
        every = store.logs(LogFilter(0, 3_000, (contract,), ((topic,),)), 10_000)
        whole, steps = steps, 0
        single = store.logs(LogFilter(0, 3_000, (), ((topic,), (every[2_000].topics[1],))), 10)
        sought, steps = steps, 0
        one = store.logs(LogFilter(1_990, 2_010, (), ((topic,), (every[2_000].topics[1],))), 10)
        store.close()
        assert len(every) == 3_000
        assert [log.address for log in one] == [contract, other]
        assert single == one
        # In hundreds of SQLite's steps, which no load on the machine changes.
        assert whole < 1_000
        # By the indexes on topic and on block: a few rows are looked at, not 6,000.
        assert sought < 30
        assert steps < 30

    def test_the_number_of_logs_in_an_answer_is_bounded(
        self, embedded: ChainFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from nodes.chain.embedded import jsonrpc
        from nodes.chain.embedded.engine import Engine
        from nodes.chain.embedded.genesis import create_genesis, load_genesis

        monkeypatch.setattr(jsonrpc, "MAX_LOGS", 2)
        directory = Path(embedded.process.directory) / "bounded"  # type: ignore[union-attr]
        genesis = create_genesis(directory, chain_id=9, governance=embedded.deployer.address)
        engine = Engine(load_genesis(genesis), directory / "chain.sqlite")
        rows = [LogRow(1, n, bytes(32), 0, b"\1" * 20, (), b"") for n in range(3)]
        engine.store.commit(BlockRow(1, b"\1" * 32, b"", 0), (), rows)
        engine._head = engine.head.copy(block_number=1)
        rpc = jsonrpc.JsonRpc(engine)
        body = b'{"jsonrpc":"2.0","id":1,"method":"eth_getLogs","params":[{"fromBlock":"0x0"}]}'
        assert b"-32005" in rpc.answer(body)
        engine.close()


def test_member_words_are_what_the_registry_holds(embedded: ChainFixture) -> None:
    operator = embedded.add_member("word-check")
    registry = embedded.client().contract("MemberRegistry", embedded.member_registry)
    standing = embedded.client().read(registry.functions.standing(operator.address))
    assert standing[0] == member_word("word-check")
