"""Which person of an institution has taken a case on. The console's own note, beside its sessions:
the nodes know whose institution's move it is, not whose desk a case lies on."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable

from console.settings import ConsoleSettings
from nodes.clock import Clock

_SCHEMA = """
CREATE TABLE IF NOT EXISTS assignments (
    member_id TEXT NOT NULL, subject TEXT NOT NULL, username TEXT NOT NULL, at_ms INTEGER NOT NULL,
    PRIMARY KEY (member_id, subject));
"""


class Assignments:
    """Its methods block (a file); they may be called from any thread."""

    def __init__(self, settings: ConsoleSettings, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        path = settings.state_file or ":memory:"
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._database.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def take(self, member_id: str, subject: str, username: str) -> str:
        """Take a case on if nobody has it; who has it then."""
        with self._lock:
            self._database.execute(
                "INSERT INTO assignments VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (member_id, subject, username, self._clock.now_ms()),
            )
            row = self._database.execute(
                "SELECT username FROM assignments WHERE member_id = ? AND subject = ?",
                (member_id, subject),
            ).fetchone()
        return str(row[0])

    def release(self, member_id: str, subject: str, username: str) -> bool:
        """Lay one's own case down; False if it is somebody else's, or nobody's."""
        with self._lock:
            done = self._database.execute(
                "DELETE FROM assignments WHERE member_id = ? AND subject = ? AND username = ?",
                (member_id, subject, username),
            )
        return done.rowcount == 1

    def of(self, member_id: str, subjects: Iterable[str]) -> dict[str, str]:
        """Who has which of these cases, by case; cases that nobody has are left out."""
        wanted = list(subjects)
        with self._lock:
            rows = self._database.execute(
                "SELECT subject, username FROM assignments WHERE member_id = ? AND subject IN"
                f" ({','.join('?' * len(wanted))})",
                (member_id, *wanted),
            ).fetchall()
        return dict(rows)
