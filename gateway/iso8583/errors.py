"""Why a message can't be read. No error here carries a value of the message, only where it failed.

(`pyiso8583`'s DecodeError carries the clear PAN in `doc_dec`; one of the reasons why the codec is
this project's own.)
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Flaw(StrEnum):
    """What is wrong; also a metric's label."""

    TRUNCATED = "truncated"
    MTI = "mti"
    BITMAP = "bitmap"
    LENGTH = "length"
    CHARSET = "charset"
    PADDING = "padding"
    TRAILING = "trailing"


class FormatError(ValueError):
    """The bytes are no message of this spec.

    `mti` and `echo` (elements 7, 11, 37, 41 and 42 as far as they could be read) are what an
    answer needs; card data is never among them. `element` is where reading failed, 0 before the
    elements.
    """

    def __init__(
        self,
        flaw: Flaw,
        element: int,
        mti: str | None = None,
        echo: Mapping[int, str] | None = None,
    ) -> None:
        super().__init__(f"{flaw.value} in element {element}")
        self.flaw = flaw
        self.element = element
        self.mti = mti
        self.echo: Mapping[int, str] = echo or {}

    @property
    def answerable(self) -> bool:
        """Whether an answer can find its way: MTI, trace number and terminal are known."""
        return self.mti is not None and 11 in self.echo and 41 in self.echo
