"""What a benchmark reports, what it sends, and that a bad run is no result."""

from __future__ import annotations

import json
import subprocess
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest

from sandbox.bench import chart
from sandbox.bench.cpu import CpuClock, cpu_seconds, rss_bytes
from sandbox.bench.designs import summary
from sandbox.bench.designs_client import Found
from sandbox.bench.figures import GOALS, Series, latency, median_ratio, percentile, slope
from sandbox.bench.history import PreloadError, Template
from sandbox.bench.load import Result, repeats_in, with_repeats
from sandbox.bench.networks import HOT, SPREAD, BenchError, Shape, judge, remove_network
from sandbox.bench.report import record, table
from sandbox.bench.settings import Settings, quick
from sandbox.bench.yardsticks import YardstickError, read_pgbench
from sandbox.bench.zipf import Zipf
from sandbox.network import ACQUIRER
from sandbox.postgres import EmbeddedPostgres


def test_the_ratio_is_the_median_of_the_ratios_of_neighbours() -> None:
    series = Series("node_authorizations_vs_tpcb")
    for run, beside in ((100.0, 50.0), (900.0, 100.0), (300.0, 60.0)):
        series.add(run, beside, {"p50": run, "p99": 2 * run})
    found = series.summary()
    assert found["ratio"] == 5.0
    assert (found["value"], found["yardstick"]) == (300.0, 60.0)
    assert found["runs"] == [100.0, 900.0, 300.0]
    assert found["yardstick_runs"] == [50.0, 100.0, 60.0]
    assert found["latency_ms"] == {"p50": 300.0, "p99": 600.0}
    assert (found["floor"], found["aim"], found["floor_met"]) == (5, 12, True)
    with pytest.raises(ValueError, match="shorter"):
        median_ratio([1.0, 2.0], [1.0])


def test_where_less_is_better_the_floor_is_an_upper_bound() -> None:
    goal = GOALS["idle_p50_vs_tpcb_one_client"]
    assert goal.met(4.0)
    assert not goal.met(4.01)


def test_every_figure_of_the_order_has_its_bounds() -> None:
    bounds = {name: (goal.floor, goal.aim) for name, goal in GOALS.items()}
    assert bounds == {
        "node_authorizations_vs_tpcb": (5, 12),
        "full_path_vs_tpcb": (1, 3),
        "on_us_path_vs_tpcb": (2, 6),
        "hot_merchant_vs_spread": (0.9, None),
        "idle_p50_vs_tpcb_one_client": (4, None),
        "authorizations_vs_transfer_function": (10, 25),
        "at_5m_rows_vs_empty": (0.85, None),
    }


def test_percentiles_are_values_that_occurred() -> None:
    values = [float(n) for n in range(100, 0, -1)]
    assert percentile(values, 0.5) == 50.0
    assert percentile(values, 0.99) == 99.0
    assert percentile(values, 1.0) == 100.0
    assert percentile([7.0], 0.99) == 7.0
    assert latency([0.001, 0.002, 0.003]) == {"p50": 2.0, "p99": 3.0}
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_a_slope_is_per_authorization() -> None:
    assert slope([(0, 10.0), (1000, 12.0), (2000, 14.0)]) == pytest.approx(0.002)
    assert slope([(0, 5.0), (10, 5.0)]) == 0


def test_zipf_draws_a_rank_in_proportion_to_its_inverse() -> None:
    zipf, random = Zipf(2_000), Random(1)
    assert zipf.probability(0) == pytest.approx(2 * zipf.probability(1))
    assert zipf.probability(0) == pytest.approx(100 * zipf.probability(99))
    assert sum(zipf.probability(rank) for rank in range(2_000)) == pytest.approx(1)
    drawn = Counter(zipf.draw(random) for _ in range(50_000))
    assert set(drawn) <= set(range(2_000))
    for rank in (0, 1, 9):
        assert drawn[rank] / 50_000 == pytest.approx(zipf.probability(rank), rel=0.1)


def test_one_message_in_twenty_is_an_earlier_one_again() -> None:
    sent = with_repeats(100_000, Random(2), 128)
    fresh = sorted(set(sent))
    assert fresh == list(range(len(fresh)))
    assert (len(sent) - len(fresh)) / len(sent) == pytest.approx(0.05, abs=0.005)
    first = {number: place for place, number in reversed(list(enumerate(sent)))}
    again = [place - first[number] for place, number in enumerate(sent) if first[number] != place]
    assert min(again) >= 512
    assert repeats_in(sent) == {
        sent[place] for place in range(100_000) if first[sent[place]] != place
    }


def result(**changes: Any) -> Result:
    values: dict[str, Any] = {
        "approved": 950,
        "repeats": 50,
        "seconds": 1.0,
        "outcomes": {"approved": 1000},
        "differing": 0,
        "latency_ms": {"p50": 1.0, "p99": 2.0},
        "cpu": {},
        "exhausted": False,
    }
    return Result(**{**values, **changes})  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    "changes",
    [
        {"outcomes": {"00": 1000, "96": 1}},
        {"outcomes": {"00": 1000, "91": 1}},
        {"outcomes": {"approved": 1000, "issuer_unavailable": 1}},
        {"outcomes": {"approved": 1000, "insufficient_funds": 1}},
        {"outcomes": {"approved": 1000, "http_503": 64}},
        {"differing": 1},
        {"approved": 0, "outcomes": {}},
    ],
)
def test_a_run_with_anything_but_approvals_or_another_answer_is_void(
    changes: dict[str, Any],
) -> None:
    judge("node", result())
    with pytest.raises(BenchError):
        judge("node", result(**changes))


