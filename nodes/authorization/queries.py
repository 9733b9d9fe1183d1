"""Reads beside the authorization path: accounts at their versions, rules, what is still open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, Select, func, select, text

from nodes.authorization import rules
from nodes.authorization.controls import Rule, Terms
from nodes.authorization.model import Kind
from nodes.authorization.rules import Past
from nodes.authorization.state import Account, Detail, Progress, Purse
from nodes.authorization.tables import (
    adjustments,
    disputes,
    product_columns,
    product_terms,
    reversal_queue,
    spend_rules,
)
from nodes.emv.chip_data import ChipSlip, CryptogramType

Row = Mapping[str, Any]

_ACCOUNT = msgspec.msgpack.Decoder(Account)
_DETAIL = msgspec.msgpack.Decoder(Detail)


@dataclass(frozen=True, slots=True)
class OpenWork:
    """What an acquirer still has to bring to an end."""

    pending_requests: int
    pending_reversals: int


def open_work(connection: Connection) -> OpenWork:
    """Requests without an answer, and reversals that their issuer hasn't acknowledged."""
    requests = text(
        "SELECT count(*) FROM open_batches AS b, unnest(b.keys, b.dates) AS k (key, day)"
        " WHERE NOT EXISTS (SELECT FROM authorization_answers AS a"
        " WHERE a.idempotency_key = k.key AND a.business_date = k.day)"
    )
    reversals = (
        select(func.count()).select_from(reversal_queue).where(reversal_queue.c.done_ms.is_(None))
    )
    return OpenWork(
        connection.execute(requests).scalar_one(), connection.execute(reversals).scalar_one()
    )


def queued_reversal(connection: Connection, original_txid: bytes) -> Row | None:
    """The store-and-forward entry that reverses a transaction; None if there is none."""
    return _first(
        connection, select(*reversal_queue.c).where(reversal_queue.c.original_txid == original_txid)
    )


def chip_slip(connection: Connection, txid: bytes) -> ChipSlip | None:
    """What the receipt of a chip's transaction tells; None if no chip was read."""
    row = connection.execute(
        text(
            "SELECT aid, label, kind, cryptogram, atc, cvm_results FROM chip_slips"
            " WHERE txid = :txid"
        ),
        {"txid": txid},
    ).first()
    if row is None:
        return None
    return ChipSlip(
        bytes(row.aid),
        row.label,
        CryptogramType(row.kind),
        bytes(row.cryptogram),
        row.atc,
        bytes(row.cvm_results),
    )


def requested_amount(connection: Connection, txid: bytes) -> int | None:
    """What was asked for (minor units) where less was approved; None: all was, or nothing."""
    found = connection.execute(
        text("SELECT requested FROM partial_approvals WHERE txid = :txid"), {"txid": txid}
    ).scalar()
    return None if found is None else int(found)


def stood_in_ms(connection: Connection, txid: bytes) -> int | None:
    """When the acquirer approved a purchase in its issuer's place; None: it didn't."""
    found = connection.execute(
        text("SELECT at_ms FROM stand_ins WHERE txid = :txid"), {"txid": txid}
    ).scalar()
    return None if found is None else int(found)


# -- accounts


def snapshots(connection: Connection, account_ids: Sequence[int]) -> dict[int, Account]:
    """Card accounts as of their last version; ids of other ledger accounts are left out.

    Of an account without a version only the main purse is shown: the others are opened with its
    first decision.
    """
    found = connection.execute(
        text(
            "SELECT a.account_id, a.currency, v.state FROM accounts AS a LEFT JOIN LATERAL"
            " (SELECT state FROM account_versions AS v WHERE v.account_id = a.account_id"
            " AND v.line = 0 ORDER BY version DESC LIMIT 1) AS v ON true"
            " WHERE a.account_id = ANY(:accounts) AND a.kind = 'cardholder'"
            " AND EXISTS (SELECT FROM cards AS c WHERE c.account_id = a.account_id)"
        ),
        {"accounts": list(account_ids)},
    ).all()
    new = [account_id for account_id, _, state in found if state is None]
    statuses: dict[int, dict[int, str]] = {account_id: {} for account_id in new}
    for account_id, card_id, status in connection.execute(
        text("SELECT account_id, card_id, status FROM cards WHERE account_id = ANY(:accounts)"),
        {"accounts": new},
    ):
        statuses[account_id][card_id] = status
    return {
        account_id: _ACCOUNT.decode(state)
        if state is not None
        else rules.first_snapshot(
            account_id, currency, ((account_id, "main"),), statuses[account_id]
        )
        for account_id, currency, state in found
    }


def card_accounts_of(connection: Connection, purse_accounts: Sequence[int]) -> dict[int, int]:
    """Card accounts by the ledger accounts of their purses (the main purse is the account)."""
    rows = connection.execute(
        text(
            "SELECT p.account_id, m.account_id FROM accounts AS p JOIN accounts AS m"
            " ON m.kind = 'cardholder' AND m.owner = split_part(p.owner, '/', 1)"
            " AND m.currency = p.currency"
            " WHERE p.account_id = ANY(:purses) AND p.kind = 'cardholder'"
        ),
        {"purses": list(purse_accounts)},
    ).all()
    return {row[0]: row[1] for row in rows}


