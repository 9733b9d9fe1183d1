"""The issuer's side: decide a batch of requests and commit it once."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

import msgspec

from nodes import clock, ids
from nodes.authorization import rules, store
from nodes.authorization.model import (
    AuthorizationAnswer,
    AuthorizationRequest,
    Kind,
    Outcome,
)
from nodes.authorization.state import Account, Card, Decision, Facts, Original
from nodes.authorization.store import Connection, Pair, StoredRequest
from nodes.crypto.commitment import SharedFacts, shared_commitment
from nodes.crypto.hsm import Hsm, PinBlockInvalid
from nodes.crypto.pan import PanVault, mask
from nodes.ledger.model import AccountKey, TransactionRecord, Transfer
from nodes.ledger.store import find_or_open_accounts, record_transactions, write_balances

#: Answered without a number of the pair's sequence, and not recorded: nothing was decided.
_UNRECORDED = frozenset({Outcome.REVERSED_BEFORE_ARRIVAL})


class LockOrderLost(Exception):
    """An original appeared between two looks; the batch must start anew to keep the lock order."""


@dataclass
class Issuer:
    """What an issuer decides with. One instance serves one connection's thread."""

    member_id: str
    vault: PanVault
    hsm: Hsm
    clock: clock.Clock
    #: Settlement accounts by acquirer and currency, filled as acquirers appear.
    settlement: dict[tuple[str, str], int] = field(default_factory=dict)


@dataclass
class _Batch:
    """The batch's working state: snapshots that the decisions replace, and what they produce."""

    now_ms: int
    cards: dict[bytes, Card]
    accounts: dict[int, Account]
    originals: dict[bytes, Original]
    reversed_before: set[bytes]
    pairs: dict[Pair, int]
    records: list[TransactionRecord] = field(default_factory=list)
    requests: list[StoredRequest] = field(default_factory=list)
    balances: dict[int, int] = field(default_factory=dict)
    tries: dict[int, int] = field(default_factory=dict)
    changed_originals: dict[bytes, Original] = field(default_factory=dict)
    tombstones: dict[bytes, bytes] = field(default_factory=dict)
    answers_by_txid: dict[bytes, AuthorizationAnswer] = field(default_factory=dict)


def authorize_batch(
    connection: Connection, issuer: Issuer, requests: Sequence[AuthorizationRequest]
) -> list[AuthorizationAnswer]:
    """Decide requests in order, commit once, answer each; repeats get the stored answer.

    Raises psycopg.errors.UniqueViolation when another batch was first with a key, and
    LockOrderLost: nothing is written then and the call may be repeated.
    """
    answers: list[AuthorizationAnswer | None] = [None] * len(requests)
    keys: list[bytes] = []
    for position, request in enumerate(requests):
        if rules.malformed(request, issuer.member_id) is not None:
            answers[position] = unrecorded(request, Outcome.MALFORMED, issuer.clock.now_ms())
            keys.append(b"")
        else:
            keys.append(key_of(request))
    well_formed = [p for p, answer in enumerate(answers) if answer is None]
    _open_settlement_accounts(connection, issuer, [requests[p] for p in well_formed])
    with connection.transaction():
        stored = store.stored_requests(connection, [keys[p] for p in well_formed], "issuer")
        fresh = [p for p in well_formed if keys[p] not in stored]
        batch = _read(connection, issuer, [requests[p] for p in fresh])
        seen: dict[bytes, StoredRequest] = dict(stored)
        for position in well_formed:
            request, key = requests[position], keys[position]
            fingerprint = fingerprint_of(request, issuer.vault)
            known = seen.get(key)
            if known is not None:
                answers[position] = _repeat(known, request, fingerprint, batch.now_ms)
                continue
            answer = _decide_one(request, key, issuer, batch)
            row = StoredRequest(
                key,
                fingerprint,
                "answered",
                request.txid,
                request.issuer,
                None,
                msgspec.json.encode(answer),
                request.deadline_ms,
            )
            batch.requests.append(row)
            seen[key] = row
            answers[position] = answer
        _write(connection, batch)
    return [answer for answer in answers if answer is not None]


