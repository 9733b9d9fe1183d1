"""Events are leaves like transactions; a person can be erased, and the proofs stay."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from typer.testing import CliRunner

from nodes.anchoring import proof_queries, queries
from nodes.anchoring.chain_view import TrustedChain
from nodes.anchoring.event_queries import find_events
from nodes.anchoring.event_store import record_keys
from nodes.anchoring.leaf import EventKind, decode_leaf
from nodes.anchoring.operations.event_sealing import seal_events
from nodes.anchoring.store import transaction
from nodes.anchoring.verifier import Reason, verify
from nodes.authorization.model import Kind, Outcome, TerminalRequest
from nodes.cards.codes import IssuedCode, issue_code
from nodes.cards.model import CardForm, IssuedCard, Making
from nodes.chain.directory import KeyPeriod
from nodes.crypto.emv import TRANSPORT_KEY, open_personalization
from nodes.db.engine import make_engine
from nodes.reconciliation.findings import Report
from nodes.reconciliation.invariants import check_invariants
from nodes.reconciliation.ledger_check import check_ledger
from sandbox.cards.chip import ChipCard, Purchase
from sandbox.cli import make_app
from tests.conftest import Cluster, NodeDatabase
from tests.factories.chain import ChainFixture
from tests.factories.evidence import LogMember, make_member
from tests.factories.network import BIN, EMV_KEYS, Network
from tests.factories.tampering import unguarded
from tests.integration.authorization.test_forwarding_advices import deliver


@dataclass
class Books:
    """Issuer's and acquirer's databases with some business, each with its log on a chain."""

    network: Network
    issuer: LogMember
    acquirer: LogMember


@pytest.fixture
def books(cluster: Cluster, log_chain: ChainFixture) -> Iterator[Books]:
    databases = cluster.new_database(), cluster.new_database()
    network = Network(*databases)
    yield Books(
        network,
        make_member(databases[0], log_chain, ("issuer",)),
        make_member(databases[1], log_chain, ("acquirer",)),
    )
    network.close()
    for database in databases:
        cluster.drop(database)


def seal_all(member: LogMember) -> None:
    while member.seal():
        pass
    identity = member.context.identity
    while seal_events(member.database.engine, identity, member.signer, member.clock):
        pass
    member.settle()


def check(member: LogMember) -> Report:
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


def leaves_of(member: LogMember) -> list[tuple[int, str]]:
    with transaction(member.database.engine) as connection:
        entries = queries.log_entries(connection, 0, 1 << 40)
    return [(int(decode_leaf(leaf).kind), decode_leaf(leaf).kind.name) for _, leaf, _, _ in entries]


def purchase(books: Books, amount: int = 500) -> tuple[bytes, bytes]:
    """A card that has paid; its token and the purchase's txid."""
    card = books.network.card(100_000)
    answer = books.network.one(books.network.request(card, amount))
    assert answer.outcome is Outcome.APPROVED
    with books.acquirer.database.engine.connect() as connection:
        txid = connection.exec_driver_sql(
            "SELECT txid FROM transactions ORDER BY transaction_id DESC LIMIT 1"
        ).scalar_one()
    return card.card_token, txid


def test_what_people_and_nodes_do_stands_in_the_log(books: Books) -> None:
    purchase(books)
    for member in (books.issuer, books.acquirer):
        seal_all(member)
        assert check(member).findings == []
    assert {EventKind.CARD.name, "ISSUER"} <= {name for _, name in leaves_of(books.issuer)}
    names = [name for _, name in leaves_of(books.acquirer)]
    assert names.count(EventKind.MERCHANT.name) == 2  # a merchant and a terminal
    assert names.count("ACQUIRER") == 1
    # A purchase moves a terminal's counter, which is no event.
    purchase(books)
    identity = books.acquirer.context.identity
    member = books.acquirer
    assert seal_events(member.database.engine, identity, member.signer, member.clock) is None


