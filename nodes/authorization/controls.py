"""Terms of a product and the rules that limit spending: data, as people configure them.

Their meaning is in rules/; here is their shape, which is also their JSON in the database and the
API. Amounts are minor units.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Window(StrEnum):
    """What a limit counts over; calendar windows are those of the program's time zone."""

    TRANSACTION = "transaction"
    DAY = "day"
    WEEK = "week"  # ISO 8601: from Monday
    MONTH = "month"
    LIFETIME = "lifetime"


class Measure(StrEnum):
    AMOUNT = "amount"
    COUNT = "count"


class Limit(msgspec.Struct, frozen=True):
    """At most `maximum` (minor units, or transactions) in a window."""

    window: Window
    measure: Measure
    maximum: int


class Conditions(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which transactions a rule is about: all that are given must hold; none given: every one."""

    #: Four digits, or a range "5811-5814".
    mccs: tuple[str, ...] = ()
    merchants: tuple[str, ...] = ()
    countries: tuple[str, ...] = ()
    #: Minutes of the local day, from <= t < to; from > to runs over midnight.
    from_minute: int | None = None
    to_minute: int | None = None
    #: ISO weekdays, 1 is Monday.
    weekdays: tuple[int, ...] = ()
    #: "pos", "ecommerce", "contactless" ... (rules.channel_of).
    channels: tuple[str, ...] = ()
    #: First two digits of DE22.
    entry_modes: tuple[str, ...] = ()
    #: Kinds by name; none given: purchases and authorizations.
    kinds: tuple[str, ...] = ()


class Rule(msgspec.Struct, frozen=True, omit_defaults=True):
    """Declines what matches (no limit), or what would exceed the limit of what matches."""

    rule_id: str
    name: str
    when: Conditions = Conditions()
    #: Declines what does NOT match: an allow-list.
    unless: bool = False
    limit: Limit | None = None
    #: Evaluated and recorded, but it declines nothing.
    shadow: bool = False
    effective_from_ms: int = 0
    effective_to_ms: int | None = None


class PurseTerms(msgspec.Struct, frozen=True, omit_defaults=True):
    """A purse of the product. Without `mccs` it takes every purchase."""

    name: str
    mccs: tuple[str, ...] = ()
    #: Purses that pay the rest when this one hasn't enough, in this order.
    fallback: tuple[str, ...] = ()


class EntryTerms(msgspec.Struct, frozen=True, omit_defaults=True):
    """How cards of the product may be read, where they have a chip, check values or are virtual.

    Amounts are minor units. Counts and sums are those since the card's last PIN (Quick Pay) or
    since its chip was last read (fallback); beyond them the cardholder is asked.
    """

    #: Keyed in at a terminal, without the card's data.
    manual: bool = False
    #: Contactless without a PIN: at most so much at a time, so often, and so much in all.
    quick_pay_amount: int = 30_000
    quick_pay_count: int = 5
    quick_pay_total: int = 100_000
    #: Contactless with a signature: at most so much; 0: a PIN is wanted.
    signature_amount: int = 0
    #: A chip card by its stripe, where its chip can't be read.
    fallback_amount: int = 50_000
    fallback_count: int = 3


class Terms(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a product allows. The defaults are a plain reloadable card."""

    reloadable: bool = True
    #: Approved uses in a card's life; 1 is a single-use card. A full reversal gives a use back.
    uses: int | None = None
    #: The only merchants that take the card; none given: all.
    merchants: tuple[str, ...] = ()
    purses: tuple[PurseTerms, ...] = (PurseTerms("main"),)
    partial_approval: bool = False
    hold_seconds: int = 7 * 86_400
    #: How much a capture may exceed what was authorized, in per cent, by MCC or range.
    over_capture_percent: dict[str, int] = {}
    transfers: bool = False  # card to card
    max_balance: int | None = None
    time_zone: str = "Asia/Shanghai"
    entry: EntryTerms = EntryTerms()
