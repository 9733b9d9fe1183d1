"""Anchoring on a real network of validators, with faults: nothing is lost, nothing is doubled.

Skipped where the engine hasn't been built (docs/chain.md, A real network). `-s` shows the figures.
"""

from __future__ import annotations

import contextlib
import random
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nodes.anchoring.block_reader import BlockReader
from nodes.anchoring.operations import confirm, publish
from nodes.anchoring.validators import parse_validators
from nodes.anchoring.verifier import Reason, SealTrust, verify
from nodes.authorization.model import Outcome
from nodes.chain.deploy import send
from nodes.chain.errors import ChainUnavailable
from nodes.chain.signer import LocalSigner
from sandbox.validators.genesis import make_validator, write_settings
from sandbox.validators.ipc import ValidatorDown, ask
from sandbox.validators.network import NetworkFailed, ValidatorNetwork, initialize, spawn
from tests.conftest import NodeDatabase
from tests.factories.network import ACQUIRER, Network
from tests.factories.sealed_bundles import anchored_bundles
from tests.factories.validators import (
    ValidatorMember,
    Validators,
    running_validators,
    wait_until,
)

# A block every second, and a sealer whose turn it isn't waits for up to 1.5 s more (EIP-225).
LONGEST_TURN_S = 3.5


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Validators]:
    with running_validators(tmp_path_factory.mktemp("four"), 4) as validators:
        yield validators


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Validators]:
    with running_validators(tmp_path_factory.mktemp("five"), 5) as validators:
        yield validators


def measured(what: str, seconds: float) -> None:
    print(f"\nmeasured: {what} {seconds:.2f} s")


def assert_anchored_once(member: ValidatorMember, *indexes: int) -> None:
    """Every batch has one anchor, the right one, whichever validator is asked."""
    for index in indexes:
        wait_until(lambda index=index: member.anchors(index) == member.sealed())
    assert member.anchored_seq() == member.sealed()[-1][0]


def test_the_validators_take_turns(four: Validators) -> None:
    network = four.network
    first = network.height(0)
    started = time.monotonic()
    network.wait_for(lambda: network.height(0) >= first + 8, "no blocks")
    seconds = (time.monotonic() - started) / 8
    measured("a block every", seconds)
    assert seconds < 2
    known = {validator.address.lower() for validator in network.validators}
    assert set(network.sealers(0, 8)) == known
    for three in zip(*(network.sealers(0, 8)[start:] for start in range(3)), strict=False):
        assert len(set(three)) == network.finality_depth


def test_gas_is_free_and_anybody_may_pay_nothing(four: Validators) -> None:
    # The newest block counts here: who waits for three sends every fourth block, the same sealer's.
    client = four.client(1, finality_depth=1)
    assert client.gas_price() == 0
    poor = LocalSigner(secrets.token_bytes(32))
    # Told to one validator, sealed by others too: none of them asks for a price.
    sealers = set()
    for _ in range(4):
        receipt = send(client, poor, {"to": poor.address})
        assert receipt.ok
        sealers.add(four.network.sealer(receipt.block_number, 1))
    assert sealers - {four.network.validators[1].address.lower()}


def test_a_bundle_carries_the_sealed_blocks_and_needs_no_node(four: Validators) -> None:
    """N/2 + 1 validators' seals; judged by the genesis alone. With one more signer it isn't."""
    genesis = parse_validators(four.network.genesis_file.read_text(encoding="utf-8"))
    bundles, roots = anchored_bundles(four.chain)
    reader = BlockReader(four.client(1))
    trust = SealTrust(four.network.chain_id, four.chain.anchor_registry, genesis.addresses)
    assert genesis.chain_id == four.network.chain_id
    for raw in bundles:
        sealed = reader.sealed(raw)
        verdict = verify(sealed, trust)
        assert verdict.ok, verdict
        assert verdict.details["finality"] == "CLIQUE_FINALITY"
        assert verdict.details["sealed_by"] == "3 of 4 validators, 3 blocks"
        assert verify(sealed, roots).ok
        grown = replace(trust, validators=genesis.addresses | {bytes(20), bytes([1]) * 20})
        assert verify(sealed, grown).reason is Reason.SEALS_TOO_FEW


def test_a_stranger_finds_no_place_among_the_validators(four: Validators) -> None:
    network = four.network
    stranger = make_validator(network.directory / "stranger", 99, 0, 0)
    write_settings(stranger, [stranger, *network.validators], network.chain_id)
    program = network.program
    initialize(program, stranger, network.genesis_file)
    process = spawn(program, stranger, network.chain_id)
    try:
        wait_until(lambda: _answers(stranger.ipc))
        for validator in network.validators:
            ask(stranger.ipc, "admin_addPeer", validator.enode)
        time.sleep(3)
        assert int(ask(stranger.ipc, "net_peerCount"), 16) == 0
        assert [network.peers(index) for index in range(4)] == [3] * 4
        assert int(ask(stranger.ipc, "eth_blockNumber"), 16) == 0
    finally:
        process.terminate()
        process.wait(20)


