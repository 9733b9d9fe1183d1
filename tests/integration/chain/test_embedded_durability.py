"""The embedded chain forgets nothing that it gave a receipt for: real processes, kill -9."""

from __future__ import annotations

import itertools
import secrets
import shutil
import sqlite3
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from eth_keys.datatypes import PrivateKey

from nodes.chain.client import ChainClient, Receipt
from nodes.chain.deploy import Addresses, check_deployment, send
from nodes.chain.embedded import evm
from nodes.chain.embedded.__main__ import DATABASE, main
from nodes.chain.embedded.engine import Engine
from nodes.chain.embedded.genesis import create_genesis, load_genesis
from nodes.chain.embedded.store import BlockRow, ChainStore
from nodes.chain.errors import ChainError
from nodes.chain.signer import LocalSigner
from tests.factories.chain import start_chain, start_process

KILLS = 4
GOVERNANCE = "0x" + "11" * 20


@dataclass
class Sender:
    """A member's operator that sends without pause through its own client, again and again the
    same bytes until it holds a receipt: as nodes do."""

    url: str
    chain_id: int
    signer: LocalSigner
    receipts: list[Receipt] = field(default_factory=list)

    def run(self, stop: threading.Event) -> None:
        client = ChainClient(self.url, timeout_s=2)
        for nonce in itertools.count():
            if stop.is_set():
                return
            self.receipts.append(self._send(client, nonce))

    def _send(self, client: ChainClient, nonce: int) -> Receipt:
        raw, tx_hash = self.signer.sign_transaction(
            {
                "to": self.signer.address,
                "value": 0,
                "data": nonce.to_bytes(4, "big"),
                "gas": 30_000,
                "gasPrice": 0,
                "chainId": self.chain_id,
                "nonce": nonce,
            }
        )
        while True:
            try:
                client.send_raw(raw)
                for _ in range(100):
                    if (receipt := client.receipt(tx_hash)) is not None:
                        return receipt
                    time.sleep(0.01)
            except ChainError:
                time.sleep(0.02)


def test_kill_9_under_load_loses_no_block_that_was_seen(tmp_path: Path) -> None:
    chain = start_chain(tmp_path)
    assert chain.process is not None
    senders = [
        Sender(chain.rpc_url, chain.chain_id, chain.add_member(f"member-{number}"))
        for number in range(3)
    ]
    stop = threading.Event()
    with ThreadPoolExecutor(len(senders)) as threads:
        running = [threads.submit(sender.run, stop) for sender in senders]
        try:
            for _ in range(KILLS):
                time.sleep(0.3 + secrets.randbelow(400) / 1_000)
                chain.process.kill()
                chain.process.start()
            time.sleep(0.3)
        finally:
            stop.set()
        for future in running:
            future.result()
    client = chain.client()
    try:
        for sender in senders:
            assert len(sender.receipts) > KILLS
            assert client.nonce(sender.signer.address) == len(sender.receipts)
            for receipt in sender.receipts:
                assert client.receipt(receipt.tx_hash) == receipt
        blocks = [client.block(number) for number in range(client.block_number() + 1)]
        for parent, child in itertools.pairwise(blocks):
            assert child.parent_hash == parent.hash
        check_deployment(client, Addresses(chain.member_registry, chain.anchor_registry))
    finally:
        chain.stop()


def test_a_restart_continues_the_same_chain(tmp_path: Path) -> None:
    chain = start_chain(tmp_path)
    assert chain.process is not None
    chain.add_member("aurora", roles=["issuer"], bins=["62230010"])
    client = chain.client()
    genesis, head = client.genesis_hash(), client.block()
    for end in (chain.process.stop, chain.process.kill):
        end()
        chain.process.start()
        assert (client.genesis_hash(), client.block()) == (genesis, head)
    chain.add_member("borealis", roles=["issuer"], bins=["622400"])
    assert client.block().parent_hash == head.hash
    chain.stop()


def test_sigterm_ends_in_an_orderly_return(tmp_path: Path) -> None:
    chain = start_chain(tmp_path)
    assert chain.process is not None
    process = chain.process._process
    assert process is not None
    chain.process.stop()
    assert process.returncode == 0
    # What was in the write-ahead log is in the file.
    assert not (tmp_path / "chain.sqlite-wal").exists()


