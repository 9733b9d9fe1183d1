"""The issuer's decisions: a batch of requests on the snapshots of a `Book`.

Nothing here reads or writes the database. issuing.py appends what comes of it; between the two
nothing is locked: the database refuses what was decided on a snapshot that others have passed
(ADR 8).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

import msgspec
import structlog

from nodes import clock
from nodes.authorization import rules
from nodes.authorization.controls import Rule, Terms
from nodes.authorization.model import (
    FOLLOW_UPS,
    AuthorizationAnswer,
    AuthorizationRequest,
    Kind,
    Outcome,
)
from nodes.authorization.operations import presenting
from nodes.authorization.operations.answering import answer_to, repeat, unrecorded
from nodes.authorization.operations.asking import Asked, original_key_of
from nodes.authorization.state import (
    Account,
    Card,
    ChipCheck,
    Decision,
    Facts,
    Moment,
    OfflineFacts,
    OnlineUse,
    Original,
    Paid,
    Progress,
    Side,
)
from nodes.authorization.store.accounts import Holder, KnownOriginal
from nodes.authorization.store.requests import StoredRequest
from nodes.crypto.answer_signature import Signs
from nodes.crypto.emv import EmvHsm
from nodes.crypto.hsm import Hsm, PinBlockInvalid
from nodes.crypto.offline_record import (
    OfflineRecord,
    RecordMalformed,
    decode_record,
    is_genuine,
)
from nodes.crypto.pan import PanVault, mask
from nodes.emv import chip_data
from nodes.ledger.model import Transfer

log = structlog.get_logger(__name__)

_NO_TXID = bytes(32)


@dataclass
class Issuer:
    """What an issuer decides with."""

    member_id: str
    vault: PanVault
    hsm: Hsm
    clock: clock.Clock
    #: The message key, which signs the answers to other institutions.
    signer: Signs
    #: Holds the keys of chips and check values; None: this issuer has none.
    emv: EmvHsm | None = None


@dataclass
class Book:
    """What decisions are made on: snapshots kept in memory, replaced by each decision.

    Only a cache: whatever is stale here loses at the insert, and is read again.
    """

    cards: dict[bytes, Card] = field(default_factory=dict)
    holders: dict[int, Holder] = field(default_factory=dict)
    terms: dict[str, Terms] = field(default_factory=dict)
    product_rules: dict[str, tuple[Rule, ...]] = field(default_factory=dict)
    #: Ledger accounts that aren't cardholders', by what they are for, owner and currency.
    sides: dict[tuple[Side, str, str], int] = field(default_factory=dict)
    #: Answers of late, for repeats; older ones are looked up when their key is refused.
    recent: OrderedDict[bytes, StoredRequest] = field(default_factory=OrderedDict)
    #: Of offline records at hand, read for each batch: key id -> card token and public key;
    #: (key id, ATC) -> hashes of the records that were posted.
    offline_keys: dict[bytes, tuple[bytes, bytes]] = field(default_factory=dict)
    offline_posted: dict[tuple[bytes, int], tuple[bytes, ...]] = field(default_factory=dict)
    #: Of advices at hand, likewise: (card token, ATC) -> what was posted under it.
    paid: dict[tuple[bytes, int], tuple[Paid, ...]] = field(default_factory=dict)

    def forget(self) -> None:
        """Nothing in memory is trusted any more: read anew what is needed."""
        self.cards.clear()
        self.holders.clear()
        self.recent.clear()

    def drop(self, lookups: Iterable[bytes | None], account_ids: Iterable[int]) -> None:
        """Others have passed these: read them anew, and what belongs to them."""
        dropped = set(account_ids)
        for lookup in lookups:
            card = self.cards.pop(lookup, None) if lookup is not None else None
            if card is not None:
                dropped.add(card.account_id)
        for account_id in dropped:
            self.holders.pop(account_id, None)


@dataclass
class Decided:
    """One request's answer, and what is to be written for it; `record` None: nothing."""

    asked: Asked
    answer: AuthorizationAnswer
    record: Row | None = None
    #: A repeat of a request that isn't written yet: it gets that one's answer.
    twin: Decided | None = None
    #: As it is stored with its answer, once it is written.
    stored: StoredRequest | None = None


