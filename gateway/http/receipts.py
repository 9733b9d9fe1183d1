"""GET /receipts/{txid}.{form}: a receipt of a transaction, for whoever may print it at the node.

The caller's own API key goes on to the acquirer's node, which decides; the gateway adds none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from gateway.receipts.model import Copy, Language, ReceiptRefused, Wanted, content_of
from gateway.receipts.rendering import MEDIA_TYPES, Form, render
from nodes.api.client import NodeClient, NodeRefused, NodeUnreachable

_TXID = re.compile(r"[0-9a-f]{64}\Z")
_PARAMETERS = {"copy", "lang", "width", "duplicate"}


class ReceiptService:
    """Fetches what a receipt says from the acquirer's node and renders it."""

    def __init__(self, node_url: str) -> None:
        self._node_url = node_url

    def routes(self) -> list[web.RouteDef]:
        """For the gateway's HTTP server."""
        return [web.get("/receipts/{name}", self._get)]

    async def _get(self, request: web.Request) -> web.Response:
        txid, _, suffix = request.match_info["name"].partition(".")
        if not _TXID.match(txid) or suffix not in set(Form):
            return _problem(404, "receipt-unknown", f"/receipts/<txid>.<{'|'.join(Form)}>")
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            return _problem(401, "credentials-missing", "Send an API key of the acquirer's node.")
        try:
            async with NodeClient(self._node_url, api_key=key.strip()) as client:
                document = await client.post_json(f"/v1/transactions/{txid}/receipt", {})
            wanted = wanted_of(request.query, document)
            body = render(content_of(document), wanted, Form(suffix))
        except NodeRefused as refused:
            return web.json_response(
                refused.problem, status=refused.status, content_type="application/problem+json"
            )
        except NodeUnreachable:
            return _problem(503, "node-away", "The acquirer's node can't be asked.")
        except ReceiptRefused as refused:
            return _problem(422, "receipt-refused", str(refused))
        return web.Response(
            body=body,
            headers={
                "Content-Type": MEDIA_TYPES[Form(suffix)],
                "Content-Disposition": f'attachment; filename="receipt-{txid[:16]}.{suffix}"',
                "Cache-Control": "no-store",
            },
        )


def wanted_of(chosen: Mapping[str, str], document: Mapping[str, Any]) -> Wanted:
    """How to print: as the query says, else as the terminal's parameters do. ReceiptRefused."""
    unknown = chosen.keys() - _PARAMETERS
    if unknown:
        raise ReceiptRefused(f"known are {', '.join(sorted(_PARAMETERS))}")
    try:
        return Wanted(
            copy=Copy(chosen.get("copy", "customer")),
            language=Language(chosen.get("lang", document.get("language", "zh"))),
            width_mm=int(chosen.get("width", document.get("width_mm", 58))),
            duplicate={"0": False, "1": True}[chosen.get("duplicate", "0")],
        )
    except (ValueError, KeyError) as error:
        if isinstance(error, ReceiptRefused):
            raise
        raise ReceiptRefused(
            "copy is merchant or customer, lang en or zh, width 58 or 80, duplicate 0 or 1"
        ) from None


def _problem(status: int, kind: str, detail: str) -> web.Response:
    document = {"type": f"urn:countersign:problem:{kind}", "status": status, "detail": detail}
    return web.json_response(document, status=status, content_type="application/problem+json")
