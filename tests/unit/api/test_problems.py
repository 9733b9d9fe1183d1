"""Which exceptions are a caller's doing, and which are defects that stand in the log."""

from __future__ import annotations

import pytest
from starlette.requests import ClientDisconnect

from nodes.api import problems


def test_a_caller_that_hangs_up_is_no_defect_and_an_error_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    defects: list[BaseException] = []
    monkeypatch.setattr(problems, "log_defect", defects.append)
    gone = problems.problem_of(ClientDisconnect())
    assert (gone.status_code, defects) == (400, [])
    assert problems.problem_of(ValueError()).status_code == 500
    assert len(defects) == 1
