"""The acquirer's side: take terminals' requests in durably.

Two commits a batch: `open_batch` before the issuer is asked, recording.close_batch with its
answer. What stands between them survives a crash: forwarding.py finds it and reverses it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec
import structlog

from nodes import clock, ids
from nodes.acquiring.model import Terminal
from nodes.acquiring.store import lock_terminals, write_sequences
from nodes.authorization import rules, store
from nodes.authorization.model import (
    AuthorizationRequest,
    Kind,
    Outcome,
    TerminalAnswer,
    TerminalRequest,
)
from nodes.authorization.store import Connection, QueuedReversal, StoredRequest
from nodes.crypto.hsm import Hsm, PinBlockInvalid
from nodes.crypto.pan import mask

log = structlog.get_logger(__name__)

#: How long after a deadline the store-and-forward queue takes a reversal over.
_HAND_OVER_MS = 1_000


class Pending(msgspec.Struct, frozen=True):
    """What the acquirer keeps of a request while it is under way: no PAN, no PIN block."""

    request: AuthorizationRequest
    pan_masked: str
    merchant_account: int

    def __repr__(self) -> str:
        return f"Pending({self.request!r})"


class Forward(msgspec.Struct, frozen=True):
    """A request for its issuer; `request` carries PAN and PIN block, `pending` doesn't."""

    key: bytes
    request: AuthorizationRequest
    pending: Pending

    def __repr__(self) -> str:
        return f"Forward({self.request!r})"


@dataclass
class Acquirer:
    """What an acquirer works with. One instance serves one connection's thread."""

    member_id: str
    hsm: Hsm
    clock: clock.Clock
    #: The issuer of a card number by the directory's BIN ranges; None if there is none.
    route: Callable[[str], str | None]
    #: Settlement accounts by issuer and currency, filled as issuers appear.
    settlement: dict[tuple[str, str], int] = field(default_factory=dict)


@dataclass
class _Opening:
    """The working state of open_batch."""

    now_ms: int
    stored: dict[bytes, StoredRequest]
    terminals: dict[str, Terminal]
    rrns: list[str]
    purchases: dict[tuple[str, str], bytes | None]
    queued: set[bytes]
    last_seqs: dict[str, int] = field(default_factory=dict)
    requests: list[StoredRequest] = field(default_factory=list)
    reversals: list[QueuedReversal] = field(default_factory=list)
    late_answers: dict[bytes, bytes] = field(default_factory=dict)


def terminal_key(acquirer: str, request: TerminalRequest) -> bytes:
    """The idempotency key of a terminal's message."""
    return key_of_class(
        acquirer, request, "reversal" if request.kind is Kind.REVERSAL else "request"
    )


def key_of_class(
    acquirer: str, request: TerminalRequest | AuthorizationRequest, message_class: str
) -> bytes:
    """The idempotency key of a terminal's message in a class: "request" or "reversal"."""
    return ids.idempotency_key(
        acquirer,
        request.terminal_id,
        request.business_date,
        request.batch,
        request.stan,
        message_class,
    )


def open_batch(
    connection: Connection, acquirer: Acquirer, requests: Sequence[TerminalRequest]
) -> list[TerminalAnswer | Forward]:
    """Store what is new, answer what is known or refused here, and say what goes to the issuers.

    At most one request a (terminal, business date, batch, STAN) in a batch. Raises
    psycopg.errors.UniqueViolation if another batch was first with a key: call again.
    """
    results: list[TerminalAnswer | Forward | None] = [None] * len(requests)
    refusals = [rules.refuse_at_acquirer(request) for request in requests]
    keys: dict[int, bytes] = {}
    for position, request in enumerate(requests):
        if refusals[position] is Outcome.MALFORMED:
            # What has no readable key can't be stored; it is refused in the same way each time.
            results[position] = _refusal(request, Outcome.MALFORMED, "0" * 12)
        else:
            keys[position] = terminal_key(acquirer.member_id, request)
    with connection.transaction():
        readable = [requests[position] for position in keys]
        state = _read(connection, acquirer, readable, list(keys.values()))
        for position, key in keys.items():
            results[position] = _open_one(
                acquirer, requests[position], key, refusals[position], state
            )
        store.store_answers(connection, "acquirer", state.late_answers)
        store.insert_requests(connection, "acquirer", state.requests)
        store.queue_reversals(connection, state.reversals)
        write_sequences(connection, state.last_seqs)
    return [result for result in results if result is not None]


def _read(
    connection: Connection,
    acquirer: Acquirer,
    requests: Sequence[TerminalRequest],
    keys: Sequence[bytes],
) -> _Opening:
    stored = store.stored_requests(connection, keys, "acquirer")
    reversals = [r for r in requests if r.kind is Kind.REVERSAL]
    original_keys = [key_of_class(acquirer.member_id, r, "request") for r in reversals]
    originals = store.stored_requests(connection, original_keys, "acquirer", lock=True)
    txids = [o.txid for o in originals.values() if o.txid is not None]
    refunds = [(r.merchant_id, r.rrn) for r in requests if r.kind is Kind.REFUND and r.rrn]
    fresh = [r for r, key in zip(requests, keys, strict=True) if key not in stored]
    return _Opening(
        now_ms=acquirer.clock.now_ms(),
        stored=stored | originals,
        terminals=lock_terminals(connection, [r.terminal_id for r in fresh]),
        rrns=store.next_rrns(connection, len(fresh)),
        purchases=store.approved_purchases(connection, refunds),
        queued=store.queued_originals(connection, txids),
    )


