"""Who may come in: passwords, lock after failures, sessions, and the trail of sign-ins.

Passwords are Argon2id hashes in the configuration. Sessions and failure counts are rows of a small
SQLite file, so that signing out really ends a session and a restart forgets neither a lock nor
who is signed in. A session's token is only in the browser; the file keeps its SHA-256.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError
from itsdangerous import BadSignature, Signer

from console.settings import EVERY_MEMBER, ConsoleSettings, Role, UserEntry
from nodes.clock import Clock

#: Wrong passwords in a row after which a name is locked.
MAX_FAILURES = 10
#: How many entries the trail keeps.
MAX_EVENTS = 10_000
#: A longer password is refused unread: Argon2 would hash megabytes for anybody who asks.
MAX_PASSWORD_BYTES = 1024

_SCHEMA = """
CREATE TABLE IF NOT EXISTS failures (
    username TEXT PRIMARY KEY, count INTEGER NOT NULL, locked_until_ms INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS sessions (
    token_hash BLOB PRIMARY KEY, session_id TEXT NOT NULL UNIQUE, username TEXT NOT NULL,
    credential TEXT NOT NULL, created_ms INTEGER NOT NULL, seen_ms INTEGER NOT NULL,
    address TEXT NOT NULL, agent TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS events (
    event_id INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, username TEXT NOT NULL,
    event TEXT NOT NULL, address TEXT NOT NULL);
"""


class Refusal(StrEnum):
    """Why a sign-in failed; an unknown name and a wrong password are the same refusal."""

    WRONG = "wrong"
    LOCKED = "locked"


@dataclass(frozen=True)
class User:
    """A person who is signed in."""

    username: str
    role: Role
    members: tuple[str, ...]  # the institutions they may see, in the configuration's order
    session_id: str

    def may(self, role: Role) -> bool:
        """Whether this person's role includes `role`."""
        return self.role.includes(role)


@dataclass(frozen=True)
class SessionRow:
    """One session as the lists show it."""

    session_id: str
    username: str
    created_ms: int
    seen_ms: int
    address: str
    agent: str


@dataclass(frozen=True)
class AccountState:
    """One configured person as the administrators' page shows them."""

    username: str
    role: Role
    members: tuple[str, ...]
    failures: int
    locked_until_ms: int  # 0: not locked


@dataclass(frozen=True)
class TrailEntry:
    """One event of the trail."""

    at_ms: int
    username: str
    event: str
    address: str


class Access:
    """Signs people in and out, and tells who a cookie belongs to.

    Its methods block (files, Argon2id); they may be called from any thread.
    """

    def __init__(self, settings: ConsoleSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._users = {user.username.casefold(): user for user in settings.users}
        self._signer = Signer(settings.secret.get_secret_value(), salt="countersign-console")
        self._hasher = PasswordHasher()  # argon2-cffi's defaults: Argon2id, RFC 9106 low memory
        # Verified for an unknown name, so that it takes as long as a known one.
        self._nobody = self._hasher.hash(secrets.token_hex(16))
        self._argon2_places = threading.BoundedSemaphore(2)  # 64 MiB each
        path: Path | str = settings.state_file or ":memory:"
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._lock = threading.Lock()
        if settings.state_file:
            settings.state_file.chmod(0o600)
            self._database.execute("PRAGMA journal_mode=WAL")
        self._database.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    # -- signing in and out -------------------------------------------------------------------

    def sign_in(self, username: str, password: str, address: str, agent: str) -> str | Refusal:
        """Check a password; the signed cookie value of a new session, or why not.

        A try is counted before the password is looked at, so that many tries at the same moment
        can't slip past the lock; the right password takes its count back.
        """
        name = username.strip().casefold()[:64]
        tries_left = self._take_try(name)
        if tries_left is None:
            return Refusal.LOCKED
        user = self._users.get(name)
        if not self._password_fits(user, password):
            self._note(name, "sign-in refused", address)
            if tries_left == 0:
                self._note(name, f"locked after {MAX_FAILURES} failures", address)
            return Refusal.WRONG
        assert user is not None
        token = secrets.token_urlsafe(32)
        now = self._clock.now_ms()
        with self._transaction() as database:
            database.execute("DELETE FROM failures WHERE username = ?", (name,))
            database.execute(
                "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    _hash(token),
                    secrets.token_hex(8),
                    name,
                    _credential(user),
                    now,
                    now,
                    address[:64],
                    agent[:200],
                ),
            )
            oldest = now - int(self._settings.session_hours * 3_600_000)
            database.execute("DELETE FROM sessions WHERE created_ms < ?", (oldest,))
        self._note(name, "signed in", address)
        return self._signer.sign(token).decode()

    def _take_try(self, name: str) -> int | None:
        """Count one try; how many are left after it, or None if the name is locked."""
        now = self._clock.now_ms()
        with self._transaction() as database:
            row = database.execute(
                "SELECT count, locked_until_ms FROM failures WHERE username = ?", (name,)
            ).fetchone()
            count, locked_until = row or (0, 0)
            if locked_until > now:
                return None
            if locked_until:  # the lock has run out: count anew
                count = 0
            count += 1
            until = 0
            if count >= MAX_FAILURES:
                until = now + int(self._settings.lock_minutes * 60_000)
            # Names that nobody has can be made up without end: forget the ones not locked.
            if (
                not row
                and database.execute("SELECT count(*) FROM failures").fetchone()[0] >= MAX_EVENTS
            ):
                database.execute("DELETE FROM failures WHERE locked_until_ms < ?", (now,))
            database.execute(
                "INSERT OR REPLACE INTO failures VALUES (?, ?, ?)", (name, count, until)
            )
        return MAX_FAILURES - count

    def _password_fits(self, user: UserEntry | None, password: str) -> bool:
        stored = user.password_argon2.get_secret_value() if user else self._nobody
        raw = password.encode("utf-8", "surrogatepass")
        with self._argon2_places:
            try:
                self._hasher.verify(stored, raw[:MAX_PASSWORD_BYTES])
            except (VerifyMismatchError, InvalidHashError):
                return False
        return user is not None and len(raw) <= MAX_PASSWORD_BYTES

    def sign_out(self, cookie: str | None, address: str) -> None:
        """End the session of this cookie, if it is one."""
        token = self._token(cookie)
        if token is None:
            return
        with self._transaction() as database:
            row = database.execute(
                "DELETE FROM sessions WHERE token_hash = ? RETURNING username", (_hash(token),)
            ).fetchone()
        if row:
            self._note(row[0], "signed out", address)

    def user_of(self, cookie: str | None, *, active: bool = True) -> User | None:
        """Who holds this cookie, or None: not signed by us, ended, idle, too old, user changed.

        `active`: somebody did something; what a page asks for by itself doesn't count as that.
        """
        token = self._token(cookie)
        if token is None:
            return None
        now = self._clock.now_ms()
        with self._transaction() as database:
            row = database.execute(
                "SELECT session_id, username, credential, created_ms, seen_ms FROM sessions "
                "WHERE token_hash = ?",
                (_hash(token),),
            ).fetchone()
            if row is None:
                return None
            session_id, name, credential, created, seen = row
            user = self._users.get(name)
            alive = (
                user is not None
                and credential == _credential(user)
                and now - created < self._settings.session_hours * 3_600_000
                and now - seen < self._settings.idle_minutes * 60_000
            )
            if not alive or user is None:
                database.execute("DELETE FROM sessions WHERE session_id = ?", (session_id,))
                return None
            if active and now - seen > 30_000:  # not a write for every request
                database.execute(
                    "UPDATE sessions SET seen_ms = ? WHERE session_id = ?", (now, session_id)
                )
        return User(user.username, user.role, self._members(user), session_id)

    def _token(self, cookie: str | None) -> str | None:
        if not cookie or len(cookie) > 256:
            return None
        try:
            return self._signer.unsign(cookie).decode()
        except (BadSignature, UnicodeDecodeError):
            return None

    def _members(self, user: UserEntry) -> tuple[str, ...]:
        everything = EVERY_MEMBER in user.members
        return tuple(
            node.member_id
            for node in self._settings.nodes
            if everything or node.member_id in user.members
        )

    # -- what the lists show --------------------------------------------------------------------

    def sessions(self, username: str | None = None) -> list[SessionRow]:
        """Open sessions, the newest first; of one person, or of all."""
        oldest = self._clock.now_ms() - int(self._settings.idle_minutes * 60_000)
        with self._lock:
            rows = self._database.execute(
                "SELECT session_id, username, created_ms, seen_ms, address, agent FROM sessions "
                "WHERE seen_ms > ?1 AND (?2 IS NULL OR username = ?2) ORDER BY created_ms DESC",
                (oldest, username.casefold() if username else None),
            ).fetchall()
        return [SessionRow(*row) for row in rows]

    def end_session(self, session_id: str, username: str | None, address: str) -> bool:
        """End a session; of this person only, unless `username` is None. False: there is none."""
        owner = username.casefold() if username else None
        with self._transaction() as database:
            row = database.execute(
                "DELETE FROM sessions WHERE session_id = ?1 AND (?2 IS NULL OR username = ?2) "
                "RETURNING username",
                (session_id, owner),
            ).fetchone()
        if row:
            self._note(row[0], "session ended", address)
        return row is not None

    def accounts(self) -> list[AccountState]:
        """Everybody in the configuration, with failures and lock."""
        now = self._clock.now_ms()
        with self._lock:
            rows = self._database.execute("SELECT username, count, locked_until_ms FROM failures")
            counts = {name: (count, until) for name, count, until in rows}
        states = []
        for name, user in self._users.items():
            count, until = counts.get(name, (0, 0))
            if until and until <= now:
                count, until = 0, 0
            states.append(AccountState(user.username, user.role, self._members(user), count, until))
        return states

    def unlock(self, username: str, by: str, address: str) -> bool:
        """Forget a name's failures. False: nothing was counted under it."""
        name = username.casefold()
        with self._transaction() as database:
            row = database.execute(
                "DELETE FROM failures WHERE username = ? RETURNING username", (name,)
            ).fetchone()
        if row:
            self._note(name, f"unlocked by {by}", address)
        return row is not None

    def trail(self, limit: int = 50) -> list[TrailEntry]:
        """The latest events, the newest first."""
        with self._lock:
            rows = self._database.execute(
                "SELECT at_ms, username, event, address FROM events ORDER BY event_id DESC LIMIT ?",
                (limit,),
            ).fetchall()
        return [TrailEntry(*row) for row in rows]

    def _note(self, name: str, event: str, address: str) -> None:
        with self._transaction() as database:
            database.execute(
                "INSERT INTO events (at_ms, username, event, address) VALUES (?, ?, ?, ?)",
                (self._clock.now_ms(), name, event, address[:64]),
            )
            database.execute(
                "DELETE FROM events WHERE event_id <= (SELECT max(event_id) FROM events) - ?",
                (MAX_EVENTS,),
            )


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _credential(user: UserEntry) -> str:
    """Changes with the password, so that a new password ends the sessions of the old one."""
    return hashlib.sha256(user.password_argon2.get_secret_value().encode()).hexdigest()[:16]
