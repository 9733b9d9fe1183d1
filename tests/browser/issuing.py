"""An issuer and an acquirer as they are: real nodes on real databases, with a console before them.

What happens here is decided by the nodes themselves: holds, captures, limits that are full, a hold
that a partial capture leaves, a forced posting that is owed, a frozen account.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nodes.acquiring.model import AcquiringOutcome, Merchant
from nodes.acquiring.operations import register_merchant, register_terminal
from nodes.api.client import NodeClient
from nodes.authorization.model import Kind, Outcome, TerminalAnswer, TerminalRequest
from nodes.cards.model import IssuedCard
from nodes.clock import to_datetime
from tests.browser.fake_node import Server
from tests.browser.network import people
from tests.conftest import Cluster
from tests.factories.network import ACQUIRER, ISSUER
from tests.integration.api.running import GATEWAY, KEYS, TwoNodes, run, two_nodes

PIN = "123456"
#: merchant id, name, MCC, terminal
SHOPS = {
    "stores": ("HARBOR000000001", "Harbor Stores", "5411", "HRB00001"),
    "tea": ("LANTERN00000001", "Lantern Tea House", "5812", "LTN00001"),
    "hotel": ("PEARL0000000001", "Pearl River Hotel", "7011", "PRL00001"),
}
_keys = itertools.count(1)


@dataclass
class Issuing:
    """The console and what happened: cards and transaction ids by name."""

    url: str = ""
    nodes: TwoNodes | None = None
    cards: dict[str, IssuedCard] = field(default_factory=dict)
    txids: dict[str, str] = field(default_factory=dict)
    rules: dict[str, str] = field(default_factory=dict)
    #: Of one that waits for a checker.
    adjustment: int = 0
    _answers: dict[str, TerminalAnswer] = field(default_factory=dict)

    @property
    def home(self) -> str:
        """The issuer's pages."""
        return f"{self.url}/i/{ISSUER}"

    def post(self, path: str, body: dict[str, Any], role: str = "operator") -> Any:
        """POST at the issuer's node, as its own people do."""
        assert self.nodes is not None
        with self.nodes.issuer.http(role) as client:
            answer = client.post(
                path, json=body, headers={"Idempotency-Key": f"browser-{next(_keys):04d}"}
            )
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    def get(self, path: str, **params: Any) -> Any:
        assert self.nodes is not None
        with self.nodes.issuer.http("reader") as client:
            answer = client.get(path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def card(self, name: str, product: str, loads: dict[str, int]) -> IssuedCard:
        """A card of a product with money in its purses."""
        body = {
            "expiry": "4912", "service_code": "221", "pin": PIN, "currency": "CNY",
            "product_id": product,
        }  # fmt: skip
        made = self.post("/v1/cards", body)
        token = made["card_token"]
        for purse, amount in loads.items():
            load = {"amount": amount, "currency": "CNY", "reference": "first load", "purse": purse}
            self.post(f"/v1/cards/{token}/loads", load)
        account_id = self.get(f"/v1/cards/{token}")["account_id"]
        card = IssuedCard(bytes.fromhex(token), made["pan"], made["pan_masked"], "4912", account_id)
        self.cards[name] = card
        return card

    def pay(
        self,
        name: str,
        card: str,
        shop: str,
        amount: int,
        kind: Kind = Kind.PURCHASE,
        *,
        of: str | None = None,
        **changes: Any,
    ) -> TerminalAnswer:
        """A terminal's message through both nodes; `of` names what it follows."""
        assert self.nodes is not None
        merchant_id, _, _, terminal_id = SHOPS[shop]
        holder = self.cards[card]
        if kind in (Kind.PURCHASE, Kind.AUTHORIZATION):
            changes["pin_block"] = self.nodes.network.pin_block(PIN, holder.pan)
        if of is not None:
            changes["rrn"] = self._answers[of].rrn
        request = self.nodes.network.request(
            holder, amount, kind, terminal_id=terminal_id, merchant_id=merchant_id, **changes
        )
        [answer] = run(self._send(request))
        self._answers[name] = answer
        assert answer.txid is not None
        self.txids[name] = answer.txid.hex()
        return answer

    async def _send(self, request: TerminalRequest) -> list[TerminalAnswer]:
        assert self.nodes is not None
        async with self.nodes.acquirer.client(GATEWAY) as client:
            client_: NodeClient = client
            return await client_.terminal_requests([request])

    def rule(self, name: str, card: str, **more: Any) -> None:
        """A rule on a card's account, in force at once."""
        body = {"scope": "account", "subject": str(self.cards[card].account_id), "name": name}
        self.rules[name] = self.post("/v1/rules", body | more)["rule_id"]


@contextmanager
def issuing_network(cluster: Cluster, directory: Path, console: Any) -> Iterator[Issuing]:
    """Start the nodes, let a day happen, and serve the console that `console(nodes)` makes.

    In a thread of its own: Playwright's loop runs in this one.
    """
    with ThreadPoolExecutor(1) as thread, two_nodes(cluster) as nodes:
        issuing = Issuing(nodes=nodes)
        thread.submit(_a_day, issuing).result()
        server = Server(console(_entries(nodes), directory)).start()
        issuing.url = server.url
        try:
            yield issuing
        finally:
            server.stop()


def _entries(nodes: TwoNodes) -> list[dict[str, Any]]:
    plans = (
        (ISSUER, "Aurora Bank", "issuer", nodes.issuer),
        (ACQUIRER, "Meridian Acquiring", "acquirer", nodes.acquirer),
    )
    return [
        {
            "member_id": member_id,
            "name": name,
            "roles": [role],
            "api_url": node.url,
            "api_key": KEYS["reader"],
        }
        for member_id, name, role, node in plans
    ]


def node_people() -> list[dict[str, Any]]:
    """Two people with keys of their own at the issuer's node, named as the node names them."""
    known = people()[0]["password_argon2"]
    return [
        {
            "username": role,
            "password_argon2": known,
            "role": role,
            "members": [ISSUER],
            "node_keys": {ISSUER: KEYS[role]},
        }
        for role in ("operator", "admin")
    ]


def console_settings(entries: list[dict[str, Any]], users: list[dict[str, Any]]) -> dict[str, Any]:
    """A console without a chain: nothing here is verified."""
    return {
        "port": 8080,
        "secret": secrets.token_hex(32),
        "nodes": entries,
        "users": users,
        "rpc_url": "http://127.0.0.1:9",
        "anchor_registry": "0x" + "bb" * 20,
        "member_registry": "0x" + "aa" * 20,
    }


def _a_day(issuing: Issuing) -> None:
    """Mei's card with two purses, limits and holds; Lin's, used up; Bo's, frozen and owing."""
    assert issuing.nodes is not None
    network = issuing.nodes.network
    now = to_datetime(network.clock.now_ms())
    for merchant_id, name, mcc, terminal_id in SHOPS.values():
        merchant = Merchant(merchant_id, name, mcc, "CN", "CNY")
        made = register_merchant(network.acquirer_db.engine, merchant, now=now)
        assert made is AcquiringOutcome.DONE
        register_terminal(network.acquirer_db.engine, terminal_id, merchant_id)
    meal = {"name": "meal", "mccs": ["5811-5814"], "fallback": ["cash"]}
    terms = {
        "purses": [meal, {"name": "cash"}],
        "partial_approval": True,
        "time_zone": _zone_at_noon(now),
    }
    issuing.post("/v1/products", {"product_id": "meal", "name": "Meal card", "terms": terms})
    single = {"uses": 3, "reloadable": False, "partial_approval": True}
    issuing.post("/v1/products", {"product_id": "gift", "name": "Gift card", "terms": single})
    _meis_day(issuing)
    issuing.card("lin", "gift", {"main": 20_000})
    issuing.pay("lin_first", "lin", "stores", 5_000)
    part = issuing.pay("part", "lin", "stores", 40_000, partial_ok=True)
    assert (part.outcome, part.amount) == (Outcome.APPROVED, 15_000)
    issuing.card("bo", "standard", {"main": 10_000})
    approved = issuing.pay("forced", "bo", "tea", 12_500, Kind.ADVICE)
    assert approved.outcome is Outcome.APPROVED
    frozen = {"status": "frozen", "reason": "court order 17/2026"}
    issuing.post(f"/v1/accounts/{issuing.cards['bo'].account_id}/status", frozen)
    issuing.card("new", "standard", {})
    correction = {
        "account_id": issuing.cards["mei"].account_id,
        "amount": 8_640,
        "currency": "CNY",
        "reason": "groceries charged twice",
    }
    issuing.adjustment = issuing.post("/v1/adjustments", correction, "admin")["adjustment_id"]


def _zone_at_noon(now: datetime) -> str:
    """A time zone where it is noon: its day doesn't end while tests look at the day's windows."""
    return f"Etc/GMT{now.astimezone(UTC).hour - 12:+d}"


def _meis_day(issuing: Issuing) -> None:
    issuing.card("mei", "meal", {"meal": 30_000, "cash": 150_000})
    restaurants = {"mccs": ["5811-5814"]}
    a_day = {"window": "day", "measure": "amount", "maximum": 50_000}
    issuing.rule("500.00 a day at restaurants", "mei", when=restaurants, limit=a_day)
    five = {"window": "week", "measure": "count", "maximum": 8}
    issuing.rule("Eight payments a week", "mei", limit=five)
    large = {"window": "transaction", "measure": "amount", "maximum": 40_000}
    issuing.rule("400.00 a payment", "mei", limit=large, shadow=True)
    abroad = {"countries": ["CN"]}
    issuing.rule("Only at home", "mei", when=abroad, unless=True)
    steps = (
        ("groceries", "stores", 8_640, Kind.PURCHASE, None),
        ("lunch", "tea", 12_000, Kind.PURCHASE, None),
        ("room", "hotel", 60_000, Kind.AUTHORIZATION, None),
        ("minibar", "hotel", 20_000, Kind.CAPTURE, "room"),
        ("breakfast", "hotel", 15_000, Kind.CAPTURE, "room"),
        ("goodwill", "hotel", 5_000, Kind.REFUND, "breakfast"),
        # The meal purse has 180.00 left: cash pays the rest.
        ("dinner", "tea", 25_000, Kind.PURCHASE, None),
        ("deposit", "stores", 10_000, Kind.AUTHORIZATION, None),
    )
    for name, shop, amount, kind, of in steps:
        answer = issuing.pay(name, "mei", shop, amount, kind, of=of)
        assert answer.outcome is Outcome.APPROVED, (name, answer)
    assert issuing.pay("banquet", "mei", "tea", 20_000).outcome is Outcome.AMOUNT_LIMIT
    funds = issuing.pay("too_much", "mei", "stores", 900_000)
    assert funds.outcome is Outcome.INSUFFICIENT_FUNDS
