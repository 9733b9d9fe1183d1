"""Holds whose time is over, at accounts where nothing else happens."""

from __future__ import annotations

from sqlalchemy import Engine

from nodes.authorization import rules
from nodes.authorization.model import Kind
from nodes.authorization.operations.booking import Own, append_own, read_scene, settled
from nodes.authorization.store import accounts, products
from nodes.authorization.store.accounts import Connection

#: Accounts a database transaction: each gets a transaction and a version at most.
_AT_ONCE = 100


def expire_holds(engine: Engine, member_id: str, now_ms: int, time_zone: str) -> int:
    """Release what is due: one EXPIRY transaction an account, as any decision of it would have
    done. How many were written; nothing is done twice, whoever calls it.
    """

    def attempt(connection: Connection) -> tuple[int, int]:
        due = products.take_due_deadlines(connection, now_ms, _AT_ONCE)
        scene = read_scene(connection, due, now_ms)
        released = 0
        for account_id, holder in sorted(scene.holders.items()):
            decision = rules.decide_expiry(scene.facts(account_id))
            if decision is None:
                continue  # captured, reversed, or released by a decision since
            cards = accounts.cards_of(connection, [account_id])
            expired = decision.detail.expired
            own = Own(
                member_id,
                Kind.EXPIRY,
                holder.account.currency,
                decision,
                holder.account,
                now_ms,
                time_zone,
                "hold expired",
                card=cards[0] if len(cards) == 1 else None,
                original_txid=expired[0][0] if len(expired) == 1 else None,
            )
            append_own(connection, own)
            released += 1
        return len(due), released

    written = 0
    while True:
        taken, released = settled(engine, attempt)
        written += released
        if not taken:
            return written
