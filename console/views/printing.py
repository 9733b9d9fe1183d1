"""A receipt of a terminal's transaction, printed again by the institution's gateway."""

from __future__ import annotations

import base64
from typing import Annotated

import structlog
from fastapi import APIRouter, Form, Path, Request
from starlette.responses import Response

from console import wording
from console.errors import Notice, show
from console.institutions import GatewayAway, NotDone
from console.session import Chosen, Forbidden, SignedIn
from console.templating import render

router = APIRouter(prefix="/i/{member_id}")

#: What a receipt can be had as -> its media type.
FORMS = {"pdf": "application/pdf", "png": "image/png", "escpos": "application/octet-stream"}
Txid = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]
Typed = Annotated[str, Form(max_length=12)]
_log = structlog.get_logger("console")


@router.post("/transactions/{txid}/receipt")
async def receipt(
    request: Request,
    institution: Chosen,
    user: SignedIn,
    txid: Txid,
    form: Typed = "preview",
    whose: Typed = "customer",
    lang: Typed = "",
    width: Typed = "",
    duplicate: Typed = "",
) -> Response:
    """The receipt as a file, or shown on the page. POST: a first one makes the proof's promise.

    Without language and width it is printed as the terminal's parameters say.
    """
    if not institution.lets_print(user.username):
        raise Forbidden
    how = {"copy": whose, "duplicate": "1" if duplicate else "0"}
    how |= {name: value for name, value in (("lang", lang), ("width", width)) if value}
    try:
        await institution.transaction(txid, "acquirer")
        if form in FORMS:
            body = await institution.receipt(user.username, txid, form, how)
        else:
            body = await institution.receipt(user.username, txid, "png", how)
            text = await institution.receipt(user.username, txid, "txt", how)
    except NotDone as refused:
        words = wording.not_done(refused.kind, refused.detail)
        return show(request, Notice(422, "receipt", "No receipt", words))
    except GatewayAway:
        words = "The gateway that prints this institution's receipts is not answering."
        return show(request, Notice(503, "plug-connected-x", "No receipt now", words))
    _log.info(
        "receipt_printed",
        member=institution.member_id,
        txid=txid,
        by=user.username,
        form=form if form in FORMS else "preview",
        **how,
    )
    if form not in FORMS:
        context = {"picture": base64.b64encode(body).decode(), "text": text.decode()}
        return render(request, "printed.html", context)
    name = f"receipt-{txid[:16]}.{form}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(body, media_type=FORMS[form], headers=headers)
