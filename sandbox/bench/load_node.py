"""The node load: signed batches to POST /v1/authorizations, as an acquirer's node sends them.

A raw connection a call instead of NodeClient: what is measured is the node, not the load.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from urllib.parse import urlsplit

import msgspec

from nodes import ids
from nodes.api.client import MAX_ANSWER
from nodes.authorization.model import AuthorizationBatch, AuthorizationRequest, Kind
from nodes.crypto.hsm import SoftwareHsm
from nodes.crypto.http_signatures import MessageSigner, verify_answer
from sandbox.bench.cpu import CpuClock
from sandbox.bench.figures import latency
from sandbox.bench.load import AMOUNTS, NodeOrder, Result, repeats_in, with_repeats
from sandbox.bench.zipf import Zipf
from sandbox.network import CURRENCY

_PATH = "/v1/authorizations"
#: Requests are prepared before the clock starts: their deadlines allow for that.
_DEADLINE_MS = 600_000
_TRACES = 900_000


class _Answers(msgspec.Struct, frozen=True):
    """The answer's items as they came, so that repeats are compared byte for byte."""

    answers: list[msgspec.Raw]


class _Answer(msgspec.Struct, frozen=True):
    outcome: str


@dataclass
class _Prepared:
    """The bodies of the calls, and by number what each of their requests is."""

    bodies: list[bytes]
    numbers: list[list[int]]
    repeated: set[int]


@dataclass
class _Exchange:
    """One call as it was: checked when the clock has stopped."""

    place: int
    signature: str
    head: bytes
    body: bytes
    received_s: float


@dataclass
class _Run:
    """What the callers share."""

    queue: Iterator[int]
    end: float = 0.0
    exhausted: bool = False
    exchanges: list[_Exchange] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def requests_of(order: NodeOrder, count: int) -> list[AuthorizationRequest]:
    """Purchases by cards that a Zipf law picks, one terminal's trace numbers after another."""
    random, zipf = Random(order["seed"]), Zipf(len(order["cards"]))
    hsm = SoftwareHsm({"zone": bytes.fromhex(order["zone_key"])})
    blocks = [hsm.seal_pin("zone", card["pin"], card["pan"]) for card in order["cards"]]
    local = datetime.now(UTC) + timedelta(hours=8)
    business_date, local_time = f"{local:%Y-%m-%d}", f"{local:%Y-%m-%dT%H:%M:%S}"
    now_ms = time.time_ns() // 1_000_000
    made = []
    for number in range(count):
        place = zipf.draw(random)
        card = order["cards"][place]
        reference = ids.new_network_ref()
        made.append(
            AuthorizationRequest(
                txid=ids.txid(order["acquirer"], order["issuer"], reference),
                network_ref=reference,
                acquirer=order["acquirer"],
                issuer=order["issuer"],
                kind=Kind.PURCHASE,
                amount=AMOUNTS[number % len(AMOUNTS)],
                currency=CURRENCY,
                pan=card["pan"],
                expiry=card["expiry"],
                service_code=card["service_code"],
                entry_mode="021",
                pin_block=blocks[place],
                merchant_id=order["merchant_id"],
                merchant_name="Load",
                mcc="5411",
                country="CN",
                terminal_id=f"N{order['business_batch']}{number // _TRACES}",
                terminal_seq=number + 1,
                business_date=business_date,
                batch=order["business_batch"],
                stan=f"{number % _TRACES + 1:06d}",
                rrn=f"{number + 1:012d}",
                transmitted_ms=now_ms,
                local_time=local_time,
                salt_fin=secrets.token_bytes(32),
                salt_pii=secrets.token_bytes(32),
                deadline_ms=now_ms + _DEADLINE_MS,
            )
        )
    return made


def _prepare(order: NodeOrder) -> _Prepared:
    random = Random(order["seed"] + 1)
    sent = with_repeats(order["messages"], random, order["calls"] * order["batch"])
    requests = requests_of(order, max(sent) + 1)
    size = order["batch"]
    numbers = [sent[start : start + size] for start in range(0, len(sent) - size + 1, size)]
    encoder = msgspec.json.Encoder()
    bodies = [
        encoder.encode(AuthorizationBatch([requests[number] for number in call]))
        for call in numbers
    ]
    return _Prepared(bodies, numbers, repeats_in(sent))


