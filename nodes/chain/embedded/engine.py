"""The chain itself: takes transactions, seals them into blocks, answers from any block's state.

Everything runs in one thread, the server's engine thread; nothing here locks.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from eth_hash.auto import keccak
from lru import LRU

from nodes.chain.embedded import evm
from nodes.chain.embedded.evm import Call, Outcome, TransactionInvalid
from nodes.chain.embedded.genesis import Genesis
from nodes.chain.embedded.permissions import Permissions
from nodes.chain.embedded.pool import MAX_AHEAD, MAX_WAITING, Pool, Waiting
from nodes.chain.embedded.store import BlockRow, ChainStore, LogRow, TransactionRow

_logger = logging.getLogger(__name__)
_ANCESTORS = 256
_REGISTRY_GAS = 1_000_000


class Engine:
    """One chain: a genesis and the file that it lives in."""

    def __init__(
        self, genesis: Genesis, database: Path, now: Callable[[], float] = time.time
    ) -> None:
        self.genesis = genesis
        self.pool = Pool()
        self.store = ChainStore(database)
        self._now = now
        self._headers: Any = LRU(4_096)
        self._permissions = Permissions(genesis, self._read)
        try:
            self._head = self._open()
        except BaseException:
            self.store.close()
            raise
        self._head_state = self.state_at(self._head)

    def close(self) -> None:
        self.store.close()

    def _open(self) -> Any:
        """The newest block's header, with block 0 written if the file is new. ValueError if the
        file belongs to another genesis or its end isn't whole."""
        state = self.store.state
        first = evm.genesis_header(self.genesis, evm.fund(state, self.genesis))
        newest = self.store.head()
        if newest is None:
            self.store.commit(self._row(first, []))
            return first
        state.discard()
        stored = self.store.block(0)
        if stored is None or stored.hash != first.hash:
            raise ValueError("the data belong to another genesis")
        head = evm.decode_header(newest.header)
        if head.hash != newest.hash:
            raise ValueError(f"block {newest.number} is damaged")
        if newest.number and evm.sealer_of(head) != self.genesis.sealer:
            raise ValueError(f"block {newest.number} was sealed by somebody else")
        return head

    @staticmethod
    def _row(header: Any, raws: list[bytes]) -> BlockRow:
        encoded = evm.encode_header(header)
        size = evm.block_size(encoded, raws)
        return BlockRow(header.block_number, bytes(header.hash), encoded, size)

    # -- reading

    @property
    def head(self) -> Any:
        """The newest block's header."""
        return self._head

    def header(self, number: int) -> Any | None:
        """A block's header; None if there is none."""
        found = self._headers.get(number)
        if found is None:
            row = self.store.block(number)
            if row is not None:
                found = self._headers[number] = evm.decode_header(row.header)
        return found

    def state_at(self, header: Any) -> Any:
        """The state after a block, for reading and for calls in that block's own context."""
        number = header.block_number
        hashes = _ancestors(self.store, number)
        return evm.state_at(
            self.store.state, header, self.genesis.chain_id, hashes, self.genesis.sealer
        )

    @property
    def head_state(self) -> Any:
        """The newest state; for reading accounts only."""
        return self._head_state

    def pending_nonce(self, sender: bytes) -> int:
        """The sender's next nonce behind what waits without a gap."""
        nonce: int = self._head_state.get_nonce(sender)
        return nonce + sum(1 for _ in self.pool.run_from(sender, nonce))

    def call(self, wanted: Call, header: Any) -> Outcome:
        """eth_call. TransactionInvalid if the call can't be made."""
        return evm.call(self.state_at(header), wanted)

    def estimate(self, wanted: Call, header: Any) -> tuple[int, Outcome]:
        """(gas with which the call succeeds, its outcome); with a failed outcome the gas is the
        limit that was tried."""
        outcome = self.call(wanted, header)
        if outcome.failure:
            return wanted.gas, outcome
        # A call may hand on at most 63/64 of its gas (EIP-150), and a plain transfer to a
        # contract carries a stipend of 2,300.
        gas = evm.intrinsic_gas(wanted)
        if outcome.gas_used > gas:
            gas = outcome.gas_used * 64 // 63 + 2_300
        while gas < wanted.gas:
            tried = Call(wanted.sender, wanted.to, wanted.data, wanted.value, gas)
            attempt = self.call(tried, header)
            if not attempt.failure:
                return gas, attempt
            gas = gas * 5 // 4
        return wanted.gas, outcome

    def _read(self, contract: bytes, data: bytes) -> bytes:
        wanted = Call(bytes(20), contract, data, 0, _REGISTRY_GAS)
        outcome = self.call(wanted, self._head)
        return b"" if outcome.failure else outcome.output

    # -- writing

    def submit(self, raw: bytes) -> bytes:
        """Takes a signed transaction into the pool; returns its hash. TransactionInvalid with the
        words that other EVM clients use."""
        tx_hash = bytes(keccak(raw))
        if self.pool.get(tx_hash) is not None:
            raise TransactionInvalid("already known")
        transaction = evm.decode_transaction(raw, self.genesis.chain_id)
        sender = bytes(transaction.sender)
        if not self._permissions.allows(sender):
            raise TransactionInvalid(f"sender 0x{sender.hex()} is not permitted on this chain")
        if transaction.gas > self._head.gas_limit:
            raise TransactionInvalid("exceeds block gas limit")
        expected = self._head_state.get_nonce(sender)
        nonce = int(transaction.nonce)
        if nonce < expected:
            raise TransactionInvalid(f"nonce too low: next nonce {expected}, tx nonce {nonce}")
        if nonce > expected + MAX_AHEAD:
            raise TransactionInvalid(f"nonce too high: next nonce {expected}, tx nonce {nonce}")
        cost = transaction.gas * transaction.max_fee_per_gas + transaction.value
        if cost > self._head_state.get_balance(sender):
            raise TransactionInvalid("insufficient funds for gas * price + value")
        if self.pool.at(sender, nonce) is not None:
            raise TransactionInvalid("replacement transaction underpriced")
        if len(self.pool) >= MAX_WAITING:
            raise TransactionInvalid("txpool is full")
        self.pool.add(Waiting(tx_hash, sender, nonce, int(transaction.gas), raw, transaction))
        return tx_hash

    @property
    def can_seal(self) -> bool:
        """Whether the pool holds a transaction whose turn it is."""
        state = self._head_state
        return any(self.pool.at(s, state.get_nonce(s)) is not None for s in self.pool.senders())

    def seal(self, *, empty: bool = False) -> int | None:
        """Seals what can run into one durable block; returns its number, None if there was
        nothing to seal. `empty` asks for a block in any case."""
        header = evm.next_header(self._head, int(self._now()))
        hashes = _ancestors(self.store, header.block_number)
        state = evm.state_at(
            self.store.state, header, self.genesis.chain_id, hashes, self.genesis.sealer
        )
        done = self._run(state)
        if not done and not empty:
            return None
        try:
            self._commit(header, state, done)
        except BaseException:
            self.store.state.discard()
            raise
        for waiting, _ in done:
            self.pool.remove(waiting)
        self._permissions.saw_events_of(
            {address for _, outcome in done for address, _, _ in outcome.logs}
        )
        return int(self._head.block_number)

    def _run(self, state: Any) -> list[tuple[Waiting, Outcome]]:
        done: list[tuple[Waiting, Outcome]] = []
        used = 0
        for sender in self.pool.senders():
            for waiting in list(self.pool.run_from(sender, state.get_nonce(sender))):
                if used + waiting.gas > self._head.gas_limit:
                    break
                try:
                    if not self._permissions.allows(sender):
                        raise TransactionInvalid("no longer permitted")
                    outcome = evm.execute(state, waiting.transaction, used)
                except TransactionInvalid as error:
                    _logger.warning("dropped 0x%s: %s", waiting.hash.hex(), error)
                    self.pool.remove(waiting)
                    break
                except Exception:
                    # A fault of the engine must not stop the chain: next time without it.
                    self.pool.remove(waiting)
                    raise
                used += outcome.gas_used
                done.append((waiting, outcome))
        return done

    def _commit(self, unsealed: Any, state: Any, done: list[tuple[Waiting, Outcome]]) -> None:
        state.persist()
        raws = [waiting.raw for waiting, _ in done]
        header = evm.seal(
            unsealed.copy(
                state_root=state.state_root,
                transaction_root=evm.list_root(raws),
                receipt_root=evm.list_root([outcome.receipt for _, outcome in done]),
                bloom=evm.merged_bloom(outcome.bloom for _, outcome in done),
                gas_used=sum(outcome.gas_used for _, outcome in done),
            ),
            self.genesis.sealer_key,
        )
        self.store.commit(
            self._row(header, raws),
            _transaction_rows(header.block_number, done),
            _log_rows(header.block_number, done),
        )
        self._head = header
        self._headers[header.block_number] = header
        self._head_state = self.state_at(header)


def _ancestors(store: ChainStore, number: int) -> Iterator[bytes]:
    """The hashes of the 256 blocks before a block, the nearest first; read once asked for."""
    yield from store.hashes_before(number, _ANCESTORS)


def _transaction_rows(number: int, done: list[tuple[Waiting, Outcome]]) -> list[TransactionRow]:
    rows: list[TransactionRow] = []
    cumulative = 0
    for position, (waiting, outcome) in enumerate(done):
        cumulative += outcome.gas_used
        rows.append(
            TransactionRow(
                hash=waiting.hash,
                block_number=number,
                position=position,
                raw=waiting.raw,
                sender=waiting.sender,
                status=0 if outcome.failure else 1,
                gas_used=outcome.gas_used,
                cumulative_gas=cumulative,
                contract=outcome.contract,
            )
        )
    return rows


def _log_rows(number: int, done: list[tuple[Waiting, Outcome]]) -> list[LogRow]:
    rows: list[LogRow] = []
    for position, (waiting, outcome) in enumerate(done):
        for address, topics, data in outcome.logs:
            rows.append(LogRow(number, len(rows), waiting.hash, position, address, topics, data))
    return rows
