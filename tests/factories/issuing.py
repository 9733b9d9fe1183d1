"""One issuer on a real database, with as many engines (node processes) as a test wants."""

from __future__ import annotations

import itertools
import secrets
from dataclasses import dataclass, field

import msgspec

from nodes import ids
from nodes.authorization.controls import Terms
from nodes.authorization.engine import IssuingEngine
from nodes.authorization.model import AuthorizationRequest, Kind, Outcome
from nodes.authorization.operations.deciding import Issuer
from nodes.authorization.operations.own import LoadOutcome, load_card
from nodes.authorization.state import Account
from nodes.cards.model import IssuedCard, Making
from nodes.cards.operations import PLAIN, issue_card
from nodes.clock import FixedClock, to_datetime
from nodes.crypto.answer_signature import AnswerSigner
from nodes.crypto.emv import SoftwareEmvHsm
from nodes.crypto.hsm import SoftwareHsm
from nodes.crypto.pan import PanVault
from tests.conftest import NodeDatabase
from tests.factories.network import EMV_KEYS

NOW_MS = 1_790_000_000_000
ISSUER, ACQUIRER, MERCHANT = "aurora", "meridian", "MERIDIAN0000001"
BIN = "62230010"


@dataclass
class IssuingHouse:
    """An issuer with its keys and a clock that tests move."""

    database: NodeDatabase
    clock: FixedClock = field(default_factory=lambda: FixedClock(NOW_MS))

    #: Four keys of 32 bytes, the same in every process of the institution.
    keys: tuple[bytes, ...] = field(
        default_factory=lambda: tuple(secrets.token_bytes(32) for _ in range(4)), repr=False
    )

    def __post_init__(self) -> None:
        self.vault = PanVault(self.keys[0], self.keys[1])
        self.hsm = SoftwareHsm({"pin_lookup": self.keys[2]})
        self.emv = SoftwareEmvHsm(EMV_KEYS)
        self.signer = AnswerSigner(self.keys[3])
        self.numbers = itertools.count(1)
        self._engines: list[IssuingEngine] = []

    def issuer(self) -> Issuer:
        """What an engine of this institution decides with."""
        return Issuer(ISSUER, self.vault, self.hsm, self.clock, self.signer, self.emv)

    def engine(self) -> IssuingEngine:
        """One more node process of this institution: own memory, own connections."""
        made = IssuingEngine(self.database.dsn, self.issuer())
        self._engines.append(made)
        return made

    def close(self) -> None:
        for made in self._engines:
            made.close()

    def product(self, product_id: str, terms: Terms) -> None:
        """A product with these terms."""
        with self.database.owner_engine.begin() as connection:
            connection.exec_driver_sql(
                "INSERT INTO products (product_id, name, terms, created_at)"
                " VALUES (%s, %s, %s, now())",
                (product_id, product_id, msgspec.json.encode(terms).decode()),
            )

    def card(
        self, balance: int, product_id: str = "standard", making: Making = PLAIN
    ) -> IssuedCard:
        """A new card that asks for no PIN, with money on it."""
        now = to_datetime(self.clock.now_ms())
        card = issue_card(
            self.database.engine,
            self.vault,
            self.hsm,
            bins=[BIN],
            currency="CNY",
            expiry="4912",
            service_code="201",
            pin=None,
            actor="test",
            now=now,
            product_id=product_id,
            making=making,
            emv=self.emv,
        )
        assert isinstance(card, IssuedCard)
        if balance:
            loaded = load_card(
                self.database.engine,
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
        self,
        kind: Kind,
        amount: int,
        card: IssuedCard | None = None,
        original: AuthorizationRequest | None = None,
        **changes: object,
    ) -> AuthorizationRequest:
        """What an acquirer asks; a follow-up names its original."""
        number = next(self.numbers)
        reference = ids.new_network_ref()
        stan = f"{number:06d}"
        if kind is Kind.REVERSAL and original is not None:
            stan = original.stan
        fields: dict[str, object] = {
            "txid": ids.txid(ACQUIRER, ISSUER, reference),
            "network_ref": reference,
            "acquirer": ACQUIRER,
            "issuer": ISSUER,
            "kind": kind,
            "amount": amount,
            "currency": "CNY",
            "pan": card.pan if card is not None else None,
            "entry_mode": "051",
            "merchant_id": MERCHANT,
            "merchant_name": "Harbor Stores",
            "mcc": "5411",
            "country": "CN",
            "terminal_id": "T0000001",
            "terminal_seq": number,
            "business_date": "2026-09-21",
            "batch": "000001",
            "stan": stan,
            "rrn": f"{number:012d}",
            "transmitted_ms": self.clock.now_ms(),
            "local_time": "2026-09-21T12:00:00",
            "salt_fin": secrets.token_bytes(32),
            "salt_pii": secrets.token_bytes(32),
            "original_txid": original.txid if original is not None else None,
            "deadline_ms": self.clock.now_ms() + 15_000,
        }
        return AuthorizationRequest(**fields | changes)  # type: ignore[arg-type]

    def account(self, card: IssuedCard) -> Account:
        """The account at its last version, as the database has it."""
        with self.database.owner_engine.connect() as connection:
            state = connection.exec_driver_sql(
                "SELECT state FROM account_versions WHERE account_id = %s AND line = 0"
                " ORDER BY version DESC LIMIT 1",
                (card.account_id,),
            ).scalar_one()
        return msgspec.msgpack.decode(state, type=Account)


def approved(outcomes: list[Outcome]) -> int:
    """How many of these are approvals."""
    return sum(outcome is Outcome.APPROVED for outcome in outcomes)
