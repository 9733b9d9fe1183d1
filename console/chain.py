"""The console's own look at the chain: it doesn't ask a node what the chain says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import TypeVar

from console.logs import Agreement, Told, judge, sampled
from console.settings import ConsoleSettings
from nodes.anchoring.chain_view import TrustedChain
from nodes.anchoring.checkpoint import Origin
from nodes.chain.anchors import Anchor, AnchorHead, AnchorRegistry
from nodes.chain.challenges import OmissionRegistry
from nodes.chain.client import ChainClient
from nodes.chain.closes import CloseKey, CloseRegistry, CloseRound
from nodes.chain.directory import Directory, Member
from nodes.chain.errors import ChainError
from nodes.chain.settlements import SettlementRecord, SettlementRegistry

_T = TypeVar("_T")


class ChainAway(Exception):
    """The chain's RPC server can't be reached, or isn't the chain of the configuration."""


@dataclass(frozen=True)
class AnchorPage:
    """Some of a member's anchors, the newest first. `older` is the next page's start, or None."""

    head: AnchorHead | None
    anchors: list[Anchor]
    older: int | None


@dataclass(frozen=True)
class MemberLog:
    """A member's log as the chain has it. `growth`: (block time in seconds, size), the oldest
    first."""

    member: Member
    head: Anchor | None
    growth: list[tuple[int, int]]
    agreement: Agreement


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
        self.registry = registry
        self.directory = directory
        #: The anchor that was looked up last, for showing it beside the verdict.
        self.seen: Anchor | None = None

    @property
    def predecessors(self) -> tuple[str, ...]:
        """The versions before the anchor contract, in lower case, the newest first."""
        return tuple(address.lower() for address in self.registry.predecessors())

    def anchor(self, member_id: str, seq: int) -> Anchor | None:
        """The member's anchor of that number, if it is final."""
        found = self.registry.anchor(member_id, seq)
        if found is None or not self._client.is_final(found.block_number, found.block_hash):
            return None
        self.seen = found
        return found

    def note_key(self, member_id: str, block_number: int) -> bytes | None:
        """The member's note key at that block, from the chain's registry."""
        member = self.directory.member(member_id)
        return member.note_key_at(block_number) if member else None


class ChainReader:
    """Reads anchors and members. Connects when first asked, so that the console starts without
    a chain; web3.py blocks, so each question runs in a thread."""

    def __init__(self, settings: ConsoleSettings) -> None:
        self._settings = settings
        self._client = ChainClient(
            settings.rpc_url, finality_depth=settings.finality_depth, timeout_s=4
        )
        # Final anchors, which never change: (member, number) -> (block time, size).
        self._grown: dict[tuple[str, int], tuple[int, int]] = {}

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

    async def logs(self, told: dict[str, Told], last: int | None) -> list[MemberLog]:
        """All active members' logs, each beside what its node told; growth over the `last`
        anchors, or all."""

        def look(view: ChainView) -> list[MemberLog]:
            members = [member for member in view.directory.members() if member.active]
            return [self._log(view, member, told.get(member.member_id), last) for member in members]

        return await self.ask(look)

    def _log(
        self, view: ChainView, member: Member, told: Told | None, last: int | None
    ) -> MemberLog:
        registry, member_id = view.registry, member.member_id
        told = told or Told(None)
        newest = registry.head(member_id)
        head = registry.anchor(member_id, newest.seq) if newest else None
        stated, size = head, told.size
        if head and size and size < head.size:
            stated = registry.covering(member_id, size - 1)
        key = member.note_key_at(stated.block_number) if stated else None
        line = (view.anchor_registry.lower(), *view.predecessors)
        origins = [Origin(view.chain_id, address, member_id) for address in line]
        growth = [
            self._size_at(view, member_id, seq) for seq in (sampled(head.seq, last) if head else ())
        ]
        return MemberLog(
            member,
            head,
            [point for point in growth if point],
            judge(told, origins, head, stated, key),
        )

    def _size_at(self, view: ChainView, member_id: str, seq: int) -> tuple[int, int] | None:
        known = self._grown.get((member_id, seq))
        if known:
            return known
        found = view.registry.anchor(member_id, seq)
        if found is None:
            return None
        point = (found.timestamp, found.size)
        if self._client.is_final(found.block_number, found.block_hash):
            self._grown[member_id, seq] = point
        return point

    async def ask_of_receipts(
        self, question: Callable[[TrustedChain, OmissionRegistry | None], _T]
    ) -> _T:
        """`question` answered with a view that knows promise keys, and the omission contract if
        one is configured. ChainAway."""
        omission = self._settings.omission_registry

        def answer() -> _T:
            try:
                view = TrustedChain(self._client, self._settings.anchor_registry, omission or "")
                return question(
                    view, OmissionRegistry(self._client, omission) if omission else None
                )
            except ChainError as error:
                raise ChainAway(str(error)) from error

        return await asyncio.to_thread(answer)

    async def close_round(
        self, acquirer: str, issuer: str, currency: str, day: date, revision: int
    ) -> CloseRound:
        """A revision of a day's close as the CloseRegistry holds it. ValueError without one."""
        address = self._settings.close_registry
        if address is None:
            raise ValueError("no close_registry is configured")

        def read() -> CloseRound:
            try:
                registry = CloseRegistry(self._client, address)
                return registry.round(CloseKey(acquirer, issuer, currency, day), revision)
            except ChainError as error:
                raise ChainAway(str(error)) from error

        return await asyncio.to_thread(read)

    async def settlement(self, number: bytes) -> SettlementRecord | None:
        """A statement as the SettlementRegistry holds it; None if it doesn't. ValueError without
        one."""
        address = self._settings.settlement_registry
        if address is None:
            raise ValueError("no settlement_registry is configured")

        def read() -> SettlementRecord | None:
            try:
                return SettlementRegistry(self._client, address).record(number)
            except ChainError as error:
                raise ChainAway(str(error)) from error

        return await asyncio.to_thread(read)

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
