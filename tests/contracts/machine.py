"""A world for the state machines: the contracts on py-evm in this process, without blocks or RPC.

Time, block number and chain id are what the test says they are. Each call is one message on the
state; a refused one changes nothing and comes back by the name of its error.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from eth.constants import BLANK_ROOT_HASH, CREATE_CONTRACT_ADDRESS
from eth.db.atomic import AtomicDB
from eth.db.backends.memory import MemoryDB
from eth.vm.execution_context import ExecutionContext
from eth.vm.forks.london import LondonVM
from eth.vm.forks.london.state import LondonState
from eth.vm.forks.london.transactions import LondonTransactionBuilder
from eth.vm.spoof import SpoofTransaction
from eth_abi.abi import decode, encode
from eth_hash.auto import keccak
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from nodes.chain.contracts import artifact, decode_revert, signature

#: How much longer the machines run than in `make test`; 50 for a campaign.
SCALE = float(os.environ.get("COUNTERSIGN_MACHINE_SCALE", "1"))
GAS = 5_000_000
START = 1_790_000_000
T = TypeVar("T")
Refusal = tuple[str, dict[str, object]]


def machine_settings(examples: int, steps: int) -> settings:
    """Settings of one state machine."""
    return settings(
        max_examples=max(1, int(examples * SCALE)),
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def evenly(choices: Sequence[T]) -> st.SearchStrategy[T]:
    """One of the choices, each about as often as another. Hypothesis's own sampled_from repeats
    itself on purpose, which leaves the rarer paths of a small run unseen."""
    listed = list(choices)

    def pick(number: int) -> T:
        mixed = hashlib.sha256(number.to_bytes(8, "big")).digest()
        return listed[int.from_bytes(mixed[:4], "big") % len(listed)]

    return st.integers(0, 2**64 - 1).map(pick)


@dataclass(frozen=True)
class Event:
    """A decoded event: its name and all arguments by name."""

    contract: bytes
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What a call led to: `refusal` is the error's name ("" if there is none); `gas` is what a
    transaction pays for it, its calldata included."""

    refusal: str
    arguments: dict[str, object]
    values: tuple[Any, ...]
    events: tuple[Event, ...]
    gas: int = 0

    @property
    def ok(self) -> bool:
        return not self.refusal