def test_keys_that_begin_and_end_are_events_once(books: Books) -> None:
    member = books.acquirer
    periods = [("note", b"n" * 32, 3, 9), ("note", b"m" * 32, 9, None)]
    for expected in (3, 0):
        with transaction(member.database.engine) as connection:
            assert record_keys(connection, periods) == expected
    seal_all(member)
    assert [name for _, name in leaves_of(member)].count(EventKind.KEY.name) == 3
    assert check(member).findings == []


def test_an_event_is_no_transactions_proof(books: Books) -> None:
    _, txid = purchase(books)
    seal_all(books.acquirer)
    with transaction(books.acquirer.database.engine) as connection:
        proof = proof_queries.proof_bundle(connection, txid, "acquirer")
        event = next(
            leaf
            for _, leaf, _, _ in queries.log_entries(connection, 0, 100)
            if isinstance(decode_leaf(leaf).kind, EventKind)
        )
    from dataclasses import replace

    from nodes.anchoring.bundle import parse_bundle

    view = TrustedChain(books.acquirer.chain.client(), books.acquirer.chain.anchor_registry)
    assert verify(proof, view).ok
    swapped = replace(parse_bundle(proof), leaf=event).encode()
    assert verify(swapped, view).reason is Reason.LEAF_MALFORMED


def test_one_event_is_proven_by_commands(books: Books, tmp_path: Path) -> None:
    member = books.acquirer
    purchase(books)
    database = ["--member", member.member_id, "--dsn", member.database.reader_dsn]
    chain = ["--rpc", member.chain.rpc_url, "--anchor-registry", member.chain.anchor_registry]
    runner, app, file = CliRunner(), make_app(), tmp_path / "event.proof"
    early = runner.invoke(app, ["events", *database, "--proof", "1"])
    assert (early.exit_code, "UNSEALED" in early.stderr) == (1, True)
    seal_all(member)
    listed = runner.invoke(app, ["events", *database, "--kind", "merchant", "--json"])
    events = [json.loads(line) for line in listed.stdout.splitlines()]
    assert len(events) == 2
    assert {event["state"] for event in events} == {"ANCHORED"}
    for event in events:
        number = str(event["event_id"])
        made = runner.invoke(app, ["events", *database, "--proof", number, "--out", str(file)])
        assert made.exit_code == 0, made.output
        judged = runner.invoke(app, ["verify", str(file), *chain, "--json"])
        said = json.loads(judged.stdout)
        assert said["ok"], said
        for name in ("event_id", "action", "subject", "actor", "detail"):
            assert said["details"][name] == event[name]
    unknown = runner.invoke(app, ["events", *database, "--proof", "999"])
    assert (unknown.exit_code, "no such event" in unknown.stderr) == (1, True)
    wrong = runner.invoke(app, ["events", *database, "--kind", "cards"])
    assert (wrong.exit_code, "--kind 'cards'" in wrong.stderr) == (2, True)


