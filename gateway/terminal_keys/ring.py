"""The terminals' working keys: derived, never stored, so every gateway has the same ones.

Epoch 0 are the static keys of a terminal, from its master key (TMK): they carry the sign-on itself,
and financial messages where the terminal's record permits it. Every other epoch is a part of a
period of time: its keys follow from the period's key (gateway.terminal_keys.periods), the terminal
and the numbers of period and part, so a restarted gateway, or the one next to it, knows them
without having been told. A
terminal gets them by sign-on (gateway.terminal_keys.sign_on). A period's first part lasts until
the period ends, or until its keys were used for as many messages as they may be: then the next
sign-on gives those of the next part. A DUKPT terminal needs no sign-on: every message names its
keys.

Derivation: CMAC as the pseudo-random function (NIST SP 800-108, one block), key by key with a label
of its own: one use a key.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from gateway.iso8583.spec import Suite
from gateway.terminal_keys.model import KeyManagement, TerminalRecord
from nodes.crypto.hsm import CHECK_VALUE_LENGTH, Algorithm, Hsm, KeyUnavailable, KeyUse

#: Names of the gateway's own keys in the HSM.
MASTER_KEY = "master"
ZONE_KEY = "zone"
#: The gateway's SM2 key pair, which signs grants.
SIGNING_KEY = "sm2:gateway"
SIGNING_LABEL = b"countersign/sm2/1"
STATIC_EPOCH = 0
_LAST_EPOCH = 0xFFFF
#: How long the previous epoch is accepted after a change (pos-link.md, Keys and suites).
GRACE_S = 600
#: How many messages an epoch's keys are good for (pos-link.md, Keys and suites).
USES = 10_000
#: Parts of a period: how often keys can be used up before it ends.
PARTS = 15
#: How far apart the numbers of two parts of one period are on the wire.
_PART = 4096
#: DE62 of the answer to a sign-on with a bare nonce.
GRANT_LENGTH = 2 + 4 + 2 * (16 + CHECK_VALUE_LENGTH)
#: Messages of DUKPT terminals whose keys are held: more than can wait for an answer.
_DUKPT_HELD = 16_384

ALGORITHMS = {Suite.SM: Algorithm.SM4, Suite.AES: Algorithm.AES, Suite.LEGACY: Algorithm.TDES}


def tmk_name(terminal_id: str) -> str:
    """The name of a terminal's imported master key, in the keystore as in the HSM."""
    return f"tmk:{terminal_id}"


def static_label(use: str) -> bytes:
    """What the keys of epoch 0 are derived by: use is "mac", "pin" or "data"."""
    return f"countersign/{use}/0".encode("ascii")


def master_label(record: TerminalRecord) -> bytes:
    """What a terminal's master key (DUKPT: its base derivation key) is derived by."""
    kind = b"bdk" if record.management is KeyManagement.DUKPT else b"tmk"
    numbers = bytes((record.suite,)) + record.generation.to_bytes(2, "big")
    return b"countersign/" + kind + b"/1" + numbers + record.terminal_id.encode("ascii")


def key_id(record: TerminalRecord) -> bytes:
    """The initial key id of a DUKPT terminal, 8 bytes: "CS", generation (2), a checksum (4).

    Each terminal has a base derivation key of its own, so ids needn't be unique.
    """
    checksum = zlib.crc32(record.terminal_id.encode("ascii"))
    return b"CS" + record.generation.to_bytes(2, "big") + checksum.to_bytes(4, "big")


@dataclass(slots=True, eq=False)
class WorkingKeys:
    """Names of one terminal's keys of one epoch (or DUKPT transaction) in the HSM."""

    mac: str
    pin: str
    data: str
    answer_mac: str
    #: Which part of which period; how many messages were verified with them here.
    period: int = 0
    part: int = 0
    used: int = 0

    def names(self) -> tuple[str, ...]:
        """All of them."""
        return (self.mac, self.pin, self.data, self.answer_mac)


@dataclass(slots=True, eq=False)
class _Held:
    """What the ring holds of one terminal."""

    record: TerminalRecord
    #: The terminal master key's name, or that of the base derivation key.
    master: str
    #: Each terminal's day begins at another second, so they don't all sign on at once.
    shift: int
    static: WorkingKeys | None
    #: By period * PARTS + part: those of this period and the last one.
    epochs: dict[int, WorkingKeys] = field(default_factory=dict)
    #: The newest part that was granted or used here, of which period, and since when.
    period: int = 0
    part: int = 0
    since_ms: int = 0
    last_sign_on_ms: int | None = None


class Periods(Protocol):
    """Where the keys of periods come from (gateway.terminal_keys.periods.PeriodKeys)."""

    def key(self, period: int) -> str: ...

    def advance(self, now_ms: int) -> int: ...


