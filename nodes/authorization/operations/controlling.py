"""Products and the rules that limit spending: made, ended, and tried on what has happened."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec
import sqlalchemy
from sqlalchemy import Engine

from nodes import clock
from nodes.authorization import queries, rules
from nodes.authorization.controls import Rule, Terms
from nodes.authorization.operations.booking import (
    PLAIN_TERMS,
    Once,
    read_scene,
    settled_once,
)
from nodes.authorization.operations.control_checks import Fault, faults_of_rule, faults_of_terms
from nodes.authorization.rules import BacktestResult, Past
from nodes.authorization.state import Detail
from nodes.authorization.store import accounts, products
from nodes.authorization.store.accounts import Connection, NewVersion
from nodes.authorization.store.products import StoredRule
from nodes.cards import queries as cards
from nodes.ledger.queries import first_id_since

#: Engines read products and their rules again after a second (engine.py): so far in advance a
#: change is announced, and then all of them have it.
SPREAD_MS = 1_000
#: Back-test: rows a page, and the most that one call looks at.
_PAGE = 5_000
MAX_BACKTEST = 200_000
_DEFAULT_KINDS = ("purchase", "authorization")


class Scope(StrEnum):
    """What a rule is for."""

    PRODUCT = "product"
    ACCOUNT = "account"
    CARD = "card"


class ControlOutcome(StrEnum):
    """How making or ending a product or a rule ends, in order of precedence."""

    KEY_REUSED = "key_reused"
    TERMS_INVALID = "terms_invalid"
    PRODUCT_TAKEN = "product_taken"
    RULE_INVALID = "rule_invalid"
    SUBJECT_UNKNOWN = "subject_unknown"
    RULE_UNKNOWN = "rule_unknown"
    RULE_ENDED = "rule_ended"
    DONE = "done"


class ControlResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """The outcome; the rule as it stands, or what is wrong with it."""

    outcome: ControlOutcome
    rule: Rule | None = None
    faults: tuple[Fault, ...] = ()


def create_product(
    engine: Engine,
    *,
    product_id: str,
    name: str,
    terms: Terms,
    now: datetime,
    under: Once | None = None,
) -> ControlResult:
    """Add a product. Cards of it can be issued at once."""
    faults = faults_of_terms(terms)
    if faults:
        return ControlResult(ControlOutcome.TERMS_INVALID, faults=tuple(faults))

    def attempt(connection: Connection) -> ControlResult:
        if not products.insert_product(connection, product_id, name, terms, now):
            return ControlResult(ControlOutcome.PRODUCT_TAKEN)
        return ControlResult(ControlOutcome.DONE)

    return _once(engine, under, "product", (product_id, name, terms), attempt)


def _once(
    engine: Engine,
    under: Once | None,
    operation: str,
    content: tuple[object, ...],
    attempt: Callable[[Connection], ControlResult],
) -> ControlResult:
    return settled_once(
        engine,
        under,
        operation,
        content,
        ControlResult,
        ControlResult(ControlOutcome.KEY_REUSED),
        attempt,
        lambda result: result.outcome is ControlOutcome.DONE,
    )


def create_rule(
    engine: Engine,
    scope: Scope,
    subject: str,
    rule: Rule,
    *,
    created_by: str,
    now: datetime,
    under: Once | None = None,
) -> ControlResult:
    """Add a rule; the result says from when it is in force, which is never in the past.

    Of an account or a card it is so at once: the account gets its next version, and what was
    decided without the rule loses against that. Of a product it is so a second later everywhere.
    `rule.rule_id` is given here.
    """
    at_ms = clock.to_ms(now)
    earliest = at_ms + SPREAD_MS if scope is Scope.PRODUCT else at_ms
    made = msgspec.structs.replace(
        rule,
        rule_id=f"rule-{secrets.token_hex(8)}",
        effective_from_ms=max(rule.effective_from_ms, earliest),
    )
    faults = faults_of_rule(made)
    if faults:
        return ControlResult(ControlOutcome.RULE_INVALID, faults=tuple(faults))

    def attempt(connection: Connection) -> ControlResult:
        found, account_id = _subject(connection, scope, subject)
        if not found:
            return ControlResult(ControlOutcome.SUBJECT_UNKNOWN)
        stored = StoredRule(scope.value, subject, made)
        products.insert_rule(connection, stored, created_by, now)
        if account_id is not None:
            _supersede(connection, account_id, at_ms)
        return ControlResult(ControlOutcome.DONE, made)

    return _once(engine, under, "rule", (scope.value, subject, rule, created_by), attempt)


def end_rule(
    engine: Engine, rule_id: str, *, ended_by: str, now: datetime, under: Once | None = None
) -> ControlResult:
    """End a rule; the result says from when. What its windows have counted stays on record."""
    at_ms = clock.to_ms(now)

    def attempt(connection: Connection) -> ControlResult:
        stored = products.find_rule(connection, rule_id)
        if stored is None:
            return ControlResult(ControlOutcome.RULE_UNKNOWN)
        ends_ms = at_ms + SPREAD_MS if stored.scope == Scope.PRODUCT else at_ms
        known = stored.rule.effective_to_ms
        if known is not None:
            ends_ms = min(ends_ms, known)
        if not products.end_rule(connection, rule_id, ended_by, ends_ms):
            return ControlResult(ControlOutcome.RULE_ENDED)
        _, account_id = _subject(connection, Scope(stored.scope), stored.subject)
        if account_id is not None:
            _supersede(connection, account_id, at_ms)
        ended = msgspec.structs.replace(stored.rule, effective_to_ms=ends_ms)
        return ControlResult(ControlOutcome.DONE, ended)

    return _once(engine, under, "rule-end", (rule_id, ended_by), attempt)


def _subject(connection: Connection, scope: Scope, subject: str) -> tuple[bool, int | None]:
    """Whether a rule's subject exists, and the account whose decisions it changes at once."""
    if scope is Scope.PRODUCT:
        return products.terms_of_product(connection, subject) is not None, None
    if scope is Scope.CARD:
        if len(subject) != 32 or not set(subject) <= set("0123456789abcdef"):
            return False, None
        token = bytes.fromhex(subject)
        card = accounts.cards_by_token(connection, [token]).get(token)
        return card is not None, card.account_id if card is not None else None
    if not (subject.isascii() and subject.isdigit() and len(subject) <= 18):
        return False, None
    account_id = int(subject)
    known = str(account_id) == subject and bool(accounts.cards_of(connection, [account_id]))
    return known, account_id if known else None


