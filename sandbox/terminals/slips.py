"""Receipts of what a simulated terminal did: from the books, else as it knows it."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta, timezone
from typing import NamedTuple

import httpx
import msgspec

from gateway.receipts.model import (
    Chip,
    Cvm,
    ReceiptContent,
    Wanted,
    content_of,
)
from gateway.receipts.rendering import Form, render
from nodes.emv import tlv
from sandbox.cards.chip import AID
from sandbox.terminal import Terminal
from sandbox.terminals.surroundings import Surroundings
from sandbox.terminals.till import Exchange

_CHINA = timezone(timedelta(hours=8))


class Slip(NamedTuple):
    """A receipt: PNG, text, the proof's link; txid (empty: none) and outcome of the books."""

    picture: bytes
    text: str
    proof_url: str | None
    txid: str
    outcome: str


def slip_of(
    around: Surroundings, terminal: Terminal, made: Exchange, wanted: Wanted
) -> Slip | None:
    """The receipt; None without an answer that has an RRN."""
    rrn = rrn_of(made)
    if not rrn:
        return None
    content = _recorded(around, rrn) or _unrecorded(made, terminal, rrn)
    chip = _chip(made)
    if chip is not None and content.chip is None:
        content = msgspec.structs.replace(content, chip=chip)
    if made.signed and content.cvm is None:
        content = msgspec.structs.replace(content, cvm=Cvm.SIGNATURE)
    text = render(content, wanted, Form.TEXT).decode()
    picture = render(content, wanted, Form.PNG)
    return Slip(picture, text, content.proof_url, content.txid, content.outcome)


def rrn_of(made: Exchange) -> str:
    """By what the answer is known at the node: DE37, or an order's; empty without one."""
    return made.reply.rrn if made.reply is not None else made.rrn


def _recorded(around: Surroundings, rrn: str) -> ReceiptContent | None:
    """What the acquirer's node says of it; None if it recorded nothing."""
    with around.acquirer.client() as client, contextlib.suppress(httpx.HTTPError):
        page = client.get("/v1/transactions", params={"rrn": rrn}).json()
        for item in page.get("items", []):
            if item["side"] == "acquirer":
                path = f"/v1/transactions/{item['txid']}/receipt"
                answer = client.post(path, json={})
                return content_of(answer.json()) if answer.is_success else None
    return None


def _unrecorded(made: Exchange, terminal: Terminal, rrn: str) -> ReceiptContent:
    """A receipt of what the gateway refused: there is nothing in anybody's books."""
    assert made.card is not None
    fields = made.reply.fields if made.reply is not None else {}
    return ReceiptContent(
        txid="",
        kind="purchase",
        approved=False,
        outcome=made.code,
        amount=0,
        currency=made.currency,
        merchant_id=terminal.merchant_id,
        merchant_name=terminal.merchant_id,
        terminal_id=terminal.terminal_id,
        acquirer="-",
        issuer="-",
        pan_masked=made.card.masked,
        entry_mode=(made.message.text.get(22, "") if made.message else ""),
        batch=terminal.batch,
        stan=fields.get(11, ""),
        rrn=rrn,
        local_time=datetime.now(UTC).astimezone(_CHINA),
        cvm=Cvm.PIN if made.with_pin else Cvm.SIGNATURE if made.signed else Cvm.NONE,
    )


def _chip(made: Exchange) -> Chip | None:
    if made.icc is None or made.atc is None:
        return None
    arqc = next(e.value for e in tlv.decode(made.icc) if e.tag == "9F26")
    return Chip(aid=AID.hex(), cryptogram=arqc.hex(), atc=made.atc)
