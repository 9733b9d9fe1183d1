"""How blocks, transactions, receipts and logs look in JSON. What is sealed never changes, so what
was shown once is kept."""

from __future__ import annotations

from typing import Any

from lru import LRU

from nodes.chain.embedded import evm
from nodes.chain.embedded.engine import Engine
from nodes.chain.embedded.store import LogRow, TransactionRow

_LEGACY, _DYNAMIC_FEE = 0, 2


class Reader:
    """Reads an engine's chain as JSON objects."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._blocks: Any = LRU(2_048)
        self._receipts: Any = LRU(4_096)
        self._hashes: Any = LRU(8_192)

    def number_of(self, block_hash: bytes) -> int | None:
        """The number of the block with this hash."""
        row = self._engine.store.block_by_hash(block_hash)
        return None if row is None else row.number

    def hash_of(self, number: int) -> str:
        """The hash of a block that exists, in hexadecimal."""
        found: str | None = self._hashes.get(number)
        if found is None:
            found = self._hashes[number] = _hex(self._engine.header(number).hash)  # type: ignore[union-attr]
        return found

    def block(self, number: int, full: bool) -> dict[str, Any] | None:
        """A block, with its transactions or their hashes alone."""
        key = (number, full)
        found: dict[str, Any] | None = self._blocks.get(key)
        if found is None:
            row = self._engine.store.block(number)
            if row is None:
                return None
            found = self._blocks[key] = _block(
                self._engine.header(number),
                row.size,
                [
                    self._sealed(transaction) if full else _hex(transaction.hash)
                    for transaction in self._engine.store.transactions(number)
                ],
            )
        return found

    def transaction(self, tx_hash: bytes) -> dict[str, Any] | None:
        """A transaction, sealed or waiting."""
        row = self._engine.store.transaction(tx_hash)
        if row is not None:
            return self._sealed(row)
        waiting = self._engine.pool.get(tx_hash)
        if waiting is None:
            return None
        shown = _transaction(waiting.transaction, waiting.hash, waiting.sender)
        return shown | {"blockHash": None, "blockNumber": None, "transactionIndex": None}

    def _sealed(self, row: TransactionRow) -> dict[str, Any]:
        transaction = evm.decode_transaction(row.raw, self._engine.genesis.chain_id)
        return _transaction(transaction, row.hash, row.sender) | {
            "blockHash": self.hash_of(row.block_number),
            "blockNumber": hex(row.block_number),
            "transactionIndex": hex(row.position),
        }

    def receipt(self, tx_hash: bytes) -> dict[str, Any] | None:
        """A sealed transaction's receipt."""
        found: dict[str, Any] | None = self._receipts.get(tx_hash)
        if found is None:
            row = self._engine.store.transaction(tx_hash)
            if row is not None:
                found = self._receipts[tx_hash] = self._receipt(row)
        return found

    def receipts(self, number: int) -> list[dict[str, Any]]:
        """The receipts of a block that exists."""
        return [self._receipt(row) for row in self._engine.store.transactions(number)]

    def _receipt(self, row: TransactionRow) -> dict[str, Any]:
        transaction = evm.decode_transaction(row.raw, self._engine.genesis.chain_id)
        logs = self._engine.store.logs_of(row.block_number, row.position)
        return {
            "transactionHash": _hex(row.hash),
            "transactionIndex": hex(row.position),
            "blockHash": self.hash_of(row.block_number),
            "blockNumber": hex(row.block_number),
            "from": _hex(row.sender),
            "to": _hex(transaction.to) if transaction.to else None,
            "cumulativeGasUsed": hex(row.cumulative_gas),
            "gasUsed": hex(row.gas_used),
            "contractAddress": None if row.contract is None else _hex(row.contract),
            "logs": self.logs(logs),
            "logsBloom": _bloom(
                evm.merged_bloom(evm.bloom_of(log.address, log.topics) for log in logs)
            ),
            "type": hex(_type(transaction)),
            "status": hex(row.status),
            "effectiveGasPrice": hex(_price(transaction)),
        }

    def logs(self, rows: list[LogRow]) -> list[dict[str, Any]]:
        """Events."""
        return [
            {
                "address": _hex(row.address),
                "topics": [_hex(topic) for topic in row.topics],
                "data": _hex(row.data),
                "blockNumber": hex(row.block_number),
                "blockHash": self.hash_of(row.block_number),
                "transactionHash": _hex(row.tx_hash),
                "transactionIndex": hex(row.position),
                "logIndex": hex(row.log_index),
                "removed": False,
            }
            for row in rows
        ]


def _block(header: Any, size: int, transactions: list[Any]) -> dict[str, Any]:
    return {
        "number": hex(header.block_number),
        "hash": _hex(header.hash),
        "parentHash": _hex(header.parent_hash),
        "nonce": _hex(header.nonce),
        "mixHash": _hex(header.mix_hash),
        "sha3Uncles": _hex(header.uncles_hash),
        "logsBloom": _bloom(header.bloom),
        "transactionsRoot": _hex(header.transaction_root),
        "stateRoot": _hex(header.state_root),
        "receiptsRoot": _hex(header.receipt_root),
        "miner": _hex(header.coinbase),
        "difficulty": hex(header.difficulty),
        "extraData": _hex(header.extra_data),
        "size": hex(size),
        "gasLimit": hex(header.gas_limit),
        "gasUsed": hex(header.gas_used),
        "timestamp": hex(header.timestamp),
        "baseFeePerGas": hex(header.base_fee_per_gas),
        "transactions": transactions,
        "uncles": [],
    }


def _transaction(transaction: Any, tx_hash: bytes, sender: bytes) -> dict[str, Any]:
    kind = _type(transaction)
    shown: dict[str, Any] = {
        "hash": _hex(tx_hash),
        "type": hex(kind),
        "chainId": hex(transaction.chain_id),
        "nonce": hex(transaction.nonce),
        "from": _hex(sender),
        "to": _hex(transaction.to) if transaction.to else None,
        "value": hex(transaction.value),
        "gas": hex(transaction.gas),
        "gasPrice": hex(_price(transaction)),
        "input": _hex(transaction.data),
        "v": hex(transaction.v if kind == _LEGACY else transaction.y_parity),
        "r": hex(transaction.r),
        "s": hex(transaction.s),
    }
    if kind != _LEGACY:
        shown["yParity"] = hex(transaction.y_parity)
        shown["accessList"] = [
            {"address": _hex(account), "storageKeys": [f"0x{slot:064x}" for slot in slots]}
            for account, slots in transaction.access_list
        ]
    if kind == _DYNAMIC_FEE:
        shown["maxFeePerGas"] = hex(transaction.max_fee_per_gas)
        shown["maxPriorityFeePerGas"] = hex(transaction.max_priority_fee_per_gas)
    return shown


def _type(transaction: Any) -> int:
    return int(getattr(transaction, "type_id", None) or _LEGACY)


def _price(transaction: Any) -> int:
    """What a gas costs with a base fee of 0."""
    return int(min(transaction.max_fee_per_gas, transaction.max_priority_fee_per_gas))


def _hex(value: bytes) -> str:
    return "0x" + bytes(value).hex()


def _bloom(value: int) -> str:
    return f"0x{value:0512x}"
