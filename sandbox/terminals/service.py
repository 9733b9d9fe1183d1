"""The simulator as a loopback HTTP service: what the console's virtual POS asks.

Sandbox only. Every call carries the service's key; card numbers and PINs stay inside but for the
PIN that is entered.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hmac
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import segno
from aiohttp import web

from gateway.receipts.model import Copy, Language, ReceiptRefused, Wanted
from nodes.acquiring.offline import OfflineRefusal
from sandbox.terminal import NoAnswer, NotAuthentic
from sandbox.terminals.counter import Counter
from sandbox.terminals.display import shown, shown_call, shown_record
from sandbox.terminals.scenario import (
    OFFLINE_APPROVED,
    By,
    CardPlan,
    Do,
    Fault,
    Form,
    TerminalPlan,
)
from sandbox.terminals.slips import Slip, slip_of
from sandbox.terminals.surroundings import NotThere, SimCard, Surroundings
from sandbox.terminals.till import Exchange

#: The cards in the simulator's drawer, made when they are first asked for.
DRAWER = {
    "chip": CardPlan(Form.CHIP, 100_000, "123456", offline=50_000),
    "chip-poor": CardPlan(Form.CHIP, 500, "123456"),
    "stripe": CardPlan(Form.STRIPE, 50_000, "123456"),
    "plain": CardPlan(Form.PLAIN, 50_000, "123456"),
    "virtual": CardPlan(Form.VIRTUAL, 50_000, "123456"),
}
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
#: Why a terminal doesn't approve by itself (docs/offline.md), why an order isn't paid.
_WHY = {
    OfflineRefusal.NOT_CHIP: "Only a chip pays offline: insert it or tap it.",
    OfflineRefusal.HOTLIST_OLD: "The terminal's hotlist is too old: download it.",
    OfflineRefusal.HOTLISTED: "The card is on the hotlist.",
    OfflineRefusal.AMOUNT: "It is more than the terminal takes offline in one payment.",
    OfflineRefusal.CARD_COUNT: "The card has paid as often as it may: upload, or go online.",
    OfflineRefusal.CARD_AMOUNT: "The card has paid as much as it may: upload, or go online.",
    OfflineRefusal.TERMINAL_AMOUNT: "The terminal holds as much as it may: upload.",
    OfflineRefusal.TERMINAL_AGE: "The terminal's oldest record has waited too long: upload.",
    "order_paid": "This code was paid before: nothing more is taken.",
    "order_expired": "The code's time is over: make another one.",
    "order_being_paid": "Somebody is paying this code now.",
}
#: Messages of one deed that are shown; a long upload has more.
_SHOWN = 24
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Json = dict[str, Any]


class SimulatorService:
    """One simulator: its terminals at their counters, and its drawer of cards."""

    def __init__(self, surroundings: Surroundings, key: str, currency: str = "CNY") -> None:
        self._around = surroundings
        self._key = key
        self._currency = currency
        self._cards: dict[str, SimCard] = {}
        self._counters: dict[str, Counter] = {}
        self._busy = asyncio.Lock()
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; the port that was bound."""
        app = web.Application(client_max_size=16 << 10, middlewares=[self._guarded])
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/simulator", self._drawer)
        app.router.add_get("/v1/simulator/terminals/{terminal_id}", self._state)
        app.router.add_post("/v1/simulator/payments", self._pay)
        app.router.add_post("/v1/simulator/orders", self._order)
        app.router.add_post("/v1/simulator/order-payments", self._pay_order)
        app.router.add_post("/v1/simulator/services", self._serve)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        bound: int = self._runner.addresses[0][1]
        return bound

    async def close(self) -> None:
        """Stop listening; close the terminals' connections."""
        if self._runner is not None:
            await self._runner.cleanup()
        for counter in self._counters.values():
            await counter.shop.close()
            await counter.terminal.close()

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

    # What there is

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
            {
                "name": name,
                "form": plan.form.value,
                "balance": plan.balance,
                "offline": plan.offline,
                "pin": plan.pin,
            }
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

    async def _state(self, request: web.Request) -> web.Response:
        """What a terminal has in its memory; nothing, before it was used."""
        name = request.match_info["terminal_id"]
        if all(known != name for known, _, _ in self._around.terminals):
            raise NotThere(f"the network has no terminal {name[:8]}")
        counter = self._counters.get(name)
        found: Json = {
            "terminal_id": name,
            "batch": "",
            "counted": [],
            "waiting": 0,
            "waiting_amount": 0,
            "hotlist": None,
            "currency": self._currency,
        }
        if counter is not None:
            waiting = counter.desk.waiting
            found |= {
                "batch": counter.terminal.batch,
                "counted": [msgspec.to_builtins(each) for each in counter.batch.totals()],
                "waiting": len(waiting),
                "waiting_amount": sum(one.made.amount for one in waiting),
                "hotlist": counter.desk.listed,
            }
        return web.json_response(found)

    # What it does

    async def _pay(self, request: web.Request) -> web.Response:
        asked = _Asked.of(await _json(request))
        async with self._at(asked.terminal_id, connected=not asked.offline) as (counter, traced):
            card = await self._card(asked.card)
            if asked.offline:
                made = counter.desk.pay(card, asked.amount, asked.by)
            else:
                made = await counter.till.present(
                    Do.PAY,
                    card,
                    asked.amount,
                    by=asked.by,
                    pin=asked.pin or None,
                    signed=asked.signed,
                    fault=asked.fault,
                )
            counter.batch.note(made)
            counter.last = made
        slip = await self._slip(made, counter, asked)
        kept = asked.offline and made.code == OFFLINE_APPROVED
        if kept:
            record = counter.desk.waiting[-1].record
            traced.append({"way": "kept", **shown_record(record)})
        return web.json_response(self._told(made, traced, slip))

    async def _order(self, request: web.Request) -> web.Response:
        asked = _Asked.of(await _json(request) | {"card": "-", "by": By.SCAN.value})
        async with self._at(asked.terminal_id, connected=False) as (counter, _):
            made = counter.order = await counter.shop.order(asked.amount, self._currency)
        return web.json_response(self._told(made, _calls(made), None) | _code(made))

    async def _pay_order(self, request: web.Request) -> web.Response:
        document = await _json(request) | {"by": By.SCAN.value, "amount": 1}
        asked = _Asked.of(document)
        async with self._at(asked.terminal_id, connected=False) as (counter, _):
            if counter.order is None:
                raise NotThere("this terminal shows no code: make an order first")
            order = counter.order
            made = await counter.shop.pay(order, await self._card(asked.card))
        slip = await self._slip(made, counter, asked)
        return web.json_response(self._told(made, _calls(made), slip) | _code(order))

    async def _serve(self, request: web.Request) -> web.Response:
        """Download, upload of offline payments, close and upload of the batch."""
        document = await _json(request)
        do = next((each for each in _SERVICES if each.value == document.get("do")), None)
        if do is None:
            raise NotThere(f"do is one of {', '.join(_SERVICES)}")
        async with self._at(str(document.get("terminal_id"))) as (counter, traced):
            if document.get("forget"):
                _lose_last(counter)
            codes, words = await _SERVICES[do](counter)
        agreed = all(code == "00" for code in codes)
        told = {
            "did": do.value,
            "code": next((code for code in codes if code != "00"), "00"),
            "approved": agreed,
            "told": words,
            "answers": codes,
        }
        return web.json_response(_EMPTY | told | {"messages": traced[:_SHOWN]})

    def _told(self, made: Exchange, messages: list[Json], slip: Slip | None) -> Json:
        booked = slip is not None and slip.txid
        refusal = None if booked else _REFUSALS.get(made.code)
        if made.why:
            told = made.words or made.why.replace("_", " ")
            refusal = _WHY.get(made.why) or f"{told[:1].upper()}{told[1:]}."
        return _EMPTY | {
            "did": made.do.value,
            "code": made.code,
            "amount": made.amount,
            "approved": made.code in ("00", OFFLINE_APPROVED),
            "authentic": made.reply.authentic if made.reply is not None else None,
            "reversed": made.reversed_by is not None,
            "chip": made.chip.outcome.value if made.chip is not None else None,
            "pan_masked": made.card.masked if made.card is not None else None,
            "messages": messages[:_SHOWN],
            "txid": slip.txid if slip is not None and booked else None,
            "outcome": slip.outcome if slip is not None and booked else None,
            "refusal": refusal,
            "receipt": base64.b64encode(slip.picture).decode() if slip else None,
            "receipt_text": slip.text if slip else None,
            "proof_url": slip.proof_url if slip else None,
        }

    async def _slip(self, made: Exchange, counter: Counter, asked: _Asked) -> Slip | None:
        return await asyncio.to_thread(slip_of, self._around, counter.terminal, made, asked.wanted)

    @asynccontextmanager
    async def _at(
        self, name: str, *, connected: bool = True
    ) -> AsyncIterator[tuple[Counter, list[Json]]]:
        """A terminal's counter, nobody else's meanwhile; afterwards the list has the messages."""
        async with self._busy:
            if name not in self._counters:
                plan = TerminalPlan(terminal_id=name)
                terminal = await asyncio.to_thread(self._around.new_terminal, plan)
                self._counters[name] = Counter.at(self._around, terminal)
            counter = self._counters[name]
            terminal = counter.terminal
            if connected:
                await terminal.connect()
                if terminal.module.due:
                    await self._around.ready(terminal)
            frames: list[tuple[bool, bytes]] = []
            terminal.trace = frames
            traced: list[Json] = []
            try:
                yield counter, traced
            finally:
                terminal.trace = None
            for sent, frame in frames:
                way = "sent" if sent else "answered"
                traced.append({"way": way, **shown(frame, terminal.dialect, terminal.module.suite)})

    async def _card(self, name: str) -> SimCard:
        if name not in DRAWER:
            raise NotThere(f"cards are {', '.join(DRAWER)}")
        if name not in self._cards:
            self._cards[name] = await asyncio.to_thread(
                self._around.new_card, name, DRAWER[name], self._currency
            )
        return self._cards[name]


