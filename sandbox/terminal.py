"""A simulated POS terminal: speaks docs/iso8583.md over TCP, with switches for misbehaviour.

    async with Terminal("T0000001", "M00000000000001", tmk, host, port) as terminal:
        await terminal.sign_on()
        reply = await terminal.purchase(card, 1250, pin="123456")
        reply.code, reply.fields[38]

One terminal sends one message at a time. Every answer's MAC is checked; an answer without one (the
gateway didn't verify the request's MAC then) is marked `authentic=False`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self

from gateway.iso8583.codec import Message
from gateway.iso8583.dialect import BCD_TPDU, Dialect
from gateway.iso8583.spec import Suite
from gateway.pos import framing
from gateway.terminal_keys.model import KeyManagement
from nodes.money import numeric_code
from sandbox.secure_module import NotAuthentic, SecureModule, TerminalKeys

__all__ = ["Card", "NoAnswer", "NotAuthentic", "Reply", "Terminal"]

DEFAULT_TPDU = bytes.fromhex("6000010002")
PURCHASE, VOID, REFUND, BALANCE = "000000", "020000", "200000", "310000"
TOP_UP = "210000"
#: DE25: at the counter, a pre-authorized amount, an incremental authorization.
NORMAL, PREAUTHORIZED, INCREMENTAL = "00", "06", "60"
SIGN_ON, ECHO = "990000", "990001"
HOTLIST, PARAMETERS, CLOSE = "990002", "990003", "920000"
#: Elements of a message that its upload (0320) repeats.
_UPLOADED = frozenset({2, 3, 4, 7, 11, 12, 13, 14, 22, 25, 35, 37, 41, 42, 49, 60})
#: Local time of the simulated shops: China Standard Time.
_LOCAL = timedelta(hours=8)


@dataclass(frozen=True, slots=True)
class Card:
    """What a terminal reads off a card. `expiry` is YYMM."""

    pan: str = field(repr=False)
    expiry: str
    service_code: str | None = None
    currency: str = "CNY"


@dataclass(frozen=True, slots=True)
class Reply:
    """One exchange: the answer's elements (text ones) and both frames as they were on the wire."""

    mti: str
    code: str
    fields: Mapping[int, str]
    authentic: bool
    request: bytes = field(repr=False)
    response: bytes = field(repr=False)
    binary: Mapping[int, bytes] = field(default_factory=dict, repr=False)

    @property
    def approved(self) -> bool:
        """Whether DE39 is 00: the whole amount."""
        return self.code == "00"

    @property
    def partial_amount(self) -> int | None:
        """Minor units of a partial approval (DE39 is 10), else None."""
        return int(self.fields[4]) if self.code == "10" else None

    @property
    def rrn(self) -> str:
        """DE37, which refund, completion, increment and void name."""
        return self.fields.get(37, "")

    @property
    def balances(self) -> dict[str, int]:
        """DE54 in minor units: "ledger" and "available", where they were sent."""
        amounts = self.fields.get(54, "")
        found: dict[str, int] = {}
        for start in range(0, len(amounts), 20):
            part = amounts[start : start + 20]
            name = {"01": "ledger", "02": "available"}.get(part[2:4])
            if name is not None:
                found[name] = int(part[8:]) * (-1 if part[7] == "D" else 1)
        return found


class NoAnswer(Exception):
    """The gateway closed the connection or said nothing in time."""


