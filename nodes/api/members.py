"""`/v1/members` and `/v1/info`: the network's directory, and this node in it."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import APIRouter, Depends, Request

from nodes.api.auth import reader_or_member
from nodes.api.dependencies import Cursor, Limit, TheNode
from nodes.api.reads import cursor_of, number_of_cursor
from nodes.api.schemas import Info, MemberItem, Page

router = APIRouter(prefix="/v1", tags=["network"])


@router.get("/members", dependencies=[Depends(reader_or_member)])
def list_members(node: TheNode, limit: Limit = 200, cursor: Cursor = None) -> Page[MemberItem]:
    """Members in the order of their registration, as of the node's last look at the
    MemberRegistry; revoked ones too."""
    # The registry only grows at its end, so a place in it is a key.
    first = number_of_cursor(cursor) or 0
    members = node.directory.members()
    last = first + limit
    return Page(
        items=[
            MemberItem(
                member_id=member.member_id,
                name=member.name,
                roles=sorted(member.roles),
                api_url=member.api_url,
                bins=list(member.bins),
                operator=member.operator,
                note_key=member.note_key.hex(),
                message_key=member.message_key.hex(),
                active=member.active,
            )
            for member in members[first:last]
        ],
        next=cursor_of(last) if last < len(members) else None,
    )


@router.get("/info", dependencies=[Depends(reader_or_member)])
def get_info(node: TheNode, request: Request) -> Info:
    """Who this node is and which chain it belongs to. `chain_id`: null while that is unknown."""
    settings = node.settings
    own = node.directory.member(settings.member_id)
    return Info(
        member_id=settings.member_id,
        name=own.name if own else None,
        roles=list(settings.roles),
        chain_id=request.app.state.chain_id(),
        anchor_registry=settings.anchor_registry,
        member_registry=settings.member_registry,
        note_key=_public(node.keystore.secret("note")),
        message_key=_public(node.keystore.secret("message")),
    )


def _public(seed: bytes) -> str:
    key = Ed25519PrivateKey.from_private_bytes(seed).public_key()
    return key.public_bytes_raw().hex()
