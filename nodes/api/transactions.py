"""`/v1/transactions`: search, one transaction with its timeline, its proof, and the live stream."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Path, Query, Request
from pydantic import AwareDatetime
from sqlalchemy import Connection
from starlette.responses import Response, StreamingResponse

from nodes import clock
from nodes.anchoring import proof_queries
from nodes.anchoring import queries as anchoring
from nodes.anchoring.model import AnchorState
from nodes.api.account_views import decision_item, related_items
from nodes.api.auth import Principal, holds, identify, reader, reader_or_member
from nodes.api.batches import batch_rows
from nodes.api.dependencies import (
    Cursor,
    Limit,
    TheBlocks,
    TheNode,
    item_of,
    items_of,
    moment,
    note_keys_of,
)
from nodes.api.problems import Problem
from nodes.api.reads import bytes_of_hex, cursor_of, number_of_cursor, snapshot
from nodes.api.schemas import Page, TransactionDetail, TransactionItem
from nodes.api.stream import TransactionStream, position_of
from nodes.authorization.model import Kind, Outcome
from nodes.authorization.queries import queued_reversal, stood_in_ms
from nodes.ledger import queries as ledger

router = APIRouter(prefix="/v1/transactions", tags=["transactions"])

Side = Literal["issuer", "acquirer", "merchant"]
_INT64 = (1 << 63) - 1
_Text = Annotated[str | None, Query(max_length=32, pattern=r"^[ -~]+$")]
_Sides = {"issuer": 0, "acquirer": 1, "merchant": 2}
Txid = Annotated[str, Path(description="32 bytes in lower-case hex.", max_length=128)]


@router.get("", dependencies=[Depends(reader)])
def list_transactions(
    node: TheNode,
    kind: Kind | None = None,
    outcome: Outcome | None = None,
    side: Side | None = None,
    merchant_id: _Text = None,
    terminal_id: _Text = None,
    rrn: _Text = None,
    txid: Annotated[str | None, Query(pattern=r"^[0-9a-f]{64}$")] = None,
    card_token: Annotated[str | None, Query(pattern=r"^[0-9a-f]{32}$")] = None,
    decided_from: Annotated[
        AwareDatetime | None, Query(alias="from", description="Decided at or after (RFC 3339).")
    ] = None,
    decided_to: Annotated[
        AwareDatetime | None, Query(alias="to", description="Decided before (RFC 3339).")
    ] = None,
    min_amount: Annotated[int | None, Query(ge=0, le=_INT64)] = None,
    max_amount: Annotated[int | None, Query(ge=0, le=_INT64)] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[TransactionItem]:
    """Transactions, the newest first."""
    wanted = ledger.TransactionFilter(
        kind=kind.value if kind else None,
        outcome=outcome.value if outcome else None,
        side=side,
        merchant_id=merchant_id,
        terminal_id=terminal_id,
        rrn=rrn,
        txid=bytes.fromhex(txid) if txid else None,
        card_token=bytes.fromhex(card_token) if card_token else None,
        from_ms=_ms(decided_from),
        to_ms=_ms(decided_to),
        min_amount=min_amount,
        max_amount=max_amount,
    )
    before = number_of_cursor(cursor)
    with snapshot(node.engine) as connection:
        rows = ledger.find_transactions(connection, wanted, limit=limit + 1, before=before)
        items = items_of(connection, rows[:limit])
    more = len(rows) > limit
    return Page(items=items, next=cursor_of(rows[limit - 1]["transaction_id"]) if more else None)


def _ms(at: datetime | None) -> int | None:
    return None if at is None else clock.to_ms(at)


async def _stream_reader(request: Request) -> Principal:
    """Like `reader`, but a stream doesn't count as a call under way."""
    principal = await identify(request)
    holds("reader")(principal)
    return principal


@router.get(
    "/stream",
    dependencies=[Depends(_stream_reader)],
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Server-sent events: `ready`, `transaction` (data: a TransactionItem)"
            " and, at least every 10 s, `heartbeat`.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        }
    },
)
async def stream_transactions(
    request: Request,
    last_event_id: Annotated[str | None, Header(max_length=64)] = None,
) -> StreamingResponse:
    """New transactions as they are committed; `Last-Event-ID` goes on where a stream ended."""
    stream: TransactionStream = request.app.state.stream
    events = stream.subscribe(position_of(last_event_id))
    return StreamingResponse(
        events, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
    )


@router.get("/{txid}", dependencies=[Depends(reader)])
def get_transaction(node: TheNode, txid: Txid, side: Side | None = None) -> TransactionDetail:
    """One transaction with its transfers, the decision on it, its timeline up to the anchor, and
    related ones."""
    key = bytes_of_hex(txid, 32, "transaction-unknown")
    with snapshot(node.engine) as connection:
        row = _side_of(ledger.transactions_by_txid(connection, key), side)
        number = row["transaction_id"]
        place = anchoring.log_places(connection, [number])[number]
        related = ledger.related_transactions(connection, key, row["original_txid"], row["side"])
        return TransactionDetail(
            **item_of(row, place),
            transfers=[_transfer(line) for line in ledger.transfers_of(connection, number)],
            timeline=_timeline(connection, row, place, related),
            related=list(dict.fromkeys(other["txid"].hex() for other in related)),
            related_items=related_items(row, related),
            decision=decision_item(connection, row),
        )


