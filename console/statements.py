"""Settlement statements: who has signed, by which key, and where on the chain that stands. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nodes.chain.directory import Member
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
    address: str | None = None  # of its key
    is_operator: bool | None = None  # whether that was the member's operator on the chain
    at: str | None = None
    tx_hash: str | None = None
    block_number: int | None = None


def signatures(item: Json, members: Mapping[str, Member] | None) -> list[Signed]:
    """Both parties of a statement. `members`: as the chain has them; None if it can't be asked.

    The proposer's signature came to the chain with the proposal, the other's with the
    confirmation. A signature that this node has is judged here; of the other institution's the
    contract took only one by its operator of that block.
    """
    steps = {step["state"]: step for step in item["steps"]}
    made = {entry["member"]: entry for entry in item["signatures"]}
    found = []
    for role in ("acquirer", "issuer"):
        name = item[role]
        step = steps.get("PROPOSED" if name == item["proposer"] else "CONFIRMED") or {}
        entry, member = made.get(name), members.get(name) if members else None
        block = step.get("block_number")
        address: str | None = None
        is_operator: bool | None = None
        if entry is not None:
            address = signer_of(
                bytes.fromhex(item["settlement_id"]), bytes.fromhex(entry["signature"])
            )
            if member is not None:
                is_operator = address is not None and address in _operators(member, block)
        elif member is not None and block is not None:
            address = member.operator_at(block)
            is_operator = True if address else None
        found.append(
            Signed(
                name,
                role,
                signed=item[f"{role}_signed"],
                address=address,
                is_operator=is_operator,
                at=step.get("at") or (entry["at"] if entry else None),
                tx_hash=step.get("tx_hash"),
                block_number=block,
            )
        )
    return found


def _operators(member: Member, block: int | None) -> set[str | None]:
    """The operator at a block; before the signature is on the chain the one in use."""
    return {member.operator if block is None else member.operator_at(block)}


def reached(item: Json) -> int:
    """How far a statement has come along WAY."""
    if item["state"] in WAY:
        return WAY.index(item["state"])
    if item["state"] == "SUPERSEDED":
        steps = [step["state"] for step in item.get("steps", ())]
        return max((WAY.index(state) for state in steps if state in WAY), default=0)
    return _REACHED[item["state"]]
