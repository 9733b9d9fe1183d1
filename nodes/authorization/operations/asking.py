"""A well-formed request as the issuer takes it up: its keys, fingerprint and card look-up."""

from __future__ import annotations

import hashlib
from datetime import date
from functools import lru_cache

import msgspec

from nodes import ids
from nodes.authorization.model import AuthorizationRequest, Kind
from nodes.crypto.pan import PanVault


class Asked(msgspec.Struct, frozen=True):
    """A well-formed request with what is derived from it once."""

    request: AuthorizationRequest
    key: bytes
    fingerprint: bytes
    lookup: bytes | None
    business_date: date

    def __repr__(self) -> str:
        return f"Asked({self.request!r})"


def prepare(request: AuthorizationRequest, vault: PanVault) -> Asked:
    """Key, fingerprint and look-up value of a well-formed request."""
    lookup = vault.lookup(request.pan) if request.pan is not None else None
    return Asked(
        request,
        key_of(request),
        fingerprint_of(request, lookup),
        lookup,
        _date(request.business_date),
    )


@lru_cache(maxsize=64)
def _date(text: str) -> date:
    return date.fromisoformat(text)


def key_of(request: AuthorizationRequest) -> bytes:
    """The idempotency key: the same at acquirer and issuer."""
    return _key(request, "reversal" if request.kind is Kind.REVERSAL else "request")


def original_key_of(reversal: AuthorizationRequest) -> bytes:
    """The key of what a reversal reverses: it has its identifiers (ISO 8583, DE90)."""
    return _key(reversal, "request")


def _key(request: AuthorizationRequest, message_class: str) -> bytes:
    return ids.idempotency_key(
        request.acquirer,
        request.terminal_id,
        request.business_date,
        request.batch,
        request.stan,
        message_class,
    )


def fingerprint_of(request: AuthorizationRequest, lookup: bytes | None) -> bytes:
    """SHA-256 over what makes the content; the card number enters by its keyed look-up value."""
    content: tuple[object, ...] = (
        request.txid,
        request.kind.value,
        request.amount,
        request.currency,
        lookup or b"",
        request.merchant_id,
        request.original_txid or b"",
        request.transmitted_ms,
        request.salt_fin,
        request.partial_ok,
        request.final,
    )
    if request.offline is not None or request.advice:
        content = (*content, request.advice, request.offline)
    return hashlib.sha256(_ENCODE(content)).digest()


_ENCODE = msgspec.msgpack.Encoder().encode
