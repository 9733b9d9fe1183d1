"""The console's own look at the chain: it doesn't ask a node what the chain says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from console.settings import ConsoleSettings
from nodes.chain.anchors import Anchor, AnchorHead, AnchorRegistry
from nodes.chain.client import ChainClient
from nodes.chain.directory import Directory, Member
from nodes.chain.errors import ChainError

_T = TypeVar("_T")


class ChainAway(Exception):
    """The chain's RPC server can't be reached, or isn't the chain of the configuration."""


@dataclass(frozen=True)
class AnchorPage:
    """Some of a member's anchors, the newest first. `older` is the next page's start, or None."""

    head: AnchorHead | None
    anchors: list[Anchor]
    older: int | None


class ChainView:
    """What `nodes.anchoring.verifier` asks of the chain; only final anchors count."""

    def __init__(
        self,
        client: ChainClient,
        chain_id: int,
        registry: AnchorRegistry,
        directory: Directory,
    ) -> None:
        self._client = client
        self.chain_id = chain_id
        self.anchor_registry = registry.address
        self._registry = registry
        self._directory = directory
        #: The anchor that was looked up last, for showing it beside the verdict.
        self.seen: Anchor | None = None

    def anchor(self, member_id: str, seq: int) -> Anchor | None:
        """The member's anchor of that number, if it is final."""
        found = self._registry.anchor(member_id, seq)
        if found is None or not self._client.is_final(found.block_number, found.block_hash):
            return None
        self.seen = found
        return found

    def note_key(self, member_id: str, block_number: int) -> bytes | None:
        """The member's note key at that block, from the chain's registry."""
        member = self._directory.member(member_id)
        return member.note_key_at(block_number) if member else None


class ChainReader:
    """Reads anchors and members. Connects when first asked, so that the console starts without
    a chain; web3.py blocks, so each question runs in a thread."""

    def __init__(self, settings: ConsoleSettings) -> None:
        self._settings = settings
        self._client = ChainClient(
            settings.rpc_url, finality_depth=settings.finality_depth, timeout_s=4
        )

    async def ask(self, question: Callable[[ChainView], _T]) -> _T:
        """`question` answered with a fresh view of the chain, in a thread. ChainAway."""

        def answer() -> _T:
            try:
                directory = Directory(self._client, self._settings.member_registry)
                directory.refresh()
                registry = AnchorRegistry(self._client, self._settings.anchor_registry)
                view = ChainView(self._client, self._client.chain_id(), registry, directory)
                return question(view)
            except ChainError as error:
                raise ChainAway(str(error)) from error

        return await asyncio.to_thread(answer)

    async def anchor(self, member_id: str, seq: int) -> Anchor | None:
        """One anchor as the contract holds it, or None."""
        return await self._read(lambda registry: registry.anchor(member_id, seq))

    async def anchors(self, member_id: str, newest: int | None, count: int = 12) -> AnchorPage:
        """A page of a member's anchors, from number `newest` (or the head) downward."""

        def page(registry: AnchorRegistry) -> AnchorPage:
            head = registry.head(member_id)
            first = min(newest or head.seq, head.seq) if head else 0
            last = max(first - count + 1, 1)
            found = [registry.anchor(member_id, seq) for seq in range(first, last - 1, -1) if seq]
            older = last - 1 if head and last > 1 else None
            return AnchorPage(head, [anchor for anchor in found if anchor], older)

        return await self._read(page)

    async def members(self) -> tuple[Member, ...]:
        """The chain's own directory."""

        def read() -> tuple[Member, ...]:
            try:
                directory = Directory(self._client, self._settings.member_registry)
                directory.refresh()
            except ChainError as error:
                raise ChainAway(str(error)) from error
            return directory.members()

        return await asyncio.to_thread(read)

    async def _read(self, question: Callable[[AnchorRegistry], _T]) -> _T:
        def answer() -> _T:
            try:
                return question(AnchorRegistry(self._client, self._settings.anchor_registry))
            except ChainError as error:
                raise ChainAway(str(error)) from error

        return await asyncio.to_thread(answer)
