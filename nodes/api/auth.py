"""Who calls, and what that one may do.

Three kinds of callers: holders of an API key (bearer token; roles reader < operator < admin),
members of the network (RFC 9421 signature; key id = member id, key from the chain's directory) and
the node's own gateways (signature; key id as in the settings, "gateway:<name>").
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from starlette.requests import Request

from nodes.api.node import ApiNode
from nodes.api.problems import Problem, unauthenticated
from nodes.crypto.http_signatures import (
    HMAC,
    MessageMac,
    MessageSigner,
    NonceMemory,
    SignatureFault,
    SignatureHead,
    SignatureRefused,
    parse_head,
    verify_request,
)

ApiRole = Literal["reader", "operator", "admin"]
RANKS: dict[str, int] = {"reader": 1, "operator": 2, "admin": 3}

#: Calls under way at once for one API key or member, streams apart.
MAX_IN_FLIGHT = 32
#: Failed attempts a minute from one address, after which 429 is answered instead of 401.
MAX_FAILURES = 30
_FAILURE_WINDOW_S = 60.0
_REMEMBERED_ADDRESSES = 10_000


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller. `role` only of an API key; `member_id` only of a member."""

    name: str
    role: str | None = None
    member_id: str | None = None
    gateway: bool = False

    def has(self, role: ApiRole) -> bool:
        """Whether it is an API key with at least this role."""
        return self.role is not None and RANKS[self.role] >= RANKS[role]


class Gatekeeper:
    """Checks credentials. One instance a process: it remembers nonces and failures."""

    def __init__(self, node: ApiNode) -> None:
        settings = node.settings
        self._node = node
        self._keys = {
            bytes.fromhex(key.sha256): Principal(f"key:{key.name}", role=key.role)
            for key in settings.api_keys
        }
        self._gateways = {key_id: bytes.fromhex(key) for key_id, key in settings.gateways.items()}
        seed = node.keystore.secret("message")
        self._answerers = {
            key_id: MessageMac(settings.member_id, seed, key)
            for key_id, key in self._gateways.items()
        }
        self._origins = {
            "//" + urlsplit(settings.api_url).netloc.lower(): urlsplit(settings.api_url).scheme,
            f"//{settings.host}:{settings.port}": "http",
        }
        self._nonces = NonceMemory(time.monotonic)
        self._failures: OrderedDict[str, list[float]] = OrderedDict()
        self._in_flight: dict[str, int] = {}

    # -- bearer keys

    def by_key(self, authorization: str) -> Principal:
        """The holder of a bearer token; Problem 401."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise unauthenticated("authorization-malformed", "Send 'Authorization: Bearer <key>'.")
        # The digest is looked up, so timing tells nothing about a key.
        found = self._keys.get(hashlib.sha256(token.strip().encode()).digest())
        if found is None:
            raise unauthenticated("key-unknown", "The API key is unknown.")
        return found

    # -- signatures

    def signed_by(
        self,
        head: SignatureHead,
        *,
        method: str,
        host: str | None,
        target: str,
        digest: str | None,
        body: bytes,
    ) -> Principal:
        """The signer of a request; SignatureRefused or Problem if it isn't one of ours.

        `target`: path and query as received. The signed target URI must name this node: a request
        that was meant for another one doesn't verify here.
        """
        principal, key = self._signer(head.key_id)
        answerer = self._answerers.get(head.key_id)
        scheme = self._origins.get(f"//{(host or '').lower()}")
        if scheme is None:
            raise Problem(421, "wrong-host", "The Host field names another node than this one.")
        verify_request(
            head,
            method=method,
            target_uri=f"{scheme}://{host}{target}",
            digest=digest,
            body=body,
            public_key=key,
            now_s=self._node.clock.now_ms() / 1000,
            mac=None if answerer is None else answerer.mac,
        )
        if not self._nonces.is_new(head.key_id, head.nonce or ""):
            raise SignatureRefused(SignatureFault.REPLAYED)
        return principal

    def answerer(self, head: SignatureHead) -> MessageSigner | None:
        """Who answers a request that `signed_by` has let in: None for the node's own signature."""
        return self._answerers.get(head.key_id) if head.algorithm == HMAC else None

    def _signer(self, key_id: str) -> tuple[Principal, bytes]:
        gateway = self._gateways.get(key_id)
        if gateway is not None:
            return Principal(key_id, gateway=True), gateway
        member = self._node.directory.member(key_id)
        if member is None:
            raise SignatureRefused(SignatureFault.KEY_UNKNOWN)
        if not member.active:
            raise Problem(403, "member-revoked", "The member is revoked.")
        return Principal(f"member:{key_id}", member_id=key_id), member.message_key

    # -- limits

    def note_failure(self, address: str) -> None:
        """Count a failed attempt; Problem 429 once there are too many from that address.

        A right credential is never refused for wrong ones sent from the same address.
        """
        now = time.monotonic()
        recent = [at for at in self._failures.pop(address, ()) if now - at < _FAILURE_WINDOW_S]
        recent = [*recent, now][-MAX_FAILURES - 1 :]
        self._failures[address] = recent
        if len(self._failures) > _REMEMBERED_ADDRESSES:
            self._failures.popitem(last=False)
        if len(recent) > MAX_FAILURES:
            wait = max(1, int(_FAILURE_WINDOW_S - (now - recent[0])) + 1)
            raise Problem(
                429,
                "too-many-failures",
                "Too many failed attempts; try again later.",
                headers={"Retry-After": str(wait)},
            )

    def forget_failures(self) -> None:
        """Start counting failed attempts anew."""
        self._failures.clear()

    def enter(self, principal: Principal) -> None:
        """Count a call of this caller as under way; Problem 429 if too many are."""
        count = self._in_flight.get(principal.name, 0)
        if count >= MAX_IN_FLIGHT:
            raise Problem(
                429,
                "too-many-at-once",
                f"At most {MAX_IN_FLIGHT} calls at once.",
                headers={"Retry-After": "1"},
            )
        self._in_flight[principal.name] = count + 1

    def leave(self, principal: Principal) -> None:
        """The call has ended."""
        left = self._in_flight[principal.name] - 1
        if left:
            self._in_flight[principal.name] = left
        else:
            del self._in_flight[principal.name]


