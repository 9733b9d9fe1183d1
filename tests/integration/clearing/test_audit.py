"""The auditor's command over two institutions: complete days pass, and each lack has its name."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner, Result

from nodes.anchoring.model import LogIdentity
from nodes.anchoring.note import NoteSigner
from nodes.anchoring.operations import AnchorContext
from nodes.anchoring.operations.event_sealing import seal_events
from nodes.anchoring.operations.promising import promise_transaction
from nodes.chain.anchors import AnchorRegistry
from nodes.clock import FixedClock
from sandbox.cli import make_app
from tests.factories.evidence import LogMember
from tests.factories.ledger import ACQUIRER, ISSUER, START_MS
from tests.factories.receipts import make_promising
from tests.integration.clearing.institutions import Institution, Pair


def log_of(pair: Pair, one: Institution) -> LogMember:
    """An institution's log and its place on the chain."""
    chain, client = pair.chain, pair.chain.client()
    signer, clock = NoteSigner(one.member_id.ljust(32, "x").encode()), FixedClock(START_MS)
    context = AnchorContext(
        engine=one.database.engine,
        identity=LogIdentity(one.member_id, chain.chain_id, chain.anchor_registry),
        client=client,
        registry=AnchorRegistry(client, chain.anchor_registry),
        signer=chain.operators[one.member_id],
        clock=clock,
    )
    return LogMember(one.database, chain, context, signer, clock)


def anchor_both(pair: Pair) -> tuple[LogMember, LogMember]:
    logs = log_of(pair, pair.acquirer), log_of(pair, pair.issuer)
    for log in logs:
        log.anchor_all()
    return logs


def run(pair: Pair, *more: str) -> Result:
    chain = pair.chain
    return CliRunner().invoke(
        make_app(),
        [
            *("audit", "--acquirer", ACQUIRER, "--issuer", ISSUER, "--rpc", chain.rpc_url),
            *("--acquirer-dsn", pair.acquirer.database.reader_dsn),
            *("--issuer-dsn", pair.issuer.database.reader_dsn),
            *("--anchor-registry", chain.anchor_registry),
            *("--close-registry", chain.close_registry),
            *("--omission-registry", chain.omission_registry, *more),
        ],
    )


def findings(pair: Pair, *more: str) -> set[str]:
    result = run(pair, "--json", "--grace-s", "0", *more)
    document = json.loads(result.stdout)
    assert result.exit_code == (0 if document["complete"] else 1)
    return {finding["lack"] for finding in document["findings"]}


@contextmanager
def owner_of(one: Institution) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """The owner, with no trigger in the way."""
    with psycopg.connect(one.database.admin_dsn) as connection:
        connection.execute("SET session_replication_role = replica")
        yield connection


def test_a_complete_day_passes_and_is_reported(pair: Pair, tmp_path: Path) -> None:
    pair.both(60)
    pair.work()
    acquirer, _ = anchor_both(pair)
    promising = make_promising(acquirer)
    txids = pair.acquirer.rows("SELECT txid FROM transactions ORDER BY transaction_id LIMIT 5")
    held = [
        promise_transaction(acquirer.database.engine, promising.promiser, txid) for (txid,) in txids
    ]
    file, report = tmp_path / "promises", tmp_path / "report.html"
    file.write_text("\n".join(f"http://x/r#{p.encode()}" for p in held if p) + "\n")
    result = run(pair, "--promises", str(file), "--report", str(report))
    assert result.exit_code == 0, result.output
    assert "COMPLETE" in result.stdout
    assert "1 confirmed on the chain, 1 hold" in result.stdout
    assert "5 kept" in result.stdout
    page = report.read_text()
    assert "COMPLETE" in page
    assert "<script" not in page
    assert run(pair, "--report", str(tmp_path / "report.pdf")).exit_code == 0
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF-")
    document = json.loads(run(pair, "--json").stdout)
    assert document["newest_pair_seq"] == 60
    assert [log["of_pair"] for log in document["logs"]] == [60, 60]
    assert document["signed"] == 60
    [(count, debits, credits)] = pair.acquirer.rows(
        "SELECT item_count, debits, credits FROM closes"
    )
    assert document["closes"][0]["totals"] == {
        "count": count,
        "debits": debits,
        "credits": credits,
    }


def test_how_a_close_went_stands_in_the_log(pair: Pair) -> None:
    pair.both(2)
    pair.work()
    acquirer = log_of(pair, pair.acquirer)
    identity = acquirer.context.identity
    assert seal_events(acquirer.database.engine, identity, acquirer.signer, acquirer.clock)
    found = pair.acquirer.rows(
        "SELECT action FROM events JOIN log_leaves ON transaction_id = -event_id"
        " WHERE kind = 'settlement' AND leaf_kind = 6 ORDER BY event_id"
    )
    assert [action for (action,) in found] == [
        f"close.{stage}" for stage in ("prepared", "committed", "revealed", "confirmed")
    ]


