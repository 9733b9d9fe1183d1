"""Reads anchors and keys from the chain into a file of cached roots."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nodes.anchoring.cached_roots import (
    CachedAnchor,
    CachedMember,
    CachedNoteKey,
    CachedPromiseKey,
    CachedRoots,
)
from nodes.anchoring.chain_view import promise_key_use
from nodes.chain.anchors import Anchor, AnchorRegistry
from nodes.chain.challenges import OmissionRegistry
from nodes.chain.client import ChainClient
from nodes.chain.directory import Directory, Member


def read_roots(
    client: ChainClient,
    anchor_registry: str,
    omission_registry: str | None,
    wanted: Mapping[str, Iterable[int]] | None = None,
) -> CachedRoots:
    """Cached roots of some members' anchors (by number), by default of all that are final.

    ValueError for a member that the registry doesn't know. Raises what nodes.chain.errors has.
    """
    registry = AnchorRegistry(client, anchor_registry)
    directory = Directory(client, registry.member_registry())
    directory.refresh()
    block = client.block()
    if wanted is None:
        wanted = {
            member.member_id: range(1, head.seq + 1 if head else 1)
            for member in directory.members()
            for head in [registry.head(member.member_id)]
        }
    members = {}
    for member_id, seqs in wanted.items():
        member = directory.member(member_id)
        if member is None:
            raise ValueError(f"the chain's registry has no member {member_id!r}")
        found = (registry.anchor(member_id, seq) for seq in seqs)
        anchors = [a for a in found if a and client.is_final(a.block_number, a.block_hash)]
        members[member_id] = _member(client, directory.member_registry, member, anchors)
    delay = (
        OmissionRegistry(client, omission_registry).max_merge_delay_s() if omission_registry else 0
    )
    return CachedRoots(
        chain_id=client.chain_id(),
        anchor_registry=registry.address.lower(),
        omission_registry=omission_registry.lower() if omission_registry else None,
        max_merge_delay_s=delay,
        block_number=block.number,
        taken_s=block.timestamp,
        members=members,
        predecessors=tuple(address.lower() for address in registry.predecessors()),
    )


def _member(
    client: ChainClient, member_registry: str, member: Member, anchors: list[Anchor]
) -> CachedMember:
    uses = [
        promise_key_use(client, member_registry, member.member_id, period.key)
        for period in member.promise_keys
    ]
    return CachedMember(
        note_keys=tuple(CachedNoteKey(p.key, p.first, p.last) for p in member.note_keys),
        promise_keys=tuple(CachedPromiseKey(u.key, u.since, u.until) for u in uses if u),
        anchors=tuple(
            CachedAnchor(
                seq=anchor.seq,
                size=anchor.size,
                root=anchor.root,
                meta_hash=anchor.meta_hash,
                block_number=anchor.block_number,
                block_hash=anchor.block_hash,
                tx_hash=anchor.tx_hash,
                timestamp=anchor.timestamp,
            )
            for anchor in anchors
        ),
    )
