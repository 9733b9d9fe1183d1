"""The cases of breaks over the node APIs: who may do what, and what a repeat does."""

from __future__ import annotations

import pytest

from nodes.api.clearing_client import ClearingClient
from nodes.api.client import NodePeer, NodeRefused
from nodes.clearing.model import BreakKind, CaseOutcome, CaseStep
from nodes.db.engine import transaction
from nodes.reconciliation.comparing import Subject
from nodes.reconciliation.protocol import decode_answer, encode
from tests.integration.api.running import MERCHANT_MEMBER, public, run, signer
from tests.integration.clearing.institutions import KEY, Institution, Pair
from tests.integration.clearing.test_day_close import PAID, settle_by_hand

PROPOSAL = {"resolution": "TAKE_ACQUIRER", "note": "the receipt shows it"}


def missing_at_issuer(pair: Pair) -> str:
    """A day in which the issuer lacks one transaction, compared; the break's reference."""
    pair.both(5)
    mine, _ = pair.pair(**PAID)
    pair.acquirer.write(mine)
    pair.work()
    [file] = pair.issuer.cases()
    assert file.case.kind is BreakKind.MISSING_AT_ISSUER
    return file.case.break_ref.hex()


def post(
    one: Institution,
    ref: str,
    act: str,
    body: dict[str, object],
    key: str = "key-of-the-test",
    role: str = "operator",
) -> tuple[int, dict[str, object]]:
    with one.api.http(role) as http:
        answer = http.post(f"/v1/breaks/{ref}/{act}", json=body, headers={"Idempotency-Key": key})
    return answer.status_code, answer.json()


def kind_of(answer: tuple[int, dict[str, object]]) -> tuple[int, str]:
    return answer[0], str(answer[1]["type"]).rpartition(":")[2]


def client(one: Institution, caller: str) -> ClearingClient:
    peer = NodePeer(one.member_id, public(one.member_id))
    return ClearingClient(one.api.url, signer=signer(caller), peer=peer)


def test_whoever_proposes_does_not_countersign_and_a_refusal_opens_the_case_again(
    pair: Pair,
) -> None:
    ref = missing_at_issuer(pair)
    assert post(pair.issuer, ref, "countersign", {})[0] == 409
    status, shown = post(pair.issuer, ref, "propose", PROPOSAL)
    assert (status, shown["state"], shown["owner"]) == (200, "proposed", "meridian")
    assert kind_of(post(pair.issuer, ref, "countersign", {}, "another-key")) == (
        403,
        "maker-is-checker",
    )
    status, shown = post(pair.acquirer, ref, "refuse", {"note": "no such receipt"}, "refusal-key")
    assert (status, shown["state"]) == (200, "open")
    pair.issuer.jobs.reconcile()
    [file] = pair.issuer.cases()
    assert [event["step"] for event in file.events] == ["opened", "proposed", "refused"]
    assert kind_of(
        post(pair.issuer, ref, "propose", PROPOSAL | {"resolution": "ACKNOWLEDGE"}, "k" * 9)
    ) == (
        422,
        "resolution-not-applicable",
    )


def test_a_repeated_step_changes_nothing_and_a_reused_key_is_refused(pair: Pair) -> None:
    ref = missing_at_issuer(pair)
    first, second = (post(pair.issuer, ref, "propose", PROPOSAL) for _ in range(2))
    assert first[0] == second[0] == 200
    assert len(pair.acquirer.cases()[0].events) == 2
    other = PROPOSAL | {"note": "another reason"}
    assert kind_of(post(pair.issuer, ref, "propose", other)) == (409, "key-reused")


