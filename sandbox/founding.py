"""Makes the sandbox network what it is: chain, contracts, members, databases, merchants, cards.

Every step looks first at what is there, so that a founding that was broken off goes on where it
stood, and a second start finds nothing to do.
"""

from __future__ import annotations

import shutil
from typing import Any

import httpx
import psycopg
from psycopg import sql

from nodes.chain.client import ChainClient
from nodes.chain.contracts import (
    ANCHOR_REGISTRY,
    CLOSE_REGISTRY,
    MEMBER_REGISTRY,
    OMISSION_REGISTRY,
    SETTLEMENT_REGISTRY,
)
from nodes.chain.deploy import (
    Terms,
    check_deployment,
    complete_deployment,
    planned_addresses,
    register_member,
    rotate_key,
    set_api_url,
)
from nodes.chain.directory import Directory
from nodes.chain.embedded.genesis import create_genesis
from nodes.chain.errors import WrongChain
from nodes.crypto.pan import mask
from nodes.db.engine import migrate
from nodes.db.provision import provision
from sandbox.network import (
    ACQUIRER,
    ARBITER_THRESHOLD,
    CURRENCY,
    Card,
    Plan,
    State,
    api_key,
    api_url,
)
from sandbox.services import Network


class FoundingError(RuntimeError):
    """The network can't be brought into its intended shape; the text says what is wrong."""


def make_genesis(network: Network) -> None:
    """The chain's genesis file, once."""
    chain = network.directory.chain
    if chain.exists():
        return
    building = chain.with_name("chain.new")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(mode=0o700)
    create_genesis(building, chain_id=network.state.chain_id, governance=network.governance.address)
    building.rename(chain)


def make_databases(network: Network) -> None:
    """Each member's database with its logins, migrated; and one for its jobs."""
    admin = network.postgres.superuser_dsn()
    for member in network.directory.plan.members:
        name = member.member_id
        provision(admin, name, network.state.passwords[name])
        migrate(network.dsn(name, "owner"))
    with psycopg.connect(admin, autocommit=True) as connection:
        there = {row[0] for row in connection.execute("SELECT datname FROM pg_database")}
        for member in network.directory.plan.members:
            jobs = f"{member.member_id}_jobs"
            if jobs not in there:
                connection.execute(
                    sql.SQL("CREATE DATABASE {} OWNER {}").format(
                        sql.Identifier(jobs), sql.Identifier(f"{member.member_id}_worker")
                    )
                )


def make_contracts(network: Network, client: ChainClient) -> None:
    """Deploy what isn't deployed yet; the addresses stand in the state from the start."""
    state = network.state
    planned = planned_addresses(network.governance.address)
    if not state.contracts:
        state.contracts = {
            MEMBER_REGISTRY: planned.member_registry,
            ANCHOR_REGISTRY: planned.anchor_registry,
            CLOSE_REGISTRY: str(planned.close_registry),
            SETTLEMENT_REGISTRY: str(planned.settlement_registry),
            OMISSION_REGISTRY: str(planned.omission_registry),
        }
        network.directory.save(state)
    terms = Terms(
        arbiters=tuple(arbiter.address for arbiter in network.arbiters),
        arbiter_threshold=ARBITER_THRESHOLD,
    )
    try:
        # Goes on where a founding was broken off.
        complete_deployment(client, network.governance, planned, terms=terms)
    except WrongChain:
        raise FoundingError("the chain is not the one of this demo; start with --fresh") from None
    check_deployment(client, planned)


def admit_members(network: Network, client: ChainClient) -> None:
    """Register each member, or move its API where its port has changed."""
    registry = network.state.contracts[MEMBER_REGISTRY]
    directory = Directory(client, registry)
    directory.refresh()
    for plan in network.directory.plan.members:
        url = api_url(network.state, plan.member_id)
        member = directory.member(plan.member_id)
        if member is None:
            register_member(
                client,
                network.governance,
                registry,
                member_id=plan.member_id,
                name=plan.name,
                roles=plan.roles,
                api_url=url,
                bins=plan.bins,
                operator=network.operator(plan.member_id),
                note_key=network.public_key(plan.member_id, "note"),
                message_key=network.public_key(plan.member_id, "message"),
            )
        elif member.api_url != url:
            set_api_url(client, network.governance, registry, plan.member_id, url)
        if member is None or member.promise_key is None:
            key = bytes.fromhex(network.promiser(plan.member_id)[2:])
            rotate_key(client, network.governance, registry, plan.member_id, "promise", key)


