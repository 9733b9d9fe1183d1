"""From what two parties hold to the names of their breaks. Pure.

Classes in order of precedence: nodes.clearing.model.BreakKind. A transaction is one break.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any

from nodes.clearing.model import COMMITMENT_FIELD, Break, BreakKind, Party
from nodes.clearing.rules.cases import missing_at
from nodes.crypto.commitment import SharedField, shared_root
from nodes.reconciliation.comparing import Evidence
from nodes.reconciliation.protocol import Held


def classify(
    evidence: Evidence, *, now_ms: int, late_ms: int, unexplained_totals: bool = False
) -> list[Break]:
    """Every break, once, in the order of kinds and txids.

    `late_ms`: how long after its transmission a transaction may still arrive.
    `unexplained_totals`: the posted totals differ, and no item and no salt does.
    """
    breaks = [Break(BreakKind.TOTALS_MISMATCH)] if unexplained_totals else []
    breaks += [_of_transaction(evidence, txid, now_ms, late_ms) for txid in _alone(evidence)]
    named = {found.txid for found in breaks}
    repeats = [*evidence.my_findings.duplicates, *evidence.their_findings.duplicates]
    for later, first in sorted(set(repeats)):
        if later not in named:
            named.add(later)
            breaks.append(_duplicate(evidence, later, first, None))
    breaks += _gaps(evidence)
    for txid in sorted(set(evidence.my_findings.unsigned) - named):
        breaks.append(Break(BreakKind.UNSIGNED, txid, detail=_detail(evidence, txid)))
    order = list(BreakKind)
    return sorted(breaks, key=lambda b: (order.index(b.kind), b.txid or b"", b.pair_seq or 0))


def _alone(evidence: Evidence) -> list[bytes]:
    found = evidence.differences
    return sorted({item.txid for item in [*found.only_mine, *found.only_theirs]})


def _of_transaction(evidence: Evidence, txid: bytes, now_ms: int, late_ms: int) -> Break:
    mine, theirs = evidence.mine.get(txid), evidence.theirs.get(txid)
    copies = (mine.in_close if mine else 0, theirs.in_close if theirs else 0)
    if max(copies) > 1:
        lacking: Party | None = None
        if copies[0] != copies[1]:
            lacking = "issuer" if copies[0] > copies[1] else "acquirer"
        return _duplicate(evidence, txid, txid, lacking)
    if mine is not None and theirs is not None:
        return _of_both(evidence, txid, mine, theirs, late_ms)
    holder = mine or theirs
    lacking = "issuer" if mine is not None else "acquirer"
    if holder is None:
        # In a close, and in nobody's books: its row is gone.
        in_mine = any(item.txid == txid for item in evidence.differences.only_mine)
        lacking = "issuer" if in_mine else "acquirer"
        return Break(missing_at(lacking), txid, lacking=lacking)
    if holder.first_txid is not None:
        return _duplicate(evidence, txid, holder.first_txid, lacking)
    due_ms = holder.time_ms + late_ms
    kind = BreakKind.LATE if now_ms < due_ms else missing_at(lacking)
    return Break(
        kind,
        txid,
        lacking=lacking,
        due_ms=due_ms if kind is BreakKind.LATE else None,
        detail=_detail(evidence, txid),
    )


def _of_both(evidence: Evidence, txid: bytes, mine: Held, theirs: Held, late_ms: int) -> Break:
    detail = _detail(evidence, txid)
    fields = differing_fields(mine, theirs)
    lacking: Party | None = None
    if (mine.in_close > 0) != (theirs.in_close > 0):
        lacking = "issuer" if mine.in_close else "acquirer"
    same_c = mine.commitment == theirs.commitment
    if fields == (COMMITMENT_FIELD,) and same_c and mine.salt_fin != theirs.salt_fin:
        # In the list nothing differs: one of the two salts isn't the one that C was made with.
        return Break(BreakKind.TOTALS_MISMATCH, txid, lacking=lacking, detail=detail)
    if fields:
        return Break(BreakKind.FIELD_MISMATCH, txid, fields=fields, lacking=lacking, detail=detail)
    if mine.business_date != theirs.business_date:
        other = theirs if lacking == "issuer" else mine
        return Break(
            BreakKind.WRONG_DATE,
            txid,
            lacking=lacking,
            other_date=_day(other.business_date),
            detail=detail,
        )
    # Alike in both books, but recorded after one of the closes: it has come, late.
    return Break(
        BreakKind.LATE, txid, lacking=lacking, due_ms=mine.time_ms + late_ms, detail=detail
    )


def differing_fields(mine: Held, theirs: Held) -> tuple[str, ...]:
    """The names of C's fields that differ, by their leaves; empty if the two are alike."""
    pairs = list(zip(mine.field_leaves(), theirs.field_leaves(), strict=True))
    values = [
        (mine.amount, theirs.amount),
        (mine.currency, theirs.currency),
        (mine.kind_word, theirs.kind_word),
        (mine.time_ms, theirs.time_ms),
        (mine.merchant, theirs.merchant),
        (mine.outcome_word, theirs.outcome_word),
        (mine.original, theirs.original),
    ]
    fields = [
        field.name.lower()
        for field, (own, other) in zip(SharedField, pairs, strict=True)
        if own != other
    ]
    if mine.salt_fin != theirs.salt_fin:
        # Another salt changes all seven leaves: what differs besides is what the values say.
        unequal = [
            field.name.lower()
            for field, (own, other) in zip(SharedField, values, strict=False)
            if own != other
        ]
        fields = [*unequal, *(f for f in fields if f == SharedField.CARD_TOKEN.name.lower())]
    if fields:
        return tuple(fields)
    unlike = mine.commitment != theirs.commitment
    if unlike or mine.salt_fin != theirs.salt_fin or _unsound(mine) or _unsound(theirs):
        return (COMMITMENT_FIELD,)
    if mine.effect != theirs.effect:
        # Alike, but one of them has another original than it names.
        return (SharedField.ORIGINAL.name.lower(),)
    return ()


