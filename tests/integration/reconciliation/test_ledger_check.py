"""verify-ledger: whatever an owner does to anchored data is found, and named by row and column."""

from __future__ import annotations

import random
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from psycopg import sql
from typer.testing import CliRunner

from nodes.anchoring import queries, rules, tree
from nodes.anchoring.chain_view import TrustedChain
from nodes.anchoring.checkpoint import Checkpoint
from nodes.anchoring.leaf import decode_leaf, encode_leaf
from nodes.anchoring.model import ROW_COLUMNS, TRANSFER_COLUMNS
from nodes.anchoring.note import NoteSigner
from nodes.anchoring.store import transaction
from nodes.chain.anchors import Anchored
from nodes.chain.deploy import rotate_key
from nodes.chain.directory import KeyPeriod
from nodes.crypto.merkle import leaf_hash, root_of
from nodes.db.engine import make_engine
from nodes.reconciliation.findings import Change, Report
from nodes.reconciliation.ledger_check import check_ledger, check_tables, read_anchors
from sandbox.cli import make_app
from tests.conftest import Cluster, NodeDatabase
from tests.factories.chain import ChainFixture
from tests.factories.evidence import LogMember, make_member
from tests.factories.ledger import LedgerFactory
from tests.factories.tampering import OTHER_VALUE, columns_of, unguarded


def check(member: LogMember) -> Report:
    """The whole check, as the command does it, with an auditor's login."""
    view = TrustedChain(member.chain.client(), member.chain.anchor_registry)
    auditor = make_engine(member.database.reader_dsn)
    try:
        return check_ledger(
            auditor,
            member.context.identity.origin,
            view.registry,
            view.note_keys(member.member_id),
        )
    finally:
        auditor.dispose()


@dataclass
class Case:
    """A member with three anchored batches of 7, 1 and 13 rows, and the chain's word on them."""

    member: LogMember
    anchors: dict[int, Anchored]
    note_keys: Sequence[KeyPeriod] = ()

    def check(self, owner: psycopg.Connection[Any]) -> Report:
        """What the check finds within the owner's transaction."""
        return check_tables(
            owner,
            self.member.context.identity.origin,
            self.anchors,
            self.note_keys or [KeyPeriod(self.member.signer.public_key, 0, None)],
        )


@pytest.fixture(scope="module")
def issuer(cluster: Cluster, log_chain: ChainFixture) -> Iterator[Case]:
    database = cluster.new_database()
    member = make_member(database, log_chain, ("issuer",))
    factory = LedgerFactory(database.engine, "issuer")
    for count in (7, 1, 13):
        factory.add(count)
        member.seal()
    assert member.settle() == 3
    yield Case(member, read_anchors(member.context.registry, member.member_id))
    cluster.drop(database)


def named(report: Report) -> set[tuple[str, str, str | None, str]]:
    return {(f.table, f.row, f.column, f.change.value) for f in report.findings}


@pytest.mark.parametrize("side", ["issuer", "acquirer", "merchant"])
def test_a_clean_ledger_raises_no_alarm(
    database: NodeDatabase, log_chain: ChainFixture, side: str
) -> None:
    member = make_member(database, log_chain, ("issuer",))
    factory = LedgerFactory(database.engine, side)  # type: ignore[arg-type]
    assert check(member).clean, "an empty database is clean"
    for count in (1, 2, 5, 16, 3):
        factory.add(count)
        member.seal(limit=4)
        assert check(member).clean, "sealed, not anchored"
    member.anchor_all()
    factory.add(4)
    report = check(member)
    assert report.findings == []
    assert (report.anchored_rows, report.sealed_rows, report.unsealed_rows) == (27, 27, 4)


def test_every_column_of_the_ledger_is_bound_by_a_hash(database: NodeDatabase) -> None:
    # The shard follows from account_id and txid, which are.
    assert tuple(columns_of(database, "transactions")) == (*ROW_COLUMNS, "shard")
    assert rules.uncovered_columns(ROW_COLUMNS) == set()
    assert set(columns_of(database, "transfers")) == {"transaction_id", *TRANSFER_COLUMNS, "shard"}


