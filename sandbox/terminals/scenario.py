"""Scenarios: what a YAML file says. Reading one is reading.py's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from gateway.iso8583.spec import Suite
from gateway.terminal_keys.model import KeyManagement


class By(StrEnum):
    """How a card is presented."""

    INSERT = "insert"
    TAP = "tap"
    SWIPE = "swipe"
    FALLBACK = "fallback"
    SCAN = "scan"
    KEY_IN = "key_in"


class Form(StrEnum):
    """What a card is made as."""

    PLAIN = "plain"
    STRIPE = "stripe"
    CHIP = "chip"
    VIRTUAL = "virtual"


class Fault(StrEnum):
    """What goes wrong on the way of one request."""

    LOSE_ANSWER = "lose_answer"  # the terminal hears nothing, and reverses until that is answered
    # The terminal hears nothing, the chip approves by itself, and its advice is faster than the
    # reversal.
    END_OFFLINE = "end_offline"
    SEND_TWICE = "send_twice"  # the same bytes again, after the answer
    SEND_LATE = "send_late"  # the reversal is faster than its request
    BAD_MAC = "bad_mac"
    NO_MAC = "no_mac"


class Do(StrEnum):
    """What a step does."""

    SIGN_ON = "sign_on"
    ECHO = "echo"
    PAY = "pay"
    AUTHORIZE = "authorize"
    INCREMENT = "increment"
    COMPLETE = "complete"
    VOID = "void"
    REFUND = "refund"
    REVERSE = "reverse"
    RESEND = "resend"
    BALANCE = "balance"
    TOP_UP = "top_up"
    WAIT = "wait"
    # Without a connection: the card and the terminal decide, the records are uploaded later.
    DOWNLOAD = "download"  # parameters and hotlist
    PAY_OFFLINE = "pay_offline"
    UPLOAD = "upload"
    COPY = "copy"  # somebody copies a card
    # The terminal's batch.
    FORGET = "forget"  # the terminal loses what it knows of a step
    CLOSE_BATCH = "close_batch"
    UPLOAD_BATCH = "upload_batch"
    # A merchant's code, paid by a wallet.
    ORDER = "order"
    PAY_ORDER = "pay_order"


#: Steps that present a card, and steps that follow up one of those before.
WITH_CARD = frozenset({Do.PAY, Do.AUTHORIZE, Do.BALANCE, Do.TOP_UP, Do.PAY_OFFLINE})
FOLLOW_UPS = frozenset(
    {
        *(Do.INCREMENT, Do.COMPLETE, Do.VOID, Do.REFUND, Do.REVERSE, Do.RESEND),
        *(Do.FORGET, Do.PAY_ORDER),
    }
)
WITH_AMOUNT = frozenset(
    {
        *(Do.PAY, Do.AUTHORIZE, Do.INCREMENT, Do.COMPLETE, Do.REFUND),
        *(Do.TOP_UP, Do.PAY_OFFLINE, Do.ORDER),
    }
)
#: Steps that may stand there by their name alone.
BARE = frozenset({Do.SIGN_ON, Do.ECHO, Do.DOWNLOAD, Do.UPLOAD, Do.CLOSE_BATCH, Do.UPLOAD_BATCH})
#: What the terminal itself says of an offline payment (EMV 4.3 Book 4, A6): approved, declined.
OFFLINE_APPROVED, OFFLINE_DECLINED = "Y1", "Z1"


class ScenarioError(ValueError):
    """A mistake in a scenario: "file:line: field: what is wrong"."""

    def __init__(self, source: str, line: int, where: str, why: str) -> None:
        place = f"{source}:{line}: {where}: " if where else f"{source}:{line}: "
        super().__init__(place + why)
        self.line, self.where, self.why = line, where, why


@dataclass(frozen=True, slots=True)
class CardPlan:
    """A card that the scenario has issued before its first step. `balance`, and what of it is set
    aside for offline payments (0: it doesn't pay offline), in minor units."""

    form: Form = Form.CHIP
    balance: int = 0
    pin: str = "123456"
    issuer: str | None = None
    offline: int = 0


@dataclass(frozen=True, slots=True)
class TerminalPlan:
    """The terminal: one of the network's (`id`), else a new one, enrolled for the scenario."""

    terminal_id: str | None = None
    merchant: str | None = None
    suite: Suite = Suite.SM
    keys: KeyManagement = KeyManagement.TMK
    dialect: str = "bcd-tpdu"
    cover: bool = False


@dataclass(frozen=True, slots=True)
class Expected:
    """What a step must come to; None: anything. Amounts in minor units. `codes`: of what sends
    several messages, each one's; `why`: the refusal of an offline payment."""

    code: str | None = None
    codes: tuple[str, ...] | None = None
    why: str | None = None
    balance: int | None = None
    same_answer: bool = False
    chip: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that the terminal does. `of`: the name of the step that it follows up; `to`: the
    name of a copied card; `skip`: records that are lost before an upload; `until_listed`: the card
    that a download waits for, on the hotlist."""

    line: int
    do: Do
    name: str = ""
    card: str = ""
    by: By = By.INSERT
    amount: int = 0
    pin: str | None = None
    of: str = ""
    seconds: float = 0.0
    to: str = ""
    skip: int = 0
    until_listed: str = ""
    partial_ok: bool = False
    signed: bool = False
    more: bool = False
    fault: Fault | None = None
    expect: Expected = field(default_factory=Expected)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A whole file. `source`: its name, for messages."""

    source: str
    name: str
    terminal: TerminalPlan
    cards: Mapping[str, CardPlan]
    steps: tuple[Step, ...]
    currency: str = "CNY"
