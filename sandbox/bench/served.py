"""A node for the benchmark of one part of its API: without what that part doesn't ask for."""

from __future__ import annotations

import secrets
import socket
import time
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Engine

from nodes.clock import SystemClock
from nodes.crypto.emv import SoftwareEmvHsm
from nodes.crypto.hsm import SoftwareHsm
from nodes.crypto.keystore import Keystore
from nodes.crypto.pan import PanVault
from nodes.settings import NodeSettings

#: A process on a busy machine takes its time to import what it needs.
_LISTENS_WITHIN_S = 120.0


def wait_listening(port: int) -> None:
    """Until a process of ours listens on a port; TimeoutError if it doesn't in time."""
    deadline = time.monotonic() + _LISTENS_WITHIN_S
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise TimeoutError(f"nobody listens on port {port} after {_LISTENS_WITHIN_S:.0f} s")


@dataclass
class ServedNode:
    """What the API asks of a node. Its HSMs and vault have keys of their own, and no card."""

    settings: NodeSettings
    engine: Engine
    keystore: Keystore
    directory: Any = None
    chain: Any = None
    authorizer: Any = None
    clock: SystemClock = field(default_factory=SystemClock)

    def make_hsm(self) -> SoftwareHsm:
        """A module without keys: whoever asks it for one hears so."""
        return SoftwareHsm({})

    def make_emv_hsm(self) -> SoftwareEmvHsm:
        """The same for chips."""
        return SoftwareEmvHsm({})

    def make_vault(self) -> PanVault:
        """A vault in which nothing is."""
        return PanVault(secrets.token_bytes(32), secrets.token_bytes(32))
