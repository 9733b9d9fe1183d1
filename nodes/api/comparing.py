"""What members ask each other about closes: comparisons, case events, steps of cases.

All three are signed by the asking member, and answered only for pairs that it is one of.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from nodes.api.auth import Principal, member
from nodes.api.case_problems import require_done
from nodes.api.clearing_client import EVENTS_MEDIA_TYPE, CaseEvents, StepRequest
from nodes.api.dependencies import TheNode
from nodes.api.node import ApiNode
from nodes.api.problems import Problem
from nodes.clearing import case_queries, queries
from nodes.clearing.model import CaseStep, CloseStage, Resolution
from nodes.clearing.operations.cases import events_for, take_step
from nodes.clearing.rules.cases import corrected_party
from nodes.clock import to_datetime
from nodes.db.engine import transaction
from nodes.reconciliation.comparing import Responder
from nodes.reconciliation.day_books import CloseBooks
from nodes.reconciliation.protocol import (
    MEDIA_TYPE,
    Answer,
    MessageRefused,
    Question,
    decode_question,
    encode,
)

router = APIRouter(tags=["clearing"])

Member = Annotated[Principal, Depends(member)]
#: Closes whose items are kept in memory for the next question: 72 bytes an item.
_REMEMBERED = 2
_JUDGED = frozenset({CloseStage.CONFIRMED, CloseStage.BROKEN, CloseStage.SUPERSEDED})
_BINARY = {"schema": {"type": "string", "format": "binary"}}
#: What an issuer may do in a case that the acquirer keeps.
_STEPS = frozenset(
    {
        CaseStep.PROPOSED,
        CaseStep.REFUSED,
        CaseStep.COUNTERSIGNED,
        CaseStep.CORRECTED,
        CaseStep.ARRIVED,
    }
)


class Responders:
    """The closes that are being compared. One a process; thread-safe."""

    def __init__(self, node: ApiNode) -> None:
        self._node = node
        self._lock = threading.Lock()
        self._known: OrderedDict[int, Responder] = OrderedDict()

    def answer(self, principal: Principal, question: Question) -> Answer:
        """The answer to a question of the acquirer's. Problem 403, 404 or 409."""
        key, own = question.key(), self._node.settings.member_id
        if principal.member_id != key.acquirer or own != key.issuer:
            raise Problem(403, "caller-not-permitted", "Only the acquirer of a close may ask.")
        with transaction(self._node.engine) as connection:
            staged = queries.close_of(connection, key, question.revision)
        if staged is None:
            raise Problem(404, "close-unknown", "There is no such close here.")
        if staged.stage not in _JUDGED:
            # Before both have revealed, an answer would be something to copy.
            raise Problem(409, "close-not-judged", "The chain hasn't judged this close yet.")
        with self._lock:
            responder = self._known.get(staged.close.close_id)
            if responder is None:
                books = CloseBooks(self._node.engine, staged.close)
                responder = Responder(books.index, staged.close.close_root, books)
                self._known[staged.close.close_id] = responder
            self._known.move_to_end(staged.close.close_id)
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return responder.answer(question)


@router.post(
    "/v1/comparisons",
    response_class=Response,
    responses={200: {"description": "The answer.", "content": {MEDIA_TYPE: _BINARY}}},
    openapi_extra={"requestBody": {"required": True, "content": {MEDIA_TYPE: _BINARY}}},
)
async def compare(request: Request, caller: Member) -> Response:
    """One question about a judged close, from its acquirer: fingerprints of ranges, digests,
    openings of broken items (docs/reconciliation.md)."""
    body = await request.body()
    responders: Responders = request.app.state.responders
    try:
        question = decode_question(body)
        answer = await run_in_threadpool(responders.answer, caller, question)
    except MessageRefused as refusal:
        raise Problem(422, "comparison-malformed", f"The question is refused: {refusal}.") from None
    return Response(encode(answer), media_type=MEDIA_TYPE)


@router.get(
    "/v1/case-events",
    response_class=Response,
    responses={200: {"description": "The events.", "content": {EVENTS_MEDIA_TYPE: _BINARY}}},
)
def list_case_events(
    node: TheNode,
    caller: Member,
    after: Annotated[int, Query(ge=0, lt=1 << 62)] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 200,
) -> Response:
    """The events of the calling issuer's cases behind an event id, in the order in which this
    acquirer's node has numbered them."""
    assert caller.member_id is not None
    with transaction(node.engine) as connection:
        events = events_for(connection, caller.member_id, after, limit)
    return Response(msgspec.msgpack.encode(CaseEvents(events)), media_type=EVENTS_MEDIA_TYPE)


@router.post("/v1/case-steps", response_class=Response)
async def take_case_step(request: Request, node: TheNode, caller: Member) -> Response:
    """A step of the calling issuer's in a case that this acquirer's node keeps."""
    try:
        asked = msgspec.json.decode(await request.body(), type=StepRequest)
        step = CaseStep(asked.step)
        resolution = Resolution(asked.resolution) if asked.resolution else None
    except (msgspec.DecodeError, ValueError):
        raise Problem(422, "schema", "A value is missing or wrong.") from None
    texts = asked.actor + asked.note + asked.idempotency_key
    if step not in _STEPS or len(texts) > 1_000 or not texts.isprintable():
        raise Problem(422, "schema", "A value is missing or wrong.")
    await run_in_threadpool(_take, node, caller.member_id or "", asked, step, resolution)
    return Response(b"{}", media_type="application/json")


def _take(
    node: ApiNode,
    issuer: str,
    asked: StepRequest,
    step: CaseStep,
    resolution: Resolution | None,
) -> None:
    with transaction(node.engine) as connection:
        files = case_queries.case_files(connection, refs=[asked.break_ref])
        staged = queries.close_by_id(connection, files[0].found["close_id"]) if files else None
        if staged is None or staged.close.party != "acquirer" or staged.close.key.issuer != issuer:
            raise Problem(404, "break-unknown", "There is no such break here.")
        case = files[0].case
        wrong = corrected_party(case.resolution) if case.resolution else None
        if (step is CaseStep.CORRECTED and wrong != "issuer") or (
            step is CaseStep.ARRIVED and case.lacking != "issuer"
        ):
            raise Problem(403, "caller-not-permitted", "This step is the acquirer's.")
        result = take_step(
            connection,
            asked.break_ref,
            step,
            member=issuer,
            actor=asked.actor,
            now=to_datetime(node.clock.now_ms()),
            resolution=resolution,
            note=asked.note,
            entry_txid=asked.entry_txid,
            idempotency_key=asked.idempotency_key,
        )
    require_done(result.outcome)