class KeyRing:
    """Working keys by terminal and epoch. Holds names; the keys stay in the HSM.

    `periods`: None, and working keys follow from the master key itself: no forward secrecy then.
    """

    def __init__(
        self,
        hsm: Hsm,
        terminals: Iterable[TerminalRecord],
        period_s: int,
        uses: int = USES,
        periods: Periods | None = None,
    ) -> None:
        if period_s < 1 or uses < 1:
            raise ValueError("a key period lasts at least a second and one message")
        self._hsm = hsm
        self._period_s = period_s
        self._uses = uses
        self._periods = periods
        self._held: dict[str, _Held] = {}
        self._records: dict[str, TerminalRecord] = {}
        self._transactions: OrderedDict[tuple[str, bytes], WorkingKeys] = OrderedDict()
        # Names of dropped terminals' keys: before the last forget_left, and since.
        self._left: set[str] = set()
        self._leaving: set[str] = set()
        hsm.derive_sm2(MASTER_KEY, SIGNING_LABEL, SIGNING_KEY)
        for terminal in terminals:
            self.put(terminal)

    # Terminals

    def put(self, record: TerminalRecord) -> None:
        """A new terminal, or a change to one, from now on. KeyUnavailable without its key."""
        terminal_id = record.terminal_id
        old = self._held.get(terminal_id)
        if old is not None and _same_keys(old.record, record):
            old.record = self._records[terminal_id] = record
            return
        self.drop(terminal_id)
        master = self._master(record)
        shift = zlib.crc32(terminal_id.encode("ascii")) % self._period_s
        static = None
        if record.management is not KeyManagement.DUKPT:
            static = self._derive(
                master, f"{terminal_id}:0", [static_label(use) for use in _USES], record.suite
            )
        self._held[terminal_id] = _Held(record, master, shift, static)
        self._records[terminal_id] = record

    def drop(self, terminal_id: str) -> None:
        """A terminal is unknown from now on; no error if it was.

        Its keys stay for answers that are under way: see forget_left.
        """
        self._records.pop(terminal_id, None)
        held = self._held.pop(terminal_id, None)
        if held is None:
            return
        left = [*held.epochs.values(), *([held.static] if held.static is not None else [])]
        left += [
            self._transactions.pop(name)
            for name in [name for name in self._transactions if name[0] == terminal_id]
        ]
        self._leaving.update(name for keys in left for name in keys.names())
        if held.master != tmk_name(terminal_id):
            self._hsm.forget(held.master)

    def forget_left(self) -> None:
        """Forget the keys of terminals that were dropped before the last call of this. To be called
        again and again, with at least the time between that an answer may take."""
        for name in self._left:
            self._hsm.forget(name)
        self._left, self._leaving = self._leaving, set()

    def advance(self, now_ms: int) -> None:
        """Forget the working keys of periods that are over, and what they follow from.

        To be called again and again: a key is erased by this, or not at all. See
        PeriodKeys.advance for what it raises.
        """
        if self._periods is None:
            return
        oldest = self._periods.advance(now_ms)
        for held in self._held.values():
            for number in [number for number in held.epochs if number // PARTS < oldest]:
                self._forget(held.epochs.pop(number))

    def terminal(self, terminal_id: str) -> TerminalRecord | None:
        """The record of a terminal, or None if it isn't one of this gateway's."""
        return self._records.get(terminal_id)

    def master(self, terminal_id: str) -> str:
        """The name of a known terminal's master key (DUKPT: base derivation key) in the HSM."""
        return self._held[terminal_id].master

    def last_sign_on(self, terminal_id: str) -> int | None:
        """When (ms since 1970) the terminal got keys from this process last; None: never."""
        held = self._held.get(terminal_id)
        return held.last_sign_on_ms if held is not None else None

    # Keys of messages

    def keys(
        self, terminal: TerminalRecord, epoch: int, now_ms: int, sign_on: bool = False
    ) -> WorkingKeys | None:
        """The keys that a message of this epoch is checked with; None if it is not accepted now."""
        held = self._held[terminal.terminal_id]
        if epoch == STATIC_EPOCH:
            return held.static if terminal.static_keys or sign_on else None
        period, into = divmod(now_ms // 1000 + held.shift, self._period_s)
        part, apart = divmod((epoch - 1 - period) % _LAST_EPOCH, _PART)
        if apart == 0 and part < PARTS:
            replaced = held.period == period and part < held.part
            if replaced and now_ms - held.since_ms >= 1000 * GRACE_S:
                return None
        else:
            period -= 1
            part, apart = divmod((epoch - 1 - period) % _LAST_EPOCH, _PART)
            if apart or part >= PARTS or into >= GRACE_S:
                return None
        try:
            keys = self._keys_of(held, period, part)
        except KeyUnavailable:
            return None  # the clock was set back: that period's key is erased
        return keys if keys.used < self._uses else None

    def transaction_keys(self, terminal: TerminalRecord, serial: bytes) -> WorkingKeys | None:
        """The keys of a DUKPT transaction; None if the serial number isn't the terminal's."""
        if serial[:8] != key_id(terminal):
            return None
        name = (terminal.terminal_id, serial)
        keys = self._transactions.get(name)
        if keys is not None:
            self._transactions.move_to_end(name)
            return keys
        prefix = f"{terminal.terminal_id}:{serial.hex()}"
        keys = WorkingKeys(
            f"mac:{prefix}", f"pin:{prefix}", f"data:{prefix}", f"answer_mac:{prefix}"
        )
        base = self._held[terminal.terminal_id].master
        uses = (KeyUse.MAC, KeyUse.PIN, KeyUse.DATA, KeyUse.ANSWER_MAC)
        try:
            self._hsm.derive_dukpt(base, serial, dict(zip(uses, keys.names(), strict=True)))
        except ValueError:
            return None
        self._left.difference_update(keys.names())
        self._leaving.difference_update(keys.names())
        self._transactions[name] = keys
        if len(self._transactions) > _DUKPT_HELD:
            self._forget(self._transactions.popitem(last=False)[1])
        return keys

    def verified(self, terminal: TerminalRecord, keys: WorkingKeys, now_ms: int) -> None:
        """A message's MAC was good under these keys: they were used once more."""
        keys.used += 1
        if keys.part:
            # Another gateway may have granted them.
            self._advance(self._held[terminal.terminal_id], now_ms, keys.period, keys.part)

    def refused(self, terminal: TerminalRecord, keys: WorkingKeys, serial: bytes) -> None:
        """A DUKPT message's MAC was wrong: keys that no good message used are dropped."""
        if not keys.used:
            self._transactions.pop((terminal.terminal_id, serial), None)
            self._forget(keys)

    # Sign-on

    def present(
        self, terminal: TerminalRecord, now_ms: int, claim: tuple[int, int] | None = None
    ) -> tuple[int, int, WorkingKeys]:
        """What a sign-on gives: epoch, seconds until the next period, and the epoch's keys.

        KeyUnavailable if the clock was set back before a period whose key is erased.
        `claim`: the epoch that the terminal has keys of, and how often it used them.
        """
        held = self._held[terminal.terminal_id]
        period, into = divmod(now_ms // 1000 + held.shift, self._period_s)
        self._advance(held, now_ms, period, 0)
        keys = self._keys_of(held, period, held.part)
        used = keys.used
        if claim is not None and claim[0] == _epoch_of(period, held.part):
            used = max(used, claim[1])
        if used >= self._uses and held.part < PARTS - 1:
            self._advance(held, now_ms, period, held.part + 1)
            keys = self._keys_of(held, period, held.part)
        held.last_sign_on_ms = now_ms
        return _epoch_of(period, held.part), self._period_s - into, keys

    @staticmethod
    def _advance(held: _Held, now_ms: int, period: int, part: int) -> None:
        if (period, part) > (held.period, held.part):
            held.period, held.part, held.since_ms = period, part, now_ms

    def _keys_of(self, held: _Held, period: int, part: int) -> WorkingKeys:
        return held.epochs.get(period * PARTS + part) or self._make(held, period, part)

    def _make(self, held: _Held, period: int, part: int) -> WorkingKeys:
        for old in [number for number in held.epochs if abs(number // PARTS - period) > 1]:
            self._forget(held.epochs.pop(old))
        terminal_id = held.record.terminal_id
        context = terminal_id.encode("ascii") + period.to_bytes(8, "big")
        if part:
            context += bytes((part,))
        labels = [f"countersign/{use}/1".encode("ascii") + context for use in _USES]
        name = f"{terminal_id}:p{period}.{part}"
        parent = MASTER_KEY if self._periods is None else self._periods.key(period)
        keys = self._derive(parent, name, labels, held.record.suite)
        keys.period, keys.part = period, part
        held.epochs[period * PARTS + part] = keys
        return keys

    def _master(self, record: TerminalRecord) -> str:
        if record.generation == 1 and record.management is not KeyManagement.DUKPT:
            imported = tmk_name(record.terminal_id)
            try:
                self._hsm.check_value(imported)
            except KeyUnavailable:
                pass  # the usual case: the key is derived
            else:
                return imported
        kind = "bdk" if record.management is KeyManagement.DUKPT else "tmk"
        name = f"{kind}:{record.terminal_id}:{record.suite}.{record.generation}"
        self._hsm.derive(MASTER_KEY, master_label(record), name, ALGORITHMS[record.suite])
        return name

    def _derive(self, parent: str, name: str, labels: list[bytes], suite: Suite) -> WorkingKeys:
        names = [f"{use}:{name}" for use in _USES]
        for key, label in zip(names, labels, strict=True):
            self._hsm.derive(parent, label, key, ALGORITHMS[suite])
        self._left.difference_update(names)
        self._leaving.difference_update(names)
        mac, pin, data = names
        return WorkingKeys(mac, pin, data, mac)

    def _forget(self, keys: WorkingKeys) -> None:
        for name in keys.names():
            self._hsm.forget(name)


_USES = ("mac", "pin", "data")


def _same_keys(old: TerminalRecord, new: TerminalRecord) -> bool:
    """Whether both records mean the same master key."""
    kinds = (old.management is KeyManagement.DUKPT, new.management is KeyManagement.DUKPT)
    return kinds[0] == kinds[1] and (old.suite, old.generation) == (new.suite, new.generation)


def _epoch_of(period: int, part: int) -> int:
    """The 16-bit number of an epoch on the wire: never 0, which is the static epoch."""
    return 1 + (period + part * _PART) % _LAST_EPOCH
