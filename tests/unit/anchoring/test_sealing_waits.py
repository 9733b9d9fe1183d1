"""When sealing leaves the processors to terminals."""

from __future__ import annotations

import math

import pytest

from nodes.anchoring.rules import BUSY_S, may_wait


@pytest.mark.parametrize(
    ("oldest_s", "recent_s", "waits"),
    [
        (0.5, BUSY_S / 2, True),
        (9.9, BUSY_S / 2, True),
        (10.0, BUSY_S / 2, False),  # its patience is over
        (0.5, BUSY_S * 2, False),  # the load is over
        (0.5, math.inf, False),  # few rows were ever recorded
        (-1.0, BUSY_S / 2, True),  # nothing waits to be sealed
    ],
)
def test_rows_wait_while_terminals_are_busy_but_not_for_ever(
    oldest_s: float, recent_s: float, waits: bool
) -> None:
    assert may_wait(oldest_s, recent_s, patience_s=10.0) is waits
