"""The gateway's counters, in a registry of their own. Labels are bounded and carry no card data."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


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
        self.frames = Counter(f"{name}_frames", "Complete frames received", registry=registry)
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
        self.answers = Counter(
            f"{name}_answers", "Answers sent, by MTI and DE39", ["mti", "code"], registry=registry
        )
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
        self.seconds = Histogram(
            f"{name}_answer_seconds",
            "From a frame's arrival to its answer, for what the node decided",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 15),
            registry=registry,
        )

    def text(self) -> bytes:
        """The exposition format of Prometheus."""
        return generate_latest(self.registry)
