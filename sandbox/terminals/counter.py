"""A terminal with all that stands around it at a counter: till, batch, offline desk, shop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from sandbox.terminal import Terminal
from sandbox.terminals.batch import TerminalBatch
from sandbox.terminals.offline_desk import OfflineDesk
from sandbox.terminals.shop import Shop
from sandbox.terminals.surroundings import Surroundings
from sandbox.terminals.till import Exchange, Till


@dataclass
class Counter:
    """One terminal at work. `last`: its last payment; `order`: the code that it shows."""

    terminal: Terminal
    till: Till
    batch: TerminalBatch
    desk: OfflineDesk
    shop: Shop
    last: Exchange | None = None
    order: Exchange | None = None

    @classmethod
    def at(cls, surroundings: Surroundings, terminal: Terminal) -> Self:
        """What a terminal begins with: an empty batch, no records, no order."""
        return cls(
            terminal,
            Till(terminal),
            TerminalBatch(terminal),
            OfflineDesk(terminal),
            Shop(surroundings, terminal),
        )
