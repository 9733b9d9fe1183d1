"""A small node over real HTTP: signed batches in, signed decisions out, and faults on demand.

It keeps the contract of `POST /v1/terminal-requests`: a repeat gets the stored answer, other
content under the same key gets KEY_REUSED, the request's signature is checked, the answer signed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec
from aiohttp import web

from nodes.authorization.model import (
    Kind,
    Outcome,
    TerminalAnswer,
    TerminalAnswers,
    TerminalBatch,
    TerminalRequest,
)
from nodes.crypto.http_signatures import MessageMac, parse_head, verify_request

Decide = Callable[[TerminalRequest], TerminalAnswer]
SEED = bytes(range(32))


def approve(request: TerminalRequest) -> TerminalAnswer:
    balance = 500_00 if request.kind is Kind.BALANCE_INQUIRY else None
    return TerminalAnswer(
        outcome=Outcome.APPROVED,
        rrn=request.stan.zfill(12),
        approval_code="A" + request.stan[1:],
        amount=request.amount,
        currency=request.currency,
        available=balance,
        ledger=balance,
    )


class StubNode:
    """`faults` is used up call by call: "reset" (no answer, the requests count), "lost" (no answer,
    nothing done), a status number, "unsigned", or seconds to wait before answering."""

    def __init__(self, gateway_public_key: bytes, decide: Decide = approve) -> None:
        self.decide = decide
        self.faults: list[str | int | float] = []
        self.requests: list[TerminalRequest] = []
        self.batches: list[int] = []
        self.port = 0
        self._gateway_key = gateway_public_key
        self._stored: dict[tuple[str, ...], tuple[bytes, TerminalAnswer]] = {}
        self._signer = MessageMac("meridian", SEED, gateway_public_key)
        self._runner: web.AppRunner | None = None

    @property
    def public_key(self) -> bytes:
        return self._signer.public_key

    async def start(self, port: int = 0) -> None:
        app = web.Application(client_max_size=1 << 20)
        app.router.add_post("/v1/terminal-requests", self._terminal_requests)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Gone; what was decided stays, as in a database."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _terminal_requests(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        head = parse_head(request.headers["Signature-Input"], request.headers["Signature"])
        assert head.key_id == "gateway:test"
        verify_request(
            head,
            method="POST",
            target_uri=str(request.url),
            digest=request.headers["Content-Digest"],
            body=body,
            public_key=self._gateway_key,
            now_s=time.time(),
            mac=self._signer.mac,
        )
        assert head.algorithm == self._signer.algorithm
        batch = msgspec.json.decode(body, type=TerminalBatch)
        self.batches.append(len(batch.requests))
        fault = self.faults.pop(0) if self.faults else None
        if fault == "lost":
            return self._cut(request)
        if isinstance(fault, int) and not isinstance(fault, bool):
            return self._signed(fault, b'{"type":"about:blank"}', head)
        answers = [self._answer(item) for item in batch.requests]
        if isinstance(fault, float):
            await asyncio.sleep(fault)
        if fault == "reset":
            return self._cut(request)
        response = self._signed(200, msgspec.json.encode(TerminalAnswers(answers)), head)
        if fault == "unsigned":
            for name in ("Signature", "Signature-Input"):
                del response.headers[name]
        return response

    def _answer(self, item: TerminalRequest) -> TerminalAnswer:
        self.requests.append(item)
        key = (item.terminal_id, item.business_date, item.batch, item.stan, item.kind.value)
        fingerprint, answer = self._stored.setdefault(key, (item.fingerprint, self.decide(item)))
        if fingerprint != item.fingerprint:
            return TerminalAnswer(outcome=Outcome.KEY_REUSED, rrn="0" * 12, currency=item.currency)
        return answer

    def _signed(self, status: int, body: bytes, head: object) -> web.Response:
        fields = self._signer.sign_answer(status, body, int(time.time()), head)  # type: ignore[arg-type]
        return web.Response(
            status=status, body=body, headers={**fields, "Content-Type": "application/json"}
        )

    @staticmethod
    def _cut(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()
