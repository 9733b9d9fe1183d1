"""What can go wrong between a node and its chain."""

from __future__ import annotations

from collections.abc import Mapping


class ChainError(Exception):
    """The base of this package's errors."""


class ChainUnavailable(ChainError):
    """The RPC server can't be reached, doesn't answer in time or answers nonsense.

    Whether a transaction that was being sent has arrived is unknown: look it up by its hash.
    """


class ChainRefused(ChainError):
    """The RPC server answered that it won't do what was asked; `message` is its own text."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class ChainReverted(ChainError):
    """A contract refused. `reason` is the name of its error, e.g. "WrongSequence"."""

    def __init__(self, reason: str, arguments: Mapping[str, object] | None = None) -> None:
        self.reason = reason
        self.arguments = dict(arguments or {})
        listed = ", ".join(f"{name}={_plain(value)}" for name, value in self.arguments.items())
        super().__init__(f"{reason}({listed})")


class WrongChain(ChainError):
    """There is no such contract on this chain: it was wiped, or the address is another chain's."""


def _plain(value: object) -> str:
    return "0x" + value.hex() if isinstance(value, bytes) else str(value)
