"""Spend rules: what limits cards, accounts and products, and what a rule would have declined."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form, Path, Query, Request
from starlette.responses import Response

from console import presentation, wording
from console.institutions import Institution, Json, NotDone, NotKnown
from console.session import Chosen, Forbidden, SignedIn
from console.templating import is_for, render

router = APIRouter(prefix="/i/{member_id}/rules")

PAGE_SIZE = 25
#: Days of history on which a rule can be tried.
DAYS = (1, 7, 30, 90)
#: Rules among which one is looked for by its id.
_RULES_PAGE = 500
_MOST_PAGES = 20
_OF_RULE = ("scope", "subject", "name", "when", "unless", "limit")


@router.get("")
async def rules(
    request: Request,
    institution: Chosen,
    user: SignedIn,
    scope: Annotated[str, Query(max_length=16)] = "",
    subject: Annotated[str, Query(max_length=40)] = "",
    cursor: Annotated[str, Query(max_length=400)] = "",
) -> Response:
    """The rules, ended ones too; the filters stand in the address."""
    _issuers_only(institution)
    chosen = {
        "scope": scope if scope in wording.RULE_SCOPES else "",
        "subject": subject.strip().lower(),
    }
    filters = {name: value for name, value in chosen.items() if value}
    page = await institution.rules({**filters, "cursor": cursor or None, "limit": PAGE_SIZE})
    context = {
        "active": "rules",
        "filters": filters,
        "scopes": wording.RULE_SCOPES,
        "items": [item | {"state": state_of(item, request)} for item in page["items"]],
        "next_cursor": page["next"],
        "cursor": cursor,
        "acts": institution.lets_act(user.username),
        "days": DAYS,
    }
    if is_for(request, "results"):
        address = f"{request.url.path}{presentation.query({**filters, 'cursor': cursor})}"
        headers = {"HX-Push-Url": address}
        return render(request, "rules.html", context, block="results", headers=headers)
    return render(request, "rules.html", context)


def state_of(rule: Json, request: Request) -> str:
    """Whether a rule is to come, in force, or ended, now."""
    now = request.app.state.console.clock.now_ms()
    starts = presentation.moment(rule["effective_from"])
    ends = presentation.moment(rule["effective_to"])
    if ends is not None and ends.timestamp() * 1000 <= now:
        return "ended"
    return "to_come" if starts is not None and starts.timestamp() * 1000 > now else "in_force"


@router.post("/{rule_id}/backtest")
async def backtest(
    request: Request,
    institution: Chosen,
    user: SignedIn,
    rule_id: Annotated[str, Path(max_length=40)],
    days: Annotated[int, Form(ge=1, le=366)] = 30,
) -> Response:
    """What the rule would have declined of the last days' approved payments: a fragment."""
    _issuers_only(institution)
    if not institution.lets_act(user.username):
        raise Forbidden
    rule = await _rule(institution, rule_id)
    context: dict[str, Any] = {"active": "rules", "rule": rule, "days": days, "refusal": ""}
    try:
        document = {name: rule[name] for name in _OF_RULE} | {"days": days}
        context["result"] = await institution.act(user.username, "/v1/rules/backtest", document)
    except NotDone as error:
        context["refusal"] = wording.not_done(error.kind, error.detail)
    return render(request, "backtest.html", context)


async def _rule(institution: Institution, rule_id: str) -> Json:
    cursor = None
    for _ in range(_MOST_PAGES):
        page = await institution.rules({"limit": _RULES_PAGE, "cursor": cursor})
        for item in page["items"]:
            if item["rule_id"] == rule_id:
                found: Json = item
                return found
        cursor = page["next"]
        if cursor is None:
            break
    raise NotKnown


def _issuers_only(institution: Institution) -> None:
    if "issuer" not in institution.roles:
        raise NotKnown
