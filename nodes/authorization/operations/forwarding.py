"""The acquirer's store-and-forward: what a crash or a silent issuer left open is reversed, and what
has happened already (advices, completions) is sent until the issuer has answered it.

The functions that record answers are those of the normal path (recording.Recording).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import psycopg
import structlog

from nodes.authorization.model import (
    FORWARDED,
    AuthorizationAnswer,
    AuthorizationRequest,
    Kind,
)
from nodes.authorization.operations.accepting import Acquirer
from nodes.authorization.operations.judging import doubtful, is_passing
from nodes.authorization.operations.pending import (
    Pending,
    decode_pending,
    encode_told,
    with_card,
)
from nodes.authorization.operations.recording import (
    Recording,
    acknowledged,
    open_settlement_accounts,
    unavailable,
)
from nodes.authorization.store import acquirer as books
from nodes.authorization.store import forwards
from nodes.authorization.store.acquirer import Connection, QueuedReversal
from nodes.authorization.store.forwards import QueuedForward
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
                kind = pending.request.kind
                if kind is Kind.REVERSAL or (kind in FORWARDED and acquirer.vault is not None):
                    # It is in a queue already.
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
        elif not is_passing(answer):
            good.append((pending, answer))
    return _record(connection, acquirer, good, Recording.settle_reversal)


def take_forwards(
    connection: Connection, acquirer: Acquirer, *, limit: int = 64
) -> list[QueuedForward]:
    """Due advices for this caller alone, the first of each original; they come back later unless
    they are settled."""
    now_ms = acquirer.clock.now_ms()
    with connection.transaction():
        return forwards.take_due_forwards(
            connection, now_ms, FIRST_PAUSE_MS, LONGEST_PAUSE_MS, limit
        )


def forwarded_request(
    acquirer: Acquirer, row: QueuedForward, deadline_ms: int
) -> AuthorizationRequest:
    """The request that a queued advice sends to its issuer: the same again, with a new deadline."""
    if acquirer.vault is None or row.pan_sealed is None:
        raise RuntimeError("an advice without its card number")
    whole = with_card(
        decode_pending(row.request).request, acquirer.vault.open(row.pan_sealed, row.txid)
    )
    return msgspec.structs.replace(whole, deadline_ms=deadline_ms)


def settle_forwards(
    connection: Connection,
    acquirer: Acquirer,
    settled: Sequence[tuple[QueuedForward, AuthorizationAnswer]],
) -> int:
    """Record the issuers' answers to queued advices in one commit; how many were taken."""
    good: list[tuple[Pending, AuthorizationAnswer]] = []
    for row, answer in settled:
        pending = decode_pending(row.request)
        doubt = doubtful(pending, answer)
        if doubt is not None:
            log.error("issuer's answer refused", txid=row.txid.hex(), reason=doubt)
        elif not is_passing(answer):
            good.append((pending, answer))
    return _record(connection, acquirer, good, Recording.settle_forward)


def _record(
    connection: Connection,
    acquirer: Acquirer,
    answered: Sequence[tuple[Pending, AuthorizationAnswer]],
    settle: Callable[[Recording, Pending, AuthorizationAnswer], None],
) -> int:
    """Record what the issuers answered, each by `settle`, in one commit; how many."""
    pendings = [pending for pending, _ in answered]
    now_ms = acquirer.clock.now_ms()
    open_settlement_accounts(connection, acquirer, pendings, now_ms)

    def attempt() -> int:
        recording = Recording(acquirer, now_ms)
        with connection.transaction():
            recording.look(connection, [], pendings)
            for pending, answer in answered:
                settle(recording, pending, answer)
            recording.write(connection)
        recording.committed()
        return len(answered)

    return _repeated(attempt)


def _repeated(attempt: Callable[[], int]) -> int:
    """Again if another process was first with a part of it: it then reads what stands."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return attempt()
        except (psycopg.errors.UniqueViolation, psycopg.errors.DeadlockDetected):
            continue
    return attempt()
