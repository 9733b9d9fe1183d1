"""A product's terms are changed: one person proposes a version, another approves or rejects it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec
from sqlalchemy import Engine

from nodes import clock
from nodes.authorization.controls import Terms
from nodes.authorization.operations.booking import (
    Once,
    earlier,
    keep,
    own_key,
    settled,
    settled_once,
)
from nodes.authorization.operations.control_checks import Fault, faults_of_change, faults_of_terms
from nodes.authorization.operations.controlling import SPREAD_MS
from nodes.authorization.store import product_terms
from nodes.authorization.store.accounts import Connection
from nodes.authorization.store.product_terms import TermsVersion


class TermsOutcome(StrEnum):
    """How proposing or checking a version ends, in order of precedence."""

    KEY_REUSED = "key_reused"
    PRODUCT_UNKNOWN = "product_unknown"
    TERMS_INVALID = "terms_invalid"
    TERMS_UNKNOWN = "terms_unknown"
    TERMS_DECIDED = "terms_decided"
    MAKER_IS_CHECKER = "maker_is_checker"
    DONE = "done"


class TermsResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """The outcome; the version's number, or what is wrong with the terms."""

    outcome: TermsOutcome
    version: int | None = None
    faults: tuple[Fault, ...] = ()


def propose_terms(
    engine: Engine,
    member_id: str,
    product_id: str,
    terms: Terms,
    *,
    effective_from_ms: int,
    reason: str,
    made_by: str,
    idempotency_key: str,
    now: datetime,
) -> TermsResult:
    """Propose other terms of a product, once an idempotency key; nothing changes yet.

    They are in force from `effective_from_ms` (UTC, milliseconds) on, or from their approval if
    that is later. Purses and the time zone stay as they are: accounts and windows hang on them.
    """
    key = own_key(
        "product-terms", idempotency_key, product_id, terms, effective_from_ms, reason, made_by
    )
    faults = faults_of_terms(terms)

    def attempt(connection: Connection) -> TermsResult:
        reused = TermsResult(TermsOutcome.KEY_REUSED)
        known = earlier(connection, key, TermsResult, reused)
        if known is not None:
            return known
        first = product_terms.lock_product(connection, product_id)
        if first is None:
            return TermsResult(TermsOutcome.PRODUCT_UNKNOWN)
        wrong = faults or faults_of_change(first, terms)
        if wrong:
            return TermsResult(TermsOutcome.TERMS_INVALID, faults=tuple(wrong))
        version = product_terms.propose_version(
            connection,
            product_id,
            terms,
            effective_from_ms,
            reason=reason,
            made_by=made_by,
            made_at=now,
        )
        result = TermsResult(TermsOutcome.DONE, version)
        keep(connection, key, member_id, None, result)
        return result

    return settled(engine, attempt)


def approve_terms(
    engine: Engine,
    product_id: str,
    version: int,
    *,
    checked_by: str,
    now: datetime,
    under: Once | None = None,
) -> TermsResult:
    """Put a proposed version into force, never in the past; whoever made it can't. A repeat by the
    same person is told the same."""
    # Every process of the node reads terms again by then (supplying.py).
    earliest = clock.to_ms(now) + SPREAD_MS
    return _check(engine, product_id, version, "approved", earliest, checked_by, now, under)


def reject_terms(
    engine: Engine,
    product_id: str,
    version: int,
    *,
    checked_by: str,
    now: datetime,
    under: Once | None = None,
) -> TermsResult:
    """Reject a proposed version; whoever made it can't."""
    return _check(engine, product_id, version, "rejected", 0, checked_by, now, under)


def _check(
    engine: Engine,
    product_id: str,
    version: int,
    state: str,
    earliest: int,
    checked_by: str,
    now: datetime,
    under: Once | None,
) -> TermsResult:
    def attempt(connection: Connection) -> TermsResult:
        found = product_terms.lock_version(connection, product_id, version)
        refusal = _refusal(found, state, checked_by)
        if found is None or refusal is not None:
            return TermsResult(refusal or TermsOutcome.TERMS_UNKNOWN)
        if found.state == "proposed":
            product_terms.check_version(
                connection,
                found,
                state=state,
                effective_from_ms=max(found.effective_from_ms, earliest),
                checked_by=checked_by,
                checked_at=now,
            )
        return TermsResult(TermsOutcome.DONE, version)

    return settled_once(
        engine,
        under,
        f"product-terms-{state}",
        (product_id, version, checked_by),
        TermsResult,
        TermsResult(TermsOutcome.KEY_REUSED),
        attempt,
        lambda result: result.outcome is TermsOutcome.DONE,
    )


def _refusal(found: TermsVersion | None, state: str, checked_by: str) -> TermsOutcome | None:
    if found is None:
        return TermsOutcome.TERMS_UNKNOWN
    if (found.state, found.checked_by) == (state, checked_by):
        return None  # a repeat
    if found.state != "proposed":
        return TermsOutcome.TERMS_DECIDED
    if found.made_by == checked_by:
        return TermsOutcome.MAKER_IS_CHECKER
    return None
