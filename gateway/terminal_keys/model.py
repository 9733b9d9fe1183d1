"""What the gateway knows of a terminal."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.iso8583.spec import Suite


@dataclass(frozen=True, slots=True)
class TerminalRecord:
    """A terminal that may speak to this gateway.

    `static_keys`: whether the keys of epoch 0, which follow from the terminal master key alone,
    are accepted for financial messages (sandbox and tests).
    """

    terminal_id: str  # DE41
    merchant_id: str  # DE42
    suite: Suite = Suite.SM
    static_keys: bool = False
