"""What a check of a ledger finds: a table, a row, a column, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Change(StrEnum):
    """What was done to a row."""

    ALTERED = "altered"
    MISSING = "missing"
    INSERTED = "inserted"


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference between a database and what its owner has anchored.

    `key` names the row by its primary key, e.g. {"log_index": 5}. `column` is None where the whole
    row is concerned.
    """

    table: str
    key: tuple[tuple[str, object], ...]
    change: Change
    column: str | None = None
    detail: str = ""

    @property
    def row(self) -> str:
        """The key as text, e.g. `log_index=5`."""
        return ", ".join(f"{name}={_plain(value)}" for name, value in self.key)

    def __str__(self) -> str:
        where = f"{self.table} ({self.row})" + (f", column {self.column}" if self.column else "")
        return f"{where}: {self.change.value}" + (f" ({self.detail})" if self.detail else "")


def _plain(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


@dataclass
class Report:
    """The result of a check. `clean` only if nothing at all was found."""

    findings: list[Finding] = field(default_factory=list)
    anchored_seq: int = 0
    anchored_rows: int = 0
    sealed_rows: int = 0
    unsealed_rows: int = 0
    #: Rows that lack nothing but the person, by a recorded erasure.
    erased_rows: int = 0
    #: Batches whose checkpoint was signed by a note key that had ended when they were anchored (or
    #: has ended, if they aren't yet): no change, but only a later anchor proves what is in them.
    retired_key: list[int] = field(default_factory=list)
    #: Batches that can't be judged, because one before them was rewritten.
    unjudged: list[int] = field(default_factory=list)
    _known: set[Finding] = field(default_factory=set, repr=False)

    @property
    def clean(self) -> bool:
        return not self.findings and not self.unjudged

    def add(
        self,
        table: str,
        key: Mapping[str, object],
        change: Change,
        column: str | None = None,
        detail: str = "",
    ) -> None:
        """Note a finding once."""
        finding = Finding(table, tuple(key.items()), change, column, detail)
        if finding not in self._known:
            self._known.add(finding)
            self.findings.append(finding)