def head_of(signature_input: str | None, signature: str | None) -> SignatureHead | None:
    """The signature that a request carries; None without one; SignatureRefused if malformed."""
    if signature_input is None and signature is None:
        return None
    if signature_input is None or signature is None:
        raise SignatureRefused(SignatureFault.MALFORMED)
    return parse_head(signature_input, signature)


async def identify(request: Request) -> Principal:
    """Whoever makes this request, by bearer key or by signature; Problem 401 or 429.

    For the endpoints of FastAPI: Principal stays in `request.state.principal`.
    """
    keeper: Gatekeeper = request.app.state.gatekeeper
    known: Principal | None = getattr(request.state, "principal", None)
    if known is not None:
        return known
    try:
        request.state.principal = found = await _identified(request, keeper)
    except (Problem, SignatureRefused) as error:
        if isinstance(error, SignatureRefused) or error.status_code == 401:
            keeper.note_failure(request.client.host if request.client else "")
        raise
    return found


async def _identified(request: Request, keeper: Gatekeeper) -> Principal:
    authorization = request.headers.get("authorization")
    if authorization is not None:
        return keeper.by_key(authorization)
    for name in ("signature-input", "signature", "content-digest", "host"):
        if len(request.headers.getlist(name)) > 1:
            raise SignatureRefused(SignatureFault.MALFORMED)
    head = head_of(request.headers.get("signature-input"), request.headers.get("signature"))
    if head is None:
        raise unauthenticated("credentials-missing", "Send an API key or a member's signature.")
    query = request.scope["query_string"].decode("latin-1")
    path = request.scope.get("raw_path", b"").decode("latin-1")
    return keeper.signed_by(
        head,
        method=request.method,
        host=request.headers.get("host"),
        target=f"{path}?{query}" if query else path,
        digest=request.headers.get("content-digest"),
        body=await request.body(),
    )


Check = Callable[[Principal], None]
Dependency = Callable[[Request], AsyncIterator[Principal]]


def admitted(check: Check) -> Dependency:
    """A dependency: the caller passes `check` and hasn't too many calls under way (401, 403, 429).

    The call counts as under way until its answer is sent.
    """

    async def dependency(request: Request) -> AsyncIterator[Principal]:
        principal = await identify(request)
        check(principal)
        keeper: Gatekeeper = request.app.state.gatekeeper
        keeper.enter(principal)
        try:
            yield principal
        finally:
            keeper.leave(principal)

    return dependency


def holds(role: ApiRole) -> Check:
    """The caller holds an API key with at least this role."""

    def check(principal: Principal) -> None:
        if not principal.has(role):
            raise Problem(403, "role-too-small", f"This needs an API key of the role {role}.")

    return check


def is_reader_or_member(principal: Principal) -> None:
    """The caller holds an API key of any role, or is a member of the network."""
    if not (principal.has("reader") or principal.member_id is not None):
        raise Problem(403, "caller-not-permitted", "This is for API keys and members.")


def is_member(principal: Principal) -> None:
    """The caller is a member of the network, by its signature."""
    if principal.member_id is None:
        raise Problem(403, "caller-not-permitted", "This is for members, by their signature.")


def is_gateway(principal: Principal) -> None:
    """The caller is one of this node's own gateways, by its signature."""
    if not principal.gateway:
        raise Problem(403, "caller-not-permitted", "This is for the node's gateways.")


async def anybody(request: Request) -> AsyncIterator[None]:
    """A dependency of what needs no credential: too many calls at once from one address are 429."""
    address = request.client.host if request.client else ""
    visitor = Principal(f"address:{address}")
    keeper: Gatekeeper = request.app.state.gatekeeper
    keeper.enter(visitor)
    try:
        yield
    finally:
        keeper.leave(visitor)


reader = admitted(holds("reader"))
operator = admitted(holds("operator"))
admin = admitted(holds("admin"))
reader_or_member = admitted(is_reader_or_member)
member = admitted(is_member)
gateway = admitted(is_gateway)
