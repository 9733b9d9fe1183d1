"""The client for closes and cases: an acquirer's node compares, an issuer's takes cases over."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from nodes.api.client import NodeClient, NodePeer, NodeRefused, NodeUnreachable
from nodes.api.node import MemberDirectory
from nodes.clearing.model import CaseOutcome, CaseStep, Resolution
from nodes.clearing.operations.cases import CaseEvent
from nodes.crypto.http_signatures import MessageSigner
from nodes.reconciliation.protocol import MEDIA_TYPE

COMPARISONS = "/v1/comparisons"
CASE_EVENTS = "/v1/case-events"
CASE_STEPS = "/v1/case-steps"
#: Loading a close of a million rows takes the other node some seconds.
TIMEOUT_S = 60.0
_PAGE = 200


class CaseEvents(msgspec.Struct, frozen=True, array_like=True):
    """What `GET /v1/case-events` answers, as MessagePack."""

    items: list[CaseEvent]


class StepRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A step of an issuer's, for the acquirer's node, which keeps the case."""

    break_ref: bytes
    step: str
    actor: str
    resolution: str | None = None
    note: str = ""
    entry_txid: bytes | None = None
    idempotency_key: str


EVENTS_MEDIA_TYPE = "application/vnd.countersign.case-events"
_EVENTS = msgspec.msgpack.Decoder(CaseEvents)


class ClearingClient(NodeClient):
    """Another institution's node, for closes and cases; signed both ways."""

    async def compare(self, question: bytes) -> bytes:
        """One question of a comparison (nodes/reconciliation/protocol.py); its answer."""
        headers = {"Content-Type": MEDIA_TYPE}
        _, raw = await self._call("POST", COMPARISONS, body=question, headers=headers)
        return raw

    async def case_events(self, after: int, limit: int = _PAGE) -> list[CaseEvent]:
        """The events of our cases behind an event id."""
        _, raw = await self._call("GET", CASE_EVENTS, params={"after": after, "limit": limit})
        try:
            return _EVENTS.decode(raw).items
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise NodeUnreachable(self.name, sent=True, why="the answer can't be read") from None

    async def case_step(
        self,
        ref: bytes,
        step: CaseStep,
        *,
        actor: str,
        idempotency_key: str,
        resolution: Resolution | None = None,
        note: str = "",
        entry_txid: bytes | None = None,
    ) -> CaseOutcome:
        """Take a step in a case that the other node keeps."""
        request = StepRequest(
            break_ref=ref,
            step=step.value,
            actor=actor,
            resolution=resolution.value if resolution else None,
            note=note,
            entry_txid=entry_txid,
            idempotency_key=idempotency_key,
        )
        try:
            await self._call("POST", CASE_STEPS, body=msgspec.json.encode(request))
        except NodeRefused as refusal:
            kind = str(refusal.problem.get("type", "")).rpartition(":")[2].replace("-", "_")
            if kind in set(CaseOutcome):
                return CaseOutcome(kind)
            raise
        return CaseOutcome.DONE


def clearing_client(
    directory: MemberDirectory, signer: MessageSigner, member_id: str
) -> ClearingClient | None:
    """A client of a member's node; None if it is no active member."""
    member = directory.member(member_id)
    if member is None or not member.active:
        return None
    peer = NodePeer(member_id, member.message_key)
    return ClearingClient(member.api_url, signer=signer, peer=peer, timeout_s=TIMEOUT_S)


async def case_events_since(client: ClearingClient, after: int) -> Sequence[CaseEvent]:
    """All events behind an event id, page by page."""
    found: list[CaseEvent] = []
    while True:
        page = await client.case_events(found[-1].event_id if found else after)
        found += page
        if len(page) < _PAGE:
            return found