def _open_one(
    acquirer: Acquirer,
    request: TerminalRequest,
    key: bytes,
    refused: Outcome | None,
    state: _Opening,
) -> TerminalAnswer | Forward:
    known = state.stored.get(key)
    if known is not None:
        return _reopen(acquirer, request, known)
    rrn = state.rrns.pop()
    terminal = state.terminals.get(request.terminal_id)
    if terminal is None:
        # No state for strangers: nothing of theirs is stored.
        return _refusal(request, Outcome.TERMINAL_NOT_PERMITTED, rrn)
    refusal = _refuse(request, terminal, refused)
    if refusal is not None:
        return _store_answer(state, key, request, _refusal(request, refusal, rrn))
    if request.kind is Kind.REVERSAL:
        return _open_reversal(acquirer, request, key, terminal, rrn, state)
    issuer = acquirer.route(request.pan)
    if issuer is None:
        answer = _refusal(request, Outcome.ISSUER_UNKNOWN, rrn)
        return _store_answer(state, key, request, answer)
    original = None
    if request.kind is Kind.REFUND:
        original = state.purchases.get((request.merchant_id, request.rrn or ""))
        if original is None:
            answer = _refusal(request, Outcome.ORIGINAL_NOT_FOUND, rrn)
            return _store_answer(state, key, request, answer)
    elif request.rrn:
        rrn = request.rrn
    try:
        pin_block = _translated(acquirer, issuer, request)
    except PinBlockInvalid:
        answer = _refusal(request, Outcome.MALFORMED, rrn)
        return _store_answer(state, key, request, answer)
    made = _new_request(acquirer, request, terminal, issuer, rrn, original, state)
    return _forward(state, key, request, made, terminal, pin_block)


def _reopen(
    acquirer: Acquirer, request: TerminalRequest, known: StoredRequest
) -> TerminalAnswer | Forward:
    """A repeat: the stored answer, or the same request to the issuer once more."""
    if known.state == "tombstone":
        return _refusal(request, Outcome.REVERSED_BEFORE_ARRIVAL, "0" * 12)
    if known.fingerprint != request.fingerprint:
        return _refusal(request, Outcome.KEY_REUSED, "0" * 12)
    if known.answer is not None:
        return msgspec.json.decode(known.answer, type=TerminalAnswer)
    if known.request is None:
        raise RuntimeError("a pending request without its content")
    pending = msgspec.json.decode(known.request, type=Pending)
    whole = pending.request
    if whole.kind is not Kind.REVERSAL:
        whole = msgspec.structs.replace(
            whole, pan=request.pan, pin_block=_translated(acquirer, whole.issuer, request)
        )
    return Forward(known.key, whole, pending)


def _refuse(
    request: TerminalRequest, terminal: Terminal, by_message: Outcome | None
) -> Outcome | None:
    if terminal.terminal_status != "active":
        return Outcome.TERMINAL_NOT_PERMITTED
    if terminal.merchant_id != request.merchant_id or terminal.merchant_status != "active":
        return Outcome.MERCHANT_NOT_PERMITTED
    if by_message is None and request.currency != terminal.currency:
        return Outcome.CURRENCY_NOT_PERMITTED
    return by_message


def _translated(acquirer: Acquirer, issuer: str, request: TerminalRequest) -> bytes | None:
    """The PIN block under the issuer's zone key; on us it stays as the gateway sent it."""
    if request.pin_block is None or issuer == acquirer.member_id:
        return request.pin_block
    return acquirer.hsm.translate_pin(
        "zone:gateway", f"zone:{issuer}", request.pin_block, request.pan
    )


