"""What the endpoints are handed, and how rows become items."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, cast

from fastapi import Depends, Header, Query, Request
from sqlalchemy import Connection

from nodes.anchoring.block_reader import BlockReader
from nodes.anchoring.queries import LogPlace, log_places
from nodes.api.node import ApiNode
from nodes.api.problems import Problem
from nodes.api.schemas import KNOWN_CURRENCIES, TransactionItem
from nodes.authorization.rules import explain
from nodes.authorization.state import Reason

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _node(request: Request) -> ApiNode:
    node: ApiNode = request.app.state.node
    return node


TheNode = Annotated[ApiNode, Depends(_node)]


def _blocks(request: Request) -> BlockReader:
    return cast(BlockReader, request.app.state.blocks)


#: Reads the blocks of anchors, for proofs.
TheBlocks = Annotated[BlockReader, Depends(_blocks)]
Limit = Annotated[int, Query(ge=1, le=500, description="Items a page.")]
Cursor = Annotated[
    str | None, Query(max_length=128, description="`next` of the page before; opaque.")
]
IdempotencyKey = Annotated[
    str,
    Header(
        min_length=8,
        max_length=128,
        pattern=r"^[!-~]+$",
        description="Made by the caller. The same key with the same content gets the same answer"
        " and moves nothing again; with other content it is refused.",
    ),
]

#: Where a repeat without a key is told what stands (its id is the caller's, or nothing changes).
OptionalKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=8,
        max_length=128,
        pattern=r"^[!-~]+$",
        description="Made by the caller. With one, a repeat gets the same answer and makes nothing"
        " again; the key with other content is refused.",
    ),
]


def note_keys_of(node: ApiNode) -> Callable[[int], bytes | None] | None:
    """The node's own note key at a block, by the directory; None while that isn't known."""
    member = node.directory.member(node.settings.member_id)
    return None if member is None else member.note_key_at


def moment(milliseconds: int) -> datetime:
    """An aware UTC datetime of a millisecond time stamp, exactly."""
    return _EPOCH + timedelta(milliseconds=milliseconds)


def hex_or_none(value: bytes | None) -> str | None:
    """Lower-case hex."""
    return None if value is None else bytes(value).hex()


def item_of(row: Mapping[str, Any], place: LogPlace) -> dict[str, Any]:
    """The members of a TransactionItem."""
    plain = {name: row[name] for name in _AS_THEY_ARE}
    return plain | {
        "txid": row["txid"].hex(),
        "card_token": hex_or_none(row["card_token"]),
        "original_txid": hex_or_none(row["original_txid"]),
        "commitment": row["commitment"].hex(),
        "transmitted_at": moment(row["transmitted_ms"]),
        "decided_at": moment(row["decided_ms"]),
        "log_index": place.log_index,
        "batch_seq": place.batch_seq,
        "anchor_state": place.state,
    }


_MADE = {
    *("txid", "card_token", "original_txid", "commitment", "transmitted_at", "decided_at"),
    *("log_index", "batch_seq", "anchor_state"),
}
_AS_THEY_ARE = tuple(name for name in TransactionItem.model_fields if name not in _MADE)


def items_of(connection: Connection, rows: list[Mapping[str, Any]]) -> list[TransactionItem]:
    """Rows with their places in the log, in the rows' order."""
    places = log_places(connection, [row["transaction_id"] for row in rows])
    return [TransactionItem(**item_of(row, places[row["transaction_id"]])) for row in rows]


def require_role(node: ApiNode, role: Literal["issuer", "acquirer", "merchant"]) -> None:
    """Problem 404 unless the node has the role."""
    if role not in node.settings.roles:
        raise Problem(404, "role-missing", f"This node is no {role}.")


def require_currency(currency: str) -> None:
    """Problem 422 unless the network knows the currency."""
    if currency not in KNOWN_CURRENCIES:
        raise Problem(422, "currency-unknown")


def refused(status: int, outcome: str, reason: Reason | None = None) -> Problem:
    """The problem of an operation's outcome; with what the rules compared, where they refused."""
    kind = outcome.replace("_", "-")
    if reason is None:
        return Problem(status, kind)
    told = {"code": reason.code, "rule_id": reason.rule_id, "values": reason.values}
    return Problem(status, kind, explain(reason), reason=told)
