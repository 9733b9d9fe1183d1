"""Publishing: sealed batches go to the chain, each exactly once.

From evidence.md, Sending to the chain.
SEALED -> SUBMITTED (nonce and signed transaction are stored, then broadcast) -> ANCHORED (the
decoded event stands in a final block). After any error the same bytes are sent again; only a
transaction that the chain has refused, or can no longer take, is signed anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy
import structlog

from nodes.anchoring import queries, store
from nodes.anchoring.checkpoint import meta_hash, totals_hash
from nodes.anchoring.model import AnchorState, Batch, LogIdentity, Submission
from nodes.chain.anchors import Anchor, Anchored, AnchorHead, AnchorRegistry
from nodes.chain.client import ChainClient
from nodes.chain.directory import KeyPeriod
from nodes.chain.errors import ChainRefused, ChainReverted
from nodes.chain.signer import Signer
from nodes.clock import Clock, to_datetime

log = structlog.get_logger(__name__)

#: Anchors under way at once: a backlog drains several a block, and a wrong one costs few.
MAX_IN_FLIGHT = 16


class LogFenced(Exception):
    """Chain and database contradict each other; nothing is sealed or published until it is mended.

    `reason`: CHAIN_AHEAD (this database is older than the chain: it was restored), LOG_FORKED (the
    chain has another root under the same number), OTHER_CHAIN (not the chain of this database),
    EVENT_MISSING (a transaction succeeded without the anchor's event), NOTE_KEY_NOT_VALID (the
    chain has another note key for the member: only sealing waits, what is sealed is published),
    REGISTRY_RETIRED (the anchor contract has a successor: only publishing waits, until the node is
    told of it), REGISTRY_NOT_OPEN (the contract takes none before its predecessor is retired).
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


@dataclass(frozen=True)
class AnchorContext:
    """What publishing works with; one for each node."""

    engine: sqlalchemy.Engine
    identity: LogIdentity
    client: ChainClient
    registry: AnchorRegistry
    signer: Signer
    clock: Clock


def bind_chain(context: AnchorContext, member_registry: str) -> None:
    """Remember the chain at the first start; at a later one LogFenced if it is another.

    The anchor contract may be a successor of the one that is remembered, by its own word on the
    chain: then the log goes on there.
    """
    client, identity = context.client, context.identity
    if not client.code(identity.anchor_registry):
        raise LogFenced("OTHER_CHAIN", "there is no anchor contract at that address")
    before = [address.lower() for address in context.registry.predecessors()]
    if before and not context.registry.is_open():
        raise LogFenced("REGISTRY_NOT_OPEN", f"the anchor contract {before[0]} is not retired")
    with store.transaction(context.engine) as connection:
        known = queries.chain_binding(connection)
    contract = identity.anchor_registry.lower()
    if known is not None and known["anchor_registry"] in before:
        contract = str(known["anchor_registry"])
    seen = {
        "chain_id": client.chain_id(),
        "genesis_hash": client.genesis_hash(),
        "member_registry": member_registry.lower(),
        "anchor_registry": contract,
        "code_hash": client.code_hash(contract),
        "member_id": identity.member_id,
    }
    if seen["chain_id"] != identity.chain_id:
        raise LogFenced("OTHER_CHAIN", f"the chain's id is {seen['chain_id']}")
    with store.transaction(context.engine) as connection:
        store.bind_chain(connection, **seen)  # type: ignore[arg-type]
        bound = queries.chain_binding(connection)
    differing = [name for name, value in seen.items() if bound is None or bound[name] != value]
    if differing:
        raise LogFenced("OTHER_CHAIN", f"{', '.join(differing)} differ from this database's")


def check_head(context: AnchorContext) -> AnchorHead | None:
    """The chain's head for this member; LogFenced unless this database's log contains it.

    A database restored from a backup is behind the chain: sealing on would sign a second history.
    """
    head = context.registry.head(context.identity.member_id)
    if head is None:
        return None
    with store.transaction(context.engine) as connection:
        newest = queries.last_batch(connection)
        same = queries.batch(connection, head.seq)
    if same is None:
        have = newest.seq if newest else 0
        raise LogFenced("CHAIN_AHEAD", f"the chain has anchor {head.seq}, this database {have}")
    if (same.size, same.root) != (head.size, head.root):
        raise LogFenced("LOG_FORKED", f"anchor {head.seq} has another root on the chain")
    return head


