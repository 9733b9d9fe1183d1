"""The acquirer's way to other issuers' nodes, over their API."""

from __future__ import annotations

import asyncio

from nodes.api.client import NodeClient, NodePeer, NodeRefused, NodeUnreachable
from nodes.api.node import MemberDirectory
from nodes.authorization.model import AuthorizationAnswer, AuthorizationRequest
from nodes.authorization.service import IssuerUnreachable
from nodes.crypto.http_signatures import MessageSigner

#: Seconds for one attempt (reliability.md, Service levels: issuer time-out 2 s).
ATTEMPT_TIMEOUT_S = 2.0


class HttpIssuerLink:
    """Calls issuers at the addresses, and trusts the answers by the keys, of the directory.

    An issuer that moves or gets a new key is called anew as soon as the directory knows.
    """

    def __init__(self, directory: MemberDirectory, member_id: str, message_seed: bytes) -> None:
        self._directory = directory
        self._signer = MessageSigner(member_id, message_seed)
        self._clients: dict[str, tuple[tuple[str, bytes], NodeClient]] = {}

    async def authorize(
        self, issuer: str, requests: list[AuthorizationRequest], deadline_ms: int
    ) -> list[AuthorizationAnswer]:
        """The issuer's answers; the identical batch is sent again while their fate is unknown.

        IssuerUnreachable if there is no answer by `deadline_ms`, or a refusal of the call itself.
        """
        client = await self._client(issuer)
        try:
            return await client.authorizations(requests, retry_until_ms=deadline_ms)
        except (NodeUnreachable, NodeRefused) as error:
            raise IssuerUnreachable(f"{issuer}: {error}") from None

    async def close(self) -> None:
        """Close all connections."""
        clients = [client for _, client in self._clients.values()]
        self._clients.clear()
        await asyncio.gather(*(client.close() for client in clients))

    async def _client(self, issuer: str) -> NodeClient:
        member = self._directory.member(issuer)
        if member is None or not member.active or "issuer" not in member.roles:
            raise IssuerUnreachable(f"{issuer}: no active issuer of the network")
        wanted = (member.api_url, member.message_key)
        known = self._clients.get(issuer)
        if known is not None and known[0] == wanted:
            return known[1]
        client = NodeClient(
            member.api_url,
            signer=self._signer,
            peer=NodePeer(issuer, member.message_key),
            timeout_s=ATTEMPT_TIMEOUT_S,
        )
        self._clients[issuer] = (wanted, client)
        if known is not None:
            await known[1].close()
        return client

    def __repr__(self) -> str:
        return f"HttpIssuerLink({self._signer.key_id!r})"
