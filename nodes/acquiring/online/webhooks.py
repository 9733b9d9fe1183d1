"""Webhooks: message, signature (Standard Webhooks), where one may go, when it is tried again.

The signature covers id, timestamp and body (Standard Webhooks 1.0, "Signature scheme"): header
`webhook-signature: v1,<base64 of HMAC-SHA256>` under the endpoint's secret, shown as `whsec_...`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import ipaddress
import json
import socket
import ssl
from typing import Any
from urllib.parse import urlsplit

from nodes.acquiring.online.model import Order
from nodes.acquiring.online.store import RefusedRow

#: Pauses after the attempts, in seconds; the last one repeats until a day is over.
PAUSES_S = (5, 30, 120, 600, 1_800, 3_600, 7_200)
LIFETIME_MS = 24 * 3_600_000
TIMEOUT_S = 5.0
_MAX_ANSWER = 4_096
_SECRET_LABEL = b"countersign/webhook/1"


class UrlRefused(ValueError):
    """A webhook isn't sent there; the text says why."""


class DeliveryFailed(Exception):
    """The endpoint didn't take a message; `status` where it answered at all."""

    def __init__(self, why: str, status: int | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.status = status


def secret_of(seed: bytes, endpoint_id: str) -> bytes:
    """An endpoint's secret, 32 bytes, derived from a key of the node: it stands nowhere."""
    return hmac.digest(seed, _SECRET_LABEL + endpoint_id.encode(), hashlib.sha256)


def shown_secret(secret: bytes) -> str:
    """As the merchant gets it."""
    return "whsec_" + base64.b64encode(secret).decode("ascii")


def signature(secret: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """The value of webhook-signature."""
    content = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret, content, hashlib.sha256)).decode("ascii")


def message_of(row: tuple[Any, ...], order_id: str | None) -> tuple[str, bytes]:
    """The id and the body of the message about a transaction (store.next_transactions)."""
    (_, _, txid, kind, outcome, amount, currency, merchant_id, terminal_id, rrn) = row[:10]
    approval_code, pan_masked, decided_ms, _, _, original = row[10:]
    approved = outcome == "approved"
    paid = approved and order_id is not None and kind == "purchase"
    data = {
        "txid": bytes(txid).hex(),
        "kind": kind,
        "outcome": outcome,
        "approved": approved,
        "amount": amount,
        "currency": currency,
        "merchant_id": merchant_id,
        "terminal_id": terminal_id,
        "rrn": rrn,
        "approval_code": approval_code,
        "card": pan_masked,
        "decided_ms": decided_ms,
        "order_id": order_id,
        "original_txid": bytes(original).hex() if original is not None else None,
    }
    return f"msg_{bytes(txid).hex()}", _body("order.paid" if paid else f"{kind}.completed", data)


def message_of_refusal(row: RefusedRow, order_id: str | None) -> tuple[str, bytes]:
    """The id and the body of the message about a request that never became a transaction.

    Its idempotency key at the node makes the id: a request is refused once.
    """
    data = {
        "txid": None,
        "kind": row.kind,
        "outcome": row.outcome,
        "approved": False,
        "amount": row.amount,
        "currency": row.currency,
        "merchant_id": row.merchant_id,
        "terminal_id": row.terminal_id,
        "rrn": row.rrn,
        "approval_code": None,
        "card": row.pan_masked,
        "decided_ms": row.refused_ms,
        "order_id": order_id,
        "original_txid": None,
    }
    return f"msg_{row.idempotency_key.hex()}", _body(f"{row.kind}.refused", data)


def message_of_expiry(order: Order) -> tuple[str, bytes]:
    """The id and the body of the message about an order whose time was over before it was paid."""
    data = {
        "order_id": order.order_id,
        "merchant_id": order.merchant_id,
        "terminal_id": order.terminal_id,
        "amount": order.amount,
        "currency": order.currency,
        "reference": order.reference,
        "attempts": order.attempt,
        "expired_ms": order.expires_ms,
    }
    return f"msg_order_{order.order_id}", _body("order.expired", data)


def _body(kind: str, data: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "data": data}, separators=(",", ":")).encode()


def next_attempt(created_ms: int, attempts: int, now_ms: int) -> int | None:
    """When a message that wasn't taken is tried again; None once a day is over."""
    pause = PAUSES_S[min(attempts, len(PAUSES_S)) - 1]
    when = now_ms + 1_000 * pause
    return when if when <= created_ms + LIFETIME_MS else None


def check_url(url: str, *, private_allowed: bool) -> None:
    """UrlRefused unless it is an https URL without credentials (http only where private is)."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        raise UrlRefused("the port is no number") from None
    if parts.scheme != "https" and not (private_allowed and parts.scheme == "http"):
        raise UrlRefused("the URL must be https")
    if not parts.hostname or parts.username is not None or parts.fragment or port == 0:
        raise UrlRefused("the URL needs a host, and no credentials or fragment")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise UrlRefused("the URL has characters that must be escaped")


def resolve(host: str, port: int, *, private_allowed: bool) -> str:
    """One address of a host, looked up once and used as it is. UrlRefused, DeliveryFailed.

    If any of its addresses is not a public one, none is used: what a name means can change between
    two look-ups.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        raise DeliveryFailed("the host can't be resolved") from None
    addresses = [str(entry[4][0]) for entry in found]
    for address in addresses:
        parsed = ipaddress.ip_address(address.partition("%")[0])
        mapped = getattr(parsed, "ipv4_mapped", None)
        if not (mapped or parsed).is_global and not private_allowed:
            raise UrlRefused("the host has a private address")
    return addresses[0]


def deliver(url: str, headers: dict[str, str], body: bytes, *, private_allowed: bool) -> int:
    """POST a message; the status if it was taken (2xx). Redirects aren't followed.

    DeliveryFailed or UrlRefused if it wasn't.
    """
    check_url(url, private_allowed=private_allowed)
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    address = resolve(host, port, private_allowed=private_allowed)
    connection = _connection(parts.scheme, host, address, port)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request("POST", target, body, {"Host": parts.netloc, **headers})
        answer = connection.getresponse()
        answer.read(_MAX_ANSWER)
    except (OSError, http.client.HTTPException) as error:
        raise DeliveryFailed(type(error).__name__) from None
    finally:
        connection.close()
    if not 200 <= answer.status < 300:
        raise DeliveryFailed(f"answered {answer.status}", answer.status)
    return answer.status


def _connection(scheme: str, host: str, address: str, port: int) -> http.client.HTTPConnection:
    """A connection to the address that was looked up; TLS is checked for the host's name."""
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        opened: socket.socket = socket.create_connection((address, port), timeout=TIMEOUT_S)
        if scheme == "https":
            opened = ssl.create_default_context().wrap_socket(opened, server_hostname=host)
    except OSError as error:
        raise DeliveryFailed(type(error).__name__) from None
    connection.sock = opened
    return connection
