"""Thousands of connections that send a frame a byte a second, from a process of their own.

Of their own, so that the honest terminal beside them waits for the gateway and not for us.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

import uvloop

from sandbox.network import TPDU
from sandbox.postgres import HOST

_BYTE_EVERY_S = 1.0
#: All of them are there after so many seconds.
_ARRIVAL_S = 3.0
_READY_S = 120.0


@contextmanager
def slow_loris(port: int, connections: int) -> Iterator[None]:
    """So many of them at a gateway's port while the block runs."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=_run, args=(port, connections, theirs), daemon=True)
    process.start()
    try:
        if not mine.poll(_READY_S):
            raise RuntimeError("the slow connections don't come up")
        mine.recv()
        yield
    finally:
        process.terminate()
        process.join(30)


def _run(port: int, connections: int, ready: Connection) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    uvloop.run(_all(port, connections, ready))


async def _all(port: int, connections: int, ready: Connection) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(connections):
            group.create_task(_one(port, number / connections * _ARRIVAL_S))
        await asyncio.sleep(_ARRIVAL_S + 0.5)
        ready.send(None)


async def _one(port: int, wait_s: float) -> None:
    """A frame that never ends, begun again whenever the gateway has cut it off."""
    await asyncio.sleep(wait_s)
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(HOST, port)
            try:
                for byte in b"\x01\x00" + bytes.fromhex(TPDU) + bytes(100):
                    if writer.is_closing():
                        break
                    writer.write(bytes((byte,)))
                    await asyncio.sleep(_BYTE_EVERY_S)
            finally:
                writer.close()
        await asyncio.sleep(0.2)
