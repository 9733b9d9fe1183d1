"""What a load process is told and says: `python -m sandbox.bench.load node|gateway`.

It reads a JSON order from standard input and writes one line of JSON. What can be prepared is
prepared before the clock starts (requests are encoded, MACs and PIN blocks computed), and answers
are kept as bytes and looked at when it has stopped.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from collections.abc import Sequence
from random import Random
from typing import Any, TypedDict

from sandbox.network import Card, Terminal

#: One message in twenty is the same bytes again.
REPEATED = 0.05
#: A repeat is of one of this many earlier messages, but of none that may be under way.
REPEAT_WITHIN = 8_192
#: Amounts of the purchases, minor units.
AMOUNTS = range(100, 1_100)


class Processes(TypedDict):
    """Whose CPU is counted while the clock runs: pids by name, and parents of whole trees."""

    groups: dict[str, list[int]]
    trees: dict[str, int]


class NodeOrder(TypedDict):
    """What the node load needs. Keys in hex; `calls` x `batch` requests are in flight."""

    acquirer: str
    issuer: str
    url: str
    message_key: str
    peer_key: str
    zone_key: str
    cards: list[Card]
    merchant_id: str
    calls: int
    batch: int
    seconds: float
    messages: int
    business_batch: str
    seed: int
    processes: Processes


class GatewayOrder(TypedDict):
    """What the gateway load needs: `links` connections with one request in flight each.

    `rate`: arrivals a second, whatever the answers (open loop); None: the next request goes out
    when the last one is answered.
    """

    port: int
    cards: list[Card]
    terminals: list[Terminal]
    links: int
    rate: float | None
    seconds: float
    messages: int
    business_batch: str
    seed: int
    processes: Processes


class Result(TypedDict):
    """What a load found. `approved` counts new purchases, not repeats. CPU in seconds by group."""

    approved: int
    repeats: int
    seconds: float
    outcomes: dict[str, int]
    #: Repeats whose answer differed from that to the original.
    differing: int
    latency_ms: dict[str, float]
    cpu: dict[str, float]
    #: The prepared messages did not last for the time.
    exhausted: bool


def with_repeats(count: int, random: Random, in_flight: int) -> list[int]:
    """The order in which messages go out, by number; a number that comes again is a repeat."""
    sent: list[int] = []
    fresh, nearest = 0, 4 * in_flight
    while len(sent) < count:
        if len(sent) > nearest and random.random() < REPEATED:
            sent.append(sent[-random.randint(nearest, min(len(sent), REPEAT_WITHIN))])
        else:
            sent.append(fresh)
            fresh += 1
    return sent


def repeats_in(sent: Sequence[int]) -> set[int]:
    """The numbers that stand more than once in an order of sending."""
    seen: set[int] = set()
    again: set[int] = set()
    for number in sent:
        (again if number in seen else seen).add(number)
    return again


def main() -> None:
    """Run the load that the first argument names."""
    import uvloop

    from sandbox.bench.load_gateway import load_gateway
    from sandbox.bench.load_node import load_node

    order: Any = json.load(sys.stdin)
    load = {"node": load_node, "gateway": load_gateway}[sys.argv[1]]
    # Hundreds of thousands of prepared messages: no collector shall walk over them.
    gc.disable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(load(order))
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
