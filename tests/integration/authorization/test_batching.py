"""Requests share commits; one bad item doesn't take the others along."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest

from nodes.authorization.batching import Batcher, LedgerUnavailable, Overloaded
from tests.conftest import NodeDatabase


def test_what_waits_while_the_connections_are_busy_goes_out_as_one_batch(
    database: NodeDatabase,
) -> None:
    release, sizes = threading.Event(), []

    def work(_: psycopg.Connection[Any], items: Sequence[int]) -> list[int]:
        sizes.append(len(items))
        release.wait(5)
        return [item * 2 for item in items]

    async def run() -> list[list[int]]:
        batcher = Batcher(database.dsn, work, lambda _: -1, name="test", connections=1)
        calls = [asyncio.create_task(batcher.submit([n])) for n in range(20)]
        await asyncio.sleep(0.1)
        release.set()
        done = await asyncio.gather(*calls)
        batcher.close()
        return done

    assert asyncio.run(run()) == [[n * 2] for n in range(20)]
    assert sizes == [1, 19]


def test_a_bad_item_fails_alone_and_the_others_stand(database: NodeDatabase) -> None:
    def work(connection: psycopg.Connection[Any], items: Sequence[int]) -> list[int]:
        with connection.transaction():
            rows = connection.execute(
                "SELECT 10 / n FROM unnest(%s::int[]) AS n", (list(items),)
            ).fetchall()
        return [row[0] for row in rows]

    async def run() -> list[int]:
        batcher = Batcher(database.dsn, work, lambda _: -1, name="test")
        done = await batcher.submit([1, 0, 5])
        batcher.close()
        return done

    assert asyncio.run(run()) == [10, -1, 2]


def test_a_lost_race_is_run_again(database: NodeDatabase) -> None:
    attempts = []

    def work(_: psycopg.Connection[Any], items: Sequence[int]) -> list[int]:
        attempts.append(len(items))
        if len(attempts) < 3:
            raise psycopg.errors.UniqueViolation
        return list(items)

    async def run() -> list[int]:
        batcher = Batcher(database.dsn, work, lambda _: -1, name="test")
        done = await batcher.submit([1, 2])
        batcher.close()
        return done

    assert asyncio.run(run()) == [1, 2]
    assert attempts == [2, 2, 2]


def test_a_lost_connection_is_said_and_mended(database: NodeDatabase) -> None:
    def work(connection: psycopg.Connection[Any], items: Sequence[str]) -> list[int]:
        if items[0] == "die":
            with psycopg.connect(database.admin_dsn, autocommit=True) as admin:
                admin.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
        return [connection.execute("SELECT 1").fetchone()[0] for _ in items]  # type: ignore[index]

    async def run() -> list[int]:
        batcher = Batcher(database.dsn, work, lambda _: -1, name="test", connections=1)
        with pytest.raises(LedgerUnavailable):
            await batcher.submit(["die"])
        done = await batcher.submit(["live"])
        batcher.close()
        return done

    assert asyncio.run(run()) == [1]


def test_more_than_can_wait_is_refused_at_once(database: NodeDatabase) -> None:
    async def run() -> None:
        batcher = Batcher(
            database.dsn, lambda _, items: list(items), lambda _: -1, name="test", max_waiting=3
        )
        with pytest.raises(Overloaded):
            await batcher.submit([1, 2, 3, 4])
        batcher.close()

    asyncio.run(run())