def _side_of(rows: list[ledger.Row], side: str | None) -> ledger.Row:
    """The row of that side; of none given: issuer before acquirer before merchant."""
    found = [row for row in rows if side in (None, row["side"])]
    if not found:
        raise Problem(404, "transaction-unknown", "There is no such transaction in these books.")
    return min(found, key=lambda row: _Sides[row["side"]])


def _transfer(line: ledger.Row) -> dict[str, Any]:
    return {
        "line": line["line"],
        "debit": {
            "account_id": line["debit_id"],
            "kind": line["debit_kind"],
            "owner": line["debit_owner"],
        },
        "credit": {
            "account_id": line["credit_id"],
            "kind": line["credit_kind"],
            "owner": line["credit_owner"],
        },
        "amount": line["amount"],
        "currency": line["currency"],
        "balance_after": line["balance_after"],
    }


def _timeline(
    connection: Connection,
    row: ledger.Row,
    place: anchoring.LogPlace,
    related: list[ledger.Row],
) -> list[dict[str, Any]]:
    """What happened to a transaction, in the order of time."""
    entries = [
        (moment(row["transmitted_ms"]), "accepted", f"taken in by {row['acquirer']}"),
        (moment(row["decided_ms"]), "decided", f"{_words(row['outcome'])} by {row['issuer']}"),
        (row["recorded_at"], "recorded", f"in the books of the {row['side']}"),
    ]
    entries += [_later(other) for other in related if other["original_txid"] == row["txid"]]
    queued = queued_reversal(connection, row["txid"]) if row["side"] == "acquirer" else None
    unseen = stood_in_ms(connection, row["txid"]) if row["side"] == "acquirer" else None
    if unseen is not None:
        detail = f"approved by {row['acquirer']} while {row['issuer']} was away"
        entries.append((moment(unseen), "stood in", detail))
    if queued is not None and queued["done_ms"] is not None:
        detail = f"{queued['reason']}; acknowledged by {queued['issuer']}"
        entries.append((moment(queued["done_ms"]), "reversal acknowledged", detail))
    if place.batch_seq is not None:
        entries += _evidence(batch_rows(connection, [place.batch_seq])[0], place)
    # Sorting is stable: events of one moment stay in the order of the protocol.
    return [
        {"at": at, "event": event, "detail": detail}
        for at, event, detail in sorted(entries, key=lambda entry: entry[0])
    ]


def _later(other: ledger.Row) -> tuple[datetime, str, str]:
    detail = f"{other['txid'].hex()}: {_words(other['outcome'])}"
    return moment(other["decided_ms"]), other["kind"], detail


def _words(outcome: str) -> str:
    return outcome.replace("_", " ")


def _evidence(
    batch: Mapping[str, Any], place: anchoring.LogPlace
) -> list[tuple[datetime, str, str]]:
    found = [
        (batch["sealed_at"], "sealed", f"log index {place.log_index}, batch {batch['seq']}"),
    ]
    if batch["submitted_at"] is not None:
        found.append((batch["submitted_at"], "submitted", f"transaction {batch['tx_hash'].hex()}"))
    if batch["state"] is AnchorState.ANCHORED:
        found.append((batch["anchored_at"], "anchored", f"block {batch['block_number']}"))
    return found


@router.get(
    "/{txid}/proof",
    response_class=Response,
    responses={
        200: {
            "description": "The proof bundle (C2SP tlog-proof@v1).",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        },
        409: {"description": "The transaction is not anchored yet."},
    },
)
def get_proof(
    node: TheNode,
    caller: Annotated[Principal, Depends(reader_or_member)],
    txid: Txid,
    blocks: TheBlocks,
    side: Side | None = None,
) -> Response:
    """The proof that this transaction is in the anchored log.

    A member may fetch the proofs of transactions that it is a party to. On a chain of several
    validators it carries the anchor's block with their seals.
    """
    key = bytes_of_hex(txid, 32, "transaction-unknown")
    with snapshot(node.engine) as connection:
        rows = ledger.transactions_by_txid(connection, key)
        if caller.member_id is not None:
            rows = [r for r in rows if caller.member_id in (r["acquirer"], r["issuer"])]
        row = _side_of(rows, side)
        try:
            bundle = proof_queries.proof_bundle(
                connection, key, row["side"], key_at=note_keys_of(node)
            )
        except proof_queries.NotAnchoredYet as error:
            raise Problem(
                409,
                "not-anchored",
                "The transaction is not in a final anchor yet.",
                state=error.state.value,
            ) from None
        except proof_queries.UnknownTransaction:
            raise Problem(404, "transaction-unknown") from None
    return Response(
        blocks.sealed(bundle),
        media_type="text/plain",
        headers={"Content-Disposition": f'attachment; filename="{txid[:16]}.proof"'},
    )