def check_note_key(key: bytes, periods: Sequence[KeyPeriod]) -> None:
    """LogFenced unless `key` (Ed25519, public) is the member's note key now, by the chain.

    A checkpoint under a key that was rotated away proves nothing once it is anchored.
    """
    valid = periods[-1] if periods and periods[-1].last is None else None
    if valid is None or valid.key != key:
        have = valid.key.hex() if valid else "none"
        raise LogFenced(
            "NOTE_KEY_NOT_VALID", f"the chain has {have}, this node's keystore {key.hex()}"
        )


def publish(context: AnchorContext, *, max_in_flight: int = MAX_IN_FLIGHT) -> int:
    """Bring sealed batches on their way; how many transactions were broadcast.

    0 also if another process does so at this moment. Raises ChainUnavailable and LogFenced.
    What was signed for a contract that was retired meanwhile has reverted there, and is signed
    anew for its successor like any other that was refused.
    """
    if after := context.registry.successors():
        raise LogFenced("REGISTRY_RETIRED", f"anchor_registry has to be {after[-1]} from now on")
    head = check_head(context)
    head_seq = head.seq if head else 0
    with store.transaction(context.engine) as connection:
        if not store.try_lock(connection, "publish"):
            return 0
        if queries.last_anchored_seq(connection) > head_seq:
            count = store.reopen_anchors(connection, head_seq)
            log.warning("chain_lost_anchors", after_seq=head_seq, count=count)
        waiting = [
            entry
            for entry in queries.submissions(connection, AnchorState.SUBMITTED)
            if entry.seq > head_seq
        ]
        chain_nonce = context.client.nonce(context.signer.address)
        to_send: list[Submission] = []
        to_sign: list[int] = []
        for entry in waiting[:max_in_flight]:
            fate = _fate(context.client, entry, chain_nonce)
            if fate == "lost":
                to_send.append(entry)
            elif fate == "refused":
                to_sign.append(entry.seq)
        free = max(max_in_flight - len(waiting), 0)
        fresh = [batch.seq for batch in queries.unsubmitted_batches(connection, free)]
        taken = [e.nonce for e in waiting if e.seq not in to_sign]
        taken += queries.outbox_nonces(connection)
        nonce = max([chain_nonce, *(number + 1 for number in taken)])
        to_send += _sign(context, connection, to_sign + fresh, nonce)
        if waiting and not to_send:
            to_send += _fill_gap(context, connection, waiting, taken)
    # Everything is durable: a crash from here on is healed by sending the same bytes again.
    return sum(_broadcast(context, entry) for entry in to_send)


def _fill_gap(
    context: AnchorContext,
    connection: store.Connection,
    waiting: list[Submission],
    taken: list[int],
) -> list[Submission]:
    """Sign the next batch for the nonce that the chain waits for, if it is none of those `taken` by
    signed transactions and they are above it.

    A reorganization can undo a transaction that a later one has replaced here (it had reverted).
    Nobody sends it again, and without its nonce nothing above is ever mined. Both transactions of
    the batch may be mined then; the contract takes the first and refuses the second.
    """
    nonce = context.client.next_nonce(context.signer.address)
    if nonce in taken or max(taken) < nonce:
        return []
    log.warning("nonce_forgotten", nonce=nonce, seq=waiting[0].seq)
    return _sign(context, connection, [waiting[0].seq], nonce)


def _fate(client: ChainClient, entry: Submission, chain_nonce: int) -> str:
    """under way, lost (send the same bytes again) or refused (sign anew)."""
    receipt = client.receipt(entry.tx_hash)
    if receipt is not None:
        if receipt.ok:
            return "under way"
        reason = client.revert_of(entry.tx_hash).reason
        log.warning("anchor_reverted", seq=entry.seq, reason=reason)
        return "refused"
    if entry.nonce < chain_nonce:
        return "refused"  # another transaction took the nonce
    return "under way" if client.is_known(entry.tx_hash) else "lost"


