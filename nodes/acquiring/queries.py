"""Reads of merchants and terminals, by their ids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, select

from nodes.acquiring.tables import merchants, terminals

Row = Mapping[str, Any]


def find_merchants(connection: Connection, *, limit: int, after: str | None = None) -> list[Row]:
    """In the order of the id; `after`: only greater ids (the next page)."""
    query = select(*merchants.c)
    if after is not None:
        query = query.where(merchants.c.merchant_id > after)
    query = query.order_by(merchants.c.merchant_id).limit(limit)
    return [dict(row) for row in connection.execute(query).mappings()]


def find_terminals(
    connection: Connection,
    *,
    limit: int,
    after: str | None = None,
    merchant_id: str | None = None,
) -> list[Row]:
    """In the order of the id, with the merchant's name; `after` as above."""
    query = select(*terminals.c, merchants.c.name.label("merchant_name")).join(
        merchants, merchants.c.merchant_id == terminals.c.merchant_id
    )
    if after is not None:
        query = query.where(terminals.c.terminal_id > after)
    if merchant_id is not None:
        query = query.where(terminals.c.merchant_id == merchant_id)
    query = query.order_by(terminals.c.terminal_id).limit(limit)
    return [dict(row) for row in connection.execute(query).mappings()]
