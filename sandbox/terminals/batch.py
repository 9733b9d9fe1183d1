"""A terminal's batch: what it has counted, its totals, the close and the upload after a difference
(docs/iso8583.md, Batch close)."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.pos.services import format_totals
from nodes.authorization.services import CurrencyTotals
from sandbox.terminal import Reply, Terminal
from sandbox.terminals.scenario import Do
from sandbox.terminals.till import Exchange

_DEBITS = frozenset({Do.PAY, Do.COMPLETE, Do.UPLOAD})
_CREDITS = frozenset({Do.REFUND, Do.TOP_UP, Do.VOID})


@dataclass
class Line:
    """One transaction that counts. `amount`: what reversals have left of it, minor units."""

    request: bytes
    currency: str
    amount: int
    credit: bool


class TerminalBatch:
    """The lines of the present batch, by the requests that made them."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._lines: dict[bytes, Line] = {}

    def note(self, made: Exchange, of: Exchange | None = None) -> None:
        """Take in what came of an exchange; `of`: what it followed up."""
        if made.do is Do.REVERSE:
            if of is not None and made.code == "00":
                self._take_off(of.request, made.amount)
            return
        if made.reply is None or made.code not in ("00", "10") or made.reversed_by is not None:
            return
        if made.do is Do.VOID and (of is None or of.do is Do.AUTHORIZE):
            return  # a hold was never counted
        if made.do in _DEBITS | _CREDITS:
            partial = made.reply.partial_amount
            amount = made.amount if partial is None else partial
            line = Line(made.request, made.currency, amount, made.do in _CREDITS)
            self._lines.setdefault(made.request, line)

    def forget(self, made: Exchange) -> bool:
        """The terminal loses what it knows of an exchange; False if it isn't in its batch."""
        return self._lines.pop(made.request, None) is not None

    async def close(self) -> Reply:
        """Send the totals; if they agree, the next batch begins. NoAnswer, NotAuthentic."""
        pos = self._terminal
        reply = await pos.exchange(pos.close_of(format_totals(self.totals()) or _EMPTY))
        if reply.code == "00":
            self._lines.clear()
            pos.batch = reply.fields[60]
        return reply

    async def upload(self) -> list[Reply]:
        """Upload each line after totals that differed. NoAnswer, NotAuthentic."""
        pos = self._terminal
        return [
            await pos.exchange(pos.upload_of(line.request, line.amount))
            for line in self._lines.values()
        ]

    def totals(self) -> tuple[CurrencyTotals, ...]:
        """What the terminal has counted, a currency an entry."""
        currencies = sorted({line.currency for line in self._lines.values()})
        return tuple(self._total(currency) for currency in currencies)

    def _total(self, currency: str) -> CurrencyTotals:
        lines = [line for line in self._lines.values() if line.currency == currency]
        debits = [line.amount for line in lines if not line.credit]
        credits = [line.amount for line in lines if line.credit]
        return CurrencyTotals(currency, len(debits), sum(debits), len(credits), sum(credits))

    def _take_off(self, request: bytes, amount: int) -> None:
        line = self._lines.get(request)
        if line is not None:
            line.amount -= amount or line.amount
            if line.amount <= 0:
                del self._lines[request]


#: Totals of a batch in which nothing was.
_EMPTY = format_totals((CurrencyTotals("CNY"),))
