"""Simulate a payment: what the issuer would answer, and why. Nothing is posted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import tzinfo
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import Response

from console import presentation, wording
from console.institutions import BadQuestion, Institution, Json, NotKnown
from console.session import Chosen
from console.templating import is_for, render, zone_of
from nodes.money import CURRENCIES

router = APIRouter(prefix="/i/{member_id}")

#: What can be simulated: kinds that name no earlier transaction.
KINDS = ("purchase", "authorization", "balance_inquiry", "advice", "load")
#: DE22 as the form offers it.
ENTRY_MODES = ("051", "071", "901", "011", "031", "811")
#: Cards offered by their masked numbers, and those among which a masked number is looked for.
_OFFERED = 50
_LOOKED_AMONG = 500
_TOKEN = re.compile(r"[0-9a-f]{32}\Z")
_MASKED = re.compile(r"([0-9]{6})?[*•xX. ]*([0-9]{4})\Z")
_WHOLE_PAN = re.compile(r"[0-9]{12,19}\Z")
_FORMS = {
    "merchant_id": (re.compile(r"[A-Za-z0-9]{15}\Z"), "15 letters and digits."),
    "mcc": (re.compile(r"[0-9]{4}\Z"), "Four digits, such as 5411."),
    "country": (re.compile(r"[A-Z]{2}\Z"), "Two capitals, such as CN."),
}


@dataclass(frozen=True)
class SimulationForm:
    """What stands in the form: texts, as people typed them."""

    card: str = ""
    kind: str = "purchase"
    amount: str = ""
    currency: str = "CNY"
    merchant_id: str = "SIMULATION00001"
    mcc: str = "5411"
    country: str = "CN"
    channel: str = "pos"
    entry_mode: str = "051"
    at: str = ""
    partial_ok: str = ""

    @classmethod
    def of(cls, typed: Mapping[str, str]) -> SimulationForm:
        """The form's fields among those sent, without blanks around them."""
        known = {one.name for one in fields(cls)}
        return cls(**{name: value.strip() for name, value in typed.items() if name in known})

    def for_node(self, tz: tzinfo) -> tuple[Json, dict[str, str]]:
        """As the node API takes it, without the card, and what is wrong by field."""
        wrong: dict[str, str] = {}
        for name, choices in (
            ("kind", KINDS),
            ("currency", CURRENCIES),
            ("channel", wording.CHANNELS),
            ("entry_mode", ENTRY_MODES),
        ):
            if getattr(self, name) not in choices:
                wrong[name] = "Choose one of the list."
        for name, (form, text) in _FORMS.items():
            if not form.match(getattr(self, name)):
                wrong[name] = text
        amount: int | None = 0
        if self.kind != "balance_inquiry":
            amount = presentation.minor_units(self.amount, self.currency)
            if not amount:
                wrong["amount"] = f"An amount in {self.currency} above 0, such as 12.50."
        at = presentation.typed_moment(self.at, tz) if self.at else None
        if self.at and at is None:
            wrong["at"] = "A day and a time, such as 2026-11-22 14:30."
        names = ("kind", "currency", "merchant_id", "mcc", "country", "channel", "entry_mode")
        payment: Json = {name: getattr(self, name) for name in names}
        payment |= {"amount": amount or 0, "partial_ok": bool(self.partial_ok), "at": at}
        return payment, wrong


class _CardWrong(Exception):
    """No card is meant by what was typed; the text says why."""


@router.get("/simulate")
async def form(
    request: Request, institution: Chosen, card: Annotated[str, Query(max_length=64)] = ""
) -> Response:
    """The empty form; `card` is the token of a card to fill in."""
    _issuers_only(institution)
    known = card if _TOKEN.match(card) else ""
    return await _page(request, institution, SimulationForm(card=known))


