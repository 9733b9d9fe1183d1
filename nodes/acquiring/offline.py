"""Offline payments at a terminal: whether one more may be made, and the pages that it downloads.

Pure. Amounts are minor units, moments milliseconds since 1970, UTC. The caps are parameters that
the acquirer sets (nodes/acquiring/fleet); their starting values stand in docs/offline.md.
"""

from __future__ import annotations

import json
import struct
from enum import StrEnum
from typing import Any

import msgspec

from nodes.acquiring.fleet.model import Parameters

_HOUR_MS = 3_600_000
#: Entries of one page: it fits into DE56.
PAGE_ENTRIES = 100
_HEAD = struct.Struct(">IIBH")
_ENTRY = struct.Struct(">8sB")


class OfflineRefusal(StrEnum):
    """Why a payment must go online, in order of precedence."""

    NOT_CHIP = "not_chip"
    HOTLIST_OLD = "hotlist_old"
    HOTLISTED = "hotlisted"
    AMOUNT = "amount"
    CARD_COUNT = "card_count"
    CARD_AMOUNT = "card_amount"
    TERMINAL_AMOUNT = "terminal_amount"
    TERMINAL_AGE = "terminal_age"


class Spent(msgspec.Struct, frozen=True):
    """What one card has paid at this terminal since the last upload."""

    count: int = 0
    amount: int = 0


class TerminalOffline(msgspec.Struct, frozen=True):
    """What a terminal remembers of offline payments since its last upload, and its hotlist."""

    by_card: dict[bytes, Spent] = {}
    amount: int = 0
    first_ms: int | None = None
    hotlist: frozenset[bytes] = frozenset()
    hotlist_version: int = 0
    #: When the acquirer last knew all issuers' entries. 0: never.
    hotlist_as_of_ms: int = 0


class HotlistPage(msgspec.Struct, frozen=True):
    """Entries behind a version: (card key id, whether it is listed) in order."""

    version: int
    as_of_ms: int
    more: bool
    entries: tuple[tuple[bytes, bool], ...]


def may_spend(
    state: TerminalOffline,
    caps: Parameters,
    *,
    card_key_id: bytes,
    amount: int,
    entry_mode: str,
    now_ms: int,
) -> OfflineRefusal | None:
    """Why a payment may not be made offline; None if it may. Chip only (DE22 05x or 07x)."""
    spent = state.by_card.get(card_key_id, Spent())
    too_old = now_ms - state.hotlist_as_of_ms > caps.hotlist_max_age_hours * _HOUR_MS
    age = 0 if state.first_ms is None else now_ms - state.first_ms
    objections = {
        OfflineRefusal.NOT_CHIP: entry_mode[:2] not in ("05", "07"),
        OfflineRefusal.HOTLIST_OLD: too_old,
        OfflineRefusal.HOTLISTED: card_key_id in state.hotlist,
        OfflineRefusal.AMOUNT: not 0 < amount <= caps.offline_per_transaction,
        OfflineRefusal.CARD_COUNT: spent.count >= caps.offline_count_per_card,
        OfflineRefusal.CARD_AMOUNT: spent.amount + amount > caps.offline_per_card,
        OfflineRefusal.TERMINAL_AMOUNT: state.amount + amount > caps.offline_per_terminal,
        OfflineRefusal.TERMINAL_AGE: age > caps.offline_hours * _HOUR_MS,
    }
    return next((refusal for refusal, applies in objections.items() if applies), None)


def spent_offline(
    state: TerminalOffline, *, card_key_id: bytes, amount: int, now_ms: int
) -> TerminalOffline:
    """The terminal after an offline payment."""
    before = state.by_card.get(card_key_id, Spent())
    after = Spent(before.count + 1, before.amount + amount)
    return msgspec.structs.replace(
        state,
        by_card={**state.by_card, card_key_id: after},
        amount=state.amount + amount,
        first_ms=now_ms if state.first_ms is None else state.first_ms,
    )


def uploaded(state: TerminalOffline) -> TerminalOffline:
    """The terminal once all of its records are acknowledged: it counts anew."""
    return msgspec.structs.replace(state, by_card={}, amount=0, first_ms=None)


def take_page(state: TerminalOffline, page: HotlistPage) -> TerminalOffline:
    """The terminal with a page of the hotlist; its age counts once the last page is there."""
    listed = set(state.hotlist)
    for key_id, on in page.entries:
        if on:
            listed.add(key_id)
        else:
            listed.discard(key_id)
    return msgspec.structs.replace(
        state,
        hotlist=frozenset(listed),
        hotlist_version=page.version,
        hotlist_as_of_ms=state.hotlist_as_of_ms if page.more else page.as_of_ms,
    )


def encode_hotlist_page(page: HotlistPage) -> bytes:
    """DE56: version 4 | as of 4 (seconds) | more 1 | count 2 | for each: key id 8 | listed 1."""
    head = _HEAD.pack(page.version, page.as_of_ms // 1000, page.more, len(page.entries))
    return head + b"".join(_ENTRY.pack(key_id, on) for key_id, on in page.entries)


def decode_hotlist_page(data: bytes) -> HotlistPage:
    """What encode_hotlist_page made these bytes of. ValueError if they aren't."""
    try:
        version, as_of, more, count = _HEAD.unpack_from(data)
    except struct.error:
        raise ValueError("a page of the hotlist has at least 11 bytes") from None
    if len(data) != _HEAD.size + count * _ENTRY.size or more > 1:
        raise ValueError("a page of the hotlist has another length than it says")
    entries = tuple((key, bool(on)) for key, on in _ENTRY.iter_unpack(data[_HEAD.size :]))
    return HotlistPage(version, as_of * 1000, bool(more), entries)


def encode_parameters(version: int, parameters: Parameters) -> bytes:
    """DE56: JSON, ASCII, with the version of these parameters."""
    document = {"version": version, "parameters": msgspec.to_builtins(parameters)}
    return json.dumps(document, separators=(",", ":")).encode("ascii")


def decode_parameters(data: bytes) -> tuple[int, Parameters]:
    """What encode_parameters made these bytes of. msgspec.MsgspecError if they aren't."""
    document: dict[str, Any] = msgspec.json.decode(data, type=dict[str, Any])
    return (
        msgspec.convert(document.get("version"), int),
        msgspec.convert(document.get("parameters"), Parameters),
    )
