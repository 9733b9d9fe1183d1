"""Cards that sign offline payments, and terminals' advices of them, for tests on nodes."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ec

from nodes.authorization.model import Kind, TerminalRequest
from nodes.authorization.operations.offline import (
    KeyOutcome,
    ReserveResult,
    register_offline_key,
    reserve_offline,
)
from nodes.cards.model import IssuedCard
from nodes.clock import to_datetime
from nodes.crypto.offline_record import (
    RecordChain,
    key_id_of,
    public_key_of,
    sign_as_card,
)
from tests.factories.network import ISSUER, TERMINAL, Network

_KEYS = itertools.count()
_NONCES = itertools.count(1)


@dataclass
class OfflineCard:
    """A card with a key of its own and a counter."""

    card: IssuedCard
    network: Network
    private: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    atc: int = 0

    def __post_init__(self) -> None:
        self.public_key = public_key_of(self.private)
        self.key_id = key_id_of(self.public_key)
        done = register_offline_key(
            self.network.issuer_db.engine,
            ISSUER,
            card_token=self.card.card_token,
            public_key=self.public_key,
            actor="test",
            now=self.now,
        )
        assert done is KeyOutcome.DONE

    @property
    def now(self):  # type: ignore[no-untyped-def]
        return to_datetime(self.network.clock.now_ms())

    def reserve(self, amount: int, key: str | None = None) -> ReserveResult:
        return reserve_offline(
            self.network.issuer_db.engine,
            ISSUER,
            card_token=self.card.card_token,
            amount=amount,
            currency="CNY",
            idempotency_key=key or f"reserve {next(_KEYS)}",
            now=self.now,
        )

    def record(self, chain: RecordChain, amount: int, atc: int | None = None) -> bytes:
        """A payment: the next place in a terminal's chain, the next value of the card's counter."""
        if atc is None:
            self.atc += 1
            atc = self.atc
        return chain.append(
            card_key_id=self.key_id,
            atc=atc,
            amount=amount,
            currency="CNY",
            nonce=next(_NONCES).to_bytes(8, "big"),
            at_ms=self.network.clock.now_ms(),
            sign=lambda message: sign_as_card(self.private, message),
        )

    def advice(self, record: bytes, amount: int, **changes: object) -> TerminalRequest:
        """The 0220 of a record, as the gateway hands it over."""
        request = self.network.request(
            self.card, amount, Kind.ADVICE, pin=None, offline=record, **changes
        )
        return request


def new_chain(epoch: int | None = None, terminal_id: str = TERMINAL) -> RecordChain:
    """A terminal's chain that no test had before."""
    return RecordChain(terminal_id, next(_KEYS) + 1 if epoch is None else epoch)
