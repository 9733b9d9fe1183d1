"""What one commit writes, gathered and sent at once: a pipeline of statements is one round trip.

Rows of a table go as one array of a composite type (`<table>_row`), in PostgreSQL's binary formats
(array_recv, record_recv): as cheap as COPY, which can't be part of a pipeline (libpq, Pipeline
Mode). A row that is alone goes as its values. A commit is the implicit transaction that the
pipeline's Sync ends: all of it or nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from itertools import chain
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import psycopg
from psycopg import pq
from psycopg.errors import error_from_result

from nodes.db.copy import copy_columns

#: Object ids of the built-in types (pg_type.dat).
_OIDS = {"bytea": 17, "text": 25, "bigint": 20, "smallint": 21, "date": 1082, "boolean": 16}
_NULLS = {name: struct.pack(">Ii", oid, -1) for name, oid in _OIDS.items()}
_PREFIXES = {
    name: [struct.pack(">Ii", oid, length) for length in range(1024)]
    for name, oid in _OIDS.items()
    if name in ("bytea", "text")
}
_EPOCH = date(2000, 1, 1).toordinal()
_INT8 = struct.Struct(">Iiq").pack
_INT4 = struct.Struct(">Iii").pack
_INT2 = struct.Struct(">Iih").pack
_BOOL = struct.Struct(">Ii?").pack
_INT = struct.Struct(">i").pack
_LENGTHS = [_INT(length) for length in range(4096)]
_ARRAY = struct.Struct(">iiIii").pack
_EMPTY_ARRAY = struct.Struct(">iiI").pack


class Statement(NamedTuple):
    """A statement of a pipeline; its parameters are encoded by the caller."""

    name: str
    sql: str


class _Rows(NamedTuple):
    """Encoded rows; the array's head needs the type's id, which each database has its own of."""

    type_name: str
    rows: int
    body: bytes


Parameter = bytes | None | _Rows


class Writes:
    """Statements that belong to one commit, in order."""

    def __init__(self) -> None:
        self.statements: list[tuple[Statement, list[Parameter]]] = []

    def call(self, statement: Statement, *parameters: Parameter) -> None:
        """Add a statement, with parameters in PostgreSQL's binary format."""
        self.statements.append((statement, list(parameters)))

    def append(
        self, table: str, types: Mapping[str, str], columns: Sequence[Sequence[Any]]
    ) -> None:
        """Add rows, given as columns in the order of `types` (those of the type `<table>_row`)."""
        if not columns or not columns[0]:
            return
        if len(columns[0]) == 1:
            # Alone a row is cheaper as its values: nothing to unpack, no function to call.
            self.call(_insert_one(table, types), *_values(types.values(), columns))
            return
        rows = _Rows(f"{table}_row", len(columns[0]), _records(types.values(), columns))
        self.call(_insert(table, types), rows)


def append_columns(
    into: psycopg.Connection[Any] | Writes,
    table: str,
    types: Mapping[str, str],
    columns: Sequence[Sequence[Any]],
) -> None:
    """Append rows now (by COPY, in the caller's transaction), or with what `into` gathers."""
    if isinstance(into, Writes):
        into.append(table, types, columns)
    else:
        copy_columns(into, table, types, columns)


def append_rows(
    into: psycopg.Connection[Any] | Writes,
    table: str,
    types: Mapping[str, str],
    rows: Sequence[Sequence[Any]],
) -> None:
    """As append_columns; each row has its values in the order of `types`."""
    if rows:
        append_columns(into, table, types, list(zip(*rows, strict=True)))


_INSERTS: dict[str, Statement] = {}
_INSERTS_OF_ONE: dict[str, Statement] = {}


def _insert_one(table: str, types: Mapping[str, str]) -> Statement:
    known = _INSERTS_OF_ONE.get(table)
    if known is None:
        values = ", ".join(f"${number}::{kind}" for number, kind in enumerate(types.values(), 1))
        sql = f"INSERT INTO {table} ({', '.join(types)}) VALUES ({values})"
        known = _INSERTS_OF_ONE[table] = Statement(f"append one {table}", sql)
    return known


def _insert(table: str, types: Mapping[str, str]) -> Statement:
    known = _INSERTS.get(table)
    if known is None:
        names = ", ".join(types)
        sql = f"INSERT INTO {table} ({names}) SELECT {names} FROM unnest($1::{table}_row[])"
        known = _INSERTS[table] = Statement(f"append {table}", sql)
    return known


# --- binary formats ------------------------------------------------------------------------------


def bigint(value: int) -> bytes:
    """A parameter of type bigint."""
    return struct.pack(">q", value)


def text(value: str) -> bytes:
    """A parameter of type text."""
    return value.encode()


def boolean(value: bool) -> bytes:
    """A parameter of type boolean."""
    return b"\x01" if value else b"\x00"


def array(kind: str, values: Sequence[Any]) -> bytes:
    """A parameter of an array type, one-dimensional; `kind` is that of its elements."""
    if not values:
        return _EMPTY_ARRAY(0, 0, _OIDS[kind])
    elements = b"".join([piece[4:] for piece in _ENCODERS[kind](values)])
    return _ARRAY(1, 0, _OIDS[kind], len(values), 1) + elements


