"""Transactions that wait for the next block, in memory: who sent them sends them again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MAX_WAITING = 4_096
MAX_AHEAD = 64


@dataclass(frozen=True, slots=True)
class Waiting:
    """A decoded transaction with its sender and bytes."""

    hash: bytes
    sender: bytes
    nonce: int
    gas: int
    raw: bytes
    transaction: Any


class Pool:
    """At most one transaction a sender and nonce; senders in the order of their first one."""

    def __init__(self) -> None:
        self._by_sender: dict[bytes, dict[int, Waiting]] = {}
        self._by_hash: dict[bytes, Waiting] = {}

    def __len__(self) -> int:
        return len(self._by_hash)

    def get(self, tx_hash: bytes) -> Waiting | None:
        return self._by_hash.get(tx_hash)

    def at(self, sender: bytes, nonce: int) -> Waiting | None:
        return self._by_sender.get(sender, {}).get(nonce)

    def add(self, waiting: Waiting) -> None:
        self._by_sender.setdefault(waiting.sender, {})[waiting.nonce] = waiting
        self._by_hash[waiting.hash] = waiting

    def remove(self, waiting: Waiting) -> None:
        self._by_hash.pop(waiting.hash, None)
        of_sender = self._by_sender.get(waiting.sender, {})
        of_sender.pop(waiting.nonce, None)
        if not of_sender:
            self._by_sender.pop(waiting.sender, None)

    def senders(self) -> list[bytes]:
        return list(self._by_sender)

    def run_from(self, sender: bytes, nonce: int) -> Iterator[Waiting]:
        """A sender's transactions from `nonce` on, as far as there is no gap."""
        while (waiting := self.at(sender, nonce)) is not None:
            yield waiting
            nonce += 1
