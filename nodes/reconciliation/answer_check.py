"""Issuers' signatures over their answers, as an acquirer keeps them: which row of
answer_signatures was changed, taken out or put in.

They are in no leaf: each is judged by the issuer's key over what its transaction's leaf says. A row
that isn't as its leaf has it is named by the other checks, and not once more here; nor is an answer
that unsigned_answers has, which is a known break.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from nodes import ids
from nodes.anchoring.leaf import decode_leaf
from nodes.anchoring.store import Connection
from nodes.authorization.operations.checking import unsigned_rows
from nodes.authorization.store.answers import SignedRow
from nodes.reconciliation.findings import Change, Report

#: Message keys of a member, the present one first; none: it isn't known, and isn't judged.
MessageKeys = Callable[[str], Sequence[bytes]]
_TABLE = "answer_signatures"
_COMMITS = 200
_KEPT = (
    "WITH taken AS MATERIALIZED (SELECT first_id, transaction_ids, shares FROM answer_signatures"
    " WHERE first_id > %s ORDER BY first_id LIMIT %s)"
    " SELECT s.first_id, u.transaction_id, u.share, t.side, t.acquirer, t.issuer, t.txid,"
    " t.commitment, t.pair_seq, l.leaf, n.txid IS NOT NULL FROM taken AS s"
    " CROSS JOIN LATERAL unnest(s.transaction_ids, s.shares) AS u (transaction_id, share)"
    " LEFT JOIN transactions AS t ON t.transaction_id = u.transaction_id"
    " LEFT JOIN log_leaves AS l ON l.transaction_id = u.transaction_id"
    " LEFT JOIN unsigned_answers AS n ON n.txid = t.txid ORDER BY s.first_id, u.transaction_id"
)
#: Once some were checked, each anchored answer of another institution has one or is noted.
_LACKING = (
    "SELECT NULL::bigint, t.transaction_id, NULL::bytea, t.side, t.acquirer, t.issuer, t.txid,"
    " t.commitment, t.pair_seq, l.leaf, false FROM transactions AS t"
    " JOIN log_leaves AS l USING (transaction_id)"
    " LEFT JOIN (SELECT DISTINCT unnest(transaction_ids) AS transaction_id"
    " FROM answer_signatures) AS k USING (transaction_id)"
    " LEFT JOIN unsigned_answers AS n ON n.txid = t.txid"
    " WHERE t.side = 'acquirer' AND t.pair_seq > 0 AND t.issuer <> t.acquirer"
    " AND k.transaction_id IS NULL AND n.txid IS NULL"
    " AND (SELECT next_xact <> '0'::xid8 FROM answer_checks) ORDER BY t.transaction_id"
)


class _Kept(NamedTuple):
    """A share with its transaction; None where there is no such part."""

    first_id: int | None
    transaction_id: int | None
    share: bytes | None
    side: str | None
    acquirer: str
    issuer: str
    txid: bytes
    commitment: bytes
    pair_seq: int
    leaf: bytes | None
    noted: bool

    @property
    def key(self) -> dict[str, object]:
        """What names it in a finding."""
        return {"first_id": self.first_id, "transaction_id": self.transaction_id}

    @property
    def is_as_anchored(self) -> bool:
        """Whether the transaction says of itself what its leaf says; so without a leaf."""
        if self.leaf is None:
            return True
        try:
            leaf = decode_leaf(self.leaf)
            pair = ids.pair_id(self.acquirer, self.issuer)
        except ValueError:
            return False
        said = (self.side, self.txid, self.commitment, self.pair_seq, pair)
        return said == (leaf.kind.side, leaf.txid, leaf.commitment, leaf.pair_seq, leaf.pair_id)


def check_answers(connection: Connection, keys: MessageKeys, report: Report) -> None:
    """Note every kept signature that doesn't hold, that lacks, or that belongs to nothing."""
    known: dict[str, Sequence[bytes]] = {}

    def keys_of(issuer: str) -> Sequence[bytes]:
        if issuer not in known:
            known[issuer] = keys(issuer)
        return known[issuer]

    for page in _pages(connection):
        judged = {}
        for kept in page:
            if kept.transaction_id is None or kept.share is None:
                detail = "not as many signatures as transactions"
                report.add(_TABLE, {"first_id": kept.first_id}, Change.ALTERED, None, detail)
            elif kept.side is None:
                if kept.leaf is None:
                    report.add(_TABLE, kept.key, Change.INSERTED, None, "there is no transaction")
            elif not kept.noted and kept.is_as_anchored and keys_of(kept.issuer):
                judged[kept.txid] = kept
        for txid in unsigned_rows([_signed(kept) for kept in judged.values()], keys_of):
            report.add(_TABLE, judged[txid].key, Change.ALTERED, "shares")
    for kept in map(_Kept._make, connection.execute(_LACKING)):
        if kept.is_as_anchored:
            key = {"transaction_id": kept.transaction_id}
            report.add(_TABLE, key, Change.MISSING, None, "the issuer's signature is gone")


def _pages(connection: Connection) -> Iterator[list[_Kept]]:
    after: Any = -1
    while True:
        page = list(map(_Kept._make, connection.execute(_KEPT, (after, _COMMITS))))
        if not page:
            return
        after = page[-1].first_id
        yield page


def _signed(kept: _Kept) -> SignedRow:
    assert kept.share is not None
    return SignedRow(0, kept.issuer, kept.txid, kept.commitment, kept.pair_seq, kept.share)
