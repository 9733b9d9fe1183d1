"""The end of a day on two real databases and a real chain."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import psycopg

from nodes.anchoring.model import START
from nodes.anchoring.queries import rows_to_seal
from nodes.anchoring.rules import row_evidence
from nodes.authorization.model import Kind, Outcome
from nodes.clearing.case_queries import CaseFile
from nodes.clearing.model import BreakKind, CaseState, CloseStage, Resolution
from nodes.clearing.rules.cases import applicable
from nodes.db.engine import transaction
from nodes.reconciliation.invariants import check_invariants
from tests.factories.ledger import LedgerFactory
from tests.integration.clearing.institutions import DAY, Institution, Pair, resealed

#: An approved purchase, whatever the factory has drawn. Its money is not what these tests look at.
PAID = {
    "kind": Kind.PURCHASE.value,
    "outcome": Outcome.APPROVED.value,
    "original_txid": None,
}


def test_equal_days_are_confirmed_by_themselves(pair: Pair) -> None:
    pair.both(40)
    pair.work()
    assert (pair.acquirer.stage(), pair.issuer.stage()) == (CloseStage.CONFIRMED,) * 2
    seen = pair.round()
    assert seen.state.name == "CONFIRMED"
    assert seen.acquirer.close_root == seen.issuer.close_root
    assert pair.acquirer.cases() == pair.issuer.cases() == []
    [(count, debits, credits)] = pair.acquirer.rows(
        "SELECT item_count, debits, credits FROM closes"
    )
    assert count == 40
    settlement = pair.acquirer.rows(
        "SELECT coalesce(sum(p.amount), 0) FROM postings p JOIN accounts a USING (account_id)"
        " WHERE a.kind = 'settlement'"
    )
    assert debits - credits == -settlement[0][0]


Named = tuple[str, bytes | None, tuple[str, ...], int | None]


def plant(pair: Pair) -> set[Named]:
    """One break of each class (and more of two) in a day of sound transactions; their names."""
    acquirer, issuer = pair.acquirer, pair.issuer
    pair.both(30)
    names: set[Named] = set()
    mine, theirs = pair.pair(**PAID)
    acquirer.write(mine)
    names.add(("MISSING_AT_ISSUER", mine.txid, (), None))
    mine, theirs = pair.pair(**PAID)
    issuer.write(theirs)
    names.add(("MISSING_AT_ACQUIRER", mine.txid, (), None))
    mine, theirs = pair.pair(**PAID)
    acquirer.write(mine)
    issuer.write(resealed(theirs, amount=theirs.amount + 7, merchant_id="HARBOR000000002"))
    names.add(("FIELD_MISMATCH", mine.txid, ("amount", "merchant"), None))
    mine, theirs = pair.pair(**PAID)
    acquirer.write(resealed(mine, card_token=b"t" * 16))
    issuer.write(theirs)
    names.add(("FIELD_MISMATCH", mine.txid, ("card_token",), None))
    mine, theirs = pair.pair(**PAID)
    acquirer.write(mine)
    issuer.write(resealed(theirs, business_date=DAY + timedelta(days=1)))
    names.add(("WRONG_DATE", mine.txid, (), None))
    mine, theirs = pair.pair(**PAID)
    late = pair.clock.now_ms() - 60_000
    issuer.write(resealed(theirs, transmitted_ms=late))
    names.add(("LATE", mine.txid, (), None))
    [(first, _)] = pair.both(1, **PAID)
    again, _ = pair.pair(**PAID)
    acquirer.write(resealed(again, stan=first.stan))
    names.add(("DUPLICATE", again.txid, (), None))
    pair.pair()  # a number that nobody has
    names.add(("SEQ_GAP", None, (), again.pair_seq + 1))
    [(mine, _)] = pair.both(1, **PAID)
    with transaction(acquirer.database.engine) as connection:
        connection.execute(
            "INSERT INTO unsigned_answers (txid, why) VALUES (%s, 'no signature')", (mine.txid,)
        )
    names.add(("UNSIGNED", mine.txid, (), None))
    return names


def named(files: list[CaseFile]) -> set[Named]:
    found = [file.found for file in files]
    return {(f["kind"], f["txid"], tuple(f["fields"]), f["pair_seq"]) for f in found}


def resolution_of(file: CaseFile) -> str:
    noted = file.case.kind in ("SEQ_GAP", "UNSIGNED") or file.found["txid"] is None
    return "ACKNOWLEDGE" if noted else "TAKE_ACQUIRER"


def settle_by_hand(pair: Pair, files: list[CaseFile], proposer: str = "acquirer") -> None:
    """Operators of both institutions agree on each case, over their own nodes' APIs."""
    one, other = pair.acquirer, pair.issuer
    if proposer == "issuer":
        one, other = other, one
    with one.api.http("operator") as first, other.api.http("operator") as second:
        for file in files:
            ref = file.case.break_ref.hex()
            proposal = {"resolution": resolution_of(file), "note": "as the terminal's log says"}
            made = first.post(
                f"/v1/breaks/{ref}/propose",
                json=proposal,
                headers={"Idempotency-Key": f"propose-{ref}"},
            )
            assert made.status_code == 200, made.text
            other.jobs.reconcile()  # takes the proposal over
            done = second.post(
                f"/v1/breaks/{ref}/countersign",
                json={},
                headers={"Idempotency-Key": f"countersign-{ref}"},
            )
            assert done.status_code == 200, done.text


