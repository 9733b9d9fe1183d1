"""The acquirer's terminals: list, one of them, its parameters and keys, and switching it off."""

from __future__ import annotations

import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Form, Path, Query, Request
from starlette.responses import RedirectResponse, Response

from console import presentation, wording
from console.institutions import Institution, Json, NotDone, NotKnown
from console.session import Chosen, Forbidden, SignedIn
from console.templating import is_for, render

router = APIRouter(prefix="/i/{member_id}/terminals")

TerminalId = Annotated[str, Path(pattern=r"^[A-Za-z0-9]{8}$")]
Typed = Annotated[str, Form(max_length=200)]
PAGE_SIZE = 25


@router.get("")
async def terminals(
    request: Request,
    institution: Chosen,
    user: SignedIn,
    status: Annotated[str, Query(max_length=16)] = "",
    merchant_id: Annotated[str, Query(max_length=15)] = "",
    store: Annotated[str, Query(max_length=60)] = "",
    cursor: Annotated[str, Query(max_length=400)] = "",
) -> Response:
    """All terminals by their ids; filters stand in the address."""
    acquirers_only(institution)
    chosen = {
        "status": status if status in wording.TERMINAL_STATES else "",
        "merchant_id": merchant_id.strip(),
        "store": store.strip(),
    }
    filters = {name: value for name, value in chosen.items() if value}
    page = await institution.terminals({**filters, "cursor": cursor or None, "limit": PAGE_SIZE})
    context = {
        "active": "terminals",
        "filters": filters,
        "items": page["items"],
        "next_cursor": page["next"],
        "cursor": cursor,
        "acts": institution.lets_act(user.username),
    }
    if is_for(request, "results"):
        address = f"{request.url.path}{presentation.query({**filters, 'cursor': cursor})}"
        headers = {"HX-Push-Url": address}
        return render(request, "terminals.html", context, block="results", headers=headers)
    return render(request, "terminals.html", context)


@router.get("/{terminal_id}")
async def terminal(
    request: Request,
    institution: Chosen,
    user: SignedIn,
    terminal_id: TerminalId,
    cursor: Annotated[str, Query(max_length=400)] = "",
) -> Response:
    """One terminal."""
    return await one_terminal(request, institution, user.username, terminal_id, cursor=cursor)


@router.post("/{terminal_id}/{what}")
async def change(
    request: Request,
    institution: Chosen,
    user: SignedIn,
    terminal_id: TerminalId,
    what: Annotated[str, Path(pattern="^(disable|enable|keys|retire)$")],
    reason: Typed = "",
    confirmed: Typed = "",
    key: Typed = "",
) -> Response:
    """Switch it off or on, or give it the next key: with a reason and the terminal's id, typed."""
    may_act(institution, user.username)
    wrong: dict[str, str] = {}
    if not reason.strip():
        wrong["reason"] = "Why: it stands in the history for good."
    if confirmed.strip() != terminal_id:
        wrong["confirmed"] = f"Type {terminal_id} to confirm."
    typed = {"what": what, "reason": reason.strip(), "confirmed": confirmed.strip(), "key": key}
    if wrong:
        return await one_terminal(request, institution, user.username, terminal_id, typed, wrong)
    path = f"/v1/terminals/{terminal_id}/{what}"
    document = {"reason": reason.strip()}
    try:
        await institution.act(user.username, path, document, key or secrets.token_hex(16))
    except NotDone as error:
        wrong = {"form": wording.not_done(error.kind, error.detail)}
        return await one_terminal(request, institution, user.username, terminal_id, typed, wrong)
    return RedirectResponse(f"/i/{institution.member_id}/terminals/{terminal_id}", 303)


