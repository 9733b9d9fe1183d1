"""The log in the layout of C2SP tlog-tiles (c2sp.org/tlog-tiles): paths and bytes. Pure.

A hash tile `tile/<L>/<N>` holds the 256 subtree hashes at level 8 L from index 256 N on, an entry
bundle `tile/entries/<N>` the 256 leaves from 256 N on, each after its length in two bytes. At the
right edge they are partial: `.p/<W>` with the first W of them. N is written in groups of three
digits, all but the last with an x before: 1234067 is x001/x234/067. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

WIDTH = 256
_HEIGHT = 8
#: Levels that a log of 2**62 leaves can have.
_MAX_LEVEL = 7
_LEVEL = re.compile(r"(0|[1-9][0-9]?)\Z")
_PLACE = re.compile(r"((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?\Z")


class TilePathInvalid(ValueError):
    """The path names no tile."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile or an entry bundle (level None); `width` of its WIDTH places are wanted."""

    level: int | None
    index: int
    width: int = WIDTH

    @property
    def first(self) -> int:
        """The first subtree's index at the tree's own level."""
        return self.index * WIDTH

    @property
    def tree_level(self) -> int:
        """The level in the tree (0: leaves)."""
        return _HEIGHT * (self.level or 0)

    @property
    def path(self) -> str:
        """The path below the log's prefix."""
        groups = [f"{self.index % 1000:03}"]
        rest = self.index // 1000
        while rest:
            groups.append(f"x{rest % 1000:03}")
            rest //= 1000
        kind = "entries" if self.level is None else str(self.level)
        partial = "" if self.width == WIDTH else f".p/{self.width}"
        return f"tile/{kind}/{'/'.join(reversed(groups))}{partial}"


def parse_tile(kind: str, place: str) -> Tile:
    """The tile of `tile/<kind>/<place>`; TilePathInvalid unless its path is exactly that."""
    level: int | None = None
    if kind != "entries":
        if not _LEVEL.match(kind) or int(kind) > _MAX_LEVEL:
            raise TilePathInvalid("a level is a number from 0 to 7")
        level = int(kind)
    found = _PLACE.match(place)
    if not found:
        raise TilePathInvalid("an index is written as x001/x234/067, a width as .p/8")
    index = int(re.sub(r"[x/]", "", found[1]))
    tile = Tile(level, index, int(found[2]) if found[2] else WIDTH)
    if tile.path != f"tile/{kind}/{place}":
        raise TilePathInvalid("the path is not written in the one canonical way")
    return tile


def entry_bundle(leaves: Iterable[bytes]) -> bytes:
    """The bytes of an entry bundle."""
    return b"".join(len(leaf).to_bytes(2, "big") + leaf for leaf in leaves)


def tiles_of(size: int) -> list[Tile]:
    """All hash tiles and entry bundles of a log of `size` leaves, partial ones included."""
    tiles: list[Tile] = []
    level, count = 0, size
    while count:
        full, rest = divmod(count, WIDTH)
        here = [Tile(level, index) for index in range(full)]
        if rest:
            here.append(Tile(level, full, rest))
        tiles += here
        if level == 0:
            tiles += [Tile(None, tile.index, tile.width) for tile in here]
        level, count = level + 1, full
    return tiles
