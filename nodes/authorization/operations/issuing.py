"""The issuer's commit: what a batch of decisions appends, in one transaction."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import date
from functools import lru_cache

import msgspec

from nodes.authorization.model import AuthorizationAnswer, AuthorizationRequest, Outcome
from nodes.authorization.operations.deciding import Asked, Decided
from nodes.authorization.state import Progress
from nodes.authorization.store import accounts, requests
from nodes.authorization.store.accounts import Connection, NewVersion, Pair
from nodes.authorization.store.requests import StoredRequest
from nodes.ledger.model import Side, TransactionRecord, Transfer
from nodes.ledger.store import ids_of_blocks, record_transactions, take_transaction_ids

#: Ids that come with each pair's numbers (the sequence's increment).
_BLOCK = 1000
_ANSWERS = msgspec.json.Encoder()


def write_batch(connection: Connection, decided: Sequence[Decided]) -> None:
    """Append a batch's fresh decisions in the caller's transaction; answers get their numbers.

    Raises psycopg.errors.UniqueViolation or SerializationFailure if others were first with a key
    or a version: then nothing is written, and all is to be decided again.
    """
    fresh = [one for one in decided if one.record is not None]
    if not fresh:
        return
    numbers = _number(connection, fresh)
    salts = secrets.token_bytes(32 * len(fresh))
    records: list[TransactionRecord] = []
    versions: list[NewVersion] = []
    stored: list[StoredRequest] = []
    progress: list[tuple[bytes, int, Progress]] = []
    for place, (one, number) in enumerate(zip(fresh, numbers, strict=True)):
        row, answer, request = one.record, one.answer, one.asked.request
        if row is None:
            continue
        decision = row.decision
        after = decision.account
        records.append(
            transaction_record(
                number,
                request,
                answer,
                "issuer",
                row.pan_masked,
                after.account_id if after is not None else None,
                row.transfers,
                account_version=after.version if after is not None else None,
                salt_private=salts[32 * place : 32 * place + 32],
            )
        )
        if after is not None and row.before is not None:
            versions.append(
                NewVersion(row.before, after, number, answer.decided_ms, decision.detail)
            )
            progress += [(txid, after.version, state) for txid, state in decision.progress.items()]
        one.stored = stored_answer(one.asked, answer)
        stored.append(one.stored)
        if row.bar is not None:
            stored.append(row.bar)
    record_transactions(connection, records)
    accounts.append_versions(connection, versions)
    requests.insert_requests(connection, "issuer", stored)
    accounts.append_progress(connection, progress)


def _number(connection: Connection, fresh: Sequence[Decided]) -> list[int]:
    """Give each its number of the pair's sequence; the transactions' ids, in order."""
    by_pair: dict[Pair, list[Decided]] = {}
    for one in fresh:
        request = one.asked.request
        by_pair.setdefault((request.acquirer, request.issuer), []).append(one)
    blocks: list[int] = []
    for pair in sorted(by_pair):
        of_pair = by_pair[pair]
        last, block = accounts.advance_pair(connection, pair, len(of_pair))
        blocks.append(block)
        for offset, one in enumerate(of_pair, start=1):
            # Nobody has seen the answer yet: its number comes here, and it stays as it is then.
            msgspec.structs.force_setattr(one.answer, "pair_seq", last + offset)
    if len(fresh) > _BLOCK * len(blocks):
        return take_transaction_ids(connection, len(fresh))
    return ids_of_blocks(blocks, len(fresh))


def stored_answer(asked: Asked, answer: AuthorizationAnswer) -> StoredRequest:
    """What is kept of a decided request: the exact answer."""
    return StoredRequest(
        asked.key,
        asked.business_date,
        asked.fingerprint,
        asked.request.txid,
        asked.request.issuer,
        None,
        _ANSWERS.encode(answer),
        asked.request.deadline_ms,
    )


def transaction_record(
    transaction_id: int,
    request: AuthorizationRequest,
    answer: AuthorizationAnswer,
    side: Side,
    pan_masked: str | None,
    account_id: int | None,
    transfers: tuple[Transfer, ...],
    *,
    account_version: int | None = None,
    salt_private: bytes | None = None,
) -> TransactionRecord:
    """A decided request as a row of `transactions`."""
    return TransactionRecord(
        transaction_id=transaction_id,
        txid=request.txid,
        side=side,
        network_ref=request.network_ref,
        acquirer=request.acquirer,
        issuer=request.issuer,
        kind=request.kind.value,
        outcome=answer.outcome.value,
        amount=answer.amount if answer.outcome is Outcome.APPROVED else request.amount,
        currency=request.currency,
        approval_code=answer.approval_code,
        merchant_id=request.merchant_id,
        merchant_name=request.merchant_name,
        mcc=request.mcc,
        country=request.country,
        terminal_id=request.terminal_id,
        terminal_seq=request.terminal_seq,
        pair_seq=answer.pair_seq,
        business_date=day_of(request.business_date),
        batch=request.batch,
        stan=request.stan,
        rrn=request.rrn,
        entry_mode=request.entry_mode,
        pan_masked=pan_masked,
        card_token=answer.card_token,
        account_id=account_id,
        account_version=account_version,
        original_txid=request.original_txid,
        transmitted_ms=request.transmitted_ms,
        decided_ms=answer.decided_ms,
        salt_fin=request.salt_fin,
        salt_pii=request.salt_pii,
        card_token_leaf=None,
        salt_private=salt_private or secrets.token_bytes(32),
        commitment=answer.commitment,
        transfers=transfers,
    )


@lru_cache(maxsize=64)
def day_of(text: str) -> date:
    """A business date; batches have few."""
    return date.fromisoformat(text)
