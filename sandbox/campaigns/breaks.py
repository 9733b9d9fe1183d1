"""Breaks of every class planted into two institutions' day, found by the comparison of their nodes.

Two databases and two node processes; the acquirer's node asks the issuer's over HTTP, as at the end
of any day (sandbox.bench.reconcile).
"""

from __future__ import annotations

import hashlib

import psycopg
from rich.progress import Progress

from nodes.clearing.model import BreakKind
from sandbox.bench.reconcile import compare_day
from sandbox.bench.reconcile_days import KEY, TOGETHER, Name
from sandbox.campaigns.scene import Scene
from sandbox.campaigns.tally import Tallies

CLASSES = tuple(f"BREAK_{kind.value}" for kind in BreakKind)
#: Sound transactions for each broken one.
_SOUND = 4


def tamper_breaks(scene: Scene, count: int, tallies: Tallies) -> None:
    """`count` breaks of each class in one day (other totals on a day of their own), and a day
    without any."""
    seed = int.from_bytes(hashlib.sha256(f"{tallies.seed} breaks".encode()).digest()[:4], "big")
    days = (
        (0, TOGETHER),
        (count * len(TOGETHER), TOGETHER),
        (count, (BreakKind.TOTALS_MISMATCH,)),
    )
    for planted, kinds in days:
        rows = max(2_000, (planted or 500) * (_SOUND + 1))
        _drop(scene)
        compared = compare_day(scene.postgres, rows, planted, seed, Progress(disable=True), kinds)
        _drop(scene)
        by_subject = [{_subject(name) for name in found} for found in compared.found.values()]
        for name in compared.planted:
            tallies.add(
                f"BREAK_{name[0]}",
                found=all(_subject(name) in found for found in by_subject),
                named=all(name in found for found in compared.found.values()),
                what=f"{name}: not named so at both",
            )
        subjects = {_subject(name) for name in compared.planted}
        extra = [
            n for found in compared.found.values() for n in found if _subject(n) not in subjects
        ]
        tallies.clean(alarm=f"a break that nobody planted: {extra[0]}" if extra else "")


def _subject(name: Name) -> tuple[bytes | None, int | None]:
    return name[1], name[3]


def _drop(scene: Scene) -> None:
    with psycopg.connect(scene.postgres.superuser_dsn(), autocommit=True) as connection:
        for member in (KEY.acquirer, KEY.issuer):
            connection.execute(f'DROP DATABASE IF EXISTS "bench_{member}" WITH (FORCE)')