def purses(connection: Connection, purse_accounts: Sequence[int]) -> dict[int, Purse]:
    """Cardholders' ledger accounts as they are now, by id."""
    owners = card_accounts_of(connection, purse_accounts)
    known = snapshots(connection, sorted(set(owners.values())))
    return {purse.account_id: purse for account in known.values() for purse in account.purses}


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an account; `transaction` has txid, kind, outcome and amount, or is None."""

    state: Account
    detail: Detail
    at_ms: int
    transaction: Row | None


def versions_of(
    connection: Connection, account_id: int, *, limit: int, before: int | None = None
) -> list[Version]:
    """An account's history, the newest first; `before`: only smaller versions (the next page)."""
    rows = connection.execute(
        text(
            "SELECT v.state, v.detail, v.at_ms, t.txid, t.kind, t.outcome, t.amount,"
            " t.merchant_name"
            " FROM account_versions AS v LEFT JOIN transactions AS t USING (transaction_id)"
            " WHERE v.account_id = :account AND v.line = 0"
            " AND (CAST(:before AS bigint) IS NULL OR v.version < :before)"
            " ORDER BY v.version DESC LIMIT :limit"
        ),
        {"account": account_id, "before": before, "limit": limit},
    ).mappings()
    return [
        Version(
            _ACCOUNT.decode(row["state"]),
            _DETAIL.decode(row["detail"]),
            row["at_ms"],
            dict(row) if row["txid"] is not None else None,
        )
        for row in rows
    ]


def version_by(connection: Connection, transaction_id: int) -> Version | None:
    """The payer's version that a transaction in the issuer's books made; None if there is none."""
    row = connection.execute(
        text(
            "SELECT v.state, v.detail, v.at_ms FROM transactions AS t JOIN account_versions AS v"
            " ON v.account_id = t.account_id AND v.version = t.account_version AND v.line = 0"
            " WHERE t.transaction_id = :number"
        ),
        {"number": transaction_id},
    ).first()
    if row is None:
        return None
    return Version(_ACCOUNT.decode(row.state), _DETAIL.decode(row.detail), row.at_ms, None)


def progress_of(connection: Connection, txid: bytes) -> Progress | None:
    """What became of a transaction since; None if nothing did."""
    row = connection.execute(
        text(
            "SELECT authorized, captured, refunded, reversed, ended FROM payment_progress"
            " WHERE txid = :txid ORDER BY version DESC LIMIT 1"
        ),
        {"txid": txid},
    ).first()
    return None if row is None else Progress(*row)


# -- products, rules, adjustments


def find_products(
    connection: Connection, now_ms: int, *, limit: int, after: str | None = None
) -> list[Row]:
    """Products in the order of their ids, with the version in force; `terms` is controls.Terms."""
    found = func.products_at(now_ms).table_valued(*product_columns)
    query = select(*found.c).order_by(found.c.product_id).limit(limit)
    if after is not None:
        query = query.where(found.c.product_id > after)
    return [
        row | {"terms": msgspec.convert(row["terms"], Terms)} for row in _rows(connection, query)
    ]


def product(connection: Connection, product_id: str, now_ms: int) -> Row | None:
    """One product, with the version in force."""
    found = func.products_at(now_ms).table_valued(*product_columns)
    row = _first(connection, select(*found.c).where(found.c.product_id == product_id))
    return None if row is None else row | {"terms": msgspec.convert(row["terms"], Terms)}


def find_terms(
    connection: Connection, product_id: str, *, limit: int, before: int | None = None
) -> list[Row]:
    """A product's later terms, the newest first; `terms` is controls.Terms."""
    columns = product_terms.c
    query = (
        select(*columns)
        .where(columns.product_id == product_id)
        .order_by(columns.version.desc())
        .limit(limit)
    )
    if before is not None:
        query = query.where(columns.version < before)
    return [
        row | {"terms": msgspec.convert(row["terms"], Terms)} for row in _rows(connection, query)
    ]


def find_rules(
    connection: Connection,
    *,
    limit: int,
    after: str | None = None,
    scope: str | None = None,
    subject: str | None = None,
) -> list[Row]:
    """Rules in the order of their ids, ended ones too; `rule` is controls.Rule."""
    query = select(*spend_rules.c).order_by(spend_rules.c.rule_id).limit(limit)
    for column, wanted in ((spend_rules.c.scope, scope), (spend_rules.c.subject, subject)):
        if wanted is not None:
            query = query.where(column == wanted)
    if after is not None:
        query = query.where(spend_rules.c.rule_id > after)
    return [_with_rule(row) for row in _rows(connection, query)]


def spend_rule(connection: Connection, rule_id: str) -> Row | None:
    """One rule."""
    row = _first(connection, select(*spend_rules.c).where(spend_rules.c.rule_id == rule_id))
    return None if row is None else _with_rule(row)


