"""The log for stock readers: `/checkpoint` and `/tile/...` as C2SP tlog-tiles has them.

Checkpoint and hash tiles are for anybody: hashes over salted commitments say nothing. The entries
name pairs and terminals with their counters, so they are for API keys and members.
"""

from __future__ import annotations

from fastapi import APIRouter, Depends
from starlette.responses import Response

from nodes.anchoring import queries as anchoring
from nodes.anchoring.tile_queries import tile_bytes
from nodes.anchoring.tiles import WIDTH, TilePathInvalid, parse_tile
from nodes.api.auth import anybody, reader_or_member
from nodes.api.dependencies import TheNode
from nodes.api.node import ApiNode
from nodes.api.problems import Problem
from nodes.api.reads import snapshot

router = APIRouter(tags=["log"])

_OCTETS = {
    200: {
        "description": "The tile",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
#: A tile never changes.
_FOR_EVER = "public, max-age=31536000, immutable"


@router.get(
    "/checkpoint",
    dependencies=[Depends(anybody)],
    response_class=Response,
    responses={
        200: {
            "description": "C2SP signed note",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        }
    },
)
def get_tlog_checkpoint(node: TheNode) -> Response:
    """The signed checkpoint of the newest batch whose anchor is final."""
    with snapshot(node.engine) as connection:
        note = anchoring.latest_checkpoint(connection)
    if note is None:
        raise Problem(404, "nothing-anchored", "Nothing is anchored yet.")
    return Response(note, media_type="text/plain; charset=utf-8")


@router.get(
    "/tile/entries/{place:path}",
    dependencies=[Depends(reader_or_member)],
    response_class=Response,
    responses=_OCTETS,  # type: ignore[arg-type]
)
def get_entry_bundle(node: TheNode, place: str) -> Response:
    """Leaves, 256 a bundle, each after its length in two bytes."""
    return _tile(node, "entries", place, "private, no-store")


@router.get(
    "/tile/{level}/{place:path}",
    dependencies=[Depends(anybody)],
    response_class=Response,
    responses=_OCTETS,  # type: ignore[arg-type]
)
def get_hash_tile(node: TheNode, level: str, place: str) -> Response:
    """Subtree hashes, 256 a tile; at the right edge the first W of them (`.p/W`)."""
    return _tile(node, level, place, _FOR_EVER)


def _tile(node: ApiNode, kind: str, place: str, caching: str) -> Response:
    try:
        tile = parse_tile(kind, place)
    except TilePathInvalid as error:
        raise Problem(404, "tile-unknown", f"No such tile: {error}.") from None
    with snapshot(node.engine) as connection:
        found = tile_bytes(connection, tile)
    if found is None:
        raise Problem(404, "tile-unknown", f"The log has no {min(tile.width, WIDTH)} hashes there.")
    return Response(
        found, media_type="application/octet-stream", headers={"Cache-Control": caching}
    )