def change_one(
    owner: psycopg.Connection[Any], table: str, key: dict[str, object], column: str, kind: str
) -> None:
    """UPDATE one column of one row by the owner."""
    conditions = sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(name), sql.Literal(value))
        for name, value in key.items()
    )
    done = owner.execute(
        sql.SQL("UPDATE {} SET {} = {} WHERE {}").format(
            sql.Identifier(table),
            sql.Identifier(column),
            sql.SQL(OTHER_VALUE[kind].format(c=column)),
            conditions,
        )
    )
    assert done.rowcount == 1


@pytest.mark.parametrize("column", [*ROW_COLUMNS, "shard"])
def test_a_changed_column_of_a_transaction_is_named(issuer: Case, column: str) -> None:
    key: dict[str, object] = {"transaction_id": 5}
    with unguarded(issuer.member.database) as owner:
        change_one(owner, "transactions", key, column, _kinds(issuer, "transactions")[column])
        row = "transaction_id=1000005" if column == "transaction_id" else "transaction_id=5"
        assert named(issuer.check(owner)) == {("transactions", row, column, "altered")}


def _kinds(case: Case, table: str) -> dict[str, str]:
    return columns_of(case.member.database, table)


@pytest.mark.parametrize("column", ["transaction_id", *TRANSFER_COLUMNS, "shard"])
def test_a_changed_column_of_a_transfer_is_named(issuer: Case, column: str) -> None:
    number = _first_with_transfer(issuer)
    key: dict[str, object] = {"transaction_id": number, "line": 1}
    with unguarded(issuer.member.database) as owner:
        change_one(owner, "transfers", key, column, _kinds(issuer, "transfers")[column])
        if column == "transaction_id":
            key["transaction_id"] = number + 1_000_000
        if column == "line":
            key["line"] = 2
        row = f"transaction_id={key['transaction_id']}, line={key['line']}"
        assert named(issuer.check(owner)) == {("transfers", row, column, "altered")}


def _first_with_transfer(case: Case) -> int:
    with transaction(case.member.database.engine) as connection:
        row = connection.execute("SELECT min(transaction_id) FROM transfers").fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("index", [4, 7, 20])
@pytest.mark.parametrize(
    "column",
    [
        "log_index",
        "batch_seq",
        "leaf_kind",
        "transaction_id",
        "txid",
        "leaf",
        "leaf_hash",
        "shared_leaves",
        "private_copy",
    ],
)
def test_a_changed_column_of_a_leaf_is_named(issuer: Case, column: str, index: int) -> None:
    kind = _kinds(issuer, "log_leaves")[column]
    with unguarded(issuer.member.database) as owner:
        change_one(owner, "log_leaves", {"log_index": index}, column, kind)
        found = named(issuer.check(owner))
        if column == "log_index":
            assert ("log_leaves", f"log_index={index}", None, "missing") in found
            assert ("log_leaves", f"log_index={index + 1_000_000}", None, "inserted") in found
            assert {table for table, *_ in found} == {"log_leaves"}
        else:
            assert found == {("log_leaves", f"log_index={index}", column, "altered")}


@pytest.mark.parametrize(("level", "node_index"), [(1, 0), (2, 2), (4, 0)])
def test_a_changed_node_is_named(issuer: Case, level: int, node_index: int) -> None:
    key: dict[str, object] = {"level": level, "node_index": node_index}
    row = f"level={level}, node_index={node_index}"
    with unguarded(issuer.member.database) as owner:
        change_one(owner, "log_nodes", key, "hash", "bytea")
        assert named(issuer.check(owner)) == {("log_nodes", row, "hash", "altered")}


@pytest.mark.parametrize("column", ["level", "node_index"])
def test_a_displaced_node_is_named(issuer: Case, column: str) -> None:
    key: dict[str, object] = {"level": 1, "node_index": 3}
    with unguarded(issuer.member.database) as owner:
        owner.execute(f"UPDATE log_nodes SET {column} = 30 WHERE level = 1 AND node_index = 3")
        displaced = ", ".join(f"{k}={30 if k == column else v}" for k, v in key.items())
        assert named(issuer.check(owner)) == {
            ("log_nodes", "level=1, node_index=3", None, "missing"),
            ("log_nodes", displaced, None, "inserted"),
        }


