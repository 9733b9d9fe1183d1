"""On us: acquirer and issuer are one institution, and both sides stand in one commit.

The rooms of both sides do what they do between two institutions; only nothing is left under way:
no open batch, no answer that may be lost, nothing to reverse.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nodes.authorization import rules
from nodes.authorization.model import LOOKING_UP, Outcome, TerminalAnswer, TerminalRequest
from nodes.authorization.operations.accepting import Acquirer, Opening, read_opening
from nodes.authorization.operations.answering import unrecorded
from nodes.authorization.operations.asking import Asked, prepare
from nodes.authorization.operations.deciding import Book, Decided, Issuer, decide_batch
from nodes.authorization.operations.issuing import Numbers, stage_batch, write_batch
from nodes.authorization.operations.pending import Closing, Forward
from nodes.authorization.operations.recording import Recording, record_closings
from nodes.authorization.state import Side
from nodes.authorization.store.accounts import Connection, KnownOriginal
from nodes.authorization.store.requests import StoredRequest
from nodes.db.writes import Writes, execute

#: Reads what the decisions on these need and the book lacks: stored requests and originals.
Load = Callable[
    [Connection, Sequence[Asked]], tuple[dict[bytes, StoredRequest], dict[bytes, KnownOriginal]]
]


def on_us_batch(
    connection: Connection,
    issuer: Issuer,
    acquirer: Acquirer,
    book: Book,
    load: Load,
    requests: Sequence[TerminalRequest],
) -> tuple[list[TerminalAnswer], list[Decided]]:
    """Take in, decide and record terminals' requests in one transaction; what each is told.

    The settlement accounts must be in the book. At most one request a (terminal, business date,
    batch, STAN). Raises UniqueViolation or SerializationFailure if others were first: forget the
    book and call again.
    """
    _know_settlement(acquirer, book)
    with connection.transaction():
        opening = read_opening(connection, acquirer, requests)
        forwards = [result for result in opening.results if isinstance(result, Forward)]
        decided = _decide(connection, issuer, book, load, forwards)
        write_batch(connection, decided, issuer.signer)
        closings = [
            Closing(forward, one.twin.answer if one.twin is not None else one.answer)
            for forward, one in zip(forwards, decided, strict=True)
        ]
        look = any(f.open_batch is None or f.request.kind in LOOKING_UP for f in forwards)
        recording = record_closings(connection, acquirer, closings, opening.now_ms, look=look)
        writes = Writes()
        opening.stage(writes, recording.answers)
        execute(connection, writes)
        recording.write(connection)
    recording.committed()
    told = iter(recording.told)
    answers = [next(told) if isinstance(r, Forward) else r for r in opening.results]
    return answers, decided


def stage_on_us(
    writes: Writes,
    issuer: Issuer,
    acquirer: Acquirer,
    book: Book,
    numbers: Numbers,
    opening: Opening,
    decided: Sequence[Decided],
) -> Recording | None:
    """As on_us_batch, without a look: what both sides write for requests that were opened from
    memory, and the decisions on those that were to be decided (in order). None if that takes one.
    """
    if any(one.twin is not None or one.record is None for one in decided):
        return None
    _know_settlement(acquirer, book)
    forwards = [result for result in opening.results if isinstance(result, Forward)]
    if any(forward.open_batch is None for forward in forwards):
        return None
    stage_batch(writes, decided, numbers, issuer.signer)
    recording = Recording(acquirer, opening.now_ms)
    recording.close([Closing(f, one.answer) for f, one in zip(forwards, decided, strict=True)])
    if recording.needs_reads:
        return None
    opening.stage(writes, recording.answers)
    recording.stage(writes)
    return recording


def _know_settlement(acquirer: Acquirer, book: Book) -> None:
    for (side, owner, currency), number in book.sides.items():
        if side is Side.SETTLEMENT and owner == acquirer.member_id:
            acquirer.settlement[owner, currency] = number


def _decide(
    connection: Connection,
    issuer: Issuer,
    book: Book,
    load: Load,
    forwards: Sequence[Forward],
) -> list[Decided]:
    asked = [prepare(forward.request, issuer.vault) for forward in forwards]
    sound = [one for one in asked if rules.malformed(one.request, issuer.member_id) is None]
    stored, originals = load(connection, sound)
    decided = iter(decide_batch(issuer, book, sound, originals, stored, {}))
    if len(sound) == len(asked):
        return list(decided)
    kept = {id(one) for one in sound}
    now_ms = issuer.clock.now_ms()
    return [
        next(decided)
        if id(one) in kept
        else Decided(one, unrecorded(one.request, Outcome.MALFORMED, now_ms))
        for one in asked
    ]
