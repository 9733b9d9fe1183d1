"""Keys of the callers of the acquirer's HTTP API: list, enrol, revoke (docs/http-api.md)."""

from __future__ import annotations

import base64
import binascii
import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Form, Path, Query, Request
from starlette.responses import RedirectResponse, Response

from console import wording
from console.access import User
from console.institutions import Institution, NotDone
from console.session import Chosen, SignedIn
from console.templating import render
from console.views.terminals import PAGE_SIZE, acquirers_only, base64_of, may_act

router = APIRouter(prefix="/i/{member_id}/front-keys")

KeyId = Annotated[str, Path(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
Typed = Annotated[str, Form(max_length=64)]
OWNERS = {"terminal_id": "One terminal", "merchant_id": "All terminals of a merchant"}
ALGORITHMS = {"ES256": "ES256 (P-256, SHA-256)", "SM2": "SM2 (SM3)"}
#: What stands before x and y in a public key of each (RFC 5480; GB/T 35275 names SM2's curve).
_HEADS = {
    "ES256": bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004"),
    "SM2": bytes.fromhex("3059301306072a8648ce3d020106082a811ccf5501822d03420004"),
}
_FIRST = {"key_id": "", "owner": "terminal_id", "of": "", "algorithm": "ES256", "public_key": ""}


@router.get("")
async def front_keys(
    request: Request,
    institution: Chosen,
    user: SignedIn,
    cursor: Annotated[str, Query(max_length=400)] = "",
) -> Response:
    """All keys, revoked ones too."""
    return await _page(request, institution, user, cursor=cursor)


@router.post("")
async def enrol(
    request: Request,
    institution: Chosen,
    user: SignedIn,
    key_id: Typed = "",
    owner: Typed = "terminal_id",
    of: Typed = "",
    algorithm: Typed = "ES256",
    public_key: Annotated[str, Form(max_length=2_000)] = "",
    key: Typed = "",
) -> Response:
    """Enrol the public key of a smart terminal or of a merchant's server."""
    may_act(institution, user.username)
    typed = {
        "key_id": key_id.strip(),
        "owner": owner if owner in OWNERS else "terminal_id",
        "of": of.strip(),
        "algorithm": algorithm if algorithm in ALGORITHMS else "ES256",
        "public_key": public_key.strip(),
    }
    wrong: dict[str, str] = {}
    point = point_of(typed["public_key"], typed["algorithm"])
    if point is None:
        wrong["public_key"] = "A PEM file's public key of this algorithm, or x and y in hex."
    length = 8 if typed["owner"] == "terminal_id" else 15
    if not (len(typed["of"]) == length and typed["of"].isascii()):
        wrong["of"] = f"{length} characters."
    if not typed["key_id"]:
        wrong["key_id"] = "A name: letters, digits, dots, dashes."
    if not wrong:
        document = {
            "key_id": typed["key_id"],
            typed["owner"]: typed["of"],
            "algorithm": typed["algorithm"],
            "public_key": point,
        }
        try:
            await institution.act(user.username, "/v1/front-keys", document, key or None)
        except NotDone as error:
            wrong = {at.removeprefix("body."): text for at, text in error.places.items()}
            wrong["form"] = wording.not_done(error.kind, error.detail)
        else:
            return RedirectResponse(f"/i/{institution.member_id}/front-keys", 303)
    return await _page(request, institution, user, typed, wrong)


@router.post("/{key_id}/revoke")
async def revoke(
    request: Request,
    institution: Chosen,
    user: SignedIn,
    key_id: KeyId,
    confirm: Typed = "",
    key: Typed = "",
) -> Response:
    """Take a key out of use; its name is typed to confirm."""
    may_act(institution, user.username)
    if confirm.strip() != key_id:
        wrong = {f"revoke-{key_id}": f"Type {key_id} to confirm."}
        return await _page(request, institution, user, None, wrong)
    try:
        await institution.act(user.username, f"/v1/front-keys/{key_id}/revoke", {}, key or None)
    except NotDone as error:
        wrong = {"form": wording.not_done(error.kind, error.detail)}
        return await _page(request, institution, user, None, wrong)
    return RedirectResponse(f"/i/{institution.member_id}/front-keys", 303)


def point_of(text: str, algorithm: str) -> str | None:
    """x and y of a public key, 128 hex digits: typed so, or as PEM (SubjectPublicKeyInfo)."""
    if len(text) == 128:
        try:
            return bytes.fromhex(text).hex()
        except ValueError:
            return None
    try:
        found = base64.b64decode(base64_of(text), validate=True)
    except binascii.Error:
        return None
    head = _HEADS[algorithm]
    return found[len(head) :].hex() if found[: len(head)] == head and len(found) == 91 else None


async def _page(
    request: Request,
    institution: Institution,
    user: User,
    typed: dict[str, str] | None = None,
    wrong: dict[str, str] | None = None,
    *,
    cursor: str = "",
) -> Response:
    acquirers_only(institution)
    found = await institution.front_keys({"cursor": cursor or None, "limit": PAGE_SIZE})
    context: dict[str, Any] = {
        "active": "front-keys",
        "items": found["items"],
        "next_cursor": found["next"],
        "cursor": cursor,
        "acts": institution.lets_act(user.username),
        "form": typed or _FIRST,
        "opened": typed is not None,
        "wrong": wrong or {},
        "key": secrets.token_hex(16),
        "owners": OWNERS,
        "algorithms": ALGORITHMS,
    }
    return render(request, "front_keys.html", context, status=422 if wrong else 200)
