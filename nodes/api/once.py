"""Idempotency keys of changes that move no money: one transaction, its answer kept with it.

Operations that take the key themselves (nodes/authorization/operations) keep theirs in the same
place and in the same way (booking.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from pydantic import BaseModel

from nodes.api.auth import Principal
from nodes.api.dependencies import refused
from nodes.api.node import ApiNode
from nodes.authorization.operations.booking import Once, settled_once
from nodes.authorization.store.accounts import Connection

M = TypeVar("M", bound=BaseModel)


class _Kept(msgspec.Struct, frozen=True):
    """An answer's members; None: the key has other content."""

    answer: dict[str, Any] | None


def under(node: ApiNode, idempotency_key: str | None) -> Once | None:
    """What an operation takes for a caller's key; None where there is none."""
    return Once(node.settings.member_id, idempotency_key) if idempotency_key is not None else None


def answer_once(
    node: ApiNode,
    idempotency_key: str | None,
    operation: str,
    caller: Principal,
    content: tuple[object, ...],
    attempt: Callable[[Connection], M],
    shape: type[M],
) -> M:
    """`attempt`'s answer; under a key it is made once, and a repeat gets the first one.

    What `attempt` raises undoes it and keeps nothing. Problem 409 `key-reused` if the key has other
    content. `content`: what is asked for, in plain values. Nothing secret may be in the answer.
    """
    kept = settled_once(
        node.engine,
        under(node, idempotency_key),
        operation,
        (caller.name, *content),
        _Kept,
        _Kept(None),
        lambda connection: _Kept(attempt(connection).model_dump(mode="json")),
        lambda _: True,
    )
    if kept.answer is None:
        raise refused(409, "key_reused")
    return shape.model_validate(kept.answer)
