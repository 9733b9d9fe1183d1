"""What a benchmark is asked to measure."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from sandbox.bench.figures import GOALS

IN_FLIGHT = 128
GROWTH = "at_5m_rows_vs_empty"


@dataclass(frozen=True)
class Settings:
    """What is measured, how long and how often. `calls` x `batch` is 128."""

    seconds: float = 10.0
    runs: int = 3
    calls: int = 2
    preload: int = 1_000_000
    growth_rows: int = 5_000_000
    only: tuple[str, ...] = ()
    quick: bool = False
    memory: bool = False
    designs: bool = False

    @property
    def batch(self) -> int:
        return IN_FLIGHT // self.calls

    @property
    def figures(self) -> tuple[str, ...]:
        return tuple(name for name in GOALS if not self.only or name in self.only)

    @property
    def cards(self) -> int:
        return 100 if self.quick else 2_000

    @property
    def merchants(self) -> int:
        return IN_FLIGHT if self.quick else 1_000


def quick(settings: Settings) -> Settings:
    """A smoke of everything: its figures are comparable with nothing."""
    changes = {"seconds": 1.0, "runs": 1, "preload": 20_000, "growth_rows": 40_000, "quick": True}
    return Settings(**{**asdict(settings), **changes})
