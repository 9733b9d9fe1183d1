"""A node in miniature: the node API's reading endpoints over real HTTP, on books in memory."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from tests.browser.books import Books, Entry

API_KEY = "console-reading-key-of-the-tests"


def iso(moment: datetime | None) -> str | None:
    """RFC 3339 in UTC, as the node API writes moments."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


class Server:
    """An ASGI application on a port of its own, in a thread."""

    def __init__(self, app: Any, port: int = 0) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", port))
        self.port = int(self._socket.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=0)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True
        )

    def start(self) -> Server:
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        return self

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()


class FakeNode:
    """Serves `books`; `away`, `refuses` and `tampered` make it misbehave."""

    def __init__(self, books: Books, members: list[dict[str, Any]], now: datetime) -> None:
        self.books = books
        self.members = members
        self.now = now
        self.away = False
        self.refuses = False
        self.tampered: dict[bytes, int] = {}  # txid -> offset of the byte that is changed
        self.swapped: dict[bytes, bytes] = {}  # txid -> txid whose proof is served in its place
        self.falsified: dict[bytes, dict[str, Any]] = {}  # txid -> values told instead
        self.checkpoint: str | None = None  # told instead of the newest anchored one
        self.requests: list[str] = []
        self._watchers: list[asyncio.Queue[Entry]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self.app = self._application()

    # -- what the tests do to it

    def happens(self, entry: Entry) -> None:
        """A new transaction: recorded, and told to whoever watches the stream."""
        self.books.record(entry)
        for queue in self._watchers:
            assert self._loop is not None
            self._loop.call_soon_threadsafe(queue.put_nowait, entry)

    # -- its answers

    def item(self, index: int) -> dict[str, Any]:
        """A transaction as the list shows it."""
        entry = self.books.rows[index]
        sealed = index < len(self.books.leaves)
        batch = self.books.batch_of(index) if sealed else None
        return {
            "txid": entry.txid.hex(),
            "side": self.books.side,
            **entry.values,
            "transmitted_at": iso(entry.at),
            "decided_at": iso(entry.at + timedelta(milliseconds=9)),
            "recorded_at": iso(entry.at + timedelta(milliseconds=14)),
            "commitment": entry.commitment.hex(),
            "log_index": index if sealed else None,
            "batch_seq": batch["seq"] if batch else None,
            "anchor_state": batch["state"] if batch else "UNSEALED",
            **self.falsified.get(entry.txid, {}),
        }

    def batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A batch as the list shows it."""
        anchor = batch["anchor"]
        totals = batch["totals"]
        return {
            "seq": batch["seq"],
            "first_index": batch["first_index"],
            "size": batch["size"],
            "leaf_count": batch["size"] - batch["first_index"],
            "prev_root": batch["prev_root"].hex(),
            "root": batch["root"].hex(),
            "sealed_at": iso(batch["sealed_at"]),
            "totals": [
                {
                    "currency": totals.currency,
                    "approved_count": totals.approved_count,
                    "approved_amount": totals.approved_amount,
                    "declined_count": totals.declined_count,
                }
            ],
            "state": batch["state"],
            "tx_hash": anchor.tx_hash.hex() if anchor else None,
            "block_number": anchor.block_number if anchor else None,
            "block_hash": anchor.block_hash.hex() if anchor else None,
            "anchored_at": iso(batch["anchored_at"]),
            "gas_used": batch["gas_used"],
        }

    def _index(self, txid: str) -> int | None:
        for index, entry in enumerate(self.books.rows):
            if entry.txid.hex() == txid:
                return index
        return None

    def transaction(self, index: int) -> dict[str, Any]:
        """One transaction with everything."""
        item = self.item(index)
        moved = item["outcome"] == "approved" and item["amount"]
        transfers = [
            {
                "line": 1,
                "debit": {"account_id": 7, "kind": "cardholder", "owner": item["card_token"]},
                "credit": {"account_id": 2, "kind": "settlement", "owner": item["acquirer"]},
                "amount": item["amount"],
                "currency": "CNY",
                "balance_after": 184_250,
            }
        ]
        timeline = [
            {"at": item["transmitted_at"], "event": "accepted", "detail": "taken in by meridian"},
            {"at": item["decided_at"], "event": "decided", "detail": item["outcome"]},
            {"at": item["recorded_at"], "event": "recorded", "detail": ""},
        ]  # fmt: skip
        batch = self.books.batch_of(index) if index < len(self.books.leaves) else None
        if batch:
            timeline.append(
                {
                    "at": iso(batch["sealed_at"]),
                    "event": "sealed",
                    "detail": f"batch {batch['seq']}",
                }
            )
        if batch and batch["anchor"]:
            sent = f"transaction {batch['anchor'].tx_hash.hex()}"
            timeline.append(
                {"at": iso(batch["submitted_at"]), "event": "submitted", "detail": sent}
            )
            detail = f"block {batch['anchor'].block_number}"
            timeline.append(
                {"at": iso(batch["anchored_at"]), "event": "anchored", "detail": detail}
            )
        return {
            **item,
            "transfers": transfers if moved else [],
            "timeline": timeline,
            "related": [],
            "related_items": [],
            "decision": None,
        }

    def overview(self, minutes: int) -> dict[str, Any]:
        """Volume by minute and the rest."""
        end = self.now.replace(second=0, microsecond=0) + timedelta(minutes=1)
        start = end - timedelta(minutes=minutes)
        volume = []
        for number in range(minutes):
            low = start + timedelta(minutes=number)
            rows = [r for r in self.books.rows if low <= r.at < low + timedelta(minutes=1)]
            good = [r for r in rows if r.values["outcome"] == "approved"]
            volume.append(
                {
                    "minute": iso(low),
                    "approved": len(good),
                    "declined": len(rows) - len(good),
                    "amount": sum(r.values["amount"] for r in good),
                }
            )
        declines = Counter(
            r.values["outcome"]
            for r in self.books.rows
            if r.at >= start and r.values["outcome"] != "approved"
        )
        good = [r for r in self.books.rows if r.values["outcome"] == "approved"]
        anchored = [b for b in self.books.batches if b["anchor"]]
        return {
            "volume": volume,
            "declines": dict(declines),
            "member_id": self.books.member_id,
            "side": self.books.side,
            "totals": {
                "since": iso(start),
                "approved": len(good),
                "declined": len(self.books.rows) - len(good),
                "amount": sum(r.values["amount"] for r in good),
                "currency": "CNY",
            },
            "log": {
                "size": len(self.books.leaves),
                "sealed_seq": len(self.books.batches),
                "anchored_seq": anchored[-1]["seq"] if anchored else 0,
                "anchored_size": anchored[-1]["size"] if anchored else 0,
                "unsealed": len(self.books.rows) - len(self.books.leaves),
                "lag_seconds": 2.4 if len(self.books.rows) > len(self.books.leaves) else 0,
            },
            "accounts": [
                {"kind": "cardholder", "currency": "CNY", "count": 40, "balance": 7_370_000},
                {"kind": "settlement", "currency": "CNY", "count": 1, "balance": 2_095_294},
            ],
            "open_work": {"pending_requests": 0, "pending_reversals": 0},
        }

    def filtered(self, query: dict[str, str]) -> list[int]:
        """Indexes of the rows that fit, the newest first."""
        found = []
        for index in reversed(range(len(self.books.rows))):
            values = self.books.rows[index].values
            item = self.item(index)
            exact = ("kind", "outcome", "merchant_id", "terminal_id", "rrn", "card_token")
            if any(name in query and values[name] != query[name] for name in exact):
                continue
            if query.get("txid", item["txid"]) != item["txid"]:
                continue
            if query.get("side", item["side"]) != item["side"]:
                continue
            if values["amount"] < int(query.get("min_amount", 0)):
                continue
            if values["amount"] > int(query.get("max_amount", 10**12)):
                continue
            if "from" in query and item["recorded_at"] < query["from"]:
                continue
            if "to" in query and item["recorded_at"] > query["to"]:
                continue
            found.append(index)
        return found

    def _application(self) -> FastAPI:
        app = FastAPI(openapi_url=None)

        @app.get("/checkpoint")
        async def checkpoint() -> Response:
            if self.checkpoint is not None:
                return PlainTextResponse(self.checkpoint)
            anchored = [batch for batch in self.books.batches if batch["anchor"]]
            if not anchored:
                return _problem(404, "nothing anchored")
            return PlainTextResponse(anchored[-1]["note"])

        @app.middleware("http")
        async def gate(request: Request, call_next: Any) -> Response:
            self.requests.append(f"{request.method} {request.url.path}")
            if self.away:
                return _problem(503, "unavailable")
            known = request.headers.get("authorization") == f"Bearer {API_KEY}"
            if self.refuses or not known:
                return _problem(401, "unauthorized")
            answer: Response = await call_next(request)
            return answer

        @app.get("/v1/overview")
        async def overview(minutes: int = 60) -> Any:
            return self.overview(minutes)

        @app.get("/v1/transactions/stream")
        async def stream() -> Response:
            return StreamingResponse(self._events(), media_type="text/event-stream")

        @app.get("/v1/transactions")
        async def transactions(request: Request) -> Any:
            query = dict(request.query_params)
            limit, start = int(query.get("limit", 50)), int(query.get("cursor", 0))
            found = self.filtered(query)
            more = start + limit < len(found)
            return {
                "items": [self.item(index) for index in found[start : start + limit]],
                "next": str(start + limit) if more else None,
            }

        @app.get("/v1/transactions/{txid}")
        async def transaction(txid: str) -> Any:
            index = self._index(txid)
            return _problem(404, "unknown") if index is None else self.transaction(index)

        @app.get("/v1/transactions/{txid}/proof")
        async def proof(txid: str) -> Response:
            wanted = self.swapped.get(bytes.fromhex(txid), bytes.fromhex(txid))
            index = self._index(wanted.hex())
            if index is None:
                return _problem(404, "unknown")
            bundle = self.books.bundle(index)
            if bundle is None:
                return _problem(409, "not anchored")
            if (offset := self.tampered.get(bytes.fromhex(txid))) is not None:
                changed = bytearray(bundle)
                changed[offset] ^= 1
                bundle = bytes(changed)
            return PlainTextResponse(bundle)

        @app.get("/v1/batches")
        async def batches(cursor: int = 0, limit: int = 25) -> Any:
            rows = [self.batch(batch) for batch in reversed(self.books.batches)]
            more = cursor + limit < len(rows)
            return {
                "items": rows[cursor : cursor + limit],
                "next": str(cursor + limit) if more else None,
            }

        @app.get("/v1/batches/{seq}")
        async def batch(seq: int) -> Any:
            if seq > len(self.books.batches):
                return _problem(404, "unknown")
            found = self.books.batches[seq - 1]
            return {**self.batch(found), "checkpoint": found["note"], "consistency": []}

        @app.get("/v1/batches/{seq}/transactions")
        async def batch_transactions(seq: int, cursor: int = 0, limit: int = 25) -> Any:
            if seq > len(self.books.batches):
                return _problem(404, "unknown")
            found = self.books.batches[seq - 1]
            rows = range(found["first_index"], found["size"])
            more = cursor + limit < len(rows)
            return {
                "items": [self.item(index) for index in rows[cursor : cursor + limit]],
                "next": str(cursor + limit) if more else None,
            }

        @app.get("/v1/members")
        async def members() -> Any:
            return {"items": self.members, "next": None}

        return app

    async def _events(self) -> AsyncIterator[str]:
        self._loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Entry] = asyncio.Queue()
        self._watchers.append(queue)
        try:
            yield "event: ready\ndata: {}\n\n"
            while not self.away:
                try:
                    entry = await asyncio.wait_for(queue.get(), 0.5)
                except TimeoutError:
                    yield "event: heartbeat\ndata: {}\n\n"
                    continue
                index = self._index(entry.txid.hex())
                assert index is not None
                yield f"event: transaction\ndata: {json.dumps(self.item(index))}\n\n"
        finally:
            self._watchers.remove(queue)


def _problem(status: int, detail: str) -> Response:
    return JSONResponse(
        {"type": "about:blank", "title": detail, "status": status, "detail": detail},
        status,
        media_type="application/problem+json",
    )
