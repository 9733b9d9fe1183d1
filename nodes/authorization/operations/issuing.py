"""The issuer's commit: what a batch of decisions appends, in one transaction."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache

import msgspec

from nodes.authorization import rules
from nodes.authorization.model import AuthorizationAnswer, AuthorizationRequest, Kind, Outcome
from nodes.authorization.operations.asking import Asked
from nodes.authorization.operations.deciding import Decided, Row
from nodes.authorization.rules.offline import MAX_PAYMENT
from nodes.authorization.state import Progress
from nodes.authorization.store import accounts, disputes, forwards, requests
from nodes.authorization.store.accounts import Connection, NewVersion, Pair
from nodes.authorization.store.presented import ChipRecord, append_chip_records
from nodes.authorization.store.requests import StoredRequest
from nodes.crypto.answer_signature import Signs, sign_answers
from nodes.crypto.offline_record import OfflineRecord
from nodes.db.writes import Writes, execute
from nodes.ledger.model import Side, TransactionRecord, Transfer
from nodes.ledger.store import (
    TransactionIds,
    open_transaction_ids,
    record_transactions,
    transaction_ids_of,
)

_ANSWERS = msgspec.json.Encoder()


@dataclass
class Numbers:
    """What transactions are numbered with: the last number of each pair, and ids."""

    last: dict[Pair, int] = field(default_factory=dict)
    ids: TransactionIds | None = None

    def give(self, decided: Sequence[Decided]) -> list[tuple[Pair, int, int]]:
        """Number fresh decisions of a batch, in order; of each pair the last number before, and
        how many were given. Nobody has seen the answers yet: their numbers come here, and stay.
        """
        given: dict[Pair, int] = {}
        for one in decided:
            request = one.asked.request
            pair = (request.acquirer, request.issuer)
            number = given[pair] = given.get(pair, self.last[pair]) + 1
            msgspec.structs.force_setattr(one.answer, "pair_seq", number)
        taken = [(pair, self.last[pair], given[pair] - self.last[pair]) for pair in sorted(given)]
        self.last.update(given)
        return taken

    def lacks(self, asked: Sequence[Asked]) -> bool:
        """Whether the database must be read before these can be numbered."""
        return self.ids is None or any(
            (one.request.acquirer, one.request.issuer) not in self.last for one in asked
        )

    def supply(self, connection: Connection, asked: Sequence[Asked]) -> None:
        """Read what these lack."""
        if self.ids is None:
            self.ids = open_transaction_ids(connection)
        pairs = {(one.request.acquirer, one.request.issuer) for one in asked}
        self.last.update(accounts.last_numbers(connection, pairs - self.last.keys()))

    def drop(self, asked: Sequence[Asked]) -> None:
        """Others were first with these pairs' numbers, or they weren't used: read anew."""
        for one in asked:
            self.last.pop((one.request.acquirer, one.request.issuer), None)


def write_batch(connection: Connection, decided: Sequence[Decided], signer: Signs) -> None:
    """Append a batch's fresh decisions in the caller's transaction; answers get their numbers.

    Raises psycopg.errors.UniqueViolation or SerializationFailure if others were first with a key
    or a version: then nothing is written, and all is to be decided again.
    """
    fresh = [one for one in decided if one.record is not None]
    if not fresh:
        return
    pairs = {(one.asked.request.acquirer, one.asked.request.issuer) for one in fresh}
    numbers = Numbers(accounts.lock_pairs(connection, pairs), transaction_ids_of(connection))
    writes = Writes()
    stage_batch(writes, decided, numbers, signer)
    execute(connection, writes)


def stage_batch(
    writes: Writes, decided: Sequence[Decided], numbers: Numbers, signer: Signs
) -> None:
    """What a batch's fresh decisions append; answers get their numbers and signatures.

    The commit raises what write_batch does, also if the numbers were not the last.
    There must be ids, and the last number of each pair.
    """
    fresh = [one for one in decided if one.record is not None]
    if not fresh:
        return
    if numbers.ids is None:
        raise RuntimeError("no ids")
    ids = numbers.ids.take(len(fresh))
    for pair, last, count in numbers.give(fresh):
        accounts.advance_pair(writes, pair, last, count)
    _sign(fresh, signer)
    salts = secrets.token_bytes(32 * len(fresh))
    records: list[TransactionRecord] = []
    versions: list[NewVersion] = []
    stored: list[StoredRequest] = []
    progress: list[tuple[int, int, bytes, Progress]] = []
    chips: list[ChipRecord] = []
    for place, one in enumerate(fresh):
        row, answer, request = one.record, one.answer, one.asked.request
        if row is None:
            continue
        decision, number = row.decision, ids[place]
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
            place_of = (after.account_id, after.version)
            progress += [(*place_of, txid, state) for txid, state in decision.progress.items()]
            over = rules.ended_disputes(row.before, after)
            if over:
                # Only a reversal comes here: refunds and voids are refused while it is disputed.
                disputes.end_reversed(writes, over, request.acquirer, answer.decided_ms)
        one.stored = stored_answer(one.asked, answer)
        stored.append(one.stored)
        if row.bar is not None:
            stored.append(row.bar)
        if row.chip is not None and row.chip.data is not None:
            chips.append(
                ChipRecord(
                    request.txid, row.card_token, row.chip.data, row.chip.genuine, answer.icc
                )
            )
        if row.record is not None:
            _stage_record(writes, one, row.record, counter_taken=row.counter_taken)
        if row.is_clone:
            _stage_clone(writes, one, row)
        if request.kind is Kind.ADVICE and (row.chip is not None or row.used_online is not None):
            _stage_doubt(writes, one, row)
    if chips:
        append_chip_records(writes, chips)
    record_transactions(writes, records)
    accounts.append_versions(writes, versions)
    requests.insert_requests(writes, "issuer", stored)
    accounts.append_progress(writes, progress)


def _stage_record(
    writes: Writes, one: Decided, record: OfflineRecord, *, counter_taken: bool
) -> None:
    """An offline record that was posted, and what people must look at."""
    request, answer = one.asked.request, one.answer
    alarms: list[str] = []
    if answer.outcome is Outcome.APPROVED:
        day = one.asked.business_date
        row = forwards.OfflineRow(
            "issuer", request.acquirer, record, answer.decided_ms, request.txid, one.asked.key, day
        )
        if counter_taken:
            forwards.append_clone(writes, row)
        else:
            forwards.append_records(writes, [row])
        if record.amount > MAX_PAYMENT:
            alarms.append("cap")
    elif answer.outcome is Outcome.OFFLINE_RECORD_INVALID:
        alarms.append("invalid")
    told = f"{answer.outcome.value} at {request.acquirer}"
    forwards.append_alarms(writes, [_alarm(kind, one, told, record) for kind in alarms])


def _stage_clone(writes: Writes, one: Decided, row: Row) -> None:
    """Two payments were made under one counter: the card is listed, and people are told."""
    answer, record = one.answer, row.record
    if row.card_token is not None:
        forwards.hotlist_card(writes, row.card_token, answer.decided_ms)
    told = f"{answer.outcome.value} at {one.asked.request.acquirer}"
    atc = row.chip.data.atc if row.chip is not None and row.chip.data is not None else None
    forwards.append_alarms(writes, [_alarm("clone", one, told, record, atc)])


def _stage_doubt(writes: Writes, one: Decided, row: Row) -> None:
    """An alarm about an advice that was posted although its chip doesn't bear it out or was online
    with it before, or that tells again of what was posted or paid."""
    request, answer, check, record = one.asked.request, one.answer, row.chip, row.record
    record_atc = record.atc if record is not None else None
    atc = check.data.atc if check is not None and check.data is not None else record_atc
    online = f"counter {atc} was online with it before ({row.used_online})"
    if answer.outcome is Outcome.APPROVED:
        doubts = [rules.doubt_about_advice(request, check, record_atc)] if check else []
        doubts += [online] if row.used_online is not None else []
        doubt = "; ".join(filter(None, doubts))
        told = f"posted for {request.acquirer}: {doubt}"
    elif answer.outcome is Outcome.KEY_REUSED:
        doubt = online if row.used_online else f"counter {atc} was posted under another message"
        told = f"refused to {request.acquirer}: {doubt}"
    else:
        return
    if doubt:
        forwards.append_alarms(writes, [_alarm("cryptogram", one, told, record, atc)])


def _alarm(
    kind: str, one: Decided, detail: str, record: OfflineRecord | None, atc: int | None = None
) -> forwards.Alarm:
    request = one.asked.request
    return forwards.Alarm(
        kind,
        "issuer",
        request.terminal_id,
        detail,
        one.answer.decided_ms,
        epoch=record.epoch if record is not None else None,
        seq=record.seq if record is not None else None,
        card_key_id=record.card_key_id if record is not None else None,
        atc=record.atc if record is not None else atc,
        txid=request.txid,
    )


def _sign(fresh: Sequence[Decided], signer: Signs) -> None:
    """Give each answer to another institution its share of one signature. It is stored with the
    answer, so a repeat has the first one's."""
    answers = [
        one.answer for one in fresh if one.asked.request.acquirer != one.asked.request.issuer
    ]
    shares = sign_answers(signer, [(a.txid, a.commitment, a.pair_seq) for a in answers])
    for answer, share in zip(answers, shares, strict=True):
        msgspec.structs.force_setattr(answer, "signature", share)


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
