"""What the gateway itself costs: processor time a message and a sign-on, without the ledger.

A real gateway process between terminals' sockets and a node that approves at once, over real HTTP
with signatures. The node's and the terminals' processor time isn't the gateway's and isn't counted.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from aiohttp import web
from rich.console import Console
from rich.table import Table

from gateway.iso8583 import codec
from gateway.iso8583.codec import Message
from gateway.iso8583.dialect import BCD_TPDU
from gateway.iso8583.spec import Suite
from gateway.pos.framing import LENGTH_BYTES, parse_header
from gateway.terminal_keys.model import KeyManagement
from gateway.terminal_keys.ring import MASTER_KEY
from nodes.authorization.model import Outcome, TerminalAnswer, TerminalAnswers, TerminalBatch
from nodes.crypto.hsm import SoftwareHsm
from nodes.crypto.http_signatures import MessageMac, MessageSigner, parse_head
from nodes.crypto.keystore import Keystore
from nodes.crypto.pan import random_pan
from sandbox.bench.cpu import cpu_seconds
from sandbox.bench.figures import percentile
from sandbox.enrolled import MERCHANT, Enrolled, enrolled, ways
from sandbox.postgres import HOST, die_with_parent, free_port
from sandbox.terminal import PURCHASE, SIGN_ON, Card, Terminal

#: Bounds of issue 5: microseconds a message, milliseconds a sign-on, sign-ons a second.
MESSAGE_US, SIGN_ON_MS, SIGN_ONS_S = 250.0, 5.0, 200.0
_LINKS, _WINDOW = 8, 16
_SPARES = 16
_PIN = "123456"
_GATEWAY = "gateway:bench"


def run_gateway_bench(directory: Path, output: Path, *, messages: int, sign_ons: int) -> int:
    """Measure every way of keys; 0 if all bounds hold, else 1."""
    console = Console(highlight=False)
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True, mode=0o700)
    try:
        with _Setup(directory) as setup:
            figures = uvloop.run(_measure(setup, messages, sign_ons))
    finally:
        shutil.rmtree(directory)
    held = all(figure["held"] for figure in figures.values())
    document = {
        "bounds": {"message_us": MESSAGE_US, "sign_on_ms": SIGN_ON_MS, "sign_ons_s": SIGN_ONS_S},
        "load_average": round(os.getloadavg()[0], 1),
        "messages": messages,
        "sign_ons": sign_ons,
        "ways": figures,
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(document, indent=1) + "\n")
    console.print(_table(figures))
    console.print(f"Written to {output}")
    return 0 if held else 1


class _Setup:
    """The node that approves, and the gateway before it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = 0
        self.pid = 0
        self.terminals: dict[str, list[Enrolled]] = {}

    def __enter__(self) -> _Setup:
        seeds = {name: secrets.token_bytes(32) for name in ("node", "message")}
        context = multiprocessing.get_context("spawn")
        mine, theirs = context.Pipe()
        gateway = MessageSigner(_GATEWAY, seeds["message"]).public_key
        orders = (seeds["node"], gateway, theirs)
        self._node = context.Process(target=_approve_all, args=orders, daemon=True)
        self._node.start()
        values = {"message": seeds["message"]}
        values |= {name: secrets.token_bytes(16) for name in (MASTER_KEY, "zone")}
        hsm = SoftwareHsm({MASTER_KEY: values[MASTER_KEY]})
        made = [enrolled(hsm, number, *way) for number, way in enumerate(ways() * _SPARES)]
        for one in made:
            self.terminals.setdefault(_name(*one.way), []).append(one)
        Keystore.create(self.directory / "keystore", "bench", values)
        (self.directory / "passphrase").write_text("bench")
        self.port = free_port()
        settings = {
            "port": self.port,
            "http_port": free_port(),
            "acquirer": "meridian",
            "node_url": f"http://{HOST}:{mine.recv()}",
            "node_message_key": MessageSigner("meridian", seeds["node"]).public_key.hex(),
            "key_id": _GATEWAY,
            "key_file": str(self.directory / "keystore"),
            "passphrase_file": str(self.directory / "passphrase"),
            "terminals": [one.settings() for one in made],
        }
        config = self.directory / "gateway.json"
        config.write_text(json.dumps(settings))
        with (self.directory / "gateway.log").open("wb") as log:
            self._gateway = subprocess.Popen(
                [sys.executable, "-m", "gateway", "--config", str(config)],
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent(15),
            )
        self.pid = self._gateway.pid
        return self

    def __exit__(self, *_: object) -> None:
        self._gateway.terminate()
        self._gateway.wait(30)
        self._node.terminate()
        self._node.join(10)


def _name(suite: Suite, management: KeyManagement) -> str:
    return f"{suite.name}, {management.value}"


def _approve_all(seed: bytes, gateway: bytes, port: Connection) -> None:
    """The node: whatever is asked is approved, at once, and signed as a node does it."""
    signer = MessageMac("meridian", seed, gateway)

    async def terminal_requests(request: web.Request) -> web.StreamResponse:
        batch = msgspec.json.decode(await request.read(), type=TerminalBatch)
        answers = [
            TerminalAnswer(
                outcome=Outcome.APPROVED,
                rrn=item.stan.zfill(12),
                approval_code=item.stan,
                amount=item.amount,
                currency=item.currency,
            )
            for item in batch.requests
        ]
        body = msgspec.json.encode(TerminalAnswers(answers))
        head = parse_head(request.headers["Signature-Input"], request.headers["Signature"])
        fields = signer.sign_answer(200, body, int(time.time()), head)
        return web.Response(body=body, headers={**fields, "Content-Type": "application/json"})

    async def serve() -> None:
        app = web.Application(client_max_size=1 << 22)
        app.router.add_post("/v1/terminal-requests", terminal_requests)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, HOST, 0).start()
        port.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    uvloop.run(serve())