def _supersede(connection: Connection, account_id: int, at_ms: int) -> None:
    """Append the account's next version, the same but for its number."""
    before = read_scene(connection, [account_id], at_ms).holders[account_id].account
    after = msgspec.structs.replace(before, version=before.version + 1)
    accounts.append_versions(connection, [NewVersion(before, after, None, at_ms, Detail())])


# -- back-test


class Backtest(msgspec.Struct, frozen=True):
    """What a rule would have declined. `complete` False: there was more than was looked at;
    `until_ms` is how far it came."""

    result: BacktestResult
    complete: bool
    until_ms: int | None


def backtest_rule(
    snapshot: Callable[[], AbstractContextManager[sqlalchemy.Connection]],
    scope: Scope,
    subject: str,
    rule: Rule,
    *,
    now: datetime,
    days: int,
    maximum: int = MAX_BACKTEST,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Backtest:
    """Replay the approved payments of the last `days` through a rule. Nothing is written.

    At most `maximum` payments, the oldest first; `on_progress` hears how many were looked at.
    """
    since = now - timedelta(days=days)
    reading = _Reading(scope, subject, rule, clock.to_ms(since), maximum, on_progress)
    with snapshot() as connection:
        time_zone = _time_zone(connection, scope, subject, clock.to_ms(now))
        payments = reading.payments(connection, first_id_since(connection, since) - 1)
        result = rules.backtest(rule, payments, time_zone, keep=100)
    return Backtest(result, reading.complete, reading.until_ms)


class _Reading:
    """Pages of the past, and how far they were read."""

    def __init__(
        self,
        scope: Scope,
        subject: str,
        rule: Rule,
        from_ms: int,
        maximum: int,
        on_progress: Callable[[int], None],
    ) -> None:
        self._of = (scope.value, subject, rule.when.kinds or _DEFAULT_KINDS)
        self._from_ms = from_ms
        self._left = maximum
        self._read = 0
        self._on_progress = on_progress
        self.complete = False
        self.until_ms: int | None = None

    def payments(self, connection: sqlalchemy.Connection, after: int) -> Iterator[Past]:
        while self._left > 0:
            wanted = min(_PAGE, self._left)
            page = queries.past_payments(
                connection, *self._of, from_ms=self._from_ms, after=after, limit=wanted
            )
            for number, past in page:
                after, self.until_ms = number, past.at_ms
                yield past
            self._left -= len(page)
            self._read += len(page)
            self._on_progress(self._read)
            if len(page) < wanted:
                self.complete = True
                return


def _time_zone(connection: sqlalchemy.Connection, scope: Scope, subject: str, now_ms: int) -> str:
    product_id: str | None = subject
    if scope is Scope.ACCOUNT:
        found = cards.cards_of(connection, [int(subject)])
        product_id = found[0]["product_id"] if found else None
    elif scope is Scope.CARD:
        card = cards.card(connection, bytes.fromhex(subject))
        product_id = card["product_id"] if card is not None else None
    row = queries.product(connection, product_id, now_ms) if product_id is not None else None
    terms: Terms = row["terms"] if row is not None else PLAIN_TERMS
    return terms.time_zone
