"""The acquirer checks what issuers have signed of their answers, a batch at a time.

Shares are stored with the row, in its commit; whether they hold is found here, by the worker,
within seconds and before a day is compared. It takes no part of the authorization path, and finds
an issuer's whole batch together: one signature and a few hashes an answer. What doesn't hold is
noted in unsigned_answers, which makes it a break (UNSIGNED); the money stays as it was decided.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import structlog
from sqlalchemy import Engine

from nodes.authorization.store import answers
from nodes.authorization.store.answers import SignedRow
from nodes.crypto.answer_signature import (
    AnswerSignatureMalformed,
    decode_answer_signature,
    verify_answers,
)
from nodes.db.engine import transaction

log = structlog.get_logger(__name__)

#: Message keys of a member, the present one first (MemberRegistry); none: it isn't known.
Keys = Callable[[str], Sequence[bytes]]
#: Commits that are looked at in one transaction.
_COMMITS = 200


class IssuerUnknown(Exception):
    """The directory doesn't know an issuer whose answers are to be checked."""


def check_answers(engine: Engine, keys: Keys) -> int:
    """Check all shares that weren't looked at; how many. IssuerUnknown leaves them for later."""
    done = 0
    while True:
        with transaction(engine) as connection:
            row = connection.execute(
                "SELECT pg_try_advisory_xact_lock(hashtextextended('countersign/answer-checks', 0))"
            ).fetchone()
            if not (row and row[0]):
                return done
            rows, xact = answers.unchecked(connection, _COMMITS)
            if xact is None:
                return done
            wrong = unsigned_rows(rows, keys)
            if wrong:
                log.error("answers unsigned", count=len(wrong), first=wrong[0].hex())
                answers.note_unsigned(connection, wrong, "the signature does not hold")
            answers.checked(connection, xact)
        done += len(rows)


def unsigned_rows(rows: Sequence[SignedRow], keys: Keys) -> list[bytes]:
    """The txids of those rows whose share isn't their issuer's signature over them."""
    by_batch: dict[tuple[str, bytes], list[tuple[int, SignedRow]]] = defaultdict(list)
    wrong: list[bytes] = []
    for row in rows:
        try:
            share = decode_answer_signature(row.share)
        except AnswerSignatureMalformed:
            wrong.append(row.txid)
            continue
        by_batch[row.issuer, share.signature].append((share.index, row))
    for (issuer, _), members in by_batch.items():
        # In the order of its tree a whole batch costs a third (answer_signature.verify_answers).
        members.sort(key=lambda member: member[0])
        wrong += _wrong_of_batch([row for _, row in members], _keys_of(issuer, keys))
    return sorted(wrong)


def _keys_of(issuer: str, keys: Keys) -> Sequence[bytes]:
    found = keys(issuer)
    if not found:
        raise IssuerUnknown(issuer)
    return found


def _wrong_of_batch(rows: list[SignedRow], keys: Sequence[bytes]) -> list[bytes]:
    """With the present key, then, for what was signed before a rotation, with earlier ones."""
    left = rows
    for key in keys:
        held = verify_answers(key, [(r.txid, r.commitment, r.pair_seq, r.share) for r in left])
        left = [row for row, holds in zip(left, held, strict=True) if not holds]
        if not left:
            break
    return [row.txid for row in left]