@dataclass
class Row:
    """What a fresh decision appends; ids and numbers of the pair come at the writing."""

    decision: Decision
    before: Account | None
    card_token: bytes | None
    pan_masked: str | None
    transfers: tuple[Transfer, ...]
    bar: StoredRequest | None = None
    chip: ChipCheck | None = None
    #: The offline record that came with it.
    record: OfflineRecord | None = None
    #: Its counter has paid another record.
    counter_taken: bool = False
    #: Its counter has paid another payment, whatever told of that.
    is_clone: bool = False
    #: An advice: what its counter was used for before, by the same payment and online.
    used_online: OnlineUse | None = None


# --- deciding ----------------------------------------------------------------------------------


def decide_batch(
    issuer: Issuer,
    book: Book,
    asked: Sequence[Asked],
    originals: dict[bytes, KnownOriginal],
    stored: dict[bytes, StoredRequest],
    in_flight: dict[bytes, Decided],
) -> list[Decided]:
    """Answer requests in order. `stored`: what is known under their keys; `originals`: of those
    they name; `in_flight`: decided before, being written now. Each decision advances the book.
    """
    return list(decide_each(issuer, book, asked, originals, stored, in_flight))


def decide_each(
    issuer: Issuer,
    book: Book,
    asked: Sequence[Asked],
    originals: dict[bytes, KnownOriginal],
    stored: dict[bytes, StoredRequest],
    in_flight: dict[bytes, Decided],
) -> Iterator[Decided]:
    """As decide_batch, one at a time; nothing else may decide on the book until the last."""
    now_ms = issuer.clock.now_ms()
    moments: dict[str, Moment] = {}

    def moment(zone: str) -> Moment:
        known = moments.get(zone)
        if known is None:
            local = clock.to_datetime(now_ms).astimezone(ZoneInfo(zone))
            known = moments[zone] = Moment(now_ms, local)
        return known

    # What a follow-up names may stand before it in the same batch.
    named = any(one.request.kind in FOLLOW_UPS for one in asked)
    bars: dict[bytes, StoredRequest] = {}
    done = dict(in_flight)
    for one in asked:
        known = stored.get(one.key) or book.recent.get(one.key) or bars.get(one.key)
        same = done.get(one.key)
        if known is not None:
            yield Decided(one, repeat(known, one, now_ms))
        elif same is not None:
            yield _same(one, same, now_ms)
        else:
            try:
                decided = _decide_one(issuer, book, one, originals, moment, now_ms)
            except Exception as error:  # noqa: BLE001 - one bad request must not take others along
                log.error("a request failed", error=type(error).__name__)
                refused = unrecorded(one.request, Outcome.SYSTEM_ERROR, now_ms)
                yield Decided(one, refused)
                continue
            if decided.record is not None:
                done[one.key] = decided
                if named:
                    originals[one.request.txid] = _as_original(decided)
                bar = decided.record.bar
                if bar is not None:
                    # Where the key is taken, nothing can come under it any more.
                    taken = bar.key in stored or bar.key in book.recent or bar.key in done
                    if taken or bars.setdefault(bar.key, bar) is not bar:
                        decided.record.bar = None
            yield decided


def _same(one: Asked, first: Decided, now_ms: int) -> Decided:
    """A repeat of what isn't written yet gets the first one's answer, once that is written."""
    if first.asked.fingerprint != one.fingerprint:
        return Decided(one, unrecorded(one.request, Outcome.KEY_REUSED, now_ms))
    return Decided(one, first.answer, twin=first)


