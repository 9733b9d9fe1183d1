"""Transactions of the operator's key beside anchors: stored with their nonce, then broadcast.

After any error the same bytes go out again. Anchors use the same key: nonces are given out under
the lock that anchoring takes, above the anchors that are on their way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
from sqlalchemy import Engine

from nodes.chain.client import ChainClient
from nodes.chain.errors import ChainRefused, ChainReverted
from nodes.chain.signer import Signer
from nodes.clearing import queries, store
from nodes.clearing.store import Sending
from nodes.clock import Clock, to_datetime
from nodes.db.engine import transaction

log = structlog.get_logger(__name__)

#: Anchoring's lock: one sender a key.
_SENDER_LOCK = "publish"


class SendingContext(Protocol):
    """What sending works with."""

    @property
    def engine(self) -> Engine: ...
    @property
    def client(self) -> ChainClient: ...
    @property
    def signer(self) -> Signer: ...
    @property
    def clock(self) -> Clock: ...


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of trying to send: whether the chain's server took it, and what the contract would
    refuse it for (then nothing was signed)."""

    sent: bool = False
    refusal: str | None = None


def send(
    context: SendingContext,
    purpose: str,
    subject: str,
    build: Callable[[int], dict[str, Any]],
    *,
    passing: str = "",
) -> Attempt:
    """Sign, store, then broadcast, once a purpose and subject unless the chain refused it.

    What the contract would refuse now isn't signed: it can be tried again. `passing`: the refusal
    that passes with time; a call is judged at the time of the newest block, a transaction at that
    of the next one.
    """
    with transaction(context.engine) as connection:
        if not store.lock(connection, _SENDER_LOCK):
            return Attempt()
        if queries.sending_state(connection, purpose, subject) not in (None, "FAILED"):
            return Attempt()
        taken = [entry.nonce for entry in queries.sendings(connection)]
        taken += queries.anchor_nonces(connection)
        chain_nonce = context.client.nonce(context.signer.address)
        unsigned = build(max([chain_nonce, *(nonce + 1 for nonce in taken)]))
        try:
            context.client.simulate(unsigned)
        except ChainReverted as refusal:
            if not passing or refusal.reason != passing:
                log.warning("sending_put_off", purpose=purpose, subject=subject, why=refusal.reason)
                return Attempt(refusal=refusal.reason)
        raw, tx_hash = context.signer.sign_transaction(unsigned)
        sending = Sending(purpose, subject, unsigned["nonce"], tx_hash, raw)
        store.keep_sending(connection, sending, to_datetime(context.clock.now_ms()))
    return Attempt(sent=_broadcast(context, sending))


def _broadcast(context: SendingContext, sending: Sending) -> bool:
    try:
        context.client.send_raw(sending.raw)
    except (ChainRefused, ChainReverted) as refusal:
        log.warning("sending_not_taken", purpose=sending.purpose, why=str(refusal))
        return False
    with transaction(context.engine) as connection:
        store.count_broadcast(connection, sending)
    return True


def settle_sendings(context: SendingContext) -> int:
    """See what became of stored transactions; the lost ones are sent again. How many ended."""
    with transaction(context.engine) as connection:
        waiting = queries.sendings(connection)
    if not waiting:
        return 0
    chain_nonce = context.client.nonce(context.signer.address)
    ended = 0
    for sending in waiting:
        receipt = context.client.receipt(sending.tx_hash)
        if receipt is None:
            if sending.nonce < chain_nonce:
                ended += _end(context, sending, "FAILED", "the nonce was taken")
            elif not context.client.is_known(sending.tx_hash):
                _broadcast(context, sending)
        elif not receipt.ok:
            reason = context.client.revert_of(sending.tx_hash).reason
            log.warning("sending_reverted", purpose=sending.purpose, reason=reason)
            ended += _end(context, sending, "FAILED", reason)
        elif context.client.is_final(receipt.block_number, receipt.block_hash):
            ended += _end(context, sending, "DONE", None)
    return ended


def _end(context: SendingContext, sending: Sending, state: str, outcome: str | None) -> int:
    with transaction(context.engine) as connection:
        store.end_sending(connection, sending, state, outcome)
    return 1
