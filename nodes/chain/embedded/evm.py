"""Everything that touches py-evm: headers, transactions and their execution.

The rules are London's with a base fee of 0 (a chain with free gas); blocks look and are sealed as
clique's are (EIP-225): extraData is 32 bytes of vanity and the sealer's 65-byte signature.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import rlp
from eth.constants import BLANK_ROOT_HASH, CREATE_CONTRACT_ADDRESS, SECPK1_N
from eth.db.trie import make_trie_root_and_nodes
from eth.exceptions import Revert, VMError
from eth.vm.execution_context import ExecutionContext
from eth.vm.forks.london import LondonVM
from eth.vm.forks.london.blocks import LondonBlockHeader
from eth.vm.forks.london.state import LondonState
from eth.vm.forks.london.transactions import LondonTransactionBuilder
from eth.vm.spoof import SpoofTransaction
from eth_bloom.bloom import BloomFilter
from eth_hash.auto import keccak
from eth_keys.datatypes import PrivateKey, Signature
from eth_utils.exceptions import ValidationError
from rlp.exceptions import RLPException

from nodes.chain.embedded.genesis import Genesis
from nodes.chain.embedded.store import StateStore

VANITY = b"countersign".ljust(32, b"\0")
_SEAL_LENGTH = 65
_IN_TURN = 2  # clique's difficulty of the sealer whose turn it is; here it always is


class TransactionInvalid(Exception):
    """The transaction can't be executed at all; the message may be shown to its sender."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What executing a call or transaction led to. `output` is the return or revert data,
    `failure` names a failure ("" if there is none, "revert" if the contract refused)."""

    gas_used: int
    output: bytes
    failure: str
    logs: tuple[tuple[bytes, tuple[bytes, ...], bytes], ...]
    contract: bytes | None
    receipt: bytes = b""
    bloom: int = 0

    @property
    def out_of_gas(self) -> bool:
        return self.failure == "OutOfGas"


@dataclass(frozen=True, slots=True)
class Call:
    """The arguments of eth_call; `to` is None for a contract's creation."""

    sender: bytes
    to: bytes | None
    data: bytes
    value: int
    gas: int


# ---------------------------------------------------------------- headers


def genesis_header(genesis: Genesis, state_root: bytes) -> Any:
    """Block 0; the chain id stands in the vanity so that it is bound by the hash."""
    vanity = keccak(VANITY + genesis.chain_id.to_bytes(32, "big"))
    return LondonBlockHeader(
        difficulty=1,
        block_number=0,
        gas_limit=genesis.gas_limit,
        timestamp=genesis.timestamp,
        state_root=state_root,
        extra_data=vanity + genesis.sealer + bytes(_SEAL_LENGTH),
        nonce=bytes(8),
        base_fee_per_gas=0,
    )


def next_header(parent: Any, timestamp: int) -> Any:
    """The unsealed header of the block after `parent`."""
    return LondonBlockHeader(
        difficulty=_IN_TURN,
        block_number=parent.block_number + 1,
        gas_limit=parent.gas_limit,
        timestamp=max(timestamp, parent.timestamp),
        parent_hash=parent.hash,
        state_root=parent.state_root,
        extra_data=VANITY + bytes(_SEAL_LENGTH),
        nonce=bytes(8),
        base_fee_per_gas=0,
    )


def seal(header: Any, key: PrivateKey) -> Any:
    """The header with the sealer's signature over everything else."""
    signature = key.sign_msg_hash(_seal_hash(header))
    return header.copy(extra_data=header.extra_data[:-_SEAL_LENGTH] + signature.to_bytes())


def sealer_of(header: Any) -> bytes:
    """The address that sealed a block (not block 0)."""
    signature = Signature(header.extra_data[-_SEAL_LENGTH:])
    key = signature.recover_public_key_from_msg_hash(_seal_hash(header))
    return bytes(key.to_canonical_address())


def _seal_hash(header: Any) -> bytes:
    unsealed = header.copy(extra_data=header.extra_data[:-_SEAL_LENGTH])
    return bytes(keccak(rlp.encode(unsealed)))


def encode_header(header: Any) -> bytes:
    return bytes(rlp.encode(header))


def decode_header(encoded: bytes) -> Any:
    return rlp.decode(encoded, sedes=LondonBlockHeader)


def list_root(items: Sequence[bytes]) -> bytes:
    """The root of the trie over a block's encoded transactions or receipts."""
    if not items:
        return bytes(BLANK_ROOT_HASH)
    root, _ = make_trie_root_and_nodes(tuple(_Encoded(item) for item in items))
    return bytes(root)


class _Encoded:
    """What make_trie_root_and_nodes asks of an item, for one that is encoded already."""

    def __init__(self, encoded: bytes) -> None:
        self._encoded = encoded

    def encode(self) -> bytes:
        return self._encoded


# ---------------------------------------------------------------- transactions