def _decide_one(
    issuer: Issuer,
    book: Book,
    asked: Asked,
    originals: dict[bytes, KnownOriginal],
    moment: Callable[[str], Moment],
    now_ms: int,
) -> Decided:
    request = asked.request
    card = book.cards.get(asked.lookup) if asked.lookup is not None else None
    known = originals.get(request.original_txid) if request.original_txid is not None else None
    original = known.original if known is not None else None
    account_id = original.account_id if original is not None else card.account_id if card else None
    holder = book.holders.get(account_id) if account_id is not None else None
    facts = _facts(issuer, book, request, card, holder, original, originals, moment)
    decision = rules.decide(request, facts)
    before = holder.account if holder is not None else None
    transfers: tuple[Transfer, ...] = ()
    if decision.account is not None and holder is not None:
        if decision.moves:
            transfers = transfers_of(decision, holder.account, request, issuer.member_id, book)
        book.holders[decision.account.account_id] = Holder(
            decision.account, holder.product_id, holder.rules, holder.card_rules
        )
    for txid, progress in decision.progress.items():
        changed = originals.get(txid)
        if changed is not None:
            originals[txid] = KnownOriginal(
                msgspec.structs.replace(changed.original, progress=progress), changed.answer
            )
    # Of another acquirer's transaction nothing is told, not even which card it was.
    if original is not None and original.acquirer != request.acquirer:
        original, known = None, None
    token = card.card_token if card else original.card_token if original else None
    masked = card.pan_masked if card else original.pan_masked if original else None
    if masked is None and request.pan is not None:
        masked = mask(request.pan)
    answer = answer_to(request, decision, token, now_ms, known)
    row = Row(decision, before, token, masked, transfers)
    if facts.chip is not None and card is not None:
        row.chip = facts.chip
        icc = presenting.answer_chip(issuer.emv, request, card, facts, decision)
        if icc is not None:
            answer = msgspec.structs.replace(answer, icc=icc)
    if facts.offline is not None and request.offline is not None:
        row.record = decode_record(request.offline)
        row.counter_taken = bool(facts.offline.posted)
        if decision.outcome is Outcome.APPROVED:
            place = row.record.card_key_id, row.record.atc
            book.offline_posted[place] = (*facts.offline.posted, row.record.hash)
    if request.kind is Kind.ADVICE and card is not None:
        row.used_online = rules.used_online(request, facts) if facts.paid else None
        if decision.outcome is Outcome.APPROVED:
            row.is_clone = rules.is_clone(request, facts)
            _note_paid(book, request, card, row)
    elif row.chip is not None and row.chip.genuine and card is not None:
        _note_online(book, request, card, row.chip, decision.outcome)
    if decision.tombstone:
        row.bar = StoredRequest(
            original_key_of(request),
            asked.business_date,
            _NO_TXID,
            request.original_txid,
            None,
            None,
            None,
        )
    return Decided(asked, answer, row)


def _note_paid(book: Book, request: AuthorizationRequest, card: Card, row: Row) -> None:
    """A posted advice's counter is used, for those behind it in the batch."""
    data = row.chip.data if row.chip is not None else None
    atc = data.atc if data is not None else row.record.atc if row.record is not None else None
    if atc is None:
        return
    paid = Paid(
        atc=atc,
        chip=data.cryptogram + data.covered if data is not None else None,
        genuine=row.chip.genuine if data is not None and row.chip is not None else True,
        recorded=row.record is not None,
        terminal_id=request.terminal_id,
        amount=request.amount,
        currency=request.currency,
    )
    place = card.card_token, atc
    book.paid[place] = (*book.paid.get(place, ()), paid)


def _note_online(
    book: Book, request: AuthorizationRequest, card: Card, check: ChipCheck, outcome: Outcome
) -> None:
    """A request with a genuine cryptogram uses its counter, for advices behind it in the batch."""
    refused = outcome in (Outcome.CRYPTOGRAM_WRONG, Outcome.CHIP_DATA_INVALID)
    if check.data is None or refused:
        return
    paid = Paid(
        atc=check.data.atc,
        chip=check.data.cryptogram + check.data.covered,
        genuine=True,
        recorded=False,
        terminal_id=request.terminal_id,
        amount=check.data.amount,
        currency=request.currency,
        online=rules.online_use(request.kind, outcome, Progress(request.amount)),
        txid=request.txid,
    )
    place = card.card_token, paid.atc
    book.paid[place] = (*book.paid.get(place, ()), paid)


def _as_of_now(found: Sequence[Paid], originals: dict[bytes, KnownOriginal]) -> tuple[Paid, ...]:
    """What counters were used for, with what this batch has changed of it."""
    now: list[Paid] = []
    for paid in found:
        known = originals.get(paid.txid) if paid.online is not None else None
        if known is not None:
            of = known.original
            use = rules.online_use(of.kind, of.outcome, of.progress)
            now.append(msgspec.structs.replace(paid, online=use))
        else:
            now.append(paid)
    return tuple(now)


def _as_original(decided: Decided) -> KnownOriginal:
    """A decision of this batch, as those after it in the batch may name it."""
    request, answer, row = decided.asked.request, decided.answer, decided.record
    if row is None:
        raise ValueError("only what is recorded can be named")
    detail, account = row.decision.detail, row.decision.account
    approved = answer.outcome is Outcome.APPROVED
    amount = answer.amount if approved else request.amount
    return KnownOriginal(
        Original(
            txid=request.txid,
            kind=request.kind,
            outcome=answer.outcome,
            amount=amount,
            currency=request.currency,
            acquirer=request.acquirer,
            merchant_id=request.merchant_id,
            terminal_id=request.terminal_id,
            account_id=account.account_id if account is not None else None,
            card_token=row.card_token,
            pan_masked=row.pan_masked,
            mcc=request.mcc,
            decided_ms=answer.decided_ms,
            progress=Progress(amount),
            original_txid=request.original_txid,
            parts=detail.parts,
            shortfall=detail.shortfall,
            counted=detail.counted,
            card_id=detail.card_id,
            used=detail.used,
            requested=detail.requested,
            reserve=detail.reserve,
        ),
        answer,
    )


