"""Settlement statements: who has signed, by which key, and where on the chain that stands. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nodes.chain.typed_data import signer_of

Json = dict[str, Any]

#: The way of a statement that nobody disputes.
WAY = ("PREPARED", "PROPOSED", "CONFIRMED", "FINAL")
#: How far along that way the other states are.
_REACHED = {"DISPUTED": 2, "RESOLVED": 2, "EXPIRED": 1, "LAPSED": 0}


@dataclass(frozen=True)
class Signed:
    """One party's place on a statement. None: not signed, or not known here."""

    member: str
    role: str  # "acquirer" or "issuer"
    signed: bool
    address: str | None = None  # recovered from the signature
    is_operator: bool | None = None  # whether that was the member's operator on the chain
    at: str | None = None
    tx_hash: str | None = None
    block_number: int | None = None


def signatures(item: Json, operators: Mapping[str, Iterable[str]] | None) -> list[Signed]:
    """Both parties of a statement. `operators`: by member, the addresses that the chain has, or
    had, for its operator; None if the chain can't be asked.

    The proposer's signature came to the chain with the proposal, the other's with the
    confirmation.
    """
    steps = {step["state"]: step for step in item["steps"]}
    made = {entry["member"]: entry for entry in item["signatures"]}
    found = []
    for role in ("acquirer", "issuer"):
        member = item[role]
        step = steps.get("PROPOSED" if member == item["proposer"] else "CONFIRMED") or {}
        entry = made.get(member)
        address = None
        if entry is not None:
            address = signer_of(
                bytes.fromhex(item["settlement_id"]), bytes.fromhex(entry["signature"])
            )
        found.append(
            Signed(
                member,
                role,
                signed=item[f"{role}_signed"],
                address=address,
                is_operator=_is_operator(address, operators, member),
                at=step.get("at") or (entry["at"] if entry else None),
                tx_hash=step.get("tx_hash"),
                block_number=step.get("block_number"),
            )
        )
    return found


def _is_operator(
    address: str | None, operators: Mapping[str, Iterable[str]] | None, member: str
) -> bool | None:
    if address is None or operators is None:
        return None
    return address.lower() in {known.lower() for known in operators.get(member, ())}


def reached(item: Json) -> int:
    """How far a statement has come along WAY."""
    if item["state"] in WAY:
        return WAY.index(item["state"])
    if item["state"] == "SUPERSEDED":
        steps = [step["state"] for step in item.get("steps", ())]
        return max((WAY.index(state) for state in steps if state in WAY), default=0)
    return _REACHED[item["state"]]
