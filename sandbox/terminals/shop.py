"""A merchant who shows a code: orders over the gateway's HTTP API, paid by a card's wallet
(docs/http-api.md)."""

from __future__ import annotations

import asyncio
import secrets
from datetime import UTC, datetime, timedelta

import httpx

from nodes.acquiring.online.codes import read_order_code
from sandbox.cards.merchant import MerchantClient, Signer
from sandbox.terminal import Terminal
from sandbox.terminals.scenario import By, Do
from sandbox.terminals.surroundings import NotThere, SimCard, Surroundings
from sandbox.terminals.till import Exchange

_LOCAL = timedelta(hours=8)


class Shop:
    """The smart till beside a terminal, with a signing key of its own, enrolled when first used."""

    def __init__(self, surroundings: Surroundings, terminal: Terminal) -> None:
        self._around = surroundings
        self._terminal = terminal
        self._client: MerchantClient | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()

    async def order(self, amount: int, currency: str) -> Exchange:
        """Make an order; its code is what the merchant shows. NotThere if it is refused."""
        client = await self._enrolled()
        body = {
            "amount": amount,
            "currency": currency,
            "local_time": f"{datetime.now(UTC) + _LOCAL:%Y-%m-%dT%H:%M:%S}",
        }
        answer = await client.post("/v1/orders", body, f"order-{secrets.token_hex(8)}")
        made = Exchange(Do.ORDER, None, amount, By.SCAN, False, currency)
        if answer.status_code != 201:
            raise NotThere(f"POST /v1/orders: {answer.status_code} {answer.text[:200]}")
        made.told_code, made.qr, made.called = "00", str(answer.json()["qr"]), answer
        return made

    async def pay(self, order: Exchange, card: SimCard) -> Exchange:
        """A wallet scans the order's code and pays with a fresh code of its own."""
        if card.wallet is None or order.qr is None:
            raise NotThere("this card is in no wallet, or there is no order")
        made = Exchange(Do.PAY_ORDER, card, order.amount, By.SCAN, False, order.currency)
        url = read_order_code(order.qr).pay_url
        try:
            made.called = await asyncio.to_thread(
                card.wallet.scan_and_pay, order.qr, url, idempotency_key=secrets.token_hex(8)
            )
            told = dict(made.called.json())
        except (httpx.HTTPError, ValueError) as error:
            raise NotThere(f"the order can't be paid ({type(error).__name__})") from None
        # A problem document has no DE39: its last word says what was wrong.
        made.told_code, made.rrn = str(told.get("code", "none")), str(told.get("rrn", ""))
        made.why = str(told.get("type", "")).rpartition(":")[2].replace("-", "_")
        return made

    async def _enrolled(self) -> MerchantClient:
        if self._around.front is None:
            raise NotThere("this network's gateway has no HTTP API")
        if self._client is None:
            signer = Signer(f"till-{secrets.token_hex(6)}")
            body = {
                "key_id": signer.key_id,
                "terminal_id": self._terminal.terminal_id,
                "algorithm": signer.algorithm,
                "public_key": signer.public_key,
            }
            await asyncio.to_thread(self._around.acquirer.post, "/v1/front-keys", body)
            self._client = MerchantClient(self._around.front, signer)
        return self._client