@pytest.mark.parametrize("seq", [1, 2, 3])
@pytest.mark.parametrize(
    "column",
    [
        "first_index",
        "size",
        "leaf_count",
        "prev_root",
        "root",
        "checkpoint",
        "consistency",
        "last_xact",
        "last_transaction_id",
        "sealed_at",
    ],
)
def test_a_changed_column_of_a_batch_is_named(issuer: Case, column: str, seq: int) -> None:
    kind = _kinds(issuer, "batches")[column]
    with unguarded(issuer.member.database) as owner:
        change = OTHER_VALUE[kind].format(c=column)
        if column == "consistency":
            change = "consistency || sha256('x')"
        owner.execute(f"UPDATE batches SET {column} = {change} WHERE seq = {seq}")
        assert named(issuer.check(owner)) == {("batches", f"seq={seq}", column, "altered")}


def rotate_note_key(member: LogMember, signer: NoteSigner) -> None:
    """On the chain; the old key's last block has gone by afterwards."""
    chain = member.chain
    rotate_key(
        *(chain.client(), chain.deployer, chain.member_registry, member.member_id),
        *("note", signer.public_key),
    )
    chain.add_member(f"other-{secrets.token_hex(4)}")


@pytest.fixture
def sealed(database: NodeDatabase, log_chain: ChainFixture) -> tuple[LogMember, LedgerFactory]:
    """A member with one sealed batch, not anchored yet, and what adds rows to its books."""
    member = make_member(database, log_chain, ("issuer",))
    factory = LedgerFactory(database.engine, "issuer")
    factory.add(3)
    member.seal()
    return member, factory


def test_a_checkpoint_anchored_after_its_keys_end_is_no_change_and_a_change_of_it_is(
    sealed: tuple[LogMember, LedgerFactory],
) -> None:
    member, factory = sealed
    member.signer = NoteSigner(secrets.token_bytes(32))
    rotate_note_key(member, member.signer)
    waiting = check(member)
    assert waiting.clean
    assert waiting.retired_key == [1]
    assert member.settle() == 1
    factory.add(2)
    assert member.anchor_all() == 1
    anchored = check(member)
    assert anchored.clean
    assert anchored.retired_key == [1]
    said = CliRunner().invoke(
        make_app(),
        [
            *("verify-ledger", "--member", member.member_id, "--dsn", member.database.reader_dsn),
            *("--rpc", member.chain.rpc_url, "--anchor-registry", member.chain.anchor_registry),
        ],
    )
    assert said.exit_code == 0, said.output
    assert "note key that ended before they were anchored: [1]" in said.output
    view = TrustedChain(member.chain.client(), member.chain.anchor_registry)
    anchors = read_anchors(member.context.registry, member.member_id)
    case = Case(member, anchors, view.note_keys(member.member_id))
    for column in ("checkpoint", "sealed_at"):
        with unguarded(member.database) as owner:
            change = OTHER_VALUE[_kinds(case, "batches")[column]].format(c=column)
            owner.execute(f"UPDATE batches SET {column} = {change} WHERE seq = 1")
            assert named(case.check(owner)) == {("batches", "seq=1", column, "altered")}


def test_what_the_operators_key_anchored_under_no_note_key_is_named(
    sealed: tuple[LogMember, LedgerFactory],
) -> None:
    """The chain binds such a checkpoint, too: metaHash is the word of whoever anchors."""
    member, factory = sealed
    assert member.settle() == 1
    member.signer = stranger = NoteSigner(secrets.token_bytes(32))
    factory.add(2)
    assert member.anchor_all() == 1
    wanted = {("batches", "seq=2", "checkpoint", "altered")}
    assert named(check(member)) == wanted
    # A key that becomes the member's only later signed it no less in vain.
    rotate_note_key(member, stranger)
    assert named(check(member)) == wanted


def test_a_retired_key_that_signs_again_is_named(
    sealed: tuple[LogMember, LedgerFactory],
) -> None:
    """Whoever has the old note key and the operator's key can anchor, and is found."""
    member, factory = sealed
    old, new = member.signer, NoteSigner(secrets.token_bytes(32))
    member.settle()
    rotate_note_key(member, new)
    for signer in (old, new, old):
        member.signer = signer
        factory.add(1)
        assert member.anchor_all() == 1
    report = check(member)
    assert named(report) == {("batches", "seq=4", "checkpoint", "altered")}
    assert report.retired_key == [2]


