"""Chains for tests: the embedded one in a process of its own, with the contracts deployed.

fixture = start_chain(tmp_path)
...
fixture.stop()
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from nodes.chain.client import ChainClient
from nodes.chain.deploy import Addresses, Terms, deploy, register_member
from nodes.chain.embedded.genesis import create_genesis
from nodes.chain.errors import ChainError
from nodes.chain.signer import LocalSigner

CHAIN_ID = 20_266
EVM_RPC_URL = os.environ.get("EVM_RPC_URL", "")
# Chains with lists of permitted accounts or with priced gas need an account that has both.
EVM_DEPLOYER_KEY = os.environ.get("EVM_DEPLOYER_KEY", "")
# Chains whose newest block may be undone: how many make a transaction count, its own included.
EVM_FINALITY_DEPTH = int(os.environ.get("EVM_FINALITY_DEPTH", "1"))

ENGINES = [
    pytest.param("embedded"),
    pytest.param(
        "second",
        marks=[
            pytest.mark.evm,
            pytest.mark.skipif(not EVM_RPC_URL, reason="EVM_RPC_URL names no second EVM engine"),
        ],
    ),
]
_LISTENING = re.compile(r"listening on http://127\.0\.0\.1:(\d+)")


def ed25519_public(seed: bytes | None = None) -> bytes:
    """The public key of a seed; of a random one if none is given."""
    key = Ed25519PrivateKey.from_private_bytes(seed or secrets.token_bytes(32))
    return key.public_key().public_bytes_raw()


@dataclass
class ChainProcess:
    """An embedded chain in its own process; `start` again after `kill` to see what survived."""

    directory: Path
    genesis: Path
    port: int = 0
    heartbeat_s: float = 0.0
    _process: subprocess.Popen[bytes] | None = None

    @property
    def rpc_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, timeout_s: float = 30.0) -> None:
        """Starts the process, on the port that it had, and waits until it answers."""
        log_path = self.directory / "chain.log"
        position = log_path.stat().st_size if log_path.exists() else 0
        command = [
            *(sys.executable, "-m", "nodes.chain.embedded"),
            *("--data", str(self.directory), "--genesis", str(self.genesis)),
            *("--port", str(self.port), "--heartbeat", str(self.heartbeat_s)),
        ]
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + timeout_s
        while True:
            said = log_path.read_bytes()[position:].decode()
            if found := _LISTENING.search(said):
                self.port = int(found[1])
                break
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the chain does not start:\n{said}")
            time.sleep(0.02)
        client = ChainClient(self.rpc_url)
        while True:
            try:
                client.chain_id()
            except ChainError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM; returns when the process has ended."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(20)
            self._process = None


@dataclass
class ChainFixture:
    """A chain with the contracts deployed; `deployer` is governance."""

    rpc_url: str
    chain_id: int
    deployer: LocalSigner
    member_registry: str
    anchor_registry: str
    close_registry: str = ""
    settlement_registry: str = ""
    omission_registry: str = ""
    process: ChainProcess | None = None
    finality_depth: int = 1
    operators: dict[str, LocalSigner] = field(default_factory=dict)

    def client(self, *, finality_depth: int = 0, timeout_s: float = 5.0) -> ChainClient:
        """A client of its own; of the chain's finality unless another is told."""
        depth = finality_depth or self.finality_depth
        return ChainClient(self.rpc_url, finality_depth=depth, timeout_s=timeout_s)

    def add_member(
        self,
        member_id: str,
        *,
        roles: Collection[str] = ("acquirer",),
        bins: Sequence[str] = (),
        name: str = "",
        api_url: str = "http://127.0.0.1:9",
        operator: LocalSigner | None = None,
        note_key: bytes | None = None,
        message_key: bytes | None = None,
    ) -> LocalSigner:
        """Registers a member, with fresh keys where none are given; returns its operator. Ids,
        BINs, operators and keys may be used once a chain."""
        signer = operator or LocalSigner(secrets.token_bytes(32))
        register_member(
            self.client(),
            self.deployer,
            self.member_registry,
            member_id=member_id,
            name=name or member_id.capitalize(),
            roles=roles,
            api_url=api_url,
            bins=bins,
            operator=signer.address,
            note_key=note_key or ed25519_public(),
            message_key=message_key or ed25519_public(),
        )
        self.operators[member_id] = signer
        return signer

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()


def start_process(
    directory: Path, governance: str, *, chain_id: int = CHAIN_ID, heartbeat_s: float = 0.0
) -> ChainProcess:
    """Starts an embedded chain without contracts, its data in `directory`."""
    genesis = create_genesis(directory, chain_id=chain_id, governance=governance)
    process = ChainProcess(directory, genesis, heartbeat_s=heartbeat_s)
    process.start()
    return process


def start_chain(tmp: Path, *, chain_id: int = CHAIN_ID, terms: Terms | None = None) -> ChainFixture:
    """Starts an embedded chain in `tmp` and deploys the contracts. Call `.stop()` at the end."""
    deployer = LocalSigner(secrets.token_bytes(32))
    process = start_process(tmp, deployer.address, chain_id=chain_id)
    try:
        return deploy_on(process.rpc_url, deployer, process, terms=terms)
    except BaseException:
        process.stop()
        raise


def deploy_on(
    rpc_url: str,
    deployer: LocalSigner,
    process: ChainProcess | None = None,
    *,
    terms: Terms | None = None,
    finality_depth: int = 1,
) -> ChainFixture:
    """Deploys the contracts on whatever EVM chain answers at a URL."""
    client = ChainClient(rpc_url, finality_depth=finality_depth)
    addresses: Addresses = deploy(client, deployer, terms=terms)
    return ChainFixture(
        rpc_url=rpc_url,
        chain_id=client.chain_id(),
        deployer=deployer,
        member_registry=addresses.member_registry,
        anchor_registry=addresses.anchor_registry,
        close_registry=addresses.close_registry or "",
        settlement_registry=addresses.settlement_registry or "",
        omission_registry=addresses.omission_registry or "",
        process=process,
        finality_depth=finality_depth,
    )


def open_engine(name: str, tmp: Path, *, terms: Terms | None = None) -> ChainFixture:
    """The contracts, freshly deployed on one of `ENGINES`."""
    if name == "embedded":
        return start_chain(tmp, terms=terms)
    key = EVM_DEPLOYER_KEY.removeprefix("0x")
    deployer = LocalSigner(bytes.fromhex(key) if key else secrets.token_bytes(32))
    return deploy_on(EVM_RPC_URL, deployer, terms=terms, finality_depth=EVM_FINALITY_DEPTH)
