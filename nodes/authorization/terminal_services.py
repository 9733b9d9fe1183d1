"""What terminals ask beside payments, for one acquirer's node: one message after another, in a
thread of its own with a connection of its own, so that no payment waits for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import psycopg
import structlog

from nodes.authorization.batching import REFUSED, Worker
from nodes.authorization.model import TerminalAnswer, TerminalRequest
from nodes.authorization.operations.accepting import Acquirer
from nodes.authorization.operations.closing_batches import (
    Comparing,
    begin_upload,
    close_batch,
    end_upload,
)
from nodes.authorization.operations.downloading import hotlist_page, parameters_page
from nodes.authorization.services import Service, ServiceAnswer, ServiceOutcome, ServiceRequest

log = structlog.get_logger(__name__)

_ATTEMPTS = 4
Accept = Callable[[Sequence[TerminalRequest]], Awaitable[list[TerminalAnswer]]]


class TerminalServices:
    """Serves batch closes, uploads and downloads. `accept` posts what an upload was missing."""

    def __init__(self, dsn: str, acquirer: Acquirer, accept: Accept) -> None:
        self._acquirer = acquirer
        self._accept = accept
        self._worker = Worker(dsn, "terminal services")

    async def serve(self, requests: Sequence[ServiceRequest]) -> list[ServiceAnswer]:
        """One answer for each request, in order. Raises LedgerUnavailable (ask again)."""
        return [await self._serve(request) for request in requests]

    async def _serve(self, request: ServiceRequest) -> ServiceAnswer:
        for attempt in range(_ATTEMPTS):
            try:
                return await self._once(request)
            except REFUSED as error:
                # Another process was first with a part of it: what stands is read anew.
                if attempt == _ATTEMPTS - 1:
                    raise
                log.info("service repeated", error=type(error).__name__)
            except psycopg.Error as error:
                log.error("a service failed", error=type(error).__name__)
                break
        return ServiceAnswer(outcome=ServiceOutcome.SYSTEM_ERROR)

    async def _once(self, request: ServiceRequest) -> ServiceAnswer:
        acquirer, run = self._acquirer, self._worker.run
        match request.service:
            case Service.BATCH_CLOSE:
                return await run(lambda c: close_batch(c, acquirer, request))
            case Service.BATCH_UPLOAD:
                begun = await run(lambda c: begin_upload(c, acquirer, request))
                if not isinstance(begun, Comparing):
                    return begun
                posted = await self._accept([begun.advice]) if begun.advice is not None else None
                told = posted[0] if posted else None
                return await run(lambda c: end_upload(c, acquirer, request, begun, told))
            case Service.HOTLIST:
                return await run(lambda c: hotlist_page(c, acquirer, request))
            case Service.PARAMETERS:
                return await run(lambda c: parameters_page(c, request))

    def close(self) -> None:
        """Let what is running end."""
        self._worker.close()
