"""The streams of accounts: snapshots out, next versions in; and what became of originals."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import psycopg

from nodes.authorization.controls import Rule, Terms
from nodes.authorization.model import AuthorizationAnswer, Kind, Outcome
from nodes.authorization.state import (
    Account,
    Card,
    CardEntry,
    CardStanding,
    Detail,
    Original,
    Progress,
    Purse,
    ShownCode,
)
from nodes.db.writes import Statement, Writes, append_rows, bigint, text
from nodes.ledger.model import AccountKey
from nodes.ledger.store import find_or_open_accounts

Connection = psycopg.Connection[Any]
Pair = tuple[str, str]

_ACCOUNT = msgspec.msgpack.Decoder(Account)
_DETAIL = msgspec.msgpack.Decoder(Detail)
_ENCODER = msgspec.msgpack.Encoder()


class Holder(msgspec.Struct, frozen=True):
    """A card account as decisions see it: the snapshot, its product's terms, its own rules."""

    account: Account
    product_id: str
    rules: tuple[Rule, ...] = ()
    #: Rules of single cards, by card id.
    card_rules: dict[int, tuple[Rule, ...]] = {}


class NewVersion(msgspec.Struct, frozen=True):
    """An account's next version, as it is appended."""

    before: Account
    after: Account
    transaction_id: int | None
    at_ms: int
    detail: Detail


class KnownOriginal(msgspec.Struct, frozen=True):
    """An earlier transaction with what the issuer had answered to it."""

    original: Original
    answer: AuthorizationAnswer


def cards_by_lookup(connection: Connection, lookups: Sequence[bytes]) -> dict[bytes, Card]:
    """Cards by the look-up values of their numbers."""
    return {row[0]: _card(row[1:]) for row in _cards(connection, "pan_lookup", lookups)}


def cards_by_token(connection: Connection, tokens: Sequence[bytes]) -> dict[bytes, Card]:
    """Cards by token."""
    return {row[2]: _card(row[1:]) for row in _cards(connection, "card_token", tokens)}


def cards_of(connection: Connection, account_ids: Sequence[int]) -> list[Card]:
    """All cards of these accounts, by card_id."""
    cards = [_card(row[1:]) for row in _cards(connection, "account_id", account_ids)]
    return sorted(cards, key=lambda card: card.card_id)


def _card(columns: Sequence[Any]) -> Card:
    """A row of _cards without its look-up value; the last column is what it was made with."""
    entry = columns[-1]
    if entry is None:
        return Card(*columns)
    plain = Card(*columns[:-1])
    return msgspec.structs.replace(plain, entry=msgspec.json.decode(entry, type=CardEntry))


def cards_by_code(connection: Connection, lookups: Sequence[bytes]) -> dict[bytes, Card]:
    """The cards behind consumers' codes, by the look-up values of the codes' numbers."""
    if not lookups:
        return {}
    rows = connection.execute(
        "SELECT code_lookup, card_token, number, expires_ms FROM consumer_codes"
        " WHERE code_lookup = ANY(%b)",
        (list(lookups),),
    ).fetchall()
    cards = cards_by_token(connection, [row[1] for row in rows])
    return {
        row[0]: msgspec.structs.replace(cards[row[1]], code=ShownCode(row[2], row[3]))
        for row in rows
    }


def _cards(connection: Connection, by: str, values: Sequence[bytes] | Sequence[int]) -> list[Any]:
    if not values:
        return []
    return connection.execute(
        "SELECT pan_lookup, card_id, card_token, account_id, pan_masked, expiry, service_code,"
        f" pin_lookup, entry FROM cards WHERE {by} = ANY(%b)",
        (list(values),),
        prepare=True,
    ).fetchall()


