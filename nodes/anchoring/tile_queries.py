"""Reads of the log for its tiles."""

from __future__ import annotations

from nodes.anchoring.queries import AnyConnection
from nodes.anchoring.store import driver
from nodes.anchoring.tiles import Tile, entry_bundle


def tile_bytes(connection: AnyConnection, tile: Tile) -> bytes | None:
    """A tile's bytes; None if the log hasn't that many hashes there (yet)."""
    link, end = driver(connection), tile.first + tile.width
    if tile.level is None:
        rows = link.execute(
            "SELECT leaf FROM log_leaves WHERE log_index >= %s AND log_index < %s"
            " ORDER BY log_index",
            (tile.first, end),
        ).fetchall()
    elif tile.level == 0:
        rows = link.execute(
            "SELECT leaf_hash FROM log_leaves WHERE log_index >= %s AND log_index < %s"
            " ORDER BY log_index",
            (tile.first, end),
        ).fetchall()
    else:
        rows = link.execute(
            "SELECT hash FROM log_nodes WHERE level = %s AND node_index >= %s AND node_index < %s"
            " ORDER BY node_index",
            (tile.tree_level, tile.first, end),
        ).fetchall()
    if len(rows) != tile.width:
        return None
    parts = [row[0] for row in rows]
    return entry_bundle(parts) if tile.level is None else b"".join(parts)
