"""A sample of `make fuzz`: every part, against a gateway of its own before real nodes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sandbox.campaigns.fuzz import Order, run_fuzz

pytestmark = pytest.mark.timeout(600)


def test_nothing_comes_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "fuzz.json"
    # Whether honest terminals wait twice as long is for a quiet machine to say: not here.
    order = Order(frames=3_000, seed=5, replays=400, slow=100, honest=20, rounds=1, split_every=5)
    run_fuzz(tmp_path / "network", output, order)
    said = capsys.readouterr().out
    written = json.loads(output.read_text())
    assert {name: written[name] for name in ("frames", "seed")} == {"frames": 3_000, "seed": 5}
    for wrong in ("uncaught", "hangs", "state_changes", "card_data_in_logs", "double_posts"):
        assert written[wrong] == 0, said
    assert written["answered"] > 300
    assert written["replays"]["sent"] >= 400
    assert written["replays"]["answered_otherwise"] == 0
    assert written["slow_loris"]["connections"] == 100