def test_a_case_lies_on_one_desk_of_its_own_institution(pair: Pair) -> None:
    ref, mara, otto = missing_at_issuer(pair), {"person": "mara"}, {"person": "otto"}
    first, second = (post(pair.acquirer, ref, "take", mara, "mara-takes") for _ in range(2))
    assert first == second
    assert (first[0], first[1]["taken_by"], first[1]["owner"]) == (200, "mara", "meridian")
    assert kind_of(post(pair.acquirer, ref, "take", otto, "otto-takes")) == (409, "case-taken")
    assert kind_of(post(pair.acquirer, ref, "take", otto, "mara-takes")) == (409, "key-reused")
    not_his = post(pair.acquirer, ref, "release", otto, "otto-lays")
    assert kind_of(not_his) == (403, "case-not-yours")
    # The other institution has desks of its own, and one history.
    assert post(pair.issuer, ref, "take", {}, "by-the-key")[1]["taken_by"] == "operator"
    assert [len(one.cases()[0].events) for one in (pair.acquirer, pair.issuer)] == [1, 1]
    for one, wanted, count in ((pair.acquirer, "mara", 1), (pair.issuer, "mara", 0)):
        with one.api.http("reader") as http:
            assert len(http.get("/v1/breaks", params={"taken_by": wanted}).json()["items"]) == count
            assert http.get("/v1/breaks", params={"taken": "false"}).json()["items"] == []
    status, shown = post(pair.acquirer, ref, "release", mara, "mara-lays-down")
    assert (status, shown["taken_by"], shown["taken_at"]) == (200, None, None)
    assert kind_of(post(pair.acquirer, ref, "release", mara, "once-more")) == (
        403,
        "case-not-yours",
    )
    assert post(pair.acquirer, ref, "take", otto, "otto-takes-2")[1]["taken_by"] == "otto"
    lays = post(pair.acquirer, ref, "release", {}, "the-admin-lays", "admin")
    assert (lays[0], lays[1]["taken_by"]) == (200, None)
    said = pair.acquirer.rows(
        "SELECT action, actor, detail FROM events WHERE action ~ '^case[.](taken|laid)'"
        " ORDER BY event_id"
    )
    assert said == [
        ("case.taken_on", "key:operator", "mara"),
        ("case.laid_down", "key:operator", ""),
        ("case.taken_on", "key:operator", "otto"),
        ("case.laid_down", "key:admin", ""),
    ]


def test_a_closed_case_is_nobodys_to_take(pair: Pair) -> None:
    ref = missing_at_issuer(pair)
    settle_by_hand(pair, pair.acquirer.cases())
    pair.work()
    assert kind_of(post(pair.acquirer, ref, "take", {}, "too-late-now")) == (409, "case-moved-on")
    assert kind_of(post(pair.acquirer, "ab" * 32, "take", {}, "no-such-one")) == (
        404,
        "break-unknown",
    )


def test_readers_read_and_do_nothing_else(pair: Pair) -> None:
    ref = missing_at_issuer(pair)
    assert kind_of(post(pair.acquirer, ref, "propose", PROPOSAL, role="reader")) == (
        403,
        "role-too-small",
    )
    with pair.acquirer.api.http("reader") as http:
        closes = http.get("/v1/closes", params={"counterparty": "aurora", "limit": 1}).json()
        [close] = closes["items"]
        assert (close["stage"], close["breaks"], close["open_breaks"]) == ("BROKEN", 1, 1)
        assert close["close_root"] != close["other_root"]
        detail = http.get(f"/v1/closes/{close['close_id']}").json()
        assert [stage["stage"] for stage in detail["stages"]] == [
            "PREPARED",
            "COMMITTED",
            "REVEALED",
            "BROKEN",
        ]
        assert [entry["break_ref"] for entry in detail["break_items"]] == [ref]
        shown = http.get(f"/v1/breaks/{ref}").json()
        assert "salt" not in str(shown)
        assert "blind" not in str(detail)
        assert (shown["kind"], shown["owner"], shown["overdue"]) == (
            "MISSING_AT_ISSUER",
            "meridian",
            False,
        )
        assert http.get("/v1/breaks", params={"state": "closed"}).json()["items"] == []
        assert http.get("/v1/breaks/" + "0" * 64).status_code == 404
        assert http.get("/v1/closes/999").status_code == 404


def test_breaks_and_closes_come_in_pages(pair: Pair) -> None:
    pair.both(3)
    for _ in range(3):
        mine, _ = pair.pair(**PAID)
        pair.acquirer.write(mine)
    pair.work()
    seen: list[str] = []
    cursor = None
    with pair.issuer.api.http("reader") as http:
        while True:
            query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
            page = http.get("/v1/breaks", params=query).json()
            seen += [entry["break_ref"] for entry in page["items"]]
            cursor = page["next"]
            if cursor is None:
                break
    assert len(seen) == len(set(seen)) == 3


