"""The institutions whose nodes this console reads, and what can go wrong in reading them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from console.live import LiveFeed
from console.settings import ConsoleSettings, NodeEntry
from nodes.api.client import NodeClient, NodeRefused, NodeUnreachable

Json = dict[str, Any]


class NodeAway(Exception):
    """The institution's node doesn't answer."""

    def __init__(self, institution: Institution) -> None:
        super().__init__(f"{institution.member_id}: no answer")
        self.institution = institution


class NotKnown(Exception):
    """The node has no such thing."""


class NotYet(Exception):
    """The node has it, but not in the state asked for (a proof before its anchor)."""


class BadQuestion(Exception):
    """The node refused the filters; `detail` says why, in its words."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class NodeRefusal(Exception):
    """The node refused the console itself (its key), or failed; `status` is its HTTP status."""

    def __init__(self, institution: Institution, status: int, detail: str) -> None:
        super().__init__(f"{institution.member_id}: {status} {detail}")
        self.institution = institution
        self.status = status
        self.detail = detail


class Institution:
    """One institution: who it is, and its node's answers as the node API gives them."""

    def __init__(self, entry: NodeEntry) -> None:
        self.entry = entry
        self.member_id = entry.member_id
        self.name = entry.name
        self.roles = tuple(entry.roles)
        self.client = NodeClient(entry.api_url, api_key=entry.api_key.get_secret_value())
        self.feed = LiveFeed(self.client, "/v1/transactions/stream")

    async def close(self) -> None:
        """End the live feed and the connections."""
        await self.feed.close()
        await self.client.close()

    async def info(self) -> Json:
        """Member id, chain id, contracts, note key."""
        return await self._json("/v1/info")

    async def overview(self, minutes: int) -> Json:
        """Volume by minute, declines by outcome, totals, state of the log, accounts."""
        return await self._json("/v1/overview", minutes=minutes)

    async def transactions(self, filters: Mapping[str, Any]) -> Json:
        """A page of transactions, the newest first: {"items": [...], "next": cursor or None}."""
        return await self._json("/v1/transactions", **filters)

    async def transaction(self, txid: str, side: str | None = None) -> Json:
        """One transaction with its transfers, timeline and related ones."""
        return await self._json(f"/v1/transactions/{txid}", side=side)

    async def proof(self, txid: str, side: str | None = None) -> bytes:
        """The proof bundle's bytes. NotYet before the anchor is final."""
        return (await self._text(f"/v1/transactions/{txid}/proof", side=side)).encode()

    async def batches(self, cursor: str | None, limit: int = 25) -> Json:
        """A page of batches, the newest first."""
        return await self._json("/v1/batches", cursor=cursor, limit=limit)

    async def batch(self, seq: int) -> Json:
        """One batch with its checkpoint."""
        return await self._json(f"/v1/batches/{seq}")

    async def batch_transactions(self, seq: int, cursor: str | None, limit: int = 25) -> Json:
        """A page of a batch's transactions, in log order."""
        return await self._json(f"/v1/batches/{seq}/transactions", cursor=cursor, limit=limit)

    async def members(self) -> list[Json]:
        """The network's directory, as this node knows it."""
        answer = await self._json("/v1/members")
        items: list[Json] = answer["items"]
        return items

    async def _json(self, path: str, **params: Any) -> Json:
        try:
            answer: Json = await self.client.get_json(path, **_present(params))
        except (NodeUnreachable, NodeRefused) as error:
            raise self._reason(error) from error
        return answer

    async def _text(self, path: str, **params: Any) -> str:
        try:
            return await self.client.get_text(path, **_present(params))
        except (NodeUnreachable, NodeRefused) as error:
            raise self._reason(error) from error

    def _reason(self, error: NodeUnreachable | NodeRefused) -> Exception:
        if isinstance(error, NodeUnreachable):
            return NodeAway(self)
        detail = str(error.problem.get("detail") or error.problem.get("title") or "")
        match error.status:
            case 404:
                return NotKnown()
            case 409:
                return NotYet()
            case 400 | 422:
                return BadQuestion(detail)
            case 502 | 503 | 504:
                return NodeAway(self)
        return NodeRefusal(self, error.status, detail)


def _present(params: Mapping[str, Any]) -> Json:
    return {key: value for key, value in params.items() if value is not None}


class Institutions:
    """All institutions of the configuration, in its order."""

    def __init__(self, settings: ConsoleSettings) -> None:
        self._by_id = {entry.member_id: Institution(entry) for entry in settings.nodes}

    def __iter__(self) -> Iterator[Institution]:
        return iter(self._by_id.values())

    def get(self, member_id: str) -> Institution | None:
        """The institution of this member id, or None."""
        return self._by_id.get(member_id)

    async def close(self) -> None:
        """Close them all."""
        for institution in self:
            await institution.close()
