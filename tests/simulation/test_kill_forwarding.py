"""Store-and-forward under kill -9: advices and their reversals, while the acquirer's node, its
worker and the issuer's node die at random moments. What a terminal was told is neither lost nor
doubled.

A real network and real terminals over TCP. A terminal repeats an advice, and a reversal, until it
is answered; the issuer's books are then compared with what the terminals know.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from nodes.db.engine import make_engine
from nodes.reconciliation.invariants import check_invariants
from sandbox.launcher import Running, running
from sandbox.network import MEMBERS, TPDU, Card, DemoDirectory, State
from sandbox.network import Terminal as TerminalEntry
from sandbox.postgres import HOST, remove_outside_data
from sandbox.terminal import Card as TerminalCard
from sandbox.terminal import NoAnswer, NotAuthentic, Reply, Terminal
from tests.integration.sandbox.processes import alive, eventually
from tests.simulation.test_kill_9 import balances

SEED = 20261123
VICTIMS = (
    "aurora-node",
    "meridian-node",
    "meridian-node",
    "meridian-worker",
    "aurora-node",
    "meridian-node",
)
BACK_WITHIN_S = 30.0


class Shop(threading.Thread):
    """A terminal that tells of offline sales all the time, and takes every third one back."""

    def __init__(self, state: State, entry: TerminalEntry, seed: int) -> None:
        super().__init__(name=entry["terminal_id"])
        self._cards = [card for card in state.cards if card["member"] == "aurora"][:3]
        self._random = random.Random(seed)
        self._terminal = Terminal(
            entry["terminal_id"],
            entry["merchant_id"],
            bytes.fromhex(entry["tmk"]),
            HOST,
            state.ports["gateway"],
            tpdu=bytes.fromhex(TPDU),
            batch="900002",
            timeout_s=6,
        )
        self.posted: list[tuple[Card, int]] = []
        self.reversed = 0
        self.repeated = 0
        self.closing = threading.Event()
        self.problem: BaseException | None = None

    def run(self) -> None:
        try:
            asyncio.run(self._tell())
        except BaseException as error:  # noqa: BLE001 - the test raises it in its own thread
            self.problem = error

    async def _tell(self) -> None:
        count = 0
        while not self.closing.is_set():
            count += 1
            card, amount = self._random.choice(self._cards), self._random.randrange(1, 100)
            read = TerminalCard(card["pan"], card["expiry"], card["service_code"])
            frame = self._terminal.seal(self._terminal.request("0220", "000000", read, amount))
            await self._until_answered(frame)
            if count % 3:
                self.posted.append((card, amount))
            else:
                undo = self._terminal.seal(self._terminal.reversal_of(frame))
                await self._until_answered(undo)
                self.reversed += 1
            await asyncio.sleep(0.02)
        await self._terminal.close()

    async def _until_answered(self, frame: bytes) -> None:
        """Repeat the same bytes until 00 comes; every answer that comes is the same one."""
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            reply = await self._exchange(frame)
            if reply is not None and reply.code == "00":
                return
            assert reply is None or reply.code == "96", f"an advice was answered {reply.code}"
            self.repeated += 1
            await asyncio.sleep(0.1)
        raise AssertionError("not acknowledged within a minute and a half")

    async def _exchange(self, frame: bytes) -> Reply | None:
        try:
            return await self._terminal.send_frame(frame)
        except (NoAnswer, NotAuthentic, OSError):
            await self._terminal.close()
            await asyncio.sleep(0.1)
            return None


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    directory = DemoDirectory(tmp_path_factory.mktemp("forward") / "demo")
    with directory.locked() as state:
        with running(directory, state, lambda what: None, console=False) as up:
            yield up
    remove_outside_data(directory.postgres)


@pytest.mark.timeout(240)
def test_what_was_taken_in_is_posted_once(network: Running) -> None:
    state, supervisor = network.network.state, network.supervisor
    before = balances(state)
    shops = [Shop(state, entry, SEED + place) for place, entry in enumerate(state.terminals[:3])]
    for shop in shops:
        shop.start()
    try:
        chance = random.Random(SEED)
        for victim in VICTIMS:
            time.sleep(chance.uniform(0.3, 1.2))
            pid = supervisor.pids()[victim]
            os.kill(pid, signal.SIGKILL)
            eventually(lambda pid=pid: not alive(pid))
            if victim == "aurora-node":
                continue  # the next one dies while the issuer is away
            eventually(
                lambda victim=victim, pid=pid: (
                    supervisor.pids().get(victim, pid) != pid and victim in supervisor.ready_names()
                ),
                BACK_WITHIN_S,
            )
        eventually(lambda: sum(len(shop.posted) for shop in shops) > 40, 60)
    finally:
        for shop in shops:
            shop.closing.set()
        for shop in shops:
            shop.join(120)
    for shop in shops:
        if shop.problem is not None:
            raise shop.problem
    posted = [one for shop in shops for one in shop.posted]
    assert sum(shop.reversed for shop in shops) > 5
    expected = dict(before)
    for card, amount in posted:
        expected[card["pan"]] -= amount
    eventually(lambda: balances(state) == expected, 90)
    for member in MEMBERS:
        engine = make_engine(network.network.dsn(member.member_id, "worker"))
        try:
            eventually(lambda engine=engine: _queues(engine) == 0, 60)
            assert check_invariants(engine) == []
        finally:
            engine.dispose()


@pytest.mark.timeout(120)
def test_the_worker_copies_hotlists_and_rolls_batches_up(network: Running) -> None:
    engine = make_engine(network.network.dsn("meridian", "worker"))

    def one(statement: str) -> int:
        with engine.connect() as connection:
            return int(connection.exec_driver_sql(statement).scalar_one())

    try:
        eventually(lambda: one("SELECT count(*) FROM hotlist_copies") == 2, 60)
        eventually(lambda: one("SELECT count(*) FROM terminal_batch_lines") > 20, 30)
    finally:
        engine.dispose()


def _queues(engine: object) -> int:
    with engine.connect() as connection:  # type: ignore[attr-defined]
        return connection.exec_driver_sql(
            "SELECT (SELECT count(*) FROM forward_queue WHERE done_ms IS NULL)"
            " + (SELECT count(*) FROM reversal_queue WHERE done_ms IS NULL)"
            " + (SELECT count(*) FROM open_batches)"
        ).scalar_one()