def test_the_proof_of_an_erased_persons_event_holds(books: Books) -> None:
    token, _ = purchase(books)
    seal_all(books.issuer)
    with transaction(books.issuer.database.engine) as connection:
        [number] = [
            int(str(row["event_id"]))
            for row in find_events(connection, limit=500, kind="card")
            if row["card_token"] == token
        ]
    member, everything = books.issuer, frozenset(range(1, 9))
    view = TrustedChain(member.chain.client(), member.chain.anchor_registry)
    shown = []
    for erased in (False, True):
        if erased:
            end_card(books, token)
            done = erase(member.database, member.member_id, token)
            assert done[0] == 0, done
        with transaction(member.database.engine) as connection:
            proof = proof_queries.event_bundle(connection, member.member_id, number, everything)
        verdict = verify(proof, view)
        assert verdict.ok, verdict
        shown.append(verdict.details)
    assert shown[0]["card_token"] == token.hex() + "00" * 16
    assert "card_token" not in shown[1]
    assert shown[1]["action"] == shown[0]["action"]


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("UPDATE events SET actor = 'nobody' WHERE event_id = 1", ("events", "actor")),
        ("UPDATE events SET detail = detail || ' ' WHERE event_id = 1", ("events", "detail")),
        ("UPDATE events SET occurred_ms = occurred_ms + 1", ("events", "occurred_ms")),
        (
            r"UPDATE events SET salt_private = salt_private || '\x00'::bytea WHERE event_id = 1",
            ("events", "salt_private"),
        ),
        (
            "UPDATE events SET card_token_leaf = sha256('x') WHERE event_id = 1",
            ("events", "card_token_leaf"),
        ),
        ("DELETE FROM events WHERE event_id = 1", ("events", None)),
        # The leaf is gone, the event isn't: it leads to the root as it stands.
        ("DELETE FROM log_leaves WHERE transaction_id = -1", ("log_leaves", None)),
        # The leaf itself says which event it is of, whatever number stands beside it.
        (
            "UPDATE log_leaves SET transaction_id = -999 WHERE transaction_id = -1",
            ("log_leaves", "transaction_id"),
        ),
        (
            "INSERT INTO events OVERRIDING SYSTEM VALUE SELECT 1000, kind, action, subject, actor,"
            " detail, occurred_ms, card_token, salt_fin, salt_pii, card_token_leaf, salt_private,"
            " '3'::xid8 FROM events WHERE event_id = 1",
            ("events", None),
        ),
        (
            "UPDATE events SET card_token = NULL, salt_pii = NULL, card_token_leaf = (SELECT"
            " substr(shared_leaves, 225, 32) FROM log_leaves WHERE transaction_id = -event_id)",
            ("events", "card_token"),
        ),
    ],
)
def test_a_tampered_event_is_found(
    books: Books, statement: str, found: tuple[str, str | None]
) -> None:
    seal_all(books.acquirer)
    from nodes.reconciliation.ledger_check import check_tables, read_anchors

    member = books.acquirer
    anchors = read_anchors(member.context.registry, member.member_id)
    with unguarded(member.database) as owner:
        owner.execute(statement)
        keys = [KeyPeriod(member.signer.public_key, 0, None)]
        report = check_tables(owner, member.context.identity.origin, anchors, keys)
    assert {(finding.table, finding.column) for finding in report.findings} == {found}


def erase(database: NodeDatabase, member: str, token: bytes) -> tuple[int, dict[str, object]]:
    done = CliRunner().invoke(
        make_app(),
        [
            *("erase", "--member", member, "--card-token", token.hex(), "--by", "dpo"),
            *("--reason", "asked for it", "--dsn", database.owner_dsn, "--yes", "--json"),
        ],
    )
    return done.exit_code, json.loads(done.stdout) if done.stdout else {}


def places_of(database: NodeDatabase, secrets_: list[bytes]) -> set[str]:
    """Tables in which a secret stands in any row, raw, in hex or in base64."""
    found = set()
    with psycopg.connect(database.admin_dsn) as connection:
        tables = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        ).fetchall()
        for (table,) in tables:
            query = sql.SQL("SELECT row_to_json(t)::text FROM {} AS t").format(
                sql.Identifier(table)
            )
            for (text,) in connection.execute(query):
                for secret in secrets_:
                    forms = [secret.hex(), base64.b64encode(secret).decode()]
                    forms += [form.encode().hex() for form in forms]
                    if secret.isascii():
                        forms.append(secret.decode())
                    if any(form in text for form in forms):
                        found.add(table)
    return found


def salts_of(database: NodeDatabase, token: bytes) -> list[bytes]:
    with psycopg.connect(database.admin_dsn) as connection:
        rows = connection.execute(
            "SELECT salt_pii FROM transactions WHERE card_token = %s UNION ALL"
            " SELECT salt_pii FROM events WHERE card_token = %s",
            (token, token),
        ).fetchall()
    return [row[0] for row in rows]


