"""SQL that writes the later terms of products. Callers own the transaction."""

from __future__ import annotations

from datetime import datetime

import msgspec

from nodes.authorization.controls import Terms
from nodes.authorization.store.accounts import Connection


class TermsVersion(msgspec.Struct, frozen=True):
    """A row of product_terms; it is in force from `effective_from_ms` on, once approved."""

    product_id: str
    version: int
    terms: Terms
    effective_from_ms: int
    made_by: str
    state: str
    checked_by: str | None


def lock_product(connection: Connection, product_id: str) -> Terms | None:
    """A product's first terms, its row locked: versions are numbered one after the other."""
    row = connection.execute(
        "SELECT terms::text FROM products WHERE product_id = %s FOR NO KEY UPDATE", (product_id,)
    ).fetchone()
    return None if row is None else msgspec.json.decode(row[0], type=Terms)


def propose_version(
    connection: Connection,
    product_id: str,
    terms: Terms,
    effective_from_ms: int,
    *,
    reason: str,
    made_by: str,
    made_at: datetime,
) -> int:
    """Write down the next version of a locked product; its number."""
    row = connection.execute(
        "INSERT INTO product_terms (product_id, version, terms, effective_from_ms, reason, made_by,"
        " made_at) SELECT %(product)s, coalesce(max(version), 1) + 1, %(terms)s, %(from)s,"
        " %(reason)s, %(by)s, %(at)s FROM product_terms WHERE product_id = %(product)s"
        " RETURNING version",
        {
            "product": product_id,
            "terms": msgspec.json.encode(terms).decode(),
            "from": effective_from_ms,
            "reason": reason,
            "by": made_by,
            "at": made_at,
        },
    ).fetchone()
    if row is None:
        raise RuntimeError("an aggregate gave no row")
    return int(row[0])


def lock_version(connection: Connection, product_id: str, version: int) -> TermsVersion | None:
    """A version, its row locked: it is decided about once."""
    row = connection.execute(
        "SELECT product_id, version, terms::text, effective_from_ms, made_by, state, checked_by"
        " FROM product_terms WHERE product_id = %s AND version = %s FOR UPDATE",
        (product_id, version),
    ).fetchone()
    if row is None:
        return None
    return TermsVersion(row[0], row[1], msgspec.json.decode(row[2], type=Terms), *row[3:])


def check_version(
    connection: Connection,
    version: TermsVersion,
    *,
    state: str,
    effective_from_ms: int,
    checked_by: str,
    checked_at: datetime,
) -> None:
    """Write down how a locked version was decided. CheckViolation if its maker decided."""
    connection.execute(
        "UPDATE product_terms SET state = %s, effective_from_ms = %s, checked_by = %s,"
        " checked_at = %s WHERE product_id = %s AND version = %s",
        (
            state,
            effective_from_ms,
            checked_by,
            checked_at,
            version.product_id,
            version.version,
        ),
    )


def next_change_ms(connection: Connection, now_ms: int) -> int | None:
    """When the next approved version of any product comes into force."""
    row = connection.execute(
        "SELECT min(effective_from_ms) FROM product_terms"
        " WHERE state = 'approved' AND effective_from_ms > %s",
        (now_ms,),
        prepare=True,
    ).fetchone()
    return None if row is None or row[0] is None else int(row[0])
