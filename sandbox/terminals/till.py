"""A terminal at which cards are presented: builds what each way of reading a card sends."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import httpx

from gateway.iso8583.codec import Message
from nodes.money import numeric_code
from sandbox.cards.chip import CardRefuses, Completed, Purchase
from sandbox.cards.wallet import track2_of_code
from sandbox.terminal import (
    BALANCE,
    NORMAL,
    PREAUTHORIZED,
    PURCHASE,
    TOP_UP,
    Card,
    NoAnswer,
    Reply,
    Terminal,
)
from sandbox.terminals.scenario import By, Do, Fault
from sandbox.terminals.surroundings import NotThere, SimCard

MODES = {
    By.KEY_IN: "01",
    By.SWIPE: "02",
    By.SCAN: "03",
    By.INSERT: "05",
    By.TAP: "07",
    By.FALLBACK: "80",
}
#: DE3 of what isn't a purchase.
_CODES = {Do.BALANCE: BALANCE, Do.TOP_UP: TOP_UP}
#: Tag 9C of the same.
_KINDS = {Do.BALANCE: 0x31, Do.TOP_UP: 0x21}
_LOCAL = timedelta(hours=8)
#: How often a reversal is repeated until its answer is there, and the pause between.
_REVERSALS, _PAUSE_S = 20, 0.5
#: Until the gateway has certainly taken in a request whose answer is then lost.
_TAKEN_IN_S = 0.4


@dataclass
class Exchange:
    """One request of a terminal and what came of it. `replies`: with repeats and reversals, in
    order; `reply`: the one that counts, None if none came."""

    do: Do
    card: SimCard | None
    amount: int
    by: By
    with_pin: bool
    currency: str = "CNY"
    request: bytes = field(default=b"", repr=False)
    reply: Reply | None = None
    replies: list[Reply] = field(default_factory=list)
    message: Message | None = field(default=None, repr=False)
    icc: bytes | None = field(default=None, repr=False)
    atc: int | None = None
    chip: Completed | None = None
    reversed_by: Reply | None = None
    same_answer: bool = False
    #: Whether the holder signs instead of entering a PIN.
    signed: bool = False
    #: What was presented instead of the card: a single-use code.
    code_track: str | None = field(default=None, repr=False)
    #: What was decided without an ISO answer (offline, an order), and why it was refused.
    told_code: str | None = None
    why: str = ""
    words: str = ""
    #: The code that a merchant shows for an order; the RRN of what paid it.
    qr: str | None = None
    rrn: str = ""
    #: What went over the HTTP API.
    called: httpx.Response | None = field(default=None, repr=False)

    @property
    def code(self) -> str:
        """DE39 of the answer that counts; "none" without one."""
        if self.told_code is not None:
            return self.told_code
        return self.reply.code if self.reply is not None else "none"


class Till:
    """Presents cards at one terminal."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal

    async def present(
        self,
        do: Do,
        card: SimCard,
        amount: int,
        *,
        by: By,
        pin: str | None = None,
        partial_ok: bool = False,
        signed: bool = False,
        fault: Fault | None = None,
    ) -> Exchange:
        """Pay, authorize or ask for the balance. NotThere if the card can't be read this way.

        `signed`: the holder signs the merchant's copy, which the chip is told of.
        """
        made = Exchange(do, card, amount, by, pin is not None, card.currency)
        made.signed = signed and pin is None
        message = await self._message(made, pin, partial_ok)
        await self._exchange(made, message, fault)
        return made

    async def follow(
        self,
        do: Do,
        of: Exchange,
        amount: int,
        *,
        more: bool = False,
        fault: Fault | None = None,
    ) -> Exchange:
        """Increment, complete, void, refund, reverse or resend an earlier one."""
        if of.card is None or not of.request:
            raise NotThere(f"there is nothing to {do}")
        made = Exchange(do, of.card, amount, of.by, False, of.currency)
        pos, card = self.terminal, _read(of.card)
        if do is Do.RESEND:
            made.request = of.request
            made.reply = await pos.resend(of.request)
            made.replies.append(made.reply)
            made.same_answer = of.reply is not None and of.reply.response == made.reply.response
            return made
        if do is Do.REVERSE:
            made.amount = amount or of.amount
            message = pos.reversal_of(of.request, amount or None)
            await self._exchange(made, message, None)
            return made
        rrn = of.reply.rrn if of.reply is not None else ""
        if do is Do.INCREMENT:
            message = pos.request("0100", PURCHASE, card, amount, condition="60", original=rrn)
        elif do is Do.COMPLETE:
            message = pos.request(
                "0220", PURCHASE, card, amount, condition=PREAUTHORIZED, original=rrn
            )
            message = pos._flagged(message, more=more)
        elif do is Do.VOID:
            mti = "0100" if of.do is Do.AUTHORIZE else "0200"
            made.amount = of.amount
            message = pos.request(mti, "020000", card, of.amount, original=rrn)
        else:
            message = pos.request("0200", "200000", card, amount, original=rrn)
        await self._exchange(made, message, fault)
        return made

    async def _message(self, made: Exchange, pin: str | None, partial_ok: bool) -> Message:
        card, by = made.card, made.by
        assert card is not None
        read, track, chip = _read(card), None, None
        if by in (By.SWIPE, By.FALLBACK):
            track = card.stripe or f"{card.pan}D{card.expiry}{card.service_code}00000"
        elif by in (By.INSERT, By.TAP):
            track, chip = self._chip(made)
        elif by is By.SCAN:
            track = await asyncio.to_thread(_shown, card)
            made.code_track = track
            number, _, rest = track.partition("D")
            read = Card(number, rest[:4], rest[4:7], card.currency)
        mti = "0100" if made.do is Do.AUTHORIZE else "0200"
        return self.terminal.request(
            mti,
            _CODES.get(made.do, PURCHASE),
            read,
            made.amount,
            pin,
            condition=PREAUTHORIZED if made.do is Do.AUTHORIZE else NORMAL,
            mode=MODES[by],
            track=track,
            chip=chip,
            partial_ok=partial_ok,
        )

    def _chip(self, made: Exchange) -> tuple[str, tuple[str, bytes]]:
        card = made.card
        if card is None or card.chip is None:
            raise NotThere("this card has no chip: swipe it, scan it or key it in")
        asked = Purchase(
            made.amount,
            numeric_code(card.currency),
            local_day(datetime.now(UTC)),
            "pin" if made.with_pin else "signature" if made.signed else "none",
            _KINDS.get(made.do, 0x00),
        )
        try:
            made.icc = card.chip.first_cryptogram(asked)
        except CardRefuses as refusal:
            raise NotThere(f"the card refuses: {refusal}") from None
        made.atc = card.chip.atc
        return card.chip.track2, (card.chip.psn, made.icc)

    # The wire, and what goes wrong on it

    async def _exchange(self, made: Exchange, message: Message, fault: Fault | None) -> None:
        pos = self.terminal
        pos.bad_mac, pos.no_mac = fault is Fault.BAD_MAC, fault is Fault.NO_MAC
        try:
            made.message, made.request = message, pos.seal(message)
        finally:
            pos.bad_mac = pos.no_mac = False
        if fault in (Fault.LOSE_ANSWER, Fault.END_OFFLINE):
            await self._lose(made, fault)
            return
        if fault is Fault.SEND_LATE:
            made.reversed_by = await pos.exchange(pos.reversal_of(made.request))
            made.replies.append(made.reversed_by)
        try:
            made.reply = await pos.send_frame(made.request)
        except NoAnswer:
            made.reply = None
        else:
            made.replies.append(made.reply)
        if fault is Fault.SEND_TWICE and made.reply is not None:
            again = await pos.resend(made.request)
            made.replies.append(again)
            made.same_answer = again.response == made.reply.response
        self._tell_chip(made)

    async def _lose(self, made: Exchange, fault: Fault) -> None:
        """The request gets through, its answer doesn't: reverse until that is acknowledged. Where
        card and terminal end it offline, the advice of that comes first."""
        pos = self.terminal
        await pos.send(made.request)
        await asyncio.sleep(_TAKEN_IN_S)
        await pos.connect()
        frame = pos.seal(pos.reversal_of(made.request))
        if fault is Fault.END_OFFLINE:
            made.message = self._advice_of(made)
            made.request = pos.seal(made.message)
            made.reply = await self._until_answered(made, made.request)
            await self._until_answered(made, frame)
            return
        made.reversed_by = await self._until_answered(made, frame)
        self._tell_chip(made)

    async def _until_answered(self, made: Exchange, frame: bytes) -> Reply | None:
        """Repeat a reversal or an advice until its 00; None if that doesn't come."""
        pos = self.terminal
        for _ in range(_REVERSALS):
            try:
                reply = await pos.send_frame(frame)
            except NoAnswer:
                await pos.connect()
            else:
                made.replies.append(reply)
                if reply.code == "00":
                    return reply
            await asyncio.sleep(_PAUSE_S)
        return None

    def _advice_of(self, made: Exchange) -> Message:
        """The 0220 of a payment that the chip has approved after no answer came."""
        card = made.card
        if card is None or card.chip is None or made.icc is None:
            raise NotThere("only a chip ends a payment offline")
        cvm = "pin" if made.with_pin else "signature" if made.signed else "none"
        day = local_day(datetime.now(UTC))
        asked = Purchase(made.amount, numeric_code(card.currency), day, cvm)
        try:
            made.icc = card.chip.approve_unanswered(asked)
        except CardRefuses as refusal:
            raise NotThere(f"the card refuses: {refusal}") from None
        return self.terminal.request(
            "0220",
            PURCHASE,
            _read(card),
            made.amount,
            mode=MODES[made.by],
            track=card.chip.track2,
            chip=(card.chip.psn, made.icc),
        )

    def _tell_chip(self, made: Exchange) -> None:
        if made.icc is None or made.card is None or made.card.chip is None:
            return
        reply = made.reply
        answer = reply.binary.get(55) if reply is not None else None
        approved = reply is not None and reply.approved
        made.chip = made.card.chip.complete(answer, approved=approved)


def local_day(moment: datetime) -> str:
    """The simulated shops' date as chips have it, YYMMDD."""
    return f"{moment + _LOCAL:%y%m%d}"


def _read(card: SimCard) -> Card:
    return Card(card.pan, card.expiry, card.service_code, card.currency)


def _shown(card: SimCard) -> str:
    """Track 2 of a fresh code of the card's wallet."""
    if card.wallet is None:
        raise NotThere("this card is in no wallet")
    try:
        return track2_of_code(card.wallet.show_code())
    except httpx.HTTPError as error:
        raise NotThere(f"the issuer gives no code ({type(error).__name__})") from None
