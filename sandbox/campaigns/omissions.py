"""Transactions that are left out of a log though a receipt promises them: taken to the chain.

A member of its own, with a database and keys of its own, promises more than it keeps. Its rows are
written by the network's ledger code, its promises, log, anchors and answers by the node's own
operations; the claims stand before an OmissionRegistry whose windows a campaign can wait for.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from eth_utils.address import to_canonical_address
from sqlalchemy import Engine

from nodes.anchoring import queries, store
from nodes.anchoring.chain_view import TrustedChain
from nodes.anchoring.model import LogIdentity
from nodes.anchoring.note import NoteSigner
from nodes.anchoring.operations.answering import ClaimWatch, answer_claims
from nodes.anchoring.operations.promising import Promiser, promise_transaction
from nodes.anchoring.operations.publishing import AnchorContext, confirm, publish
from nodes.anchoring.operations.sealing import seal
from nodes.anchoring.proof_queries import proof_bundle
from nodes.anchoring.receipt import Promise, ReceiptReason, judge_receipt
from nodes.anchoring.rules import shared_fields
from nodes.chain.anchors import AnchorRegistry
from nodes.chain.challenges import ClaimState, OmissionRegistry
from nodes.chain.contracts import OMISSION_REGISTRY
from nodes.chain.deploy import create, register_member, rotate_key
from nodes.chain.errors import ChainReverted
from nodes.chain.signer import LocalSigner
from nodes.clock import SystemClock
from nodes.crypto.merkle import root_of
from nodes.db.engine import make_engine, migrate
from nodes.db.provision import LOGINS, provision
from nodes.ledger.store import record_transactions
from sandbox.bench.reconcile_days import drawn_record
from sandbox.campaigns.scene import Scene
from sandbox.campaigns.tally import Tallies

OVERDUE, PROVEN = "PROMISE_BROKEN", "OMISSION"
MERGE_DELAY_S = 2
#: Claims, answers and conclusions that wait for their blocks together.
_TOGETHER = 50


@dataclass
class Omitter:
    """A member that leaves transactions out, and the contract before which it is accused."""

    member_id: str
    owner_dsn: str
    context: AnchorContext
    signer: NoteSigner
    promiser: Promiser
    omissions: OmissionRegistry
    view: TrustedChain

    @property
    def engine(self) -> Engine:
        """The node's own login."""
        return self.context.engine


def tamper_omissions(scene: Scene, count: int, tallies: Tallies) -> None:
    """`count` transactions left out or replaced, and as many that are kept.

    The verifier says PROMISE_OVERDUE of each that lacks, the chain OmissionProven; the kept ones
    are proven to their holders, and the node answers the claims about them by itself.
    """
    source = random.Random(f"{tallies.seed} omissions")
    omitter = _omitter(scene, answer_s=20 if count < 100 else 120)
    promises = _promised(omitter, source, 2 * count)
    dropped = set(source.sample(sorted(promises), count))
    _drop(omitter, source, dropped)
    _seal_all(omitter)
    _anchor_all(omitter)
    last = max(promise.merge_deadline for promise in promises.values())
    while scene.client.block().timestamp <= last or time.time() <= last + 1:
        time.sleep(0.3)
        _tick(scene)
    for txid, promise in promises.items():
        _judge(omitter, promise, txid in dropped, tallies)
    _before_the_chain(scene, omitter, promises, dropped, tallies)
    omitter.engine.dispose()


