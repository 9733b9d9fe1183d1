"""An issuer and an acquirer on two real databases, joined in process."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import secrets
from dataclasses import dataclass, field

import msgspec

from nodes.acquiring.model import AcquiringOutcome, Merchant
from nodes.acquiring.operations import register_merchant, register_terminal
from nodes.authorization.model import (
    AuthorizationAnswer,
    AuthorizationRequest,
    Kind,
    TerminalAnswer,
    TerminalRequest,
)
from nodes.authorization.operations.accepting import Acquirer
from nodes.authorization.operations.deciding import Issuer
from nodes.authorization.operations.own import LoadOutcome, load_card
from nodes.authorization.rules.stand_in import StandIn
from nodes.authorization.service import Authorizer, IssuerUnreachable
from nodes.cards.model import IssuedCard, Making
from nodes.cards.operations import PLAIN, issue_card
from nodes.clock import FixedClock, to_datetime
from nodes.crypto.answer_signature import AnswerSigner
from nodes.crypto.emv import TRANSPORT_KEY, SoftwareEmvHsm, key_names
from nodes.crypto.hsm import SoftwareHsm
from nodes.crypto.pan import PanVault
from tests.conftest import NodeDatabase

NOW_MS = 1_790_000_000_000
ISSUER, ACQUIRER = "aurora", "meridian"
BIN = "62230010"
MERCHANT = "MERIDIAN0000001"
TERMINAL = "T0000001"
GATEWAY_ZONE = bytes(range(16))
ISSUER_ZONE = bytes(range(16, 32))

#: The issuer's EMV keys, by their names in a keystore.
EMV_KEYS = {
    name: hashlib.sha256(name.encode()).digest()[: 32 if name == TRANSPORT_KEY else 16]
    for name in key_names()
}


@dataclass
class DirectLink:
    """The way to the issuer; `down` loses the request, `lose_answer` the answer."""

    issuer: Authorizer | None = None
    down: bool = False
    lose_answer: bool = False

    async def authorize(
        self, issuer: str, requests: list[AuthorizationRequest], deadline_ms: int
    ) -> list[AuthorizationAnswer]:
        assert issuer == ISSUER
        if self.down or self.issuer is None:
            raise IssuerUnreachable
        answers = await self.issuer.authorize(requests)
        if self.lose_answer:
            raise IssuerUnreachable
        return answers


@dataclass
class Network:
    """The two institutions, a clock that stands still, and one terminal's conventions."""

    issuer_db: NodeDatabase
    acquirer_db: NodeDatabase
    clock: FixedClock = field(default_factory=lambda: FixedClock(NOW_MS))
    link: DirectLink = field(default_factory=DirectLink)
    stand_in: dict[str, StandIn] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.vault = PanVault(secrets.token_bytes(32), secrets.token_bytes(32))
        self.forward_vault = PanVault(secrets.token_bytes(32), secrets.token_bytes(32))
        self.issuer_signer = AnswerSigner(secrets.token_bytes(32))
        pin_key = secrets.token_bytes(32)
        self._issuer_keys = {f"zone:{ACQUIRER}": ISSUER_ZONE, "pin_lookup": pin_key}
        self._acquirer_keys = {"zone:gateway": GATEWAY_ZONE, f"zone:{ISSUER}": ISSUER_ZONE}
        self.gateway_hsm = SoftwareHsm({"zone": GATEWAY_ZONE, "clear": bytes(16)})
        self.stans = itertools.count(1)
        self.link.issuer = self.new_issuer()
        self.acquirer = self.new_acquirer()
        now = to_datetime(NOW_MS)
        merchant = Merchant(MERCHANT, "Harbor Stores", "5411", "CN", "CNY")
        made = register_merchant(self.acquirer_db.engine, merchant, now=now)
        assert made is AcquiringOutcome.DONE
        made = register_terminal(self.acquirer_db.engine, TERMINAL, MERCHANT)
        assert made is AcquiringOutcome.DONE

    def make_issuer(self) -> Issuer:
        return Issuer(
            ISSUER,
            self.vault,
            SoftwareHsm(self._issuer_keys),
            self.clock,
            self.issuer_signer,
            SoftwareEmvHsm(EMV_KEYS),
        )

    def make_acquirer(self) -> Acquirer:
        return Acquirer(
            ACQUIRER,
            SoftwareHsm(self._acquirer_keys),
            self.clock,
            lambda pan: ISSUER if pan.startswith(BIN) else None,
            vault=self.forward_vault,
            stand_in=self.stand_in,
        )

    def new_issuer(self) -> Authorizer:
        return Authorizer(
            self.issuer_db.dsn, ISSUER, self.link, make_issuer=self.make_issuer, make_acquirer=None
        )

    def new_acquirer(self) -> Authorizer:
        return Authorizer(
            self.acquirer_db.dsn,
            ACQUIRER,
            self.link,
            make_issuer=None,
            make_acquirer=self.make_acquirer,
        )

    def card(
        self,
        balance: int,
        pin: str | None = "123456",
        service_code: str = "220",
        making: Making = PLAIN,
        product_id: str = "standard",
    ) -> IssuedCard:
        """A new card with money on it."""
        now = to_datetime(self.clock.now_ms())
        card = issue_card(
            self.issuer_db.engine,
            self.vault,
            SoftwareHsm(self._issuer_keys),
            bins=[BIN],
            currency="CNY",
            expiry="4912",
            service_code=service_code,
            pin=pin,
            actor="test",
            now=now,
            product_id=product_id,
            making=making,
            emv=SoftwareEmvHsm(EMV_KEYS),
        )
        assert isinstance(card, IssuedCard)
        if balance:
            loaded = load_card(
                self.issuer_db.engine,
                ISSUER,
                card_token=card.card_token,
                amount=balance,
                currency="CNY",
                reference="first load",
                idempotency_key=card.card_token.hex(),
                now=now,
            )
            assert loaded.outcome is LoadOutcome.DONE
        return card

    def request(
        self, card: IssuedCard, amount: int, kind: Kind = Kind.PURCHASE, **changes: object
    ) -> TerminalRequest:
        """A terminal's message as the gateway hands it over; `changes` replace fields."""
        pin = changes.pop("pin", "123456")
        pin_block = None
        if kind in (Kind.PURCHASE, Kind.BALANCE_INQUIRY) and isinstance(pin, str):
            pin_block = self.pin_block(pin, card.pan)
        fields: dict[str, object] = {
            "terminal_id": TERMINAL,
            "merchant_id": MERCHANT,
            "business_date": "2026-09-21",
            "batch": "000001",
            "stan": f"{next(self.stans):06d}",
            "kind": kind,
            "amount": amount,
            "currency": "CNY",
            "pan": card.pan,
            "entry_mode": "051",
            "local_time": "2026-09-21T12:00:00",
            "pin_block": pin_block,
            "deadline_ms": self.clock.now_ms() + 15_000,
        }
        fields |= changes
        content = (fields["kind"], fields["amount"], fields["currency"], fields["pan"])
        fields["fingerprint"] = hashlib.sha256(repr(content).encode()).digest()
        return TerminalRequest(**fields)  # type: ignore[arg-type]

    def pin_block(self, pin: str, pan: str) -> bytes:
        """A PIN block under the gateway's zone key, as the gateway would translate one."""
        return self.gateway_hsm.seal_pin("zone", pin, pan)

    def reversal_of(self, request: TerminalRequest, **changes: object) -> TerminalRequest:
        """The 0400 of a request: same STAN, batch and date."""
        fields: dict[str, object] = {"kind": Kind.REVERSAL, "pin_block": None} | changes
        changed = msgspec.structs.replace(request, **fields)
        digest = hashlib.sha256(b"reversal" + request.fingerprint).digest()
        return msgspec.structs.replace(changed, fingerprint=digest)

    def send(self, *requests: TerminalRequest) -> list[TerminalAnswer]:
        """What the terminals are told."""
        return asyncio.run(self.acquirer.accept(requests))

    def one(self, request: TerminalRequest) -> TerminalAnswer:
        return self.send(request)[0]

    def balance(self, card: IssuedCard) -> int:
        with self.issuer_db.engine.connect() as connection:
            return connection.exec_driver_sql(
                "SELECT coalesce((SELECT balance FROM account_versions WHERE account_id = %s"
                " AND line = 0 ORDER BY version DESC LIMIT 1), 0)",
                (card.account_id,),
            ).scalar_one()

    def close(self) -> None:
        self.acquirer.close()
        assert self.link.issuer is not None
        self.link.issuer.close()