def _facts(
    issuer: Issuer,
    book: Book,
    request: AuthorizationRequest,
    card: Card | None,
    holder: Holder | None,
    original: Original | None,
    originals: dict[bytes, KnownOriginal],
    moment: Callable[[str], Moment],
) -> Facts:
    terms = _PLAIN
    own: tuple[Rule, ...] = ()
    if holder is not None:
        terms = book.terms.get(holder.product_id, _PLAIN)
        own = book.product_rules.get(holder.product_id, ()) + holder.rules
        if holder.card_rules:
            card_id = card.card_id if card else original.card_id if original else None
            own += holder.card_rules.get(card_id or 0, ())
    root = None
    if original is not None and original.original_txid is not None:
        behind = originals.get(original.original_txid)
        root = behind.original if behind is not None else None
    facts = Facts(
        moment=moment(terms.time_zone),
        terms=terms,
        rules=own,
        card=card,
        account=holder.account if holder is not None else None,
        original=original,
        root=root,
        pin_matches=_pin_matches(request, card, issuer) if request.pin_block else None,
        offline=_offline_facts(book, request) if request.offline is not None else None,
    )
    if card is not None and (request.icc is not None or card.entry is not None):
        facts = presenting.with_presented(issuer.emv, request, card, facts)
    if request.kind is Kind.ADVICE and card is not None and book.paid:
        counters = counters_of(request)
        paid = [one for atc in counters for one in book.paid.get((card.card_token, atc), ())]
        return msgspec.structs.replace(facts, paid=_as_of_now(paid, originals))
    return facts


def counters_of(request: AuthorizationRequest) -> set[int]:
    """The card's counters that an advice names: in its record, in its chip's data."""
    found: set[int] = set()
    if request.offline is not None:
        with suppress(RecordMalformed):  # the rules refuse it
            found.add(decode_record(request.offline).atc)
    told = chip_data.slip(request.icc) if request.icc is not None else None
    if told is not None:
        found.add(told.atc)
    return found


def _offline_facts(book: Book, request: AuthorizationRequest) -> OfflineFacts | None:
    """What is known of an offline record's key and counter; None if it can't be read."""
    try:
        record = decode_record(request.offline or b"")
    except RecordMalformed:
        return None
    known = book.offline_keys.get(record.card_key_id)
    if known is None:
        return OfflineFacts()
    card_token, public_key = known
    posted = book.offline_posted.get((record.card_key_id, record.atc), ())
    return OfflineFacts(card_token, is_genuine(record, public_key), posted)


_PLAIN = Terms()


def _pin_matches(request: AuthorizationRequest, card: Card | None, issuer: Issuer) -> bool | None:
    if request.pin_block is None or request.pan is None or card is None or card.pin_lookup is None:
        return None
    # On us the block comes from the own gateway and was never translated.
    zone = "zone:gateway" if request.acquirer == issuer.member_id else f"zone:{request.acquirer}"
    try:
        return issuer.hsm.verify_pin(
            zone, request.pin_block, request.pan, card.card_token, card.pin_lookup
        )
    except PinBlockInvalid:
        return False


def transfers_of(
    decision: Decision, before: Account, request: AuthorizationRequest, member_id: str, book: Book
) -> tuple[Transfer, ...]:
    """A decision's moves between ledger accounts, with the purse's running balance."""
    running = {purse.account_id: purse.balance for purse in before.purses}
    transfers: list[Transfer] = []
    for move in decision.moves:
        debit, credit, amount = move.debit, move.credit, move.amount
        after: int | None = None
        if isinstance(debit, Side):
            debit = _side_account(debit, request, member_id, book)
        elif debit in running:
            after = running[debit] = running[debit] - amount
        if isinstance(credit, Side):
            credit = _side_account(credit, request, member_id, book)
        elif credit in running:
            after = running[credit] = running[credit] + amount
        transfers.append(Transfer(debit, credit, amount, after))
    return tuple(transfers)


def _side_account(side: Side, request: AuthorizationRequest, member_id: str, book: Book) -> int:
    owner = request.acquirer if side is Side.SETTLEMENT else member_id
    return book.sides[side, owner, request.currency]
