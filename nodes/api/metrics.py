"""The node's Prometheus metrics (names: docs/node-api.md). One registry an app, none global."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from nodes.anchoring.queries import LogStatus
from nodes.authorization.model import Outcome

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class NodeMetrics:
    """Counts what the API does, and shows how far the log is when it is scraped."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._answers = Counter(
            "countersign_http_answers_total",
            "Answers by route and status",
            ("route", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "countersign_http_seconds",
            "Time from the head of a request to its answer",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._batch_sizes = Histogram(
            "countersign_batch_requests",
            "Requests in one call of a batch endpoint",
            ("route",),
            buckets=_BATCH_SIZES,
            registry=self.registry,
        )
        self._outcomes = Counter(
            "countersign_outcomes_total",
            "Answers to authorization requests by outcome",
            ("route", "outcome"),
            registry=self.registry,
        )
        self._refused_signatures = Counter(
            "countersign_signatures_refused_total",
            "Refused message signatures by reason",
            ("reason",),
            registry=self.registry,
        )
        #: Children by their labels: to look one up in the library costs more than to count.
        self._children: dict[tuple[str, ...], Any] = {}
        self.streams = Gauge(
            "countersign_streams", "Open transaction streams", registry=self.registry
        )
        self._unsigned = Gauge(
            "countersign_unsigned_answers",
            "Transactions in the acquirer's books without their issuer's valid signature",
            registry=self.registry,
        )
        self._log = {
            name: Gauge(f"countersign_log_{name}", text, registry=self.registry)
            for name, text in (
                ("size", "Sealed leaves of the log"),
                ("anchored_size", "Leaves covered by a final anchor"),
                ("unsealed_rows", "Recorded transactions that are not sealed"),
                ("lag_seconds", "Age of the oldest transaction or batch without a final anchor"),
            )
        }

    def answered(self, route: str, status: int, seconds: float) -> None:
        """One HTTP answer."""
        self._child(self._answers, "answers", route, str(status)).inc()
        self._child(self._seconds, "seconds", route).observe(seconds)

    def decided(self, route: str, outcomes: Iterable[Outcome]) -> None:
        """One batch's outcomes."""
        tally = Tally(outcomes)
        self._child(self._batch_sizes, "sizes", route).observe(tally.total())
        for outcome, count in tally.items():
            self._child(self._outcomes, "outcomes", route, outcome.value).inc(count)

    def _child(self, metric: Any, name: str, *labels: str) -> Any:
        """The child of these labels, of which there are a few dozen: routes are the API's own."""
        child = self._children.get((name, *labels))
        if child is None:
            child = self._children[(name, *labels)] = metric.labels(*labels)
        return child

    def signature_refused(self, reason: str) -> None:
        """One refused signature."""
        self._refused_signatures.labels(reason).inc()

    def show_log(self, status: LogStatus, now: datetime) -> None:
        """Set the log's gauges."""
        self._log["size"].set(status.size)
        self._log["anchored_size"].set(status.anchored_size)
        self._log["unsealed_rows"].set(status.unsealed)
        self._log["lag_seconds"].set(lag_seconds(status, now))

    def show_unsigned(self, count: int) -> None:
        """Set the gauge of answers without a valid signature."""
        self._unsigned.set(count)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)


def lag_seconds(status: LogStatus, now: datetime) -> float:
    """Age of the oldest record without a final anchor, in seconds; 0 if all are anchored."""
    waiting = [at for at in (status.oldest_unsealed, status.oldest_unanchored) if at is not None]
    return max(0.0, (now.astimezone(UTC) - min(waiting)).total_seconds()) if waiting else 0.0
