"""Cases of breaks: filters, moves and the comparison of both versions."""

from __future__ import annotations

from typing import Any

import pytest

from console import record_wording
from console.break_cases import CaseFilters, compared, due_group, moves, resolutions
from nodes.clearing.case_queries import case_of
from nodes.clearing.model import BreakKind, CaseState, CaseStep, CloseStage, Resolution
from nodes.clearing.rules.cases import applicable

NOW = 1_790_000_000.0
ITEM: dict[str, Any] = {
    "kind": "FIELD_MISMATCH",
    "lacking": None,
    "state": "open",
    "owner": "meridian",
    "age_s": 7_200,
    "due_at": "2026-09-23T13:33:20Z",
    "overdue": False,
    "proposed_by": None,
    "fields": ["amount"],
    "versions": {},
}


def test_every_code_of_the_nodes_has_its_words() -> None:
    assert set(record_wording.BREAK_KINDS) == {kind.value for kind in BreakKind}
    assert set(record_wording.CASE_STATES) == {state.value for state in CaseState}
    assert set(record_wording.CASE_STEPS) == {step.value for step in CaseStep}
    assert set(record_wording.CLOSE_STAGES) == {stage.value for stage in CloseStage}
    assert set(record_wording.RESOLUTIONS) == {resolution.value for resolution in Resolution}


@pytest.mark.parametrize("kind", list(BreakKind))
@pytest.mark.parametrize("lacking", [None, "issuer"])
@pytest.mark.parametrize("txid", [None, "aa" * 32])
def test_only_resolutions_that_the_node_takes_are_offered(
    kind: BreakKind, lacking: Any, txid: Any
) -> None:
    found = {"kind": kind, "lacking": lacking, "txid": txid, "break_ref": bytes(32)}
    case = case_of(found | {"late_until": None}, [])
    offered = resolutions(ITEM | {"kind": kind.value, "lacking": lacking, "txid": txid})
    assert set(offered) == {one.value for one in Resolution if applicable(case, one)}


def test_the_maker_is_not_offered_to_check() -> None:
    assert moves(ITEM, "meridian") == ("propose",)
    assert moves(ITEM | {"kind": "LATE"}, "meridian") == ()
    proposed = ITEM | {"state": "proposed", "proposed_by": "meridian"}
    assert moves(proposed, "meridian") == ()
    assert moves(proposed, "aurora") == ("countersign", "refuse")
    assert moves(ITEM | {"state": "closed"}, "aurora") == ()


@pytest.mark.parametrize(
    ("filters", "fits"),
    [
        (CaseFilters(owner="meridian"), True),
        (CaseFilters(owner="aurora"), False),
        (CaseFilters(age="24"), False),
        (CaseFilters(due="overdue"), False),
    ],
)
def test_filters(filters: CaseFilters, fits: bool) -> None:
    assert filters.fits(ITEM, NOW) is fits


def test_the_node_itself_filters_by_whose_desk_a_case_lies_on() -> None:
    assert CaseFilters(taken="mine").at_the_node("mara")["taken_by"] == "mara"
    assert CaseFilters(taken="nobody").at_the_node("mara")["taken"] == "false"
    assert not any(CaseFilters(owner="meridian").at_the_node("mara").values())


def test_due_times_are_told_apart() -> None:
    due = 1_790_170_400
    assert due_group(ITEM, due - 90_000) == "later"
    assert due_group(ITEM, due - 80_000) == "soon"
    assert due_group(ITEM | {"overdue": True}, due + 1) == "overdue"
    assert due_group(ITEM | {"overdue": True, "state": "closed"}, due + 1) == ""


def test_both_versions_are_compared_field_by_field() -> None:
    mine = {
        "amount": 1250,
        "currency": "CNY",
        "merchant_id": "HARBOR000000001",
        "commitment": "aa" * 32,
        "effect": 1250,
    }
    theirs = mine | {"amount": 1257, "effect": 1257, "commitment": "bb" * 32}
    rows = compared(ITEM | {"versions": {"acquirer": mine, "issuer": theirs}})
    assert {row.name for row in rows if row.differs} == {"amount", "effect", "commitment"}
    [amount] = [row for row in rows if row.name == "amount"]
    assert (amount.acquirer, amount.issuer) == ("12.50 CNY", "12.57 CNY")
    alone = compared(ITEM | {"versions": {"acquirer": mine}, "fields": []})
    assert all(row.issuer is None and not row.differs for row in alone)
    hidden = compared(
        ITEM | {"fields": ["card_token"], "versions": {"acquirer": mine, "issuer": mine}}
    )
    assert [row.name for row in hidden if row.differs] == ["card_token"]
    assert compared(ITEM) == []
