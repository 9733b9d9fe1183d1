"""The queue before an issuer's batches."""

from __future__ import annotations

import asyncio

import pytest

from nodes.authorization.batching import Overloaded
from nodes.authorization.engine.work import OnUsCall, Waiting


def test_no_more_requests_wait_than_may_and_one_too_many_is_not_kept() -> None:
    async def scene() -> None:
        waiting = Waiting(max_batch=2, max_waiting=3)
        first, second, third = (
            OnUsCall([], asyncio.get_running_loop().create_future()) for _ in range(3)
        )
        waiting.put(first, 2)
        with pytest.raises(Overloaded):
            waiting.put(second, 2)
        waiting.put(third, 1)
        assert waiting.first is first
        assert waiting.take_on_us() == [first, third]
        assert not waiting

    asyncio.run(scene())