def _sign(
    context: AnchorContext, connection: store.Connection, seqs: list[int], nonce: int
) -> list[Submission]:
    """Sign and store transactions for these batches, in the order of their numbers."""
    if not seqs:
        return []
    recent = context.client.recent_block().hash
    gas_price = context.client.gas_price()
    signed: list[Submission] = []
    for offset, seq in enumerate(sorted(seqs)):
        batch = queries.batch(connection, seq)
        if batch is None:
            raise LookupError(f"batch {seq} is gone")
        raw, tx_hash = context.signer.sign_transaction(
            context.registry.build_anchor_tx(
                sender=context.signer.address,
                nonce=nonce + offset,
                seq=seq,
                size=batch.size,
                prev_root=batch.prev_root,
                root=batch.root,
                proof=batch.consistency,
                meta_hash=batch_meta(batch),
                recent_block_hash=recent,
                gas_price=gas_price,
                chain_id=context.identity.chain_id,
            )
        )
        entry = Submission(seq, AnchorState.SUBMITTED, nonce + offset, tx_hash, raw)
        store.insert_submission(connection, entry, to_datetime(context.clock.now_ms()))
        signed.append(entry)
    return signed


def batch_meta(batch: Batch) -> bytes:
    """The anchor's metaHash for a batch."""
    return meta_hash(batch.note, batch.sealed_us, totals_hash(batch.totals))


def _broadcast(context: AnchorContext, entry: Submission) -> int:
    """Send a stored transaction; 1 if the server took it. A refusal is seen to the next time."""
    try:
        context.client.send_raw(entry.raw)
    except (ChainRefused, ChainReverted) as refusal:
        log.warning("anchor_not_taken", seq=entry.seq, why=str(refusal))
        return 0
    with store.transaction(context.engine) as connection:
        store.count_broadcast(connection, entry.seq)
    return 1


def confirm(context: AnchorContext) -> int:
    """Mark batches whose anchor is final; how many. Raises ChainUnavailable and LogFenced."""
    with store.transaction(context.engine) as connection:
        waiting = queries.submissions(connection, AnchorState.SUBMITTED)
    if not waiting:
        return 0
    head = check_head(context)
    confirmed = 0
    for entry in waiting:
        if head is None or entry.seq > head.seq or not _confirm_one(context, entry):
            break
        confirmed += 1
    return confirmed


def _confirm_one(context: AnchorContext, entry: Submission) -> bool:
    """Whether this batch is anchored for good now."""
    with store.transaction(context.engine) as connection:
        batch = queries.batch(connection, entry.seq)
    if batch is None:
        raise LookupError(f"batch {entry.seq} is gone")
    found: Anchored | Anchor | None = None
    receipt = context.client.receipt(entry.tx_hash)
    if receipt is not None and receipt.ok:
        found = context.registry.decode_anchored(receipt)
        if found is None:
            raise LogFenced("EVENT_MISSING", f"the transaction of anchor {entry.seq} made none")
    else:
        # An earlier transaction of this batch was mined after all: it is the anchor.
        found = context.registry.anchor(context.identity.member_id, entry.seq)
        receipt = context.client.receipt(found.tx_hash) if found else None
    if found is None or receipt is None:
        return False
    if (found.seq, found.size, found.prev_root, found.root, found.meta_hash) != (
        batch.seq,
        batch.size,
        batch.prev_root,
        batch.root,
        batch_meta(batch),
    ):
        raise LogFenced("LOG_FORKED", f"anchor {entry.seq} on the chain is not this batch's")
    if not context.client.is_final(found.block_number, found.block_hash):
        return False
    with store.transaction(context.engine) as connection:
        store.mark_anchored(
            connection,
            entry.seq,
            tx_hash=found.tx_hash,
            block_number=found.block_number,
            block_hash=found.block_hash,
            gas_used=receipt.gas_used,
            at=to_datetime(context.clock.now_ms()),
        )
    log.info("anchored", seq=entry.seq, size=batch.size, block=found.block_number)
    return True
