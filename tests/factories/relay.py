"""A member's node as far as whoever brings an overdue promise sees it: it records what comes and
answers what a test tells it to."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from nodes.anchoring.receipt import Promise
from nodes.chain.challenges import claim_id_of

PATH = "/v1/receipts/claims"


def sent_of(promise: Promise) -> dict[str, Any]:
    """What a node is sent of a promise: all that the chain must see, and not salt_fin."""
    return {
        "member_id": promise.member_id,
        "txid": promise.txid.hex(),
        "commitment": promise.commitment.hex(),
        "merge_deadline": promise.merge_deadline,
        "signature": promise.signature.hex(),
    }


@dataclass
class Relay:
    """A node's address, what it was asked, and what it answers."""

    url: str = ""
    status: int = 202
    raw: bytes = b"{}"
    media_type: str = "application/json"
    #: Method, path and document (None without a body) of each request but preflights.
    asked: list[tuple[str, str, Any]] = field(default_factory=list)
    #: Served at /r, for a page that a node serves.
    page: str = ""

    def answers(
        self, promise: Promise, state: str, by: int | None = None, reason: str | None = None
    ) -> None:
        """From now on: this state of the promise's claim."""
        claim_id = claim_id_of(promise.member_id, promise.txid, promise.commitment).hex()
        told = {"claim_id": claim_id, "state": state, "answer_by": by, "reason": reason}
        self.says(202, told)

    def refuses(self, status: int, kind: str, detail: str, **extra: Any) -> None:
        """From now on: a problem document."""
        kind = f"urn:countersign:problem:{kind}"
        self.says(status, {"type": kind, "status": status, "detail": detail, **extra})
        self.media_type = "application/problem+json"

    def says(self, status: int, document: dict[str, Any]) -> None:
        """From now on: this status and this JSON."""
        self.status, self.raw = status, json.dumps(document).encode()
        self.media_type = "application/json"


@contextmanager
def relay_node() -> Iterator[Relay]:
    """A relay on the loopback, with the CORS headers of a node."""
    relay = Relay()

    class Door(http.server.BaseHTTPRequestHandler):
        def do_OPTIONS(self) -> None:
            self.send_response(204)
            self._allow()

        def do_GET(self) -> None:
            if relay.page and self.path == "/r":
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.end_headers()
                self.wfile.write(relay.page.encode())
                return
            relay.asked.append(("GET", self.path, None))
            self._answer()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            relay.asked.append(("POST", self.path, json.loads(body)))
            self._answer()

        def _answer(self) -> None:
            self.send_response(relay.status)
            self.send_header("Content-Type", relay.media_type)
            self._allow()
            self.wfile.write(relay.raw)

        def _allow(self) -> None:
            self.send_header("Access-Control-Allow-Origin", "*")
            self.send_header("Access-Control-Allow-Headers", "content-type")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Door)
    relay.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield relay
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
