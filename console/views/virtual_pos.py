"""The virtual POS: a page before the sandbox's terminal simulator, where the settings name one."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from starlette.responses import Response

from console import presentation
from console.institutions import NotKnown
from console.session import Chosen, Forbidden, SignedIn
from console.settings import Role
from console.templating import render
from console.views.terminals import acquirers_only
from nodes.api.client import NodeClient, NodeRefused, NodeUnreachable

router = APIRouter(prefix="/i/{member_id}/virtual-pos")

WAYS = {
    "insert": "Insert",
    "tap": "Tap",
    "swipe": "Swipe",
    "fallback": "Swipe (fallback)",
    "scan": "Scan its code",
    "key_in": "Key in",
}
Typed = Annotated[str, Form(max_length=40)]
_FIRST = {
    "terminal_id": "",
    "card": "chip",
    "by": "insert",
    "amount": "12.50",
    "fault": "",
    "language": "en",
    "width": "58",
}


@router.get("")
async def page(request: Request, institution: Chosen, user: SignedIn) -> Response:
    """The empty terminal."""
    acquirers_only(institution)
    async with _simulator(request) as simulator:
        return await _shown(request, simulator, dict(_FIRST))


@router.post("")
async def pay(
    request: Request,
    institution: Chosen,
    user: SignedIn,
    terminal_id: Typed = "",
    card: Typed = "",
    by: Typed = "insert",
    amount: Typed = "",
    pin: Annotated[str, Form(max_length=12)] = "",
    fault: Typed = "",
    language: Typed = "en",
    width: Typed = "58",
) -> Response:
    """Play one payment. Readers look only: they don't pay."""
    acquirers_only(institution)
    if not user.may(Role.OPERATOR):
        raise Forbidden
    form = {
        "terminal_id": terminal_id,
        "card": card,
        "by": by if by in WAYS else "insert",
        "amount": amount.strip(),
        "fault": fault,
        "language": language if language in ("en", "zh") else "en",
        "width": "80" if width == "80" else "58",
    }
    async with _simulator(request) as simulator:
        minor = presentation.minor_units(form["amount"], "CNY")
        if not minor:
            return await _shown(request, simulator, form, "An amount above 0, such as 12.50.")
        document = form | {"amount": minor, "pin": pin, "width": int(form["width"])}
        try:
            played = await simulator.post_json("/v1/simulator/payments", document)
        except NodeRefused as refused:
            why = str(refused.problem.get("detail") or "The simulator refuses it.")
            return await _shown(request, simulator, form, why)
        except NodeUnreachable:
            return await _shown(request, simulator, form, "The simulator gave no answer in time.")
        return await _shown(request, simulator, form, played=played)


async def _shown(
    request: Request,
    simulator: NodeClient,
    form: dict[str, str],
    refusal: str = "",
    played: Any = None,
) -> Response:
    try:
        drawer = await simulator.get_json("/v1/simulator")
    except (NodeUnreachable, NodeRefused):
        drawer = {"terminals": [], "cards": [], "faults": [], "currency": "CNY"}
        refusal = "The terminal simulator can't be reached."
    context = {
        "active": "virtual-pos",
        "drawer": drawer,
        "ways": WAYS,
        "form": form,
        "refusal": refusal,
        "played": played,
    }
    return render(request, "virtual_pos.html", context, status=422 if refusal else 200)


def _simulator(request: Request) -> NodeClient:
    entry = request.app.state.console.settings.simulator
    if entry is None:
        raise NotKnown
    return NodeClient(entry.url, api_key=entry.key.get_secret_value(), timeout_s=40.0)