def test_a_displaced_batch_is_named(issuer: Case) -> None:
    with unguarded(issuer.member.database) as owner:
        change_one(owner, "batches", {"seq": 2}, "seq", "int8")
        found = named(issuer.check(owner))
        assert ("batches", "seq=2", None, "missing") in found
        assert ("batches", "seq=1000002", "seq", "altered") in found
        assert {table for table, *_ in found} <= {"batches", "batch_totals"}


@pytest.mark.parametrize("column", ["approved_count", "approved_amount", "declined_count"])
def test_changed_totals_are_named(issuer: Case, column: str) -> None:
    with unguarded(issuer.member.database) as owner:
        change_one(owner, "batch_totals", {"seq": 3}, column, "int8")
        assert named(issuer.check(owner)) == {
            ("batch_totals", "seq=3, currency=CNY", column, "altered")
        }


@pytest.mark.parametrize("column", ["block_number", "block_hash", "tx_hash"])
def test_a_changed_record_of_an_anchor_is_named(issuer: Case, column: str) -> None:
    kind = _kinds(issuer, "anchor_submissions")[column]
    with unguarded(issuer.member.database) as owner:
        change_one(owner, "anchor_submissions", {"seq": 2}, column, kind)
        assert named(issuer.check(owner)) == {("anchor_submissions", "seq=2", column, "altered")}


def test_values_that_no_column_should_hold_are_named_and_not_tripped_over(
    issuer: Case,
) -> None:
    with unguarded(issuer.member.database) as owner:
        owner.execute("UPDATE transactions SET recorded_at = 'infinity' WHERE transaction_id = 2")
        owner.execute(
            "UPDATE transactions SET business_date = '-infinity' WHERE transaction_id = 3"
        )
        owner.execute(
            "UPDATE transactions SET business_date = '0044-03-15 BC' WHERE transaction_id = 4"
        )
        owner.execute("UPDATE transactions SET outcome = 'nonsense' WHERE transaction_id = 5")
        owner.execute("UPDATE transactions SET merchant_id = '港港港' WHERE transaction_id = 6")
        owner.execute("UPDATE transactions SET amount = -5 WHERE transaction_id = 7")
        owner.execute(
            "UPDATE transactions SET xact = '18446744073709551615' WHERE transaction_id = 8"
        )
        owner.execute("UPDATE batches SET sealed_at = 'infinity' WHERE seq = 1")
        assert named(issuer.check(owner)) == {
            ("transactions", "transaction_id=2", "recorded_at", "altered"),
            ("transactions", "transaction_id=3", "business_date", "altered"),
            ("transactions", "transaction_id=4", "business_date", "altered"),
            ("transactions", "transaction_id=5", "outcome", "altered"),
            ("transactions", "transaction_id=6", "merchant_id", "altered"),
            ("transactions", "transaction_id=7", "amount", "altered"),
            ("transactions", "transaction_id=8", "xact", "altered"),
            ("batches", "seq=1", "sealed_at", "altered"),
        }


def test_several_columns_and_a_salt_at_once(issuer: Case) -> None:
    with unguarded(issuer.member.database) as owner:
        owner.execute(
            "UPDATE transactions SET amount = 1, stan = '999999', salt_pii = sha256('x')"
            " WHERE transaction_id = 9"
        )
        owner.execute(
            "UPDATE transactions SET salt_private = sha256('x'), outcome = 'pin_wrong'"
            " WHERE transaction_id = 10"
        )
        assert named(issuer.check(owner)) == {
            ("transactions", "transaction_id=9", "amount", "altered"),
            ("transactions", "transaction_id=9", "stan", "altered"),
            ("transactions", "transaction_id=9", "salt_pii", "altered"),
            ("transactions", "transaction_id=10", "salt_private", "altered"),
            ("transactions", "transaction_id=10", "outcome", "altered"),
        }


def test_deleted_rows_are_named(issuer: Case) -> None:
    transfer = _first_with_transfer(issuer)
    with unguarded(issuer.member.database) as owner:
        owner.execute("DELETE FROM transfers WHERE transaction_id = %s", (transfer,))
        owner.execute("DELETE FROM transactions WHERE transaction_id = 12")
        owner.execute("DELETE FROM transfers WHERE transaction_id = 12")
        owner.execute("DELETE FROM log_leaves WHERE log_index = 3")
        owner.execute("DELETE FROM log_nodes WHERE level = 2 AND node_index = 4")
        owner.execute("DELETE FROM batch_totals WHERE seq = 2")
        assert named(issuer.check(owner)) == {
            ("transfers", f"transaction_id={transfer}, line=1", None, "missing"),
            ("transactions", "transaction_id=12", None, "missing"),
            ("log_leaves", "log_index=3", None, "missing"),
            ("log_nodes", "level=2, node_index=4", None, "missing"),
            ("batch_totals", "seq=2, currency=CNY", None, "missing"),
        }


