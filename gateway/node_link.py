"""The way to the acquirer's node over the node API, as the dispatcher wants it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from gateway.pos.dispatch import NodeNotReached, NodeUndecided
from nodes.api.client import NodeClient, NodePeer, NodeRefused, NodeUnreachable
from nodes.authorization.model import TerminalAnswer, TerminalRequest
from nodes.crypto.http_signatures import MessageSigner

_log = structlog.get_logger("gateway.node_link")

#: Refusals after which it is open what the node did: it failed midway.
_UNDECIDED_STATUS = frozenset({500, 502, 504})
#: Refusals of which one request in the batch may be the reason.
_DIVISIBLE_STATUS = frozenset({400, 413, 422, 500})


class HttpNodeLink:
    """A NodeLink over signed HTTP. An answer that the acquirer's node didn't sign is no answer.

    `deadline_s`: the longest that one call may take; the dispatcher asks for less.
    """

    def __init__(
        self,
        node_url: str,
        *,
        key_id: str,
        message_seed: bytes,
        node_key: bytes,
        acquirer: str,
        deadline_s: float,
    ) -> None:
        self._client = NodeClient(
            node_url,
            signer=MessageSigner(key_id, message_seed),
            peer=NodePeer(acquirer, node_key),
            timeout_s=deadline_s,
        )

    async def terminal_requests(
        self, requests: Sequence[TerminalRequest], timeout_s: float
    ) -> list[TerminalAnswer]:
        """See NodeLink.terminal_requests."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._client.terminal_requests(requests)
        except TimeoutError:
            raise NodeUndecided() from None
        except NodeUnreachable as error:
            _log.warning("node_unreachable", why=str(error), sent=error.sent)
            failure = NodeUndecided if error.sent else NodeNotReached
            raise failure() from None
        except NodeRefused as error:
            # The status only: a problem document might quote what was sent.
            _log.warning("node_refused", status=error.status, requests=len(requests))
            failure = NodeUndecided if error.status in _UNDECIDED_STATUS else NodeNotReached
            raise failure(divide=error.status in _DIVISIBLE_STATUS) from None

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()
