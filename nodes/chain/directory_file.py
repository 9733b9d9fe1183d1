"""The last known directory in a file, so that a node that restarts while the chain is away goes on.

The file is `HMAC-SHA256(key, body) || body`, body being the members as JSON: whoever can write the
file but doesn't know the node's key can't name members or keys of his own.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import tempfile
from pathlib import Path

import msgspec

from nodes.chain.directory import Member

_MAC = 32
_LABEL = b"countersign/directory-file/1"


class _Kept(msgspec.Struct, frozen=True):
    registry: str
    members: tuple[Member, ...]


class DirectoryFile:
    """Keeps a directory's members. `secret` is any of the node's own secrets (a key is derived)."""

    def __init__(self, path: Path, secret: bytes) -> None:
        self._path = path
        self._key = hmac.digest(secret, _LABEL, "sha256")
        self._last: bytes | None = None

    def load(self, member_registry: str) -> tuple[Member, ...]:
        """The members kept of this registry; empty if there is no file of ours, or of another."""
        try:
            raw = self._path.read_bytes()
        except OSError:
            return ()
        mac, body = raw[:_MAC], raw[_MAC:]
        if not hmac.compare_digest(mac, self._mac(body)):
            return ()
        try:
            kept = msgspec.json.decode(body, type=_Kept)
        except msgspec.MsgspecError:
            return ()
        if kept.registry.lower() != member_registry.lower():
            return ()
        self._last = body
        return kept.members

    def keep(self, member_registry: str, members: tuple[Member, ...]) -> None:
        """Write the members if they differ from what is kept; whole or not at all."""
        body = msgspec.json.encode(_Kept(member_registry, members), order="sorted")
        if body == self._last:
            return
        descriptor, name = tempfile.mkstemp(dir=self._path.parent, prefix=".directory-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(self._mac(body) + body)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self._path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
        self._last = body

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, "sha256")

    def __repr__(self) -> str:
        return f"DirectoryFile({str(self._path)!r})"