def products(connection: Connection, now_ms: int) -> dict[str, tuple[Terms, tuple[Rule, ...]]]:
    """All products: the terms in force, and the rules of each."""
    rules: dict[str, list[Rule]] = defaultdict(list)
    for subject, definition, ends_ms in connection.execute(
        "SELECT subject, definition::text, effective_to_ms FROM spend_rules"
        " WHERE scope = 'product' ORDER BY rule_id"
    ):
        rules[subject].append(stored_rule(definition, ends_ms))
    rows = connection.execute(
        "SELECT product_id, terms::text FROM products_at(%s)", (now_ms,), prepare=True
    ).fetchall()
    return {
        product_id: (msgspec.json.decode(terms, type=Terms), tuple(rules[product_id]))
        for product_id, terms in rows
    }


def holders(
    connection: Connection, account_ids: Iterable[int], terms: dict[str, Terms]
) -> dict[int, Holder]:
    """Card accounts at their last version; one that has none yet is at version 0."""
    wanted = sorted(set(account_ids))
    if not wanted:
        return {}
    rows = connection.execute(
        "SELECT a.account_id, a.owner, a.currency, v.state FROM accounts AS a"
        " LEFT JOIN LATERAL (SELECT state FROM account_versions AS v"
        " WHERE v.account_id = a.account_id AND v.line = 0 ORDER BY version DESC LIMIT 1) AS v"
        " ON true WHERE a.account_id = ANY(%b) AND a.kind = 'cardholder'",
        (wanted,),
        prepare=True,
    ).fetchall()
    cards: dict[int, list[tuple[int, str, str, str]]] = defaultdict(list)
    for account_id, card_id, status, product_id, token in connection.execute(
        "SELECT account_id, card_id, status, product_id, encode(card_token, 'hex') FROM cards"
        " WHERE account_id = ANY(%b) ORDER BY card_id",
        (wanted,),
        prepare=True,
    ):
        cards[account_id].append((card_id, status, product_id, token))
    rules = _own_rules(connection, wanted, cards)
    found: dict[int, Holder] = {}
    for account_id, owner, currency, state in rows:
        own = cards[account_id]
        product_id = own[0][2] if own else "standard"
        if state is not None:
            account = _ACCOUNT.decode(state)
        else:
            account = _first(connection, account_id, owner, currency, terms.get(product_id))
        missing = {n: CardStanding(status) for n, status, _, _ in own if n not in account.cards}
        if missing:
            account = msgspec.structs.replace(account, cards=account.cards | missing)
        by_card = {
            number: rules["card", token] for number, _, _, token in own if ("card", token) in rules
        }
        own_rules = rules.get(("account", str(account_id)), ())
        found[account_id] = Holder(account, product_id, own_rules, by_card)
    return found


#: First half of the advisory locks' keys, so that they meet no others.
_QUEUES = 0x0A11


def queue_up(connection: Connection, account_ids: Iterable[int]) -> None:
    """Wait for one's turn at accounts, until the transaction ends.

    For what would lose again and again otherwise. It protects nothing: whoever doesn't queue may
    still be first with the next version.
    """
    connection.execute(
        "SELECT pg_advisory_xact_lock(%s::integer, (number %% 2147483647)::integer)"
        " FROM unnest(%b::bigint[]) AS number",
        (_QUEUES, sorted(set(account_ids))),
    )


def _own_rules(
    connection: Connection, wanted: Sequence[int], cards: dict[int, list[tuple[int, str, str, str]]]
) -> dict[tuple[str, str], tuple[Rule, ...]]:
    tokens = [token for own in cards.values() for _, _, _, token in own]
    found: dict[tuple[str, str], tuple[Rule, ...]] = {}
    for scope, subject, definition, ends_ms in connection.execute(
        "SELECT scope, subject, definition::text, effective_to_ms FROM spend_rules"
        " WHERE (scope = 'account' AND subject = ANY(%b)) OR (scope = 'card' AND subject = ANY(%b))"
        " ORDER BY rule_id",
        ([str(number) for number in wanted], tokens),
        prepare=True,
    ):
        rule = stored_rule(definition, ends_ms)
        found[scope, subject] = (*found.get((scope, subject), ()), rule)
    return found