def _open_reversal(
    acquirer: Acquirer,
    request: TerminalRequest,
    key: bytes,
    terminal: Terminal,
    rrn: str,
    state: _Opening,
) -> TerminalAnswer | Forward:
    original_key = key_of_class(acquirer.member_id, request, "request")
    original = state.stored.get(original_key)
    if original is None:
        # The original may still come: its key is barred.
        state.requests.append(
            StoredRequest(original_key, bytes(32), "tombstone", None, None, None, None)
        )
    if original is None or original.request is None or original.txid in state.queued:
        # Never seen, never sent to an issuer, or its reversal is on its way already.
        return _store_answer(state, key, request, _reversed(request, rrn))
    pending = msgspec.json.decode(original.request, type=Pending)
    asked = pending.request
    if request.amount > asked.amount:
        answer = _refusal(request, Outcome.OVER_ORIGINAL_AMOUNT, asked.rrn)
        return _store_answer(state, key, request, answer)
    if request.amount != asked.amount or request.currency != asked.currency:
        answer = _refusal(request, Outcome.ORIGINAL_MISMATCH, asked.rrn)
        return _store_answer(state, key, request, answer)
    if original.answer is None:
        # The terminal waits no longer: whatever the issuer still answers is reversed.
        lost = _refusal(request, Outcome.ISSUER_UNAVAILABLE, asked.rrn)
        state.late_answers[original_key] = msgspec.json.encode(lost)
    else:
        told = msgspec.json.decode(original.answer, type=TerminalAnswer)
        if told.outcome is not Outcome.APPROVED:
            return _store_answer(state, key, request, _reversed(request, asked.rrn))
    made = reversal_of(asked, _next_seq(state, terminal), state.now_ms, request.deadline_ms)
    kept = Pending(made, pending.pan_masked, pending.merchant_account)
    state.reversals.append(
        QueuedReversal(
            asked.txid,
            asked.issuer,
            "terminal",
            msgspec.json.encode(kept),
            request.deadline_ms + _HAND_OVER_MS,
        )
    )
    return _keep_forward(state, key, request, made, kept)


def reversal_of(
    asked: AuthorizationRequest, terminal_seq: int, now_ms: int, deadline_ms: int
) -> AuthorizationRequest:
    """The reversal of a request, with a txid of its own; the terminal's identifiers stay."""
    network_ref = ids.new_network_ref()
    return msgspec.structs.replace(
        asked,
        txid=ids.txid(asked.acquirer, asked.issuer, network_ref),
        network_ref=network_ref,
        kind=Kind.REVERSAL,
        pan=None,
        pin_block=None,
        expiry=None,
        service_code=None,
        terminal_seq=terminal_seq,
        transmitted_ms=now_ms,
        salt_fin=secrets.token_bytes(32),
        salt_pii=secrets.token_bytes(32),
        original_txid=asked.txid,
        deadline_ms=deadline_ms,
    )


def _next_seq(state: _Opening, terminal: Terminal) -> int:
    number = state.last_seqs.get(terminal.terminal_id, terminal.last_seq) + 1
    state.last_seqs[terminal.terminal_id] = number
    return number


def _new_request(
    acquirer: Acquirer,
    request: TerminalRequest,
    terminal: Terminal,
    issuer: str,
    rrn: str,
    original: bytes | None,
    state: _Opening,
) -> AuthorizationRequest:
    network_ref = ids.new_network_ref()
    return AuthorizationRequest(
        txid=ids.txid(acquirer.member_id, issuer, network_ref),
        network_ref=network_ref,
        acquirer=acquirer.member_id,
        issuer=issuer,
        kind=request.kind,
        amount=request.amount,
        currency=request.currency,
        pan=None,
        expiry=request.expiry,
        service_code=request.service_code,
        entry_mode=request.entry_mode,
        merchant_id=request.merchant_id,
        merchant_name=terminal.merchant_name,
        mcc=terminal.mcc,
        country=terminal.country,
        terminal_id=request.terminal_id,
        terminal_seq=_next_seq(state, terminal),
        business_date=request.business_date,
        batch=request.batch,
        stan=request.stan,
        rrn=rrn,
        transmitted_ms=state.now_ms,
        local_time=request.local_time,
        salt_fin=secrets.token_bytes(32),
        salt_pii=secrets.token_bytes(32),
        original_txid=original,
        deadline_ms=request.deadline_ms,
    )


def _forward(
    state: _Opening,
    key: bytes,
    request: TerminalRequest,
    made: AuthorizationRequest,
    terminal: Terminal,
    pin_block: bytes | None,
) -> Forward:
    kept = Pending(made, mask(request.pan), terminal.merchant_account)
    whole = msgspec.structs.replace(made, pan=request.pan, pin_block=pin_block)
    return _keep_forward(state, key, request, whole, kept)


def _keep_forward(
    state: _Opening,
    key: bytes,
    request: TerminalRequest,
    whole: AuthorizationRequest,
    kept: Pending,
) -> Forward:
    state.requests.append(
        StoredRequest(
            key,
            request.fingerprint,
            "pending",
            kept.request.txid,
            kept.request.issuer,
            msgspec.json.encode(kept),
            None,
            request.deadline_ms,
        )
    )
    return Forward(key, whole, kept)


def _refusal(request: TerminalRequest, outcome: Outcome, rrn: str) -> TerminalAnswer:
    return TerminalAnswer(outcome=outcome, rrn=rrn, currency=request.currency)


def _reversed(request: TerminalRequest, rrn: str) -> TerminalAnswer:
    return TerminalAnswer(
        outcome=Outcome.APPROVED, rrn=rrn, amount=request.amount, currency=request.currency
    )


def _store_answer(
    state: _Opening, key: bytes, request: TerminalRequest, answer: TerminalAnswer
) -> TerminalAnswer:
    state.requests.append(
        StoredRequest(
            key,
            request.fingerprint,
            "answered",
            None,
            None,
            None,
            msgspec.json.encode(answer),
            request.deadline_ms,
        )
    )
    return answer
