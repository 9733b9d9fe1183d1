"""What a benchmark reports, and that a bad run is no result."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sandbox import bench as module
from sandbox.bench import Bench, BenchError, Series, Settings, bench_plan
from sandbox.postgres import EmbeddedPostgres


def test_the_median_counts_and_the_ratio_is_of_medians() -> None:
    series = Series(runs=[100.0, 900.0, 300.0], yardsticks=[50.0, 200.0, 150.0])
    summary = series.summary()
    assert summary["value"] == 300.0
    assert summary["yardstick"] == 150.0
    assert summary["ratio"] == 2.0
    assert summary["runs"] == [100.0, 900.0, 300.0]
    assert "/s" in summary["unit"]


def test_as_many_terminals_as_requests_in_flight() -> None:
    (merchant,) = bench_plan().merchants
    assert len(set(merchant.terminals)) == 128
    assert {len(terminal) for terminal in merchant.terminals} == {8}


@pytest.mark.parametrize(
    "outcomes",
    [
        {"00": 1000, "96": 1},
        {"00": 1000, "91": 1},
        {"approved": 1000, "issuer_unavailable": 1},
        {"approved": 1000, "insufficient_funds": 1},
        {"00": 1000, "51": 1},
    ],
)
def test_a_run_with_anything_but_approvals_is_void(
    outcomes: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = json.dumps({"approved": 1000, "seconds": 1.0, "outcomes": outcomes})

    def answer(*arguments: Any, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 0, said, "")

    monkeypatch.setattr(module.subprocess, "run", answer)
    bench = Bench.__new__(Bench)
    bench._settings = Settings()
    bench._console = Console(quiet=True)
    with pytest.raises(BenchError):
        bench._load("node", {})


def test_pgbench_of_the_wheel_runs(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "pg", durable=False)
    try:
        server.start()
        path, environment = server.binary("pgbench")
        done = subprocess.run(
            [path, "-i", "-q", "-h", server.host, "-p", str(server.port), "-U", "postgres"],
            env=environment | {"PGPASSWORD": server.password, "PGDATABASE": "postgres"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    finally:
        server.delete()
