"""What each call costs: `python -m tests.contracts.gas` writes the table of docs/contracts.md.

Measured on py-evm as a transaction pays it: 21,000, calldata, execution, refunds taken off.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from nodes.crypto.merkle import EMPTY_ROOT, leaf_hash, node_hash
from nodes.ids import member_word
from tests.contracts import omitting, settling
from tests.contracts.closing import KEY, OPENING, TOTALS
from tests.contracts.closing import founded as closing_founded
from tests.contracts.council import GOVERNORS, rename
from tests.contracts.council import founded as council_founded
from tests.contracts.machine import Answer, Contract, Evm
from tests.contracts.settling import DISPUTE_S, JUDGES, SIGN_S
from tests.contracts.world import GOVERNANCE, STRANGER, World, address_of, word

DOCUMENT = Path(__file__).parents[2] / "docs" / "contracts.md"
BEGIN, END = "<!-- gas: begin -->", "<!-- gas: end -->"
BATCH = 1_000
LARGEST_LOG = 10_000_000
Row = tuple[str, str, int]

# ---------------------------------------------------------------- a log of equal leaves


@functools.cache
def root_of_equal(size: int) -> bytes:
    """The root of a log of `size` equal leaves, which takes no time for any size."""
    if size == 0:
        return EMPTY_ROOT
    if size == 1:
        return leaf_hash(b"leaf")
    half = 1 << ((size - 1).bit_length() - 1)
    return node_hash(root_of_equal(half), root_of_equal(size - half))


def proof_of_equal(old: int, new: int, complete: bool = True) -> list[bytes]:
    """The consistency proof from `old` to `new` equal leaves (RFC 9162, 2.1.4.1)."""
    if old == new:
        return [] if complete else [root_of_equal(old)]
    half = 1 << ((new - 1).bit_length() - 1)
    if old <= half:
        return [*proof_of_equal(old, half, complete), root_of_equal(new - half)]
    return [*proof_of_equal(old - half, new - half, False), root_of_equal(half)]


def longest_proof(batch: int, largest: int) -> int:
    """The head from which an anchor of one more batch has the longest proof."""
    return max(
        range(batch, largest, batch), key=lambda size: len(proof_of_equal(size, size + batch))
    )


def anchor_gas(head: int, size: int) -> int:
    """What anchoring costs from `head` leaves to `size`."""
    evm = Evm()
    world = World.found(evm)
    anchors = evm.deploy("AnchorRegistry", STRANGER.address, world.registry.address, bytes(20))
    sender = world.operator("aurora").address

    def anchor(seq: int, old: int, new: int) -> Answer:
        evm.pass_time(10, 3)
        proof = proof_of_equal(old, new) if old else []
        roots = (root_of_equal(old), root_of_equal(new))
        # The newest block's parent, as nodes name it, two blocks before the anchor's own.
        return anchors.must(
            sender, "anchor", seq, new, *roots, proof, evm.block_hash(2), word("meta")
        )

    if not head:
        return anchor(1, 0, size).gas
    anchor(1, 0, head)
    return anchor(2, head, size).gas


# ---------------------------------------------------------------- the rows


def anchors() -> Iterator[Row]:
    worst = longest_proof(BATCH, LARGEST_LOG)
    yield "AnchorRegistry", "anchor, the first", anchor_gas(0, BATCH)
    for head in (1_000, 100_000, 1_000_000):
        nodes = len(proof_of_equal(head, head + BATCH))
        label = f"anchor, {BATCH:,} leaves onto {head:,} (proof of {nodes})"
        yield "AnchorRegistry", label, anchor_gas(head, head + BATCH)
    nodes = len(proof_of_equal(worst, worst + BATCH))
    label = f"anchor, {BATCH:,} onto {worst:,}, the longest proof up to {LARGEST_LOG:,} ({nodes})"
    yield "AnchorRegistry", label, anchor_gas(worst, worst + BATCH)


def versions() -> Iterator[Row]:
    evm = Evm()
    world = World.found(evm)
    members, sender = world.registry.address, world.operator("aurora").address
    first = evm.deploy("AnchorRegistry", STRANGER.address, members, bytes(20))

    def anchor(at: Contract, seq: int, old: int, new: int) -> Answer:
        evm.pass_time(10, 3)
        proof = proof_of_equal(old, new) if old else []
        roots = (root_of_equal(old), root_of_equal(new))
        return at.must(sender, "anchor", seq, new, *roots, proof, evm.block_hash(2), word("meta"))

    anchor(first, 1, 0, BATCH)
    second = evm.deploy("AnchorRegistry", STRANGER.address, members, first.address)
    retired = first.must(GOVERNANCE.address, "retire", second.address)
    yield "AnchorRegistry", "retire", retired.gas
    label = "first anchor at a successor, once a member (proof of 9)"
    yield "AnchorRegistry", label, anchor(second, 2, BATCH, 2 * BATCH).gas


def members() -> Iterator[Row]:
    evm = Evm()
    world = World.found(evm)
    send = world.registry.must
    name, key = "MemberRegistry", word("fresh")
    promise = address_of("promise").rjust(32, b"\0")
    aurora, operator = member_word("aurora"), world.operator("aurora").address
    registration = (
        member_word("fresh"),
        1,
        "Fresh Bank",
        "https://node.fresh.example",
        ["622388"],
        address_of("fresh"),
        word("fresh note"),
        word("fresh message"),
    )
    owner = GOVERNANCE.address
    calls: list[tuple[str, bytes, str, tuple[object, ...]]] = [
        ("register (one BIN)", owner, "register", (registration,)),
        ("setName", owner, "setName", (aurora, "Aurora Bank")),
        ("setRoles", owner, "setRoles", (aurora, 3)),
        ("setBins (one more)", owner, "setBins", (aurora, [], ["622399"])),
        ("setApiUrl", operator, "setApiUrl", (aurora, "https://node.aurora.example")),
        ("rotateKey, the first promise key", operator, "rotateKey", (aurora, 3, promise)),
        ("rotateKey", operator, "rotateKey", (aurora, 1, key)),
        ("revoke", owner, "revoke", (aurora,)),
        ("reinstate", owner, "reinstate", (aurora, address_of("again"), word("n"), word("m"))),
        ("transferOwnership", owner, "transferOwnership", (address_of("heir"),)),
        ("acceptOwnership", address_of("heir"), "acceptOwnership", ()),
    ]  # fmt: skip
    for label, sender, function, arguments in calls:
        evm.pass_time(10)
        yield name, label, send(sender, function, *arguments).gas


def closes() -> Iterator[Row]:
    name = "CloseRegistry"
    day = closing_founded().fork()
    yield name, "commit, the first of a close", day.commit("meridian").gas
    yield name, "commit, the second", day.commit("aurora").gas
    yield name, "reveal, the first", day.reveal("meridian").gas
    yield name, "reveal, the second: Confirmed", day.reveal("aurora").gas
    other = (word("another root"), TOTALS, OPENING[2])
    day.both_commit(1, other=other)
    day.reveal("meridian", 1)
    yield name, "reveal, the second: Broken", day.reveal("aurora", 1, other).gas
    yield name, "commit, the first of a further revision", day.commit("meridian", 2).gas
    day.evm.pass_time(1_000)
    yield name, "expire", day.closes.must(STRANGER.address, "expire", KEY.close_id).gas


def settlements() -> Iterator[Row]:
    name = "SettlementRegistry"
    desk = settling.founded().fork()
    yield name, "propose", desk.propose(desk.terms()).gas
    terms = desk.terms(statement_hash=word("another"))
    yield name, "propose, in place of one that waits", desk.propose(terms).gas
    first = desk.id(terms)
    yield name, "confirm", desk.confirm(first).gas
    second = desk.proposed(statement_hash=word("a third"))
    yield name, "confirm, superseding another", desk.confirm(second).gas
    yield name, "dispute (path of 2)", desk.dispute(second).gas
    yield name, "resolve by 2 arbiters", desk.resolve(second).gas
    final = desk.confirmed(statement_hash=word("a fourth"))
    desk.evm.pass_time(DISPUTE_S + 1)
    yield name, "finalize", desk.step("finalize", final).gas
    late = desk.proposed(statement_hash=word("a fifth"))
    desk.evm.pass_time(SIGN_S + 1)
    yield name, "expire", desk.step("expire", late).gas
    judges = [address_of(label) for label in JUDGES]
    answer = desk.registry.must(GOVERNANCE.address, "setArbiters", judges, 2)
    yield name, "setArbiters (3)", answer.gas


def omissions() -> Iterator[Row]:
    name = "OmissionRegistry"
    court = omitting.founded().fork()
    yield name, "claim", court.claim().gas
    there = court.claimed(commitment=omitting.OTHER_C)
    right = omitting.claim_id_of("meridian", omitting.THERE, omitting.C)
    yield name, "answer (path of 2)", court.answer(right).gas
    court.evm.pass_time(omitting.ANSWER_S + 1)
    yield name, "conclude", court.conclude(there).gas


def governance() -> Iterator[Row]:
    council = council_founded().fork()
    action = council.action(rename("aurora", "Aurora Bank"))
    yield "GovernanceQuorum", "execute setName, 2 of 3", council.execute(action, GOVERNORS[:2]).gas


def deployments() -> Iterator[Row]:
    evm = Evm()

    def row(name: str, *arguments: object) -> tuple[bytes, Row]:
        contract = evm.deploy(name, STRANGER.address, *arguments)
        return contract.address, (name, "deployment", evm.deploy_gas)

    registry, first = row("MemberRegistry", GOVERNANCE.address)
    anchor, second = row("AnchorRegistry", registry, bytes(20))
    close, third = row("CloseRegistry", registry, 60, 60)
    _, fourth = row("SettlementRegistry", close, anchor, 60, [], 0)
    _, fifth = row("OmissionRegistry", anchor, 60, 60, 60)
    _, sixth = row("GovernanceQuorum", [address_of("governor-0")], 1)
    yield from (first, second, third, fourth, fifth, sixth)


SECTIONS: tuple[Callable[[], Iterator[Row]], ...] = (
    anchors,
    versions,
    members,
    closes,
    settlements,
    omissions,
    governance,
    deployments,
)


def measure() -> list[Row]:
    """All rows: contract, call, gas."""
    return [row for section in SECTIONS for row in section()]


def table(rows: list[Row]) -> str:
    """The rows as docs/contracts.md shows them."""
    lines = ["| contract | call | gas |", "|---|---|---:|"]
    lines += [f"| {contract} | {call} | {gas:,} |" for contract, call, gas in rows]
    return "\n".join(lines)


def documented() -> list[Row]:
    """The rows that docs/contracts.md shows."""
    text = DOCUMENT.read_text("utf-8")
    part = text[text.index(BEGIN) : text.index(END)]
    found = re.findall(r"^\| (\w+) \| (.+) \| ([\d,]+) \|$", part, re.MULTILINE)
    return [(contract, call, int(gas.replace(",", ""))) for contract, call, gas in found]


def write() -> None:
    """Puts the table between its marks."""
    text = DOCUMENT.read_text("utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    DOCUMENT.write_text(f"{before}{BEGIN}\n{table(measure())}\n{END}{after}", "utf-8")


if __name__ == "__main__":
    write()
