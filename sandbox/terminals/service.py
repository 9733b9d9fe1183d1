"""The simulator as a loopback HTTP service: what the console's virtual POS asks.

Sandbox only. Every call carries the service's key; card numbers and PINs stay inside but for the
PIN that is entered.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import hmac
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
from aiohttp import web

from gateway.receipts.model import (
    Chip,
    Copy,
    Cvm,
    Language,
    ReceiptContent,
    ReceiptRefused,
    Wanted,
    content_of,
)
from gateway.receipts.rendering import Form, render
from nodes.emv import tlv
from sandbox.cards.chip import AID
from sandbox.terminal import NoAnswer, NotAuthentic, Terminal
from sandbox.terminals.display import shown
from sandbox.terminals.scenario import By, CardPlan, Do, Fault, TerminalPlan
from sandbox.terminals.scenario import Form as CardForm
from sandbox.terminals.surroundings import NotThere, SimCard, Surroundings
from sandbox.terminals.till import Exchange, Till

#: The cards in the simulator's drawer, made when they are first asked for.
DRAWER = {
    "chip": CardPlan(CardForm.CHIP, 50_000, "123456"),
    "chip-poor": CardPlan(CardForm.CHIP, 500, "123456"),
    "stripe": CardPlan(CardForm.STRIPE, 50_000, "123456"),
    "plain": CardPlan(CardForm.PLAIN, 50_000, "123456"),
    "virtual": CardPlan(CardForm.VIRTUAL, 50_000, "123456"),
}
_CHINA = timezone(timedelta(hours=8))
#: What a gateway says by itself (docs/iso8583.md, Response codes): nothing of it is in any books.
_REFUSALS = {
    "none": "No answer came: the terminal has reversed it.",
    "A0": "The gateway refused it: its MAC is wrong or missing.",
    "12": "The gateway refused it: it doesn't serve this.",
    "13": "The gateway refused it: the amount or its currency.",
    "14": "The gateway refused it: the card number.",
    "30": "The gateway refused it: its format.",
    "55": "The gateway refused it: the PIN block.",
    "58": "The gateway refused it: it doesn't know the terminal.",
    "96": "The gateway can't serve it now.",
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class SimulatorService:
    """One simulator: its terminals, its drawer of cards, its last payment a terminal."""

    def __init__(self, surroundings: Surroundings, key: str, currency: str = "CNY") -> None:
        self._around = surroundings
        self._key = key
        self._currency = currency
        self._cards: dict[str, SimCard] = {}
        self._terminals: dict[str, Terminal] = {}
        self._busy = asyncio.Lock()
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; the port that was bound."""
        app = web.Application(client_max_size=16 << 10, middlewares=[self._guarded])
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/simulator", self._drawer)
        app.router.add_post("/v1/simulator/payments", self._pay)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        bound: int = self._runner.addresses[0][1]
        return bound

    async def close(self) -> None:
        """Stop listening; close the terminals' connections."""
        if self._runner is not None:
            await self._runner.cleanup()
        for terminal in self._terminals.values():
            await terminal.close()

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        sent = request.headers.get("Authorization", "")
        if request.path != "/health" and not hmac.compare_digest(sent, f"Bearer {self._key}"):
            return _problem(401, "key-unknown", "Send the simulator's key.")
        try:
            return await handler(request)
        except (NotThere, NotAuthentic, ReceiptRefused) as error:
            return _problem(422, "not-played", str(error))
        except NoAnswer as silence:
            return _problem(422, "not-answered", f"The gateway gave no answer: {silence}.")

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _drawer(self, _: web.Request) -> web.Response:
        terminals = [
            {
                "terminal_id": name,
                "merchant_id": merchant,
                "merchant_name": self._around.names.get(merchant, merchant),
            }
            for name, merchant, _ in self._around.terminals
        ]
        cards = [
            {"name": name, "form": plan.form.value, "balance": plan.balance, "pin": plan.pin}
            for name, plan in DRAWER.items()
        ]
        return web.json_response(
            {
                "terminals": terminals,
                "cards": cards,
                "by": [by.value for by in By],
                "faults": [fault.value for fault in Fault],
                "currency": self._currency,
            }
        )

    async def _pay(self, request: web.Request) -> web.Response:
        asked = _Asked.of(await _json(request))
        async with self._busy:
            terminal = await self._terminal(asked.terminal_id)
            card = await self._card(asked.card)
            if terminal.module.due:
                await self._around.ready(terminal)
            made = await Till(terminal).present(
                Do.PAY, card, asked.amount, by=asked.by, pin=asked.pin or None, fault=asked.fault
            )
        receipt = await asyncio.to_thread(self._receipt, made, terminal, asked)
        messages = [
            {"way": "sent", **shown(made.request, terminal.dialect, terminal.module.suite)},
            *(
                {"way": way, **shown(frame, terminal.dialect, terminal.module.suite)}
                for reply in made.replies
                for way, frame in _frames(reply.request, reply.response, made.request)
            ),
        ]
        return web.json_response(
            {
                "code": made.code,
                "approved": made.reply is not None and made.reply.approved,
                "authentic": made.reply is not None and made.reply.authentic,
                "reversed": made.reversed_by is not None,
                "chip": made.chip.outcome.value if made.chip is not None else None,
                "pan_masked": card.masked,
                "messages": messages,
                "txid": (receipt.txid or None) if receipt else None,
                "outcome": receipt.outcome if receipt and receipt.txid else None,
                "refusal": None if receipt and receipt.txid else _REFUSALS.get(made.code),
                "receipt": base64.b64encode(receipt.picture).decode() if receipt else None,
                "receipt_text": receipt.text if receipt else None,
                "proof_url": receipt.proof_url if receipt else None,
            }
        )

    async def _terminal(self, name: str) -> Terminal:
        if name not in self._terminals:
            plan = TerminalPlan(terminal_id=name)
            self._terminals[name] = await asyncio.to_thread(self._around.new_terminal, plan)
        terminal = self._terminals[name]
        await terminal.connect()
        return terminal

    async def _card(self, name: str) -> SimCard:
        if name not in DRAWER:
            raise NotThere(f"cards are {', '.join(DRAWER)}")
        if name not in self._cards:
            self._cards[name] = await asyncio.to_thread(
                self._around.new_card, name, DRAWER[name], self._currency
            )
        return self._cards[name]

    def _receipt(self, made: Exchange, terminal: Terminal, asked: _Asked) -> _Printed | None:
        """The customer's copy; None without an answer."""
        reply = made.reply
        if reply is None or not reply.rrn:
            return None
        content = self._recorded(made) or _unrecorded(made, terminal)
        chip = _chip(made)
        if chip is not None and content.chip is None:
            content = msgspec.structs.replace(content, chip=chip)
        wanted = Wanted(Copy.CUSTOMER, asked.language, asked.width)
        text = render(content, wanted, Form.TEXT).decode()
        picture = render(content, wanted, Form.PNG)
        return _Printed(picture, text, content.proof_url, content.txid, content.outcome)

    def _recorded(self, made: Exchange) -> ReceiptContent | None:
        """What the acquirer's node says of it; None if it recorded nothing."""
        assert made.reply is not None
        with self._around.acquirer.client() as client, contextlib.suppress(httpx.HTTPError):
            page = client.get("/v1/transactions", params={"rrn": made.reply.rrn}).json()
            for item in page.get("items", []):
                if item["side"] == "acquirer":
                    path = f"/v1/transactions/{item['txid']}/receipt"
                    answer = client.post(path, json={})
                    return content_of(answer.json()) if answer.is_success else None
        return None