def _answers(ipc: Path) -> bool:
    try:
        ask(ipc, "eth_chainId")
    except ValidatorDown:
        return False
    return True


def test_with_a_validator_killed_anchoring_goes_on(
    four: Validators, database: NodeDatabase
) -> None:
    network = four.network
    member = four.member(database, 0)
    member.seal()
    measured("from sealed to final, all validators up:", member.drain())
    network.kill(2)
    for number in range(3):
        member.seal(number + 1)
        measured("from sealed to final, one of four dead:", member.drain())
    head = four.client(0).block_number()
    network.restart(2)
    measured(
        "a killed validator is back and level after",
        wait_until(lambda: network.height(2) > head and four.agree(0, 2)),
    )
    assert_anchored_once(member, 0, 1, 2, 3)
    assert [network.peers(index) for index in range(4)] == [3] * 4


def test_the_nodes_own_validator_is_killed_at_any_moment(
    four: Validators, database: NodeDatabase
) -> None:
    """Before, while and after the transaction is on its way."""
    chance = random.Random(4)
    member = four.member(database, 1)
    for _ in range(4):
        member.seal()
        member.seal()
        assert publish(member.log.context) == 2
        time.sleep(chance.uniform(0, 1.2))
        four.network.kill(1)
        member.seal()
        with pytest.raises(ChainUnavailable):
            publish(member.log.context)
        with pytest.raises(ChainUnavailable):
            confirm(member.log.context)
        four.network.restart(1)
        measured("drained after the node's validator was back:", member.drain())
    assert len(member.sealed()) == 12
    assert_anchored_once(member, 0, 1, 2, 3)


def test_with_half_of_the_validators_dead_the_chain_stops_and_trading_does_not(
    four: Validators, database: NodeDatabase, second_database: NodeDatabase
) -> None:
    network = four.network
    trade = Network(second_database, database)
    card = trade.card(100_000)
    member = four.member(database, 0, ACQUIRER)
    assert trade.one(trade.request(card, 100)).outcome is Outcome.APPROVED
    assert member.log.seal() is not None
    member.drain()
    network.kill(2, 3)
    try:
        # Each of the two that are left seals once more at most.
        stopped_at = height_at_rest(four, 0)
        for _ in range(5):
            started = time.monotonic()
            assert trade.one(trade.request(card, 100)).outcome is Outcome.APPROVED
            assert time.monotonic() - started < 1
            assert member.log.seal() is not None
            member.work()
        height_at_rest(four, 0)
        member.work()
        assert network.height(0) == stopped_at
        assert member.anchored_seq() == 1
        assert len(member.sealed()) == 6
    finally:
        restarted = time.monotonic()
        network.restart(2, 3)
    wait_until(lambda: network.height(0) > stopped_at, 60)
    measured("blocks again after two restarted:", time.monotonic() - restarted)
    member.drain()
    measured("all drained after two restarted:", time.monotonic() - restarted)
    assert_anchored_once(member, 0, 1, 2, 3)
    assert trade.balance(card) == 100_000 - 6 * 100
    trade.close()


def test_all_validators_are_killed_at_once(four: Validators, database: NodeDatabase) -> None:
    """What was final is there when they are back, and what was on its way gets there."""
    network = four.network
    member = four.member(database, 2)
    member.seal()
    member.drain()
    final = four.client(2).block(four.client(2).block_number() - network.finality_depth)
    member.seal()
    assert publish(member.log.context) == 1
    network.kill(0, 1, 2, 3)
    member.seal()
    with pytest.raises(ChainUnavailable):
        publish(member.log.context)
    restarted = time.monotonic()
    network.restart(0, 1, 2, 3)
    member.drain()
    measured("all drained after all four restarted:", time.monotonic() - restarted)
    assert_anchored_once(member, 0, 1, 2, 3)
    assert all(four.client(index).block(final.number) == final for index in range(4))


