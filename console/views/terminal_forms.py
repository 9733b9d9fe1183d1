"""Enrol a terminal, and change one: its details, its algorithms, its merchant."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from console import wording
from console.institutions import Json, NotDone
from console.session import Chosen, SignedIn
from console.templating import render
from console.views.terminals import TerminalId, base64_of, may_act, one_terminal

router = APIRouter(prefix="/i/{member_id}/terminals")

#: How much of a field is read; a certificate in PEM is the longest.
_LENGTHS = {"certificate": 9_000, "reason": 200, "store": 60, "label": 60}
_LENGTH = 40
_NEW = {"terminal_id": "", "merchant_id": "", "store": "", "label": "", "suite": "SM"}


@router.get("/new")
async def new(request: Request, institution: Chosen, user: SignedIn) -> Response:
    """The empty form."""
    may_act(institution, user.username)
    return _form(request, dict(_NEW, management="tmk"), set(), {}, secrets.token_hex(16))


@router.post("/new")
async def enrol(request: Request, institution: Chosen, user: SignedIn) -> Response:
    """Enrol a terminal; its key is derived at the gateway, and loaded by a ceremony."""
    may_act(institution, user.username)
    typed, capabilities = await _sent(request)
    wrong: dict[str, str] = {}
    name = typed.get("terminal_id", "").upper()
    if not (len(name) == 8 and name.isascii() and name.isalnum()):
        wrong["terminal_id"] = "Eight letters and digits (DE41)."
    merchant = typed.get("merchant_id", "")
    if not (len(merchant) == 15 and merchant.isascii() and merchant.isalnum()):
        wrong["merchant_id"] = "Fifteen letters and digits (DE42)."
    key = typed.get("key") or secrets.token_hex(16)
    if not wrong:
        document = {
            "terminal_id": name,
            "merchant_id": merchant,
            "store": typed.get("store", ""),
            "label": typed.get("label", ""),
            "capabilities": sorted(capabilities),
            "with_key": True,
            **_keys(typed),
        }
        try:
            await institution.act(user.username, "/v1/terminals", document, key)
        except NotDone as error:
            wrong = _wrong(error)
        else:
            return RedirectResponse(f"/i/{institution.member_id}/terminals/{name}", 303)
    return _form(request, _NEW | typed, capabilities, wrong, key)


@router.post("/{terminal_id}/details")
@router.post("/{terminal_id}/suite")
@router.post("/{terminal_id}/merchant")
async def change(
    request: Request, institution: Chosen, user: SignedIn, terminal_id: TerminalId
) -> Response:
    """Replace what a form is about, which its address says; why stands in the history."""
    may_act(institution, user.username)
    what = request.url.path.rpartition("/")[2]
    typed, capabilities = await _sent(request)
    typed["what"] = what
    wrong: dict[str, str] = {}
    if not typed.get("reason"):
        wrong["reason"] = "Why: it stands in the history for good."
    if not wrong:
        document: Json = {"reason": typed["reason"]}
        if what == "suite":
            document |= _keys(typed)
        else:
            document |= {name: typed.get(name, "") for name in ("store", "label")}
        if what == "details":
            document["capabilities"] = sorted(capabilities)
        if what == "merchant":
            document["merchant_id"] = typed.get("merchant_id", "")
        path = f"/v1/terminals/{terminal_id}/{what}"
        try:
            await institution.act(user.username, path, document, typed.get("key") or None)
        except NotDone as error:
            wrong = _wrong(error)
        else:
            address = f"/i/{institution.member_id}/terminals/{terminal_id}"
            return RedirectResponse(address, 303)
    return await one_terminal(request, institution, user.username, terminal_id, typed, wrong)


async def _sent(request: Request) -> tuple[dict[str, str], set[str]]:
    """The fields of a form, cut to their lengths, and what is ticked of the abilities."""
    form = await request.form(max_fields=40)
    typed = {
        name: str(value)[: _LENGTHS.get(name, _LENGTH)].strip()
        for name, value in form.items()
        if name != "capabilities"
    }
    ticked = {str(value) for value in form.getlist("capabilities")}
    return typed, ticked & wording.CAPABILITIES.keys()


def _keys(typed: Mapping[str, str]) -> Json:
    management = typed.get("management", "tmk")
    return {
        "suite": typed.get("suite", "SM"),
        "management": management,
        "certificate": base64_of(typed.get("certificate", "")),
    }


def _wrong(error: NotDone) -> dict[str, str]:
    """What the node found, at the fields of the form where it names them."""
    places = {at.removeprefix("body."): text for at, text in error.places.items()}
    known = {name: f"{text[:1].upper()}{text[1:]}." for name, text in places.items()}
    seen = "Not all of it is taken: see the fields." if known else error.detail
    return known | {"form": wording.not_done(error.kind, seen)}


def _form(
    request: Request, typed: Mapping[str, str], ticked: set[str], wrong: dict[str, str], key: str
) -> Response:
    context: dict[str, Any] = {
        "active": "terminals",
        "form": typed,
        "ticked": ticked,
        "wrong": wrong,
        "key": key,
    }
    return render(request, "terminal_form.html", context, status=422 if wrong else 200)