def _omitter(scene: Scene, answer_s: int) -> Omitter:
    member_id = f"omitter-{secrets.token_hex(4)}"
    signer, operator = NoteSigner(secrets.token_bytes(32)), LocalSigner(secrets.token_bytes(32))
    promising = LocalSigner(secrets.token_bytes(32))
    governance = LocalSigner(scene.secret("governance", "operator"))
    registry = scene.state.contracts["MemberRegistry"]
    register_member(
        scene.client,
        governance,
        registry,
        member_id=member_id,
        name="Omitter",
        roles=("acquirer",),
        api_url="http://127.0.0.1:9",
        bins=(),
        operator=operator.address,
        note_key=signer.public_key,
        message_key=NoteSigner(secrets.token_bytes(32)).public_key,
    )
    address = to_canonical_address(promising.address)
    rotate_key(scene.client, governance, registry, member_id, "promise", address)
    contract = create(
        scene.client,
        governance,
        OMISSION_REGISTRY,
        ["address", "uint64", "uint64", "uint64"],
        [scene.anchor_registry, answer_s, 86_400, 86_400],
    )
    passwords = {login: secrets.token_hex(8) for login in LOGINS}
    dsns = provision(scene.postgres.superuser_dsn(), member_id.replace("-", "_"), passwords)
    migrate(dsns["owner"])
    engine, clock = make_engine(dsns["worker"]), SystemClock()
    context = AnchorContext(
        engine=engine,
        identity=LogIdentity(member_id, scene.state.chain_id, scene.anchor_registry.lower()),
        client=scene.client,
        registry=AnchorRegistry(scene.client, scene.anchor_registry),
        signer=operator,
        clock=clock,
    )
    return Omitter(
        member_id,
        scene.postgres.superuser_dsn(member_id.replace("-", "_")),
        context,
        signer,
        Promiser(member_id, promising, scene.state.chain_id, contract, MERGE_DELAY_S, clock),
        OmissionRegistry(scene.client, contract),
        TrustedChain(scene.client, scene.anchor_registry, contract),
    )


def _seal_all(omitter: Omitter) -> None:
    """Seal until no row waits.

    Sealing takes rows below the horizon of running transactions, and that is one for all databases
    of a cluster: another part of the campaign may hold it back for a while (ADR 7).
    """
    unsealed = (
        "SELECT count(*) FROM transactions AS t LEFT JOIN log_leaves AS l USING (transaction_id)"
        " WHERE l.transaction_id IS NULL"
    )
    while True:
        seal(omitter.engine, omitter.context.identity, omitter.signer, SystemClock())
        with store.transaction(omitter.engine) as connection:
            if connection.execute(unsealed).fetchone() == (0,):
                return
        time.sleep(0.2)


def _anchor_all(omitter: Omitter) -> None:
    """Publish and confirm until every batch is anchored, however long the chain takes."""
    waiting = "SELECT count(*) FROM batches AS b LEFT JOIN anchor_submissions AS a USING (seq)"
    while True:
        publish(omitter.context)
        confirm(omitter.context)
        with store.transaction(omitter.engine) as connection:
            row = connection.execute(f"{waiting} WHERE a.state IS DISTINCT FROM 'ANCHORED'")
            if row.fetchone() == (0,):
                return
        time.sleep(0.05)


def _tick(scene: Scene) -> None:
    """A block, so that the chain's clock goes on: a transaction of governance to itself."""
    governance = LocalSigner(scene.secret("governance", "operator"))
    client = scene.client
    transaction = {
        "to": governance.address,
        "value": 0,
        "gas": 21_000,
        "gasPrice": 0,
        "nonce": client.nonce(governance.address),
        "chainId": scene.state.chain_id,
        "data": "0x",
    }
    raw, _ = governance.sign_transaction(transaction)
    client.wait_for_receipt(client.send_raw(raw))


def _promised(omitter: Omitter, source: random.Random, count: int) -> dict[bytes, Promise]:
    """Recorded transactions with a promise each; nothing is sealed yet."""
    records = [drawn_record(number, "acquirer", source) for number in range(1, count + 1)]
    with store.transaction(omitter.engine) as connection:
        record_transactions(connection, records)
    made: dict[bytes, Promise] = {}
    for record in records:
        promise = promise_transaction(omitter.engine, omitter.promiser, record.txid)
        assert promise is not None
        made[record.txid] = promise
    return made


def _drop(omitter: Omitter, source: random.Random, txids: set[bytes]) -> None:
    """Two of three are taken out of the ledger; every third says another amount under its own C."""
    with psycopg.connect(omitter.owner_dsn) as owner:
        owner.execute("SET session_replication_role = replica")
        for txid in sorted(txids):
            if source.random() < 2 / 3:
                owner.execute("DELETE FROM transactions WHERE txid = %s", (txid,))
                continue
            owner.execute("UPDATE transactions SET amount = amount + 1 WHERE txid = %s", (txid,))
            [row] = queries.rows_by_txid(owner, [txid])
            root = root_of([field or b"" for field in shared_fields(row, txid)])
            owner.execute("UPDATE transactions SET commitment = %s WHERE txid = %s", (root, txid))