def test_inserted_rows_are_named(issuer: Case) -> None:
    columns = [c for c in ROW_COLUMNS if c not in ("transaction_id", "txid", "pair_seq")]
    listed = ", ".join(columns)
    with unguarded(issuer.member.database) as owner:
        for number, (txid, xact) in enumerate(
            [("old", "xact"), ("future", "'999999999999'::xid8"), ("now", "pg_current_xact_id()")]
        ):
            values = listed.replace("xact", xact)
            owner.execute(
                f"INSERT INTO transactions (transaction_id, txid, pair_seq, {listed},"
                f" shard) SELECT {22 + number}, sha256('{txid}'), {5000 + number}, {values}, 1"
                " FROM transactions"
                " WHERE transaction_id = 6"
            )
        owner.execute(
            "INSERT INTO transfers SELECT 6, 7, debit_account, credit_account, amount, currency,"
            " balance_after, shard FROM transfers LIMIT 1"
        )
        owner.execute(
            "INSERT INTO transfers SELECT 4711, 1, debit_account, credit_account, amount, currency,"
            " balance_after, shard FROM transfers LIMIT 1"
        )
        owner.execute("INSERT INTO log_nodes VALUES (9, 0, sha256('x'))")
        owner.execute("INSERT INTO batch_totals VALUES (9, 'CNY', 1, 1, 1)")
        owner.execute("INSERT INTO batch_totals VALUES (2, 'USD', 1, 1, 1)")
        found = named(issuer.check(owner))
        for expected in [
            ("transactions", "transaction_id=22", None, "inserted"),
            ("transactions", "transaction_id=23", None, "inserted"),
            ("transactions", "transaction_id=24", "commitment", "altered"),
            ("transfers", "transaction_id=6, line=7", None, "inserted"),
            ("transfers", "transaction_id=4711, line=1", None, "inserted"),
            ("log_nodes", "level=9, node_index=0", None, "inserted"),
            ("batch_totals", "seq=9, currency=CNY", None, "inserted"),
            ("batch_totals", "seq=2, currency=USD", None, "inserted"),
        ]:
            assert expected in found
        assert len(found) <= 10


def test_swapped_rows_are_named(issuer: Case) -> None:
    with unguarded(issuer.member.database) as owner:
        owner.execute("ALTER TABLE transactions DROP CONSTRAINT transactions_txid_side_key")
        owner.execute(
            "UPDATE transactions AS a SET amount = b.amount, stan = b.stan, rrn = b.rrn"
            " FROM transactions AS b WHERE (a.transaction_id, b.transaction_id)"
            " IN ((10, 11), (11, 10))"
        )
        owner.execute(
            "UPDATE transactions AS a SET txid = b.txid"
            " FROM transactions AS b WHERE (a.transaction_id, b.transaction_id)"
            " IN ((14, 15), (15, 14))"
        )
        assert named(issuer.check(owner)) == {
            *(
                ("transactions", f"transaction_id={number}", column, "altered")
                for number in (10, 11)
                for column in ("amount", "stan", "rrn")
            ),
            ("transactions", "transaction_id=14", "txid", "altered"),
            ("transactions", "transaction_id=15", "txid", "altered"),
        }


def test_swapped_leaves_are_named(issuer: Case) -> None:
    with unguarded(issuer.member.database) as owner:
        owner.execute("UPDATE log_leaves SET log_index = -1 WHERE log_index = 10")
        owner.execute("UPDATE log_leaves SET log_index = 10 WHERE log_index = 13")
        owner.execute("UPDATE log_leaves SET log_index = 13 WHERE log_index = -1")
        rows = {row for table, row, *_ in named(issuer.check(owner)) if table == "log_leaves"}
        assert (
            {"log_index=10", "log_index=13"} <= rows <= {f"log_index={n}" for n in (10, 11, 12, 13)}
        )


