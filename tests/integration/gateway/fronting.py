"""A real gateway before two real nodes, its terminal, and messages that it has no method for."""

from __future__ import annotations

import itertools
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from gateway.app import Gateway
from gateway.iso8583 import codec
from gateway.iso8583.codec import Message
from gateway.pos import framing
from gateway.pos.services import format_totals
from gateway.settings import GatewaySettings
from gateway.terminal_keys.ring import MASTER_KEY, ZONE_KEY, tmk_name
from nodes.authorization.services import CurrencyTotals
from nodes.cards.model import IssuedCard
from nodes.crypto.keystore import Keystore
from sandbox.terminal import Card, Reply, Terminal
from tests.factories.network import ACQUIRER, GATEWAY_ZONE, MERCHANT, TERMINAL
from tests.factories.pos import secret, tmk
from tests.integration.api.running import GATEWAY, SEEDS, TwoNodes, public
from tests.integration.gateway.running import document

_BATCHES = itertools.count(700_001)


@asynccontextmanager
async def front(
    nodes: TwoNodes, *terminal_ids: str, node_url: str | None = None, **changes: Any
) -> AsyncIterator[tuple[Gateway, list[Terminal]]]:
    """A gateway and terminals that have signed on, each in a batch that no test had before."""
    names = terminal_ids or (TERMINAL,)
    terminals = [{"terminal_id": name, "merchant_id": MERCHANT} for name in names]
    settings = GatewaySettings.model_validate(
        document(
            node_url or nodes.acquirer.url,
            public(ACQUIRER),
            key_id=GATEWAY,
            terminals=terminals,
            **changes,
        )
    )
    secrets = {
        MASTER_KEY: secret(MASTER_KEY),
        ZONE_KEY: GATEWAY_ZONE,
        "message": SEEDS[GATEWAY],
        **{tmk_name(name): tmk(name) for name in names},
    }
    gateway = Gateway(settings, Keystore(secrets, "memory"))
    await gateway.start()
    found: list[Terminal] = []
    try:
        for name in names:
            pos = Terminal(
                name,
                MERCHANT,
                tmk(name),
                "127.0.0.1",
                gateway.pos_port,
                batch=f"{next(_BATCHES):06d}",
            )
            await pos.connect()
            assert (await pos.sign_on()).approved
            found.append(pos)
        yield gateway, found
    finally:
        for pos in found:
            await pos.close()
        await gateway.close()


def plastic(card: IssuedCard, service_code: str = "220") -> Card:
    """What a terminal reads off an issued card."""
    return Card(card.pan, card.expiry, service_code)


async def top_up(pos: Terminal, card: Card, amount: int) -> Reply:
    return await pos.exchange(pos.request("0200", "210000", card, amount))


async def close_batch(pos: Terminal, *totals: CurrencyTotals) -> Reply:
    """A 0500 with these totals."""
    return await pos.exchange(closing(pos, *totals))


def closing(pos: Terminal, *totals: CurrencyTotals) -> Message:
    message = pos._management("920000")
    message.mti = "0500"
    local = pos.request("0200", "000000", Card("0", "0000"), 0).text[13]
    message.text |= {13: local, 60: pos.batch, 63: format_totals(totals) or "CNY" + "0" * 36}
    return message


def upload_of(reply: Reply | Message, pos: Terminal, amount: int | None = None) -> Message:
    """The 0320 of a message that was sent."""
    if isinstance(reply, Reply):
        sent = codec.decode(reply.request[framing.LENGTH_BYTES + framing.MESSAGE_START :])
    else:
        sent = reply
    text = {n: v for n, v in sent.text.items() if n in _UPLOADED}
    binary = {n: v for n, v in sent.binary.items() if n == 57}
    if amount is not None:
        text[4] = f"{amount:012d}"
    return Message.of("0320", text | {63: sent.mti}, binary)


_UPLOADED = {2, 3, 4, 7, 11, 12, 13, 14, 22, 25, 35, 37, 41, 42, 49, 60}


async def download(pos: Terminal, code: str, version: int | None = None) -> Reply:
    """An 0800 that asks for a page."""
    message = pos._management(code)
    if version is not None:
        message.text[63] = f"{version:010d}"
    return await pos.exchange(message)


def dead_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
