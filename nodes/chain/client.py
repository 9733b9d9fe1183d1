"""A node's way to its chain: JSON-RPC of any EVM client, through web3.py.

Errors are those of nodes.chain.errors; no web3 or requests exception leaves this module.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import requests
from eth_hash.auto import keccak
from web3 import HTTPProvider, Web3
from web3.contract import Contract
from web3.exceptions import (
    BadFunctionCallOutput,
    BlockNotFound,
    ContractLogicError,
    TransactionNotFound,
    Web3Exception,
    Web3RPCError,
)
from web3.middleware import ExtraDataToPOAMiddleware
from web3.types import FilterParams, LogReceipt, RPCEndpoint, TxReceipt

from nodes.chain.contracts import artifact, decode_revert
from nodes.chain.errors import (
    ChainError,
    ChainRefused,
    ChainReverted,
    ChainUnavailable,
    WrongChain,
)

__all__ = [
    "Block",
    "ChainClient",
    "ChainError",
    "ChainRefused",
    "ChainReverted",
    "ChainUnavailable",
    "Log",
    "Receipt",
    "WrongChain",
]

BlockTag = int | Literal["latest"]

# Servers bound how many blocks one eth_getLogs may span; this is within all common limits.
LOG_RANGE = 2_000


@dataclass(frozen=True, slots=True)
class Block:
    """A block's head: hashes are 32 bytes, timestamp in seconds since the Unix epoch."""

    number: int
    hash: bytes
    parent_hash: bytes
    timestamp: int


