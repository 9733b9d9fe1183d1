"""A real gateway on free ports, in front of a stub node, for the length of a test."""

from __future__ import annotations

import asyncio
import io
import logging
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import structlog
import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway import logs
from gateway.app import Gateway
from gateway.settings import GatewaySettings
from gateway.terminal_keys.ring import MASTER_KEY, ZONE_KEY, tmk_name
from nodes.crypto.http_signatures import MessageSigner
from nodes.crypto.keystore import Keystore
from sandbox.terminal import Terminal
from tests.factories.pos import MERCHANT, secret, tmk
from tests.integration.gateway.stub_node import StubNode

GATEWAY_SEED = bytes(range(32, 64))
#: Of a node that is never reached.
NODE_KEY = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw()
TERMINALS = ("POS00001", "POS00002", "POS00003")


def keystore() -> Keystore:
    """The gateway's secrets, in memory."""
    values = {name: secret(name) for name in (MASTER_KEY, ZONE_KEY)}
    values |= {tmk_name(name): tmk(name) for name in TERMINALS}
    return Keystore({**values, "message": GATEWAY_SEED}, "memory")


def document(node_url: str, node_key: bytes, **changes: Any) -> dict[str, Any]:
    """The gateway's settings as its JSON file has them."""
    return {
        "port": 0,
        "http_port": 0,
        "acquirer": "meridian",
        "node_url": node_url,
        "node_message_key": node_key.hex(),
        "key_id": "gateway:test",
        "key_file": "gateway.keystore",
        "passphrase_file": "gateway.passphrase",
        "terminals": [
            {"terminal_id": name, "merchant_id": MERCHANT, "static_keys": True}
            for name in TERMINALS
        ],
        **changes,
    }


@dataclass
class Running:
    """A gateway under test with its node and everything that was logged or went wrong."""

    gateway: Gateway
    node: StubNode
    log: io.StringIO
    faults: list[dict[str, Any]] = field(default_factory=list)

    def terminal(self, terminal_id: str = "POS00001", **options: Any) -> Terminal:
        options.setdefault("timeout_s", 5.0)
        return Terminal(
            terminal_id, MERCHANT, tmk(terminal_id), "127.0.0.1", self.gateway.pos_port, **options
        )

    async def raw(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.gateway.pos_port)

    async def get(self, path: str) -> tuple[int, str]:
        url = f"http://127.0.0.1:{self.gateway.http_port}{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return response.status, await response.text()

    async def metric(self, name: str, **labels: str) -> float:
        """A figure as GET /metrics shows it; 0 if it isn't there."""
        _, text = await self.get("/metrics")
        inner = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
        line = f"countersign_gateway_{name}" + (f"{{{inner}}}" if inner else "")
        found = re.search(rf"^{re.escape(line)} ([0-9.e+]+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0


@asynccontextmanager
async def running(**changes: Any) -> AsyncIterator[Running]:
    """Start node and gateway; at the end nothing may have gone wrong unseen."""
    node = StubNode(MessageSigner("gateway:test", GATEWAY_SEED).public_key)
    await node.start()
    settings = GatewaySettings.model_validate(
        document(f"http://127.0.0.1:{node.port}", node.public_key, **changes)
    )
    log = io.StringIO()
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    logs.configure("debug", log)
    gateway = Gateway(settings, keystore())
    run = Running(gateway, node, log)
    asyncio.get_running_loop().set_exception_handler(lambda _, fault: run.faults.append(fault))
    await gateway.start()
    try:
        yield run
    except BaseException:
        sys.stderr.write(f"{log.getvalue()}\n{run.faults}\n")  # pytest shows it with a failure
        raise
    finally:
        await gateway.close()
        await node.stop()
        structlog.reset_defaults()
        logging.getLogger().handlers[:] = handlers
        logging.getLogger().setLevel(level)
    assert run.faults == []
    assert "frame_failed" not in log.getvalue()
    assert "node_call_failed" not in log.getvalue()
    assert "answer_failed" not in log.getvalue()


def play(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run a scenario as the gateway runs: on uvloop."""

    async def bounded() -> None:
        async with asyncio.timeout(60):
            await scenario()

    uvloop.run(bounded())


def write_files(folder: Path, values: dict[str, bytes], passphrase: str) -> dict[str, str]:
    """A keystore and its passphrase as files; the settings that name them."""
    key_file, passphrase_file = folder / "gateway.keystore", folder / "gateway.passphrase"
    Keystore.create(key_file, passphrase, values)
    passphrase_file.write_text(passphrase)
    return {"key_file": str(key_file), "passphrase_file": str(passphrase_file)}