def test_planted_breaks_are_found_corrected_and_the_corrected_close_supersedes(pair: Pair) -> None:
    planted = plant(pair)
    pair.work()
    assert (pair.acquirer.stage(), pair.issuer.stage()) == (CloseStage.BROKEN,) * 2
    mine, theirs = pair.acquirer.cases(), pair.issuer.cases()
    of_day = [file for file in mine if file.found["other_date"] != DAY]
    assert named(of_day) == planted
    assert named(mine) == named(theirs)
    assert {f.case.break_ref for f in mine} == {f.case.break_ref for f in theirs}

    # What was late comes; everything else is agreed on.
    [late] = [file for file in mine if file.case.kind is BreakKind.LATE]
    [arriving] = pair.issuer.rows(
        "SELECT transmitted_ms FROM transactions ORDER BY transmitted_ms DESC LIMIT 1"
    )
    number = late.found["detail"]["issuer"]["pair_seq"]
    factory = LedgerFactory(pair.acquirer.database.engine, "acquirer")
    record = [factory.record() for _ in range(number)][-1]
    sound = {**PAID, "transmitted_ms": arriving[0], "transaction_id": 10_000_000}
    pair.acquirer.write(resealed(record, **sound))
    settle_by_hand(pair, [file for file in mine if file is not late])
    pair.work(30)

    for one in (pair.acquirer, pair.issuer):
        assert one.stage(0) is CloseStage.SUPERSEDED
        assert one.stage(1) is CloseStage.CONFIRMED
        assert {file.case.state for file in one.cases()} == {CaseState.CLOSED}
    assert pair.round(0).state.name == "SUPERSEDED"
    assert pair.round(1).state.name == "CONFIRMED"
    # One history, event for event, and nothing of the ledger was changed.
    assert histories(pair.acquirer) == histories(pair.issuer)
    pair.work()
    assert pair.round(2).state.name == "NONE"
    for one in (pair.acquirer, pair.issuer):
        assert one.rows("SELECT sum(amount) FROM postings") == [(0,)]
        entries = one.rows("SELECT transaction_id FROM transactions WHERE kind = 'adjustment'")
        told = [v for v in check_invariants(one.database.owner_engine) if v.invariant in (1, 2, 7)]
        about = {f"transaction {number}" for (number,) in entries}
        assert [v for v in told if any(v.detail.startswith(f"{name} ") for name in about)] == []
        assert [v for v in told if any(v.detail.startswith(f"{name},") for name in about)] == []
        with transaction(one.database.engine) as connection:
            rows = rows_to_seal(connection, START, 10_000)
        sound = [row for row in rows if row.values["kind"] == "adjustment"]
        assert len(sound) == len(entries)
        # Sealing recomputes C of each entry, and takes it.
        assert all(row_evidence(one.member_id, row).leaf.pair_seq == 0 for row in sound)
    # Each entry moves what its break comes to: the issuer's books were the wrong ones.
    moved = pair.issuer.rows(
        "SELECT b.kind, e.amount, t.debit_account IS NOT NULL, k.added_effect, k.removed_effect"
        " FROM close_corrections AS k JOIN breaks AS b USING (break_ref)"
        " JOIN transactions AS e ON e.txid = k.entry_txid"
        " LEFT JOIN transfers AS t USING (transaction_id)"
    )
    assert len(moved) == 7  # the wrong date stands in two closes, and moves nothing
    for kind, amount, moves, added, removed in moved:
        wanted = 0 if kind == "WRONG_DATE" else abs((added or 0) - (removed or 0))
        assert (amount, moves) == (wanted, wanted > 0)


def test_equal_lists_with_other_totals_are_a_case_too(pair: Pair) -> None:
    """A salt that C contradicts: it isn't in the list, but hides the totals."""
    pair.both(30)
    mine, theirs = pair.pair(**PAID)
    pair.acquirer.write(mine)
    pair.issuer.write(msgspec.structs.replace(theirs, salt_fin=bytes(32)))
    pair.work()
    assert (pair.acquirer.stage(), pair.issuer.stage()) == (CloseStage.BROKEN,) * 2
    seen = pair.round()
    assert seen.acquirer.close_root == seen.issuer.close_root
    files = pair.acquirer.cases()
    assert named(files) == {("TOTALS_MISMATCH", mine.txid, (), None)}
    settle_by_hand(pair, files)
    pair.work(30)
    for one in (pair.acquirer, pair.issuer):
        assert (one.stage(0), one.stage(1)) == (CloseStage.SUPERSEDED, CloseStage.CONFIRMED)


def test_other_totals_that_no_row_explains_are_a_case_of_the_close_itself(pair: Pair) -> None:
    """A close whose own row was changed before it was posted: nothing in the books differs."""
    pair.both(20)
    mine, theirs = pair.pair(**PAID)
    pair.acquirer.write(mine)
    pair.issuer.write(theirs)
    pair.issuer.jobs.close()
    with psycopg.connect(pair.issuer.database.admin_dsn) as owner:
        owner.execute("SET session_replication_role = replica")
        owner.execute("UPDATE closes SET totals_hash = sha256('another')")
    pair.work()
    files = pair.acquirer.cases()
    assert named(files) == {("TOTALS_MISMATCH", None, (), None)}
    assert named(pair.issuer.cases()) == named(files)
    assert not applicable(files[0].case, Resolution.TAKE_ISSUER)
    settle_by_hand(pair, files)
    pair.work(30)
    for one in (pair.acquirer, pair.issuer):
        assert (one.stage(0), one.stage(1)) == (CloseStage.SUPERSEDED, CloseStage.CONFIRMED)


def histories(one: Institution) -> list[tuple[object, ...]]:
    return one.rows(
        "SELECT encode(break_ref, 'hex'), number, step, state, member, actor, resolution, note,"
        " encode(entry_txid, 'hex'), at FROM case_events ORDER BY break_ref, number"
    )
