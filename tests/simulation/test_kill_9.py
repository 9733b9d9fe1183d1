"""Each kind of process is killed with -9 under traffic: nothing that a terminal was told is lost.

A real network, real terminals over TCP. The terminals keep what they were told (invoke, ok,
declined, unknown), outside the system; an unknown outcome is reversed until the reversal is
acknowledged, as a terminal must. Afterwards the ledgers are compared with these histories.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from nodes.db.engine import make_engine
from nodes.reconciliation.invariants import check_invariants
from sandbox.founding import NodeAdministration
from sandbox.launcher import Running, running
from sandbox.network import ACQUIRER, MEMBERS, TPDU, Card, DemoDirectory, State
from sandbox.network import Terminal as TerminalEntry
from sandbox.postgres import HOST, remove_outside_data
from sandbox.terminal import Card as TerminalCard
from sandbox.terminal import NoAnswer, NotAuthentic, Reply, Terminal
from tests.integration.sandbox.processes import alive, eventually

SEED = 20261122
VICTIMS = (
    "aurora-node",
    "meridian-node",
    "gateway",
    "aurora-worker",
    "meridian-worker",
    "postgres",
    "chain",
)
#: Back within this time (reliability.md, Faults: 10 s; a shared test machine gets some more).
BACK_WITHIN_S = 20.0
#: Answers that say for certain that the purchase is not to be counted on.
DECLINED = {"91", "96"}


@dataclass
class History:
    """What one terminal was told."""

    approved: list[tuple[str, Card, int]] = field(default_factory=list)  # RRN, card, amount
    reversed: int = 0
    declined: int = 0


class Shop(threading.Thread):
    """A terminal that sells all the time, in a thread of its own, until it is told to close."""

    def __init__(self, state: State, entry: TerminalEntry, seed: int) -> None:
        super().__init__(name=entry["terminal_id"])
        self._cards = [card for card in state.cards if card["member"] == "aurora"][:3]
        self._cards += [card for card in state.cards if card["member"] == "borealis"][:2]
        self._random = random.Random(seed)
        self._terminal = Terminal(
            entry["terminal_id"],
            entry["merchant_id"],
            bytes.fromhex(entry["tmk"]),
            HOST,
            state.ports["gateway"],
            tpdu=bytes.fromhex(TPDU),
            batch="900001",
            timeout_s=8,
        )
        self.history = History()
        self.closing = threading.Event()
        self.problem: BaseException | None = None

    def run(self) -> None:
        try:
            asyncio.run(self._sell())
        except BaseException as error:  # noqa: BLE001 - the test raises it in its own thread
            self.problem = error

    async def _sell(self) -> None:
        while not self.closing.is_set():
            card = self._random.choice(self._cards)
            amount = self._random.randrange(1, 100)
            read = TerminalCard(card["pan"], card["expiry"], card["service_code"])
            message = self._terminal.request("0200", "000000", read, amount, card["pin"])
            frame = self._terminal.seal(message)
            reply = await self._exchange(frame)
            if reply is None:
                await self._reverse(frame)
                self.history.reversed += 1
            elif reply.approved:
                self.history.approved.append((reply.rrn, card, amount))
            else:
                assert reply.code in DECLINED, f"a good card was answered {reply.code}"
                self.history.declined += 1
                await asyncio.sleep(0.05)
        await self._terminal.close()

    async def _reverse(self, frame: bytes) -> None:
        """Repeat the reversal until it is acknowledged."""
        sealed = self._terminal.seal(self._terminal.reversal_of(frame))
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            reply = await self._exchange(sealed)
            if reply is not None and reply.code == "00":
                return
            await asyncio.sleep(0.2)
        raise AssertionError("a reversal was not acknowledged within a minute")

    async def _exchange(self, frame: bytes) -> Reply | None:
        """The answer, or None if none came: the outcome is unknown."""
        try:
            return await self._terminal.send_frame(frame)
        except (NoAnswer, NotAuthentic, OSError):
            await self._terminal.close()
            await asyncio.sleep(0.1)
            return None


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    directory = DemoDirectory(tmp_path_factory.mktemp("kill") / "demo")
    with directory.locked() as state:
        with running(directory, state, lambda what: None, console=False) as up:
            yield up
    remove_outside_data(directory.postgres)


def balances(state: State) -> dict[str, int]:
    """What the issuers' books say is available, by card number."""
    found = {}
    for card in state.cards:
        with NodeAdministration(state, card["member"]) as issuer:
            token = state.card_tokens[card["pan"]]
            found[card["pan"]] = int(issuer.get(f"/v1/cards/{token}")["available"])
    return found


