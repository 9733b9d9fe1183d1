"""The issuer's answers: what C commits to, the exact answer, and what a repeat gets."""

from __future__ import annotations

import msgspec

from nodes.authorization.model import AuthorizationAnswer, AuthorizationRequest, Kind, Outcome
from nodes.authorization.operations.asking import Asked
from nodes.authorization.state import Decision
from nodes.authorization.store.accounts import KnownOriginal
from nodes.authorization.store.requests import StoredRequest
from nodes.crypto.commitment import SharedFacts, shared_commitment


def repeat(known: StoredRequest, asked: Asked, now_ms: int) -> AuthorizationAnswer:
    """The stored answer to a repeat; the same key with other content is refused."""
    if known.is_bar:
        return unrecorded(asked.request, Outcome.REVERSED_BEFORE_ARRIVAL, now_ms)
    if known.fingerprint != asked.fingerprint or known.answer is None:
        return unrecorded(asked.request, Outcome.KEY_REUSED, now_ms)
    return msgspec.json.decode(known.answer, type=AuthorizationAnswer)


def answer_to(
    request: AuthorizationRequest,
    decision: Decision,
    token: bytes | None,
    now_ms: int,
    original: KnownOriginal | None,
) -> AuthorizationAnswer:
    """The answer to a fresh decision; its number of the pair and its signature come later."""
    approved = decision.outcome is Outcome.APPROVED
    account = decision.account
    shown = approved and request.kind is Kind.BALANCE_INQUIRY and account is not None
    return AuthorizationAnswer(
        txid=request.txid,
        outcome=decision.outcome,
        approval_code=approval_code(request.txid) if approved else None,
        amount=decision.amount,
        currency=request.currency,
        card_token=token,
        commitment=shared_commitment(
            request.txid,
            shared_facts(request, decision.outcome, token, decision.amount),
            request.salt_fin,
            request.salt_pii,
        ),
        pair_seq=0,
        decided_ms=now_ms,
        available=account.available if shown and account else None,
        ledger=account.balance if shown and account else None,
        original=original.answer if original and request.kind is Kind.REVERSAL else None,
    )


def shared_facts(
    request: AuthorizationRequest, outcome: Outcome, card_token: bytes | None, approved: int
) -> SharedFacts:
    """What C commits to: the approved amount, or of a declined request the one asked for."""
    return SharedFacts(
        amount=approved if outcome is Outcome.APPROVED else request.amount,
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


def approval_code(txid: bytes) -> str:
    """Six digits for the receipt (DE38); a name, not a proof."""
    return f"{int.from_bytes(txid[:4], 'big') % 1_000_000:06d}"
