"""Approvals in the place of an issuer that is away, by contract (docs/ledger.md, Stand-in).

The purchase itself goes to the issuer later, by the store-and-forward queue, marked as approved
already: an issuer that had decided it answers as it had, one that never saw it posts it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from nodes.authorization.operations.opening import Acquirer
from nodes.authorization.operations.pending import Closing, card_of, encode_pending
from nodes.authorization.rules.stand_in import WINDOW_MS, Used, is_for_stand_in, stands_in
from nodes.authorization.store import stand_ins
from nodes.authorization.store.acquirer import Connection
from nodes.authorization.store.forwards import QueuedForward
from nodes.authorization.store.stand_ins import StoodIn

#: The first attempt at the issuer, which has just not answered.
_PAUSE_MS = 1_000


def find_stood_in(
    connection: Connection, acquirer: Acquirer, closings: Sequence[Closing], now_ms: int
) -> dict[bytes, tuple[StoodIn, QueuedForward]]:
    """Which of these are approved in their issuers' place, by txid, and what is to be written.

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
    found: dict[bytes, tuple[StoodIn, QueuedForward]] = {}
    for closing, lookup in fitting:
        request, before = closing.forward.request, used.get(lookup, Used())
        if request.txid in found or not stands_in(
            request, acquirer.stand_in[request.issuer], before
        ):
            continue
        used[lookup] = Used(before.amount + request.amount, before.count + 1)
        found[request.txid] = (
            StoodIn(request.txid, request.issuer, lookup, request.amount, request.currency, now_ms),
            _queued(closing, vault.seal(card_of(request), request.txid), now_ms),
        )
    return found


def _queued(closing: Closing, sealed: bytes, now_ms: int) -> QueuedForward:
    """The purchase as its issuer gets it later: the same, approved already."""
    forward, pending = closing.forward, closing.pending
    asked = msgspec.structs.replace(pending.request, advice=True)
    return QueuedForward(
        asked.txid,
        asked.txid,
        asked.issuer,
        asked.terminal_id,
        asked.batch,
        forward.key,
        forward.business_date,
        encode_pending(msgspec.structs.replace(pending, request=asked)),
        sealed,
        now_ms + _PAUSE_MS,
    )
