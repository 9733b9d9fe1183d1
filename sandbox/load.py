"""Load for `countersign bench`, in a process of its own: `python -m sandbox.load node|gateway`.

Reads a JSON order from standard input and writes one line of JSON: how many purchases were
approved in how many seconds, and the other outcomes by name. Both loads are closed loops with a
fixed number of requests in flight. What can be prepared is prepared before the clock starts:
messages are encoded before, answers of terminals are decoded after it.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict

from gateway.iso8583 import codec
from gateway.pos import framing
from nodes import ids
from nodes.api.client import NodeClient
from nodes.authorization.model import AuthorizationRequest, Kind, Outcome
from nodes.crypto.hsm import SoftwareHsm
from nodes.crypto.http_signatures import MessageSigner
from sandbox.network import ACQUIRER, CURRENCY, TPDU, Card, Terminal
from sandbox.postgres import HOST
from sandbox.terminal import PURCHASE
from sandbox.terminal import Card as TerminalCard
from sandbox.terminal import Terminal as SimulatedTerminal

_Link = tuple[asyncio.StreamReader, asyncio.StreamWriter]
#: Amounts of the purchases, minor units.
_AMOUNTS = range(100, 1_100)


class NodeOrder(TypedDict):
    """What the node load needs. Keys in hex; `calls` x `batch` requests are in flight."""

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
    business_batch: str


class GatewayOrder(TypedDict):
    """What the gateway load needs: each terminal has one request in flight."""

    port: int
    cards: list[Card]
    terminals: list[Terminal]
    messages: int
    seconds: float
    business_batch: str


class Result(TypedDict):
    """What a load found."""

    approved: int
    seconds: float
    outcomes: dict[str, int]


def _requests(order: NodeOrder) -> Iterator[AuthorizationRequest]:
    """Purchases as an acquirer's node sends them, one terminal's trace numbers after another."""
    hsm = SoftwareHsm({"zone": bytes.fromhex(order["zone_key"])})
    blocks = [hsm.seal_pin("zone", card["pin"], card["pan"]) for card in order["cards"]]
    local = datetime.now(UTC) + timedelta(hours=8)
    number = 0
    while True:
        card = order["cards"][number % len(blocks)]
        reference = ids.new_network_ref()
        now_ms = time.time_ns() // 1_000_000
        yield AuthorizationRequest(
            txid=ids.txid(ACQUIRER, order["issuer"], reference),
            network_ref=reference,
            acquirer=ACQUIRER,
            issuer=order["issuer"],
            kind=Kind.PURCHASE,
            amount=_AMOUNTS[number % len(_AMOUNTS)],
            currency=CURRENCY,
            pan=card["pan"],
            expiry=card["expiry"],
            service_code=card["service_code"],
            entry_mode="021",
            pin_block=blocks[number % len(blocks)],
            merchant_id=order["merchant_id"],
            merchant_name="Load",
            mcc="5411",
            country="CN",
            terminal_id=f"N{order['business_batch']}{number // 900_000}",
            terminal_seq=number + 1,
            business_date=f"{local:%Y-%m-%d}",
            batch=order["business_batch"],
            stan=f"{number % 900_000 + 1:06d}",
            rrn=f"{number + 1:012d}",
            transmitted_ms=now_ms,
            local_time=f"{local:%Y-%m-%dT%H:%M:%S}",
            salt_fin=secrets.token_bytes(32),
            salt_pii=secrets.token_bytes(32),
            deadline_ms=now_ms + 15_000,
        )
        number += 1


async def load_node(order: NodeOrder) -> Result:
    """Signed batches to POST /v1/authorizations, `calls` of them at a time."""
    requests = _requests(order)
    outcomes: Counter[str] = Counter()
    signer = MessageSigner(ACQUIRER, bytes.fromhex(order["message_key"]))
    peer = bytes.fromhex(order["peer_key"])
    async with NodeClient(order["url"], signer=signer, peer=peer, timeout_s=30) as client:
        # Connections, prepared statements and caches are warm before the clock starts.
        await client.authorizations([next(requests) for _ in range(order["batch"])])
        began = time.perf_counter()
        end = began + order["seconds"]

        async def caller() -> None:
            while time.perf_counter() < end:
                batch = [next(requests) for _ in range(order["batch"])]
                answers = await client.authorizations(batch)
                outcomes.update(answer.outcome.value for answer in answers)

        async with asyncio.TaskGroup() as group:
            for _ in range(order["calls"]):
                group.create_task(caller())
        took = time.perf_counter() - began
    return Result(approved=outcomes[Outcome.APPROVED.value], seconds=took, outcomes=dict(outcomes))


async def load_gateway(order: GatewayOrder) -> Result:
    """Each terminal sends its next purchase when the answer to the last one is there."""
    terminals = [_simulated(entry, order) for entry in order["terminals"]]
    frames = [
        _frames(terminal, order["cards"], place, order["messages"])
        for place, terminal in enumerate(terminals)
    ]
    links = [await asyncio.open_connection(HOST, order["port"]) for _ in terminals]
    # Connections, prepared statements and caches are warm before the clock starts.
    for link, queue in zip(links, frames, strict=True):
        await _ask(link, queue.pop())
    answers: list[bytes] = []
    began = time.perf_counter()
    end = began + order["seconds"]

    async def customer_after_customer(link: _Link, queue: list[bytes]) -> None:
        while time.perf_counter() < end:
            if not queue:
                raise RuntimeError("a terminal ran out of prepared messages; prepare more")
            answers.append(await _ask(link, queue.pop()))

    async with asyncio.TaskGroup() as group:
        for link, queue in zip(links, frames, strict=True):
            group.create_task(customer_after_customer(link, queue))
    took = time.perf_counter() - began
    for _, writer in links:
        writer.close()
    outcomes = Counter(
        codec.decode(answer[framing.MESSAGE_START :]).text.get(39, "?") for answer in answers
    )
    return Result(approved=outcomes["00"], seconds=took, outcomes=dict(outcomes))


async def _ask(link: _Link, frame: bytes) -> bytes:
    """The answer to a frame, without its length."""
    reader, writer = link
    writer.write(frame)
    length = int.from_bytes(await reader.readexactly(framing.LENGTH_BYTES), "big")
    return await reader.readexactly(length)


def _simulated(entry: Terminal, order: GatewayOrder) -> SimulatedTerminal:
    return SimulatedTerminal(
        entry["terminal_id"],
        entry["merchant_id"],
        bytes.fromhex(entry["tmk"]),
        HOST,
        order["port"],
        tpdu=bytes.fromhex(TPDU),
        batch=order["business_batch"],
    )


def _frames(terminal: SimulatedTerminal, cards: list[Card], place: int, count: int) -> list[bytes]:
    frames = []
    for turn in range(count):
        card = cards[(place * 7 + turn) % len(cards)]
        read = TerminalCard(card["pan"], card["expiry"], card["service_code"], card["currency"])
        amount = _AMOUNTS[(place + turn) % len(_AMOUNTS)]
        frames.append(terminal.seal(terminal.request("0200", PURCHASE, read, amount, card["pin"])))
    return frames


def main() -> None:
    """Run the load that the first argument names."""
    order: Any = json.load(sys.stdin)
    load = {"node": load_node, "gateway": load_gateway}[sys.argv[1]]
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(load(order))
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
