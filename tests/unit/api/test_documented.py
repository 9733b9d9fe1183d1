"""docs/node-api.md names every problem and every endpoint that there is."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path

import nodes.api
from nodes.acquiring.fleet.model import FleetOutcome
from nodes.acquiring.model import AcquiringOutcome
from nodes.api import hot
from nodes.authorization.operations.adjusting import AdjustmentOutcome
from nodes.authorization.operations.changing_terms import TermsOutcome
from nodes.authorization.operations.controlling import ControlOutcome
from nodes.authorization.operations.offline import KeyOutcome, ReserveOutcome
from nodes.authorization.operations.own import LoadOutcome, TransferOutcome
from nodes.authorization.operations.standing import AccountOutcome
from nodes.cards.model import CardOutcome
from nodes.clearing.model import CaseOutcome
from nodes.crypto.http_signatures import SignatureFault

SOURCES = Path(nodes.api.__file__).parent
TEXT = (SOURCES.parents[1] / "docs" / "node-api.md").read_text(encoding="utf-8")
_KIND = re.compile(
    r"(?:Problem\(\s*\d{3},|unavailable\(|unauthenticated\(|JsonRefused\()\s*\"([a-z0-9-]+)\""
)


def _kinds() -> set[str]:
    found: set[str] = set()
    for source in SOURCES.rglob("*.py"):
        found |= set(_KIND.findall(source.read_text(encoding="utf-8")))
    outcomes: tuple[type[Enum], ...] = (
        AcquiringOutcome,
        FleetOutcome,
        CardOutcome,
        CaseOutcome,
        LoadOutcome,
        TransferOutcome,
        AccountOutcome,
        AdjustmentOutcome,
        ControlOutcome,
        TermsOutcome,
        KeyOutcome,
        ReserveOutcome,
        SignatureFault,
    )
    for enum in outcomes:
        found |= {member.value.replace("_", "-") for member in enum if member.name != "DONE"}
    return found


def test_every_problem_is_documented() -> None:
    kinds = _kinds()
    assert len(kinds) > 40
    assert sorted(kind for kind in kinds if f"`{kind}`" not in TEXT) == []


def test_every_endpoint_is_documented() -> None:
    paths = {
        hot.TERMINAL_REQUESTS,
        hot.AUTHORIZATIONS,
        hot.TERMINAL_SERVICES,
        "/metrics",
        "/docs",
        "/openapi.json",
    }
    for source in SOURCES.glob("*.py"):
        text = source.read_text(encoding="utf-8")
        for prefix, name in re.findall(r"(\w+) = APIRouter\((?:prefix=\"([^\"]*)\")?", text):
            routes = re.findall(rf"@{prefix}\.(?:get|post)\(\s*\"([^\"]*)\"", text)
            paths |= {name + route for route in routes}
    assert len(paths) > 25
    assert sorted(path for path in paths if f"`{path}`" not in TEXT.replace("?", "`")) == []