class _Printed(NamedTuple):
    """A receipt: PNG, text, the proof's link; txid (empty: none) and outcome of the books."""

    picture: bytes
    text: str
    proof_url: str | None
    txid: str
    outcome: str


class _Asked:
    """One payment, as the page asks for it. NotThere for what makes no sense."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.terminal_id = str(document["terminal_id"])
        self.card = str(document["card"])
        self.by = By(document["by"])
        self.amount = int(document["amount"])
        self.pin = str(document.get("pin", ""))
        self.fault = Fault(document["fault"]) if document.get("fault") else None
        self.language = Language(document.get("language", "en"))
        self.width = int(document.get("width", 58))

    @classmethod
    def of(cls, document: Any) -> _Asked:
        try:
            asked = cls(dict(document))
        except (KeyError, ValueError, TypeError):
            raise NotThere("a payment has terminal_id, card, by, amount and perhaps pin") from None
        if not 0 < asked.amount < 10**12 or (asked.pin and not asked.pin.isdecimal()):
            raise NotThere("an amount is above 0, a PIN is digits")
        if asked.pin and not 4 <= len(asked.pin) <= 12:
            raise NotThere("a PIN is 4 to 12 digits")
        return asked


def _frames(request: bytes, response: bytes, first: bytes) -> list[tuple[str, bytes]]:
    found = [("answered", response)]
    return found if request == first else [("sent", request), *found]


def _unrecorded(made: Exchange, terminal: Terminal) -> ReceiptContent:
    """A receipt of what the gateway refused: there is nothing in anybody's books."""
    assert made.reply is not None
    assert made.card is not None
    fields = made.reply.fields
    return ReceiptContent(
        txid="",
        kind="purchase",
        approved=False,
        outcome=made.reply.code,
        amount=0,
        currency=made.currency,
        merchant_id=terminal.merchant_id,
        merchant_name=terminal.merchant_id,
        terminal_id=terminal.terminal_id,
        acquirer="-",
        issuer="-",
        pan_masked=made.card.masked,
        entry_mode=(made.message.text.get(22, "") if made.message else ""),
        batch=terminal.batch,
        stan=fields.get(11, ""),
        rrn=made.reply.rrn,
        local_time=datetime.now(UTC).astimezone(_CHINA),
        cvm=Cvm.PIN if made.with_pin else Cvm.NONE,
    )


def _chip(made: Exchange) -> Chip | None:
    if made.icc is None or made.atc is None:
        return None
    arqc = next(e.value for e in tlv.decode(made.icc) if e.tag == "9F26")
    return Chip(aid=AID.hex(), cryptogram=arqc.hex(), atc=made.atc)


async def _json(request: web.Request) -> Any:
    try:
        return await request.json()
    except ValueError:
        raise NotThere("the body is no JSON") from None


def _problem(status: int, kind: str, detail: str) -> web.Response:
    document = {"type": f"urn:countersign:problem:{kind}", "status": status, "detail": detail}
    return web.json_response(document, status=status, content_type="application/problem+json")


async def serve(surroundings: Surroundings, host: str, port: int, key: str) -> None:
    """Serve until the process is told to stop."""
    service = SimulatorService(surroundings, key)
    await service.start(host, port)
    try:
        await asyncio.Event().wait()
    finally:
        await service.close()


def main(arguments: list[str] | None = None) -> None:
    """`python -m sandbox.terminals.service --network F --port N --key-file F`."""
    parser = argparse.ArgumentParser(prog="simulator")
    parser.add_argument("--network", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--key-file", type=Path, required=True)
    chosen = parser.parse_args(arguments)
    key = chosen.key_file.read_text(encoding="ascii").strip()
    surroundings = Surroundings.of(json.loads(chosen.network.read_text(encoding="utf-8")))
    asyncio.run(serve(surroundings, "127.0.0.1", chosen.port, key))


if __name__ == "__main__":
    main()
