"""A burst is worked off in parts, turn about, and the loop goes on between them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.pos.turns import Step, Turns


def once(what: Callable[[], object]) -> Step:
    """A step of somebody who has nothing more to do then."""

    def step() -> bool:
        what()
        return False

    return step


def many(done: list[object], name: str, count: int) -> Step:
    """The steps of somebody who has `count` things to do."""
    left = iter(range(count))

    def step() -> bool:
        number = next(left)
        done.append(f"{name}{number}")
        return number + 1 < count

    return step


def noted(done: list[object], what: object) -> Step:
    return once(lambda: done.append(what))


def test_what_is_beyond_a_turns_share_waits_for_the_next_turns_in_order() -> None:
    async def scene() -> None:
        turns, done = Turns(3), list[object]()
        for number in range(8):
            turns.do(noted(done, number))
            asyncio.get_running_loop().call_soon(done.append, f"after {number}")
        assert done == [0, 1, 2]
        for _ in range(8):
            await asyncio.sleep(0)
        assert len(done) == 16
        assert [one for one in done if isinstance(one, int)] == list(range(8))
        # What else the loop had to do was not kept waiting by the rest of the burst.
        assert done.index("after 7") < done.index(7)

    asyncio.run(scene())


def test_one_that_has_much_to_do_holds_nobody_up_who_has_little() -> None:
    async def scene() -> None:
        turns, done = Turns(4), list[object]()
        turns.do(many(done, "flood", 1000))
        turns.do(many(done, "honest", 2))
        for _ in range(3):
            await asyncio.sleep(0)
        assert done[:8] == [
            *("flood0", "flood1", "flood2", "flood3"),
            *("flood4", "honest0", "flood5", "honest1"),
        ]
        for _ in range(300):
            await asyncio.sleep(0)
        assert done[-1] == "flood999"

    asyncio.run(scene())


def test_a_new_turn_has_its_whole_share_again() -> None:
    async def scene() -> None:
        turns, done = Turns(2), list[object]()
        for start in (0, 10):
            for number in range(start, start + 2):
                turns.do(noted(done, number))
            assert done[-2:] == [start, start + 1], "nothing waited"
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    asyncio.run(scene())


def test_work_that_fails_holds_nothing_up_behind_it() -> None:
    async def scene() -> None:
        turns, done, failures = Turns(1), list[object](), list[object]()
        asyncio.get_running_loop().set_exception_handler(lambda _, what: failures.append(what))

        def fail() -> bool:
            raise RuntimeError

        turns.do(noted(done, 1))
        turns.do(fail)
        turns.do(noted(done, 2))
        for _ in range(6):
            await asyncio.sleep(0)
        assert done == [1, 2]
        assert len(failures) == 1

    asyncio.run(scene())


def test_what_waits_at_the_end_is_not_done() -> None:
    async def scene() -> None:
        turns, done = Turns(1), list[object]()
        turns.do(noted(done, 1))
        turns.do(noted(done, 2))
        turns.close()
        for _ in range(4):
            await asyncio.sleep(0)
        assert done == [1]

    asyncio.run(scene())
