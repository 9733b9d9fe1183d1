"""What must be true after a business day: looked up from outside, as any third party could.

Ledgers are read over the nodes' APIs, proofs are verified by the `countersign verify` command in a
process of its own, invariants by the checker of nodes/reconciliation.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodes.chain.anchors import AnchorRegistry
from nodes.chain.client import ChainClient
from nodes.chain.contracts import ANCHOR_REGISTRY
from nodes.db.engine import make_engine
from nodes.money import Money
from nodes.reconciliation.invariants import check_invariants
from nodes.reconciliation.ledger_check import read_anchors
from sandbox.founding import NodeAdministration
from sandbox.network import ACQUIRER, ISSUERS, MEMBERS, MERCHANT, write_private
from sandbox.services import Network
from sandbox.traffic import Day, Step, merchant_member

#: A day's last row must be anchored within this time (seal, publish, confirm).
_ANCHORED_WITHIN_S = 90.0
_MERCHANT_WITHIN_S = 60.0
#: Closing, comparing and both signatures.
_SETTLED_WITHIN_S = 100.0


@dataclass(frozen=True)
class Check:
    """One claim about the network, and whether it held."""

    label: str
    held: bool
    note: str


@dataclass(frozen=True)
class Recorded:
    """A purchase as a terminal saw it, and the acquirer's record of it."""

    step: Step
    txid: str
    record: dict[str, Any]


