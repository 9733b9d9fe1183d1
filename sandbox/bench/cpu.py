"""CPU and memory of processes, from /proc/<pid>/stat and /proc/<pid>/status (proc(5))."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


def cpu_seconds(pid: int) -> float:
    """utime + stime of a process and of its threads; OSError if it has ended."""
    fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def children(pid: int) -> list[int]:
    """The processes whose parent this is."""
    found = []
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == pid:
                    found.append(int(entry.name))
    return found


def rss_bytes(pid: int) -> int:
    """Resident memory of a process; OSError if it has ended."""
    for line in (_PROC / str(pid) / "status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


class CpuClock:
    """CPU of named groups of processes between `start` and `stop`.

    A process that starts meanwhile counts from its start. One that ends meanwhile is lost, so the
    measured processes must live through the run; `trees` are parents whose children count too.
    """

    def __init__(
        self, groups: Mapping[str, Iterable[int]], trees: Mapping[str, int] | None = None
    ) -> None:
        self._groups = {name: list(pids) for name, pids in groups.items()}
        self._trees = dict(trees or {})
        self._before: dict[str, dict[int, float]] = {}

    def start(self) -> None:
        """Remember what each process has used so far."""
        self._before = self._read()

    def stop(self) -> dict[str, float]:
        """CPU seconds of each group since `start`."""
        return {
            name: sum(
                used - self._before.get(name, {}).get(pid, 0.0) for pid, used in processes.items()
            )
            for name, processes in self._read().items()
        }

    def _read(self) -> dict[str, dict[int, float]]:
        groups = {name: list(pids) for name, pids in self._groups.items()}
        for name, parent in self._trees.items():
            groups.setdefault(name, []).extend([parent, *children(parent)])
        found: dict[str, dict[int, float]] = {}
        for name, pids in groups.items():
            found[name] = {}
            for pid in pids:
                with contextlib.suppress(OSError):
                    found[name][pid] = cpu_seconds(pid)
        return found
