"""The acquirer's store-and-forward: what a crash or a silent issuer left open is reversed.

The functions that record answers are those of the normal path (recording.Recording).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import psycopg
import structlog

from nodes.authorization.model import AuthorizationAnswer, AuthorizationRequest, Kind
from nodes.authorization.operations.accepting import Acquirer
from nodes.authorization.operations.pending import Pending, decode_pending, encode_told
from nodes.authorization.operations.recording import (
    Recording,
    acknowledged,
    doubtful,
    open_settlement_accounts,
    unavailable,
)
from nodes.authorization.store import acquirer as books
from nodes.authorization.store.acquirer import Connection, QueuedReversal
from nodes.authorization.store.requests import stored_requests

log = structlog.get_logger(__name__)

#: A pending request is given up this long after its deadline: its own batch has ended by then.
GRACE_MS = 2_000
#: First and longest pause between two attempts at an issuer that doesn't acknowledge.
FIRST_PAUSE_MS = 1_000
LONGEST_PAUSE_MS = 60_000
#: Attempts at a commit that others' answers refuse; the last one raises.
_ATTEMPTS = 4


def recover_pending(connection: Connection, acquirer: Acquirer, *, limit: int = 8) -> int:
    """Close the requests of at most `limit` batches that died between their two commits; how many
    requests were closed.

    Nobody was told anything about them, so they are reversed; a pending reversal is in the queue
    already and is acknowledged to whoever asks again.
    """
    now_ms = acquirer.clock.now_ms()

    def attempt() -> int:
        recording = Recording(acquirer, now_ms)
        with connection.transaction():
            batches = books.take_overdue_batches(connection, now_ms - GRACE_MS, limit)
            keys = [key for batch in batches for key in batch.keys]
            for row in stored_requests(connection, keys, "acquirer").values():
                if row.answer is not None:
                    continue
                if row.request is None:
                    raise RuntimeError("a pending request without its content")
                pending = decode_pending(row.request)
                if pending.request.kind is Kind.REVERSAL:
                    told = acknowledged(pending.request)
                else:
                    recording.reverse(pending, "left open by a crash")
                    told = unavailable(pending.request)
                recording.answers[row.key] = (row.business_date, encode_told(told))
            recording.write(connection)
        recording.committed()
        return len(recording.answers)

    return _repeated(attempt)


def take_reversals(
    connection: Connection, acquirer: Acquirer, *, limit: int = 64
) -> list[QueuedReversal]:
    """Due reversals for this caller alone; each comes back later unless it is settled."""
    now_ms = acquirer.clock.now_ms()
    with connection.transaction():
        return books.take_due_reversals(connection, now_ms, FIRST_PAUSE_MS, LONGEST_PAUSE_MS, limit)


def request_of(row: QueuedReversal) -> AuthorizationRequest:
    """The request that a queued reversal sends to its issuer."""
    return decode_pending(row.request).request


def settle_reversals(
    connection: Connection,
    acquirer: Acquirer,
    settled: Sequence[tuple[QueuedReversal, AuthorizationAnswer]],
) -> int:
    """Record the issuers' answers to queued reversals in one commit; how many were taken."""
    good: list[tuple[Pending, AuthorizationAnswer]] = []
    for row, answer in settled:
        pending = decode_pending(row.request)
        doubt = doubtful(pending, answer)
        if doubt is not None:
            log.error("issuer's answer refused", txid=pending.request.txid.hex(), reason=doubt)
        else:
            good.append((pending, answer))
    pendings = [pending for pending, _ in good]
    now_ms = acquirer.clock.now_ms()
    open_settlement_accounts(connection, acquirer, pendings, now_ms)

    def attempt() -> int:
        recording = Recording(acquirer, now_ms)
        with connection.transaction():
            recording.look(connection, [], pendings)
            for pending, answer in good:
                recording.settle_reversal(pending, answer)
            recording.write(connection)
        recording.committed()
        return len(good)

    return _repeated(attempt)


def _repeated(attempt: Callable[[], int]) -> int:
    """Again if another process was first with a part of it: it then reads what stands."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return attempt()
        except (psycopg.errors.UniqueViolation, psycopg.errors.DeadlockDetected):
            continue
    return attempt()
