"""What an acquirer's worker does: late requests, store-and-forward, batches, hotlists, webhooks.

Each job does all there is to do in the database, and can be repeated.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import structlog

from nodes.acquiring.online.delivering import collect, deliver_due, forget_jtis
from nodes.anchoring.store import transaction
from nodes.api.client import HotlistEntry, NodeClient, NodeRefused, NodeUnreachable
from nodes.authorization.batching import LedgerUnavailable
from nodes.authorization.model import AuthorizationAnswer, AuthorizationRequest
from nodes.authorization.operations.forwarding import (
    forwarded_request,
    recover_pending,
    request_of,
    settle_forwards,
    settle_reversals,
    take_forwards,
    take_reversals,
)
from nodes.authorization.operations.ordering import end_orders
from nodes.authorization.service import IssuerUnreachable
from nodes.authorization.store import hotlist
from nodes.authorization.store.acquirer import QueuedReversal
from nodes.authorization.store.batches import roll_lines
from nodes.bootstrap import Node
from nodes.chain.directory import Member

log = structlog.get_logger(__name__)

#: Does a job by its name; outages are logged and wait for the next time.
Ring = Callable[[str, Callable[[], int]], Any]

_ISSUER_TIMEOUT_MS = 5_000
_PAGE = 200


class AcquirerJobs:
    """The jobs of one node; all idle where it is no acquirer. Used by one thread."""

    def __init__(
        self,
        node: Node,
        runner: asyncio.Runner,
        client_of: Callable[[Member], NodeClient],
        ring: Ring,
    ) -> None:
        self._node = node
        self._runner = runner
        self._client_of = client_of
        self._ring = ring
        self._acquirer = node.make_acquirer() if "acquirer" in node.settings.roles else None
        self._sending: threading.Thread | None = None

    def recover_pending(self) -> int:
        """Close requests that a crash left open."""
        if self._acquirer is None:
            return 0
        with transaction(self._node.engine) as connection:
            return recover_pending(connection, self._acquirer)

    def forward_reversals(self) -> int:
        """Send due reversals to their issuers; how many were acknowledged."""
        if self._acquirer is None:
            return 0
        with transaction(self._node.engine) as connection:
            taken = take_reversals(connection, self._acquirer)
        by_issuer: dict[str, list[QueuedReversal]] = {}
        for row in taken:
            by_issuer.setdefault(row.issuer, []).append(row)
        settled = 0
        for issuer, rows in by_issuer.items():
            try:
                answers = self._runner.run(self._ask(issuer, rows))
            except IssuerUnreachable as error:
                log.warning("reversals_not_acknowledged", issuer=issuer, why=str(error))
                continue
            with transaction(self._node.engine) as connection:
                pairs = list(zip(rows, answers, strict=True))
                settled += settle_reversals(connection, self._acquirer, pairs)
        return settled

    async def _ask(self, issuer: str, rows: list[QueuedReversal]) -> list[AuthorizationAnswer]:
        now_ms = self._node.clock.now_ms()
        deadline_ms = now_ms + _ISSUER_TIMEOUT_MS
        requests = [request_of(row) for row in rows]
        if issuer == self._node.member_id:
            return await self._node.authorizer.authorize(requests)
        return await self._node.link.authorize(issuer, requests, deadline_ms)

    def forward_advices(self) -> int:
        """Send due advices and completions to their issuers; how many were answered."""
        if self._acquirer is None or self._acquirer.vault is None:
            return 0
        with transaction(self._node.engine) as connection:
            taken = take_forwards(connection, self._acquirer)
        settled = 0
        for issuer in sorted({row.issuer for row in taken}):
            rows = [row for row in taken if row.issuer == issuer]
            deadline_ms = self._node.clock.now_ms() + _ISSUER_TIMEOUT_MS
            requests = [forwarded_request(self._acquirer, row, deadline_ms) for row in rows]
            try:
                answers = self._runner.run(self._authorize(issuer, requests, deadline_ms))
            except (IssuerUnreachable, LedgerUnavailable) as error:
                log.warning("advices_not_acknowledged", issuer=issuer, why=str(error))
                continue
            with transaction(self._node.engine) as connection:
                pairs = list(zip(rows, answers, strict=True))
                settled += settle_forwards(connection, self._acquirer, pairs)
        return settled

    async def _authorize(
        self, issuer: str, requests: list[AuthorizationRequest], deadline_ms: int
    ) -> list[AuthorizationAnswer]:
        if issuer == self._node.member_id:
            return await self._node.authorizer.authorize(requests)
        return await self._node.link.authorize(issuer, requests, deadline_ms)

    def roll_batches(self) -> int:
        """Take new transactions into their terminals' batches; how many were looked at."""
        if self._acquirer is None:
            return 0
        rolled = 0
        while True:
            with transaction(self._node.engine) as connection:
                count = roll_lines(connection)
            rolled += count
            if not count:
                return rolled

    def copy_hotlists(self) -> int:
        """Take what is new in issuers' hotlists; how many entries."""
        if self._acquirer is None:
            return 0
        node, copied = self._node, 0
        for member in node.directory.members():
            if not member.active or "issuer" not in member.roles:
                continue
            try:
                copied += self._copy_hotlist(member)
            except (NodeUnreachable, NodeRefused) as error:
                log.warning("hotlist_not_copied", issuer=member.member_id, why=str(error))
        return copied

    def _copy_hotlist(self, member: Member) -> int:
        node, issuer, copied = self._node, member.member_id, 0
        while True:
            asked_ms = node.clock.now_ms()
            entries: list[HotlistEntry] = []
            if issuer != node.member_id:
                with transaction(node.engine) as connection:
                    after = hotlist.last_version(connection, issuer)
                entries = self._runner.run(self._client_of(member).hotlist(after, _PAGE))
            with transaction(node.engine) as connection:
                rows = [(e.version, e.card_key_id, e.listed, e.reason, e.at_ms) for e in entries]
                hotlist.copy_entries(connection, issuer, rows)
                if len(entries) < _PAGE:
                    hotlist.checked(connection, issuer, asked_ms)
            copied += len(entries)
            if len(entries) < _PAGE:
                return copied

    def collect_webhooks(self) -> int:
        """Make messages of what has been recorded since; and see that what is due is sent."""
        if self._acquirer is None:
            return 0
        now_ms = self._node.clock.now_ms()
        end_orders(self._node.engine, self._node.member_id, now_ms)
        forget_jtis(self._node.engine, now_ms)
        made = collect(self._node.engine, now_ms)
        if self._sending is None or not self._sending.is_alive():
            # Endpoints may be slow, and nothing else here shall wait for them.
            self._sending = threading.Thread(target=self._send_webhooks, daemon=True)
            self._sending.start()
        return made

    def _send_webhooks(self) -> None:
        node = self._node
        seed = node.keystore.secret("message")

        def send() -> int:
            return deliver_due(
                node.engine,
                seed,
                node.clock.now_ms(),
                private_allowed=node.settings.webhooks_to_private,
            )

        while self._ring("send_webhooks", send):
            pass
