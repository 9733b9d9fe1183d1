"""A node's engine in an operating-system process of its own, told by a pipe what to decide."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

from nodes.authorization.model import AuthorizationAnswer, AuthorizationRequest
from nodes.clock import FixedClock
from tests.conftest import NodeDatabase
from tests.factories.issuing import IssuingHouse

_SPAWN = multiprocessing.get_context("spawn")
_PATIENCE_S = 120.0


class NodeProcess:
    """One node process of an issuing house: own interpreter, own memory, own connections."""

    def __init__(self, house: IssuingHouse) -> None:
        self._pipe, theirs = _SPAWN.Pipe()
        arguments = (theirs, replace(house.database), house.keys)
        self._process = _SPAWN.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        assert self._answer() == "ready"

    def ask(self, at: float, now_ms: int, requests: Sequence[AuthorizationRequest]) -> None:
        """Have requests decided, each a batch of its own, at a moment of the machine's clock."""
        self._pipe.send((at, now_ms, list(requests)))

    def answers(self) -> list[AuthorizationAnswer]:
        """What became of those asked last."""
        found: list[AuthorizationAnswer] = self._answer()
        return found

    def close(self) -> None:
        self._pipe.close()
        self._process.join(_PATIENCE_S)
        assert self._process.exitcode == 0

    def _answer(self) -> Any:
        assert self._pipe.poll(_PATIENCE_S), "the other process says nothing"
        return self._pipe.recv()


def _serve(pipe: Connection, database: NodeDatabase, keys: tuple[bytes, ...]) -> None:
    clock = FixedClock(0)
    house = IssuingHouse(database, clock, keys)
    engine = house.engine()
    pipe.send("ready")
    with suppress(EOFError), asyncio.Runner() as runner:
        while True:
            at, now_ms, requests = pipe.recv()
            clock.advance(now_ms - clock.now_ms())
            pipe.send(runner.run(_decided(engine, at, requests)))
    house.close()


async def _decided(engine: Any, at: float, requests: list[AuthorizationRequest]) -> Any:
    await asyncio.sleep(max(0.0, at - time.time()))
    answers = await asyncio.gather(*(engine.submit([request]) for request in requests))
    return [answer[0] for answer in answers]
