"""The benchmark of proofs, on a small log: made in steps, and every proof verified."""

from __future__ import annotations

import json
from pathlib import Path

from sandbox.bench.proofs import run_proofs


def test_a_small_log_is_made_in_steps_and_every_proof_holds(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    assert run_proofs(tmp_path / "log", 1_003, 20, 0.0, output) == 3
    assert not output.exists()
    run_proofs(tmp_path / "log", 1_003, 20, 600.0, output)
    result = json.loads(output.read_text())
    assert result["all_hold"]
    assert result["leaves"] == 1_003
    assert result["rows_read_max"] <= 20
