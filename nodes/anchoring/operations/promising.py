"""Promises for receipts: made once a transaction, whoever asks, however often."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy

from nodes.anchoring import promise_queries, store
from nodes.anchoring.receipt import Promise
from nodes.chain.challenges import promise_digest
from nodes.chain.signer import DigestSigner
from nodes.clock import Clock


@dataclass(frozen=True, slots=True)
class Promiser:
    """Who promises, by which key, for which contract."""

    member_id: str
    signer: DigestSigner  # the member's promise key
    chain_id: int
    omission_registry: str
    merge_delay_s: int
    clock: Clock

    def promise(self, txid: bytes, commitment: bytes, salt_fin: bytes) -> Promise:
        """The promise of an entry whose transaction is committed: anchored within the delay."""
        deadline = self.clock.now_ms() // 1000 + self.merge_delay_s
        digest = promise_digest(
            chain_id=self.chain_id,
            registry=self.omission_registry,
            member_id=self.member_id,
            txid=txid,
            commitment=commitment,
            merge_deadline=deadline,
        )
        signature = self.signer.sign_digest(digest)
        return Promise(self.member_id, txid, commitment, salt_fin, deadline, signature)


def promise_transaction(
    engine: sqlalchemy.Engine, promiser: Promiser, txid: bytes
) -> Promise | None:
    """The transaction's promise, made now if there was none; None if there is no such transaction.

    It is stored before it is given out; of two makers at once the first one's stands.
    """
    with store.transaction(engine) as connection:
        known = promise_queries.promise_of(connection, promiser.member_id, txid)
        if known is not None:
            return known
        found = promise_queries.promisable(connection, txid)
        if found is None:
            return None
        made = promiser.promise(txid, found.commitment, found.salt_fin)
        promise_queries.insert_promise(connection, made, promiser.clock.now_ms())
    with store.transaction(engine) as connection:
        return promise_queries.promise_of(connection, promiser.member_id, txid)