class _Caller:
    """A kept-alive connection with one call in flight."""

    def __init__(self, order: NodeOrder, prepared: _Prepared, run: _Run) -> None:
        self._signer = MessageSigner(order["acquirer"], bytes.fromhex(order["message_key"]))
        self._uri = order["url"] + _PATH
        self._address = urlsplit(order["url"])
        self._prepared = prepared
        self._run = run

    async def connect(self) -> None:
        """Open the connection, and warm it and what is behind it with one call."""
        self._reader, self._writer = await asyncio.open_connection(
            self._address.hostname, self._address.port, limit=MAX_ANSWER
        )
        await self._call(next(self._run.queue))

    async def until_the_end(self) -> None:
        """Call after call, until the time or the prepared messages are over."""
        run, now = self._run, time.perf_counter
        began = now()
        while began < run.end:
            place = next(run.queue, None)
            if place is None:
                run.exhausted = True
                return
            await self._call(place)
            ended = now()
            run.seconds.append(ended - began)
            began = ended

    def close(self) -> None:
        self._writer.close()

    async def _call(self, place: int) -> None:
        body = self._prepared.bodies[place]
        fields = self._signer.sign_request("POST", self._uri, body, int(time.time()))
        signed = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        head = (
            f"POST {_PATH} HTTP/1.1\r\nHost: {self._address.netloc}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n{signed}\r\n"
        )
        self._writer.write(head.encode() + body)
        answer_head = await self._reader.readuntil(b"\r\n\r\n")
        length = int(fields_of(answer_head)["content-length"])
        answer = await self._reader.readexactly(length)
        signature = fields["Signature"].removeprefix("sig1=")
        self._run.exchanges.append(_Exchange(place, signature, answer_head, answer, time.time()))


def fields_of(head: bytes) -> dict[str, str]:
    """The fields of an answer's head, names in lower case."""
    lines = head.decode("latin-1").split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines if line)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


async def load_node(order: NodeOrder) -> Result:
    """`calls` signed batches at a time for the time of the order."""
    prepared = _prepare(order)
    run = _Run(iter(range(len(prepared.bodies))))
    callers = [_Caller(order, prepared, run) for _ in range(order["calls"])]
    for caller in callers:
        await caller.connect()
    warm = len(run.exchanges)
    groups = {**order["processes"]["groups"], "load": [os.getpid()]}
    cpu = CpuClock(groups, order["processes"]["trees"])
    cpu.start()
    began = time.perf_counter()
    run.end = began + order["seconds"]
    async with asyncio.TaskGroup() as group:
        for caller in callers:
            group.create_task(caller.until_the_end())
    took, used = time.perf_counter() - began, cpu.stop()
    for caller in callers:
        caller.close()
    return _judge(order, prepared, run, warm, took, used)


def _judge(
    order: NodeOrder,
    prepared: _Prepared,
    run: _Run,
    warm: int,
    took: float,
    cpu: Mapping[str, float],
) -> Result:
    """Signatures, outcomes, and that a repeat got the very answer that the original got."""
    peer = bytes.fromhex(order["peer_key"])
    outcomes: Counter[str] = Counter()
    first: dict[int, bytes] = {}
    seen: set[int] = set()
    approved = differing = repeats = 0
    answers_of = msgspec.json.Decoder(_Answers)
    outcome_of = msgspec.json.Decoder(_Answer)
    for turn, exchange in enumerate(run.exchanges):
        status = int(exchange.head.split(b" ", 2)[1])
        if status != 200:
            outcomes[f"http_{status}"] += len(prepared.numbers[exchange.place])
            continue
        verify_answer(
            fields_of(exchange.head),
            status=status,
            body=exchange.body,
            request_signature=exchange.signature,
            key_id=order["issuer"],
            public_key=peer,
            now_s=exchange.received_s,
        )
        answers = answers_of.decode(exchange.body).answers
        for number, raw in zip(prepared.numbers[exchange.place], answers, strict=True):
            outcome = outcome_of.decode(raw).outcome
            outcomes[outcome] += 1
            if number in prepared.repeated:
                differing += first.setdefault(number, bytes(raw)) != bytes(raw)
            repeats += number in seen
            approved += outcome == "approved" and number not in seen and turn >= warm
            seen.add(number)
    return Result(
        approved=approved,
        repeats=repeats,
        seconds=took,
        outcomes=dict(outcomes),
        differing=differing,
        latency_ms=latency(run.seconds),
        cpu=dict(cpu),
        exhausted=run.exhausted,
    )
