"""A simulated chip card: makes cryptograms, checks the issuer's answer, does issuer scripts.

    card = ChipCard.personalized(open_personalization(transport_key, sealed))
    icc = card.first_cryptogram(Purchase(2500, "156", "261122"))
    result = card.complete(answer_de55, approved=True)

It keeps what a chip keeps: its counter (ATC), what it has spent offline since the issuer last
answered, whether it or its application is blocked. Its clear keys stay in it.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, field
from enum import StrEnum

from cryptography.hazmat.primitives.asymmetric import ec

from nodes.crypto.emv import (
    ChipProfile,
    Personalization,
    application_cryptogram,
    response_cryptogram,
    script_mac,
)
from nodes.crypto.offline_record import key_id_of, public_key_of, sign_as_card
from nodes.emv import tlv
from nodes.emv.chip_data import COVERED, CryptogramType

#: Application interchange profile: issuer authentication supported, CVM supported.
_AIP = bytes.fromhex("1C00")
_COUNTRY = bytes.fromhex("0156")
#: Issuer application data: length, key index 01, version 01, card verification results (first
#: cryptogram: ARQC; TC).
_ISSUER_DATA = bytes.fromhex("06010103A00000")
_ISSUER_DATA_OFFLINE = bytes.fromhex("06010103900000")
#: The application's name, which goes on receipts: a registered one's form, of this sandbox.
AID = bytes.fromhex("A000000333010101")
_MAC_LENGTH = 8
#: CVM results (EMV 4.3 Book 3, annex C3): online PIN, signature, none; and that it worked.
CVM_RESULTS = {
    "pin": bytes.fromhex("020300"),
    "signature": bytes.fromhex("1E0300"),
    "none": bytes.fromhex("1F0302"),
}
#: First bytes of the script commands that this card does: CLA, INS.
_BLOCK_CARD, _BLOCK_APPLICATION = bytes.fromhex("8416"), bytes.fromhex("841E")
_UNBLOCK_APPLICATION, _PUT_DATA = bytes.fromhex("8418"), bytes.fromhex("04DA")


class CardRefuses(Exception):
    """The card doesn't answer: it is blocked, or the terminal asks for what it doesn't do."""


class Completion(StrEnum):
    """How the card saw a transaction end."""

    APPROVED = "approved"  # TC
    DECLINED = "declined"  # AAC
    NOT_AUTHENTIC = "not_authentic"  # AAC: the answer is not the issuer's


@dataclass(frozen=True, slots=True)
class Purchase:
    """What the terminal tells the card. `currency` numeric, `day` YYMMDD."""

    amount: int
    currency: str
    day: str
    cvm: str = "none"
    kind: int = 0x00  # goods and services


@dataclass(frozen=True, slots=True)
class Completed:
    """The second cryptogram, and the scripts' results for the next message (tag 9F5B)."""

    outcome: Completion
    cryptogram: bytes
    scripts_done: int = 0


@dataclass(frozen=True, slots=True)
class OfflineLimits:
    """What a card lets through without its issuer, in minor units: a payment, all together since
    the issuer was last heard, and how many. The defaults are pos-link.md's starting caps."""

    payment: int = 20_000
    amount: int = 100_000
    count: int = 10


@dataclass
class OfflineSpending:
    """What the card has approved by itself since an authentic online answer."""

    amount: int = 0
    count: int = 0