# --- services of a terminal ----------------------------------------------------------------------

#: What each answer has, so that a page needs no guess.
_EMPTY: Json = dict.fromkeys(
    (
        *("did", "code", "amount", "authentic", "chip", "pan_masked", "txid", "outcome", "refusal"),
        *("receipt", "receipt_text", "proof_url", "qr", "qr_text", "told"),
    )
) | {"approved": False, "reversed": False, "messages": [], "answers": []}


async def _download(counter: Counter) -> tuple[list[str], str]:
    return ["00"], f"The terminal has {await counter.desk.download()}."


async def _upload(counter: Counter) -> tuple[list[str], str]:
    if not counter.desk.waiting:
        raise NotThere("no offline payment waits at this terminal")
    sent = await counter.desk.upload()
    for made in sent:
        counter.batch.note(made)
    return [made.code for made in sent], f"{len(sent)} offline payments were uploaded."


async def _close(counter: Counter) -> tuple[list[str], str]:
    batch = counter.terminal.batch
    reply = await counter.batch.close()
    if reply.code == "00":
        begun = counter.terminal.batch
        return ["00"], f"The totals agree: batch {batch} is closed, {begun} begins."
    if reply.code == "95":
        return ["95"], "The totals differ: upload the batch, then close it again."
    return [reply.code], "The batch was not closed."


