"""The validators whom a judge of seals names: addresses, or a genesis file. Pure.

A genesis (Besu's or geth's) lists the first ones in extraData. Networks vote validators in and out:
then the addresses that were in office at the anchor's block have to be named.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from nodes.anchoring.block_header import HeaderMalformed, clique_signers, qbft_validators

_ADDRESS = re.compile(r"(?:0x)?([0-9a-fA-F]{40})\Z")
_HEX = re.compile(r"0x([0-9a-fA-F]{2})*\Z")


class ValidatorsMalformed(ValueError):
    """The text names no validators; it says where."""


@dataclass(frozen=True, slots=True)
class NamedValidators:
    """Addresses of 20 bytes; the chain's id where a genesis told it."""

    addresses: frozenset[bytes]
    chain_id: int | None = None


def parse_validators(text: str) -> NamedValidators:
    """Addresses in hexadecimal, with commas, blanks or line ends between; or a genesis' JSON.
    ValidatorsMalformed."""
    if text.lstrip().startswith("{"):
        return _of_genesis(text)
    found = set()
    for part in re.split(r"[\s,]+", text.strip()):
        match = _ADDRESS.match(part)
        if not match:
            raise ValidatorsMalformed(f"{part[:50]!r} is no validator's address (0x, 40 digits)")
        found.add(bytes.fromhex(match[1]))
    return NamedValidators(frozenset(found))


def is_listed(text: str) -> bool:
    """Whether what a person gave lists addresses itself; else it is the name of a file."""
    return text.startswith("0x") or "," in text


def _of_genesis(text: str) -> NamedValidators:
    try:
        document: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise ValidatorsMalformed("the genesis is not JSON") from None
    extra = document.get("extraData") or document.get("extradata")
    if not isinstance(extra, str) or not _HEX.match(extra):
        raise ValidatorsMalformed("the genesis has no extraData in hexadecimal")
    raw = bytes.fromhex(extra[2:])
    try:
        found = _listed(raw)
    except HeaderMalformed as error:
        raise ValidatorsMalformed(f"the genesis' extraData lists no validators: {error}") from None
    if not found:
        raise ValidatorsMalformed("the genesis' extraData lists no validators")
    config = document.get("config")
    chain_id = config.get("chainId") if isinstance(config, dict) else None
    return NamedValidators(frozenset(found), chain_id if type(chain_id) is int else None)


def _listed(raw: bytes) -> tuple[bytes, ...]:
    """QBFT's list where it is RLP, else clique's: vanity of zeros is no RLP list."""
    try:
        return qbft_validators(raw)
    except HeaderMalformed:
        return clique_signers(raw)