def rewrite(
    owner: psycopg.Connection[Any], member: LogMember, index: int, *, nodes: bool, roots: bool
) -> None:
    """Change an amount and recompute every stored hash that follows from it, as a thief would."""
    number, raw = owner.execute(
        "SELECT transaction_id, leaf FROM log_leaves WHERE log_index = %s", (index,)
    ).fetchone() or (0, b"")
    owner.execute(
        "UPDATE transactions SET amount = amount + 1 WHERE transaction_id = %s", (number,)
    )
    row = queries.rows_by_id(owner, [number])[number]
    fields = [f or b"" for f in rules.shared_fields(row, decode_leaf(raw).txid)]
    owner.execute(
        "UPDATE transactions SET commitment = %s WHERE transaction_id = %s",
        (root_of(fields), number),
    )
    row = queries.rows_by_id(owner, [number])[number]
    evidence = rules.row_evidence(member.member_id, row)
    owner.execute(
        "UPDATE log_leaves SET leaf = %s, leaf_hash = %s, shared_leaves = %s,"
        " private_copy = %s WHERE log_index = %s",
        (
            evidence.encoded,
            evidence.leaf_hash,
            evidence.shared_leaves,
            evidence.private_copy,
            index,
        ),
    )
    assert encode_leaf(evidence.leaf) == evidence.encoded
    assert leaf_hash(evidence.encoded) == evidence.leaf_hash
    if not nodes:
        return
    edge = tree.Frontier()
    previous = None
    for batch in queries.batches(owner, 1, 100):
        hashes = [e[2] for e in queries.log_entries(owner, batch.first_index, batch.size)]
        for level, place, node in edge.extend(hashes):
            owner.execute(
                "UPDATE log_nodes SET hash = %s WHERE level = %s AND node_index = %s",
                (node, level, place),
            )
        if roots:
            origin = member.context.identity.origin
            text = Checkpoint(origin, batch.size, edge.root()).text()
            note = member.signer.sign(str(origin), text).encode()
            proof = (
                b""
                if previous is None
                else b"".join(queries.consistency_proof(owner, previous[0], batch.size))
            )
            owner.execute(
                "UPDATE batches SET root = %s, prev_root = coalesce(%s, prev_root),"
                " checkpoint = %s, consistency = %s WHERE seq = %s",
                (edge.root(), previous and previous[1], note, proof, batch.seq),
            )
        previous = (batch.size, edge.root())


def test_a_leaf_rewritten_with_its_hash_is_named(issuer: Case) -> None:
    with unguarded(issuer.member.database) as owner:
        rewrite(owner, issuer.member, 10, nodes=False, roots=False)
        rows = {(table, row) for table, row, *_ in named(issuer.check(owner))}
    assert ("log_leaves", "log_index=10") in rows
    assert rows <= {("log_leaves", "log_index=10"), ("log_leaves", "log_index=11")}


@pytest.mark.parametrize("roots", [False, True])
def test_a_total_rewrite_is_given_away_by_the_chain_and_the_batch_named(
    issuer: Case, roots: bool
) -> None:
    with unguarded(issuer.member.database) as owner:
        rewrite(owner, issuer.member, 7, nodes=True, roots=roots)
        report = issuer.check(owner)
    assert ("batches", "seq=2", None, "altered") in named(report)
    assert not any(f.row == "seq=1" for f in report.findings), "the batch before is untouched"
    assert report.unjudged == [3]


def test_a_cut_tail_is_named(issuer: Case) -> None:
    with unguarded(issuer.member.database) as owner:
        owner.execute("DELETE FROM anchor_submissions WHERE seq = 3")
        owner.execute("DELETE FROM batch_totals WHERE seq = 3")
        owner.execute("DELETE FROM batches WHERE seq = 3")
        owner.execute("DELETE FROM transfers WHERE transaction_id > 8")
        owner.execute("DELETE FROM log_leaves WHERE log_index > 7")
        owner.execute("DELETE FROM transactions WHERE transaction_id > 8")
        owner.execute("DELETE FROM log_nodes WHERE ((node_index + 1) << level) > 8")
        assert named(issuer.check(owner)) == {("batches", "seq=3", None, "missing")}