def test_every_block_is_whole_and_sealed(tmp_path: Path) -> None:
    """The file, read without the engine: hashes, parents, seals and roots, recomputed."""
    chain = start_chain(tmp_path)
    for number in range(3):
        chain.add_member(f"member-{number}")
    send(chain.client(), chain.deployer, {"to": chain.deployer.address})
    chain.stop()
    genesis = load_genesis(tmp_path / "genesis.json")
    store = ChainStore(tmp_path / "chain.sqlite")
    newest = store.head()
    assert newest is not None
    assert newest.number == 9
    parent = None
    for number in range(newest.number + 1):
        row = store.block(number)
        assert row is not None
        header = evm.decode_header(row.header)
        assert header.hash == row.hash
        assert header.state_root in store.state or number == 0
        if parent is not None:
            assert header.parent_hash == parent.hash
            assert evm.sealer_of(header) == genesis.sealer
            raws = [transaction.raw for transaction in store.transactions(number)]
            assert header.transaction_root == evm.list_root(raws)
        parent = header
    store.close()


class TestRefusalToStart:
    """Status 1 and a line in the log that says why."""

    @pytest.fixture
    def genesis(self, tmp_path: Path) -> Path:
        """The genesis file of a chain of three blocks, in a directory of its own."""
        path = create_genesis(tmp_path / "one", chain_id=5, governance=GOVERNANCE)
        engine = Engine(load_genesis(path), path.parent / DATABASE)
        for _ in range(3):
            engine.seal(empty=True)
        engine.close()
        return path

    def start(self, genesis: Path, data: Path | None = None, host: str = "127.0.0.1") -> int:
        where = ["--data", str(data or genesis.parent), "--genesis", str(genesis)]
        return main([*where, "--host", host, "--port", "0"])

    def test_a_second_process_on_the_same_data(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        process = start_process(tmp_path, GOVERNANCE)
        assert self.start(process.genesis) == 1
        assert "another chain running" in caplog.text
        assert ChainClient(process.rpc_url).block_number() == 0
        process.stop()

    def test_the_data_of_another_genesis(
        self, genesis: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        other = create_genesis(tmp_path / "two", chain_id=5, governance=GOVERNANCE)
        assert self.start(other, data=genesis.parent) == 1
        assert "another genesis" in caplog.text

    def test_a_key_that_is_not_the_sealers(
        self, genesis: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        other = create_genesis(tmp_path / "two", chain_id=5, governance=GOVERNANCE)
        shutil.copy(other.parent / "sealer.key", genesis.parent / "sealer.key")
        assert self.start(genesis) == 1
        assert "another address's key" in caplog.text

    @pytest.mark.parametrize("column", ["hash", "header"])
    def test_a_damaged_last_block(
        self, genesis: Path, column: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        with sqlite3.connect(genesis.parent / DATABASE) as database:
            # The header of block 2 in block 3's place is whole, and not the one of that hash.
            value = "x'00'" if column == "hash" else "(SELECT header FROM blocks WHERE number = 2)"
            database.execute(f"UPDATE blocks SET {column} = {value} WHERE number = 3")
        database.close()
        assert self.start(genesis) == 1
        assert "block 3 is damaged" in caplog.text

    def test_a_last_block_that_somebody_else_sealed(
        self, genesis: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        store = ChainStore(genesis.parent / DATABASE)
        newest = store.head()
        assert newest is not None
        header = evm.next_header(evm.decode_header(newest.header), int(time.time()))
        foreign = evm.seal(header, PrivateKey(secrets.token_bytes(32)))
        store.commit(BlockRow(4, foreign.hash, evm.encode_header(foreign), 0))
        store.close()
        assert self.start(genesis) == 1
        assert "sealed by somebody else" in caplog.text

    def test_an_address_that_is_not_loopback(
        self, genesis: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert self.start(genesis, host="0.0.0.0") == 1
        assert "loopback" in caplog.text


def test_the_sealers_key_is_for_its_owner_alone(tmp_path: Path) -> None:
    create_genesis(tmp_path, chain_id=5, governance=GOVERNANCE)
    assert (tmp_path / "sealer.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(sys.platform != "linux", reason="reads CPU time from /proc")
def test_start_up_takes_little_cpu(tmp_path: Path) -> None:
    chain = start_chain(tmp_path)
    assert chain.process is not None
    chain.process.kill()
    chain.process.start()
    with open(f"/proc/{chain.process.pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rpartition(")")[2].split()
    chain.stop()
    ticks = int(fields[11]) + int(fields[12])
    assert ticks / 100 < 2.0


def test_empty_blocks_come_by_heartbeat_alone(tmp_path: Path) -> None:
    silent = start_process(tmp_path / "silent", GOVERNANCE, heartbeat_s=0.0)
    beating = start_process(tmp_path / "beating", GOVERNANCE, heartbeat_s=0.2)
    client = ChainClient(beating.rpc_url)
    deadline = time.monotonic() + 20
    while client.block_number() < 3:
        assert time.monotonic() < deadline, "no empty blocks came"
        time.sleep(0.05)
    # Meanwhile the other chain could have beaten as often.
    assert ChainClient(silent.rpc_url).block_number() == 0
    silent.stop()
    beating.stop()
