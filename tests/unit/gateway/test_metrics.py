"""What is counted in plain integers reads like any other counter at the scrape."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from gateway.metrics import Metrics


def _scraped(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }


def test_tallies_are_counters() -> None:
    metrics = Metrics()
    assert _scraped(metrics)["countersign_gateway_frames_total", ()] == 0
    metrics.frames.counts[()] += 3
    metrics.answers.counts["0210", "00"] += 2
    metrics.answers.counts["0210", "51"] += 1
    found = _scraped(metrics)
    assert found["countersign_gateway_frames_total", ()] == 3
    name = "countersign_gateway_answers_total"
    assert found[name, (("code", "00"), ("mti", "0210"))] == 2
    assert found[name, (("code", "51"), ("mti", "0210"))] == 1


def test_a_spread_is_a_histogram_with_cumulative_buckets() -> None:
    metrics = Metrics()
    for value in (0.005, 0.006, 0.2, 99.0):
        metrics.seconds.observe(value)
    found = _scraped(metrics)
    name = "countersign_gateway_answer_seconds"
    buckets = {
        labels[0][1]: value for (key, labels), value in found.items() if key == f"{name}_bucket"
    }
    assert buckets["0.005"] == 1  # a bucket's upper end belongs to it
    assert buckets["0.01"] == 2
    assert buckets["0.1"] == 2
    assert buckets["0.25"] == 3
    assert buckets["15.0"] == 3
    assert buckets["+Inf"] == 4
    assert found[f"{name}_count", ()] == 4
    assert found[f"{name}_sum", ()] == 99.211