@router.post("/simulate")
async def simulate(
    request: Request,
    institution: Chosen,
    card: Annotated[str, Form(max_length=64)] = "",
    kind: Annotated[str, Form(max_length=32)] = "purchase",
    amount: Annotated[str, Form(max_length=20)] = "",
    currency: Annotated[str, Form(max_length=3)] = "CNY",
    merchant_id: Annotated[str, Form(max_length=32)] = "",
    mcc: Annotated[str, Form(max_length=8)] = "",
    country: Annotated[str, Form(max_length=8)] = "",
    channel: Annotated[str, Form(max_length=16)] = "pos",
    entry_mode: Annotated[str, Form(max_length=8)] = "051",
    at: Annotated[str, Form(max_length=32)] = "",
    partial_ok: Annotated[str, Form(max_length=4)] = "",
) -> Response:
    """Ask the node, and show its answer beside the form. A POST, so that what was typed stands in
    no address."""
    _issuers_only(institution)
    typed = SimulationForm.of(
        {
            "card": card, "kind": kind, "amount": amount, "currency": currency,
            "merchant_id": merchant_id, "mcc": mcc, "country": country.upper(),
            "channel": channel, "entry_mode": entry_mode, "at": at, "partial_ok": partial_ok,
        }
    )  # fmt: skip
    payment, wrong = typed.for_node(zone_of(request))
    answer = None
    try:
        payment["card_token"] = await _token(institution, typed.card)
        if not wrong:
            answer = await institution.simulate(
                {name: value for name, value in payment.items() if value is not None}
            )
    except _CardWrong as error:
        wrong = {"card": str(error)} | wrong
        if _is_whole_pan(typed.card):
            typed = replace(typed, card="")
    except NotKnown:
        wrong["card"] = "There is no such card."
    except BadQuestion as error:
        wrong |= _places(error)
    return await _page(request, institution, typed, answer, wrong)


def _issuers_only(institution: Institution) -> None:
    if "issuer" not in institution.roles:
        raise NotKnown


def _places(error: BadQuestion) -> dict[str, str]:
    """What the node found wrong, by the form's fields; "form" for what belongs to none."""
    known = {one.name for one in fields(SimulationForm)}
    found = {(name if name in known else "form"): f"{text}." for name, text in error.errors.items()}
    return found or {"form": error.detail or "The node can't simulate such a payment."}


async def _token(institution: Institution, text: str) -> str:
    """The token of a card by token or masked number; _CardWrong if none, or several, are meant."""
    if _TOKEN.match(text.lower()):
        return text.lower()
    if _is_whole_pan(text):
        raise _CardWrong("Never type a whole card number here: its last four digits will do.")
    match = _MASKED.match(text)
    if not match:
        raise _CardWrong("A card's token, or its masked number: the last four digits will do.")
    head, tail = match[1] or "", match[2]
    found = [
        item["card_token"]
        for item in await institution.cards(_LOOKED_AMONG)
        if item["pan_masked"].startswith(head) and item["pan_masked"].endswith(tail)
    ]
    if not found:
        raise _CardWrong(f"None of the {_LOOKED_AMONG} newest cards ends in {tail}: give a token.")
    if len(found) > 1:
        raise _CardWrong(f"{len(found)} cards end in {tail}: choose one of the list.")
    return str(found[0])


def _is_whole_pan(text: str) -> bool:
    return _WHOLE_PAN.match(text.replace(" ", "").replace("-", "")) is not None


async def _page(
    request: Request,
    institution: Institution,
    typed: SimulationForm,
    answer: Json | None = None,
    wrong: dict[str, str] | None = None,
) -> Response:
    context: dict[str, Any] = {
        "active": "simulate",
        "form": typed,
        "wrong": wrong or {},
        "answer": answer,
        "kinds": KINDS,
        "entry_modes": ENTRY_MODES,
        "currencies": sorted(CURRENCIES),
        "cards": await institution.cards(_OFFERED),
    }
    block = "results" if is_for(request, "results") else None
    status = 422 if wrong else 200
    return render(request, "simulate.html", context, block=block, status=status)