@dataclass
class ChipCard:
    """One card. Two copies of it are what a clone is."""

    pan: str = field(repr=False)
    psn: str
    expiry: str
    service_code: str
    profile: ChipProfile
    _cryptogram_key: bytes = field(repr=False)
    _script_key: bytes = field(repr=False)
    #: Discretionary data of the chip's image of track 2 (iCVV), and of the stripe (CVV).
    chip_data: str = field(repr=False)
    stripe_data: str = field(repr=False)
    atc: int = 0
    card_blocked: bool = False
    application_blocked: bool = False
    offline: OfflineSpending = field(default_factory=OfflineSpending)
    limits: OfflineLimits = field(default_factory=OfflineLimits)
    #: Signs offline payments, once the issuer has registered its public key.
    _offline_key: ec.EllipticCurvePrivateKey | None = field(default=None, repr=False)
    _arqc: bytes = field(default=b"", repr=False)
    _covered: bytes = field(default=b"", repr=False)
    _script_results: bytes = field(default=b"", repr=False)

    @classmethod
    def personalized(cls, data: Personalization) -> ChipCard:
        """A card as the personalizer's data makes it; ValueError if they are of another form."""
        if data.keys is None or data.profile is None:
            raise ValueError("this card has no chip")
        return cls(
            data.pan,
            data.psn,
            data.expiry,
            data.service_code,
            data.profile,
            data.keys.cryptogram,
            data.keys.script_integrity,
            data.chip_data,
            data.stripe_data,
        )

    @property
    def track2(self) -> str:
        """The chip's track 2 equivalent data (tag 57), as DE35 takes it."""
        return f"{self.pan}D{self.expiry}{self.service_code}{self.chip_data}"

    @property
    def stripe(self) -> str:
        """Track 2 of the magnetic stripe, as DE35 takes it."""
        return f"{self.pan}D{self.expiry}{self.service_code}{self.stripe_data}"

    def first_cryptogram(self, purchase: Purchase, unpredictable: bytes | None = None) -> bytes:
        """DE55 of an online request: the counter goes up, an ARQC is made. CardRefuses."""
        self._next()
        values = self._values(purchase, unpredictable or secrets.token_bytes(4))
        self._covered = b"".join([values[tag] for tag in COVERED])
        self._arqc = self._cryptogram(CryptogramType.ARQC)
        return self._told(values, CryptogramType.ARQC, self._arqc, purchase.cvm)

    def make_offline_key(self) -> bytes:
        """Make the key that signs offline payments; its public half (65 bytes) for the issuer."""
        self._offline_key = ec.generate_private_key(ec.SECP256R1())
        return public_key_of(self._offline_key)

    @property
    def offline_key_id(self) -> bytes:
        """The name of that key (8 bytes), as records and the hotlist have it. CardRefuses."""
        return key_id_of(public_key_of(self._key()))

    def approve_offline(self, purchase: Purchase) -> bytes:
        """DE55 of a payment that the card approves by itself: TC. CardRefuses beyond its limits."""
        self._key()
        self._spend_offline(purchase)
        self._next()
        return self._certificate(purchase)

    def approve_unanswered(self, purchase: Purchase) -> bytes:
        """The same for a payment that was asked for online, where no answer came: the second
        cryptogram, under the first one's counter. CardRefuses beyond its limits."""
        if not self._arqc:
            raise CardRefuses("nothing was asked online")
        self._spend_offline(purchase)
        self._arqc = b""
        return self._certificate(purchase)

    def _spend_offline(self, purchase: Purchase) -> None:
        spent = self.offline
        if purchase.amount > self.limits.payment:
            raise CardRefuses("too much without its issuer")
        if spent.count >= self.limits.count or (
            spent.amount + purchase.amount > self.limits.amount
        ):
            raise CardRefuses("its offline limit is reached: it must be online first")
        self.offline = OfflineSpending(spent.amount + purchase.amount, spent.count + 1)

    def _certificate(self, purchase: Purchase) -> bytes:
        values = self._values(purchase, secrets.token_bytes(4)) | {"9F10": _ISSUER_DATA_OFFLINE}
        covered = b"".join([values[tag] for tag in COVERED])
        made = application_cryptogram(self._cryptogram_key, self.profile, self.atc, covered)
        return self._told(values, CryptogramType.TC, made, purchase.cvm)

    def sign_offline(self, message: bytes) -> bytes:
        """The signature (64 bytes) over a record's card_message. CardRefuses without a key."""
        return sign_as_card(self._key(), message)

    def _key(self) -> ec.EllipticCurvePrivateKey:
        if self._offline_key is None:
            raise CardRefuses("it doesn't pay offline")
        return self._offline_key

    def _next(self) -> None:
        if self.card_blocked or self.application_blocked:
            raise CardRefuses("blocked")
        if self.atc == 0xFFFF:
            raise CardRefuses("its counter is at its end")
        self.atc += 1

    def _told(
        self, values: dict[str, bytes], kind: CryptogramType, cryptogram: bytes, cvm: str
    ) -> bytes:
        head = [("9F26", cryptogram), ("9F27", bytes((kind << 6,)))]
        tail = [("9F34", CVM_RESULTS[cvm]), ("84", AID)]
        if self._script_results:
            tail.append(("9F5B", self._script_results))
        return tlv.encode([*head, *((tag, values[tag]) for tag in COVERED), *tail])

    def complete(self, answer: bytes | None, *, approved: bool) -> Completed:
        """The issuer's answer (DE55; None: there was none) and the terminal's wish.

        An approval needs an authentic answer; with one the offline counters start anew. Scripts are
        done one by one; the first bad one ends its script.
        """
        found = tlv.decode(answer) if answer else []
        by_tag = {element.tag: element.value for element in found}
        authentic = self._authentic(by_tag.get("91", b""))
        if authentic:
            self.offline = OfflineSpending()
            self._script_results = b""
        done = 0
        for element in found:
            if element.tag in ("71", "72"):
                done += self._do_script(element.value)
        if by_tag and not authentic:
            outcome = Completion.NOT_AUTHENTIC
        elif authentic and approved and by_tag["91"][8:10] == b"00":
            outcome = Completion.APPROVED
        else:
            outcome = Completion.DECLINED
        kind = CryptogramType.TC if outcome is Completion.APPROVED else CryptogramType.AAC
        return Completed(outcome, self._cryptogram(kind), done)

    def _values(self, purchase: Purchase, unpredictable: bytes) -> dict[str, bytes]:
        return {
            "9F02": bytes.fromhex(f"{purchase.amount:012d}"),
            "9F03": bytes(6),
            "9F1A": _COUNTRY,
            "95": bytes(5),
            "5F2A": bytes.fromhex(f"0{purchase.currency}"),
            "9A": bytes.fromhex(purchase.day),
            "9C": bytes((purchase.kind,)),
            "9F37": unpredictable,
            "82": _AIP,
            "9F36": self.atc.to_bytes(2, "big"),
            "9F10": _ISSUER_DATA,
        }

    def _cryptogram(self, kind: CryptogramType) -> bytes:
        covered = self._covered
        if kind is not CryptogramType.ARQC:
            # The second cryptogram covers the terminal's decision, too: its kind goes along.
            covered += bytes((kind,))
        return application_cryptogram(self._cryptogram_key, self.profile, self.atc, covered)

    def _authentic(self, issuer_data: bytes) -> bool:
        if len(issuer_data) != 10 or not self._arqc:
            return False
        own = response_cryptogram(
            self._cryptogram_key, self.profile, self.atc, self._arqc, issuer_data[8:]
        )
        return hmac.compare_digest(own, issuer_data[:8])

    def _do_script(self, template: bytes) -> int:
        elements = tlv.decode(template)
        number = next((e.value for e in elements if e.tag == "9F18"), bytes(4))
        done = 0
        for element in elements:
            if element.tag != "86":
                continue
            if not self._do(element.value):
                self._script_results += bytes((0x10,)) + number
                return done
            done += 1
        self._script_results += bytes((0x20,)) + number
        return done

    def _do(self, command: bytes) -> bool:
        content, mac = command[:-_MAC_LENGTH], command[-_MAC_LENGTH:]
        own = script_mac(self._script_key, self.profile, self.atc, self._arqc, content)
        if not hmac.compare_digest(own, mac):
            return False
        head = content[:2]
        if head == _BLOCK_CARD:
            self.card_blocked = True
        elif head == _BLOCK_APPLICATION:
            self.application_blocked = True
        elif head == _UNBLOCK_APPLICATION:
            self.application_blocked = False
        elif head == _PUT_DATA:
            self.offline = OfflineSpending()
        else:
            return False
        return True
