"""The names of tiles, as c2sp.org/tlog-tiles writes them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.anchoring.tiles import Tile, TilePathInvalid, entry_bundle, parse_tile, tiles_of


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 1234067), "tile/0/x001/x234/067"),
        (Tile(0, 0), "tile/0/000"),
        (Tile(1, 999, 8), "tile/1/999.p/8"),
        (Tile(2, 1000, 255), "tile/2/x001/000.p/255"),
        (Tile(None, 5), "tile/entries/005"),
        (Tile(None, 70_000, 1), "tile/entries/x070/000.p/1"),
    ],
)
def test_a_tile_has_the_name_that_the_specification_gives(tile: Tile, path: str) -> None:
    assert tile.path == path
    kind, _, place = path.removeprefix("tile/").partition("/")
    assert parse_tile(kind, place) == tile


@given(st.one_of(st.none(), st.integers(0, 7)), st.integers(0, 10**21 - 1), st.integers(1, 256))
def test_names_are_read_as_they_are_written(level: int | None, index: int, width: int) -> None:
    tile = Tile(level, index, width)
    kind, _, place = tile.path.removeprefix("tile/").partition("/")
    assert parse_tile(kind, place) == tile


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("8", "000"),
        ("00", "000"),
        ("-1", "000"),
        ("entry", "000"),
        ("0", "0"),
        ("0", "1000"),
        ("0", "x000/000"),
        ("0", "001/000"),
        ("0", "x001"),
        ("0", "000.p/0"),
        ("0", "000.p/256"),
        ("0", "000.p/08"),
        ("0", "000.p/"),
        ("0", "000/"),
        ("0", ""),
        ("0", "000\n"),
        ("0", "٠٠٠"),
        ("0", "x001/" * 8 + "000"),
    ],
)
def test_other_names_are_no_tiles(kind: str, place: str) -> None:
    with pytest.raises(TilePathInvalid):
        parse_tile(kind, place)


def test_entries_are_written_with_their_lengths() -> None:
    assert entry_bundle([b"ab", b"", bytes(320)]) == b"\0\2ab" + b"\0\0" + b"\x01\x40" + bytes(320)


def test_a_log_has_the_tiles_of_its_size() -> None:
    assert tiles_of(0) == []
    assert tiles_of(1) == [Tile(0, 0, 1), Tile(None, 0, 1)]
    assert tiles_of(256) == [Tile(0, 0), Tile(None, 0), Tile(1, 0, 1)]
    names = [tile.path for tile in tiles_of(70_000)]
    assert "tile/0/273.p/112" in names
    assert "tile/1/001.p/17" in names
    assert "tile/2/000.p/1" in names
    assert len(names) == 2 * 274 + 2 + 1
