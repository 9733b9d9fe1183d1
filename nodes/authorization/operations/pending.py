"""A request under way at the acquirer: its key, what is kept of it between the two commits, its
reversal, and the exact answer.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable
from datetime import date
from functools import lru_cache
from typing import Any

import msgspec

from nodes import ids
from nodes.authorization.model import (
    AuthorizationAnswer,
    AuthorizationRequest,
    Kind,
    Outcome,
    TerminalAnswer,
    TerminalRequest,
)
from nodes.authorization.store.refusals import Refusal, unanswered_request

#: What is kept is positional (half the bytes): new fields of AuthorizationRequest go to its end.
_FIELDS = AuthorizationRequest.__struct_fields__
_ENCODER = msgspec.msgpack.Encoder()
_TOLD = msgspec.json.Encoder()
_TOLD_DECODER = msgspec.json.Decoder(TerminalAnswer)
#: Why a request is reversed whose terminal was told that the issuer can't be reached.
_NO_ANSWER = frozenset(
    {"issuer unavailable", "approved after the deadline", "left open by a crash"}
)


#: The class of the keys of approvals in an issuer's place (standing_in).
STAND_IN = "stand-in"


class Pending(msgspec.Struct, frozen=True):
    """What the acquirer keeps of a request while it is under way: no PAN, no PIN block."""

    request: AuthorizationRequest
    pan_masked: str
    merchant_account: int
    #: Of a follow-up: what it names, and for how much that was approved (asked, in a reversal).
    original_kind: Kind | None = None
    original_amount: int = 0
    #: Of a reversal: the request that it reverses.
    original: Pending | None = None

    def __repr__(self) -> str:
        return f"Pending({self.request!r})"


class OpenBatch:
    """A row of open_batches while answers are awaited in this process. Shared between threads."""

    __slots__ = ("_lock", "number", "waiting")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.number: int | None = None
        #: Requests whose answers aren't committed yet.
        self.waiting = 0

    def opened(self, number: int | None, waiting: int) -> None:
        """It stands in the database under this number; None: all is answered in one commit."""
        self.number, self.waiting = number, waiting

    def closed(self, count: int) -> bool:
        """So many answers are committed; True if they were the last."""
        with self._lock:
            self.waiting -= count
            return self.waiting == 0


class Forward(msgspec.Struct, frozen=True):
    """A request for its issuer; `request` carries PAN and PIN block, `pending` doesn't."""

    key: bytes
    business_date: date
    request: AuthorizationRequest
    pending: Pending
    #: None: a repeat of what was opened before, perhaps by another process.
    open_batch: OpenBatch | None

    def __repr__(self) -> str:
        return f"Forward({self.request!r})"


class Closing(msgspec.Struct, frozen=True):
    """A forwarded request and the issuer's answer; None: none came in time."""

    forward: Forward
    answer: AuthorizationAnswer | None

    @property
    def pending(self) -> Pending:
        """What is kept of the request."""
        return self.forward.pending


def encode_pending(pending: Pending) -> bytes:
    """As it stands in authorization_requests.request and reversal_queue.request."""
    return _ENCODER.encode(_plain(pending))


def decode_pending(kept: bytes) -> Pending:
    """What encode_pending made these bytes of."""
    return _pending(msgspec.msgpack.decode(kept))


def _plain(pending: Pending) -> tuple[Any, ...]:
    return (
        msgspec.structs.astuple(pending.request),
        pending.pan_masked,
        pending.merchant_account,
        pending.original_kind,
        pending.original_amount,
        None if pending.original is None else _plain(pending.original),
    )


def _pending(plain: list[Any]) -> Pending:
    values, pan_masked, merchant_account, original_kind, original_amount, original = plain
    fields = dict(zip(_FIELDS, values))  # noqa: B905 (kept before a field was added: shorter)
    fields["kind"] = Kind(fields["kind"])
    return Pending(
        AuthorizationRequest(**fields),
        pan_masked,
        merchant_account,
        None if original_kind is None else Kind(original_kind),
        original_amount,
        None if original is None else _pending(original),
    )


def reversal_of(
    original: Pending, *, terminal_seq: int, amount: int, now_ms: int, deadline_ms: int
) -> Pending:
    """The reversal of a request, with a txid of its own; the terminal's identifiers stay."""
    asked = original.request
    network_ref = ids.new_network_ref()
    made = msgspec.structs.replace(
        asked,
        txid=ids.txid(asked.acquirer, asked.issuer, network_ref),
        network_ref=network_ref,
        kind=Kind.REVERSAL,
        amount=amount,
        pan=None,
        pin_block=None,
        expiry=None,
        service_code=None,
        terminal_seq=terminal_seq,
        transmitted_ms=now_ms,
        salt_fin=secrets.token_bytes(32),
        salt_pii=secrets.token_bytes(32),
        original_txid=asked.txid,
        partial_ok=False,
        final=False,
        deadline_ms=deadline_ms,
        advice=False,
        offline=None,
    )
    return Pending(
        made, original.pan_masked, original.merchant_account, asked.kind, asked.amount, original
    )


def unanswered(
    acquirer: str, reversed_ones: Iterable[tuple[Pending, str, int | None]], now_ms: int
) -> list[Refusal]:
    """What terminals were told of requests that are reversed, whole, with a reason each.

    An amount (third) is of a batch close: that payment stands in part, or was never in doubt.
    """
    return [
        unanswered_request(
            key_of_class(acquirer, pending.request, "request"),
            pending.request,
            Outcome.ISSUER_UNAVAILABLE if reason in _NO_ANSWER else Outcome.SYSTEM_ERROR,
            pending.pan_masked,
            now_ms,
        )
        for pending, reason, amount in reversed_ones
        if amount is None
    ]


@lru_cache(maxsize=64)
def date_of(text: str) -> date:
    """A business date, YYYY-MM-DD."""
    return date.fromisoformat(text)


def card_of(request: TerminalRequest) -> str:
    """What of the card waits, sealed, with an advice: its number, and what its chip said."""
    if request.icc is None:
        return request.pan
    return f"{request.pan}/{request.card_sequence or ''}/{request.icc.hex()}"


def with_card(request: AuthorizationRequest, kept: str) -> AuthorizationRequest:
    """A kept request with what card_of has made a text of."""
    if "/" not in kept:
        return msgspec.structs.replace(request, pan=kept)
    pan, _, rest = kept.partition("/")
    sequence, _, icc = rest.rpartition("/")
    return msgspec.structs.replace(
        request, pan=pan, card_sequence=sequence or None, icc=bytes.fromhex(icc)
    )


def encode_told(answer: TerminalAnswer) -> bytes:
    """The exact answer, as it is stored and repeated."""
    return _TOLD.encode(answer)


def decode_told(answer: bytes) -> TerminalAnswer:
    """A stored answer."""
    return _TOLD_DECODER.decode(answer)


def terminal_key(acquirer: str, request: TerminalRequest) -> bytes:
    """The idempotency key of a terminal's message."""
    return key_of_class(
        acquirer, request, "reversal" if request.kind is Kind.REVERSAL else "request"
    )


def key_of_class(
    acquirer: str, request: TerminalRequest | AuthorizationRequest, message_class: str
) -> bytes:
    """The idempotency key of a terminal's message in a class: "request", "reversal" or STAND_IN."""
    return ids.idempotency_key(
        acquirer,
        request.terminal_id,
        request.business_date,
        request.batch,
        request.stan,
        message_class,
    )
