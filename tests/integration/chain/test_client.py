"""What nodes ask of any EVM chain, asked of real ones."""

from __future__ import annotations

import http.server
import itertools
import secrets
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from eth_hash.auto import keccak
from web3 import HTTPProvider, Web3
from web3.exceptions import ExtraDataLengthError

from nodes.chain.client import ChainClient
from nodes.chain.contracts import ANCHOR_REGISTRY, MEMBER_REGISTRY, artifact
from nodes.chain.deploy import check_deployment, deploy, send
from nodes.chain.errors import ChainRefused, ChainReverted, ChainUnavailable, WrongChain
from nodes.chain.signer import LocalSigner
from tests.factories.chain import ChainFixture

NOBODY = "0x00000000000000000000000000000000DeaDBeef"


def transfer(evm: ChainFixture, nonce: int, **changes: Any) -> tuple[bytes, bytes]:
    """A signed transaction of nothing from the deployer to itself."""
    fields = {
        "to": evm.deployer.address,
        "value": 0,
        "data": b"",
        "gas": 30_000,
        "gasPrice": evm.client().gas_price(),
        "chainId": evm.chain_id,
        "nonce": nonce,
    }
    return evm.deployer.sign_transaction(fields | changes)


def test_the_chain_is_identified(evm: ChainFixture) -> None:
    client = evm.client()
    assert client.chain_id() == evm.chain_id
    assert client.genesis_hash() == client.block(0).hash
    assert len(client.genesis_hash()) == 32
    assert client.request("net_version", []) == str(evm.chain_id)
    assert client.request("web3_clientVersion", [])


def test_blocks_follow_each_other(evm: ChainFixture) -> None:
    client = evm.client()
    blocks = [client.block(number) for number in range(client.block_number() + 1)]
    for parent, child in itertools.pairwise(blocks):
        assert child.parent_hash == parent.hash
        assert child.timestamp >= parent.timestamp
    assert client.recent_block() == blocks[-2]


def test_there_is_no_block_of_the_future(evm: ChainFixture) -> None:
    with pytest.raises(ChainRefused):
        evm.client().block(10**9)


def test_a_legacy_transaction_is_mined(evm: ChainFixture) -> None:
    client = evm.client()
    nonce = client.nonce(evm.deployer.address)
    raw, tx_hash = transfer(evm, nonce)
    assert client.receipt(tx_hash) is None
    assert client.send_raw(raw) == tx_hash == keccak(raw)
    receipt = client.wait_for_receipt(tx_hash)
    assert receipt.ok
    assert (receipt.gas_used, receipt.contract_address, receipt.logs) == (21_000, None, ())
    assert receipt.block_hash == client.block(receipt.block_number).hash
    assert client.nonce(evm.deployer.address) == nonce + 1


def test_the_newer_transaction_types_work_too(evm: ChainFixture) -> None:
    client = evm.client()
    price = client.gas_price()
    fees = {"maxFeePerGas": price, "maxPriorityFeePerGas": price}
    kinds: list[dict[str, Any]] = [
        {"type": 1, "gasPrice": price, "accessList": []},
        {"type": 2, **fees},
    ]
    for changes in kinds:
        fields: dict[str, Any] = {
            "to": evm.deployer.address,
            "value": 0,
            "data": b"",
            "gas": 30_000,
            "chainId": evm.chain_id,
            "nonce": client.nonce(evm.deployer.address),
        }
        raw, tx_hash = evm.deployer.sign_transaction(fields | changes)
        client.send_raw(raw)
        assert client.wait_for_receipt(tx_hash).ok
        shown = client.request("eth_getTransactionByHash", ["0x" + tx_hash.hex()])
        assert shown["type"] == hex(changes["type"])


def test_sending_the_same_bytes_again_is_no_error(evm: ChainFixture) -> None:
    client = evm.client()
    nonce = client.nonce(evm.deployer.address)
    # First with a gap below it, so that it waits.
    waiting, waiting_hash = transfer(evm, nonce + 1)
    first, first_hash = transfer(evm, nonce)
    assert client.send_raw(waiting) == waiting_hash
    assert client.send_raw(waiting) == waiting_hash
    assert client.is_known(waiting_hash)
    assert client.receipt(waiting_hash) is None
    assert client.send_raw(first) == first_hash
    mined = client.wait_for_receipt(waiting_hash)
    assert client.send_raw(waiting) == waiting_hash
    assert client.receipt(waiting_hash) == mined
    assert client.nonce(evm.deployer.address) == nonce + 2


