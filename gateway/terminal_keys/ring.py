"""The terminals' working keys: derived, never stored, so every gateway has the same ones.

Epoch 0 are the static keys of a terminal, from its master key (TMK): they carry the sign-on itself,
and financial messages where the terminal's record permits it. Every other epoch is a period of
time: its keys follow from the gateway's own master key, the terminal and the number of the
period, so a restarted gateway, or the one next to it, knows them without any state. A terminal
gets them by sign-on, wrapped under its TMK.

Derivation: SM4-CMAC as the pseudo-random function (NIST SP 800-108, one block), key by key with a
label of its own: one use a key.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from gateway.terminal_keys.model import TerminalRecord
from nodes.crypto.hsm import CHECK_VALUE_LENGTH, Hsm

#: Names of the gateway's own keys in the HSM.
MASTER_KEY = "master"
ZONE_KEY = "zone"
STATIC_EPOCH = 0
_LAST_EPOCH = 0xFFFF
#: How long the previous epoch is accepted after a change (pos-link.md, Keys and suites).
GRACE_S = 600
#: DE62 of a sign-on answer.
GRANT_LENGTH = 2 + 4 + 2 * (16 + CHECK_VALUE_LENGTH)


def tmk_name(terminal_id: str) -> str:
    """The name of a terminal's master key, in the keystore as in the HSM."""
    return f"tmk:{terminal_id}"


def static_label(use: str) -> bytes:
    """What the keys of epoch 0 are derived by: use is "mac" or "pin"."""
    return f"countersign/{use}/0".encode("ascii")


@dataclass(frozen=True, slots=True)
class WorkingKeys:
    """Names of one terminal's keys of one epoch in the HSM."""

    mac: str
    pin: str


class KeyRing:
    """Working keys by terminal and epoch. Holds names; the keys stay in the HSM."""

    def __init__(self, hsm: Hsm, terminals: Iterable[TerminalRecord], period_s: int) -> None:
        if period_s < 1:
            raise ValueError("a key period lasts at least a second")
        self._hsm = hsm
        self._period_s = period_s
        self._terminals: dict[str, TerminalRecord] = {}
        self._static: dict[str, WorkingKeys] = {}
        self._shifts: dict[str, int] = {}
        # Per terminal the periods whose keys the HSM holds now: at most two.
        self._periods: dict[str, dict[int, WorkingKeys]] = {}
        for terminal in terminals:
            self.put(terminal)

    def put(self, record: TerminalRecord) -> None:
        """A new terminal, or a change to one, from now on. KeyUnavailable without its key."""
        terminal_id = record.terminal_id
        self.drop(terminal_id)
        # Each terminal's day begins at another second, so they don't all sign on at once.
        self._shifts[terminal_id] = zlib.crc32(terminal_id.encode("ascii")) % self._period_s
        self._static[terminal_id] = self._derive(
            tmk_name(terminal_id), f"{terminal_id}:0", static_label("mac"), static_label("pin")
        )
        self._terminals[terminal_id] = record

    def drop(self, terminal_id: str) -> None:
        """A terminal is unknown from now on; no error if it was."""
        self._terminals.pop(terminal_id, None)
        held = [*self._periods.pop(terminal_id, {}).values()]
        static = self._static.pop(terminal_id, None)
        for keys in [*held, static] if static is not None else held:
            self._hsm.forget(keys.mac)
            self._hsm.forget(keys.pin)

    def terminal(self, terminal_id: str) -> TerminalRecord | None:
        """The record of a terminal, or None if it isn't one of this gateway's."""
        return self._terminals.get(terminal_id)

    def keys(
        self, terminal: TerminalRecord, epoch: int, now_ms: int, sign_on: bool = False
    ) -> WorkingKeys | None:
        """The keys that a message of this epoch is checked with; None if it is not accepted now."""
        if epoch == STATIC_EPOCH:
            if terminal.static_keys or sign_on:
                return self._static[terminal.terminal_id]
            return None
        period = self._period(terminal.terminal_id, now_ms)
        if epoch == _epoch_of(period):
            return self._keys_of(terminal.terminal_id, period)
        into = self._seconds_into(terminal.terminal_id, now_ms)
        if epoch == _epoch_of(period - 1) and into < GRACE_S:
            return self._keys_of(terminal.terminal_id, period - 1)
        return None

    def grant(self, terminal: TerminalRecord, now_ms: int) -> bytes:
        """DE62 of a sign-on answer: the keys of the present epoch for this terminal.

        epoch (2) | seconds until the next epoch (4) | MAC key under the TMK (16) | its check
        value (4) | PIN key under the TMK (16) | its check value (4); numbers big-endian.
        """
        terminal_id = terminal.terminal_id
        period = self._period(terminal_id, now_ms)
        keys = self._keys_of(terminal_id, period)
        left = self._period_s - self._seconds_into(terminal_id, now_ms)
        tmk = tmk_name(terminal_id)
        return b"".join(
            (
                _epoch_of(period).to_bytes(2, "big"),
                left.to_bytes(4, "big"),
                self._hsm.wrap(tmk, keys.mac),
                self._hsm.check_value(keys.mac),
                self._hsm.wrap(tmk, keys.pin),
                self._hsm.check_value(keys.pin),
            )
        )

    def _keys_of(self, terminal_id: str, period: int) -> WorkingKeys:
        held = self._periods.setdefault(terminal_id, {})
        keys = held.get(period)
        if keys is None:
            for old in [other for other in held if abs(other - period) > 1]:
                stale = held.pop(old)
                self._hsm.forget(stale.mac)
                self._hsm.forget(stale.pin)
            context = terminal_id.encode("ascii") + period.to_bytes(8, "big")
            keys = held[period] = self._derive(
                MASTER_KEY,
                f"{terminal_id}:p{period}",
                b"countersign/mac/1" + context,
                b"countersign/pin/1" + context,
            )
        return keys

    def _derive(self, parent: str, name: str, mac_label: bytes, pin_label: bytes) -> WorkingKeys:
        keys = WorkingKeys(mac=f"mac:{name}", pin=f"pin:{name}")
        self._hsm.derive(parent, mac_label, keys.mac)
        self._hsm.derive(parent, pin_label, keys.pin)
        return keys

    def _shifted(self, terminal_id: str, now_ms: int) -> int:
        return now_ms // 1000 + self._shifts[terminal_id]

    def _period(self, terminal_id: str, now_ms: int) -> int:
        return self._shifted(terminal_id, now_ms) // self._period_s

    def _seconds_into(self, terminal_id: str, now_ms: int) -> int:
        return self._shifted(terminal_id, now_ms) % self._period_s


def _epoch_of(period: int) -> int:
    """The 16-bit number of a period on the wire: never 0, which is the static epoch."""
    return 1 + period % _LAST_EPOCH