def _judge(omitter: Omitter, promise: Promise, dropped: bool, tallies: Tallies) -> None:
    """What the holder of the receipt is told, with whatever proof the member can give."""
    raw: bytes | None = None
    try:
        with store.transaction(omitter.engine) as connection:
            raw = proof_bundle(connection, promise.txid, "acquirer")
    except LookupError:
        raw = None
    verdict = judge_receipt(promise.encode(), raw, omitter.view, int(time.time()))
    if not dropped:
        tallies.clean(alarm="" if verdict.ok else f"a kept promise: {verdict.reason}")
        return
    # Of a replaced transaction the member has a proof: of another content than the promised one.
    expected = ReceiptReason.PROMISE_OVERDUE if raw is None else ReceiptReason.PROMISE_MISMATCH
    tallies.add(
        OVERDUE,
        found=not verdict.ok,
        named=verdict.reason is expected,
        what=f"{promise.txid.hex()}: {verdict.reason}, not {expected}",
    )


def _before_the_chain(
    scene: Scene,
    omitter: Omitter,
    promises: dict[bytes, Promise],
    dropped: set[bytes],
    tallies: Tallies,
) -> None:
    """Claims about all of them, in portions; what is answered, and what is proven."""
    governance = LocalSigner(scene.secret("governance", "operator"))
    watch = ClaimWatch()
    waiting = sorted(promises.values(), key=lambda promise: promise.txid in dropped)
    # The kept ones first: what stays open is looked at again with every answer.
    for portion in _portions(waiting):
        _send_all(scene, governance, [_claim(omitter, governance, promise) for promise in portion])
        if portion[0].txid not in dropped:
            answer_claims(omitter.context, omitter.omissions, watch)
    answer_claims(omitter.context, omitter.omissions, watch)
    until = max(_open_until(omitter, promise) for promise in waiting if promise.txid in dropped)
    while time.time() <= until + 1:
        time.sleep(0.5)
    _tick(scene)
    for portion in _portions([promise for promise in waiting if promise.txid in dropped]):
        _send_all(scene, governance, [_conclude(omitter, governance, p) for p in portion])
    for promise in waiting:
        _outcome(omitter, promise, promise.txid in dropped, governance, tallies)


def _portions(promises: list[Promise]) -> Iterator[list[Promise]]:
    for first in range(0, len(promises), _TOGETHER):
        yield promises[first : first + _TOGETHER]


def _open_until(omitter: Omitter, promise: Promise) -> int:
    claim = omitter.omissions.claim(promise.member_id, promise.txid, promise.commitment)
    return claim.answer_deadline if claim and claim.state is ClaimState.CLAIMED else 0


def _claim(omitter: Omitter, sender: LocalSigner, promise: Promise) -> dict[str, Any]:
    return omitter.omissions.build_claim_tx(
        sender=sender.address,
        nonce=0,
        member_id=promise.member_id,
        txid=promise.txid,
        commitment=promise.commitment,
        merge_deadline=promise.merge_deadline,
        signature=promise.signature,
        gas_price=0,
    )


def _conclude(omitter: Omitter, sender: LocalSigner, promise: Promise) -> dict[str, Any]:
    claim = omitter.omissions.claim(promise.member_id, promise.txid, promise.commitment)
    claim_id = claim.claim_id if claim else bytes(32)
    return omitter.omissions.build_conclude_tx(
        sender=sender.address, nonce=0, claim_id=claim_id, gas_price=0
    )


def _send_all(scene: Scene, signer: LocalSigner, transactions: list[dict[str, Any]]) -> None:
    first = scene.client.nonce(signer.address)
    sent = []
    for nonce, transaction in enumerate(transactions, first):
        raw, _ = signer.sign_transaction(transaction | {"nonce": nonce})
        sent.append(scene.client.send_raw(raw))
    for tx_hash in sent:
        scene.client.wait_for_receipt(tx_hash)


def _outcome(
    omitter: Omitter, promise: Promise, dropped: bool, sender: LocalSigner, tallies: Tallies
) -> None:
    claim = omitter.omissions.claim(promise.member_id, promise.txid, promise.commitment)
    state = claim.state.name if claim else "no claim"
    if dropped:
        proven = state == ClaimState.PROVEN.name
        tallies.add(PROVEN, found=proven, named=proven, what=f"{promise.txid.hex()}: {state}")
        return
    alarm = "" if state == ClaimState.ANSWERED.name else f"a kept promise: {state}"
    try:
        omitter.omissions.check_tx(_conclude(omitter, sender, promise))
        alarm = alarm or "a kept promise could be concluded"
    except ChainReverted:
        pass
    tallies.clean(alarm=alarm)