def test_only_the_acquirer_of_a_judged_close_may_compare(pair: Pair) -> None:
    pair.both(3)
    question = encode(Subject(KEY, 0).question(findings=True))

    async def ask(caller: str) -> bytes:
        async with client(pair.issuer, caller) as one:
            return await one.compare(question)

    for caller in ("harbor", "aurora"):
        pair.acquirer.node.directory.add(MERCHANT_MEMBER, "merchant", "http://127.0.0.1:1")
        with pytest.raises(NodeRefused, match="403"):
            run(ask(caller))
    with pytest.raises(NodeRefused, match="404 urn:countersign:problem:close-unknown"):
        run(ask("meridian"))
    pair.issuer.jobs.close()
    with pytest.raises(NodeRefused, match="409 urn:countersign:problem:close-not-judged"):
        run(ask("meridian"))
    pair.work()
    assert decode_answer(run(ask("meridian"))).findings is not None
    with pair.issuer.api.http("admin") as http:
        media = {"Content-Type": "application/vnd.countersign.comparison"}
        assert http.post("/v1/comparisons", content=question, headers=media).status_code == 403
        assert http.post("/v1/comparisons", json={}).status_code == 415
    with pair.issuer.api.http(None) as http:
        assert http.post("/v1/comparisons", content=question, headers=media).status_code == 401
        wrong = media | {"Authorization": "Bearer nonsense"}
        assert http.post("/v1/comparisons", content=question, headers=wrong).status_code == 401


def test_a_foreign_member_gets_no_case_and_takes_no_step(pair: Pair) -> None:
    ref = bytes.fromhex(missing_at_issuer(pair))
    pair.acquirer.node.directory.add(MERCHANT_MEMBER, "merchant", "http://127.0.0.1:1")

    async def try_all(caller: str, step: CaseStep) -> tuple[int, CaseOutcome]:
        async with client(pair.acquirer, caller) as one:
            events = await one.case_events(0)
            outcome = await one.case_step(ref, step, actor="x", idempotency_key="key-of-it")
            return len(events), outcome

    assert run(try_all("harbor", CaseStep.COUNTERSIGNED)) == (0, CaseOutcome.BREAK_UNKNOWN)
    # The issuer reports no correction of the acquirer's books, and closes nothing.
    with pytest.raises(NodeRefused, match="403"):
        run(try_all("aurora", CaseStep.CORRECTED))
    with pytest.raises(NodeRefused, match="422"):
        run(try_all("aurora", CaseStep.CLOSED))


def test_an_issuer_does_not_open_a_case_that_its_own_books_contradict(pair: Pair) -> None:
    from nodes.clearing.model import Break
    from nodes.clearing.operations.cases import CaseRefused, open_cases
    from nodes.clearing.queries import close_of
    from nodes.clock import to_datetime

    [(mine, _), *_] = pair.both(3)
    pair.work()
    with transaction(pair.acquirer.database.engine) as connection:
        staged = close_of(connection, KEY, 0)
        assert staged is not None
        lie = Break(BreakKind.MISSING_AT_ISSUER, mine.txid, lacking="issuer")
        now = to_datetime(pair.clock.now_ms())
        open_cases(connection, staged.close, [lie], member="meridian", now=now, case_s=60)
    with pytest.raises(CaseRefused, match="the transaction is here"):
        pair.issuer.jobs.reconcile()
    assert pair.issuer.cases() == []


def test_a_case_keeper_that_is_away_is_named_and_nothing_is_done(pair: Pair) -> None:
    ref = missing_at_issuer(pair)
    pair.acquirer.node.directory.add("meridian", "acquirer", "http://127.0.0.1:1")
    assert kind_of(post(pair.issuer, ref, "propose", PROPOSAL)) == (503, "case-keeper-unreachable")
    pair.acquirer.node.directory.add("meridian", "acquirer", pair.acquirer.api.url)
    assert post(pair.issuer, ref, "propose", PROPOSAL)[0] == 200


def test_what_is_late_is_missing_once_its_time_is_over_and_then_agreed_on(pair: Pair) -> None:
    pair.both(4)
    mine, _ = pair.pair(**PAID)
    from tests.integration.clearing.institutions import resealed

    pair.acquirer.write(resealed(mine, transmitted_ms=pair.clock.now_ms() - 1000))
    pair.work()
    [late] = pair.acquirer.cases()
    assert late.case.kind is BreakKind.LATE
    ref = late.case.break_ref.hex()
    assert kind_of(post(pair.acquirer, ref, "propose", PROPOSAL)) == (409, "break-not-due")
    with transaction(pair.acquirer.database.engine) as connection:
        from nodes.clearing.operations.cases import take_step
        from nodes.clock import to_datetime

        after = to_datetime(pair.clock.now_ms() + 2 * 3_600_000)
        done = take_step(
            connection,
            late.case.break_ref,
            CaseStep.OVERDUE,
            member="meridian",
            actor="node",
            now=after,
        )
        assert done.outcome is CaseOutcome.DONE
    pair.issuer.jobs.reconcile()
    [missing] = pair.issuer.cases()
    assert missing.case.kind is BreakKind.MISSING_AT_ISSUER
    settle_by_hand(pair, [missing], proposer="issuer")
    pair.work(30)
    assert pair.round(1).state.name == "CONFIRMED"
