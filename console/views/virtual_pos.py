"""The virtual POS: a page before the sandbox's terminal simulator, where the settings name one."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import Response

from console import presentation
from console.access import User
from console.institutions import NotKnown
from console.session import Chosen, Forbidden, SignedIn
from console.settings import Role
from console.templating import is_for, render
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
#: How a payment is decided -> words.
HOW = {
    "online": "Online",
    "offline": "Offline, by card and terminal",
    "order": "The merchant shows a code",
}
#: What a terminal does beside payments -> the button's words.
SERVICES = {
    "download": "Download parameters and hotlist",
    "upload": "Upload offline records",
    "close_batch": "Close the batch",
    "upload_batch": "Upload the batch",
}
#: What was played -> the heading of its answer.
DEEDS = {
    "pay": "Payment",
    "pay_offline": "Offline payment",
    "order": "The merchant's code",
    "pay_order": "Payment of the code",
} | SERVICES
Typed = Annotated[str, Form(max_length=40)]
_FIRST = {
    "terminal_id": "",
    "card": "chip",
    "how": "online",
    "by": "insert",
    "amount": "12.50",
    "fault": "",
    "signed": "",
    "language": "en",
    "width": "58",
    "whose": "customer",
}


@router.get("")
async def page(
    request: Request,
    institution: Chosen,
    user: SignedIn,
    terminal_id: Annotated[str, Query(max_length=8)] = "",
) -> Response:
    """The empty terminal; or what another one has in its memory."""
    acquirers_only(institution)
    async with _simulator(request) as simulator:
        return await _shown(request, user, simulator, _FIRST | {"terminal_id": terminal_id})


@router.post("")
async def pay(
    request: Request,
    institution: Chosen,
    user: SignedIn,
    terminal_id: Typed = "",
    card: Typed = "",
    how: Typed = "online",
    by: Typed = "insert",
    amount: Typed = "",
    pin: Annotated[str, Form(max_length=12)] = "",
    fault: Typed = "",
    signed: Typed = "",
    language: Typed = "en",
    width: Typed = "58",
    whose: Typed = "customer",
) -> Response:
    """Play one payment, or show a code for one. Readers look only: they don't pay."""
    _may_play(institution, user)
    form = {
        "terminal_id": terminal_id,
        "card": card,
        "how": how if how in HOW else "online",
        "by": by if by in WAYS else "insert",
        "amount": amount.strip(),
        "fault": fault,
        "signed": "yes" if signed else "",
        **_paper(language, width, whose),
    }
    async with _simulator(request) as simulator:
        minor = presentation.minor_units(form["amount"], "CNY")
        if not minor:
            why = "An amount above 0, such as 12.50."
            return await _shown(request, user, simulator, form, why)
        # Offline and before a code nobody asks for a PIN.
        entered = pin if form["how"] == "online" else ""
        document = form | {"amount": minor, "pin": entered, "width": int(form["width"])}
        document["signed"] = bool(signed)
        path = "orders" if form["how"] == "order" else "payments"
        return await _play(request, user, simulator, form, path, document)


@router.post("/order")
async def pay_order(
    request: Request,
    institution: Chosen,
    user: SignedIn,
    terminal_id: Typed = "",
    card: Typed = "",
    language: Typed = "en",
    width: Typed = "58",
    whose: Typed = "customer",
) -> Response:
    """A wallet scans the code that the merchant shows, and pays."""
    _may_play(institution, user)
    form = _FIRST | {"terminal_id": terminal_id, "card": card, "how": "order"}
    form |= _paper(language, width, whose)
    document = form | {"width": int(form["width"])}
    async with _simulator(request) as simulator:
        return await _play(request, user, simulator, form, "order-payments", document)


@router.post("/terminal")
async def serve(
    request: Request,
    institution: Chosen,
    user: SignedIn,
    terminal_id: Typed = "",
    do: Typed = "",
    forget: Typed = "",
) -> Response:
    """Have the terminal download, upload, or close its batch."""
    _may_play(institution, user)
    form = _FIRST | {"terminal_id": terminal_id}
    document = {"terminal_id": terminal_id, "do": do, "forget": bool(forget)}
    async with _simulator(request) as simulator:
        return await _play(request, user, simulator, form, "services", document)


async def _play(
    request: Request,
    user: User,
    simulator: NodeClient,
    form: dict[str, str],
    path: str,
    document: dict[str, Any],
) -> Response:
    try:
        played = await simulator.post_json(f"/v1/simulator/{path}", document)
    except NodeRefused as refused:
        why = str(refused.problem.get("detail") or "The simulator refuses it.")
        return await _shown(request, user, simulator, form, why)
    except NodeUnreachable:
        why = "The simulator gave no answer in time."
        return await _shown(request, user, simulator, form, why)
    return await _shown(request, user, simulator, form, played=played)


async def _shown(
    request: Request,
    user: User,
    simulator: NodeClient,
    form: dict[str, str],
    refusal: str = "",
    played: Any = None,
) -> Response:
    state = None
    try:
        drawer = await simulator.get_json("/v1/simulator")
        known = [each["terminal_id"] for each in drawer["terminals"]]
        if known:
            terminal_id = form["terminal_id"] if form["terminal_id"] in known else known[0]
            state = await simulator.get_json(f"/v1/simulator/terminals/{terminal_id}")
    except (NodeUnreachable, NodeRefused):
        drawer = {"terminals": [], "cards": [], "faults": [], "currency": "CNY"}
        refusal = "The terminal simulator can't be reached."
    context = {
        "active": "virtual-pos",
        "drawer": drawer,
        "state": state,
        "ways": WAYS,
        "how": HOW,
        "services": SERVICES,
        "deeds": DEEDS,
        "form": form,
        "refusal": refusal,
        "played": played,
        "plays": user.may(Role.OPERATOR),
    }
    if is_for(request, "memory"):
        return render(request, "virtual_pos.html", context, block="memory")
    return render(request, "virtual_pos.html", context, status=422 if refusal else 200)


def _paper(language: str, width: str, whose: str) -> dict[str, str]:
    """How the receipt is printed."""
    return {
        "language": language if language in ("en", "zh") else "en",
        "width": "80" if width == "80" else "58",
        "whose": "merchant" if whose == "merchant" else "customer",
    }


def _may_play(institution: Chosen, user: User) -> None:
    acquirers_only(institution)
    if not user.may(Role.OPERATOR):
        raise Forbidden


def _simulator(request: Request) -> NodeClient:
    entry = request.app.state.console.settings.simulator
    if entry is None:
        raise NotKnown
    return NodeClient(entry.url, api_key=entry.key.get_secret_value(), timeout_s=60.0)