def key_of(request: AuthorizationRequest) -> bytes:
    """The idempotency key: the same at acquirer and issuer."""
    return ids.idempotency_key(
        request.acquirer,
        request.terminal_id,
        request.business_date,
        request.batch,
        request.stan,
        "reversal" if request.kind is Kind.REVERSAL else "request",
    )


def fingerprint_of(request: AuthorizationRequest, vault: PanVault) -> bytes:
    """SHA-256 over what makes the content; the card number enters by its keyed look-up value."""
    content = (
        request.txid,
        request.kind.value,
        request.amount,
        request.currency,
        vault.lookup(request.pan) if request.pan is not None else b"",
        request.merchant_id,
        request.original_txid or b"",
        request.transmitted_ms,
        request.salt_fin,
    )
    return hashlib.sha256(msgspec.msgpack.encode(content)).digest()


def shared_facts(
    request: AuthorizationRequest, outcome: Outcome, card_token: bytes | None
) -> SharedFacts:
    """What C commits to for a request and its outcome."""
    return SharedFacts(
        amount=request.amount,
        currency=request.currency.encode("ascii"),
        kind=request.kind.word,
        time_ms=request.transmitted_ms,
        merchant=request.merchant_id.encode("ascii"),
        outcome=outcome.word,
        original=request.original_txid or b"",
        card_token=card_token or b"",
    )


def unrecorded(request: AuthorizationRequest, outcome: Outcome, now_ms: int) -> AuthorizationAnswer:
    """An answer that stands in no book: no number, no commitment."""
    return AuthorizationAnswer(
        txid=request.txid,
        outcome=outcome,
        currency=request.currency,
        commitment=bytes(32),
        pair_seq=0,
        decided_ms=now_ms,
    )


def _repeat(
    known: StoredRequest, request: AuthorizationRequest, fingerprint: bytes, now_ms: int
) -> AuthorizationAnswer:
    if known.fingerprint != fingerprint or known.answer is None:
        return unrecorded(request, Outcome.KEY_REUSED, now_ms)
    return msgspec.json.decode(known.answer, type=AuthorizationAnswer)


def _open_settlement_accounts(
    connection: Connection, issuer: Issuer, requests: Sequence[AuthorizationRequest]
) -> None:
    missing = {(r.acquirer, r.currency) for r in requests} - issuer.settlement.keys()
    if not missing:
        return
    keys = {
        AccountKey("settlement", acquirer, currency): (acquirer, currency)
        for acquirer, currency in missing
    }
    with connection.transaction():
        found = find_or_open_accounts(connection, keys, clock.to_datetime(issuer.clock.now_ms()))
    issuer.settlement.update({keys[key]: number for key, number in found.items()})


def _read(
    connection: Connection, issuer: Issuer, requests: Sequence[AuthorizationRequest]
) -> _Batch:
    """Lock and read what the decisions depend on, in the network's lock order."""
    lookups = {issuer.vault.lookup(r.pan) for r in requests if r.pan is not None}
    cards = store.lock_cards(connection, lookups)
    wanted = {r.original_txid for r in requests if r.original_txid is not None}
    before = store.originals(connection, wanted, "issuer")
    account_ids = {card.account_id for card in cards.values()}
    account_ids |= {o.account_id for o in before.values() if o.account_id is not None}
    accounts = store.lock_accounts(connection, account_ids)
    # From here on no other batch of the pair decides: what is read now stays true to the commit.
    pairs = store.lock_pairs(connection, {(r.acquirer, r.issuer) for r in requests})
    found = store.originals(connection, wanted, "issuer")
    if any(o.account_id not in accounts for o in found.values() if o.account_id is not None):
        raise LockOrderLost
    reversed_before = store.tombstoned(connection, [r.txid for r in requests])
    batch = _Batch(issuer.clock.now_ms(), cards, accounts, found, reversed_before, pairs)
    # A load's answer is of another kind, and no acquirer's business.
    asked = [txid for txid, original in found.items() if original.kind is not Kind.LOAD]
    given = store.stored_answers_by_txid(connection, asked, "issuer")
    for txid, answer in given.items():
        batch.answers_by_txid[txid] = msgspec.json.decode(answer, type=AuthorizationAnswer)
    return batch


