"""What the databases say before and after: whether anything changed, or stands twice."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping

import psycopg

from nodes.db.engine import make_engine
from nodes.reconciliation.invariants import check_invariants
from sandbox.enrolled import MERCHANT
from sandbox.launcher import Running
from sandbox.network import ACQUIRER, MEMBERS

#: Who holds what a message could change.
HOLDERS = ("meridian", "aurora", "borealis")

#: How far the worker has looked for days to close, and when it last asked for the hotlists: it does
#: both whether anything comes or not. What is on a hotlist stands in a table of its own.
_WORKERS_OWN = ("close_scan", "settlement_scan", "hotlist_copies")
_SIGHTED_WITHIN_S = 60.0

#: A terminal's message that was recorded more than once, and one that moved money twice.
_DOUBLES = (
    "SELECT count(*) FROM (SELECT 1 FROM transactions WHERE merchant_id = %(merchant)s"
    " AND side = %(side)s GROUP BY terminal_id, business_date, batch, stan, kind"
    " HAVING count(*) > 1) AS twice",
    "SELECT count(*) FROM (SELECT 1 FROM transactions AS t JOIN transfers AS f USING"
    " (transaction_id) WHERE t.merchant_id = %(merchant)s AND t.side = %(side)s"
    " AND t.outcome = 'approved' AND t.kind = 'purchase' GROUP BY t.txid HAVING count(*) > 1)"
    " AS twice",
    "SELECT count(*) FROM (SELECT 1 FROM transactions AS r WHERE r.merchant_id = %(merchant)s"
    " AND r.side = %(side)s AND r.kind = 'reversal' AND r.outcome = 'approved' AND r.amount > 0"
    " GROUP BY r.original_txid HAVING count(*) > 1) AS twice",
)


def await_sighted(network: Running, sign_ons: Mapping[str, int]) -> None:
    """Until the gateway has told its acquirer of these sign-ons, by terminal (ms since 1970).

    It tells some seconds later: a sign-on before the campaign is no change by the campaign.
    """
    deadline = time.monotonic() + _SIGHTED_WITHIN_S
    with psycopg.connect(network.network.postgres.superuser_dsn(ACQUIRER), autocommit=True) as link:
        while True:
            rows = link.execute(
                "SELECT terminal_id, coalesce(last_sign_on_ms, 0) FROM terminal_sightings"
            ).fetchall()
            told: dict[str, int] = dict(rows)
            if all(told.get(name, 0) >= moment for name, moment in sign_ons.items()):
                return
            if time.monotonic() > deadline:
                raise RuntimeError("the gateway hasn't told its acquirer who signed on")
            time.sleep(0.5)


def state_of(network: Running) -> dict[str, str]:
    """A hash of each table of each database that a terminal's message may change."""
    found: dict[str, str] = {}
    for member in HOLDERS:
        with psycopg.connect(network.network.postgres.superuser_dsn(member)) as connection:
            tables = connection.execute(
                "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace ="
                " 'public'::regnamespace AND relname <> ALL(%s) ORDER BY 1",
                (list(_WORKERS_OWN),),
            ).fetchall()
            for (table,) in tables:
                rows = connection.execute(f'SELECT t::text FROM "{table}" AS t ORDER BY 1')
                digest = hashlib.sha256()
                for (row,) in rows:
                    digest.update(row.encode() + b"\n")
                found[f"{member}.{table}"] = digest.hexdigest()
    return found


def doubles(network: Running) -> list[str]:
    """What stands twice, and every invariant that is violated."""
    found: list[str] = []
    for member, side in (("meridian", "acquirer"), ("aurora", "issuer")):
        with psycopg.connect(network.network.postgres.superuser_dsn(member)) as connection:
            for query in _DOUBLES:
                values = {"merchant": MERCHANT, "side": side}
                row = connection.execute(query, values).fetchone()
                found += [f"{member}: {query.split('AS')[0][:60]}"] * (int(row[0]) if row else 0)
    for plan in MEMBERS:
        engine = make_engine(network.network.dsn(plan.member_id, "worker"))
        try:
            found += [f"{plan.member_id}: {violation}" for violation in check_invariants(engine)]
        finally:
            engine.dispose()
    return found