def end_card(books: Books, token: bytes) -> None:
    with psycopg.connect(books.issuer.database.admin_dsn) as connection:
        connection.execute("UPDATE cards SET status = 'cancelled' WHERE card_token = %s", (token,))


def test_a_person_is_erased_and_the_proofs_stay(books: Books) -> None:
    token, txid = purchase(books)
    other, other_txid = purchase(books)
    for member, side in ((books.issuer, "issuer"), (books.acquirer, "acquirer")):
        seal_all(member)
        view = TrustedChain(member.chain.client(), member.chain.anchor_registry)
        with transaction(member.database.engine) as connection:
            before = proof_queries.proof_bundle(connection, txid, side)
        known = [token, *salts_of(member.database, token)]
        assert "transactions" in places_of(member.database, known)
        if side == "issuer":
            assert erase(member.database, member.member_id, token)[1]["outcome"] == "card_live"
            end_card(books, token)
        status, done = erase(member.database, member.member_id, token)
        assert (status, done["outcome"]) == (0, "done")
        assert places_of(member.database, known) == set()
        # The same bytes prove the same amount: of field 8 there was never more than a hash.
        with transaction(member.database.engine) as connection:
            after = proof_queries.proof_bundle(connection, txid, side)
            untouched = queries.rows_by_txid(connection, [other_txid])[0]
            erased = queries.rows_by_txid(connection, [txid])[0]
        assert erased.values["pan_masked"] is None
        assert after == before
        verdict = verify(after, view)
        assert verdict.ok
        assert verdict.details["amount"] == 500
        assert untouched.values["card_token"] == other
        seal_all(member)
        report = check(member)
        assert report.findings == []
        assert report.erased_rows >= 1
        assert (EventKind.AUDIT.value, "AUDIT") in leaves_of(member)
        assert erase(member.database, member.member_id, token)[1]["outcome"] == "unknown"


def test_chips_codes_and_what_was_told_of_a_person_go_too(books: Books) -> None:
    """Nothing of the card's token, salts and masked number is left, in whatever table."""
    card = books.network.card(100_000, making=Making(CardForm.CHIP))
    assert card.personalization is not None
    chip = ChipCard.personalized(
        open_personalization(EMV_KEYS[TRANSPORT_KEY], card.personalization)
    )
    chip.make_offline_key()
    pay(books, card, Kind.PURCHASE, icc=chip.first_cryptogram(Purchase(500, "156", "260921")))
    undone = pay(
        books, card, Kind.PURCHASE, icc=chip.first_cryptogram(Purchase(500, "156", "260921"))
    )
    reversal = books.network.reversal_of(undone)
    assert books.network.one(reversal).outcome is Outcome.APPROVED
    books.network.link.down = True  # so the advice waits in the acquirer's queue
    pay(books, card, Kind.ADVICE, icc=chip.approve_offline(Purchase(500, "156", "260921")))
    books.network.link.down = False
    assert deliver(books.network) == ["advice"]
    made = issue_code(
        books.issuer.database.engine,
        books.network.vault,
        card_token=card.card_token,
        bins=[BIN],
        now_ms=books.network.clock.now_ms(),
    )
    assert isinstance(made, IssuedCode)
    tell_merchant(books, card.card_token)
    known = [card.card_token, card.pan_masked.encode()]
    held: set[str] = set()
    for member in (books.issuer, books.acquirer):
        seal_all(member)
        secrets_ = known + salts_of(member.database, card.card_token)
        held |= places_of(member.database, secrets_)
        if member is books.issuer:
            end_card(books, card.card_token)
        status, done = erase(member.database, member.member_id, card.card_token)
        assert (status, done["outcome"]) == (0, "done")
        assert places_of(member.database, secrets_) == set()
        seal_all(member)
        assert check(member).findings == []
        assert check_invariants(member.database.owner_engine) == []
    assert held >= {"chip_records", "consumer_codes", "forward_queue", "webhook_deliveries"}


