"""The options --validators and --chain-id: proofs judged by their blocks' seals, with no node."""

from __future__ import annotations

from pathlib import Path

from nodes.anchoring.cached_roots import CachedRoots
from nodes.anchoring.validators import NamedValidators, is_listed, parse_validators
from nodes.anchoring.verifier import SealTrust

VALIDATORS_HELP = (
    "The chain's validators: addresses with commas between, or a file with them or the genesis."
    " The proof is judged by its block's seals; no node is asked without --rpc."
)


def named_validators(text: str) -> NamedValidators | None:
    """What --validators says, itself or in the file that it names; None if it isn't given.
    ValidatorsMalformed, OSError."""
    if not text:
        return None
    whole = text if is_listed(text) else Path(text).read_text(encoding="utf-8")
    return parse_validators(whole)


def trust_of_roots(named: NamedValidators, cached: CachedRoots) -> SealTrust:
    """Validators, with chain, contract and note keys from cached roots; no anchor of theirs."""
    keys = {member_id: member.note_keys for member_id, member in cached.members.items()}
    line = cached.predecessors
    return SealTrust(cached.chain_id, cached.anchor_registry, named.addresses, keys, line)
