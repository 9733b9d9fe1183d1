"""Where a simulated terminal stands: gateway, acquirer, issuers; and what it is given there.

The sandbox's own: it holds the keys of everybody (network.json). Terminals are enrolled over the
acquirer's API, cards issued over the issuers'.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from gateway.iso8583.dialect import DIALECTS
from gateway.terminal_keys.authority import authority_certificate, certify
from gateway.terminal_keys.enrolment import enrol
from gateway.terminal_keys.model import KeyManagement, TerminalRecord
from gateway.terminal_keys.ring import MASTER_KEY
from nodes.crypto import sm2
from nodes.crypto.certificates import Certificate
from nodes.crypto.emv import open_personalization
from nodes.crypto.hsm import SoftwareHsm
from sandbox.cards.chip import ChipCard
from sandbox.cards.wallet import Wallet
from sandbox.secure_module import TerminalKeys
from sandbox.terminal import NoAnswer, Terminal
from sandbox.terminals.scenario import CardPlan, Form, TerminalPlan

_EXPIRY = "3112"
#: Service codes: international, normal; a chip card's begin with 2.
_SERVICE_CODES = {Form.CHIP: "201", Form.STRIPE: "101", Form.PLAIN: "201", Form.VIRTUAL: "101"}
#: Until a gateway has taken an enrolled terminal.
_TAKEN_S = 20.0


class NotThere(Exception):
    """The network lacks something that the scenario needs, or refused it; says what."""


@dataclass(frozen=True, slots=True)
class Api:
    """A node's API with an operator's key."""

    url: str
    key: str = field(repr=False)

    def client(self) -> httpx.Client:
        """A client of its own for one use."""
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=20, trust_env=False)

    def post(self, path: str, body: Mapping[str, Any], *, key: str | None = None) -> dict[str, Any]:
        """POST; NotThere with the problem's name if it is refused."""
        headers = {} if key is None else {"Idempotency-Key": key}
        try:
            with self.client() as client:
                answer = client.post(path, json=dict(body), headers=headers)
        except httpx.HTTPError as error:
            raise NotThere(f"{self.url} can't be asked ({type(error).__name__})") from None
        if not answer.is_success:
            raise NotThere(f"POST {path}: {answer.status_code} {answer.text[:300]}")
        return dict(answer.json())


@dataclass
class SimCard:
    """A card in the simulator's hand."""

    name: str
    token: str
    pan: str = field(repr=False)
    expiry: str
    service_code: str
    pin: str = field(repr=False)
    currency: str
    form: Form
    issuer: str
    chip: ChipCard | None = None
    stripe: str | None = field(default=None, repr=False)
    wallet: Wallet | None = None

    @property
    def masked(self) -> str:
        """First six and last four digits."""
        return f"{self.pan[:6]}{'*' * (len(self.pan) - 10)}{self.pan[-4:]}"


