"""The front's signed calls to its acquirer's node beside payments: keys of callers, orders."""

from __future__ import annotations

import time
from typing import Any, TypeVar

import msgspec

from gateway.http.problems import ApiProblem
from nodes.acquiring.online.model import FrontKey, Order
from nodes.api.calls import Answer, Broken, Caller, NotSent
from nodes.crypto.http_signatures import MessageSigner, SignatureRefused, verify_answer

T = TypeVar("T")
_HEADERS = {"Content-Type": "application/json", "User-Agent": "countersign"}
#: Keys are asked for again after so many seconds: so long a revoked one may still work.
KEY_S = 10.0
_KEYS_KEPT = 10_000
_DETAILS = {
    "order-unknown": "There is no such order.",
    "order-paid": "The order is paid.",
    "order-expired": "The order's time is over.",
    "order-being-paid": "Somebody is paying the order; ask again.",
    "idempotency-key-reused": "This Idempotency-Key was used for another request.",
}


class FrontLink:
    """Calls of one front. An answer that the node didn't sign is no answer."""

    def __init__(
        self, node_url: str, *, key_id: str, message_seed: bytes, node_key: bytes, acquirer: str
    ) -> None:
        self._caller = Caller(node_url)
        self._signer = MessageSigner(key_id, message_seed)
        self._node_key = node_key
        self._acquirer = acquirer
        self._keys: dict[str, tuple[float, FrontKey | None]] = {}

    def close(self) -> None:
        """Close the connections."""
        self._caller.close()

    async def key(self, key_id: str) -> FrontKey | None:
        """A caller's key, also as it was up to KEY_S ago; None if there is none."""
        now = time.monotonic()
        known = self._keys.get(key_id)
        if known is not None and now - known[0] < KEY_S:
            return known[1]
        try:
            found: FrontKey | None = await self._ask("/v1/front/key", {"key_id": key_id}, FrontKey)
        except ApiProblem as problem:
            if problem.status != 404:
                raise
            found = None
        if len(self._keys) >= _KEYS_KEPT:
            self._keys.clear()
        self._keys[key_id] = (now, found)
        return found

    async def is_new(self, key_id: str, jti: str) -> bool:
        """Whether no front of this acquirer has taken this jti of a key; this one has now."""
        found = await self._ask("/v1/front/jtis", {"key_id": key_id, "jti": jti}, dict[str, bool])
        return found["new"]

    async def make_order(self, wanted: dict[str, Any]) -> Order:
        """A new order, or the one of this idempotency key."""
        return await self._ask("/v1/front/orders", wanted, Order)

    async def order(self, order_id: str, pay_url: str) -> Order:
        """An order as it is now."""
        asked = {"order_id": order_id, "pay_url": pay_url}
        return await self._ask("/v1/front/orders/read", asked, Order)

    async def claim(self, order_id: str, pay_url: str) -> Order:
        """Take an order for one attempt to pay it."""
        asked = {"order_id": order_id, "pay_url": pay_url}
        return await self._ask("/v1/front/orders/claim", asked, Order)

    async def _ask(self, path: str, asked: dict[str, Any], of: type[T]) -> T:
        body = msgspec.json.encode(asked)
        fields = self._signer.sign_request(
            "POST", self._caller.base_url + path, body, int(time.time())
        )
        try:
            answer = await self._caller.post(path, _HEADERS | fields, body)
        except (NotSent, Broken):
            raise _away() from None
        self._check(answer, fields["Signature"].removeprefix("sig1="))
        if answer.status == 200:
            return msgspec.json.decode(answer.body, type=of)
        if answer.status in (404, 409, 422):
            kind = msgspec.json.decode(answer.body)["type"].rpartition(":")[2]
            raise ApiProblem(answer.status, kind, _DETAILS.get(kind, "The node refuses this."))
        raise _away()

    def _check(self, answer: Answer, signature: str) -> None:
        try:
            verify_answer(
                answer.headers,
                status=answer.status,
                body=answer.body,
                request_signature=signature,
                key_id=self._acquirer,
                public_key=self._node_key,
                now_s=time.time(),
            )
        except SignatureRefused:
            raise _away() from None


def _away() -> ApiProblem:
    return ApiProblem(503, "node-unavailable", "Try again with the same key.", retry_after_s=1)
