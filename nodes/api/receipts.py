"""`/v1/transactions/{txid}/receipt`: what a receipt says, for whoever prints it.

Layout and printing are the gateway's (gateway/receipts); the node tells what is in its books.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

import msgspec
from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel
from sqlalchemy import Connection

from nodes.acquiring.fleet import queries as fleet
from nodes.acquiring.fleet.model import FleetRecord
from nodes.anchoring.operations.promising import promise_transaction
from nodes.anchoring.receipt import Promise
from nodes.api.auth import admitted
from nodes.api.dependencies import TheNode, moment
from nodes.api.node import ApiNode
from nodes.api.problems import Problem
from nodes.api.promises import may_print, promise_item, promiser_of
from nodes.api.reads import bytes_of_hex, snapshot
from nodes.api.schemas import Currency, Hex32, Nothing
from nodes.authorization.model import Kind, Outcome
from nodes.authorization.queries import chip_slip, requested_amount, stood_in_ms
from nodes.clock import to_datetime
from nodes.emv.chip_data import ChipSlip, signed_for
from nodes.ledger import queries as ledger

router = APIRouter(tags=["receipts"])

Txid = Annotated[str, Path(description="32 bytes in lower-case hex.", max_length=128)]


class ReceiptChip(BaseModel):
    """What the chip said. `aid` and `cryptogram` in hex; `aid` and `label` may be empty."""

    aid: str
    label: str
    kind: Literal["AAC", "TC", "ARQC"]
    cryptogram: str
    atc: int


class ReceiptItem(BaseModel):
    """One transaction as its receipt shows it. `entry_mode`: DE22. `cvm`, `chip`: null where no
    chip was read; the verification is then what DE22 tells. `offline`: it was paid before anybody
    was asked. `requested`: what was asked for, where less was approved. `proof_url`: the promise's
    link; null where this node promises nothing."""

    txid: Hex32
    kind: str
    approved: bool
    outcome: str
    amount: int
    currency: Currency
    merchant_id: str
    merchant_name: str
    terminal_id: str
    store: str
    #: What the terminal's parameters say: how its receipts are printed.
    language: Literal["en", "zh"]
    width_mm: Literal[58, 80]
    acquirer: str
    issuer: str
    pan_masked: str
    entry_mode: str
    cvm: Literal["pin", "signature", "none"] | None
    chip: ReceiptChip | None
    requested: int | None
    offline: bool
    batch: str
    stan: str
    rrn: str
    original_rrn: str | None
    approval_code: str | None
    local_time: datetime
    proof_url: str | None
    promised_by: datetime | None


@router.post("/v1/transactions/{txid}/receipt", dependencies=[Depends(admitted(may_print))])
def make_receipt(node: TheNode, request: Request, txid: Txid, body: Nothing) -> ReceiptItem:
    """What the receipt of a recorded transaction says; its promise is made with the first one."""
    key = bytes_of_hex(txid, 32, "transaction-unknown")
    with snapshot(node.engine) as connection:
        rows = [r for r in ledger.transactions_by_txid(connection, key) if r["side"] == "acquirer"]
        if not rows:
            raise Problem(404, "transaction-unknown", "The acquirer's books have none of that id.")
        row = rows[0]
        original = _original_rrn(connection, row)
        slip = chip_slip(connection, key)
        requested = requested_amount(connection, key)
        unseen = stood_in_ms(connection, key) is not None
        terminal = fleet.terminal(connection, row["terminal_id"])
        parameters = fleet.terminal_parameters(connection, row["terminal_id"])
    promise = _promise(node, request, key)
    item = None if promise is None else promise_item(node, promise)
    printed = parameters[1] if parameters else None
    return ReceiptItem(
        **{name: row[name] for name in _AS_THEY_ARE},
        txid=txid,
        approved=row["outcome"] == Outcome.APPROVED.value,
        acquirer=_name(node, row["acquirer"]),
        issuer=_name(node, row["issuer"]),
        pan_masked=row["pan_masked"] or "***",
        cvm=None if slip is None else _cvm(slip, row["entry_mode"]),
        chip=None if slip is None else _chip(slip),
        requested=requested,
        offline=row["kind"] == Kind.ADVICE.value and not unseen,
        store=_store(terminal),
        language="en" if printed and printed.receipt_language == "en" else "zh",
        width_mm=80 if printed and printed.receipt_width_mm == 80 else 58,
        original_rrn=original,
        local_time=moment(row["transmitted_ms"]).astimezone(
            ZoneInfo(node.settings.business_time_zone)
        ),
        proof_url=None if item is None else item.url,
        promised_by=None if item is None else to_datetime(item.merge_deadline * 1000),
    )


_AS_THEY_ARE = (
    *("kind", "outcome", "amount", "currency", "merchant_id", "merchant_name", "terminal_id"),
    *("entry_mode", "batch", "stan", "rrn", "approval_code"),
)


def _promise(node: ApiNode, request: Request, txid: bytes) -> Promise | None:
    """The promise; None where this node makes none (a receipt without a proof is still one)."""
    try:
        promiser = promiser_of(node, request)
    except Problem as problem:
        if problem.status_code == 409:
            return None
        raise
    return promise_transaction(node.engine, promiser, txid)


def _cvm(slip: ChipSlip, entry_mode: str) -> Literal["pin", "signature", "none"]:
    if entry_mode[2:3] == "1":
        return "pin"
    return "signature" if signed_for(slip.cvm_results) else "none"


def _chip(slip: ChipSlip) -> ReceiptChip:
    return ReceiptChip(
        aid=slip.aid.hex(),
        label=slip.label,
        kind=slip.kind.name,
        cryptogram=slip.cryptogram.hex(),
        atc=slip.atc,
    )


def _original_rrn(connection: Connection, row: ledger.Row) -> str | None:
    if row["original_txid"] is None:
        return None
    for other in ledger.transactions_by_txid(connection, row["original_txid"]):
        return str(other["rrn"])
    return None


def _store(terminal: fleet.Row | None) -> str:
    if terminal is None or terminal["record"] is None:
        return ""
    return msgspec.convert(terminal["record"], FleetRecord).store


def _name(node: ApiNode, member_id: str) -> str:
    member = node.directory.member(member_id)
    return member.name if member is not None else member_id