def open_business(plan: Plan, state: State) -> None:
    """Merchants and terminals at the acquirer, cards with their first load at the issuers."""
    with NodeAdministration(state, ACQUIRER) as acquirer:
        for merchant in plan.merchants:
            acquirer.post(
                "/v1/merchants",
                {
                    "merchant_id": merchant.merchant_id,
                    "name": merchant.name,
                    "mcc": merchant.mcc,
                    "country": "CN",
                    "currency": CURRENCY,
                    "member_id": merchant.member_id,
                },
                accept=(201, 409),
            )
            for terminal_id in merchant.terminals:
                acquirer.post(
                    "/v1/terminals",
                    {"terminal_id": terminal_id, "merchant_id": merchant.merchant_id},
                    accept=(201, 409),
                )
    for member in plan.members:
        with NodeAdministration(state, member.member_id) as issuer:
            for card, planned in zip(state.cards, plan.cards, strict=True):
                if card["member"] == member.member_id:
                    token = issuer.issue(card)
                    issuer.load(token, planned.load, "first load", f"founding-{token}")
                    state.card_tokens[card["pan"]] = token


class NodeAdministration:
    """The administrative part of a node's API, with the sandbox's operator key."""

    def __init__(self, state: State, member_id: str) -> None:
        self._client = httpx.Client(
            base_url=api_url(state, member_id),
            headers={"Authorization": f"Bearer {api_key(state, member_id, 'operator')}"},
            timeout=30,
            trust_env=False,
        )

    def __enter__(self) -> NodeAdministration:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def post(
        self,
        path: str,
        body: dict[str, Any],
        *,
        headers: dict[str, str] | None = None,
        accept: tuple[int, ...] = (200, 201),
    ) -> dict[str, Any] | None:
        """POST; the answer, or None for an accepted status that is no success.

        Raises FoundingError with the problem's text (never the body that was sent).
        """
        answer = self._client.post(path, json=body, headers=headers)
        if answer.status_code not in accept:
            raise FoundingError(f"POST {path}: {answer.status_code} {answer.text[:500]}")
        return dict(answer.json()) if answer.is_success else None

    def get(self, path: str, **params: str | int) -> dict[str, Any]:
        """GET a JSON document."""
        answer = self._client.get(path, params=params)
        if not answer.is_success:
            raise FoundingError(f"GET {path}: {answer.status_code} {answer.text[:500]}")
        return dict(answer.json())

    def text(self, path: str, **params: str) -> str | None:
        """GET a text document; None if there is none yet (404, 409)."""
        answer = self._client.get(path, params=params)
        if answer.status_code in (404, 409):
            return None
        if not answer.is_success:
            raise FoundingError(f"GET {path}: {answer.status_code} {answer.text[:500]}")
        return answer.text

    def pages(self, path: str, **params: str | int) -> list[dict[str, Any]]:
        """All items of a paged list."""
        items: list[dict[str, Any]] = []
        page = self.get(path, **params)
        items += page["items"]
        while page.get("next"):
            page = self.get(path, **params, cursor=page["next"])
            items += page["items"]
        return items

    def issue(self, card: Card) -> str:
        """Issue this card, unless it is issued already; its token in hex."""
        body = {
            "pan": card["pan"],
            "expiry": card["expiry"],
            "service_code": card["service_code"],
            "pin": card["pin"],
            "currency": card["currency"],
        }
        made = self.post("/v1/cards", body, accept=(200, 201, 409))
        if made is not None:
            return str(made["card_token"])
        masked = mask(card["pan"])
        for entry in self.pages("/v1/cards"):
            if entry["pan_masked"] == masked:
                return str(entry["card_token"])
        raise FoundingError(f"{masked} is said to be issued, but is not among the issuer's cards")

    def load(self, token: str, amount: int, reference: str, key: str) -> None:
        """Put value on a card; `key` makes a repeat harmless."""
        self.post(
            f"/v1/cards/{token}/loads",
            {"amount": amount, "currency": CURRENCY, "reference": reference},
            headers={"Idempotency-Key": key},
        )