def _unsound(held: Held) -> bool:
    return shared_root(held.field_leaves()) != held.commitment


def _duplicate(evidence: Evidence, txid: bytes, first: bytes, lacking: Party | None) -> Break:
    return Break(
        BreakKind.DUPLICATE,
        txid,
        lacking=lacking,
        first_txid=first,
        detail=_detail(evidence, txid),
    )


def _gaps(evidence: Evidence) -> Iterator[Break]:
    """Numbers that lack in a party's books, but for those of transactions that the party lacks."""
    theirs, mine = evidence.their_numbers, evidence.my_numbers
    for number in sorted({*theirs, *mine}):
        at_other = theirs.get(number) if number in theirs else None
        at_me = mine.get(number) if number in mine else None
        if at_other is not None and at_other not in evidence.mine:
            continue
        if at_me is not None and at_me not in evidence.theirs:
            continue
        yield Break(BreakKind.SEQ_GAP, pair_seq=number)


def _detail(evidence: Evidence, txid: bytes) -> dict[str, Any]:
    held = {"acquirer": evidence.mine.get(txid), "issuer": evidence.theirs.get(txid)}
    return {party: detail_of(found) for party, found in held.items() if found is not None}


def detail_of(held: Held) -> dict[str, Any]:
    """A party's version as JSON; bytes in hex, amounts in minor units."""
    return {
        "commitment": held.commitment.hex(),
        "amount": held.amount,
        "currency": held.currency,
        "kind": held.kind,
        "outcome": held.outcome,
        "transmitted_ms": held.time_ms,
        "merchant_id": held.merchant,
        "original_txid": held.original.hex() or None,
        "effect": held.effect,
        "business_date": _day(held.business_date).isoformat(),
        "pair_seq": held.pair_seq,
        "in_close": held.in_close,
        "salt_fin": held.salt_fin.hex(),
    }


def _day(number: int) -> date:
    year, rest = divmod(number, 10_000)
    return date(year, *divmod(rest, 100))
