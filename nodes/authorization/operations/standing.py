"""People change what a card or an account may do: versions of the account, like its payments.

So a purchase that was decided on the account as it was before loses its insert and is decided
again: a freeze that is answered holds for everything that is answered later.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec
from sqlalchemy import Engine

from nodes import clock
from nodes.authorization import rules
from nodes.authorization.model import Outcome
from nodes.authorization.operations.booking import Once, read_scene, settled_once
from nodes.authorization.rules.chip import Script, script_id, scripts_due
from nodes.authorization.state import Account
from nodes.authorization.store import accounts
from nodes.authorization.store.accounts import Connection, NewVersion
from nodes.cards import store as cards
from nodes.cards.model import CardOutcome, CardStatus
from nodes.cards.rules import may_change


class AccountStatus(StrEnum):
    """An account's state. A frozen one pays nothing but takes money; a closed one stays closed."""

    OPEN = "open"
    FROZEN = "frozen"
    CLOSED = "closed"


class AccountOutcome(StrEnum):
    """How a change of an account ends, in order of precedence."""

    KEY_REUSED = "key_reused"
    ACCOUNT_UNKNOWN = "account_unknown"
    ACCOUNT_CLOSED = "account_closed"
    ACCOUNT_NOT_EMPTY = "account_not_empty"
    DONE = "done"


def set_card_status(
    engine: Engine,
    card_token: bytes,
    wanted: CardStatus,
    *,
    actor: str,
    reason: str,
    now: datetime,
    under: Once | None = None,
) -> CardOutcome:
    """Change a card's status where the transition is allowed; keeps who and why."""

    def attempt(connection: Connection) -> CardOutcome:
        card = accounts.cards_by_token(connection, [card_token]).get(card_token)
        if card is None:
            return CardOutcome.CARD_UNKNOWN
        at_ms = clock.to_ms(now)
        scene = read_scene(connection, [card.account_id], at_ms)
        before = scene.holders[card.account_id].account
        if not may_change(CardStatus(before.cards[card.card_id].status), wanted):
            return CardOutcome.TRANSITION_REFUSED
        decision = rules.decide_standing(scene.facts(card.account_id), card.card_id, wanted.value)
        if decision.account is None:
            return CardOutcome.CARD_UNKNOWN
        version = NewVersion(before, decision.account, None, at_ms, decision.detail)
        accounts.append_versions(connection, [version])
        cards.write_status(connection, card_token, wanted.value)
        cards.record_event(connection, card_token, wanted.value, actor, reason, now)
        return CardOutcome.DONE

    return settled_once(
        engine,
        under,
        "card-status",
        (card_token, wanted.value, actor, reason),
        CardOutcome,
        CardOutcome.KEY_REUSED,
        attempt,
        lambda outcome: outcome is CardOutcome.DONE,
    )


class QueuedScript(msgspec.Struct, frozen=True):
    """What waits for a chip, and the number under which it confirms that."""

    number: int
    waiting: Script


def queue_card_script(
    engine: Engine,
    card_token: bytes,
    script: Script,
    *,
    actor: str,
    reason: str,
    now: datetime,
    under: Once | None = None,
) -> QueuedScript | CardOutcome:
    """Have a card told something when it next comes online; FORM_INVALID if it has no chip."""

    def attempt(connection: Connection) -> QueuedScript | CardOutcome:
        card = accounts.cards_by_token(connection, [card_token]).get(card_token)
        if card is None:
            return CardOutcome.CARD_UNKNOWN
        if card.entry is None or card.entry.profile is None:
            return CardOutcome.FORM_INVALID
        at_ms = clock.to_ms(now)
        scene = read_scene(connection, [card.account_id], at_ms)
        before = scene.holders[card.account_id].account
        decision = rules.decide_script(scene.facts(card.account_id), card.card_id, script)
        after = decision.account
        if after is None:
            return CardOutcome.CARD_UNKNOWN
        version = NewVersion(before, after, None, at_ms, decision.detail)
        accounts.append_versions(connection, [version])
        event = f"script {(script.name or '').lower()}"
        cards.record_event(connection, card_token, event, actor, reason, now)
        status = after.cards[card.card_id].status
        return QueuedScript(*scripts_due(status, after.counters.get(script_id(card.card_id))))

    reused: QueuedScript | CardOutcome = CardOutcome.KEY_REUSED
    return settled_once(
        engine,
        under,
        "card-script",
        (card_token, script.value, actor, reason),
        QueuedScript | CardOutcome,
        reused,
        attempt,
        lambda made: isinstance(made, QueuedScript),
    )


def set_account_status(
    engine: Engine,
    account_id: int,
    wanted: AccountStatus,
    *,
    actor: str,
    reason: str,
    now: datetime,
    under: Once | None = None,
) -> AccountOutcome:
    """Freeze, open or close a card account; who and why stand in the history of its cards.

    Only an account on which nothing is, and nothing is held, owed or disputed, can be closed.
    Setting what is set already changes nothing.
    """

    def attempt(connection: Connection) -> AccountOutcome:
        at_ms = clock.to_ms(now)
        scene = read_scene(connection, [account_id], at_ms)
        if account_id not in scene.holders or not scene.holders[account_id].account.cards:
            return AccountOutcome.ACCOUNT_UNKNOWN
        before = scene.holders[account_id].account
        if before.status == wanted.value:
            return AccountOutcome.DONE
        decision = rules.decide_account_status(scene.facts(account_id), wanted.value)
        after = decision.account
        if decision.outcome is not Outcome.APPROVED or after is None:
            return AccountOutcome.ACCOUNT_CLOSED
        if wanted is AccountStatus.CLOSED and not _is_empty(after):
            return AccountOutcome.ACCOUNT_NOT_EMPTY
        version = NewVersion(before, after, None, at_ms, decision.detail)
        accounts.append_versions(connection, [version])
        for card in accounts.cards_of(connection, [account_id]):
            event = f"account {wanted.value}"
            cards.record_event(connection, card.card_token, event, actor, reason, now)
        return AccountOutcome.DONE

    return settled_once(
        engine,
        under,
        "account-status",
        (account_id, wanted.value, actor, reason),
        AccountOutcome,
        AccountOutcome.KEY_REUSED,
        attempt,
        lambda outcome: outcome is AccountOutcome.DONE,
    )


def _is_empty(account: Account) -> bool:
    if account.receivable or account.disputed:
        return False
    return not any(p.balance or p.held for p in account.purses)
