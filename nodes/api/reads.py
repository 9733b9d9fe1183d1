"""Reading the node's database for an answer: one snapshot, read-only, bounded in time."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, text

from nodes.api.problems import Problem

#: After this a query is given up and answered with 503.
STATEMENT_TIMEOUT_MS = 8_000
_CURSOR = re.compile(r"[A-Za-z0-9_-]{2,128}\Z")


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """A connection in one REPEATABLE READ, READ ONLY transaction."""
    with engine.connect() as connection:
        reading = connection.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
        with reading.begin():
            reading.execute(text(f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}"))
            yield reading


def cursor_of(key: int | str) -> str:
    """The opaque cursor of a page that goes on behind a key."""
    return base64.urlsafe_b64encode(str(key).encode()).decode().rstrip("=")


def text_of_cursor(cursor: str | None) -> str | None:
    """The key that a cursor holds; Problem 422 if it isn't one of ours."""
    if cursor is None:
        return None
    if _CURSOR.match(cursor):
        try:
            return base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
        except (binascii.Error, ValueError):
            pass
    raise _wrong_cursor()


def number_of_cursor(cursor: str | None) -> int | None:
    """The same, where the key is a number of 64 bits."""
    key = text_of_cursor(cursor)
    if key is None:
        return None
    if not (key.isascii() and key.isdigit() and len(key) <= 18):
        raise _wrong_cursor()
    return int(key)


def _wrong_cursor() -> Problem:
    return Problem(422, "cursor-unknown", "The cursor is not one of this node's.")


def bytes_of_hex(value: str, length: int, kind: str) -> bytes:
    """Bytes of lower-case hex of exactly that many bytes; Problem 404 of that kind else."""
    if len(value) == 2 * length and re.match(r"[0-9a-f]+\Z", value):
        return bytes.fromhex(value)
    raise Problem(404, kind, "There is nothing of that name.")
