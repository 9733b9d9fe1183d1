"""What an acquirer keeps in memory of its terminals and of requests of late.

Only a cache: a commit fails if a terminal isn't as it was, or a key is taken.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial

import msgspec

from nodes.acquiring.model import Terminal
from nodes.acquiring.store import read_terminals
from nodes.authorization.batching import Beside, Connection, Worker
from nodes.authorization.model import TerminalRequest
from nodes.authorization.operations.accepting import Acquirer, Opening
from nodes.authorization.operations.recording import Recording
from nodes.authorization.store.requests import StoredRequest

#: Terminals aren't used any more so many seconds after they were read: merchants' names may change,
#: and a terminal's merchant (docs/fleet.md, 75 s). That they are in use is checked by each commit.
_REFRESH_S = 60.0
#: They are read again beside the path so many seconds after, so that no payment waits for that,
_REFRESH_EARLY_S = 40.0
#: so many at once.
_PAGE = 256
#: So many terminals, and so many recent requests, are kept.
_TERMINALS_KEPT = 50_000
_REQUESTS_KEPT = 20_000


class AcquirerMemory:
    """Shared by the engines of one process; used by its event loop alone."""

    def __init__(self) -> None:
        self.terminals: dict[str, Terminal] = {}
        self.recent: OrderedDict[bytes, StoredRequest] = OrderedDict()
        #: None of them was read before this moment (time.monotonic).
        self._refreshed = time.monotonic()
        self._beside = Beside("terminals")

    def lacks(self, acquirer: Acquirer, requests: Sequence[TerminalRequest]) -> bool:
        """Whether the database must be read before these can be opened."""
        if time.monotonic() - self._refreshed > _REFRESH_S:
            return True
        if acquirer.lacks_numbers(len(requests)):
            return True
        known = self.terminals
        return any(r.terminal_id not in known or not known[r.terminal_id].in_use for r in requests)

    async def load(
        self, reader: Worker, acquirer: Acquirer, requests: Sequence[TerminalRequest]
    ) -> None:
        """Read what these lack."""
        names = {r.terminal_id for r in requests}

        def read(connection: Connection) -> dict[str, Terminal]:
            acquirer.supply_numbers(connection, len(requests))
            return read_terminals(connection, names)

        found = await reader.run(read)
        if len(self.terminals) > _TERMINALS_KEPT:
            self.terminals.clear()
        for name, terminal in found.items():
            self._take(name, terminal)

    def refresh_early(self, reader: Worker) -> None:
        """Read all terminals again beside the path, if they are soon too old."""
        if time.monotonic() - self._refreshed > _REFRESH_EARLY_S:
            self._beside.start(partial(self._refresh, reader))

    async def _refresh(self, reader: Worker) -> None:
        began, names = time.monotonic(), sorted(self.terminals)
        for start in range(0, len(names), _PAGE):
            page = names[start : start + _PAGE]
            found = await reader.run(partial(read_terminals, terminal_ids=page))
            for name in page:
                if name in found and name in self.terminals:
                    self._take(name, found[name])
                else:
                    self.terminals.pop(name, None)
        self._refreshed = began

    def _take(self, name: str, terminal: Terminal) -> None:
        known = self.terminals.get(name)
        # What was given out from memory stays given out: it may be under way.
        last = terminal.last_seq if known is None else max(known.last_seq, terminal.last_seq)
        self.terminals[name] = msgspec.structs.replace(terminal, last_seq=last)

    def numbered(self, opening: Opening) -> None:
        """The numbers that an opening gives out are on their way."""
        for name, last in opening.last_seqs.items():
            self.terminals[name] = msgspec.structs.replace(self.terminals[name], last_seq=last)

    def opened(self, opening: Opening) -> None:
        """What it wrote is durable."""
        for row in opening.waiting:
            self.recent[row.key] = row
            if len(self.recent) > _REQUESTS_KEPT:
                self.recent.popitem(last=False)

    def recorded(self, recording: Recording) -> None:
        """So are these answers."""
        for key, told in recording.told_by_key.items():
            known = self.recent.get(key)
            if known is not None:
                self.recent[key] = msgspec.structs.replace(known, request=None, answer=told)

    def drop(self, requests: Sequence[TerminalRequest]) -> None:
        """Others have written for these terminals, or it isn't known what was written."""
        for request in requests:
            self.terminals.pop(request.terminal_id, None)
