"""Reads of merchants, by their ids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, select

from nodes.acquiring.tables import merchants

Row = Mapping[str, Any]


def find_merchants(connection: Connection, *, limit: int, after: str | None = None) -> list[Row]:
    """In the order of the id; `after`: only greater ids (the next page)."""
    query = select(*merchants.c)
    if after is not None:
        query = query.where(merchants.c.merchant_id > after)
    query = query.order_by(merchants.c.merchant_id).limit(limit)
    return [dict(row) for row in connection.execute(query).mappings()]
