"""Which card pays next: few cards pay often, most of them seldom (Zipf's law)."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from random import Random


class Zipf:
    """Draws 0 <= rank < `size` with a probability proportional to 1 / (rank + 1)**exponent."""

    def __init__(self, size: int, exponent: float = 1.0) -> None:
        if size < 1:
            raise ValueError("there must be something to draw from")
        weights = (float((rank + 1) ** -exponent) for rank in range(size))
        self._cumulated: list[float] = list(accumulate(weights))

    def probability(self, rank: int) -> float:
        """How likely a draw is this rank."""
        before = self._cumulated[rank - 1] if rank else 0.0
        return (self._cumulated[rank] - before) / self._cumulated[-1]

    def draw(self, random: Random) -> int:
        """One rank."""
        return bisect_left(self._cumulated, random.random() * self._cumulated[-1])
