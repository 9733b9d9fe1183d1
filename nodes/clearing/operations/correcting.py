"""The correcting entry: what a countersigned correction does to the books that were wrong.

Ledger rows never change. The entry is a transaction of its own (kind adjustment, pair_seq 0, the
broken transaction as its original) that moves the difference between the counterparty's settlement
account and this institution's clearing account; beside it stands what the corrected close takes out
and puts in. It touches neither cardholder nor merchant: what they are owed is for their institution
to settle with them, by an adjustment or a refund.
"""

from __future__ import annotations

import secrets
from datetime import datetime
from zoneinfo import ZoneInfo

import structlog
from sqlalchemy import Engine

from nodes import clock, ids
from nodes.authorization.model import Kind, Outcome
from nodes.clearing import case_queries, queries, store
from nodes.clearing.case_queries import CaseFile
from nodes.clearing.model import (
    BreakKind,
    CaseState,
    CaseStep,
    Close,
    Item,
    Party,
    other_party,
)
from nodes.clearing.operations.cases import NODE, take_step
from nodes.clearing.rules.cases import corrected_party
from nodes.clearing.rules.closing import Correction, SaltedItem
from nodes.clearing.store import Connection
from nodes.crypto.commitment import SharedFacts, shared_commitment
from nodes.db.engine import transaction
from nodes.ledger.model import AccountKey, TransactionRecord, Transfer
from nodes.ledger.store import (
    find_or_open_accounts,
    record_transactions,
    take_transaction_ids,
)

log = structlog.get_logger(__name__)


def correct_cases(
    engine: Engine, member_id: str, now: datetime, time_zone: str
) -> list[tuple[bytes, bytes]]:
    """Write the correcting entries of countersigned cases that concern these books.

    An acquirer's cases are then corrected. An issuer's come back as (break_ref, txid of the entry),
    again and again until the acquirer, who keeps them, has acknowledged each.
    """
    with transaction(engine) as connection:
        refs = case_queries.cases_in(connection, CaseState.COUNTERSIGNED)
    to_report: list[tuple[bytes, bytes]] = []
    for ref in refs:
        with transaction(engine) as connection:
            store.lock(connection, f"correcting/{ref.hex()}", wait=True)
            [file] = case_queries.case_files(connection, refs=[ref], detail=True)
            if file.case.state is not CaseState.COUNTERSIGNED or file.case.resolution is None:
                continue
            found = queries.close_by_id(connection, file.found["close_id"])
            assert found is not None
            close = found.close
            wrong = corrected_party(file.case.resolution)
            if wrong is None:
                if close.party == "acquirer":
                    _corrected(connection, ref, member_id, now, None)
                continue
            if wrong != close.party:
                continue
            entry = case_queries.correction_entry(connection, ref)
            if entry is None:
                entry = _correct(connection, file, close, member_id, now, time_zone)
            if close.party == "acquirer":
                _corrected(connection, ref, member_id, now, entry)
            else:
                to_report.append((ref, entry))
    return to_report


def _corrected(
    connection: Connection, ref: bytes, member_id: str, now: datetime, entry: bytes | None
) -> None:
    take_step(
        connection,
        ref,
        CaseStep.CORRECTED,
        member=member_id,
        actor=NODE,
        now=now,
        entry_txid=entry,
    )


def correction_of(file: CaseFile, close: Close) -> Correction:
    """What this party's close takes out and puts in: the other party's version stands."""
    detail = file.found["detail"] or {}
    party: Party = close.party
    txid: bytes = file.found["txid"]
    mine, theirs = detail.get(party), detail.get(other_party(party))
    removed = added = None
    if mine is not None and mine["in_close"]:
        removed = Item(txid, bytes.fromhex(mine["commitment"]), mine["effect"])
    extra = file.found["kind"] == BreakKind.DUPLICATE.value and txid == file.found["first_txid"]
    if extra:
        # It stands twice with one of the two: one of them goes, or one more comes.
        if file.found["lacking"] == party:
            removed = None
        else:
            return Correction(removed, None)
    if theirs is not None and theirs["in_close"]:
        item = Item(txid, bytes.fromhex(theirs["commitment"]), theirs["effect"])
        added = SaltedItem(item, bytes.fromhex(theirs["salt_fin"]))
    return Correction(removed, added)


def _correct(
    connection: Connection,
    file: CaseFile,
    close: Close,
    member_id: str,
    now: datetime,
    time_zone: str,
) -> bytes:
    correction = correction_of(file, close)
    # A wrong date moves no money: in the two closes together nothing changes.
    moved = 0 if file.found["kind"] == BreakKind.WRONG_DATE.value else correction.moves
    record = _entry(connection, close, file.found["txid"], moved, member_id, now, time_zone)
    record_transactions(connection, [record])
    store.insert_correction(
        connection, file.case.break_ref, close.close_id, correction, record.txid, now
    )
    log.info("break_corrected", break_ref=file.case.break_ref.hex(), entry=record.txid.hex())
    return record.txid


def _entry(
    connection: Connection,
    close: Close,
    broken: bytes,
    moved: int,
    member_id: str,
    now: datetime,
    time_zone: str,
) -> TransactionRecord:
    """The ledger's transaction: `moved` is by how much the issuer's debt rises."""
    key, at_ms = close.key, clock.to_ms(now)
    other = key.other(member_id)
    settlement = AccountKey("settlement", other, key.currency)
    clearing = AccountKey("clearing", member_id, key.currency)
    opened = find_or_open_accounts(connection, [settlement, clearing], now)
    transfers: tuple[Transfer, ...] = ()
    if moved:
        # In the acquirer's books the issuer's debt lowers settlement, in the issuer's it raises it.
        raises = (moved > 0) == (close.party == "issuer")
        debit, credit = (clearing, settlement) if raises else (settlement, clearing)
        transfers = (Transfer(opened[debit], opened[credit], abs(moved)),)
    network_ref = ids.new_network_ref()
    txid = ids.txid(member_id, member_id, network_ref)
    salt_fin, salt_pii, salt_private = (secrets.token_bytes(32) for _ in range(3))
    facts = SharedFacts(
        amount=abs(moved),
        currency=key.currency.encode("ascii"),
        kind=Kind.ADJUSTMENT.word,
        time_ms=at_ms,
        merchant=b"",
        outcome=Outcome.APPROVED.word,
        original=broken,
        card_token=b"",
    )
    [number] = take_transaction_ids(connection, 1)
    return TransactionRecord(
        transaction_id=number,
        txid=txid,
        side=close.party,
        network_ref=network_ref,
        acquirer=member_id,
        issuer=member_id,
        kind=Kind.ADJUSTMENT.value,
        outcome=Outcome.APPROVED.value,
        amount=abs(moved),
        currency=key.currency,
        approval_code=None,
        merchant_id="",
        merchant_name=f"close {key.business_date} of {other}",
        mcc="",
        country="",
        terminal_id="",
        terminal_seq=0,
        pair_seq=0,
        business_date=now.astimezone(ZoneInfo(time_zone)).date(),
        batch="",
        stan="",
        rrn="",
        entry_mode="",
        pan_masked=None,
        card_token=None,
        account_id=None,
        account_version=None,
        original_txid=broken,
        transmitted_ms=at_ms,
        decided_ms=at_ms,
        salt_fin=salt_fin,
        salt_pii=salt_pii,
        card_token_leaf=None,
        salt_private=salt_private,
        commitment=shared_commitment(txid, facts, salt_fin, salt_pii),
        transfers=transfers,
    )