def test_a_transaction_that_one_side_lacks_is_named(pair: Pair) -> None:
    pair.both(5)
    mine, theirs = pair.pair()
    pair.acquirer.write(mine)
    anchor_both(pair)
    assert findings(pair) == {"MISSING_AT_ISSUER"}
    waiting = json.loads(run(pair, "--json").stdout)
    assert (waiting["complete"], waiting["waiting"]) == (True, 1)
    pair.issuer.write(theirs)
    pair.both(1)
    anchor_both(pair)
    assert findings(pair) == set()


def test_a_number_that_nobody_has_is_named(pair: Pair) -> None:
    pair.both(3)
    pair.pair()  # numbered, and written by neither
    pair.both(2)
    anchor_both(pair)
    assert findings(pair) == {"SEQ_GAP"}


def test_another_content_under_a_number_is_named(pair: Pair) -> None:
    from tests.integration.clearing.institutions import resealed

    pair.both(2)
    mine, theirs = pair.pair()
    pair.acquirer.write(mine)
    pair.issuer.write(resealed(theirs, amount=theirs.amount + 1))
    anchor_both(pair)
    assert findings(pair) == {"DIFFERENT_ENTRY"}


TAMPERED: list[tuple[str, set[str]]] = [
    ("UPDATE log_leaves SET leaf = set_byte(leaf, 200, 7) WHERE log_index = 3",
     {"LOG_NOT_AS_ANCHORED"}),
    ("DELETE FROM log_leaves WHERE log_index = 3",
     {"LOG_NOT_AS_ANCHORED"}),
    ("UPDATE transactions SET amount = amount + 1 WHERE transaction_id = (SELECT"
     " max(transaction_id) FROM transactions)", set()),
    ("UPDATE transactions SET commitment = sha256('x') WHERE transaction_id = (SELECT"
     " max(transaction_id) FROM transactions)", {"CLOSE_ROOT_MISMATCH"}),
    ("UPDATE transactions SET salt_fin = sha256('x') WHERE transaction_id = (SELECT"
     " max(transaction_id) FROM transactions)", {"TOTALS_MISMATCH"}),
    ("DELETE FROM closes", {"CLOSE_NOT_IN_BOOKS"}),
    ("DELETE FROM answer_signatures", {"UNSIGNED"}),
    ("UPDATE answer_signatures SET shares[3] = set_byte(shares[3], 5, get_byte(shares[3], 5) # 1)",
     {"UNSIGNED"}),
    ("UPDATE answer_signatures SET shares[3] = shares[4]", {"UNSIGNED"}),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "named"), TAMPERED)
def test_the_acquirers_books_are_not_believed(pair: Pair, statement: str, named: set[str]) -> None:
    """Where the acquirer's row doesn't lead to its C, the issuer's does: only totals of both would
    be lost."""
    pair.both(8)
    pair.work()
    anchor_both(pair)
    with owner_of(pair.acquirer) as owner:
        owner.execute(statement)
    assert findings(pair) == named


def test_rows_that_nobody_can_open_are_named(pair: Pair) -> None:
    pair.both(8)
    pair.work()
    anchor_both(pair)
    for one in (pair.acquirer, pair.issuer):
        with owner_of(one) as owner:
            owner.execute("UPDATE transactions SET amount = amount + 1")
    assert findings(pair) == {"OPENING_MISMATCH"}


def test_a_close_of_unanchored_transactions_is_named(pair: Pair) -> None:
    pair.both(4)
    pair.work()
    log_of(pair, pair.acquirer).anchor_all()
    assert "CLOSE_NOT_ANCHORED" in findings(pair)


@pytest.mark.parametrize("spoil", [None, lambda text: text[:-2] + "AA", lambda text: "nonsense"])
def test_promises_are_judged(
    pair: Pair, tmp_path: Path, spoil: Callable[[str], str] | None
) -> None:
    pair.both(2)
    acquirer = log_of(pair, pair.acquirer)
    promising = make_promising(acquirer, merge_delay_s=1)
    [(txid,)] = pair.acquirer.rows("SELECT txid FROM transactions LIMIT 1")
    promise = promise_transaction(acquirer.database.engine, promising.promiser, txid)
    assert promise is not None
    file, text = tmp_path / "promises", promise.encode()
    file.write_text(spoil(text) if spoil else text)
    time.sleep(2.1)
    expected = "PROMISE_INVALID" if spoil else "PROMISE_OVERDUE"
    assert findings(pair, "--promises", str(file)) == {expected}


def test_what_can_not_be_read_is_told(pair: Pair, tmp_path: Path) -> None:
    missing = run(pair, "--promises", str(tmp_path / "none"))
    assert missing.exit_code == 2
    away = run(pair, "--rpc", "http://127.0.0.1:1")
    assert away.exit_code == 2
