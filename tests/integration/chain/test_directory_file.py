"""A node that restarts while the chain is away still knows the members, and only those it knew."""

from __future__ import annotations

from pathlib import Path

from nodes.chain.directory import Directory
from nodes.chain.directory_file import DirectoryFile
from tests.factories.chain import ChainFixture
from tests.integration.chain.test_directory import new_id

SECRET = b"\x07" * 32


def test_what_was_kept_is_known_again_without_the_chain(evm: ChainFixture, tmp_path: Path) -> None:
    issuer = new_id()
    operator = evm.add_member(issuer, roles=["issuer"], bins=["512345"])
    read = Directory(evm.client(), evm.member_registry)
    read.refresh()
    path = tmp_path / "aurora.directory"
    DirectoryFile(path, SECRET).keep(evm.member_registry, read.members())

    restarted = Directory(evm.client(), evm.member_registry)
    restarted.restore(DirectoryFile(path, SECRET).load(evm.member_registry))
    assert restarted.member(issuer) == read.member(issuer)
    assert restarted.issuer_for("5123450000000000") == read.member(issuer)
    assert restarted.by_operator(operator.address) == read.member(issuer)
    assert restarted.block is None


def test_an_altered_a_foreign_and_another_registrys_file_are_not_believed(
    evm: ChainFixture, tmp_path: Path
) -> None:
    evm.add_member(new_id(), roles=["merchant"])
    read = Directory(evm.client(), evm.member_registry)
    read.refresh()
    path = tmp_path / "aurora.directory"
    DirectoryFile(path, SECRET).keep(evm.member_registry, read.members())
    assert DirectoryFile(path, SECRET).load(evm.member_registry) == read.members()
    assert DirectoryFile(path, b"\x08" * 32).load(evm.member_registry) == ()
    assert DirectoryFile(path, SECRET).load("0x" + "11" * 20) == ()
    altered = bytearray(path.read_bytes())
    altered[-20] ^= 1
    path.write_bytes(bytes(altered))
    assert DirectoryFile(path, SECRET).load(evm.member_registry) == ()
    assert DirectoryFile(tmp_path / "none", SECRET).load(evm.member_registry) == ()


def test_the_file_is_written_only_when_members_changed(evm: ChainFixture, tmp_path: Path) -> None:
    evm.add_member(new_id(), roles=["merchant"])
    read = Directory(evm.client(), evm.member_registry)
    read.refresh()
    path = tmp_path / "aurora.directory"
    file = DirectoryFile(path, SECRET)
    file.keep(evm.member_registry, read.members())
    before = path.stat().st_mtime_ns, path.stat().st_ino
    file.keep(evm.member_registry, read.members())
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before
    assert list(tmp_path.iterdir()) == [path]