@dataclass
class Surroundings:
    """One network as terminals see it. `transport`: by issuer, what opens cards' personalization;
    `master`: the gateway's master key."""

    host: str
    ports: Mapping[str, int]
    acquirer: Api
    issuers: Mapping[str, Api]
    transport: Mapping[str, bytes] = field(repr=False)
    master: bytes = field(repr=False)
    merchants: tuple[str, ...]
    #: Terminals of the gateway's settings: (id, merchant, master key).
    terminals: tuple[tuple[str, str, bytes], ...] = field(default=(), repr=False)
    #: The gateway's HTTP API, if it has one.
    front: str | None = None
    #: Merchants' names, where they are known.
    names: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, network: Mapping[str, Any]) -> Surroundings:
        """Of a network.json. NotThere if it lacks what terminals need."""
        try:
            gateway = network["gateways"][0]
            apis = {
                member["id"]: Api(
                    member["api"],
                    next(k["key"] for k in member["api_keys"] if k["role"] == "operator"),
                )
                for member in network["members"]
            }
            issuers = [m for m in network["members"] if "issuer" in m["roles"]]
            return cls(
                host=gateway["iso8583"]["host"],
                ports=gateway.get("ports", {"bcd-tpdu": gateway["iso8583"]["port"]}),
                acquirer=apis[gateway["acquirer"]],
                issuers={member["id"]: apis[member["id"]] for member in issuers},
                transport={m["id"]: bytes.fromhex(m["card_transport_key"]) for m in issuers},
                master=bytes.fromhex(gateway["master_key"]),
                merchants=tuple(m["merchant_id"] for m in network["merchants"]),
                terminals=tuple(
                    (t["terminal_id"], t["merchant_id"], bytes.fromhex(t["keys"]["tmk"]))
                    for t in network["terminals"]
                ),
                front=gateway.get("api"),
                names={m["merchant_id"]: m["name"] for m in network["merchants"]},
            )
        except (KeyError, IndexError, StopIteration, TypeError, ValueError):
            raise NotThere("this network.json describes no network of this version") from None

    # Terminals

    def new_terminal(self, plan: TerminalPlan) -> Terminal:
        """The terminal of a plan, enrolled if it is none of the network's. It isn't connected."""
        port = self.ports.get(plan.dialect)
        if port is None:
            raise NotThere(f"this gateway has no listener for the dialect {plan.dialect}")
        dialect = DIALECTS[plan.dialect]
        # A batch of its own, so that trace numbers may begin anew.
        batch = f"{secrets.randbelow(900_000) + 100_000}"
        if plan.terminal_id is not None:
            for name, merchant, tmk in self.terminals:
                if name == plan.terminal_id:
                    return Terminal(
                        *(name, merchant, tmk, self.host, port),
                        dialect=dialect,
                        cover=plan.cover,
                        batch=batch,
                    )
            raise NotThere(f"the network has no terminal {plan.terminal_id}")
        merchant = plan.merchant or self.merchants[0]
        record, private = self._enrolled(plan, merchant)
        return Terminal(
            *(record.terminal_id, merchant, b"", self.host, port),
            keys=self._keys(record, private),
            dialect=dialect,
            cover=plan.cover,
            batch=batch,
        )

    def _enrolled(self, plan: TerminalPlan, merchant: str) -> tuple[TerminalRecord, bytes]:
        name = f"S{secrets.token_hex(4).upper()[:7]}"
        private, public = b"", b""
        certificate: Certificate | None = None
        if plan.keys is KeyManagement.SM2:
            private, public = sm2.provider().generate()
            certificate = self._certified(name, public)
        body = {
            "terminal_id": name,
            "merchant_id": merchant,
            "store": "Simulator",
            "label": f"{plan.suite.name} {plan.keys.value}",
            "suite": plan.suite.name,
            "capabilities": [
                *("chip", "contactless", "stripe", "qr", "manual", "pin_pad", "printer"),
                *("offline", "partial"),
            ],
            "with_key": True,
            "management": plan.keys.value,
            "certificate": "" if certificate is None else certificate.text(),
        }
        self.acquirer.post("/v1/terminals", body, key=f"simulator-{name}")
        record = TerminalRecord(
            name,
            merchant,
            plan.suite,
            management=plan.keys,
            certificate=b"" if certificate is None else certificate.serial,
            sm2_public_key=public,
        )
        return record, private

    def _certified(self, name: str, public: bytes) -> Certificate:
        """A terminal's certificate, by the gateway's authority, which the node is told of."""
        hsm, now_ms = SoftwareHsm({MASTER_KEY: self.master}), int(time.time() * 1000)
        authority = authority_certificate(hsm, now_ms)
        with self.acquirer.client() as api:
            known = api.get("/v1/terminal-authorities?limit=500").json()["items"]
        if all(authority.subject != one["subject"] for one in known):
            self.acquirer.post("/v1/terminal-authorities", {"certificate": authority.text()})
        return certify(hsm, name, public, now_ms)

    def _keys(self, record: TerminalRecord, private: bytes) -> TerminalKeys:
        """What a ceremony puts into the terminal."""
        made = enrol(SoftwareHsm({MASTER_KEY: self.master}), record)
        entered = TerminalKeys.from_components(
            record.suite, record.management, made.components, made.check_value, made.key_id
        )
        return TerminalKeys(
            record.suite,
            record.management,
            entered.key,
            made.key_id,
            private,
            record.certificate,
            made.gateway_public_key,
        )

    async def ready(self, terminal: Terminal) -> None:
        """Wait until the gateway has taken the terminal. NotThere if it doesn't."""
        until = time.monotonic() + _TAKEN_S
        while True:
            try:
                signs_on = terminal.module.signs_on
                reply = await (terminal.sign_on() if signs_on else terminal.echo())
                if reply.code != "58":
                    return
            except NoAnswer:
                pass
            if time.monotonic() > until:
                raise NotThere(f"the gateway doesn't take terminal {terminal.terminal_id}")
            await asyncio.sleep(0.2)

    # Cards

    def new_card(self, name: str, plan: CardPlan, currency: str) -> SimCard:
        """Issue a card and load it. NotThere if the issuer refuses."""
        issuer = plan.issuer or next(iter(self.issuers))
        if issuer not in self.issuers:
            raise NotThere(f"card {name}: the network has no issuer {issuer}")
        api = self.issuers[issuer]
        service_code = _SERVICE_CODES[plan.form]
        made = api.post(
            "/v1/cards",
            {
                "expiry": _EXPIRY,
                "service_code": service_code,
                "pin": plan.pin,
                "currency": currency,
                "making": {"form": plan.form.value},
            },
        )
        token = str(made["card_token"])
        if plan.balance:
            body = {"amount": plan.balance, "currency": currency, "reference": "simulator"}
            api.post(f"/v1/cards/{token}/loads", body, key=f"simulator-{token}")
        card = SimCard(
            name=name,
            token=token,
            pan=str(made["pan"]),
            expiry=_EXPIRY,
            service_code=service_code,
            pin=plan.pin,
            currency=currency,
            form=plan.form,
            issuer=issuer,
            wallet=Wallet(api.client(), token),
        )
        sealed = made.get("personalization")
        if sealed is not None:
            data = open_personalization(self.transport[issuer], base64.b64decode(sealed))
            card.stripe = f"{data.pan}D{data.expiry}{data.service_code}{data.stripe_data}"
            if plan.form is Form.CHIP:
                card.chip = ChipCard.personalized(data)
        if plan.offline and card.chip is not None:
            key = {"public_key": card.chip.make_offline_key().hex()}
            api.post(f"/v1/cards/{token}/offline-key", key)
            reserve = {"amount": plan.offline, "currency": currency}
            path = f"/v1/cards/{token}/offline-reserve"
            api.post(path, reserve, key=f"simulator-{token}")
        return card
