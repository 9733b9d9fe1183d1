"""What an acquirer's terminals are told and may do; the gateway follows it (docs/fleet.md).

Pure data. A terminal's state is a `FleetRecord`; each change makes the next one, numbered by
`change_id` across the fleet, so that a gateway takes what came after the last number it has.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum

import msgspec


class TerminalSuite(IntEnum):
    """The terminal's algorithms, as the header of its messages names them (pos-link: Suite)."""

    SM = 1
    AES = 2
    LEGACY = 3


class TerminalKeys(StrEnum):
    """How a terminal gets its working keys (docs/keys.md)."""

    TMK = "tmk"  # sign-on, wrapped under its master key
    SM2 = "sm2"  # sign-on, encrypted to an ephemeral key that its certificate signs
    DUKPT = "dukpt"  # no sign-on: a key a message


class Capability(StrEnum):
    """What the device can do."""

    CHIP = "chip"
    CONTACTLESS = "contactless"
    STRIPE = "stripe"
    QR = "qr"
    MANUAL = "manual"
    PIN_PAD = "pin_pad"
    PRINTER = "printer"
    OFFLINE = "offline"
    PARTIAL = "partial"


class ChangeKind(StrEnum):
    """What happened to a terminal; the history's words and the event's action."""

    ENROLLED = "enrolled"
    PARAMETERS = "parameters"
    KEYS = "keys"
    DISABLED = "disabled"
    ENABLED = "enabled"
    DETAILS = "details"
    SUITE = "suite"
    MOVED = "moved"
    RETIRED = "retired"


class Parameters(msgspec.Struct, frozen=True, kw_only=True):
    """What a terminal downloads. Amounts in minor units of `currency`.

    The starting caps are those of docs/offline.md: 200.00 a transaction, 3 transactions and
    1,000.00 a card, 20,000.00 or 24 h a terminal; a hotlist older than 24 h stops offline.
    """

    currency: str = "CNY"
    receipt_language: str = "zh"  # "en" or "zh"
    receipt_width_mm: int = 58  # or 80
    #: Above it a payment goes online; 0: every payment does.
    floor_limit: int = 0
    offline_per_transaction: int = 20_000
    offline_count_per_card: int = 3
    offline_per_card: int = 100_000
    offline_per_terminal: int = 2_000_000
    offline_hours: int = 24
    hotlist_max_age_hours: int = 24
    #: Up to it a contactless payment asks for no PIN (Quick Pay).
    no_cvm_limit: int = 100_000


class Details(msgspec.Struct, frozen=True, kw_only=True):
    """Where it stands, what it is called and what the device can do."""

    store: str
    label: str
    capabilities: list[Capability]


class KeysAsked(msgspec.Struct, frozen=True, kw_only=True):
    """How a terminal is to speak; `certificate` (base64) of an SM2 terminal only."""

    suite: TerminalSuite
    management: TerminalKeys = TerminalKeys.TMK
    certificate: str = ""


class KeyWay(msgspec.Struct, frozen=True, kw_only=True):
    """The same with what was read of the certificate: hex as in FleetRecord, moments in ms."""

    suite: TerminalSuite
    management: TerminalKeys
    certificate: str = ""
    sm2_public_key: str = ""
    valid_from_ms: int = 0
    valid_until_ms: int = 0
    certified_by: str = ""


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """To which merchant a terminal goes, and where it stands there."""

    merchant_id: str
    store: str
    label: str


#: What a change may bring: Parameters and Details as they are, KeyWay made of KeysAsked.
Content = Parameters | Details | KeysAsked | Move


class FleetRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A terminal as it is after a change. `key_generation` 0: it was given no key here."""

    terminal_id: str
    merchant_id: str
    store: str
    label: str
    suite: TerminalSuite
    capabilities: list[Capability]
    parameters: Parameters
    parameters_version: int
    key_generation: int
    enabled: bool
    management: TerminalKeys = TerminalKeys.TMK
    #: Of an SM2 terminal's certificate, hex: serial number (1 to 20 bytes), x and y (64 bytes).
    certificate: str = ""
    sm2_public_key: str = ""
    #: From when until when its certificate holds, and the name of who signed it.
    valid_from_ms: int = 0
    valid_until_ms: int = 0
    certified_by: str = ""
    #: Out of use for good; `enabled` is false then.
    retired: bool = False
    change_id: int = 0


class ChangePage(msgspec.Struct, frozen=True):
    """What `GET /v1/terminals/changes` answers: records in the order of `change_id`.

    A terminal that changed several times stands here once, as it is now. `next`: from where to
    ask again.
    """

    items: list[FleetRecord]
    next: int


class Sighting(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway saw of a terminal since its last report; moments in ms since 1970, UTC."""

    terminal_id: str
    last_seen_ms: int | None = None
    last_sign_on_ms: int | None = None
    #: DE60 of its last payment.
    batch: str | None = None
    #: Of the master key of `key_generation` as the gateway holds it, hex.
    key_generation: int | None = None
    check_value: str | None = None


class Report(msgspec.Struct, frozen=True):
    """What `POST /v1/terminals/reports` takes, of at most `MAX_SIGHTINGS` terminals."""

    sightings: list[Sighting]


MAX_SIGHTINGS = 200


class FleetOutcome(StrEnum):
    """How a change of the fleet ends, in order of precedence."""

    KEY_REUSED = "key_reused"
    TERMINAL_ID_INVALID = "terminal_id_invalid"
    PARAMETERS_INVALID = "parameters_invalid"
    KEYS_INVALID = "keys_invalid"
    CERTIFICATE_INVALID = "certificate_invalid"
    MERCHANT_UNKNOWN = "merchant_unknown"
    TERMINAL_UNKNOWN = "terminal_unknown"
    AUTHORITY_UNKNOWN = "authority_unknown"
    TAKEN = "taken"
    TERMINAL_RETIRED = "terminal_retired"
    CURRENCY_DIFFERS = "currency_differs"
    TERMINAL_IN_USE = "terminal_in_use"
    BATCH_OPEN = "batch_open"
    PARAMETERS_MOVED_ON = "parameters_moved_on"
    ALREADY_SO = "already_so"
    DONE = "done"
