"""The gateway's counters, in a registry of their own. Labels are bounded and carry no card data.

What is counted a message is counted in plain integers (Tally, Spread), which the scrape reads:
the library's own counters take a lock and look their labels up each time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter as Counts
from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector


class Tally(Collector):
    """A counter for one event loop: `counts` by label values."""

    def __init__(self, name: str, text: str, labels: Sequence[str] = ()) -> None:
        self.counts: Counts[tuple[str, ...]] = Counts() if labels else Counts({(): 0})
        self._description = name, text, None, labels

    def collect(self) -> Iterator[CounterMetricFamily]:
        """For the registry."""
        family = CounterMetricFamily(*self._description)
        for labels, count in self.counts.items():
            family.add_metric(labels, count)
        yield family


class Spread(Collector):
    """A histogram for one event loop. `bounds`: the upper ends of its buckets, in order."""

    def __init__(self, name: str, text: str, bounds: Sequence[float]) -> None:
        self._name, self._text, self._bounds = name, text, bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """For the registry."""
        total, buckets = 0, list[tuple[str, float]]()
        for bound, count in zip([*map(str, self._bounds), "+Inf"], self._counts, strict=True):
            total += count
            buckets.append((bound, total))
        yield HistogramMetricFamily(self._name, self._text, buckets, self._sum)


class Metrics:
    """One gateway's figures, as GET /metrics shows them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        name = "countersign_gateway"
        registry = self.registry
        self.connections = Gauge(
            f"{name}_connections", "Open terminal connections", registry=registry
        )
        self.waiting = Gauge(
            f"{name}_waiting_requests", "Requests that wait for a call", registry=registry
        )
        self.frames = Tally(f"{name}_frames", "Complete frames received")
        self.closed = Counter(
            f"{name}_closed_connections",
            "Connections that the gateway closed, by reason",
            ["reason"],
            registry=registry,
        )
        self.dropped = Counter(
            f"{name}_dropped_messages",
            "Messages dropped without an answer, by reason (answer_unasked: an answer MTI)",
            ["reason"],
            registry=registry,
        )
        self.answers = Tally(f"{name}_answers", "Answers sent, by MTI and DE39", ["mti", "code"])
        self.refusals = Counter(
            f"{name}_refusals",
            "Messages that the gateway refused by itself, by reason",
            ["reason"],
            registry=registry,
        )
        self.mac_failures = Counter(
            f"{name}_mac_failures", "Alarm: messages with a bad or missing MAC", registry=registry
        )
        self.unanswered = Counter(
            f"{name}_unanswered_requests",
            "Requests that got no answer: undecided, late (answer after the deadline), gone",
            ["reason"],
            registry=registry,
        )
        self.node_calls = Counter(
            f"{name}_node_calls",
            "Calls to the acquirer's node, by result",
            ["result"],
            registry=registry,
        )
        self.node_batch = Histogram(
            f"{name}_node_batch_size",
            "Requests in a call",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
            registry=registry,
        )
        self.seconds = Spread(
            f"{name}_answer_seconds",
            "From a frame's arrival to its answer, for what the node decided",
            (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 15.0),
        )
        for collector in (self.frames, self.answers, self.seconds):
            registry.register(collector)

    def text(self) -> bytes:
        """The exposition format of Prometheus."""
        return generate_latest(self.registry)
