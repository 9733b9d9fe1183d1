"""The institutions whose nodes this console reads, and what can go wrong in reading them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from console.live import LiveFeed
from console.settings import ConsoleSettings, NodeEntry, Role
from nodes.api.client import NodeClient, NodeRefused, NodeUnreachable

Json = dict[str, Any]
#: Refusals for an outage somewhere else than at the node that was asked.
_NAMED_OUTAGES = frozenset({"case-keeper-unreachable"})


class NodeAway(Exception):
    """The institution's node doesn't answer."""

    def __init__(self, institution: Institution) -> None:
        super().__init__(f"{institution.member_id}: no answer")
        self.institution = institution


class NotKnown(Exception):
    """The node has no such thing."""


class NotYet(Exception):
    """The node has it, but not in the state asked for (a proof before its anchor)."""


class BadQuestion(Exception):
    """The node refused what was asked; `detail` says why, in its words, and `errors` where."""

    def __init__(self, detail: str, errors: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        #: Name of a member -> what is wrong with it.
        self.errors = errors or {}


class NotDone(Exception):
    """The node didn't do what was asked of it: `kind` is the problem's name."""

    def __init__(self, kind: str, detail: str, places: Mapping[str, str] | None = None) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail
        #: What is wrong in the body, by place.
        self.places = dict(places or {})


class GatewayAway(Exception):
    """The institution's gateway doesn't answer."""


class NodeRefusal(Exception):
    """The node refused the console itself (its key), or failed; `status` is its HTTP status."""

    def __init__(self, institution: Institution, status: int, detail: str) -> None:
        super().__init__(f"{institution.member_id}: {status} {detail}")
        self.institution = institution
        self.status = status
        self.detail = detail


class Institution:
    """One institution: who it is, and its node's answers as the node API gives them."""

    def __init__(self, entry: NodeEntry, people: Mapping[str, str] | None = None) -> None:
        """`people`: by user name, the keys of those who may act at this node."""
        self.entry = entry
        self.member_id = entry.member_id
        self.name = entry.name
        self.roles = tuple(entry.roles)
        self.client = NodeClient(entry.api_url, api_key=entry.api_key.get_secret_value())
        self.feed = LiveFeed(self.client, "/v1/transactions/stream")
        self._acting = {
            username: NodeClient(entry.api_url, api_key=key)
            for username, key in (people or {}).items()
        }
        self._printing = {
            username: NodeClient(entry.gateway_url, api_key=key)
            for username, key in (people or {}).items()
            if entry.gateway_url is not None
        }

    async def close(self) -> None:
        """End the live feed and the connections."""
        await self.feed.close()
        await self.client.close()
        for client in (*self._acting.values(), *self._printing.values()):
            await client.close()

    def lets_act(self, username: str) -> bool:
        """Whether this person has a key of their own at this node."""
        return username in self._acting

    def lets_print(self, username: str) -> bool:
        """Whether this person may have receipts from the gateway."""
        return username in self._printing

    async def receipt(self, username: str, txid: str, form: str, how: Mapping[str, str]) -> bytes:
        """A receipt as the gateway prints it (docs/receipts.md), under the person's own key.

        NotDone says why the node or the printer refuses, GatewayAway that nobody answered.
        """
        try:
            return await self._printing[username].get_bytes(f"/receipts/{txid}.{form}", **how)
        except NodeUnreachable as error:
            raise GatewayAway from error
        except NodeRefused as error:
            if error.status >= 500:
                raise GatewayAway from error
            raise _not_done(error) from error

    async def act(self, username: str, path: str, document: Json, key: str | None = None) -> Json:
        """POST in a person's own name, once for each idempotency key; NotDone says why not."""
        try:
            answer: Json = await self._acting[username].post_json(
                path, document, idempotency_key=key
            )
        except NodeUnreachable as error:
            raise NodeAway(self) from error
        except NodeRefused as error:
            refusal = _not_done(error)
            if error.status in (403, 404, 409, 422) or refusal.kind in _NAMED_OUTAGES:
                raise refusal from error
            raise self._reason(error) from error
        return answer

    async def info(self) -> Json:
        """Member id, chain id, contracts, note key."""
        return await self._json("/v1/info")

    async def overview(self, minutes: int) -> Json:
        """Volume by minute, declines by outcome, totals, state of the log, accounts."""
        return await self._json("/v1/overview", minutes=minutes)

    async def transactions(self, filters: Mapping[str, Any]) -> Json:
        """A page of transactions, the newest first: {"items": [...], "next": cursor or None}."""
        return await self._json("/v1/transactions", **filters)

    async def transaction(self, txid: str, side: str | None = None) -> Json:
        """One transaction with its transfers, timeline and related ones."""
        return await self._json(f"/v1/transactions/{txid}", side=side)

    async def proof(self, txid: str, side: str | None = None) -> bytes:
        """The proof bundle's bytes. NotYet before the anchor is final."""
        return (await self._text(f"/v1/transactions/{txid}/proof", side=side)).encode()

    async def promise(self, txid: str) -> Json:
        """The promise on a transaction's receipt. NotKnown if none was made."""
        return await self._json(f"/v1/transactions/{txid}/promise")

    async def batches(self, cursor: str | None, limit: int = 25) -> Json:
        """A page of batches, the newest first."""
        return await self._json("/v1/batches", cursor=cursor, limit=limit)

    async def batch(self, seq: int) -> Json:
        """One batch with its checkpoint."""
        return await self._json(f"/v1/batches/{seq}")

    async def batch_transactions(self, seq: int, cursor: str | None, limit: int = 25) -> Json:
        """A page of a batch's transactions, in log order."""
        return await self._json(f"/v1/batches/{seq}/transactions", cursor=cursor, limit=limit)

    async def accounts(self, filters: Mapping[str, Any]) -> Json:
        """A page of ledger accounts with their balances, by account number."""
        return await self._json("/v1/accounts", **filters)

    async def account(self, account_id: int) -> Json:
        """One account; a cardholder's with purses, holds, windows and cards."""
        return await self._json(f"/v1/accounts/{account_id}")

    async def versions(self, account_id: int, cursor: str | None, limit: int = 25) -> Json:
        """A page of a card account's history, the newest first."""
        return await self._json(f"/v1/accounts/{account_id}/versions", cursor=cursor, limit=limit)

    async def cards(self, limit: int) -> list[Json]:
        """The newest cards, with masked numbers."""
        items: list[Json] = (await self._json("/v1/cards", limit=limit))["items"]
        return items

    async def card(self, token: str) -> Json:
        """One card by its token."""
        return await self._json(f"/v1/cards/{token}")

    async def products(self) -> list[Json]:
        """The products with their terms."""
        return await self._whole("/v1/products")

    async def products_page(self, cursor: str | None, limit: int) -> Json:
        """A page of products, by their ids."""
        return await self._json("/v1/products", cursor=cursor, limit=limit)

    async def product(self, product_id: str) -> Json:
        """One product with the terms in force."""
        return await self._json(f"/v1/products/{product_id}")

    async def product_terms(self, product_id: str, cursor: str | None, limit: int) -> Json:
        """A page of the later versions of a product's terms, the newest first."""
        path = f"/v1/products/{product_id}/terms"
        return await self._json(path, cursor=cursor, limit=limit)

    async def simulate(self, payment: Json) -> Json:
        """What would be answered to a payment, and why; nothing is posted."""
        return await self._post("/v1/simulations", payment)

    async def rules(self, filters: Mapping[str, Any]) -> Json:
        """A page of the rules that limit spending, ended ones too."""
        return await self._json("/v1/rules", **filters)

    async def adjustments(self, filters: Mapping[str, Any]) -> Json:
        """A page of corrections by hand, the newest first."""
        return await self._json("/v1/adjustments", **filters)

    async def adjustment(self, adjustment_id: int) -> Json:
        """One correction by hand."""
        return await self._json(f"/v1/adjustments/{adjustment_id}")

    async def disputes(self, filters: Mapping[str, Any]) -> Json:
        """A page of cardholders' disputes, the newest first."""
        return await self._json("/v1/disputes", **filters)

    async def dispute(self, dispute_id: int) -> Json:
        """One dispute."""
        return await self._json(f"/v1/disputes/{dispute_id}")

    async def closes(self, filters: Mapping[str, Any]) -> Json:
        """A page of days' closes, the newest first."""
        return await self._json("/v1/closes", **filters)

    async def close_of_day(self, close_id: int) -> Json:
        """One close with its stages and breaks."""
        return await self._json(f"/v1/closes/{close_id}")

    async def breaks(self, filters: Mapping[str, Any]) -> Json:
        """A page of breaks with their cases, the newest first."""
        return await self._json("/v1/breaks", **filters)

    async def broken(self, ref: str) -> Json:
        """One break with both versions and its case's history."""
        return await self._json(f"/v1/breaks/{ref}")

    async def offline_alarms(self, filters: Mapping[str, Any]) -> Json:
        """A page of alarms about offline payments, the newest first."""
        return await self._json("/v1/offline/alarms", **filters)

    async def offline_chains(self, filters: Mapping[str, Any]) -> Json:
        """A page of terminals' chains of offline records, with what is lacking."""
        return await self._json("/v1/offline/chains", **filters)

    async def terminals(self, filters: Mapping[str, Any]) -> Json:
        """A page of the acquirer's terminals, by their ids."""
        return await self._json("/v1/terminals", **filters)

    async def terminal(self, terminal_id: str) -> Json:
        """One terminal with its parameters and keys' check values."""
        return await self._json(f"/v1/terminals/{terminal_id}")

    async def terminal_history(self, terminal_id: str, cursor: str | None) -> Json:
        """A page of what was changed of a terminal, the newest first."""
        return await self._json(f"/v1/terminals/{terminal_id}/history", cursor=cursor, limit=20)

    async def authorities(self, filters: Mapping[str, Any]) -> Json:
        """A page of those who certify the acquirer's terminals, or did."""
        return await self._json("/v1/terminal-authorities", **filters)

    async def front_keys(self, filters: Mapping[str, Any]) -> Json:
        """A page of the keys of the HTTP API's callers, by their names."""
        return await self._json("/v1/front-keys", **filters)

    async def endpoints(self) -> list[Json]:
        """Where merchants are told of outcomes, all of them."""
        return await self._whole("/v1/webhook-endpoints")

    async def deliveries(self, filters: Mapping[str, Any]) -> Json:
        """A page of the messages to these, the newest first."""
        return await self._json("/v1/webhook-deliveries", **filters)

    async def refusals(self, filters: Mapping[str, Any]) -> Json:
        """A page of what terminals were told without a transaction, the newest first."""
        return await self._json("/v1/refusals", **filters)

    async def settlements(self, filters: Mapping[str, Any]) -> Json:
        """A page of settlement statements, the newest first."""
        return await self._json("/v1/settlements", **filters)

    async def settlement(self, number: str) -> Json:
        """One statement with its signatures and steps."""
        return await self._json(f"/v1/settlements/{number}")

    async def to_sign(self, number: str, decision: Mapping[str, Any]) -> Json:
        """What arbiters have to sign for a decision."""
        return await self._json(f"/v1/settlements/{number}/resolution", **decision)

    async def members(self) -> list[Json]:
        """The network's directory, as this node knows it."""
        return await self._whole("/v1/members")

    async def names(self) -> dict[str, str]:
        """The members' names by id, as this node knows them; none if it is away."""
        try:
            return {row["member_id"]: row["name"] for row in await self.members()}
        except (NodeAway, NodeRefusal):
            return {}

    async def _whole(self, path: str) -> list[Json]:
        """All items of a list that people see as a whole."""
        items: list[Json] = []
        page = await self._json(path, limit=500)
        items += page["items"]
        while page["next"] is not None:
            page = await self._json(path, limit=500, cursor=page["next"])
            items += page["items"]
        return items

    async def _json(self, path: str, **params: Any) -> Json:
        try:
            answer: Json = await self.client.get_json(path, **_present(params))
        except (NodeUnreachable, NodeRefused) as error:
            raise self._reason(error) from error
        return answer

    async def _post(self, path: str, document: Json) -> Json:
        try:
            answer: Json = await self.client.post_json(path, document)
        except (NodeUnreachable, NodeRefused) as error:
            raise self._reason(error) from error
        return answer

    async def _text(self, path: str, **params: Any) -> str:
        try:
            return await self.client.get_text(path, **_present(params))
        except (NodeUnreachable, NodeRefused) as error:
            raise self._reason(error) from error

    def _reason(self, error: NodeUnreachable | NodeRefused) -> Exception:
        if isinstance(error, NodeUnreachable):
            return NodeAway(self)
        detail = str(error.problem.get("detail") or error.problem.get("title") or "")
        match error.status:
            case 404:
                return NotKnown()
            case 409:
                return NotYet()
            case 400 | 422:
                return BadQuestion(detail, _errors(error.problem))
            case 502 | 503 | 504:
                return NodeAway(self)
        return NodeRefusal(self, error.status, detail)