def _records(types: Iterable[str], columns: Sequence[Sequence[Any]]) -> bytes:
    count = len(columns[0])
    pieces: list[list[bytes]] = []
    # Half of a batch's columns are the same in all rows: those are encoded once.
    same = _INT(len(columns))
    for kind, values in zip(types, columns, strict=True):
        if values.count(values[0]) == count:
            same += _sized(kind, None if values[0] is None else _VALUES[kind](values[0]))
        else:
            if same:
                pieces.append([same] * count)
                same = b""
            pieces.append(_ENCODERS[kind](values))
    if same:
        pieces.append([same] * count)
    rows = list(map(b"".join, zip(*pieces, strict=True)))
    return b"".join(chain.from_iterable(zip(map(_length, rows), rows, strict=True)))


def _values(types: Iterable[str], columns: Sequence[Sequence[Any]]) -> list[bytes | None]:
    """The parameters of a row that is alone."""
    return [
        None if column[0] is None else _VALUES[kind](column[0])
        for kind, column in zip(types, columns, strict=True)
    ]


def _length(value: bytes) -> bytes:
    size = len(value)
    return _LENGTHS[size] if size < 4096 else _INT(size)


def _bytea(values: Sequence[bytes | None]) -> list[bytes]:
    prefixes = _PREFIXES["bytea"]
    try:
        return [prefixes[len(value)] + value for value in values]  # type: ignore[arg-type,operator]
    except (TypeError, IndexError):
        return [_sized("bytea", value) for value in values]


def _sized(kind: str, value: bytes | None) -> bytes:
    if value is None:
        return _NULLS[kind]
    size = len(value)
    prefixes = _PREFIXES.get(kind)
    if prefixes is not None and size < 1024:
        return prefixes[size] + value
    return struct.pack(">Ii", _OIDS[kind], size) + value


def _text(values: Sequence[str | None]) -> list[bytes]:
    prefixes = _PREFIXES["text"]
    try:
        encoded = [value.encode() for value in values]  # type: ignore[union-attr]
        return [prefixes[len(value)] + value for value in encoded]
    except (AttributeError, IndexError):
        return [_sized("text", None if value is None else value.encode()) for value in values]


def _bigint(values: Sequence[int | None]) -> list[bytes]:
    try:
        return [_INT8(20, 8, value) for value in values]
    except struct.error:
        return [_NULLS["bigint"] if value is None else _INT8(20, 8, value) for value in values]


def _smallint(values: Sequence[int | None]) -> list[bytes]:
    return [_NULLS["smallint"] if value is None else _INT2(21, 2, value) for value in values]


def _boolean(values: Sequence[bool | None]) -> list[bytes]:
    return [_NULLS["boolean"] if value is None else _BOOL(16, 1, value) for value in values]


def _date(values: Sequence[date | None]) -> list[bytes]:
    known = {
        value: _NULLS["date"] if value is None else _INT4(1082, 4, value.toordinal() - _EPOCH)
        for value in set(values)
    }
    return [known[value] for value in values]


_ENCODERS: Mapping[str, Callable[[Sequence[Any]], list[bytes]]] = {
    "bytea": _bytea,
    "text": _text,
    "bigint": _bigint,
    "smallint": _smallint,
    "boolean": _boolean,
    "date": _date,
}


#: One value that isn't NULL, without what stands before it in a record.
_VALUES: Mapping[str, Callable[[Any], bytes]] = {
    "bytea": bytes,
    "text": str.encode,
    "bigint": struct.Struct(">q").pack,
    "smallint": struct.Struct(">h").pack,
    "boolean": struct.Struct(">?").pack,
    "date": lambda value: _INT(value.toordinal() - _EPOCH),
}


# --- sending -------------------------------------------------------------------------------------


class Prepared:
    """What one connection knows: ids of the row types, and the statements that it has prepared."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        rows = connection.execute(
            "SELECT typname, oid::bigint FROM pg_type"
            " WHERE typname LIKE '%\\_row' AND typtype = 'c'"
            " AND typnamespace = 'public'::regnamespace"
        ).fetchall()
        self.row_types: dict[str, int] = dict(rows)
        self.names: dict[str, bytes] = {}

    def encoded(self, parameters: Sequence[Parameter]) -> list[bytes | None]:
        """The parameters as they are sent."""
        return [
            _ARRAY(1, 0, self.row_types[p.type_name], p.rows, 1) + p.body
            if isinstance(p, _Rows)
            else p
            for p in parameters
        ]


_KNOWN: WeakKeyDictionary[psycopg.Connection[Any], Prepared] = WeakKeyDictionary()


def prepared_of(connection: psycopg.Connection[Any]) -> Prepared:
    """What is known of a connection; read at the first call."""
    known = _KNOWN.get(connection)
    if known is None:
        known = _KNOWN[connection] = Prepared(connection)
    return known


def execute(connection: psycopg.Connection[Any], writes: Writes) -> None:
    """Run the statements in the caller's transaction, one after the other.

    Not prepared: psycopg forgets a connection's statements when a transaction fails. Raises what
    an INSERT would (psycopg.errors.UniqueViolation ...).
    """
    known, link = prepared_of(connection), connection.pgconn
    for statement, parameters in writes.statements:
        sent = known.encoded(parameters)
        result = link.exec_params(
            statement.sql.encode(), sent, param_formats=[1] * len(sent), result_format=1
        )
        if result.status not in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK):
            raise error_from_result(result)
