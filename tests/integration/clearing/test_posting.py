"""Closes on the chain: each step once, whatever breaks on the way."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from nodes.clearing import day_queries, queries
from nodes.clearing.model import CloseStage, DayKey
from nodes.clearing.operations.posting import CloseFenced, PostingContext, post_closes
from nodes.clock import to_datetime
from nodes.db.engine import transaction
from nodes.ledger.store import first_id_at
from tests.integration.clearing.institutions import DAY, KEY, Institution, Pair


def context(one: Institution) -> PostingContext:
    made = one.jobs._posting
    assert made is not None
    return made


def outbox(one: Institution) -> list[tuple[Any, ...]]:
    return one.rows("SELECT purpose, state, nonce, raw_tx FROM chain_outbox ORDER BY nonce")


class Crash(Exception):
    """The process ends here."""


class DyingClient:
    """A client that dies before, or after, a transaction has gone out."""

    def __init__(self, real: Any, *, sends: bool) -> None:
        self._real = real
        self._sends = sends

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def send_raw(self, raw: bytes) -> bytes:
        if self._sends:
            self._real.send_raw(raw)
        raise Crash


@pytest.mark.parametrize("sends", [False, True])
def test_a_crash_around_the_broadcast_leads_to_one_transaction(pair: Pair, sends: bool) -> None:
    pair.both(4)
    for one in (pair.acquirer, pair.issuer):
        one.jobs.close()
    dying = replace(
        context(pair.acquirer),
        client=DyingClient(context(pair.acquirer).client, sends=sends),  # type: ignore[arg-type]
    )
    with pytest.raises(Crash):
        post_closes(dying)
    [(purpose, state, nonce, raw)] = outbox(pair.acquirer)
    assert (purpose, state) == ("close-commit", "SUBMITTED")
    pair.work()
    assert pair.acquirer.stage() is CloseStage.CONFIRMED
    assert outbox(pair.acquirer)[0] == ("close-commit", "DONE", nonce, raw)
    assert len(outbox(pair.acquirer)) == 2


def test_nothing_is_revealed_before_both_have_committed(pair: Pair) -> None:
    pair.both(4)
    for _ in range(4):
        pair.acquirer.jobs.close()
        pair.acquirer.jobs.post()
    assert pair.acquirer.stage() is CloseStage.COMMITTED
    assert pair.round().acquirer.close_root is None
    assert [row[0] for row in outbox(pair.acquirer)] == ["close-commit"]
    pair.work()
    assert pair.issuer.stage() is CloseStage.CONFIRMED


def test_who_has_nothing_of_a_day_closes_it_empty_once_the_other_has_opened_it(pair: Pair) -> None:
    mine, _ = pair.pair()
    pair.acquirer.write(mine)
    pair.work()
    assert pair.issuer.stage() is CloseStage.BROKEN
    [(count, root)] = pair.issuer.rows("SELECT item_count, encode(close_root, 'hex') FROM closes")
    assert (count, root[:8]) == (0, "e3b0c442")  # SHA-256 of nothing
    assert [file.found["kind"] for file in pair.issuer.cases()] == ["MISSING_AT_ISSUER"]


def test_a_day_is_not_closed_before_its_end_and_grace_in_the_networks_time_zone(pair: Pair) -> None:
    from nodes.clearing.operations.closing import ClosingTerms
    from nodes.clearing.rules.closing import day_end_ms, newest_closable

    end = day_end_ms(DAY, "Asia/Shanghai")
    assert newest_closable(end + 1_799_999, "Asia/Shanghai", 1800) == DAY - timedelta(days=1)
    assert newest_closable(end + 1_800_000, "Asia/Shanghai", 1800) == DAY
    assert ClosingTerms("Asia/Shanghai").grace_s == 1800
    pair.both(2)
    now = pair.clock.now_ms()
    pair.clock.ahead_ms = end + 1_700_000 - now
    assert pair.acquirer.jobs.close() == 0
    pair.clock.ahead_ms += 200_000
    assert pair.acquirer.jobs.close() == 1


def test_a_row_that_comes_after_the_close_is_in_the_next_revision(pair: Pair) -> None:
    pair.both(5)
    pair.work()
    pair.both(2)
    pair.work(20)
    for one in (pair.acquirer, pair.issuer):
        assert (one.stage(0), one.stage(1)) == (CloseStage.SUPERSEDED, CloseStage.CONFIRMED)
        counts = one.rows("SELECT item_count FROM closes ORDER BY revision")
        assert counts == [(5,), (7,)]


def test_currencies_and_dates_are_closed_apart(pair: Pair) -> None:
    pair.both(3)
    pair.both(2, business_date=DAY - timedelta(days=1))
    pair.work()
    other = DayKey(KEY.acquirer, KEY.issuer, "CNY", DAY - timedelta(days=1))
    assert pair.round(0, other).state.name == pair.round().state.name == "CONFIRMED"
    assert pair.acquirer.cases() == []


def test_closes_count_the_nonces_of_anchors_that_are_on_their_way(pair: Pair) -> None:
    pair.both(1)
    pair.acquirer.jobs.close()
    real = context(pair.acquirer)
    nonce = real.client.nonce(real.signer.address)
    with psycopg.connect(pair.acquirer.database.owner_dsn, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO batches VALUES (1, 0, 1, 1, decode(repeat('00', 32), 'hex'),"
            " decode(repeat('00', 32), 'hex'), '', '', '1', 1, now())"
        )
        connection.execute(
            "INSERT INTO anchor_submissions (seq, state, nonce, tx_hash, raw_tx, submitted_at)"
            " VALUES (1, 'SUBMITTED', %s, decode(repeat('00', 32), 'hex'), '', now())",
            (nonce,),
        )
    post_closes(real)
    assert [row[2] for row in outbox(pair.acquirer)] == [nonce + 1]


def test_a_database_that_was_restored_does_not_go_on_with_another_commitment(pair: Pair) -> None:
    pair.both(1)
    pair.acquirer.jobs.close()
    post_closes(context(pair.acquirer))
    post_closes(context(pair.acquirer))
    with psycopg.connect(pair.acquirer.database.owner_dsn, autocommit=True) as connection:
        connection.execute("ALTER TABLE closes DISABLE TRIGGER USER")
        connection.execute("UPDATE closes SET blind = decode(repeat('11', 32), 'hex')")
    with pytest.raises(CloseFenced, match="another commitment is posted"):
        post_closes(context(pair.acquirer))


#: What the tables refuse, whoever tries, and why.
REFUSED = [
    ("UPDATE closes SET debits = 0", "append-only"),
    ("DELETE FROM close_stages", "append-only"),
    (
        "INSERT INTO close_stages VALUES (1, 'SUPERSEDED', now()), (1, 'REVEALED', now())",
        "does not follow",
    ),
    (
        "INSERT INTO close_stages VALUES (1, 'BROKEN', now(), decode(repeat('00', 32), 'hex'),"
        " decode(repeat('00', 32), 'hex'))",
        "does not follow",
    ),
    (
        "INSERT INTO closes (acquirer, issuer, currency, business_date, revision, party,"
        " horizon, item_count, debits, credits, close_root, totals_hash, blind, after_pair_seq,"
        " last_pair_seq, closed_at) SELECT acquirer, issuer, currency, business_date, 1, party,"
        " horizon, 0, 0, 0, close_root, totals_hash, blind, 0, 0, now() FROM closes",
        "no judged predecessor",
    ),
]


def test_the_database_refuses_what_cant_be(pair: Pair) -> None:
    pair.both(1)
    pair.acquirer.jobs.close()
    for statement, why in REFUSED:
        with psycopg.connect(pair.acquirer.database.owner_dsn) as connection:
            with pytest.raises(psycopg.Error, match=why):
                connection.execute(statement)


def test_the_database_lets_nobody_countersign_an_own_proposal(pair: Pair) -> None:
    mine, _ = pair.pair()
    pair.acquirer.write(mine)
    pair.work()
    event = (
        "INSERT INTO case_events (break_ref, number, step, state, member, actor, resolution, note,"
        " at) SELECT break_ref, {n}, '{step}', '{step}', '{who}', 'x', {how}, 'x', now()"
        " FROM breaks"
    )
    proposed = event.format(n=2, step="proposed", who="meridian", how="'TAKE_ISSUER'")
    own = event.format(n=3, step="countersigned", who="meridian", how="NULL")
    with psycopg.connect(pair.acquirer.database.owner_dsn, autocommit=True) as connection:
        connection.execute(proposed)
        with pytest.raises(psycopg.Error, match="whoever proposes does not countersign"):
            connection.execute(own)
        with pytest.raises(psycopg.Error, match="does not follow"):
            connection.execute(event.format(n=3, step="corrected", who="aurora", how="NULL"))
        connection.execute(own.replace("meridian", "aurora"))


def test_effects_are_alike_in_sql_and_in_python(pair: Pair) -> None:
    from nodes.authorization.model import Kind, Outcome
    from nodes.clearing.rules.closing import effect

    made: dict[bytes, tuple[str, str]] = {}
    originals = [None, b"n" * 32]
    for kind in ("purchase", "refund", "authorization", "capture"):
        for outcome in (Outcome.APPROVED, Outcome.AMOUNT_LIMIT):
            mine, _ = pair.pair(kind=kind, outcome=outcome.value, original_txid=None)
            pair.acquirer.write(mine)
            made[mine.txid] = (kind, outcome.value)
            originals.append(mine.txid)
    for kind in day_queries.KINDS:
        for original in originals:
            outcome = Outcome.APPROVED.value
            mine, _ = pair.pair(kind=Kind(kind).value, outcome=outcome, original_txid=original)
            pair.acquirer.write(mine)
    with transaction(pair.acquirer.database.engine) as connection:
        everything = [row[0] for row in connection.execute("SELECT txid FROM transactions")]
        rows = day_queries.rows_of(connection, KEY, "acquirer", everything)
    assert len(rows) > 80
    for row in rows:
        original = made.get(row["original_txid"] or b"")
        assert row["effect"] == effect(row["kind"], row["outcome"], row["amount"], original)


def test_a_closes_items_are_kept_until_it_is_judged_and_are_the_rows(pair: Pair) -> None:
    pair.both(20)
    pair.issuer.jobs.close()
    with transaction(pair.issuer.database.engine) as connection:
        staged = queries.close_of(connection, KEY, 0)
        assert staged is not None
        [(kept,)] = connection.execute("SELECT items FROM close_items").fetchall()
        assert day_queries.day_items(connection, staged.close).blob == kept
        assert day_queries.kept_items(connection, staged.close).blob == kept
    pair.work()
    pair.issuer.jobs.close()
    with transaction(pair.issuer.database.engine) as connection:
        assert connection.execute("SELECT count(*) FROM close_items").fetchone() == (0,)
        assert day_queries.kept_items(connection, staged.close).blob == kept


def test_a_day_whose_rows_still_come_in_waits_some_seconds(pair: Pair) -> None:
    """Told by the rows' ids, which are in the order of time."""
    today = to_datetime(pair.clock.now_ms()).date() - timedelta(days=1)
    pair.clock.ahead_ms = 86_400_000
    recent = first_id_at(pair.clock.now_ms()) + 1
    mine, _ = pair.pair(business_date=today, transaction_id=recent)
    pair.acquirer.write(mine)
    assert pair.acquirer.jobs.close() == 0
    pair.clock.ahead_ms += 9_000
    assert pair.acquirer.jobs.close() == 1
