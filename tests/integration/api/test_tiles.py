"""The log as a stock reader of tlog-tiles sees it: every tile, and nothing that isn't there."""

from __future__ import annotations

import hashlib

import httpx

from nodes.anchoring.checkpoint import parse_checkpoint
from nodes.anchoring.note import parse_note, signature_holds
from nodes.anchoring.tiles import WIDTH, Tile, tiles_of
from tests.factories.evidence import LogMember
from tests.factories.ledger import LedgerFactory
from tests.factories.logs import tree_hash
from tests.integration.api.served_log import served


def split(raw: bytes) -> list[bytes]:
    """The hashes of a tile."""
    assert len(raw) % 32 == 0
    return [raw[start : start + 32] for start in range(0, len(raw), 32)]


def entries_of(raw: bytes) -> list[bytes]:
    """The leaves of an entry bundle, read strictly."""
    found = []
    while raw:
        length = int.from_bytes(raw[:2], "big")
        assert len(raw) >= 2 + length
        found.append(raw[2 : 2 + length])
        raw = raw[2 + length :]
    return found


def fetch(client: httpx.Client, tile: Tile) -> bytes:
    answer = client.get(f"/{tile.path}")
    assert answer.status_code == 200, (tile.path, answer.text)
    assert answer.headers["content-type"] == "application/octet-stream"
    return answer.content


def test_the_whole_log_is_read_from_its_tiles(member: LogMember) -> None:
    LedgerFactory(member.database.engine, "acquirer").add(600)
    while member.seal(250):
        pass
    member.settle()
    with served(member) as node, node.http(None) as public, node.http("reader") as reader:
        note = public.get("/checkpoint").text
        assert signature_holds(parse_note(note), member.signer.public_key)
        checkpoint = parse_checkpoint(parse_note(note).text)
        assert checkpoint.size == 600
        levels: dict[int | None, list[bytes]] = {}
        for tile in tiles_of(checkpoint.size):
            raw = fetch(reader if tile.level is None else public, tile)
            levels.setdefault(tile.level, []).extend(
                entries_of(raw) if tile.level is None else split(raw)
            )
    leaves, hashes = levels[None], levels[0]
    assert len(leaves) == len(hashes) == 600
    assert [hashlib.sha256(b"\0" + leaf).digest() for leaf in leaves] == hashes
    assert levels[1] == [tree_hash(hashes[start : start + WIDTH]) for start in (0, 256)]
    assert tree_hash(hashes) == checkpoint.root


def test_partial_tiles_of_any_width_up_to_the_log_are_there(member: LogMember) -> None:
    LedgerFactory(member.database.engine, "acquirer").add(5)
    member.anchor_all()
    with served(member) as node, node.http(None) as public:
        whole = fetch(public, Tile(0, 0, 5))
        for width in range(1, 6):
            assert fetch(public, Tile(0, 0, width)) == whole[: 32 * width]
        assert "immutable" in public.get("/tile/0/000.p/5").headers["cache-control"]
        for path in ("/tile/0/000", "/tile/0/000.p/6", "/tile/0/001.p/1", "/tile/1/000.p/1"):
            missing = public.get(path)
            assert missing.status_code == 404, path
            assert missing.headers["content-type"] == "application/problem+json"
        for path in ("/tile/0/0", "/tile/00/000", "/tile/0/x000/000", "/tile/9/000"):
            assert public.get(path).status_code == 404, path


def test_entries_are_for_keys_and_members_alone(member: LogMember) -> None:
    LedgerFactory(member.database.engine, "acquirer").add(1)
    member.anchor_all()
    with served(member) as node, node.http(None) as public:
        assert public.get("/tile/entries/000.p/1").status_code == 401
        assert public.get("/tile/0/000.p/1").status_code == 200


def test_there_is_no_checkpoint_before_the_first_anchor(member: LogMember) -> None:
    with served(member) as node, node.http(None) as public:
        assert public.get("/checkpoint").status_code == 404


def test_the_page_is_served_with_its_policy(member: LogMember) -> None:
    with served(member) as node, node.http(None) as public:
        for path in ("/verify", "/r"):
            page = public.get(path)
            assert page.status_code == 200
            assert page.headers["content-type"] == "text/html; charset=utf-8"
            policy = page.headers["content-security-policy"]
            assert "script-src 'sha256-" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