@dataclass
class _Link:
    """A connection on which frames are sent ahead of their answers."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    answers: list[bytes] = field(default_factory=list)

    def check(self) -> None:
        """RuntimeError unless every answer was an approval: refusals cost little."""
        for content in self.answers:
            suite = parse_header(content, BCD_TPDU).suite
            code = codec.decode(content[BCD_TPDU.message_start :], suite).text.get(39)
            if code != "00":
                raise RuntimeError(f"the gateway answered {code}: the measurement is void")

    async def play(self, frames: list[bytes], window: int) -> list[float]:
        """Send all, at most `window` ahead; the seconds that each answer took."""
        free = asyncio.Semaphore(window)
        sent: list[float] = []
        took: list[float] = []

        async def read() -> None:
            for place in range(len(frames)):
                prefix = await self.reader.readexactly(LENGTH_BYTES)
                content = await self.reader.readexactly(int.from_bytes(prefix, "big"))
                self.answers.append(content)
                took.append(time.perf_counter() - sent[place])
                free.release()

        reading = asyncio.create_task(read())
        for frame in frames:
            await free.acquire()
            sent.append(time.perf_counter())
            self.writer.write(frame)
        await reading
        return took


async def _measure(setup: _Setup, messages: int, sign_ons: int) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for name, known in setup.terminals.items():
        terminals = [_terminal(setup, one) for one in known]
        await _started(terminals[0])
        figure: dict[str, Any] = {}
        if terminals[0].module.signs_on:
            figure |= await _sign_ons(setup, terminals, sign_ons)
        for terminal in terminals:
            await terminal.connect()
            if terminal.module.signs_on:
                await terminal.sign_on()
        figure |= await _messages(setup, terminals, messages)
        for terminal in terminals:
            await terminal.close()
        figure["held"] = (
            figure["message_us"] <= MESSAGE_US
            and figure.get("sign_on_ms", 0.0) <= SIGN_ON_MS
            and figure.get("sign_ons_s", SIGN_ONS_S) >= SIGN_ONS_S
        )
        figures[name] = figure
    return figures


def _terminal(setup: _Setup, one: Enrolled) -> Terminal:
    return Terminal(
        one.record.terminal_id, MERCHANT, b"", HOST, setup.port, keys=one.keys, dialect=BCD_TPDU
    )


async def _started(terminal: Terminal) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            await terminal.connect()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)


async def _messages(setup: _Setup, terminals: list[Terminal], count: int) -> dict[str, float]:
    """Purchases with a PIN, sealed beforehand; the gateway's processor time for each."""
    card = Card(random_pan("622300"), "3112", "201")
    turns = _turns(terminals)
    frames = []
    for amount in range(100, 100 + count):
        terminal = next(turns)
        frames.append(terminal.seal(terminal.request("0200", PURCHASE, card, amount, _PIN)))
    took, used, seconds = await _played(setup, frames, _WINDOW)
    return {
        "message_us": round(used / len(took) * 1e6, 1),
        "messages_s": round(len(took) / seconds, 1),
    }


async def _sign_ons(setup: _Setup, terminals: list[Terminal], count: int) -> dict[str, float]:
    """Sign-ons, sealed beforehand: first one after the other, then on all links together."""
    turns = _turns(terminals)
    frames = [_sign_on(next(turns), number) for number in range(1, 2 * count + 1)]
    link = _Link(*await asyncio.open_connection(HOST, setup.port))
    alone = await link.play(frames[:count], 1)
    link.writer.close()
    link.check()
    _, used, seconds = await _played(setup, frames[count:], 4)
    return {
        "sign_on_ms": round(percentile(alone, 0.5) * 1000, 2),
        "sign_on_p99_ms": round(percentile(alone, 0.99) * 1000, 2),
        "sign_on_cpu_ms": round(used / count * 1000, 3),
        "sign_ons_s": round(count / seconds, 1),
    }


async def _played(
    setup: _Setup, frames: list[bytes], window: int
) -> tuple[list[float], float, float]:
    """Frames on all links together: seconds of each, the gateway's processor time, seconds."""
    links = [_Link(*await asyncio.open_connection(HOST, setup.port)) for _ in range(_LINKS)]
    used, began = cpu_seconds(setup.pid), time.perf_counter()
    took = await asyncio.gather(
        *(link.play(frames[start::_LINKS], window) for start, link in enumerate(links))
    )
    seconds = time.perf_counter() - began
    used = cpu_seconds(setup.pid) - used
    for link in links:
        link.writer.close()
        link.check()
    return [one for each in took for one in each], used, seconds


def _sign_on(terminal: Terminal, number: int) -> bytes:
    text = {
        3: SIGN_ON,
        7: f"{datetime.now(UTC):%m%d%H%M%S}",
        11: f"{number % 1_000_000:06d}",
        41: terminal.terminal_id,
        42: terminal.merchant_id,
    }
    message = Message("0800", text)
    message.binary[62] = terminal.module.sign_on(text[11])
    return terminal.seal(message, epoch=0)


def _turns(terminals: list[Terminal]) -> Iterator[Terminal]:
    while True:
        yield from terminals


def _table(figures: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("keys", "us a message", "sign-on ms", "p99", "CPU ms", "sign-ons/s", ""):
        table.add_column(column, justify="left" if column == "keys" else "right")
    for name, figure in figures.items():
        names = ("message_us", "sign_on_ms", "sign_on_p99_ms", "sign_on_cpu_ms", "sign_ons_s")
        cells = [str(figure.get(key, "")) for key in names]
        table.add_row(name, *cells, "[green]held[/]" if figure["held"] else "[red]missed[/]")
    return table