def pay(books: Books, card: IssuedCard, kind: Kind, icc: bytes) -> TerminalRequest:
    asked = books.network.request(card, 500, kind, entry_mode="052", icc=icc)
    assert books.network.one(asked).outcome is Outcome.APPROVED
    return asked


def tell_merchant(books: Books, token: bytes) -> None:
    """What the acquirer has told a merchant's endpoint of the card's payments."""
    with psycopg.connect(books.acquirer.database.admin_dsn) as connection:
        connection.execute(
            "INSERT INTO webhook_endpoints SELECT 'A234567A234567AB', merchant_id, 'https://a',"
            " 'active', 'test', now() FROM merchants LIMIT 1"
        )
        connection.execute(
            "INSERT INTO webhook_deliveries (message_id, endpoint_id, body, created_ms)"
            " SELECT 'msg_' || encode(txid, 'hex'), 'A234567A234567AB',"
            " convert_to(json_build_object('card', pan_masked)::text, 'UTF8'), 1"
            " FROM transactions WHERE card_token = %s",
            (token,),
        )


def test_an_unsealed_row_may_be_erased_too(books: Books) -> None:
    token, txid = purchase(books)
    end_card(books, token)
    assert erase(books.issuer.database, books.issuer.member_id, token)[0] == 0
    seal_all(books.issuer)
    view = TrustedChain(books.issuer.chain.client(), books.issuer.chain.anchor_registry)
    with transaction(books.issuer.database.engine) as connection:
        assert verify(proof_queries.proof_bundle(connection, txid, "issuer"), view).ok
    assert check(books.issuer).findings == []


def test_taking_a_token_away_without_an_erasure_is_tampering(books: Books) -> None:
    from nodes.reconciliation.ledger_check import check_tables, read_anchors

    purchase(books)
    member = books.acquirer
    seal_all(member)
    anchors = read_anchors(member.context.registry, member.member_id)
    with unguarded(member.database) as owner:
        owner.execute(
            "UPDATE transactions AS t SET card_token = NULL, salt_pii = NULL, card_token_leaf ="
            " (SELECT substr(shared_leaves, 225, 32) FROM log_leaves AS l"
            " WHERE l.transaction_id = t.transaction_id)"
        )
        keys = [KeyPeriod(member.signer.public_key, 0, None)]
        report = check_tables(owner, member.context.identity.origin, anchors, keys)
    columns = {finding.column for finding in report.findings}
    # The salt explains the rest: without it nobody can say whether the token was another.
    assert columns == {"salt_pii", "card_token_leaf"}


def test_no_login_of_a_node_erases(books: Books) -> None:
    token, _ = purchase(books)
    for dsn in (books.acquirer.database.dsn, books.acquirer.database.worker_dsn):
        done = CliRunner().invoke(
            make_app(),
            [
                *("erase", "--member", "meridian", "--card-token", token.hex(), "--by", "x"),
                *("--reason", "y", "--dsn", dsn, "--yes"),
            ],
        )
        assert done.exit_code == 2
    with psycopg.connect(books.acquirer.database.owner_dsn) as owner:
        with pytest.raises(psycopg.errors.RestrictViolation, match="append-only"):
            owner.execute("UPDATE transactions SET card_token = NULL")
    with psycopg.connect(books.acquirer.database.owner_dsn) as owner:
        owner.execute("SET countersign.erasing = 'on'")
        with pytest.raises(psycopg.errors.RestrictViolation, match="append-only"):
            owner.execute("UPDATE transactions SET amount = amount + 1")


def test_a_token_of_nobody_is_unknown(books: Books) -> None:
    token = secrets.token_bytes(16)
    status, said = erase(books.issuer.database, books.issuer.member_id, token)
    assert (status, said["outcome"]) == (1, "unknown")
