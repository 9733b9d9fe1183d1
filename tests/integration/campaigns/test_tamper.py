"""A sample of `make tamper`: every class, on a network founded for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sandbox.campaigns.tamper import expected_classes, run_tamper

pytestmark = pytest.mark.timeout(600)
COUNT = 15


def test_everything_is_found_and_rightly_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "tamper.json"
    status = run_tamper(tmp_path / "network", output, count=COUNT, seed=4, processes=2)
    said = capsys.readouterr().out
    assert status == 0, said
    written = json.loads(output.read_text())
    assert set(written) == {"classes", "clean_runs", "false_alarms", "seed"}
    assert set(written["classes"]) == set(expected_classes())
    assert len(written["classes"]) >= 12
    for name, tally in written["classes"].items():
        assert tally["tried"] >= COUNT, name
        assert tally["tried"] == tally["found"] == tally["named"], name
    assert written["clean_runs"] >= 100
    assert (written["false_alarms"], written["seed"]) == (0, 4)
    assert not (tmp_path / "network").exists()