class Checks:
    """The checks of one day; `tell` hears of each when it is done."""

    def __init__(self, network: Network, day: Day, tell: Callable[[Check], None]) -> None:
        self._network = network
        self.day = day
        self._tell = tell
        self._nodes: dict[str, NodeAdministration] = {}
        self.done: list[Check] = []
        self.proof_file: Path | None = None

    @property
    def held(self) -> bool:
        """Whether every check held."""
        return all(check.held for check in self.done)

    def run(self) -> None:
        """All of them, in an order in which each stands on the one before."""
        with ExitStack() as stack:
            for member in MEMBERS:
                self._nodes[member.member_id] = stack.enter_context(
                    NodeAdministration(self._network.state, member.member_id)
                )
            recorded = self._both_ledgers()
            self._merchant_record(recorded)
            if recorded:
                self._proofs(recorded)
                self._statements(recorded)
            self._invariants()

    # ---------------------------------------------------------------------

    def _both_ledgers(self) -> list[Recorded]:
        """Each approved purchase stands in acquirer's and issuer's ledger with equal txid and C."""
        found: list[Recorded] = []
        wrong: list[str] = []
        by_issuer = dict.fromkeys(ISSUERS, 0)
        for step in self.day.purchases():
            problem, recorded = self._look_up(step)
            if recorded is None:
                wrong.append(problem)
                continue
            found.append(recorded)
            by_issuer[recorded.record["issuer"]] += 1
        parts = ", ".join(f"{count} of {issuer}" for issuer, count in by_issuer.items())
        held = not wrong and all(by_issuer.values())
        self._say(
            f"{len(found)} purchases stand in the issuer's and the acquirer's ledger with equal "
            "txid and C",
            held,
            parts if held else "; ".join([*wrong, parts]),
        )
        return found

    def _look_up(self, step: Step) -> tuple[str, Recorded | None]:
        if step.reply is None or step.card is None:
            return f"{step.label}: no reply", None
        page = self._nodes[ACQUIRER].get(
            "/v1/transactions",
            rrn=step.reply.rrn,
            terminal_id=step.terminal_id,
            side="acquirer",
        )
        if len(page["items"]) != 1:
            return f"RRN {step.reply.rrn}: {len(page['items'])} at the acquirer", None
        acquired = page["items"][0]
        txid, issuer = acquired["txid"], acquired["issuer"]
        if issuer != step.card["member"] or acquired["amount"] != step.amount:
            return f"{txid}: not what the terminal asked for", None
        issued = self._nodes[issuer].get(f"/v1/transactions/{txid}", side="issuer")
        for name in ("txid", "commitment", "outcome", "amount", "approval_code"):
            if issued[name] != acquired[name]:
                return f"{txid}: {name} differs between {ACQUIRER} and {issuer}", None
        if acquired["approval_code"] != step.reply.fields.get(38):
            return f"{txid}: the terminal was told another approval code", None
        return "", Recorded(step, txid, acquired)

    def _merchant_record(self, recorded: list[Recorded]) -> None:
        """The merchant's own node has its purchases, with the same C, from the acquirer's feed."""
        own = [
            entry
            for entry in recorded
            if merchant_member(entry.record["merchant_id"].strip()) == MERCHANT
        ]
        node = self._nodes[MERCHANT]
        missing = {entry.txid: entry.record["commitment"] for entry in own}
        deadline = time.monotonic() + _MERCHANT_WITHIN_S
        while True:
            for item in node.pages("/v1/transactions", side="merchant", limit=100):
                if missing.get(item["txid"]) == item["commitment"]:
                    del missing[item["txid"]]
            if not missing or time.monotonic() > deadline:
                break
            time.sleep(0.3)
        self._say(
            f"{len(own)} purchases stand in the merchant's own node with the same C",
            bool(own) and not missing,
            MERCHANT if not missing else f"{len(missing)} missing",
        )

    def _proofs(self, recorded: list[Recorded]) -> None:
        """The day's last purchase is proven by both; a copy with a byte altered is refused."""
        chosen = recorded[-1]
        for member in (ACQUIRER, chosen.record["issuer"]):
            label = f"{member}'s proof of {chosen.txid[:12]}… verifies against the chain"
            proof = self._await_proof(member, chosen.txid)
            if proof is None:
                self._say(label, False, self._why_unanchored(member))
                continue
            proofs = self._network.directory.path / "proofs"
            proofs.mkdir(mode=0o700, exist_ok=True)
            file = proofs / f"{member}-{chosen.txid[:16]}.proof"
            write_private(file, proof)
            status, said = self._verify(file)
            self._say(label, status == 0 and said.startswith("PROVEN"), said)
            if member == ACQUIRER:
                self.proof_file = file
                self._altered(file)

    def _altered(self, file: Path) -> None:
        content = bytearray(file.read_bytes())
        place = _place_to_alter(content)
        # Another character of the same class, so that the copy looks as good as the original.
        content[place] = ord("B") if content[place] == ord("A") else ord("A")
        copy = file.with_suffix(".altered.proof")
        write_private(copy, content.decode())
        status, said = self._verify(copy)
        refused = status == 1 and said.startswith("REFUSED")
        self._say(f"a copy with byte {place} of {len(content)} altered is refused", refused, said)

    def _await_proof(self, member: str, txid: str) -> str | None:
        deadline = time.monotonic() + _ANCHORED_WITHIN_S
        while time.monotonic() < deadline:
            proof = self._nodes[member].text(f"/v1/transactions/{txid}/proof")
            if proof is not None:
                return proof
            time.sleep(0.2)
        return None

    def _why_unanchored(self, member: str) -> str:
        log = self._network.directory.log / f"{member}-worker.log"
        return f"not anchored after {_ANCHORED_WITHIN_S:.0f} s; see {log}"

    def _verify(self, file: Path) -> tuple[int, str]:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "sandbox.cli", "verify", str(file)),
                *("--network", str(self._network.directory.network_file)),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        said = (done.stdout + done.stderr).strip().splitlines()
        return done.returncode, said[0].strip() if said else f"status {done.returncode}"

    def _statements(self, recorded: list[Recorded]) -> None:
        """The day is closed alike by each pair, and both have signed who pays whom what."""
        last = {entry.record["issuer"]: entry.record for entry in recorded}
        deadline = time.monotonic() + _SETTLED_WITHIN_S
        for issuer, record in last.items():
            settled: tuple[dict[str, Any], dict[str, Any]] | None = None
            while settled is None and time.monotonic() < deadline:
                settled = self._settled(issuer, record)
                if settled is None:
                    time.sleep(0.5)
            label = f"{ACQUIRER} and {issuer} have closed and settled {record['business_date']}"
            if settled is None:
                self._say(label, False, f"not settled after {_SETTLED_WITHIN_S:.0f} s")
                continue
            mine, theirs = settled
            same = ("settlement_id", "statement_hash", "payer", "payee", "net", "items")
            equal = all(mine[name] == theirs[name] for name in same)
            signed = mine["acquirer_signed"] and mine["issuer_signed"] and theirs["agrees"]
            net = Money(mine["net"], mine["currency"])
            note = f"{mine['payer'] or 'nobody'} pays {net} for {mine['items']} items, both signed"
            self._say(label, equal and signed, note if equal and signed else "they differ")

    def _settled(
        self, issuer: str, record: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Both nodes' statement of a day's newest close, once it is confirmed and signed, and was
        made after this record of it."""
        found: list[dict[str, Any]] = []
        for member in (ACQUIRER, issuer):
            page = self._nodes[member].get(
                "/v1/closes",
                business_date=record["business_date"],
                counterparty=issuer if member == ACQUIRER else ACQUIRER,
            )
            closes = [c for c in page["items"] if c["currency"] == record["currency"]]
            newest = max(closes, key=lambda close: close["revision"], default=None)
            if newest is None or newest["closed_at"] < record["decided_at"]:
                return None
            if newest["settlement_state"] not in ("CONFIRMED", "FINAL"):
                return None
            items = self._nodes[member].get("/v1/settlements", close_id=newest["close_id"])["items"]
            number = items[0]["settlement_id"]
            found.append(self._nodes[member].get(f"/v1/settlements/{number}"))
        return found[0], found[1]

    def _invariants(self) -> None:
        """In each database, and its anchored roots compared with the chain's."""
        client = ChainClient(self._network.rpc_url)
        registry = AnchorRegistry(client, self._network.state.contracts[ANCHOR_REGISTRY])
        for member in MEMBERS:
            anchors = read_anchors(registry, member.member_id)
            engine = make_engine(self._network.dsn(member.member_id, "worker"))
            try:
                violations = check_invariants(engine, anchors=anchors)
            finally:
                engine.dispose()
            note = f"{len(anchors)} roots on chain"
            if violations:
                note = "; ".join(str(found) for found in violations[:5])
            self._say(f"the invariants hold at {member.member_id}", not violations, note)

    def _say(self, label: str, held: bool, note: str) -> None:
        check = Check(label, held, note)
        self.done.append(check)
        self._tell(check)


def _place_to_alter(proof: bytearray) -> int:
    """A byte of the first hash on the way to the root; in a log of one entry, of the leaf."""
    lines = proof.split(b"\n")
    start = 0
    for number, line in enumerate(lines):
        start += len(line) + 1
        if line.startswith(b"index "):
            return start + 8 if lines[number + 1] else len(proof) // 2
    return len(proof) // 2