def _first(
    connection: Connection, account_id: int, owner: str, currency: str, terms: Terms | None
) -> Account:
    """An account of which nothing is recorded: version 0. Further purses are opened here."""
    names = [purse.name for purse in (terms or Terms()).purses]
    keys = [AccountKey("cardholder", f"{owner}/{name}", currency) for name in names[1:]]
    opened = find_or_open_accounts(connection, keys, datetime.now(UTC)) if keys else {}
    others = tuple(Purse(opened[key], name) for key, name in zip(keys, names[1:], strict=True))
    return Account(account_id, 0, currency, (Purse(account_id, names[0]), *others))


_VERSIONS = {
    "account_id": "bigint",
    "version": "bigint",
    "line": "smallint",
    "purse_account": "bigint",
    "transaction_id": "bigint",
    "at_ms": "bigint",
    "balance": "bigint",
    "held": "bigint",
    "overdraft_limit": "bigint",
    "state": "bytea",
    "detail": "bytea",
}


def append_versions(into: Connection | Writes, versions: Sequence[NewVersion]) -> None:
    """Append next versions. UniqueViolation, SerializationFailure: others' versions came first."""
    rows: list[tuple[Any, ...]] = []
    encode = _ENCODER.encode
    for new in versions:
        after, number = new.after, new.transaction_id
        account_id, version = after.account_id, after.version
        main = after.purses[0]
        rows.append(
            (
                account_id,
                version,
                0,
                main.account_id,
                number,
                new.at_ms,
                main.balance,
                main.held,
                main.overdraft_limit,
                encode(after),
                encode(new.detail),
            )
        )
        if len(after.purses) == 1:
            continue
        for line, (was, now) in enumerate(zip(new.before.purses, after.purses, strict=True)):
            if line and was != now:
                place = (account_id, version, line, now.account_id, number, new.at_ms)
                rows.append((*place, now.balance, now.held, now.overdraft_limit, None, None))
    append_rows(into, "account_versions", _VERSIONS, rows)
    append_rows(into, "hold_deadlines", _DEADLINES, new_deadlines(versions))


_DEADLINES = {"expires_ms": "bigint", "account_id": "bigint"}


def new_deadlines(versions: Sequence[NewVersion]) -> list[tuple[int, int]]:
    """When the holds end that these versions bring, by account."""
    found: list[tuple[int, int]] = []
    for new in versions:
        if new.after.holds and new.after.holds is not new.before.holds:
            known = {hold.txid for hold in new.before.holds}
            account_id = new.after.account_id
            found += [(h.expires_ms, account_id) for h in new.after.holds if h.txid not in known]
    return found


_PROGRESS = {
    "txid": "bytea",
    "version": "bigint",
    "authorized": "bigint",
    "captured": "bigint",
    "refunded": "bigint",
    "reversed": "bigint",
    "ended": "boolean",
    "shard": "bigint",
}


def append_progress(
    into: Connection | Writes, changes: Sequence[tuple[int, int, bytes, Progress]]
) -> None:
    """What became of originals: (account_id, its version, txid, progress); a version's last one."""
    last = {(txid, version, account): progress for account, version, txid, progress in changes}
    append_rows(
        into,
        "payment_progress",
        _PROGRESS,
        [
            (txid, version, p.authorized, p.captured, p.refunded, p.reversed, p.ended, account)
            for (txid, version, account), p in last.items()
        ],
    )