def test_the_script_runs_a_command_on_a_network_of_its_own(
    four: Validators, tmp_path: Path
) -> None:
    """With what the tests of the chain need in its environment; nothing is left behind."""
    look = (
        "import os; from nodes.chain.client import ChainClient;"
        "from nodes.chain.signer import LocalSigner;"
        "client = ChainClient(os.environ['EVM_RPC_URL']);"
        "owner = LocalSigner(bytes.fromhex(os.environ['EVM_DEPLOYER_KEY'])).address;"
        "assert int(client.request('eth_getBalance', [owner, 'latest']), 16) > 0;"
        "assert client.block_number() >= 2; raise SystemExit(3)"
    )
    engines = four.network.program.parent
    places = ["--dir", str(tmp_path / "net"), "--engines", str(engines), "--validators", "2"]
    command = [
        sys.executable,
        "-m",
        "sandbox.validators",
        *places,
        "--",
        sys.executable,
        "-c",
        look,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 3, done.stderr
    assert done.stdout.count("http://127.0.0.1:") == 2
    key = (tmp_path / "net" / "deployer.key").read_text().strip()
    assert key not in done.stdout
    assert _running(tmp_path / "net") == []


def test_a_second_network_in_the_same_place_is_refused(four: Validators) -> None:
    second = ValidatorNetwork(four.network.directory, four.network.program)
    with pytest.raises(NetworkFailed, match="another network is running"):
        second.start()
    assert four.network.height(0) > 0


def test_validators_end_with_the_process_that_started_them(
    four: Validators, tmp_path: Path
) -> None:
    """Even with one that is killed and can end nothing itself."""
    engines = four.network.program.parent
    places = ["--dir", str(tmp_path / "net"), "--engines", str(engines), "--validators", "1"]
    script = subprocess.Popen(
        [sys.executable, "-m", "sandbox.validators", *places], stdout=subprocess.PIPE, text=True
    )
    assert script.stdout is not None
    assert "validators make a block" in script.stdout.readline()
    assert len(_running(tmp_path / "net")) == 1
    script.kill()
    script.wait()
    script.stdout.close()
    wait_until(lambda: _running(tmp_path / "net") == [])


def _running(directory: Path) -> list[int]:
    """The processes whose command line names a file of this directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if f"{directory}/validator-".encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


WINNING, LOSING = (0, 1, 2), (3, 4)


@pytest.fixture
def cut_off(five: Validators, database: NodeDatabase) -> Iterator[ValidatorMember]:
    """A member with one anchor, in the moment when its validator and another are cut off from the
    three others. These two sealed none of the last blocks, so each of them can seal one now."""
    network = five.network
    member = five.member(database, LOSING[0])
    member.seal()
    member.drain()
    winners = {network.validators[index].address.lower() for index in WINNING}
    network.wait_for(lambda: set(network.sealers(LOSING[0], 2)) <= winners, "no such moment")
    network.cut(WINNING, LOSING)
    yield member
    network.restart(*(set(LOSING) - set(network.pids)))
    network.join(WINNING, LOSING)
    wait_until(lambda: five.agree(*range(5)))


def test_a_losing_side_of_a_partition_anchors_nothing_for_good(
    five: Validators, cut_off: ValidatorMember
) -> None:
    """What was mined there is undone when the network is joined. What waited there names a block
    that is gone: it reverts and is signed anew. Each batch has one anchor in the end."""
    network, member, losing = five.network, cut_off, LOSING[0]
    mined = member.seal()
    member.work_until(lambda: member.head_seq(losing) == mined)
    undone = five.registry(losing).anchor(member.log.member_id, mined)
    assert undone is not None
    ended = height_at_rest(five, losing)
    waiting = member.seal()
    for _ in range(10):
        member.work()
    # That side stands still, one block short of finality.
    assert network.height(losing) == ended
    assert member.anchored_seq() == 1
    named = five.client(losing).recent_block()
    sent = member.submission(waiting).raw
    assert member.head_seq(WINNING[0]) == 1
    network.wait_for(lambda: network.height(0) > ended + 1, "the majority stands still")

    joined = time.monotonic()
    network.join(WINNING, LOSING)
    measured("the sides have found each other after", time.monotonic() - joined)
    client = five.client(losing)
    wait_until(lambda: client.block(undone.block_number).hash != undone.block_hash)
    measured("the losing side gave way after", time.monotonic() - joined)
    assert client.block(named.number).hash != named.hash
    member.drain()
    measured("everything is final again after", time.monotonic() - joined)
    assert_anchored_once(member, *range(5))
    assert member.submission(waiting).raw != sent
    found = five.registry(0).anchor(member.log.member_id, mined)
    assert found is not None
    assert found.block_hash != undone.block_hash


def test_a_node_on_the_losing_side_publishes_again_on_the_winning_one(
    five: Validators, cut_off: ValidatorMember
) -> None:
    """Its validators die before the others heard of the anchor, and it turns to another one."""
    member, losing = cut_off, LOSING[0]
    mined = member.seal()
    member.work_until(lambda: member.head_seq(losing) == mined)
    sent = member.submission(mined)
    five.network.kill(*LOSING)
    member.log = five.moved(member.log, WINNING[0])
    assert member.head_seq(WINNING[0]) == 1
    member.seal()
    measured("final on the winning side after", member.drain())
    assert_anchored_once(member, *WINNING)
    # The very same transaction.
    assert member.submission(mined).tx_hash == sent.tx_hash
    five.network.restart(*LOSING)
    assert_anchored_once(member, *range(5))


def height_at_rest(validators: Validators, index: int) -> int:
    """A validator's height once it has stood still for as long as any sealer may take."""
    last, since = -1, time.monotonic()
    while time.monotonic() - since < LONGEST_TURN_S:
        height = validators.network.height(index)
        if height != last:
            last, since = height, time.monotonic()
        time.sleep(0.1)
    return last
