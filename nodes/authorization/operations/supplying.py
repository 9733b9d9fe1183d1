"""What decisions need from the database: read into the issuer's book when the book lacks it."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from nodes import clock
from nodes.authorization.controls import Rule, Terms
from nodes.authorization.model import LOOKING_UP, AuthorizationAnswer, Kind
from nodes.authorization.operations.asking import Asked, original_key_of
from nodes.authorization.operations.deciding import Book, Issuer, counters_of
from nodes.authorization.state import Side
from nodes.authorization.store import accounts, offline
from nodes.authorization.store.accounts import Connection, KnownOriginal
from nodes.authorization.store.product_terms import next_change_ms
from nodes.authorization.store.requests import StoredRequest, stored_requests
from nodes.crypto.offline_record import RecordMalformed, decode_record
from nodes.ledger.model import AccountKey
from nodes.ledger.store import find_or_open_accounts

#: Product terms and rules aren't used any more so many seconds after they were read,
_REFRESH_S = 1.0
#: and read again beside the decisions so many seconds after.
_REFRESH_EARLY_S = 0.7
#: So many cards and accounts are kept in memory; beyond, all is forgotten and read anew.
_KEPT = 100_000


class Products(msgspec.Struct, frozen=True):
    """Terms and rules of all products. Moments of time.monotonic()."""

    began: float
    #: When they aren't to be used any more.
    due: float
    terms_and_rules: dict[str, tuple[Terms, tuple[Rule, ...]]]


class BookReader:
    """Keeps one book supplied. One call at a time: it belongs to whoever decides.

    But `read_products` may run beside it: what it gives is handed to `note`.
    """

    def __init__(self, issuer: Issuer, book: Book) -> None:
        self._issuer = issuer
        self.book = book
        #: When the terms and rules of the book were read, and are to be read again
        #: (time.monotonic).
        self._began, self._due = 0.0, 0.0
        self._noted: Products | None = None

    def is_early_due(self) -> bool:
        """Whether terms and rules had better be read now, beside the decisions, so that none of
        them has to wait for that."""
        return time.monotonic() > min(self._began + _REFRESH_EARLY_S, self._due)

    def note(self, products: Products) -> None:
        """Have the next decisions use these."""
        self._noted = products

    def lacks(self, asked: Sequence[Asked]) -> bool:
        """Whether the database must be read before these can be decided."""
        book = self.book
        noted, self._noted = self._noted, None
        if noted is not None and noted.began > self._began:
            self._use(noted)
        if time.monotonic() > self._due or names_others(asked):
            return True
        for one in asked:
            card = book.cards.get(one.lookup) if one.lookup is not None else None
            if card is None or card.account_id not in book.holders:
                return True
            request = one.request
            if (Side.SETTLEMENT, request.acquirer, request.currency) not in book.sides:
                return True
        return False

    def load(
        self, connection: Connection, asked: Sequence[Asked], thorough: bool = False
    ) -> tuple[dict[bytes, StoredRequest], dict[bytes, KnownOriginal]]:
        """Fill the book with what these need; what is stored under their keys (`thorough`: of all,
        else of follow-ups), and the originals they name."""
        book = self.book
        if len(book.holders) > _KEPT or len(book.cards) > _KEPT:
            book.forget()
        if time.monotonic() > self._due:
            self._use(self.read_products(connection))
        stored: dict[bytes, StoredRequest] = {}
        follow_ups = [one for one in asked if one.request.kind in LOOKING_UP]
        looked_up = asked if thorough else follow_ups
        if looked_up:
            keys = [(one.key, one.business_date) for one in looked_up]
            keys += [
                (original_key_of(one.request), one.business_date)
                for one in follow_ups
                if one.request.kind is Kind.REVERSAL
            ]
            stored = stored_requests(connection, keys, "issuer")
        self._load_offline(connection, asked)
        lookups = {one.lookup for one in asked if one.lookup is not None}
        missing = [lookup for lookup in lookups if lookup not in book.cards]
        book.cards.update(accounts.cards_by_lookup(connection, missing))
        codes = [
            one.lookup
            for one in asked
            if one.request.entry_mode[:2] in ("03", "04") and one.lookup not in book.cards
        ]
        if codes:
            shown = [lookup for lookup in codes if lookup is not None]
            book.cards.update(accounts.cards_by_code(connection, shown))
        self._load_paid(connection, asked)
        wanted = {book.cards[lookup].account_id for lookup in lookups if lookup in book.cards}
        lacking = [number for number in wanted if number not in book.holders]
        book.holders.update(accounts.holders(connection, lacking, book.terms))
        originals: dict[bytes, KnownOriginal] = {}
        named = {one.request.original_txid for one in follow_ups} - {None}
        if named:
            originals = self._originals(connection, [txid for txid in named if txid is not None])
            _sign_again(follow_ups, stored, originals)
        self.open_sides(connection, {(o.request.acquirer, o.request.currency) for o in asked})
        return stored, originals

    def read_products(self, connection: Connection) -> Products:
        """Terms and rules, until they are to be read again: when other terms come into force, or
        after a while, as somebody may have changed them."""
        began, now_ms = time.monotonic(), self._issuer.clock.now_ms()
        found = accounts.products(connection, now_ms)
        change_ms = next_change_ms(connection, now_ms)
        left_s = _REFRESH_S if change_ms is None else (change_ms - now_ms) / 1000
        return Products(began, began + min(_REFRESH_S, left_s), found)

    def _use(self, products: Products) -> None:
        book = self.book
        for product_id, (terms, own) in products.terms_and_rules.items():
            book.terms[product_id], book.product_rules[product_id] = terms, own
        self._began, self._due = products.began, products.due

    def _originals(
        self, connection: Connection, txids: Sequence[bytes]
    ) -> dict[bytes, KnownOriginal]:
        """Originals, with their accounts in the book, and read after those: an original that a
        later version changed is then never older than its account's snapshot.

        Each statement sees what was committed before it. So an original that wasn't there a moment
        ago may be there now, and its account must be read then, too: without it a reversal of the
        original would change nothing.
        """
        book, asked_for = self.book, set[int]()
        while True:
            found = accounts.originals(connection, txids)
            behind = {known.original.account_id for known in found.values()}
            lacking = [n for n in behind if n is not None and n not in book.holders]
            if not set(lacking) - asked_for:
                return found
            asked_for.update(lacking)
            book.holders.update(accounts.holders(connection, lacking, book.terms))

    def _load_offline(self, connection: Connection, asked: Sequence[Asked]) -> None:
        """The keys and counters that offline records name, as they are now."""
        blobs = [one.request.offline for one in asked if one.request.offline is not None]
        if blobs:
            book, named = self.book, names_in(blobs)
            book.offline_keys = offline.keys_of(connection, {key_id for key_id, _ in named})
            book.offline_posted = offline.posted(connection, named)

    def _load_paid(self, connection: Connection, asked: Sequence[Asked]) -> None:
        """What was posted under the counters that advices name, as it is now."""
        book = self.book
        book.paid = {}
        places: set[tuple[bytes, int]] = set()
        for one in asked:
            if one.request.kind is Kind.ADVICE and one.lookup is not None:
                card = book.cards.get(one.lookup)
                if card is not None:
                    places |= {(card.card_token, atc) for atc in counters_of(one.request)}
        if places:
            book.paid = offline.paid_under(connection, places)

    def open_sides(self, connection: Connection, pairs: set[tuple[str, str]]) -> None:
        """See that the ledger has the accounts of these (acquirer, currency)."""
        member = self._issuer.member_id
        wanted = {
            (side, acquirer if side is Side.SETTLEMENT else member, currency)
            for acquirer, currency in pairs
            for side in Side
        } - self.book.sides.keys()
        if not wanted:
            return
        keys = {
            AccountKey(side.value, owner, currency): (side, owner, currency)
            for side, owner, currency in wanted
        }
        now = clock.to_datetime(self._issuer.clock.now_ms())
        with connection.transaction():
            found = find_or_open_accounts(connection, keys, now)
        self.book.sides.update({keys[key]: number for key, number in found.items()})


def names_in(blobs: Sequence[bytes]) -> set[tuple[bytes, int]]:
    """(key id, ATC) of each record that can be read."""
    found: set[tuple[bytes, int]] = set()
    for blob in blobs:
        try:
            record = decode_record(blob)
        except RecordMalformed:
            continue
        found.add((record.card_key_id, record.atc))
    return found


def _sign_again(
    follow_ups: Sequence[Asked],
    stored: dict[bytes, StoredRequest],
    originals: dict[bytes, KnownOriginal],
) -> None:
    """A reversal's answer tells what the original was answered, with the share that it had: it
    stands in the stored answer alone."""
    for one in follow_ups:
        request = one.request
        if request.kind is not Kind.REVERSAL or request.original_txid is None:
            continue
        known = originals.get(request.original_txid)
        kept = stored.get(original_key_of(request))
        if known is None or kept is None or kept.answer is None:
            continue
        said = msgspec.json.decode(kept.answer, type=AuthorizationAnswer)
        if said.txid == known.answer.txid:
            told = msgspec.structs.replace(known.answer, signature=said.signature)
            originals[request.original_txid] = KnownOriginal(known.original, told)


def names_others(asked: Sequence[Asked]) -> bool:
    """Whether a follow-up or an advice is among them: it must see what has been committed."""
    return any(one.request.kind in LOOKING_UP for one in asked)