def test_a_thousand_merchants_or_one_with_as_many_terminals() -> None:
    plan = Shape("main", 0).plan
    hot = [m for m in plan.merchants if m.merchant_id.startswith(HOT)]
    spread = [m for m in plan.merchants if m.merchant_id.startswith(SPREAD)]
    assert len(hot) == 1
    assert len(spread) == 1_000
    assert len(hot[0].terminals) == 1_000
    assert all(len(merchant.terminals) == 1 for merchant in spread)
    assert {len(m.merchant_id) for m in plan.merchants} == {15}
    assert {len(t) for m in plan.merchants for t in m.terminals} == {8}
    roles = {member.member_id: member.roles for member in plan.members}
    assert set(roles[ACQUIRER]) == {"acquirer", "issuer"}


def test_a_directory_that_is_no_network_is_not_deleted(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(BenchError):
        remove_network(tmp_path)
    assert (tmp_path / "letter.txt").exists()


def test_a_quick_run_says_that_it_is_not_comparable() -> None:
    settings = quick(Settings(calls=4))
    assert settings.calls * settings.batch == 128
    assert record(settings)["comparable"] is False
    assert record(Settings())["comparable"] is True
    assert "NOT COMPARABLE" in str(table({"settings": record(settings)}).title)


def test_stored_json_is_filled_by_name() -> None:
    template = Template(
        b'{"txid":"YWJj","outcome":"approved","amount":5,"approval_code":null,"pair_seq":12}',
        frozenset({"txid", "amount", "approval_code", "pair_seq"}),
    )
    filled = template.fill(
        {"txid": b'"eHl6"', "amount": b"7", "approval_code": b'"123456"', "pair_seq": b"1300"}
    )
    assert json.loads(filled) == {
        "txid": "eHl6",
        "outcome": "approved",
        "amount": 7,
        "approval_code": "123456",
        "pair_seq": 1300,
    }
    with pytest.raises(PreloadError):
        Template(b"\x93\x01\x02\x03", frozenset({"txid"}))


def test_the_profile_counts_the_cpu_between_start_and_stop() -> None:
    worker = subprocess.Popen(["/bin/sh", "-c", "while :; do :; done"])
    try:
        clock = CpuClock({"worker": [worker.pid], "nobody": [2**22 + 1]})
        clock.start()
        before = cpu_seconds(worker.pid)
        while cpu_seconds(worker.pid) < before + 0.1:
            pass
        used = clock.stop()
        assert used["worker"] >= 0.1
        assert used["nobody"] == 0
        assert rss_bytes(worker.pid) > 0
    finally:
        worker.kill()
        worker.wait()


def test_the_chart_is_a_bar_a_figure_and_as_wide_as_its_parts() -> None:
    document = {
        "node_authorizations_vs_tpcb": {"cpu_us": {"load": 5.0, "issuer node": 40.0}},
        "full_path_vs_tpcb": {"cpu_us": {"gateway": 60.0, "postgres": 30.0}},
        "idle_p50_vs_tpcb_one_client": {"ratio": 2.0},
    }
    drawn = chart.draw(document)
    root = ElementTree.fromstring(drawn)
    space = "{http://www.w3.org/2000/svg}"
    widths = {
        rect[0].text: float(rect.attrib["width"]) for rect in root.iter(f"{space}rect") if len(rect)
    }
    assert set(widths) == {
        "load: 5.0 µs",
        "issuer node: 40.0 µs",
        "gateway: 60.0 µs",
        "postgres: 30.0 µs",
    }
    assert widths["gateway: 60.0 µs"] == pytest.approx(2 * widths["postgres: 30.0 µs"], rel=0.01)
    texts = {text.text for text in root.iter(f"{space}text")}
    assert {"45 µs", "90 µs", "Batch call to the node", "Full path, two institutions"} <= texts


def test_the_page_gets_the_table_between_its_marks_and_keeps_the_rest() -> None:
    series = Series("full_path_vs_tpcb")
    series.add(9_000.0, 3_000.0)
    document = {
        "machine": {"cpus": 2, "cpu": "Some", "memory_gib": 23.5, "python": "3.11"},
        "postgresql": {"server_version": "18.6"},
        "settings": record(Settings()),
        "full_path_vs_tpcb": series.summary() | {"p99_ms_at_half_load": 21.04},
    }
    page = "Before\n<!-- figures -->\nold\n<!-- /figures -->\nAfter\n"
    written = chart.with_figures(page, document)
    assert written.startswith("Before\n<!-- figures -->\n2 cores (Some)")
    assert written.endswith("<!-- /figures -->\nAfter\n")
    assert "| `full_path_vs_tpcb` | 9,000 | 3,000 | **3.00** | 1 | 3 |" in written
    assert "21.0 ms" in written
    assert "old" not in written
    assert chart.with_figures(written, document) == written
    with pytest.raises(ValueError, match="no place"):
        chart.with_figures("no marks", document)


def test_a_design_is_given_in_microseconds_a_transaction() -> None:
    runs = [
        Found(transactions=n, seconds=2.0, client_cpu=0.02, postgres_cpu=0.1, conflicts=1)
        for n in (1_000, 2_000, 4_000)
    ]
    found = summary(runs, [100.0, 100.0, 100.0])
    assert found["value"] == 1_000.0
    assert found["ratio_to_tpcb"] == 10.0
    assert found["postgres_us"] == 50.0
    assert found["client_us"] == 10.0
    assert found["conflicts"] == 3


def test_what_pgbench_says() -> None:
    said = "number of failed transactions: 0 (0.000%)\nlatency average = 7.1 ms\ntps = 4500.5 (x)\n"
    assert read_pgbench(said).per_second == 4500.5
    with pytest.raises(YardstickError):
        read_pgbench(said.replace("transactions: 0", "transactions: 3"))
    with pytest.raises(YardstickError):
        read_pgbench("connection refused")


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