class Terminal:
    """One terminal with its keys, its connection and its trace numbers.

    `tmk`: the terminal master key of an SM terminal that signs on by it; `keys` for any other.
    """

    def __init__(
        self,
        terminal_id: str,
        merchant_id: str,
        tmk: bytes,
        host: str,
        port: int,
        *,
        keys: TerminalKeys | None = None,
        dialect: Dialect = BCD_TPDU,
        cover: bool = False,
        tpdu: bytes = DEFAULT_TPDU,
        batch: str = "000001",
        first_stan: int = 1,
        timeout_s: float = 20.0,
    ) -> None:
        self.terminal_id = terminal_id
        self.merchant_id = merchant_id
        self.host = host
        self.port = port
        self.tpdu = tpdu
        self.batch = batch
        self.timeout_s = timeout_s
        #: How far the terminal's date is from today's.
        self.day_shift = timedelta(0)
        self.stan = first_stan - 1
        self.dialect = dialect
        #: Whether card data travels covered.
        self.cover = cover
        #: Misbehaviour for the next messages: a wrong MAC, or none at all.
        self.bad_mac = False
        self.no_mac = False
        #: Every frame from now on, if somebody wants them: whether it was sent, and its bytes.
        self.trace: list[tuple[bool, bytes]] | None = None
        self.module = SecureModule(
            terminal_id, keys or TerminalKeys(Suite.SM, KeyManagement.TMK, tmk)
        )
        self._module = self.module.hsm
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    def __repr__(self) -> str:
        return f"Terminal({self.terminal_id!r})"

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def connect(self) -> None:
        """Open the connection (again)."""
        await self.close()
        self._reader, self._writer = await asyncio.open_connection(self.host, self.port)

    async def close(self) -> None:
        """Close the connection; keys and trace numbers stay."""
        writer, self._reader, self._writer = self._writer, None, None
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    @property
    def epoch(self) -> int:
        """The key epoch of the next message; 0: the static keys, or keys by transaction."""
        return self.module.epoch

    # What a terminal does

    async def sign_on(self) -> Reply:
        """Get the working keys of the present epoch and use them from now on."""
        message = self._management(SIGN_ON)
        message.binary[62] = self.module.sign_on(message.text[11])
        reply = await self.exchange(message, epoch=0)
        if reply.approved and reply.authentic:
            self._take(reply.binary[62])
        return reply

    async def echo(self) -> Reply:
        """Ask whether the gateway is there."""
        message = self._management(ECHO)
        self.module.protect(message)
        return await self.exchange(message)

    async def purchase(
        self,
        card: Card,
        amount: int,
        pin: str | None = None,
        *,
        track2: bool = False,
        partial_ok: bool = False,
    ) -> Reply:
        """Buy for `amount` minor units; with `partial_ok` less will do."""
        message = self.request("0200", PURCHASE, card, amount, pin, track2=track2)
        return await self.exchange(self._flagged(message, partial_ok=partial_ok))

    async def balance(self, card: Card, pin: str | None = None) -> Reply:
        """Ask for the card's balance."""
        return await self.exchange(self.request("0200", BALANCE, card, 0, pin))

    async def refund(self, card: Card, amount: int, rrn: str, pin: str | None = None) -> Reply:
        """Give back `amount` of the purchase that was answered with `rrn` (DE37)."""
        return await self.exchange(self.request("0200", REFUND, card, amount, pin, original=rrn))

    async def authorize(
        self,
        card: Card,
        amount: int,
        pin: str | None = None,
        *,
        track2: bool = False,
        partial_ok: bool = False,
    ) -> Reply:
        """Have `amount` held; completions take it."""
        message = self.request(
            "0100", PURCHASE, card, amount, pin, track2=track2, condition=PREAUTHORIZED
        )
        return await self.exchange(self._flagged(message, partial_ok=partial_ok))

    async def increment(self, card: Card, amount: int, rrn: str, pin: str | None = None) -> Reply:
        """Raise the hold of the authorization that was answered with `rrn` by `amount`."""
        return await self.exchange(
            self.request("0100", PURCHASE, card, amount, pin, condition=INCREMENTAL, original=rrn)
        )

    async def complete(self, card: Card, amount: int, rrn: str, *, more: bool = False) -> Reply:
        """Take `amount` of an authorization; with `more` further completions will follow."""
        message = self.request(
            "0220", PURCHASE, card, amount, condition=PREAUTHORIZED, original=rrn
        )
        return await self.exchange(self._flagged(message, more=more))

    async def advice(self, card: Card, amount: int) -> Reply:
        """Tell of a purchase that has happened offline."""
        return await self.exchange(self.request("0220", PURCHASE, card, amount))

    async def void(
        self, card: Card, amount: int, rrn: str, *, authorization: bool = False
    ) -> Reply:
        """Take back the purchase, completion or authorization that was answered with `rrn`."""
        mti = "0100" if authorization else "0200"
        return await self.exchange(self.request(mti, VOID, card, amount, original=rrn))

    async def reversal(self, original: Reply | bytes, amount: int | None = None) -> Reply:
        """Take a request back, whether or not an answer to it came; `original`: reply or frame.

        With `amount` (minor units) only that much of it.
        """
        return await self.exchange(self.reversal_of(original, amount))

    async def resend(self, raw: Reply | bytes) -> Reply:
        """The same bytes again."""
        frame = raw.request if isinstance(raw, Reply) else raw
        return await self.send_frame(frame)

    # Messages

    def request(
        self,
        mti: str,
        processing_code: str,
        card: Card,
        amount: int,
        pin: str | None = None,
        *,
        track2: bool = False,
        condition: str = NORMAL,
        original: str | None = None,
        now: datetime | None = None,
        mode: str | None = None,
        track: str | None = None,
        chip: tuple[str, bytes] | None = None,
        partial_ok: bool = False,
        stan: str | None = None,
    ) -> Message:
        """A financial message with the next trace number (or `stan`), without DE64.

        `condition`: DE25. `original`: DE37 of the answer to what this message follows up. `mode`:
        first two digits of DE22. `track`: DE35 as it was read. `chip`: sequence number and DE55.
        """
        moment = (now or datetime.now(UTC)).astimezone(UTC)
        local = moment + _LOCAL + self.day_shift
        text = {
            3: processing_code,
            4: f"{amount:012d}",
            7: f"{moment:%m%d%H%M%S}",
            11: stan or self.next_stan(),
            12: f"{local:%H%M%S}",
            13: f"{local:%m%d}",
            22: f"{'02' if track2 else '01'}{'1' if pin else '2'}",
            25: condition,
            41: self.terminal_id,
            42: self.merchant_id,
            49: numeric_code(card.currency),
            60: self.batch,
        }
        if mode is not None:
            text[22] = f"{mode}{text[22][2]}"
        if track2 or track is not None:
            text[35] = track or f"{card.pan}D{card.expiry}{card.service_code or '120'}00000"
        else:
            text[2], text[14] = card.pan, card.expiry
        if original is not None:
            text[37] = original
        message = self._flagged(Message(mti, text), partial_ok=partial_ok)
        if chip is not None:
            message.text[23], message.binary[55] = f"0{chip[0]}", chip[1]
        self.module.protect(message, pin=pin, pan=card.pan, cover=self.cover)
        return message

    def reversal_of(self, original: Reply | bytes, amount: int | None = None) -> Message:
        """The 0400 for a request frame: its trace number, date, terminal and batch.

        `amount`: how much of it, minor units; None: all.
        """
        frame = original.request if isinstance(original, Reply) else original
        sent = self.module.open(frame, self.dialect)
        numbers = (2, 3, 4, 11, 12, 13, 14, 22, 25, 35, 41, 42, 49, 60)
        text = {number: sent.text[number] for number in numbers if number in sent.text}
        text[7] = f"{datetime.now(UTC):%m%d%H%M%S}"
        if amount is not None:
            text[4] = f"{amount:012d}"
        message = Message("0400", text)
        self.module.protect(message, cover=self.cover)
        return message

    def download_of(self, code: str, version: int | None = None) -> Message:
        """The 0800 that asks for a page: HOTLIST (with the version that the terminal has) or
        PARAMETERS."""
        message = self._management(code)
        if version is not None:
            message.text[63] = f"{version:010d}"
        self.module.protect(message)
        return message

    def close_of(self, totals: str) -> Message:
        """The 0500 of the present batch; `totals`: DE63."""
        message = self._management(CLOSE)
        message.mti = "0500"
        local = datetime.now(UTC) + _LOCAL + self.day_shift
        message.text |= {13: f"{local:%m%d}", 60: self.batch, 63: totals}
        self.module.protect(message)
        return message

    def upload_of(self, original: bytes, amount: int) -> Message:
        """The 0320 of a request frame; `amount`: what is left of it, minor units."""
        sent = self.module.open(original, self.dialect)
        text = {number: value for number, value in sent.text.items() if number in _UPLOADED}
        binary = {57: sent.binary[57]} if 57 in sent.binary else {}
        message = Message.of("0320", text | {4: f"{amount:012d}", 63: sent.mti}, binary)
        self.module.protect(message, cover=self.cover)
        return message

    @staticmethod
    def _flagged(message: Message, *, partial_ok: bool = False, more: bool = False) -> Message:
        """The message with the flags of DE60, if one is set."""
        if partial_ok or more:
            message.text[60] += f"{partial_ok:d}{more:d}"
        return message

    def seal(self, message: Message, *, epoch: int | None = None) -> bytes:
        """The frame of a message, with its MAC (as the fault switches say)."""
        return self.module.seal(
            message,
            self.tpdu,
            self.dialect,
            epoch=epoch,
            mac=not self.no_mac,
            wrong=self.bad_mac,
        )

    # The wire

    async def exchange(self, message: Message, *, epoch: int | None = None) -> Reply:
        """Send a message and wait for its answer."""
        return await self.send_frame(self.seal(message, epoch=epoch))

    async def send_frame(self, frame: bytes) -> Reply:
        """Send a whole frame as it is and wait for its answer. NoAnswer, NotAuthentic."""
        await self.send(frame)
        return await self.receive(frame)

    async def send(self, data: bytes) -> None:
        """Put bytes on the wire: garbage, too, for those who want that."""
        if self._writer is None:
            await self.connect()
        assert self._writer is not None
        if self.trace is not None:
            self.trace.append((True, data))
        self._writer.write(data)
        await self._writer.drain()

    async def receive(self, request: bytes) -> Reply:
        """The next answer, read as one to `request` (a frame)."""
        if self._reader is None:
            raise NoAnswer("not connected")
        try:
            async with asyncio.timeout(self.timeout_s):
                prefix = await self._reader.readexactly(framing.LENGTH_BYTES)
                content = await self._reader.readexactly(int.from_bytes(prefix, "big"))
        except (asyncio.IncompleteReadError, ConnectionError):
            raise NoAnswer("the gateway closed the connection") from None
        except TimeoutError:
            raise NoAnswer("no answer in time") from None
        if self.trace is not None:
            self.trace.append((False, prefix + content))
        return self._read(request, prefix + content)

    def _read(self, request: bytes, response: bytes) -> Reply:
        message = self.module.verify(request, response, self.dialect)
        authentic = 64 in message.binary
        return Reply(
            mti=message.mti,
            code=message.text.get(39, ""),
            fields=message.text,
            authentic=authentic,
            request=request,
            response=response,
            binary=message.binary,
        )

    def _management(self, processing_code: str) -> Message:
        return Message(
            "0800",
            {
                3: processing_code,
                7: f"{datetime.now(UTC):%m%d%H%M%S}",
                11: self.next_stan(),
                41: self.terminal_id,
                42: self.merchant_id,
            },
        )

    def next_stan(self) -> str:
        """The next trace number, six digits."""
        self.stan = self.stan % 999_999 + 1
        return f"{self.stan:06d}"

    def _take(self, grant: bytes) -> None:
        """Unwrap the keys of a sign-on answer and check them."""
        self.module.accept(grant)