@pytest.mark.timeout(180)
def test_nothing_that_a_terminal_was_told_is_lost(network: Running) -> None:
    state, supervisor = network.network.state, network.supervisor
    before = balances(state)
    shops = [Shop(state, entry, SEED + place) for place, entry in enumerate(state.terminals)]
    for shop in shops:
        shop.start()
    try:
        chance = random.Random(SEED)
        for victim in VICTIMS:
            # A crashed PostgreSQL begins by writing what the file system owes, that of others, too
            # (recovery_init_sync_method): that isn't this network's time.
            os.sync()
            time.sleep(chance.uniform(0.5, 1.0))
            pid = supervisor.pids()[victim]
            os.kill(pid, signal.SIGKILL)
            eventually(lambda pid=pid: not alive(pid))
            eventually(
                lambda victim=victim, pid=pid: (
                    supervisor.pids().get(victim, pid) != pid and victim in supervisor.ready_names()
                ),
                BACK_WITHIN_S,
            )
            # It serves again: the shops sell on.
            sold = sum(len(shop.history.approved) for shop in shops)
            eventually(
                lambda sold=sold: sum(len(shop.history.approved) for shop in shops) > sold,
                BACK_WITHIN_S,
            )
    finally:
        for shop in shops:
            shop.closing.set()
        for shop in shops:
            shop.join(90)
    for shop in shops:
        if shop.problem is not None:
            raise shop.problem
    _compare(network, shops, before)


def _compare(network: Running, shops: list[Shop], before: dict[str, int]) -> None:
    state = network.network.state
    spent = dict.fromkeys(before, 0)
    approved = [entry for shop in shops for entry in shop.history.approved]
    assert len(approved) > 20, "too little was sold for the test to mean anything"
    for _, card, amount in approved:
        spent[card["pan"]] += amount
    expected = {pan: before[pan] - spent[pan] for pan in before}
    # What ended in 91 or without an answer is reversed by the nodes' own queue, a little later.
    eventually(lambda: balances(state) == expected, 60)

    _in_both_ledgers(state, shops)
    _all_anchored(network)
    for member in MEMBERS:
        engine = make_engine(network.network.dsn(member.member_id, "worker"))
        try:
            assert check_invariants(engine) == []
        finally:
            engine.dispose()


def _in_both_ledgers(state: State, shops: list[Shop]) -> None:
    """Every approval that a terminal saw is in both books, once, with equal commitments."""
    with NodeAdministration(state, ACQUIRER) as node:
        acquired = node.pages("/v1/transactions", kind="purchase", outcome="approved", limit=200)
    by_rrn = {item["rrn"]: item for item in acquired}
    assert len(by_rrn) == len(acquired)
    issued = {}
    for issuer in ("aurora", "borealis"):
        with NodeAdministration(state, issuer) as node:
            for item in node.pages("/v1/transactions", kind="purchase", limit=200):
                issued[item["txid"]] = item
    for shop in shops:
        for rrn, card, amount in shop.history.approved:
            ours = by_rrn[rrn]
            theirs = issued[ours["txid"]]
            assert (ours["amount"], ours["issuer"]) == (amount, card["member"])
            assert theirs["commitment"] == ours["commitment"]
            assert theirs["outcome"] == "approved"


def _all_anchored(network: Running) -> None:
    """Sealing and anchoring go on after the kills: the last row of every log is anchored."""

    def anchored() -> bool:
        for member in MEMBERS:
            with NodeAdministration(network.network.state, member.member_id) as node:
                log = node.get("/v1/overview")["log"]
                if log["unsealed"] or log["anchored_size"] != log["size"]:
                    return False
        return True

    eventually(anchored, 60)


def test_the_launcher_log_names_what_ended(network: Running) -> None:
    log = (network.network.directory.log / "launcher.log").read_text()
    for victim in VICTIMS:
        assert f"{victim}: process" in log


def test_processes_json_is_current(network: Running) -> None:
    import json

    known = json.loads(Path(network.network.directory.processes_file).read_text())
    assert known == network.supervisor.pids()
    assert set(known) >= {*VICTIMS, "harbor-node", "harbor-worker", "borealis-node"}
    assert all(alive(pid) for pid in known.values())
