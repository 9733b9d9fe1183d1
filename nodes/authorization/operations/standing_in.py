"""Approvals in the place of an issuer that is away, by contract (docs/ledger.md, Stand-in).

Whether the issuer has decided, or still will, isn't known: so the purchase is reversed as any other
without an answer, and what the terminal was told is an advice with a txid of its own, which the
issuer posts whatever has become of the purchase.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from datetime import date

import msgspec

from nodes import ids
from nodes.authorization.model import Kind, Outcome, TerminalAnswer
from nodes.authorization.operations.accepting import Acquirer
from nodes.authorization.operations.answering import approval_code
from nodes.authorization.operations.pending import (
    STAND_IN,
    Closing,
    Pending,
    encode_pending,
    encode_told,
    key_of_class,
)
from nodes.authorization.rules.stand_in import (
    STAND_IN_MARK,
    WINDOW_MS,
    Used,
    is_for_stand_in,
    stands_in,
)
from nodes.authorization.store import stand_ins
from nodes.authorization.store.acquirer import Connection
from nodes.authorization.store.forwards import QueuedForward
from nodes.authorization.store.requests import StoredRequest
from nodes.authorization.store.stand_ins import StoodIn
from nodes.crypto.pan import PanVault

#: Why the purchase itself is reversed.
REASON = "stood in"
#: The first attempt at the issuer, which has just not answered.
_PAUSE_MS = 1_000


class Unseen(msgspec.Struct, frozen=True):
    """An approval in an issuer's place: its row, the advice without its terminal's number, and the
    card's number as it waits."""

    row: StoodIn
    advice: Pending
    sealed: bytes
    business_date: date

    @property
    def told(self) -> TerminalAnswer:
        """What the terminal is told."""
        request = self.advice.request
        return TerminalAnswer(
            outcome=Outcome.APPROVED,
            rrn=request.rrn,
            approval_code=approval_code(request.txid),
            amount=request.amount,
            currency=request.currency,
            txid=request.txid,
        )

    def __repr__(self) -> str:
        return f"Unseen({self.row.txid.hex()})"


def find_stood_in(
    connection: Connection, acquirer: Acquirer, closings: Sequence[Closing], now_ms: int
) -> dict[bytes, Unseen]:
    """Which of these are approved in their issuers' place, by the purchase's txid.

    In the transaction that writes it: other approvals of the same cards wait for its end.
    """
    vault = acquirer.vault
    if vault is None or not acquirer.stand_in:
        return {}
    fitting: list[tuple[Closing, bytes]] = []
    for closing in closings:
        request = closing.forward.request
        contract = acquirer.stand_in.get(request.issuer)
        if closing.answer is not None or contract is None or request.pan is None:
            continue
        if is_for_stand_in(request, contract, now_ms):
            fitting.append((closing, vault.lookup(request.pan)))
    if not fitting:
        return {}
    lookups = [lookup for _, lookup in fitting]
    stand_ins.queue_up(connection, lookups)
    used = stand_ins.used_since(connection, lookups, now_ms - WINDOW_MS)
    found: dict[bytes, Unseen] = {}
    for closing, lookup in fitting:
        request, before = closing.forward.request, used.get(lookup, Used())
        room = stands_in(request, acquirer.stand_in[request.issuer], before)
        if request.txid in found or not room:
            continue
        used[lookup] = Used(before.amount + request.amount, before.count + 1)
        found[request.txid] = _unseen(closing, vault, lookup, now_ms)
    return found


def _unseen(closing: Closing, vault: PanVault, lookup: bytes, now_ms: int) -> Unseen:
    forward, asked = closing.forward, closing.pending.request
    network_ref = ids.new_network_ref()
    made = msgspec.structs.replace(
        asked,
        txid=ids.txid(asked.acquirer, asked.issuer, network_ref),
        network_ref=network_ref,
        kind=Kind.ADVICE,
        stan=asked.stan + STAND_IN_MARK,
        transmitted_ms=now_ms,
        salt_fin=secrets.token_bytes(32),
        salt_pii=secrets.token_bytes(32),
        advice=True,
    )
    row = StoodIn(made.txid, asked.txid, asked.issuer, lookup, asked.amount, asked.currency, now_ms)
    advice = msgspec.structs.replace(closing.pending, request=made)
    sealed = vault.seal(forward.request.pan or "", made.txid)
    return Unseen(row, advice, sealed, forward.business_date)


def rows_of(unseen: Unseen, terminal_seq: int) -> tuple[StoredRequest, QueuedForward]:
    """The advice as it is stored with its answer, and as it waits for the issuer."""
    request = msgspec.structs.replace(unseen.advice.request, terminal_seq=terminal_seq)
    blob = encode_pending(msgspec.structs.replace(unseen.advice, request=request))
    asked = msgspec.structs.replace(request, stan=request.stan.removesuffix(STAND_IN_MARK))
    key = key_of_class(request.acquirer, asked, STAND_IN)
    stored = StoredRequest(
        key,
        unseen.business_date,
        hashlib.sha256(request.txid).digest(),
        request.txid,
        request.issuer,
        blob,
        encode_told(unseen.told),
        request.deadline_ms,
    )
    waiting = QueuedForward(
        request.txid,
        request.txid,
        request.issuer,
        request.terminal_id,
        request.batch,
        key,
        unseen.business_date,
        blob,
        unseen.sealed,
        unseen.row.at_ms + _PAUSE_MS,
    )
    return stored, waiting
