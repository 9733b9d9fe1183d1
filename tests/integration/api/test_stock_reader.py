"""The log as Go's own reader of transparency logs has it: golang.org/x/mod/sumdb, note and tlog.

The program in stock_reader/ is the few lines that such a reader needs around them. Skipped where
there is no Go, or where its module cache lacks the one module: nothing is fetched
(`cd tests/integration/api/stock_reader && go mod download` does).
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from nodes.anchoring.note import NoteSigner
from tests.factories.evidence import LogMember
from tests.factories.ledger import LedgerFactory
from tests.integration.api.running import KEYS, RunningNode
from tests.integration.api.served_log import served

SOURCE = Path(__file__).with_name("stock_reader")
_GO_ENVIRONMENT = {
    "CGO_ENABLED": "0",
    "GOFLAGS": "-mod=readonly",
    "GOPROXY": "off",
    "GOTOOLCHAIN": "local",
    "GOWORK": "off",
}
_BUILD_TIMEOUT_S = 300
_RUN_TIMEOUT_S = 60


def go(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of Go's in the program's directory."""
    return subprocess.run(
        ["go", *arguments],
        cwd=SOURCE,
        env=os.environ | _GO_ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=_BUILD_TIMEOUT_S,
        check=False,
    )


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built reader."""
    if shutil.which("go") is None:
        pytest.skip("the stock reader is built with Go, and there is no `go` on this machine")
    there = go("mod", "download")
    if there.returncode:
        pytest.skip(f"Go has no golang.org/x/mod here: {there.stderr.strip()}")
    path = tmp_path_factory.mktemp("stock-reader") / "stockreader"
    built = go("build", "-buildvcs=false", "-o", str(path), ".")
    assert built.returncode == 0, built.stderr
    return path


@dataclass
class Reader:
    """What an outsider with stock tools has: the node's address, the member's note key, files."""

    program: Path
    node: RunningNode
    origin: str
    note_key: bytes
    earlier: Path
    proofs: list[Path] = field(default_factory=list)

    def run(self, **other: Any) -> subprocess.CompletedProcess[str]:
        """`other`: origin, note_key, earlier or proofs that differ."""
        with_ = {**vars(self), **other}
        return subprocess.run(
            [
                *(str(self.program), self.node.url, with_["origin"], with_["note_key"].hex()),
                *(str(with_["earlier"]), *map(str, with_["proofs"])),
            ],
            env={"READER_KEY": KEYS["reader"]},
            capture_output=True,
            text=True,
            timeout=_RUN_TIMEOUT_S,
            check=False,
        )

    def refusal(self, **other: Any) -> str:
        """Why it doesn't believe what it reads."""
        done = self.run(**other)
        assert (done.returncode, done.stdout) == (1, ""), done
        return done.stderr.strip()


@pytest.fixture
def reader(member: LogMember, program: Path, tmp_path: Path) -> Any:
    """A log of 530 entries, more than two tiles wide, and the checkpoint of its first 260."""
    factory = LedgerFactory(member.database.engine, "acquirer")
    records = factory.add(260)
    member.anchor_all()
    with served(member) as node, node.http(None) as public, node.http("reader") as staff:
        earlier = tmp_path / "checkpoint-260"
        earlier.write_bytes(public.get("/checkpoint").content)
        records += factory.add(270)
        while member.seal(100):
            pass
        member.settle()
        origin = str(member.context.identity.origin)
        made = Reader(program, node, origin, member.signer.public_key, earlier)
        for record in (records[0], records[255], records[300], records[-1]):
            answer = staff.get(f"/v1/transactions/{record.txid.hex()}/proof")
            assert answer.status_code == 200, answer.text
            made.proofs.append(tmp_path / f"{record.txid.hex()[:8]}.tlog-proof")
            made.proofs[-1].write_bytes(answer.content)
        yield made


def test_a_stock_reader_proves_the_whole_log(reader: Reader) -> None:
    done = reader.run()
    assert done.returncode == 0, done.stderr
    with reader.node.http(None) as public:
        _origin, size, root = public.get("/checkpoint").text.split("\n")[:3]
    assert json.loads(done.stdout) == {
        "size": int(size),
        "root": base64.b64decode(root).hex(),
        "earlier_size": 260,
        "records_proven": 530,
        # Three of the entries' hashes, and the one above them.
        "hash_tiles_fetched": 4,
        "proof_files": 4,
    }


def test_a_stock_reader_refuses_another_key_and_another_log(reader: Reader) -> None:
    stranger = NoteSigner(bytes(range(32))).public_key
    assert "no verifiable signatures" in reader.refusal(note_key=stranger)
    assert "no verifiable signatures" in reader.refusal(origin=f"{reader.origin}x")


def test_a_stock_reader_refuses_a_past_that_the_log_does_not_continue(
    reader: Reader, member: LogMember, tmp_path: Path
) -> None:
    """Signed with the right key, for another root."""
    fork = tmp_path / "checkpoint-fork"
    text = f"{reader.origin}\n260\n{base64.b64encode(bytes(32)).decode()}\n"
    fork.write_text(member.signer.sign(reader.origin, text).encode(), encoding="utf-8")
    assert reader.refusal(earlier=fork).startswith("consistency of 260 with 530: ")


def test_a_stock_reader_refuses_altered_proofs(reader: Reader, tmp_path: Path) -> None:
    header, extra, index, *rest = reader.proofs[0].read_text(encoding="utf-8").split("\n")
    document = json.loads(base64.b64decode(extra.removeprefix("extra ")))
    document["leaf"]["terminal_seq"] = f"{int(document['leaf']['terminal_seq'], 16) + 1:064x}"
    other_leaf = f"extra {base64.b64encode(json.dumps(document).encode()).decode()}"
    altered = tmp_path / "altered.tlog-proof"
    assert index == "index 0"
    for lines in (
        [header, other_leaf, index, *rest],
        [header, extra, "index 1", *rest],
        [header, extra, index, *rest[1:]],
        [header, extra, index, rest[1], rest[0], *rest[2:]],
    ):
        altered.write_text("\n".join(lines), encoding="utf-8")
        assert "invalid transparency proof" in reader.refusal(proofs=[altered])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            "UPDATE log_leaves SET leaf = set_byte(leaf, 319, 255) WHERE log_index = 400",
            "record 400",
        ),
        (
            "UPDATE log_leaves SET leaf_hash = set_byte(leaf_hash, 0, 255 - get_byte(leaf_hash, 0))"
            " WHERE log_index = 400",
            "downloaded inconsistent tile",
        ),
    ],
    ids=["an entry", "a hash"],
)
def test_a_stock_reader_refuses_what_was_changed_in_the_database(
    reader: Reader, member: LogMember, change: str, reason: str
) -> None:
    with psycopg.connect(member.database.admin_dsn) as owner:
        owner.execute("SET session_replication_role = replica")
        assert owner.execute(change).rowcount == 1
    assert reason in reader.refusal()
