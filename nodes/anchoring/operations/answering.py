"""Answering claims of omission: the accused node shows the leaf by itself.

The chain is the memory here: a claim that is still CLAIMED there is answered, again if need be, and
the contract takes one answer. So nothing has to be stored, and a crash at any point costs a look.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import structlog

from nodes.anchoring import queries, store
from nodes.anchoring.model import AnchorState
from nodes.anchoring.operations.publishing import AnchorContext
from nodes.chain.challenges import ClaimState, OmissionClaimed, OmissionRegistry
from nodes.chain.errors import ChainReverted
from nodes.chain.evidence import Evidence

log = structlog.get_logger(__name__)

#: How long an answer may take to be mined, in seconds; no anchor is published meanwhile.
_MINING_S = 20.0


@dataclass
class ClaimWatch:
    """What this process knows of claims: how far it has read, and which are open.

    `scanned` moves only behind what was taken into `open`; a new process reads from the start.
    """

    scanned: int = -1
    open: dict[bytes, OmissionClaimed] = field(default_factory=dict)
    #: Claims with nothing to show yet; said once, not at every look.
    silent: set[bytes] = field(default_factory=set)


def answer_claims(context: AnchorContext, omissions: OmissionRegistry, watch: ClaimWatch) -> int:
    """Answer all open claims against this member for which there is an anchored leaf; how many."""
    newest = context.client.block_number()
    if newest > watch.scanned:
        member_id = context.identity.member_id
        for event in omissions.events_since(watch.scanned + 1, newest, member_id=member_id):
            if isinstance(event, OmissionClaimed):
                watch.open[event.claim_id] = event
            else:
                watch.open.pop(event.claim_id, None)
        watch.scanned = newest
    return sum(_answer(context, omissions, claim, watch) for claim in [*watch.open.values()])


def claim_evidence(context: AnchorContext, txid: bytes, commitment: bytes) -> Evidence | None:
    """The leaf of that transaction and content with its inclusion proof; None if none is anchored.

    A row of the same txid with another C is no answer: the claim is about what was promised.
    """
    with store.transaction(context.engine) as connection:
        return leaf_evidence(connection, txid, commitment)


def leaf_evidence(
    connection: queries.AnyConnection, txid: bytes, commitment: bytes | None = None
) -> Evidence | None:
    """The anchored leaf of a transaction (with that C, if one is named) with its inclusion proof;
    None if none is anchored."""
    rows = queries.rows_by_txid(connection, [txid])
    places = queries.log_places(
        connection,
        [
            row.transaction_id
            for row in rows
            if commitment is None or row.values["commitment"] == commitment
        ],
    )
    for place in places.values():
        if place.state is not AnchorState.ANCHORED or place.log_index is None:
            continue
        sealed = queries.batch(connection, place.batch_seq or 0)
        if sealed is None:
            continue
        entry = queries.log_entries(connection, place.log_index, place.log_index + 1)[0]
        path = queries.inclusion_proof(connection, place.log_index, sealed.size)
        return Evidence(entry[1], place.log_index, sealed.seq, tuple(path))
    return None


def _answer(
    context: AnchorContext, omissions: OmissionRegistry, claim: OmissionClaimed, watch: ClaimWatch
) -> bool:
    now = omissions.claim_by_id(claim.claim_id)
    if now is None or now.state is not ClaimState.CLAIMED:
        # Answered, concluded, or of a block that the chain lost: then its event comes again.
        watch.open.pop(claim.claim_id, None)
        return False
    evidence = claim_evidence(context, claim.txid, claim.commitment)
    if evidence is None:
        if claim.claim_id not in watch.silent:
            watch.silent.add(claim.claim_id)
            log.error("claim_without_answer", txid=claim.txid.hex(), until=claim.answer_deadline)
        return False
    return _send(context, omissions, claim, evidence)


def _send(
    context: AnchorContext,
    omissions: OmissionRegistry,
    claim: OmissionClaimed,
    evidence: Evidence,
) -> bool:
    """Send one answer in the operator's order of nonces; whether it stands on the chain."""
    with store.transaction(context.engine) as connection:
        if not store.try_lock(connection, "publish"):
            return False
        waiting = queries.submissions(connection, AnchorState.SUBMITTED)
        taken = [entry.nonce for entry in waiting] + [*queries.outbox_nonces(connection)]
        mined = context.client.nonce(context.signer.address)
        nonce = max([mined, *(number + 1 for number in taken)])
        transaction = omissions.build_answer_tx(
            sender=context.signer.address, nonce=nonce, claim_id=claim.claim_id, evidence=evidence
        )
        try:
            omissions.check_tx(transaction)
        except ChainReverted as refused:
            log.error("answer_refused", txid=claim.txid.hex(), reason=refused.reason)
            return False
        raw, _ = context.signer.sign_transaction(transaction)
        # Within the lock: the next anchor's nonce is counted from what is mined.
        receipt = context.client.wait_for_receipt(context.client.send_raw(raw), _MINING_S)
    log.info("claim_answered", txid=claim.txid.hex(), ok=receipt.ok)
    return receipt.ok