def originals(connection: Connection, txids: Iterable[bytes]) -> dict[bytes, KnownOriginal]:
    """The issuer's earlier transactions by txid, and the authorizations behind them."""
    found: dict[bytes, KnownOriginal] = {}
    wanted = list(set(txids))
    while wanted:
        rows = connection.execute(
            "SELECT t.txid, t.kind, t.outcome, t.amount, t.currency, t.acquirer, t.merchant_id,"
            " t.terminal_id, t.account_id, t.card_token, t.pan_masked, t.mcc, t.decided_ms,"
            " t.original_txid, v.detail, p.authorized, p.captured, p.refunded, p.reversed, p.ended,"
            " t.approval_code, t.commitment, t.pair_seq FROM transactions AS t"
            " LEFT JOIN account_versions AS v ON v.account_id = t.shard"
            " AND v.version = t.account_version AND v.line = 0"
            " LEFT JOIN LATERAL (SELECT * FROM payment_progress AS p WHERE p.txid = t.txid"
            " AND p.shard = t.shard ORDER BY version DESC LIMIT 1) AS p ON true"
            " WHERE t.txid = ANY(%b) AND t.side = 'issuer'",
            (wanted,),
            prepare=True,
        ).fetchall()
        for row in rows:
            known = _known(row)
            found[known.original.txid] = known
        wanted = (
            [
                o.original.original_txid
                for o in found.values()
                if o.original.original_txid is not None
                and o.original.original_txid not in found
                and o.original.kind in (Kind.CAPTURE, Kind.INCREMENT, Kind.REFUND)
            ]
            if rows
            else []
        )
    return found


def _known(row: Sequence[Any]) -> KnownOriginal:
    txid, kind, outcome, amount = row[0], Kind(row[1]), Outcome(row[2]), row[3]
    detail = _DETAIL.decode(row[14]) if row[14] is not None else Detail()
    progress = Progress(*row[15:20]) if row[15] is not None else Progress(amount)
    original = Original(
        txid=txid,
        kind=kind,
        outcome=outcome,
        amount=amount,
        currency=row[4],
        acquirer=row[5],
        merchant_id=row[6],
        terminal_id=row[7],
        account_id=row[8],
        card_token=row[9],
        pan_masked=row[10],
        mcc=row[11],
        decided_ms=row[12],
        progress=progress,
        original_txid=row[13],
        parts=detail.parts,
        shortfall=detail.shortfall,
        counted=detail.counted,
        card_id=detail.card_id,
        used=detail.used,
        requested=detail.requested,
        reserve=detail.reserve,
    )
    answer = AuthorizationAnswer(
        txid=txid,
        outcome=outcome,
        approval_code=row[20],
        amount=amount if outcome is Outcome.APPROVED else 0,
        currency=row[4],
        card_token=row[9],
        commitment=row[21],
        pair_seq=row[22],
        decided_ms=row[12],
    )
    return KnownOriginal(original, answer)


def lock_pairs(connection: Connection, pairs: Iterable[Pair]) -> dict[Pair, int]:
    """The last numbers of pairs' sequences; nobody else gets any until the transaction ends."""
    return {pair: _pair(connection, pair, " FOR NO KEY UPDATE") for pair in sorted(set(pairs))}


def last_numbers(connection: Connection, pairs: Iterable[Pair]) -> dict[Pair, int]:
    """The last numbers of pairs' sequences, as they are now."""
    return {pair: _pair(connection, pair, "") for pair in sorted(set(pairs))}


def _pair(connection: Connection, pair: Pair, locking: str) -> int:
    while True:
        row = connection.execute(
            f"SELECT last_seq FROM pair_counters WHERE acquirer = %s AND issuer = %s{locking}", pair
        ).fetchone()
        if row is not None:
            number: int = row[0]
            return number
        connection.execute(
            "INSERT INTO pair_counters (acquirer, issuer) VALUES (%s, %s) ON CONFLICT DO NOTHING",
            pair,
        )


_ADVANCE = Statement(
    "advance pair", "SELECT advance_pair($1::text, $2::text, $3::bigint, $4::bigint)"
)


def advance_pair(writes: Writes, pair: Pair, last: int, count: int) -> None:
    """Take the `count` numbers after `last`; SerializationFailure if it isn't the last any more."""
    writes.call(_ADVANCE, text(pair[0]), text(pair[1]), bigint(last), bigint(count))


def stored_rule(definition: str, ends_ms: int | None) -> Rule:
    """A row of spend_rules; its end stands beside it, as a rule may be ended later."""
    rule = msgspec.json.decode(definition, type=Rule)
    return msgspec.structs.replace(rule, effective_to_ms=ends_ms)


def rule_json(rule: Rule) -> str:
    """A rule as it stands in spend_rules.definition."""
    return json.dumps(msgspec.to_builtins(rule))