def decode_transaction(raw: bytes, chain_id: int) -> Any:
    """A signed transaction (legacy, EIP-2930 or EIP-1559) for this chain."""
    try:
        transaction = LondonTransactionBuilder.decode(raw)
        transaction.validate()
        sender = transaction.sender
    except (ValidationError, RLPException, VMError, ValueError, TypeError, IndexError) as error:
        raise TransactionInvalid(f"invalid transaction: {_first_line(error)}") from error
    if transaction.encode() != raw or transaction.s > SECPK1_N // 2:
        raise TransactionInvalid("invalid transaction: not in its one canonical form")
    if len(sender) != 20 or transaction.chain_id != chain_id:
        # Without a chain id (before EIP-155) it could be replayed from another chain.
        raise TransactionInvalid("invalid chain id for signer")
    return transaction


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


# ---------------------------------------------------------------- execution


def state_at(
    store: StateStore, header: Any, chain_id: int, hashes: Iterable[bytes], coinbase: bytes
) -> Any:
    """The state that block `header`'s transactions run on, from the root that stands in it."""
    context = ExecutionContext(
        coinbase=coinbase,
        timestamp=header.timestamp,
        block_number=header.block_number,
        difficulty=header.difficulty,
        mix_hash=header.mix_hash,
        gas_limit=header.gas_limit,
        prev_hashes=hashes,
        chain_id=chain_id,
        base_fee_per_gas=0,
    )
    return LondonState(store, context, header.state_root)


def fund(store: StateStore, genesis: Genesis) -> bytes:
    """Writes the genesis balances; returns the state root."""
    header = genesis_header(genesis, BLANK_ROOT_HASH)
    state = state_at(store, header, genesis.chain_id, (), genesis.sealer)
    for address, balance in genesis.balances.items():
        state.set_balance(address, balance)
    state.persist()
    return bytes(state.state_root)


def execute(state: Any, transaction: Any, cumulative_gas: int) -> Outcome:
    """Runs one transaction of a block on `state`. TransactionInvalid if it may not run."""
    state.lock_changes()
    try:
        computation = state.apply_transaction(transaction)
    except ValidationError as error:
        raise TransactionInvalid(_first_line(error)) from error
    gas_used = LondonVM.finalize_gas_used(transaction, computation)
    created = not computation.is_error and transaction.to == CREATE_CONTRACT_ADDRESS
    entries = () if computation.is_error else computation.get_log_entries()
    status = b"" if computation.is_error else b"\x01"
    receipt = transaction.make_receipt(status, cumulative_gas + gas_used, entries)
    return Outcome(
        gas_used=gas_used,
        output=bytes(computation.output),
        failure=_failure(computation),
        logs=_logs(entries),
        contract=bytes(computation.msg.storage_address) if created else None,
        receipt=bytes(receipt.encode()),
        bloom=int(receipt.bloom),
    )


def call(state: Any, wanted: Call) -> Outcome:
    """Runs a call on a state that nobody keeps. The gas price is 0, whatever the caller names:
    whoever asks need not own anything."""
    unsigned = LondonTransactionBuilder.create_unsigned_transaction(
        nonce=state.get_nonce(wanted.sender),
        gas_price=0,
        gas=wanted.gas,
        to=CREATE_CONTRACT_ADDRESS if wanted.to is None else wanted.to,
        value=wanted.value,
        data=wanted.data,
    )
    if wanted.gas < unsigned.intrinsic_gas:
        raise TransactionInvalid("intrinsic gas too low")
    transaction = SpoofTransaction(unsigned, from_=wanted.sender)
    snapshot = state.snapshot()
    try:
        computation = state.apply_transaction(transaction)
    except ValidationError as error:
        raise TransactionInvalid(_first_line(error)) from error
    finally:
        state.revert(snapshot)
    return Outcome(
        gas_used=LondonVM.finalize_gas_used(transaction, computation),
        output=bytes(computation.output),
        failure=_failure(computation),
        logs=(),
        contract=None,
    )


def intrinsic_gas(wanted: Call) -> int:
    """What a call costs before anything runs."""
    unsigned = LondonTransactionBuilder.create_unsigned_transaction(
        nonce=0,
        gas_price=0,
        gas=wanted.gas,
        to=CREATE_CONTRACT_ADDRESS if wanted.to is None else wanted.to,
        value=wanted.value,
        data=wanted.data,
    )
    return int(unsigned.intrinsic_gas)


def block_size(encoded_header: bytes, transactions: Sequence[bytes]) -> int:
    """The length of the encoded block."""
    items = [rlp.decode(raw) if raw[0] >= 0xC0 else raw for raw in transactions]
    return len(rlp.encode([rlp.decode(encoded_header), items, []]))


def bloom_of(address: bytes, topics: Iterable[bytes]) -> int:
    """The bloom of one log."""
    return int(BloomFilter.from_iterable((address, *topics)))


def merged_bloom(blooms: Iterable[int]) -> int:
    """A block's bloom out of its receipts'."""
    merged = BloomFilter(0)
    for bloom in blooms:
        merged |= BloomFilter(bloom)
    return int(merged)


def _failure(computation: Any) -> str:
    if not computation.is_error:
        return ""
    if isinstance(computation.error, Revert):
        return "revert"
    return type(computation.error).__name__


def _logs(entries: Iterable[Any]) -> tuple[tuple[bytes, tuple[bytes, ...], bytes], ...]:
    return tuple(
        (bytes(address), tuple(topic.to_bytes(32, "big") for topic in topics), bytes(data))
        for address, topics, data in entries
    )