def test_the_next_nonce_is_the_one_that_the_chain_waits_for(evm: ChainFixture) -> None:
    client = evm.client()
    nonce = client.nonce(evm.deployer.address)
    assert client.next_nonce(evm.deployer.address) == nonce
    above, above_hash = transfer(evm, nonce + 1)
    client.send_raw(above)
    assert client.next_nonce(evm.deployer.address) == nonce
    missing, _ = transfer(evm, nonce)
    client.send_raw(missing)
    client.wait_for_receipt(above_hash)
    assert client.next_nonce(evm.deployer.address) == nonce + 2


def test_another_transaction_under_a_used_nonce_is_refused(evm: ChainFixture) -> None:
    client = evm.client()
    nonce = client.nonce(evm.deployer.address)
    raw, tx_hash = transfer(evm, nonce)
    client.wait_for_receipt(client.send_raw(raw))
    other, other_hash = transfer(evm, nonce, data=b"\1")
    with pytest.raises(ChainRefused, match="nonce"):
        client.send_raw(other)
    assert not client.is_known(other_hash)
    assert client.is_known(tx_hash)


@pytest.mark.parametrize("raw", [b"", b"\x00", b"\xc0", b"\xff" * 100, b"\x02\xc0"])
def test_garbage_is_refused(evm: ChainFixture, raw: bytes) -> None:
    with pytest.raises(ChainRefused):
        evm.client().send_raw(raw)


def test_finality_counts_blocks_and_wants_the_right_one(evm: ChainFixture) -> None:
    client = evm.client(finality_depth=1)
    raw, tx_hash = transfer(evm, client.nonce(evm.deployer.address))
    client.send_raw(raw)
    mined = client.wait_for_receipt(tx_hash)
    deep = evm.client(finality_depth=3)
    assert client.is_final(mined.block_number, mined.block_hash)
    assert not client.is_final(mined.block_number, b"\1" * 32)
    assert not client.is_final(mined.block_number + 1, mined.block_hash)
    # Two blocks more make it final: asked between two looks at the height, for chains that make
    # blocks by the clock too.
    answers = []
    for _ in range(3):
        before = client.block_number() >= mined.block_number + 2
        answers.append(deep.is_final(mined.block_number, mined.block_hash))
        after = client.block_number() >= mined.block_number + 2
        assert before <= answers[-1] <= after
        send(client, evm.deployer, {"to": evm.deployer.address})
    assert (answers[0], answers[2]) == (False, True)


def test_a_mined_revert_is_told_with_its_name(evm: ChainFixture) -> None:
    client = evm.client()
    registry = client.contract(MEMBER_REGISTRY, evm.member_registry)
    data = registry.encode_abi("revoke", args=[b"nobody".ljust(32, b"\0")])
    raw, tx_hash = transfer(
        evm, client.nonce(evm.deployer.address), to=registry.address, data=data, gas=200_000
    )
    client.send_raw(raw)
    receipt = client.wait_for_receipt(tx_hash)
    assert not receipt.ok
    refused = client.revert_of(tx_hash)
    assert refused.reason == "UnknownMember"
    assert refused.arguments == {"memberId": b"nobody".ljust(32, b"\0")}


def test_estimates_are_enough_and_refusals_are_named(evm: ChainFixture) -> None:
    client = evm.client()
    registry = client.contract(MEMBER_REGISTRY, evm.member_registry)
    unknown = b"nobody".ljust(32, b"\0")
    call = {"to": registry.address, "data": registry.encode_abi("revoke", args=[unknown])}
    with pytest.raises(ChainReverted, match="UnknownMember"):
        client.estimate_gas({"from": evm.deployer.address, **call})
    with pytest.raises(ChainReverted, match="NotGovernance"):
        client.estimate_gas({"from": NOBODY, **call})
    plain = {"from": evm.deployer.address, "to": NOBODY}
    assert 21_000 <= client.estimate_gas(plain) <= 25_000
    owner = bytes.fromhex(evm.deployer.address[2:])
    code = artifact(MEMBER_REGISTRY).bytecode + owner.rjust(32, b"\0")
    estimate = client.estimate_gas({"from": evm.deployer.address, "data": "0x" + code.hex()})
    raw, tx_hash = transfer(
        evm, client.nonce(evm.deployer.address), to=b"", data=code, gas=estimate
    )
    client.send_raw(raw)
    receipt = client.wait_for_receipt(tx_hash)
    assert receipt.ok
    assert receipt.gas_used <= estimate <= receipt.gas_used * 1.2


