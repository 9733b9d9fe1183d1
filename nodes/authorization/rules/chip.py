"""Chip: the cryptogram, the counter, scripts that the card has done. Pure.

What a card's chip has counted is kept beside the spending windows, in the account's versions
(state.Counter): under "atc:<card id>" the last counter seen, under "script:<card id>" the scripts
that wait. So two processes can't both take the same counter. No rule's id has a colon.
"""

from __future__ import annotations

from enum import IntFlag

from nodes.authorization.model import AuthorizationRequest, Kind, Outcome
from nodes.authorization.rules.draft import Draft, refused
from nodes.authorization.state import Card, ChipCheck, Counter, Decision, Facts
from nodes.crypto.offline_record import decode_record
from nodes.emv.chip_data import ChipData, CryptogramType
from nodes.money import numeric_code


class Script(IntFlag):
    """What an issuer tells a card: one bit each, as they wait in the counter's amount."""

    BLOCK_CARD = 1
    BLOCK_APPLICATION = 2
    UNBLOCK_APPLICATION = 4
    RESET_OFFLINE = 8


#: Statuses after which a card that speaks is told to stop.
_BLOCKING = frozenset({"lost", "stolen", "cancelled"})


def atc_id(card_id: int) -> str:
    """Where the last transaction counter of a card is kept."""
    return f"atc:{card_id}"


def script_id(card_id: int) -> str:
    """Where the scripts that wait for a card are kept."""
    return f"script:{card_id}"


def refuse_chip(
    request: AuthorizationRequest, check: ChipCheck | None, card: Card, draft: Draft
) -> Decision | None:
    """Chip data must be there, of this transaction, made by this card, and new.

    A good cryptogram uses its counter up, whatever becomes of the request.
    """
    card_id = card.card_id
    if check is None:
        values: dict[str, int | str] = {"fault": "DE55 is missing"}
        return refused(draft, Outcome.CHIP_DATA_INVALID, values, card_id)
    data, fault = check.data, _fault(request, check, CryptogramType.ARQC)
    if fault or data is None:
        return refused(draft, Outcome.CHIP_DATA_INVALID, {"fault": fault}, card_id)
    if data.day != _day_of(request):
        fault = f"date {data.day} in the chip's data"
        return refused(draft, Outcome.CHIP_DATA_INVALID, {"fault": fault}, card_id)
    last = draft.counters.get(atc_id(card_id), Counter(0)).period
    if not check.genuine or data.atc <= last:
        fault = "it was used before" if check.genuine else "it isn't this card's"
        values = {"fault": fault, "atc": data.atc, "last_atc": last}
        return refused(draft, Outcome.CRYPTOGRAM_WRONG, values, card_id)
    draft.set_counter(atc_id(card_id), Counter(data.atc))
    _note_scripts(data, card_id, draft)
    return None


def doubt_about_advice(
    request: AuthorizationRequest, check: ChipCheck, record_atc: int | None
) -> str:
    """What is wrong with the chip's word (TC) for a payment that has happened already; "" if
    nothing is. Nothing is refused for it: whoever reads the alarm decides.

    `record_atc`: the counter of the offline record that came along. Uploads are late, so the last
    counter says nothing; but a chip can't have paid on a later day than the message's.
    """
    data, fault = check.data, _fault(request, check, CryptogramType.TC)
    if fault or data is None:
        return fault
    if not check.genuine:
        return "the cryptogram isn't this card's"
    if data.day > _day_of(request):
        return f"date {data.day} in the chip's data"
    if record_atc is not None and record_atc != data.atc:
        return f"counter {data.atc} in the chip's data, {record_atc} in the record"
    return ""


def note_advice(request: AuthorizationRequest, facts: Facts, card: Card, draft: Draft) -> None:
    """A genuine TC uses its counter up, and so does a record that a chip card has signed: an ARQC
    under it, or an older one, is not taken after it."""
    card_id, check, entry, used = card.card_id, facts.chip, card.entry, 0
    if request.offline is not None and entry is not None and entry.profile is not None:
        used = decode_record(request.offline).atc
    data = check.data if check is not None else None
    if check is not None and data is not None and not doubt_about_advice(request, check, None):
        used = max(used, data.atc)
        _note_scripts(data, card_id, draft)
    if used > draft.counters.get(atc_id(card_id), Counter(0)).period:
        draft.set_counter(atc_id(card_id), Counter(used))


def _fault(request: AuthorizationRequest, check: ChipCheck, wanted: CryptogramType) -> str:
    data = check.data
    if data is None:
        return check.fault
    if data.kind is not wanted:
        return f"the cryptogram is {data.kind.name}, not {wanted.name}"
    if request.kind is not Kind.BALANCE_INQUIRY and data.amount != request.amount:
        return f"amount {data.amount} in the chip's data"
    if data.currency != numeric_code(request.currency):
        return f"currency {data.currency} in the chip's data"
    return ""


def _day_of(request: AuthorizationRequest) -> str:
    """The terminal's date as chips have it, YYMMDD."""
    return request.local_time[2:10].replace("-", "")


def _note_scripts(data: ChipData, card_id: int, draft: Draft) -> None:
    """A script that the card says it has done waits no longer."""
    waiting = draft.counters.get(script_id(card_id))
    if waiting is None or not waiting.amount:
        return
    for result in data.scripts:
        if result.done and int.from_bytes(result.script_id, "big") == waiting.period:
            draft.set_counter(script_id(card_id), Counter(waiting.period, 0, waiting.count + 1))


def queue_script(draft: Draft, card_id: int, script: Script) -> None:
    """Have a card told something at its next visit, until it says that it has done it."""
    waiting = draft.counters.get(script_id(card_id), Counter(0))
    amount = waiting.amount | script
    draft.set_counter(script_id(card_id), Counter(waiting.period + 1, amount, waiting.count))


def scripts_due(status: str, waiting: Counter | None) -> tuple[int, Script]:
    """What a card is told now, and under which number. A lost card is blocked, asked or not."""
    due = Script(waiting.amount if waiting is not None else 0)
    if status in _BLOCKING:
        due |= Script.BLOCK_CARD
    return (waiting.period if waiting is not None else 0), due
