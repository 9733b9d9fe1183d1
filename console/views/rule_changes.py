"""Making and ending spend rules."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any

from fastapi import APIRouter, Form, Path, Query, Request
from starlette.responses import RedirectResponse, Response

from console import presentation, wording
from console.institutions import Institution, Json, NotDone, NotKnown
from console.session import Chosen, Forbidden, SignedIn
from console.templating import render

router = APIRouter(prefix="/i/{member_id}/rules")

MEASURES = {"amount": "Amount", "count": "Number of payments"}
#: Rules that decline without a limit have this in place of a window.
NO_LIMIT = ""


@dataclass(frozen=True)
class RuleForm:
    """What stands in the form: texts, as people typed them."""

    scope: str = "account"
    subject: str = ""
    name: str = ""
    mccs: str = ""
    merchants: str = ""
    countries: str = ""
    channels: str = ""
    unless: str = ""
    window: str = "day"
    measure: str = "amount"
    maximum: str = ""
    shadow: str = ""

    @classmethod
    def of(cls, typed: Mapping[str, str]) -> RuleForm:
        """The form's fields among those sent, without blanks around them."""
        known = {one.name for one in fields(cls)}
        return cls(**{name: value.strip() for name, value in typed.items() if name in known})

    def for_node(self) -> tuple[Json, dict[str, str]]:
        """As the node API takes it, and what is wrong by field."""
        wrong: dict[str, str] = {}
        if self.scope not in wording.RULE_SCOPES:
            wrong["scope"] = "Choose one of the list."
        if not self.subject:
            wrong["subject"] = "A product, an account number or a card token."
        if not self.name:
            wrong["name"] = "What people call it: it stands in every decline."
        limit: Json | None = None
        if self.window != NO_LIMIT:
            maximum = (
                presentation.minor_units(self.maximum, "CNY")
                if self.measure == "amount"
                else int(self.maximum)
                if self.maximum.isascii() and self.maximum.isdigit()
                else None
            )
            if self.window not in wording.WINDOWS or self.measure not in MEASURES:
                wrong["window"] = "Choose one of the list."
            if maximum is None:
                wrong["maximum"] = (
                    "An amount, such as 500.00."
                    if self.measure == "amount"
                    else "A whole number, such as 5."
                )
            limit = {"window": self.window, "measure": self.measure, "maximum": maximum}
        when = {
            name: [part.strip() for part in getattr(self, name).split(",") if part.strip()]
            for name in ("mccs", "merchants", "countries", "channels")
        }
        if limit is None and not any(when.values()):
            wrong["window"] = "Without a limit and without a condition it would decline everything."
        document = {
            "scope": self.scope,
            "subject": self.subject.lower() if self.scope == "card" else self.subject,
            "name": self.name,
            "when": when,
            "unless": bool(self.unless),
            "limit": limit,
            "shadow": bool(self.shadow),
        }
        return document, wrong


@router.get("/new")
async def form(
    request: Request,
    institution: Chosen,
    user: SignedIn,
    scope: Annotated[str, Query(max_length=16)] = "account",
    subject: Annotated[str, Query(max_length=40)] = "",
) -> Response:
    """The form of a new rule."""
    _may_act(institution, user.username)
    return _form(request, RuleForm(scope=scope, subject=subject), {})


@router.post("/new")
async def make(
    request: Request,
    institution: Chosen,
    user: SignedIn,
    scope: Annotated[str, Form(max_length=16)] = "",
    subject: Annotated[str, Form(max_length=40)] = "",
    name: Annotated[str, Form(max_length=80)] = "",
    mccs: Annotated[str, Form(max_length=400)] = "",
    merchants: Annotated[str, Form(max_length=400)] = "",
    countries: Annotated[str, Form(max_length=200)] = "",
    channels: Annotated[str, Form(max_length=40)] = "",
    unless: Annotated[str, Form(max_length=4)] = "",
    window: Annotated[str, Form(max_length=16)] = "",
    measure: Annotated[str, Form(max_length=16)] = "amount",
    maximum: Annotated[str, Form(max_length=20)] = "",
    shadow: Annotated[str, Form(max_length=4)] = "",
    key: Annotated[str, Form(max_length=64)] = "",
) -> Response:
    """Make the rule, once a form; of an account or a card it is in force at once."""
    _may_act(institution, user.username)
    typed = RuleForm.of(
        {
            "scope": scope, "subject": subject, "name": name, "mccs": mccs,
            "merchants": merchants, "countries": countries, "channels": channels,
            "unless": unless, "window": window, "measure": measure, "maximum": maximum,
            "shadow": shadow,
        }
    )  # fmt: skip
    document, wrong = typed.for_node()
    if wrong:
        return _form(request, typed, wrong, key)
    try:
        made = await institution.act(user.username, "/v1/rules", document, key or None)
    except NotDone as error:
        return _form(request, typed, {"form": wording.not_done(error.kind, error.detail)}, key)
    chosen = {"scope": made["scope"], "subject": made["subject"]}
    address = f"/i/{institution.member_id}/rules{presentation.query(chosen)}"
    return RedirectResponse(address, 303)


@router.post("/{rule_id}/end")
async def end(
    request: Request,
    institution: Chosen,
    user: SignedIn,
    rule_id: Annotated[str, Path(max_length=40)],
    confirm: Annotated[str, Form(max_length=40)] = "",
) -> Response:
    """End a rule for good; typed confirmation: the first eight characters of its id."""
    _may_act(institution, user.username)
    refusal = ""
    if confirm.strip().lower() != rule_id[:8].lower():
        refusal = f"Type {rule_id[:8]} to confirm that this rule ends."
    else:
        try:
            await institution.act(user.username, f"/v1/rules/{rule_id}/end", {})
        except NotDone as error:
            refusal = wording.not_done(error.kind, error.detail)
    address = f"/i/{institution.member_id}/rules"
    if not refusal:
        return RedirectResponse(address, 303)
    context = {"active": "rules", "refusal": refusal, "back": address}
    return render(request, "not_done.html", context, status=409)


def _may_act(institution: Institution, username: str) -> None:
    if "issuer" not in institution.roles:
        raise NotKnown
    if not institution.lets_act(username):
        raise Forbidden


def _form(request: Request, typed: RuleForm, wrong: dict[str, str], key: str = "") -> Response:
    context: dict[str, Any] = {
        "active": "rules",
        # One key a form: a second click gets the rule that the first one made.
        "key": key or secrets.token_hex(16),
        "form": typed,
        "wrong": wrong,
        "scopes": wording.RULE_SCOPES,
        "windows": wording.WINDOWS,
        "measures": MEASURES,
    }
    return render(request, "rule_form.html", context, status=422 if wrong else 200)