def _facts(request: AuthorizationRequest, issuer: Issuer, batch: _Batch) -> Facts:
    card = None
    if request.pan is not None:
        card = batch.cards.get(issuer.vault.lookup(request.pan))
    original = None
    if request.original_txid is not None:
        original = batch.originals.get(request.original_txid)
    owner = original or card
    account_id = owner.account_id if owner is not None else None
    moment = clock.to_datetime(batch.now_ms)
    return Facts(
        now_ms=batch.now_ms,
        year_month=f"{moment.year % 100:02d}{moment.month:02d}",
        card=card,
        account=batch.accounts.get(account_id) if account_id is not None else None,
        original=original,
        reversed_before=request.txid in batch.reversed_before,
        pin_matches=_pin_matches(request, card, issuer),
    )


def _pin_matches(request: AuthorizationRequest, card: Card | None, issuer: Issuer) -> bool | None:
    if request.pin_block is None or request.pan is None or card is None or card.pin_lookup is None:
        return None
    # On us the block comes from the own gateway and was never translated.
    zone = "zone:gateway" if request.acquirer == issuer.member_id else f"zone:{request.acquirer}"
    try:
        return issuer.hsm.verify_pin(
            zone, request.pin_block, request.pan, card.card_token, card.pin_lookup
        )
    except PinBlockInvalid:
        return False


def _decide_one(
    request: AuthorizationRequest, key: bytes, issuer: Issuer, batch: _Batch
) -> AuthorizationAnswer:
    facts = _facts(request, issuer, batch)
    decision = rules.decide(request, facts)
    if decision.outcome in _UNRECORDED:
        return unrecorded(request, decision.outcome, batch.now_ms)
    account = _apply(request, facts, decision, issuer, batch)
    # Of another acquirer's transaction nothing is told, not even which card it was.
    original = facts.original
    if original is not None and original.acquirer != request.acquirer:
        original = None
    token = facts.card.card_token if facts.card else original.card_token if original else None
    approved = decision.outcome is Outcome.APPROVED
    pair = (request.acquirer, request.issuer)
    batch.pairs[pair] += 1
    show_balance = approved and request.kind is Kind.BALANCE_INQUIRY and account is not None
    answer = AuthorizationAnswer(
        txid=request.txid,
        outcome=decision.outcome,
        approval_code=approval_code(request.txid) if approved else None,
        amount=request.amount if approved else 0,
        currency=request.currency,
        card_token=token,
        commitment=shared_commitment(
            request.txid,
            shared_facts(request, decision.outcome, token),
            request.salt_fin,
            request.salt_pii,
        ),
        pair_seq=batch.pairs[pair],
        decided_ms=batch.now_ms,
        available=account.available if show_balance and account else None,
        ledger=account.balance if show_balance and account else None,
        original=_original_answer(request, original, batch),
    )
    record = _record(request, facts, decision, answer, account, issuer)
    batch.records.append(record)
    batch.answers_by_txid[request.txid] = msgspec.structs.replace(answer, original=None)
    batch.originals[request.txid] = Original(
        request.txid,
        request.kind,
        decision.outcome,
        request.amount,
        request.currency,
        request.acquirer,
        request.merchant_id,
        request.terminal_id,
        record.account_id,
        token,
        record.pan_masked,
    )
    return answer


def _original_answer(
    request: AuthorizationRequest, original: Original | None, batch: _Batch
) -> AuthorizationAnswer | None:
    if request.kind is not Kind.REVERSAL or original is None:
        return None
    return batch.answers_by_txid.get(original.txid)