@dataclass(frozen=True, slots=True)
class Log:
    """One event as the chain returns it."""

    address: str
    topics: tuple[bytes, ...]
    data: bytes
    block_number: int
    block_hash: bytes
    tx_hash: bytes
    log_index: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a transaction; `ok` is false if it reverted."""

    tx_hash: bytes
    ok: bool
    block_number: int
    block_hash: bytes
    gas_used: int
    contract_address: str | None
    logs: tuple[Log, ...]


class ChainClient:
    """One RPC server. Thread-safe; each call waits for at most about `timeout_s` seconds.

    `finality_depth`: how many blocks, a transaction's own included, make it final (1 where
    inclusion is final, as on QBFT and the embedded chain; N/2 + 1 or more on clique).
    """

    def __init__(self, rpc_url: str, *, finality_depth: int = 1, timeout_s: float = 5.0) -> None:
        if finality_depth < 1:
            raise ValueError("finality_depth counts the transaction's own block")
        self.rpc_url = rpc_url
        self.finality_depth = finality_depth
        provider = HTTPProvider(
            rpc_url, request_kwargs={"timeout": timeout_s}, exception_retry_configuration=None
        )
        # A contract must not be able to send this process to a URL of its choice (EIP-3668).
        provider.global_ccip_read_enabled = False
        self._web3 = Web3(provider)
        onion = self._web3.middleware_onion
        onion.inject(ExtraDataToPOAMiddleware, layer=0)
        # It asks for the chain's id before each call. Ours name theirs, and the chain refuses
        # transactions of another one; names (ENS), gas and prices are given, not looked up.
        for name in ("validation", "ens_name_to_address", "gas_estimate", "gas_price_strategy"):
            onion.remove(name)

    # -- the chain

    def chain_id(self) -> int:
        """The EIP-155 chain id."""
        with _translated_errors():
            return int(self._web3.eth.chain_id)

    def genesis_hash(self) -> bytes:
        """The hash of block 0: tells a wiped chain from the one that was known."""
        return self.block(0).hash

    def block_number(self) -> int:
        """The number of the newest block."""
        with _translated_errors():
            return int(self._web3.eth.get_block_number())

    def block(self, number: BlockTag = "latest") -> Block:
        """A block's head. ChainRefused if there is none of that number yet."""
        with _translated_errors():
            found = self._web3.eth.get_block(cast(Any, number))
            return Block(
                int(found["number"]),
                bytes(found["hash"]),
                bytes(found["parentHash"]),
                int(found["timestamp"]),
            )

    def is_final(self, block_number: int, block_hash: bytes) -> bool:
        """Whether this block is on the chain, deep enough to stay there."""
        if self.block_number() - block_number + 1 < self.finality_depth:
            return False
        try:
            return self.block(block_number).hash == block_hash
        except ChainRefused:
            return False

    def recent_block(self) -> Block:
        """The block before the newest one.

        Its hash is what an anchor names as recent: in eth_call some clients run with the newest
        block's own number, where BLOCKHASH knows only the blocks before.
        """
        return self.block(max(self.block_number() - 1, 0))

    def gas_price(self) -> int:
        """The price that the server suggests, in wei; 0 on a chain with free gas."""
        with _translated_errors():
            return int(self._web3.eth.gas_price)

    # -- accounts and code

    def code(self, address: str) -> bytes:
        """The contract's code; empty if there is none."""
        with _translated_errors():
            return bytes(self._web3.eth.get_code(Web3.to_checksum_address(address)))

    def code_hash(self, address: str) -> bytes:
        """Keccak-256 of the contract's code."""
        return bytes(keccak(self.code(address)))

    def nonce(self, address: str) -> int:
        """The number of the account's next transaction, mined ones counted alone."""
        with _translated_errors():
            return int(self._web3.eth.get_transaction_count(Web3.to_checksum_address(address)))

    def next_nonce(self, address: str) -> int:
        """The same, with the waiting ones that follow without a gap counted too."""
        with _translated_errors():
            return int(
                self._web3.eth.get_transaction_count(Web3.to_checksum_address(address), "pending")
            )

    # -- transactions

    def send_raw(self, raw: bytes) -> bytes:
        """Broadcasts a signed transaction; returns its hash.

        Sending the same bytes again is no error, whether it waits or is mined already.
        """
        tx_hash = bytes(keccak(raw))
        try:
            with _translated_errors():
                return bytes(self._web3.eth.send_raw_transaction(raw))
        except (ChainRefused, ChainReverted):
            if self.is_known(tx_hash):
                return tx_hash
            raise

    def is_known(self, tx_hash: bytes) -> bool:
        """Whether the server holds this transaction, waiting or mined."""
        with _translated_errors():
            try:
                return bool(self._web3.eth.get_transaction(cast(Any, tx_hash)))
            except TransactionNotFound:
                return False

    def receipt(self, tx_hash: bytes) -> Receipt | None:
        """The receipt of a mined transaction; None while there is none."""
        with _translated_errors():
            try:
                return _receipt(self._web3.eth.get_transaction_receipt(cast(Any, tx_hash)))
            except TransactionNotFound:
                return None

    def wait_for_receipt(self, tx_hash: bytes, timeout_s: float = 30.0) -> Receipt:
        """Polls until the transaction stands in a final block (`finality_depth`; with 1 in any): a
        receipt can be undone with its block before. ChainUnavailable when the time is over."""
        deadline = time.monotonic() + timeout_s
        pause = 0.01
        while True:
            found = self.receipt(tx_hash)
            if found is not None and (
                self.finality_depth == 1 or self.is_final(found.block_number, found.block_hash)
            ):
                return found
            if time.monotonic() > deadline:
                raise ChainUnavailable(f"0x{tx_hash.hex()} is not final after {timeout_s} s")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.25)

    def revert_of(self, tx_hash: bytes) -> ChainReverted:
        """Why a mined transaction reverted: its call repeated on the state before its block, and
        if it was another transaction of the same block that stood in its way, after it."""
        with _translated_errors():
            sent = self._web3.eth.get_transaction(cast(Any, tx_hash))
        call = {"from": sent["from"], "data": sent["input"], "gas": sent["gas"]}
        if sent.get("to"):
            call["to"] = sent["to"]
        for number in (sent["blockNumber"] - 1, sent["blockNumber"]):
            try:
                with _translated_errors():
                    self._web3.eth.call(cast(Any, call), cast(Any, number))
            except ChainReverted as reverted:
                return reverted
        return ChainReverted("Unnamed")

    # -- events and contracts

    def logs(
        self,
        address: str,
        from_block: int,
        to_block: int,
        topics: Sequence[bytes | None] = (),
    ) -> Iterator[Log]:
        """The contract's events of the blocks from `from_block` to `to_block`, both included, in
        the chain's order, fetched in bounded ranges."""
        contract = Web3.to_checksum_address(address)
        wanted = [None if topic is None else "0x" + topic.hex() for topic in topics]
        for start in range(from_block, to_block + 1, LOG_RANGE):
            query = {
                "address": contract,
                "fromBlock": start,
                "toBlock": min(start + LOG_RANGE - 1, to_block),
                "topics": wanted,
            }
            with _translated_errors():
                page = self._web3.eth.get_logs(cast(FilterParams, query))
            yield from map(_log, page)

    def contract(self, name: str, address: str) -> Contract:
        """web3.py's contract object of one of our contracts; read it through `read`."""
        return self._web3.eth.contract(
            address=Web3.to_checksum_address(address), abi=artifact(name).abi
        )

    def read(self, function: Any, block: BlockTag = "latest", sender: str = "") -> Any:
        """The answer of a contract's function as of a block, e.g.
        read(contract.functions.memberCount()). ChainReverted if it refuses, WrongChain if there
        is no such contract."""
        transaction = {"from": sender} if sender else {}
        with _translated_errors():
            return function.call(transaction, block_identifier=block)

    def simulate(self, transaction: dict[str, Any]) -> None:
        """Runs an unsigned transaction without sending it. ChainReverted if it would revert."""
        fields = ("from", "to", "data", "value", "gas")
        call = {name: transaction[name] for name in fields if name in transaction}
        with _translated_errors():
            self._web3.eth.call(cast(Any, call))

    def estimate_gas(self, transaction: dict[str, Any]) -> int:
        """What the transaction would use. ChainReverted if it would revert."""
        with _translated_errors():
            return int(self._web3.eth.estimate_gas(cast(Any, transaction)))

    def request(self, method: str, params: Sequence[Any]) -> Any:
        """A bare JSON-RPC call: its result as JSON. ChainRefused with the server's message."""
        with _translated_errors():
            answer = self._web3.provider.make_request(RPCEndpoint(method), list(params))
        if "error" in answer:
            error = cast(dict[str, Any], answer["error"])
            raise ChainRefused(str(error.get("message")), error.get("code"))
        return answer["result"]