def _errors(problem: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong, by the member's name ("body.mcc" is mcc's)."""
    found = problem.get("errors")
    if not isinstance(found, list):
        return {}
    return {
        str(one.get("at", "")).removeprefix("body."): str(one.get("message", ""))
        for one in found
        if isinstance(one, dict)
    }


def _present(params: Mapping[str, Any]) -> Json:
    return {key: value for key, value in params.items() if value is not None}


def _people_of(member_id: str, settings: ConsoleSettings) -> dict[str, str]:
    """By user name, the keys of those who may act at a node."""
    return {
        user.username: user.node_keys[member_id].get_secret_value()
        for user in settings.users
        if member_id in user.node_keys and user.role.includes(Role.OPERATOR)
    }


class Institutions:
    """All institutions of the configuration, in its order."""

    def __init__(self, settings: ConsoleSettings) -> None:
        self._by_id = {
            entry.member_id: Institution(entry, _people_of(entry.member_id, settings))
            for entry in settings.nodes
        }

    def __iter__(self) -> Iterator[Institution]:
        return iter(self._by_id.values())

    def get(self, member_id: str) -> Institution | None:
        """The institution of this member id, or None."""
        return self._by_id.get(member_id)

    async def close(self) -> None:
        """Close them all."""
        for institution in self:
            await institution.close()


def _not_done(error: NodeRefused) -> NotDone:
    kind = str(error.problem.get("type", "")).rpartition(":")[2]
    detail = str(error.problem.get("detail") or "")
    return NotDone(kind, detail, _places(error.problem))


def _places(problem: Mapping[str, Any]) -> dict[str, str]:
    found = problem.get("errors")
    if not isinstance(found, list):
        return {}
    return {
        str(one.get("at", "")): str(one.get("message", ""))[:200]
        for one in found[:10]
        if isinstance(one, dict)
    }