class Evm:
    """One state, driven call by call."""

    def __init__(self, chain_id: int = 31_337) -> None:
        self.chain_id = chain_id
        self.now = START
        self.number = 1_000
        self.deploy_gas = 0
        self._store: dict[bytes, bytes] = {}
        self._state = LondonState(AtomicDB(MemoryDB(self._store)), self._context(), BLANK_ROOT_HASH)
        self._names: dict[bytes, str] = {}

    def deploy(self, name: str, sender: bytes, *arguments: Any) -> Contract:
        """Deploys one of our contracts. AssertionError if its constructor refuses."""
        contract, answer = self.try_deploy(name, sender, *arguments)
        assert contract is not None, answer
        return contract

    def try_deploy(
        self, name: str, sender: bytes, *arguments: Any
    ) -> tuple[Contract | None, Refusal]:
        """(The contract, or None; how the constructor refused)."""
        compiled = artifact(name)
        entry = next(e for e in compiled.abi if e["type"] == "constructor")
        data = compiled.bytecode + encode(_types(entry["inputs"]), arguments)
        computation, self.deploy_gas = self._run(sender, CREATE_CONTRACT_ADDRESS, data, keep=True)
        if computation.is_error:
            return None, decode_revert(bytes(computation.output))
        address = bytes(computation.msg.storage_address)
        self._names[address] = name
        return Contract(self, name, address), ("", {})

    def call(
        self, contract: Contract, function: str, arguments: Sequence[Any], **how: Any
    ) -> Answer:
        """One message; `sender` and `keep` (whether its changes stay) by name."""
        entry = _functions(contract.name)[function]
        data = keccak(signature(entry).encode())[:4] + encode(_types(entry["inputs"]), arguments)
        computation, gas = self._run(how["sender"], contract.address, data, keep=how["keep"])
        output = bytes(computation.output)
        if computation.is_error:
            name, refused = decode_revert(output)
            return Answer(name, refused, (), (), gas)
        events = tuple(self._event(*log) for log in computation.get_log_entries())
        return Answer("", {}, decode(_types(entry["outputs"]), output), events, gas)

    def fork(self) -> Evm:
        """A copy that goes its own way; contracts are found there by `Contract.on`."""
        self._state.persist()
        copy = Evm.__new__(Evm)
        copy.chain_id, copy.now, copy.number = self.chain_id, self.now, self.number
        copy.deploy_gas = 0
        copy._names = dict(self._names)
        copy._store = dict(self._store)
        copy._state = LondonState(
            AtomicDB(MemoryDB(copy._store)), copy._context(), self._state.state_root
        )
        return copy

    def pass_time(self, seconds: int, blocks: int = 1) -> None:
        self.now += seconds
        self.number += blocks

    def block_hash(self, back: int = 1) -> bytes:
        """The hash of the block that many before the present one."""
        return _hash_of(self.number - back)

    def _run(self, sender: bytes, to: bytes, data: bytes, *, keep: bool) -> tuple[Any, int]:
        state = self._state
        state.execution_context = self._context()
        unsigned = LondonTransactionBuilder.create_unsigned_transaction(
            nonce=state.get_nonce(sender), gas_price=0, gas=GAS, to=to, value=0, data=data
        )
        state.lock_changes()
        snapshot = state.snapshot()
        transaction = SpoofTransaction(unsigned, from_=sender)
        computation = state.apply_transaction(transaction)
        if keep and not computation.is_error:
            state.commit(snapshot)
        else:
            state.revert(snapshot)
        return computation, LondonVM.finalize_gas_used(transaction, computation)

    def _context(self) -> ExecutionContext:
        hashes = (_hash_of(self.number - back) for back in range(1, 257))
        return ExecutionContext(
            coinbase=bytes(20),
            timestamp=self.now,
            block_number=self.number,
            difficulty=2,
            mix_hash=bytes(32),
            gas_limit=30_000_000,
            prev_hashes=hashes,
            chain_id=self.chain_id,
            base_fee_per_gas=0,
        )

    def _event(self, address: bytes, topics: Sequence[int], data: bytes) -> Event:
        name = self._names[bytes(address)]
        words = [topic.to_bytes(32, "big") for topic in topics]
        entry = _events(name)[words[0]]
        indexed = [part for part in entry["inputs"] if part["indexed"]]
        plain = [part for part in entry["inputs"] if not part["indexed"]]
        values = dict(zip((p["name"] for p in plain), decode(_types(plain), data), strict=True))
        for part, word in zip(indexed, words[1:], strict=True):
            values[part["name"]] = decode([str(part["type"])], word)[0]
        return Event(bytes(address), str(entry["name"]), values)


@dataclass(frozen=True)
class Contract:
    """A contract in an Evm."""

    evm: Evm
    name: str
    address: bytes

    def on(self, evm: Evm) -> Contract:
        """The same contract in a fork."""
        return Contract(evm, self.name, self.address)

    def send(self, sender: bytes, function: str, *arguments: Any) -> Answer:
        """A transaction."""
        return self.evm.call(self, function, arguments, sender=sender, keep=True)

    def ask(self, sender: bytes, function: str, *arguments: Any) -> Answer:
        """The same without keeping what it does."""
        return self.evm.call(self, function, arguments, sender=sender, keep=False)

    def view(self, function: str, *arguments: Any) -> Any:
        """What a view answers: one value, or a tuple of several."""
        answer = self.evm.call(self, function, arguments, sender=bytes(20), keep=False)
        assert answer.ok, answer
        return answer.values[0] if len(answer.values) == 1 else answer.values

    def must(self, sender: bytes, function: str, *arguments: Any) -> Answer:
        """A transaction that has to succeed."""
        answer = self.send(sender, function, *arguments)
        assert answer.ok, (function, answer)
        return answer


def _hash_of(number: int) -> bytes:
    return bytes(keccak(b"block %d" % number))


def _types(parts: Sequence[Any]) -> list[str]:
    listed = signature({"name": "", "inputs": parts})[1:-1]
    types, depth, start = [], 0, 0
    for place, character in enumerate(listed + ","):
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0 and place > start:
            types.append(listed[start:place])
            start = place + 1
    return types


def _functions(name: str) -> dict[str, Any]:
    return {e["name"]: e for e in artifact(name).abi if e["type"] == "function"}


def _events(name: str) -> dict[bytes, Any]:
    return {
        bytes(keccak(signature(e).encode())): e for e in artifact(name).abi if e["type"] == "event"
    }


def methods(name: str) -> set[str]:
    """The names of a contract's functions that change something."""
    return {
        function
        for function, entry in _functions(name).items()
        if entry["stateMutability"] not in ("view", "pure")
    }


def error_names(name: str) -> set[str]:
    """The names of what a contract refuses with."""
    return {str(entry["name"]) for entry in artifact(name).abi if entry["type"] == "error"}
