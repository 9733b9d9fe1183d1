"""The acquirer's store-and-forward: what a crash or a silent issuer left open is reversed.

The functions that record answers are those of the normal path (recording.Recording).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import structlog

from nodes.authorization import store
from nodes.authorization.model import (
    AuthorizationAnswer,
    AuthorizationRequest,
    Kind,
    Outcome,
    TerminalAnswer,
)
from nodes.authorization.operations.accepting import Acquirer, Pending
from nodes.authorization.operations.recording import (
    Closing,
    Recording,
    doubtful,
    open_settlement_accounts,
    original_key,
)
from nodes.authorization.store import Connection, QueuedReversal

log = structlog.get_logger(__name__)

#: A pending request is given up this long after its deadline: its own batch has ended by then.
GRACE_MS = 2_000
#: First and longest pause between two attempts at an issuer that doesn't acknowledge.
FIRST_PAUSE_MS = 1_000
LONGEST_PAUSE_MS = 60_000


def recover_pending(connection: Connection, acquirer: Acquirer, *, limit: int = 256) -> int:
    """Close requests whose batch died between its two commits; how many were closed.

    Nobody was told anything about them, so they are reversed; a pending reversal is in the queue
    already and is acknowledged to whoever asks again.
    """
    now_ms = acquirer.clock.now_ms()
    with connection.transaction():
        rows = store.overdue_requests(connection, now_ms - GRACE_MS, limit)
        writing = Recording(acquirer, now_ms, {row.key: row for row in rows})
        for row in rows:
            if row.request is None:
                raise RuntimeError("a pending request without its content")
            pending = msgspec.json.decode(row.request, type=Pending)
            request = pending.request
            told = TerminalAnswer(
                outcome=Outcome.ISSUER_UNAVAILABLE,
                rrn=request.rrn,
                currency=request.currency,
                txid=request.txid,
            )
            if request.kind is Kind.REVERSAL:
                told = msgspec.structs.replace(
                    told, outcome=Outcome.APPROVED, amount=request.amount
                )
            else:
                writing.reverse(pending, "left open by a crash")
            writing.answers[row.key] = msgspec.json.encode(told)
        writing.write(connection)
    return len(rows)


def take_reversals(
    connection: Connection, acquirer: Acquirer, *, limit: int = 64
) -> list[QueuedReversal]:
    """Due reversals for this caller alone; each comes back later unless it is settled."""
    now_ms = acquirer.clock.now_ms()
    with connection.transaction():
        taken = store.take_due_reversals(connection, now_ms, now_ms + FIRST_PAUSE_MS, limit)
        for row in taken:
            pause = min(FIRST_PAUSE_MS << min(row.attempts, 10), LONGEST_PAUSE_MS)
            store.put_off_reversal(connection, row.original_txid, now_ms + pause)
    return taken


def request_of(row: QueuedReversal) -> AuthorizationRequest:
    """The request that a queued reversal sends to its issuer."""
    return msgspec.json.decode(row.request, type=Pending).request


def settle_reversals(
    connection: Connection,
    acquirer: Acquirer,
    settled: Sequence[tuple[QueuedReversal, AuthorizationAnswer]],
) -> int:
    """Record the issuers' answers to queued reversals in one commit; how many were taken."""
    pendings = [(msgspec.json.decode(row.request, type=Pending), a) for row, a in settled]
    good: list[tuple[Pending, AuthorizationAnswer]] = []
    for pending, answer in pendings:
        doubt = doubtful(pending.request, answer)
        if doubt is not None:
            log.error("issuer's answer refused", txid=pending.request.txid.hex(), reason=doubt)
        else:
            good.append((pending, answer))
    closings = [Closing(b"", pending, answer) for pending, answer in good]
    open_settlement_accounts(connection, acquirer, closings, acquirer.clock.now_ms())
    with connection.transaction():
        keys = sorted({original_key(pending.request) for pending, _ in good})
        stored = store.stored_requests(connection, keys, "acquirer", lock=True)
        writing = Recording(acquirer, acquirer.clock.now_ms(), stored)
        txids = [p.request.txid for p, _ in good]
        txids += [p.request.original_txid for p, _ in good if p.request.original_txid]
        writing.recorded |= set(store.originals(connection, txids, "acquirer"))
        for pending, answer in good:
            writing.settle_reversal(pending, answer)
        writing.write(connection)
    return len(good)