def _apply(
    request: AuthorizationRequest,
    facts: Facts,
    decision: Decision,
    issuer: Issuer,
    batch: _Batch,
) -> Account | None:
    """Replace the snapshots by what the decision makes of them; the account afterwards."""
    account, card, original = facts.account, facts.card, facts.original
    if card is not None and decision.pin_tries_left is not None and request.pan is not None:
        batch.cards[issuer.vault.lookup(request.pan)] = msgspec.structs.replace(
            card, pin_tries_left=decision.pin_tries_left
        )
        batch.tries[card.card_id] = decision.pin_tries_left
    if account is not None and decision.balance_change:
        account = msgspec.structs.replace(
            account, balance=account.balance + decision.balance_change
        )
        batch.accounts[account.account_id] = account
        batch.balances[account.account_id] = account.balance
    if original is not None and (decision.refunded_change or decision.reverses):
        changed = msgspec.structs.replace(
            original,
            refunded=original.refunded + decision.refunded_change,
            reversed=original.reversed or decision.reverses,
        )
        batch.originals[original.txid] = changed
        batch.changed_originals[original.txid] = changed
    if decision.tombstone and request.original_txid is not None:
        batch.tombstones[request.original_txid] = request.txid
        batch.reversed_before.add(request.original_txid)
    return account


def _record(
    request: AuthorizationRequest,
    facts: Facts,
    decision: Decision,
    answer: AuthorizationAnswer,
    account: Account | None,
    issuer: Issuer,
) -> TransactionRecord:
    masked = facts.card.pan_masked if facts.card else None
    if masked is None:
        masked = facts.original.pan_masked if facts.original else None
    if masked is None and request.pan is not None:
        masked = mask(request.pan)
    transfers: tuple[Transfer, ...] = ()
    if account is not None and decision.balance_change:
        settlement = issuer.settlement[request.acquirer, request.currency]
        amount = abs(decision.balance_change)
        if decision.balance_change < 0:
            moved = Transfer(account.account_id, settlement, amount, account.balance)
        else:
            moved = Transfer(settlement, account.account_id, amount, account.balance)
        transfers = (moved,)
    return transaction_record(
        request, answer, "issuer", masked, account.account_id if account else None, transfers
    )


def transaction_record(
    request: AuthorizationRequest,
    answer: AuthorizationAnswer,
    side: str,
    pan_masked: str | None,
    account_id: int | None,
    transfers: tuple[Transfer, ...],
) -> TransactionRecord:
    """The ledger's row of a request and its answer, in the books of one side."""
    return TransactionRecord(
        txid=request.txid,
        side="issuer" if side == "issuer" else "acquirer",
        network_ref=request.network_ref,
        acquirer=request.acquirer,
        issuer=request.issuer,
        kind=request.kind.value,
        outcome=answer.outcome.value,
        amount=request.amount,
        currency=request.currency,
        approval_code=answer.approval_code,
        merchant_id=request.merchant_id,
        merchant_name=request.merchant_name,
        mcc=request.mcc,
        country=request.country,
        terminal_id=request.terminal_id,
        terminal_seq=request.terminal_seq,
        pair_seq=answer.pair_seq,
        business_date=date.fromisoformat(request.business_date),
        batch=request.batch,
        stan=request.stan,
        rrn=request.rrn,
        entry_mode=request.entry_mode,
        pan_masked=pan_masked,
        card_token=answer.card_token,
        account_id=account_id,
        original_txid=request.original_txid,
        transmitted_ms=request.transmitted_ms,
        decided_ms=answer.decided_ms,
        salt_fin=request.salt_fin,
        salt_pii=request.salt_pii,
        card_token_leaf=None,
        salt_private=secrets.token_bytes(32),
        commitment=answer.commitment,
        transfers=transfers,
    )


def approval_code(txid: bytes) -> str:
    """Six digits for the receipt (DE38); a name, not a proof."""
    return f"{int.from_bytes(txid[:4], 'big') % 1_000_000:06d}"


def _write(connection: Connection, batch: _Batch) -> None:
    store.write_pin_tries(connection, batch.tries)
    write_balances(connection, batch.balances)
    record_transactions(connection, batch.records)
    store.insert_requests(connection, "issuer", batch.requests)
    store.write_original_states(connection, batch.changed_originals.values())
    store.insert_tombstones(connection, batch.tombstones)
    if batch.records:
        store.write_pairs(connection, batch.pairs)