def test_random_edits_are_all_found_and_named(issuer: Case) -> None:
    dice = random.Random(20_260_922)
    tables = {
        "transactions": [c for c in ROW_COLUMNS if c != "transaction_id"],
        "transfers": ["amount", "debit_account", "balance_after"],
        "log_leaves": ["leaf", "leaf_hash", "shared_leaves", "private_copy", "txid"],
        "log_nodes": ["hash"],
        "batches": ["root", "prev_root", "checkpoint", "sealed_at", "last_xact"],
    }
    kinds = {table: _kinds(issuer, table) for table in tables}
    with unguarded(issuer.member.database) as owner:
        assert issuer.check(owner).clean
        for _ in range(150):
            table = dice.choice(list(tables))
            column = dice.choice(tables[table])
            change = OTHER_VALUE[kinds[table][column]].format(c=column)
            with owner.transaction(force_rollback=True):
                rows = owner.execute(f"SELECT ctid::text FROM {table} ORDER BY ctid").fetchall()
                owner.execute(
                    f"UPDATE {table} SET {column} = {change} WHERE ctid = %s", dice.choice(rows)
                )
                found = issuer.check(owner).findings
            assert [(f.table, f.column) for f in found] == [(table, column)]
        assert issuer.check(owner).clean


def test_the_command_reads_the_real_database_and_chain(issuer: Case) -> None:
    """The same check over its own connections, after a real, committed UPDATE by the owner."""
    member = issuer.member
    assert check(member).clean
    with psycopg.connect(member.database.admin_dsn) as owner:
        owner.execute("SET session_replication_role = replica")
        owner.execute("UPDATE transactions SET amount = amount + 1 WHERE transaction_id = 3")
    finding = check(member).findings[0]
    assert str(finding) == "transactions (transaction_id=3), column amount: altered"
    assert finding.change is Change.ALTERED
    with psycopg.connect(member.database.admin_dsn) as owner:
        owner.execute("SET session_replication_role = replica")
        owner.execute("UPDATE transactions SET amount = amount - 1 WHERE transaction_id = 3")
    assert check(member).clean


# What the campaign (`make tamper`) found, each by itself.


def test_a_salt_with_zeros_after_it_is_another_salt(issuer: Case) -> None:
    """HMAC takes it for the same key (RFC 2104, 2): its length has to count."""
    with unguarded(issuer.member.database) as owner:
        owner.execute(
            r"UPDATE transactions SET salt_private = salt_private || '\x00'::bytea"
            " WHERE transaction_id = 5"
        )
        assert named(issuer.check(owner)) == {
            ("transactions", "transaction_id=5", "salt_private", "altered")
        }


def test_a_deleted_batch_does_not_put_the_blame_on_the_next(issuer: Case) -> None:
    with unguarded(issuer.member.database) as owner:
        owner.execute("DELETE FROM batches WHERE seq = 2")
        rows = {(table, row) for table, row, *_ in named(issuer.check(owner))}
    assert ("batches", "seq=2") in rows
    assert rows <= {("batches", "seq=2"), ("batch_totals", "seq=2, currency=CNY")}


def test_a_deleted_record_of_an_anchor_is_named(issuer: Case) -> None:
    with unguarded(issuer.member.database) as owner:
        owner.execute("DELETE FROM anchor_submissions WHERE seq = 2")
        assert named(issuer.check(owner)) == {("anchor_submissions", "seq=2", None, "missing")}


@pytest.mark.parametrize("index", [6, 7, 20])
def test_the_last_leaf_of_a_batch_renumbered_is_named_and_the_rest_judged(
    issuer: Case, index: int
) -> None:
    with unguarded(issuer.member.database) as owner:
        owner.execute("UPDATE log_leaves SET log_index = 5000 WHERE log_index = %s", (index,))
        report = issuer.check(owner)
    assert named(report) == {
        ("log_leaves", f"log_index={index}", None, "missing"),
        ("log_leaves", "log_index=5000", None, "inserted"),
    }
    assert report.unjudged == []


def test_a_leaf_after_a_rewritten_one_that_ended_its_batch_is_judged_by_itself(
    issuer: Case,
) -> None:
    """Leaf 6 ends batch 1 without a sibling: its true hash is gone, and the edge with it."""
    with unguarded(issuer.member.database) as owner:
        rewrite(owner, issuer.member, 6, nodes=False, roots=False)
        rewrite(owner, issuer.member, 12, nodes=False, roots=False)
        rows = {(table, row) for table, row, *_ in named(issuer.check(owner))}
    assert ("batches", "seq=1") in rows
    assert ("log_leaves", "log_index=12") in rows
