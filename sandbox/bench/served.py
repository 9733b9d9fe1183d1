"""A node for the benchmark of one part of its API: without what that part doesn't ask for."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Engine

from nodes.clock import SystemClock
from nodes.crypto.emv import SoftwareEmvHsm
from nodes.crypto.hsm import SoftwareHsm
from nodes.crypto.keystore import Keystore
from nodes.crypto.pan import PanVault
from nodes.settings import NodeSettings


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
