"""What terminals download: pages of the hotlist, and their parameters."""

from __future__ import annotations

import msgspec

from nodes.acquiring.fleet.model import FleetRecord, Parameters
from nodes.acquiring.offline import (
    PAGE_ENTRIES,
    HotlistPage,
    encode_hotlist_page,
    encode_parameters,
)
from nodes.authorization.operations.accepting import Acquirer
from nodes.authorization.operations.closing_batches import refuse_terminal
from nodes.authorization.services import ServiceAnswer, ServiceOutcome, ServiceRequest
from nodes.authorization.store import hotlist
from nodes.authorization.store.batches import Connection


def hotlist_page(
    connection: Connection, acquirer: Acquirer, request: ServiceRequest
) -> ServiceAnswer:
    """The page behind the version that the terminal has; the same for an equal list and version.

    A version that this acquirer never gave is another list's: the terminal gets this one from its
    beginning.
    """
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        refusal = refuse_terminal(connection, request)
        if refusal is not None:
            return refusal
        after = request.version if request.version <= hotlist.newest(connection) else 0
        rows = hotlist.page(connection, after, PAGE_ENTRIES + 1)
        as_of_ms = hotlist.as_of_ms(connection)
    page = rows[:PAGE_ENTRIES]
    version = page[-1][0] if page else after
    made = HotlistPage(
        version,
        as_of_ms,
        len(rows) > PAGE_ENTRIES,
        tuple((bytes(key_id), listed) for _, key_id, listed in page),
    )
    return ServiceAnswer(outcome=ServiceOutcome.DONE, data=encode_hotlist_page(made))


def parameters_page(connection: Connection, request: ServiceRequest) -> ServiceAnswer:
    """The terminal's parameters as its acquirer has set them, or the starting ones."""
    with connection.transaction():
        refusal = refuse_terminal(connection, request)
        if refusal is not None:
            return refusal
        row = connection.execute(
            "SELECT f.record, m.currency FROM terminals AS t JOIN merchants AS m"
            " USING (merchant_id) LEFT JOIN fleet_terminals AS f USING (terminal_id)"
            " WHERE t.terminal_id = %s",
            (request.terminal_id,),
        ).fetchone()
    version, parameters = 0, Parameters()
    if row is not None and row[0] is not None:
        record = msgspec.convert(row[0], FleetRecord)
        version, parameters = record.parameters_version, record.parameters
    elif row is not None:
        parameters = Parameters(currency=row[1])
    data = encode_parameters(version, parameters)
    return ServiceAnswer(outcome=ServiceOutcome.DONE, data=data)