def rules_on(connection: Connection, account_id: int) -> list[Row]:
    """The rules of an account, its cards and its product, by id."""
    rows = connection.execute(
        text(
            "SELECT r.* FROM spend_rules AS r WHERE (r.scope = 'account' AND r.subject = :subject)"
            " OR EXISTS (SELECT FROM cards AS c WHERE c.account_id = :account"
            " AND ((r.scope = 'product' AND r.subject = c.product_id)"
            " OR (r.scope = 'card' AND r.subject = encode(c.card_token, 'hex'))))"
            " ORDER BY r.rule_id"
        ),
        {"account": account_id, "subject": str(account_id)},
    ).mappings()
    return [_with_rule(dict(row)) for row in rows]


def _with_rule(row: dict[str, Any]) -> Row:
    rule = msgspec.convert(row["definition"], Rule)
    rule = msgspec.structs.replace(rule, effective_to_ms=row["effective_to_ms"])
    return row | {"rule": rule}


def find_adjustments(
    connection: Connection,
    *,
    limit: int,
    before: int | None = None,
    state: str | None = None,
    account_id: int | None = None,
) -> list[Row]:
    """Adjustments, the newest first; `before`: only smaller ids (the next page)."""
    query = select(*adjustments.c).order_by(adjustments.c.adjustment_id.desc()).limit(limit)
    if before is not None:
        query = query.where(adjustments.c.adjustment_id < before)
    if state is not None:
        query = query.where(adjustments.c.state == state)
    if account_id is not None:
        query = query.where(adjustments.c.account_id == account_id)
    return list(_rows(connection, query))


def adjustment(connection: Connection, adjustment_id: int) -> Row | None:
    """One adjustment."""
    return _first(
        connection, select(*adjustments.c).where(adjustments.c.adjustment_id == adjustment_id)
    )


def find_disputes(
    connection: Connection,
    *,
    limit: int,
    before: int | None = None,
    account_id: int | None = None,
    txid: bytes | None = None,
    is_open: bool | None = None,
    dispute_id: int | None = None,
) -> list[Row]:
    """Disputes, the newest first; `before`: only smaller ids (the next page)."""
    query = select(*disputes.c).order_by(disputes.c.dispute_id.desc()).limit(limit)
    if before is not None:
        query = query.where(disputes.c.dispute_id < before)
    if account_id is not None:
        query = query.where(disputes.c.account_id == account_id)
    if txid is not None:
        query = query.where(disputes.c.txid == txid)
    if is_open is not None:
        query = query.where(disputes.c.closed_at.is_(None) == is_open)
    if dispute_id is not None:
        query = query.where(disputes.c.dispute_id == dispute_id)
    return list(_rows(connection, query))


# -- history for back-tests


class _Channel(msgspec.Struct, frozen=True):
    """Of a version's detail only the channel."""

    channel: str = "pos"


_CHANNEL = msgspec.msgpack.Decoder(_Channel)
_PAST = (
    "SELECT t.transaction_id, t.decided_ms, t.account_id, t.txid, t.kind, t.amount, t.mcc,"
    " t.merchant_id, t.country, t.entry_mode, v.detail FROM transactions AS t"
    " LEFT JOIN account_versions AS v ON v.account_id = t.shard AND v.version = t.account_version"
    " AND v.line = 0 WHERE t.side = 'issuer' AND t.outcome = 'approved'"
    " AND t.account_id IS NOT NULL AND t.transaction_id > :after AND t.kind = ANY(:kinds)"
    " AND t.decided_ms >= :from_ms"
)
_PAST_OF_PRODUCT = (
    " AND EXISTS (SELECT FROM cards AS c WHERE c.account_id = t.account_id"
    " AND c.product_id = :subject)"
)
_PAST_OF = {
    "product": _PAST_OF_PRODUCT,
    "account": " AND t.account_id = CAST(:subject AS bigint)",
    "card": " AND t.card_token = decode(:subject, 'hex')",
}


def past_payments(
    connection: Connection,
    scope: str,
    subject: str,
    kinds: Sequence[str],
    *,
    from_ms: int,
    after: int,
    limit: int,
) -> list[tuple[int, Past]]:
    """Approved payments that a rule of this scope would have looked at, in the order of their ids.

    With the id, to go on `after` it. `from_ms` bounds the moment of decision.
    """
    rows = connection.execute(
        text(_PAST + _PAST_OF[scope] + " ORDER BY t.transaction_id LIMIT :limit"),
        {
            "after": after,
            "kinds": list(kinds),
            "from_ms": from_ms,
            "subject": subject,
            "limit": limit,
        },
    ).all()
    return [
        (
            row.transaction_id,
            Past(
                at_ms=row.decided_ms,
                stream=row.account_id,
                txid=row.txid,
                kind=Kind(row.kind),
                amount=row.amount,
                mcc=row.mcc,
                merchant_id=row.merchant_id,
                country=row.country,
                channel=_CHANNEL.decode(row.detail).channel if row.detail else "pos",
                entry_mode=row.entry_mode,
            ),
        )
        for row in rows
    ]


def _rows(connection: Connection, query: Select[Any]) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(query).mappings()]


def _first(connection: Connection, query: Select[Any]) -> dict[str, Any] | None:
    row = connection.execute(query).mappings().first()
    return None if row is None else dict(row)
