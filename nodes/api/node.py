"""What the API needs of a node. nodes.bootstrap.Node is one; tests build their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from sqlalchemy import Engine

from nodes.authorization.model import (
    AuthorizationAnswer,
    AuthorizationRequest,
    TerminalAnswer,
    TerminalRequest,
)
from nodes.authorization.services import ServiceAnswer, ServiceRequest
from nodes.chain.directory import Member
from nodes.clock import Clock
from nodes.crypto.emv import EmvHsm
from nodes.crypto.hsm import Hsm
from nodes.crypto.keystore import Keystore
from nodes.crypto.pan import PanVault
from nodes.settings import NodeSettings


class Decider(Protocol):
    """The authorization service (nodes.authorization.service.Authorizer)."""

    async def authorize(
        self, requests: Sequence[AuthorizationRequest]
    ) -> list[AuthorizationAnswer]: ...

    async def accept(self, requests: Sequence[TerminalRequest]) -> list[TerminalAnswer]: ...

    async def serve(self, requests: Sequence[ServiceRequest]) -> list[ServiceAnswer]: ...


class MemberDirectory(Protocol):
    """The members as of the last look at the chain (nodes.chain.directory.Directory)."""

    def member(self, member_id: str) -> Member | None: ...

    def members(self) -> Sequence[Member]: ...


class Chain(Protocol):
    """What the API asks the chain (nodes.chain.client.ChainClient)."""

    def chain_id(self) -> int: ...

    def request(self, method: str, params: Sequence[Any]) -> Any: ...


class ApiNode(Protocol):
    """A node as its API sees it."""

    @property
    def settings(self) -> NodeSettings: ...

    @property
    def clock(self) -> Clock: ...

    @property
    def engine(self) -> Engine: ...

    @property
    def keystore(self) -> Keystore: ...

    @property
    def chain(self) -> Chain: ...

    @property
    def directory(self) -> MemberDirectory: ...

    @property
    def authorizer(self) -> Decider: ...

    def make_hsm(self) -> Hsm: ...

    def make_emv_hsm(self) -> EmvHsm: ...

    def make_vault(self) -> PanVault: ...
