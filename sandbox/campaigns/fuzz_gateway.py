"""The gateway under fuzz: a process of its own before the network's real nodes, in every dialect,
with an enrolled terminal for every suite and way of key management."""

from __future__ import annotations

import asyncio
import json
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from gateway.iso8583.dialect import DIALECTS, Dialect
from gateway.terminal_keys.ring import MASTER_KEY
from nodes.crypto.hsm import SoftwareHsm
from nodes.crypto.pan import random_pan
from sandbox.campaigns.fuzz_routes import OfflineCard
from sandbox.enrolled import MERCHANT, Enrolled, enrolled, ways
from sandbox.founding import NodeAdministration
from sandbox.launcher import Running
from sandbox.network import (
    ACQUIRER,
    CURRENCY,
    Card,
    MerchantPlan,
    write_json,
)
from sandbox.postgres import HOST, die_with_parent, free_port
from sandbox.terminal import Card as TerminalCard
from sandbox.terminal import Terminal

#: On each of the campaign's cards, minor units: more than it can spend.
CARD_LOAD = 10_000_000_000
#: The issuer of all of them, and what it sets aside on each that pays offline.
ISSUER = "aurora"
OFFLINE_RESERVE = 20_000
#: As long as a PIN may be: no other number in a log looks like it by accident.
PIN = "904817263554"
_START_S = 60.0


@dataclass
class Target:
    """What is fuzzed: a gateway's ports, its terminals' keys, cards, and what it logged."""

    network: Running
    ports: dict[str, int]
    http_port: int
    log: Path
    terminals: list[Enrolled]
    cards: list[Card] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None
    _batches: int = 0

    def terminal(self, number: int, dialect: Dialect, **options: Any) -> Terminal:
        """A terminal of the `number`-th record in a dialect, in a batch of its own."""
        one = self.terminals[number % len(self.terminals)]
        self._batches += 1
        return Terminal(
            one.record.terminal_id,
            MERCHANT,
            b"",
            HOST,
            self.ports[dialect.name],
            keys=one.keys,
            dialect=dialect,
            batch=f"{self._batches:06d}",
            **options,
        )

    def card(self, number: int) -> TerminalCard:
        """One of the campaign's cards as a terminal reads it."""
        return _plastic(self.cards[number % len(self.cards)])

    def offline_cards(self) -> list[OfflineCard]:
        """Cards of the issuer that may pay offline, with something set aside for it: two for each
        way of keys."""
        made = _issue(self.network, 2 * len(ways()))
        found = [OfflineCard(_plastic(card)) for card in made]
        with NodeAdministration(self.network.network.state, ISSUER) as issuer:
            for card, one in zip(made, found, strict=True):
                path = f"/v1/cards/{issuer.issue(card)}"
                issuer.post(f"{path}/offline-key", {"public_key": one.public.hex()})
                issuer.post(
                    f"{path}/offline-reserve",
                    {"amount": OFFLINE_RESERVE, "currency": card["currency"]},
                    headers={"Idempotency-Key": secrets.token_hex(8)},
                )
        return found

    def metrics(self) -> str:
        """GET /metrics."""
        return httpx.get(f"http://{HOST}:{self.http_port}/metrics", trust_env=False).text

    def alive(self) -> bool:
        """Whether the gateway's process is still there."""
        return self.process is not None and self.process.poll() is None


@contextmanager
def target(network: Running, folder: Path, *, spares: int, cards: int) -> Iterator[Target]:
    """Start the gateway. `spares`: terminals of each way; `cards`: issued and loaded ones."""
    directory = network.network.directory
    store = directory.keystore("gateway")
    hsm = SoftwareHsm({MASTER_KEY: store.secret("master")})
    terminals = [enrolled(hsm, number, *way) for number, way in enumerate(ways() * spares)]
    _register(terminals, network)
    settings = json.loads((directory.config / "gateway.json").read_text())
    others = {name: free_port() for name in DIALECTS if name != "bcd-tpdu"}
    ports = {"bcd-tpdu": free_port(), **others}
    http_port = free_port()
    settings |= {
        "port": ports["bcd-tpdu"],
        "http_port": http_port,
        "listeners": [{"port": port, "dialect": name} for name, port in others.items()],
        "terminals": [one.settings() for one in terminals],
        "max_connections": 10_000,
        "log_level": "debug",
    }
    config, log = folder / "fuzzed-gateway.json", folder / "fuzzed-gateway.log"
    write_json(config, settings)
    made = Target(network, ports, http_port, log, terminals, _issue(network, cards))
    with log.open("wb") as stream:
        made.process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "--config", str(config)],
            stdout=stream,
            stderr=stream,
            preexec_fn=die_with_parent(15),
        )
    try:
        _await_start(made)
        yield made
    finally:
        made.process.terminate()
        made.process.wait(30)


def _register(terminals: list[Enrolled], network: Running) -> None:
    plan = MerchantPlan(MERCHANT, "Fuzzed", "5411", None, ())
    with NodeAdministration(network.network.state, ACQUIRER) as acquirer:
        acquirer.post(
            "/v1/merchants",
            {
                "merchant_id": plan.merchant_id,
                "name": plan.name,
                "mcc": plan.mcc,
                "country": "CN",
                "currency": CURRENCY,
                "member_id": None,
            },
        )
        for one in terminals:
            acquirer.post(
                "/v1/terminals", {"terminal_id": one.record.terminal_id, "merchant_id": MERCHANT}
            )


def _plastic(card: Card) -> TerminalCard:
    return TerminalCard(card["pan"], card["expiry"], card["service_code"], card["currency"])


def _issue(network: Running, count: int) -> list[Card]:
    cards = [
        Card(
            pan=random_pan("62230010"),
            expiry="3112",
            service_code="201",
            pin=PIN,
            currency=CURRENCY,
            member=ISSUER,
        )
        for _ in range(count)
    ]
    with NodeAdministration(network.network.state, ISSUER) as issuer:
        for card in cards:
            token = issuer.issue(card)
            issuer.load(token, CARD_LOAD, "fuzz", f"fuzz-{token}")
    return cards


def _await_start(made: Target) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        try:
            if httpx.get(f"http://{HOST}:{made.http_port}/health", trust_env=False).status_code:
                return
        except httpx.HTTPError:
            if not made.alive() or time.monotonic() > deadline:
                raise RuntimeError(f"the gateway does not start; see {made.log}") from None
            time.sleep(0.1)


async def signed_on(terminal: Terminal) -> Terminal:
    """The terminal, connected, with working keys where it gets any by sign-on."""
    await terminal.connect()
    if terminal.module.signs_on:
        async with asyncio.timeout(60):
            reply = await terminal.sign_on()
        if not reply.approved:
            raise RuntimeError(f"{terminal.terminal_id} is not signed on: {reply.code}")
    return terminal
