"""`countersign receipt --challenge --via`: a member's node takes an overdue promise on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from nodes.anchoring.receipt import Promise
from nodes.chain.challenges import claim_id_of
from sandbox.cli import make_app
from tests.factories.relay import PATH, Relay, relay_node, sent_of
from tests.factories.sealed_receipts import SealedReceipt, sealed_receipt

OVERDUE = 1_700_000_000
LATER = 4_000_000_000


@pytest.fixture
def relay() -> Iterator[Relay]:
    with relay_node() as node:
        yield node


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for files; no network is described anywhere."""
    monkeypatch.setenv("DEMO_DIR", str(tmp_path / "none"))
    return tmp_path


def overdue() -> Promise:
    return sealed_receipt(merge_deadline=OVERDUE).promise


def run(files: Path, via: str, *more: str, receipt: SealedReceipt | None = None) -> Result:
    receipt = receipt or sealed_receipt(merge_deadline=OVERDUE)
    (files / "roots.json").write_text(receipt.roots.encode())
    code = "https://shop.example/r#" + receipt.promise.encode()
    options = ["--offline", "--roots", str(files / "roots.json"), "--challenge", "--via", via]
    return CliRunner().invoke(make_app(), ["receipt", code, *options, *more])


def claim_id(promise: Promise) -> str:
    return claim_id_of(promise.member_id, promise.txid, promise.commitment).hex()


@pytest.mark.parametrize(
    ("state", "by", "reason", "told"),
    [
        ("queued", None, None, "QUEUED; the node is going to send it: run this again"),
        ("claimed", LATER, None, "CLAIMED; {member} may answer until 2096-10-02T07:06:40+00:00"),
        ("claimed", OVERDUE, None, "could answer until 2023-11-14T22:13:20+00:00: the node is"),
        ("claimed", None, None, "CLAIMED; {member} may answer\n"),
        ("answered", OVERDUE, None, "ANSWERED; {member} has shown the chain that it is anchored"),
        ("proven", OVERDUE, None, "PROVEN; that {member} left it out stands on the chain (Omiss"),
        ("refused", None, "PromiseTooOld", "REFUSED; PromiseTooOld"),
        ("refused", None, None, "REFUSED; the node says no reason"),
    ],
)
def test_each_state_is_told(
    files: Path, relay: Relay, state: str, by: int | None, reason: str | None, told: str
) -> None:
    promise = overdue()
    relay.answers(promise, state, by, reason)
    said = run(files, relay.url + "/")
    assert said.exit_code == 1, said.output
    assert said.stdout.startswith("REFUSED PROMISE_OVERDUE")
    assert f"claim {claim_id(promise)}, says {relay.url}: " in said.stdout
    assert told.format(member=promise.member_id) in said.stdout
    assert relay.asked == [("POST", PATH, sent_of(promise))]
    assert promise.salt_fin.hex() not in str(relay.asked)


def test_run_again_it_tells_how_far_it_is(files: Path, relay: Relay) -> None:
    promise = overdue()
    for state, word in (("queued", "QUEUED"), ("claimed", "CLAIMED"), ("proven", "PROVEN")):
        relay.answers(promise, state)
        assert f": {word}; " in run(files, relay.url).stdout


def test_json_stays_the_verdicts_alone(files: Path, relay: Relay) -> None:
    relay.answers(overdue(), "queued")
    said = run(files, relay.url, "--json")
    assert json.loads(said.stdout)["reason"] == "PROMISE_OVERDUE"
    assert "QUEUED" in said.stderr


@pytest.mark.parametrize(
    ("status", "kind", "extra", "named"),
    [
        (409, "claim-refused", {"reason": "NotPromiseKey"}, "(409, claim-refused, NotPromiseKey)"),
        (409, "claims-not-taken", {}, "(409, claims-not-taken)"),
        (422, "schema", {}, "(422, schema)"),
        (429, "too-many-at-once", {}, "(429, too-many-at-once)"),
        (503, "chain-away", {}, "(503, chain-away)"),
        (503, "claims-full", {"reason": ["no text"]}, "(503, claims-full)"),
    ],
)
def test_a_problem_is_told_with_its_detail(
    files: Path, relay: Relay, status: int, kind: str, extra: dict[str, str], named: str
) -> None:
    relay.refuses(status, kind, "not \x1b[2Jnow", **extra)
    said = run(files, relay.url)
    assert said.exit_code == 2
    last = said.stderr.splitlines()[-1]  # logging may complain of an earlier test's closed stream
    assert last == f"CANNOT CHECK: {relay.url} doesn't take it: not [2Jnow {named}"


def test_what_is_no_nodes_answer_is_not_believed(files: Path, relay: Relay) -> None:
    promise = overdue()
    own = claim_id(promise)
    documents = [
        {"claim_id": own, "state": "won", "answer_by": None, "reason": None},
        {"claim_id": own},
        {"claim_id": "00" * 32, "state": "proven", "answer_by": None, "reason": None},
        {"claim_id": own, "state": "claimed", "answer_by": "soon", "reason": None},
        {"claim_id": own, "state": "claimed", "answer_by": True, "reason": None},
        {"claim_id": own, "state": "claimed", "answer_by": 10**18, "reason": None},
    ]
    for raw in (*(json.dumps(each).encode() for each in documents), b"<html>", b"[]", b"\xff"):
        relay.raw = raw
        said = run(files, relay.url)
        assert said.exit_code == 2, raw
        assert "is it a member's node?" in said.stderr
    relay.raw = b" " * 70_000
    assert "answers more than a node does" in run(files, relay.url).stderr
    relay.status, relay.raw = 404, b"not here"
    assert f"{relay.url} doesn't take it: 404\n" in run(files, relay.url).stderr


def test_a_node_that_is_away(files: Path) -> None:
    said = run(files, "http://127.0.0.1:1")
    assert said.exit_code == 2
    assert said.stderr == (
        "CANNOT CHECK: the node http://127.0.0.1:1 can't be asked (ConnectError)\n"
    )


@pytest.mark.parametrize(
    "via",
    ["node.example", "ftp://node.example", "https://", "https://n:x/", "https://n/r#promise",
     "https://me:pw@n", "https://n/?a=b", "https://n:0"],
)  # fmt: skip
def test_what_is_no_nodes_address_is_named_before_anything_is_judged(files: Path, via: str) -> None:
    said = run(files, via)
    assert said.exit_code == 2
    assert said.stdout == ""
    assert f"--via {via!r} is no node's address" in said.stderr


def test_only_an_overdue_promise_is_sent(files: Path, relay: Relay) -> None:
    pending = sealed_receipt()
    assert run(files, relay.url, receipt=pending).exit_code == 3
    assert relay.asked == []


def test_a_key_or_a_node_and_not_both(files: Path, relay: Relay) -> None:
    key = files / "key"
    key.write_text("11" * 32)
    both = run(files, relay.url, "--key-file", str(key))
    alone = CliRunner().invoke(make_app(), ["receipt", "code", "--via", relay.url])
    for said in (both, alone):
        assert said.exit_code == 2
        assert "--via goes with --challenge, and without --key-file" in said.stderr
    assert relay.asked == []


def test_with_neither_it_says_what_it_needs(files: Path) -> None:
    said = run(files, "")
    assert said.exit_code == 2
    assert "a challenge without a chain key: --via" in said.stderr