def _log(entry: LogReceipt) -> Log:
    return Log(
        address=str(entry["address"]),
        topics=tuple(bytes(topic) for topic in entry["topics"]),
        data=bytes(entry["data"]),
        block_number=int(entry["blockNumber"]),
        block_hash=bytes(entry["blockHash"]),
        tx_hash=bytes(entry["transactionHash"]),
        log_index=int(entry["logIndex"]),
    )


def _receipt(entry: TxReceipt) -> Receipt:
    return Receipt(
        tx_hash=bytes(entry["transactionHash"]),
        ok=entry["status"] == 1,
        block_number=int(entry["blockNumber"]),
        block_hash=bytes(entry["blockHash"]),
        gas_used=int(entry["gasUsed"]),
        contract_address=entry["contractAddress"],
        logs=tuple(_log(log) for log in entry["logs"]),
    )


def _revert(error: ContractLogicError) -> ChainReverted:
    data = error.data if isinstance(error.data, str) else ""
    data = data.removeprefix("Reverted ").removeprefix("0x")
    try:
        return ChainReverted(*decode_revert(bytes.fromhex(data)))
    except ValueError:
        return ChainReverted("Unnamed")


@contextmanager
def _translated_errors() -> Iterator[None]:
    """Turns web3's and the transport's exceptions into this package's."""
    try:
        yield
    except ContractLogicError as error:
        raise _revert(error) from None
    except BadFunctionCallOutput as error:
        raise WrongChain("the address holds no such contract on this chain") from error
    except (BlockNotFound, TransactionNotFound) as error:
        raise ChainRefused(str(error)) from error
    except Web3RPCError as error:
        response = error.rpc_response or {}
        details = cast(dict[str, Any], response.get("error") or {})
        raise ChainRefused(str(details.get("message", error)), details.get("code")) from error
    except requests.RequestException as error:
        raise ChainUnavailable(f"no answer from the chain: {type(error).__name__}") from error
    except (Web3Exception, json.JSONDecodeError, KeyError) as error:
        raise ChainUnavailable(f"no sensible answer from the chain: {error}") from error