@router.post("/{terminal_id}")
async def set_parameters(
    request: Request, institution: Chosen, user: SignedIn, terminal_id: TerminalId
) -> Response:
    """Replace its parameters; the terminal downloads them at its next sign-on."""
    may_act(institution, user.username)
    sent = {name: str(value)[:60] for name, value in (await request.form()).items()}
    typed = sent | {"what": "parameters"}
    item = await institution.terminal(terminal_id)
    parameters, wrong = _parsed(sent, item["parameters"])
    if not sent.get("reason", "").strip():
        wrong["reason"] = "Why: it stands in the history for good."
    version = sent.get("based_on", "")
    if not wrong and version.isascii() and version.isdigit():
        document = {
            "parameters": parameters,
            "based_on": int(version),
            "reason": sent["reason"].strip(),
        }
        path = f"/v1/terminals/{terminal_id}/parameters"
        try:
            await institution.act(user.username, path, document, sent.get("key") or None)
        except NotDone as error:
            wrong["form"] = wording.not_done(error.kind, error.detail)
        else:
            address = f"/i/{institution.member_id}/terminals/{terminal_id}"
            return RedirectResponse(address, 303)
    return await one_terminal(request, institution, user.username, terminal_id, typed, wrong)


def _parsed(sent: dict[str, str], known: Json) -> tuple[Json, dict[str, str]]:
    """The parameters of a form, and what is wrong with it by name."""
    parameters: Json = {"currency": known["currency"]}
    wrong: dict[str, str] = {}
    for name, (_, kind) in wording.PARAMETERS.items():
        text = sent.get(name, "").strip()
        if kind == "amount":
            zero = text in ("0", "0.0", "0.00")
            value = 0 if zero else presentation.minor_units(text, known["currency"])
            if value is None or (value == 0 and not zero):
                wrong[name] = f"An amount in {known['currency']}, such as 200.00; 0 for none."
        else:
            value = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else None
            if value is None:
                wrong[name] = "A whole number."
        parameters[name] = value
    language = sent.get("receipt_language", "")
    parameters["receipt_language"] = language if language in wording.LANGUAGES else "zh"
    parameters["receipt_width_mm"] = 80 if sent.get("receipt_width_mm") == "80" else 58
    return parameters, wrong


async def one_terminal(
    request: Request,
    institution: Institution,
    username: str,
    terminal_id: str,
    typed: dict[str, str] | None = None,
    wrong: dict[str, str] | None = None,
    *,
    cursor: str = "",
) -> Response:
    """The page, with what was typed into one of its forms and what is wrong with that."""
    acquirers_only(institution)
    item = await institution.terminal(terminal_id)
    history = await institution.terminal_history(terminal_id, cursor or None)
    context: dict[str, Any] = {
        "active": "terminals",
        "item": item,
        "history": history["items"],
        "next_cursor": history["next"],
        "cursor": cursor,
        "acts": institution.lets_act(username),
        "typed": typed or {},
        "wrong": wrong or {},
        "key": (typed or {}).get("key") or secrets.token_hex(16),
        "shown": _texts(item["parameters"], typed or {}),
    }
    if is_for(request, "history"):
        return render(request, "terminal.html", context, block="history")
    return render(request, "terminal.html", context, status=422 if wrong else 200)


def _texts(parameters: Json, typed: dict[str, str]) -> dict[str, str]:
    """What stands in the form: as typed, else as it is."""
    shown: dict[str, str] = {}
    for name, (_, kind) in wording.PARAMETERS.items():
        value = parameters[name]
        text = (
            presentation.amount(value, parameters["currency"]).replace(",", "")
            if kind == "amount"
            else str(value)
        )
        shown[name] = typed.get(name, text)
    return shown


def acquirers_only(institution: Institution) -> None:
    """NotKnown for an institution that has no terminals."""
    if "acquirer" not in institution.roles:
        raise NotKnown


def base64_of(text: str) -> str:
    """What was pasted as a PEM file has it, or as base64: the latter, in one line."""
    return "".join(
        "".join(line.split()) for line in text.strip().splitlines() if not line.startswith("-----")
    )


def may_act(institution: Institution, username: str) -> None:
    """NotKnown or Forbidden, unless this person may change something of this acquirer."""
    acquirers_only(institution)
    if not institution.lets_act(username):
        raise Forbidden