def test_calls_cost_nothing_even_if_the_caller_owns_nothing(evm: ChainFixture) -> None:
    poor = LocalSigner(secrets.token_bytes(32)).address
    client = evm.client()
    contract = client.contract(MEMBER_REGISTRY, evm.member_registry)
    assert client.read(contract.functions.memberCount(), sender=poor) >= 0
    data = contract.encode_abi("memberCount")
    assert client.estimate_gas({"from": poor, "to": contract.address, "data": data}) > 21_000


def test_the_past_can_be_read(evm: ChainFixture) -> None:
    client = evm.client()
    contract = client.contract(MEMBER_REGISTRY, evm.member_registry)
    before = client.block_number()
    count = client.read(contract.functions.memberCount())
    evm.add_member(f"past-{secrets.token_hex(4)}")
    assert client.read(contract.functions.memberCount()) == count + 1
    assert client.read(contract.functions.memberCount(), before) == count


def test_events_come_in_order_from_bounded_ranges(
    evm: ChainFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = evm.client()
    start = client.block_number() + 1
    ids = [f"range-{secrets.token_hex(4)}" for _ in range(5)]
    for member_id in ids:
        evm.add_member(member_id)
    end = client.block_number()
    whole = list(client.logs(evm.member_registry, start, end))
    assert [log.topics[1].rstrip(b"\0").decode() for log in whole] == ids
    assert [log.block_number for log in whole] == sorted(log.block_number for log in whole)
    monkeypatch.setattr("nodes.chain.client.LOG_RANGE", 2)
    assert list(client.logs(evm.member_registry, start, end)) == whole
    one = list(client.logs(evm.member_registry, start, end, [None, whole[3].topics[1]]))
    assert one == [whole[3]]
    assert list(client.logs(evm.anchor_registry, start, end)) == []
    assert list(client.logs(evm.member_registry, end + 1, end)) == []


def test_the_deployment_is_checked(evm: ChainFixture) -> None:
    from nodes.chain.deploy import Addresses

    client = evm.client()
    addresses = Addresses(evm.member_registry, evm.anchor_registry)
    check_deployment(client, addresses)
    assert client.code_hash(evm.anchor_registry) == keccak(client.code(evm.anchor_registry))
    assert client.code_hash(NOBODY) == keccak(b"")
    for wrong in (
        Addresses(evm.anchor_registry, evm.member_registry),
        Addresses(evm.member_registry, NOBODY),
        Addresses(deploy(client, evm.deployer).member_registry, evm.anchor_registry),
    ):
        with pytest.raises(WrongChain):
            check_deployment(client, wrong)


def test_a_call_into_nothing_is_the_wrong_chain(evm: ChainFixture) -> None:
    client = evm.client()
    contract = client.contract(ANCHOR_REGISTRY, NOBODY)
    with pytest.raises(WrongChain):
        client.read(contract.functions.members())


def test_blocks_look_like_proof_of_authority(embedded: ChainFixture) -> None:
    plain = Web3(HTTPProvider(embedded.rpc_url))
    with pytest.raises(ExtraDataLengthError):
        plain.eth.get_block("latest")
    assert embedded.client().block().number > 0


class TestAnOutage:
    def test_nobody_listens(self) -> None:
        client = ChainClient("http://127.0.0.1:9", timeout_s=1)
        for ask in (client.chain_id, client.block_number, client.genesis_hash):
            with pytest.raises(ChainUnavailable):
                ask()
        with pytest.raises(ChainUnavailable):
            client.send_raw(b"\1")

    @pytest.fixture
    def nonsense(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """A server that answers whatever it is told to."""
        answer: dict[str, Any] = {"status": 200, "body": b""}

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                self.send_response(answer["status"])
                self.end_headers()
                self.wfile.write(answer["body"])

            def log_message(self, *args: object) -> None:
                pass

        server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", answer
        server.shutdown()
        thread.join()
        server.server_close()

    @pytest.mark.parametrize(
        ("status", "body"),
        [
            (200, b""),
            (200, b"<html>"),
            (200, b"{}"),
            (200, b"[]"),
            (200, b'{"jsonrpc": "2.0", "id": 0, "result": {"number": "0x1"}}'),
            (500, b"oops"),
            (503, b""),
        ],
    )
    def test_the_answer_makes_no_sense(
        self, nonsense: tuple[str, dict[str, Any]], status: int, body: bytes
    ) -> None:
        url, answer = nonsense
        answer.update(status=status, body=body)
        with pytest.raises(ChainUnavailable):
            ChainClient(url, timeout_s=2).block()
