"""What a terminal does without a connection: it decides with the card, chains records, and uploads
them later (docs/offline.md)."""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from nodes.acquiring import offline
from nodes.acquiring.fleet.model import Parameters
from nodes.crypto.offline_record import RecordChain
from nodes.money import numeric_code
from sandbox.cards.chip import CardRefuses, ChipCard, Purchase
from sandbox.terminal import HOTLIST, PARAMETERS, PURCHASE, Card, NoAnswer, Reply, Terminal
from sandbox.terminals.scenario import (
    OFFLINE_APPROVED,
    OFFLINE_DECLINED,
    By,
    Do,
    Fault,
)
from sandbox.terminals.surroundings import NotThere, SimCard
from sandbox.terminals.till import MODES, Exchange, local_day

#: A card that is waited for stands on every hotlist by then: acquirers copy them each 30 s.
_LISTED_S, _POLL_S = 90.0, 1.0
_REPEATS = 20


@dataclass
class Kept:
    """A payment that waits for its upload."""

    made: Exchange
    record: bytes
    stan: str
    moment: datetime


class OfflineDesk:
    """One terminal's offline side: caps, hotlist, chain of records, what isn't uploaded yet."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        # A chain begins with each run: nothing of an earlier one was kept.
        self._chain = RecordChain(terminal.terminal_id, int(time.time()))
        self._caps = Parameters()
        self._state = offline.TerminalOffline()
        self._kept: list[Kept] = []

    @property
    def waiting(self) -> tuple[Kept, ...]:
        """What isn't uploaded yet, the oldest first."""
        return tuple(self._kept)

    @property
    def listed(self) -> int | None:
        """Entries of the hotlist that it has; None: it never downloaded one."""
        return len(self._state.hotlist) if self._state.hotlist_as_of_ms else None

    async def download(self) -> str:
        """Fetch parameters and what is new of the hotlist; in words, what the terminal has then."""
        pos = self._terminal
        reply = await pos.exchange(pos.download_of(PARAMETERS))
        version, self._caps = offline.decode_parameters(reply.binary[56])
        more = True
        while more:
            known = self._state.hotlist_version
            reply = await pos.exchange(pos.download_of(HOTLIST, known))
            page = offline.decode_hotlist_page(reply.binary[56])
            self._state, more = offline.take_page(self._state, page), page.more
        return f"parameters {version}, {len(self._state.hotlist)} on the hotlist"

    async def download_until(self, card: SimCard) -> str:
        """Download until a card's key stands on the hotlist. NotThere if it doesn't come."""
        wanted, until = _chip(card).offline_key_id, time.monotonic() + _LISTED_S
        while True:
            told = await self.download()
            if wanted in self._state.hotlist:
                return told
            if time.monotonic() > until:
                raise NotThere(f"the card {card.name} doesn't come onto the hotlist")
            await asyncio.sleep(_POLL_S)

    def pay(self, card: SimCard, amount: int, by: By) -> Exchange:
        """Card and terminal decide by themselves: Y1, or Z1 and why. NotThere without a chip."""
        chip, now = _chip(card), datetime.now(UTC)
        made = Exchange(Do.PAY_OFFLINE, card, amount, by, False, card.currency)
        now_ms = int(now.timestamp() * 1000)
        made.told_code = OFFLINE_DECLINED
        try:
            refusal = offline.may_spend(
                self._state,
                self._caps,
                card_key_id=chip.offline_key_id,
                amount=amount,
                entry_mode=MODES[by],
                now_ms=now_ms,
            )
            if refusal is not None:
                made.why = refusal.value
                return made
            day = local_day(now)
            made.icc = chip.approve_offline(Purchase(amount, numeric_code(card.currency), day))
            made.atc = chip.atc
            record = self._chain.append(
                card_key_id=chip.offline_key_id,
                atc=chip.atc,
                amount=amount,
                currency=card.currency,
                nonce=secrets.token_bytes(8),
                at_ms=now_ms,
                sign=chip.sign_offline,
            )
        except CardRefuses as refused:
            made.why, made.words = "card", str(refused)
            return made
        made.told_code = OFFLINE_APPROVED
        self._state = offline.spent_offline(
            self._state, card_key_id=chip.offline_key_id, amount=amount, now_ms=now_ms
        )
        self._kept.append(Kept(made, record, self._terminal.next_stan(), now))
        return made

    async def upload(self, *, skip: int = 0, fault: Fault | None = None) -> list[Exchange]:
        """Upload what waits, in order, but for the first `skip`, which are lost for good."""
        del self._kept[:skip]
        sent: list[Exchange] = []
        while self._kept:
            # What has no answer yet is still there for the next try.
            sent.append(await self._send(self._kept[0], fault))
            del self._kept[0]
        self._state = offline.uploaded(self._state)
        return sent

    async def _send(self, one: Kept, fault: Fault | None) -> Exchange:
        pos, card = self._terminal, one.made.card
        assert card is not None
        chip = _chip(card)
        made = Exchange(Do.UPLOAD, card, one.made.amount, one.made.by, False, card.currency)
        assert one.made.icc is not None
        made.message = pos.request(
            "0220",
            PURCHASE,
            Card(card.pan, card.expiry, card.service_code, card.currency),
            made.amount,
            now=one.moment,
            mode=MODES[made.by],
            track=chip.track2,
            chip=(chip.psn, one.made.icc),
            stan=one.stan,
        )
        made.message.binary[57] = one.record
        made.request = pos.seal(made.message)
        if fault is Fault.LOSE_ANSWER:
            await pos.send(made.request)
            await pos.connect()
        made.reply = await self._until_answered(made.request)
        made.replies.append(made.reply)
        if fault is Fault.SEND_TWICE:
            again = await pos.resend(made.request)
            made.replies.append(again)
            made.same_answer = again.response == made.reply.response
        return made

    async def _until_answered(self, frame: bytes) -> Reply:
        """An advice is repeated until its answer comes."""
        for _ in range(_REPEATS):
            try:
                return await self._terminal.send_frame(frame)
            except NoAnswer:
                await self._terminal.connect()
        raise NoAnswer("no answer to an advice")


def _chip(card: SimCard) -> ChipCard:
    if card.chip is None:
        raise NotThere(f"the card {card.name} has no chip: it can't pay offline")
    return card.chip
