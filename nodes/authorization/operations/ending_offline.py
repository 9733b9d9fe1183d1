"""Advices of payments that were asked for online before, under the same counter of the chip.

rules/ended_offline.py says what has to reach the issuer first; here it is looked up and queued.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import msgspec

from nodes.authorization.model import Kind, Outcome, TerminalAnswer, TerminalRequest
from nodes.authorization.operations.opening import Opening
from nodes.authorization.operations.pending import (
    date_of,
    decode_pending,
    decode_told,
    reversal_of,
)
from nodes.authorization.rules.ended_offline import AskedOnline, Before, what_goes_before
from nodes.authorization.store import acquirer as books
from nodes.authorization.store.acquirer import Connection
from nodes.authorization.store.online_counters import Counted, OnlineCounter, asked_online
from nodes.authorization.store.requests import StoredRequest, stored_requests
from nodes.crypto.offline_record import RecordMalformed, decode_record
from nodes.emv.chip_data import slip

#: Why such a request is reversed.
REASON = "ended offline"


def read_asked_online(
    connection: Connection, state: Opening, requests: Iterable[TerminalRequest]
) -> None:
    """What was asked online under the counters of these advices."""
    wanted = {one for r in requests if r.kind is Kind.ADVICE for one in _counted(state, r)}
    if not wanted:
        return
    found = asked_online(connection, wanted)
    keys = [(one.key, one.business_date) for one in found]
    stored = stored_requests(connection, keys, "acquirer")
    txids = [row.txid for row in stored.values() if row.txid is not None]
    waits = books.queued_reversals(connection, txids)
    followed = books.followed_originals(connection, txids)
    asked: dict[Counted, list[tuple[StoredRequest, AskedOnline]]] = defaultdict(list)
    for one in found:
        row = stored.get(one.key)
        if row is None or row.request is None or row.txid is None:
            continue
        request = decode_pending(row.request).request
        online = AskedOnline(
            request.kind,
            request.terminal_id,
            request.amount,
            request.currency,
            None if row.answer is None else decode_told(row.answer),
            reversed=row.txid in waits,
            reversal_waits=waits.get(row.txid, False),
            followed=row.txid in followed,
        )
        asked[one.card_lookup, one.atc].append((row, online))
    state.asked_online = asked


def put_behind(state: Opening, request: TerminalRequest) -> bytes | None:
    """The transaction behind whose reversal an advice goes to its issuer; None: at once.

    Where there is no reversal yet, it is queued.
    """
    for counted in sorted(_counted(state, request)):
        for row, known in state.asked_online.get(counted, ()):
            online = known
            if row.txid in state.queuing:
                online = msgspec.structs.replace(known, reversed=True, reversal_waits=True)
            before = what_goes_before(request, online)
            if before is Before.REVERSE:
                _reverse(state, request, row)
            if before is not Before.NOTHING:
                return row.txid
    return None


def note_chip(state: Opening, key: bytes, request: TerminalRequest, txid: bytes) -> None:
    """What a new request's chip data says to receipts, and to an advice that may come after it."""
    vault, told, counter = state.acquirer.vault, slip(request.icc or b""), None
    if told is None:
        return
    if vault is not None and request.kind in (Kind.PURCHASE, Kind.AUTHORIZATION):
        day = date_of(request.business_date)
        counter = OnlineCounter(vault.lookup(request.pan), told.atc, key, day)
    state.note_chip(txid, told, counter)


def _counted(state: Opening, request: TerminalRequest) -> set[Counted]:
    """The card's counters that an advice names, in its record and in its chip data."""
    counters: set[int] = set()
    told = slip(request.icc or b"")
    if told is not None:
        counters.add(told.atc)
    if request.offline is not None:
        try:
            counters.add(decode_record(request.offline).atc)
        except RecordMalformed:
            return set()
    vault = state.acquirer.vault
    if vault is None or not counters:
        return set()
    lookup = vault.lookup(request.pan)
    return {(lookup, atc) for atc in counters}


def _reverse(state: Opening, request: TerminalRequest, row: StoredRequest) -> None:
    if row.request is None or row.txid is None:
        raise RuntimeError("an online request without its content")
    pending = decode_pending(row.request)
    asked = pending.request
    if row.answer is None:
        # Its terminal waits no longer: whatever the issuer still answers is reversed.
        lost = TerminalAnswer(
            outcome=Outcome.ISSUER_UNAVAILABLE, rrn=asked.rrn, currency=asked.currency
        )
        state.answer_late(row.key, row.business_date, lost)
    kept = reversal_of(
        pending,
        terminal_seq=state.next_seq(state.terminals[asked.terminal_id]),
        amount=asked.amount,
        now_ms=state.now_ms,
        deadline_ms=request.deadline_ms,
    )
    state.queue(kept, asked, REASON, state.now_ms)