async def _upload_batch(counter: Counter) -> tuple[list[str], str]:
    replies = await counter.batch.upload()
    if not replies:
        raise NotThere("the terminal has nothing in its batch")
    return [reply.code for reply in replies], f"{len(replies)} transactions were uploaded."


_SERVICES: dict[Do, Callable[[Counter], Awaitable[tuple[list[str], str]]]] = {
    Do.DOWNLOAD: _download,
    Do.UPLOAD: _upload,
    Do.CLOSE_BATCH: _close,
    Do.UPLOAD_BATCH: _upload_batch,
}


def _lose_last(counter: Counter) -> None:
    if counter.last is None or not counter.batch.forget(counter.last):
        raise NotThere("there is no payment in the batch that the terminal could lose")


class _Asked:
    """One payment, as the page asks for it. NotThere for what makes no sense."""

    def __init__(self, document: Json) -> None:
        self.terminal_id = str(document["terminal_id"])
        self.card = str(document["card"])
        self.by = By(document["by"])
        self.amount = int(document["amount"])
        self.pin = str(document.get("pin", ""))
        self.fault = Fault(document["fault"]) if document.get("fault") else None
        self.offline = document.get("how") == "offline"
        self.signed = document.get("signed") is True
        self.wanted = Wanted(
            Copy(document.get("whose", "customer")),
            Language(document.get("language", "en")),
            int(document.get("width", 58)),
        )

    @classmethod
    def of(cls, document: Json) -> _Asked:
        try:
            asked = cls(document)
        except (KeyError, ValueError, TypeError):
            raise NotThere("a payment has terminal_id, card, by, amount and perhaps pin") from None
        if not 0 < asked.amount < 10**12 or (asked.pin and not asked.pin.isdecimal()):
            raise NotThere("an amount is above 0, a PIN is digits")
        if asked.pin and not 4 <= len(asked.pin) <= 12:
            raise NotThere("a PIN is 4 to 12 digits")
        if asked.offline and (asked.fault or asked.pin):
            raise NotThere("an offline payment has no fault here, and its PIN is never asked for")
        return asked


def _code(order: Exchange) -> Json:
    """The code that the merchant shows, as a picture."""
    picture = io.BytesIO()
    segno.make(order.qr or "", error="m", micro=False).save(picture, kind="png", scale=4)
    return {"qr": base64.b64encode(picture.getvalue()).decode(), "qr_text": order.qr}


def _calls(made: Exchange) -> list[Json]:
    if made.called is None:
        return []
    asked, answered = shown_call(made.called)
    return [{"way": "sent", **asked}, {"way": "answered", **answered}]


async def _json(request: web.Request) -> Json:
    try:
        document = await request.json()
    except ValueError:
        raise NotThere("the body is no JSON") from None
    if not isinstance(document, dict):
        raise NotThere("the body is no JSON object")
    return document


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
