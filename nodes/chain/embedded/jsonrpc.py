"""JSON-RPC 2.0 with Ethereum's methods (ethereum/execution-apis), as far as clients need them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import msgspec
from eth_hash.auto import keccak

from nodes.chain.embedded import present
from nodes.chain.embedded.engine import Engine
from nodes.chain.embedded.evm import Outcome, TransactionInvalid
from nodes.chain.embedded.params import (
    InvalidParams,
    address,
    arity,
    call_of,
    data,
    log_filter,
    quantity,
    word,
)

_logger = logging.getLogger(__name__)

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
SERVER_ERROR = -32000  # geth's code for what a transaction or state lookup is refused with
LIMIT_EXCEEDED = -32005  # EIP-1474
REVERTED = 3  # geth's code for a contract's refusal, with its data

MAX_BATCH = 1_000
MAX_LOGS = 10_000
CLIENT_VERSION = "countersign-embedded/1"

_encoder = msgspec.json.Encoder()


class RpcError(Exception):
    """An error object of JSON-RPC."""

    def __init__(self, code: int, message: str, data: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


class JsonRpc:
    """Answers request bodies out of one engine; runs in the engine's thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reader = present.Reader(engine)
        self._methods: dict[str, Callable[[list[Any]], Any]] = {
            "eth_accounts": lambda params: [],
            "eth_blockNumber": self._block_number,
            "eth_call": self._call,
            "eth_chainId": self._chain_id,
            "eth_estimateGas": self._estimate_gas,
            "eth_feeHistory": self._fee_history,
            "eth_gasPrice": lambda params: "0x0",
            "eth_getBalance": self._balance,
            "eth_getBlockByHash": self._block_by_hash,
            "eth_getBlockByNumber": self._block_by_number,
            "eth_getBlockReceipts": self._block_receipts,
            "eth_getCode": self._code,
            "eth_getLogs": self._logs,
            "eth_getStorageAt": self._storage,
            "eth_getTransactionByHash": self._transaction,
            "eth_getTransactionCount": self._transaction_count,
            "eth_getTransactionReceipt": self._receipt,
            "eth_maxPriorityFeePerGas": lambda params: "0x0",
            "eth_sendRawTransaction": self._send_raw,
            "eth_syncing": lambda params: False,
            "net_listening": lambda params: True,
            "net_peerCount": lambda params: "0x0",
            "net_version": lambda params: str(engine.genesis.chain_id),
            "web3_clientVersion": lambda params: CLIENT_VERSION,
        }

    def answer(self, body: bytes) -> bytes:
        """The answer to a request's body, single or batch; b"" if nothing is to be answered."""
        try:
            request = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return _encoder.encode(_failure(None, RpcError(PARSE_ERROR, "not JSON")))
        if isinstance(request, list):
            if not 0 < len(request) <= MAX_BATCH:
                error = RpcError(INVALID_REQUEST, f"a batch has 1 to {MAX_BATCH} requests")
                return _encoder.encode(_failure(None, error))
            answers = [answer for entry in request if (answer := self._one(entry)) is not None]
            return _encoder.encode(answers) if answers else b""
        answer = self._one(request)
        return b"" if answer is None else _encoder.encode(answer)

    def _one(self, request: Any) -> dict[str, Any] | None:
        request_id = request.get("id") if isinstance(request, dict) else None
        try:
            result = self._dispatch(request)
        except RpcError as error:
            return _failure(request_id, error)
        except InvalidParams as error:
            return _failure(request_id, RpcError(INVALID_PARAMS, str(error)))
        except TransactionInvalid as error:
            return _failure(request_id, RpcError(SERVER_ERROR, str(error)))
        except Exception:
            # One bad request must not end the chain; what it was is in the log.
            _logger.exception("a request failed")
            return _failure(request_id, RpcError(INTERNAL_ERROR, "internal error"))
        if "id" not in request:
            return None
        return {"jsonrpc": "2.0", "id": request_id, "result": result}

    def _dispatch(self, request: Any) -> Any:
        if not isinstance(request, dict) or not isinstance(request.get("method"), str):
            raise RpcError(INVALID_REQUEST, "not a JSON-RPC request")
        params = request.get("params", [])
        if not isinstance(params, list):
            raise InvalidParams("params must be a list")
        method = self._methods.get(request["method"])
        if method is None:
            raise RpcError(METHOD_NOT_FOUND, f"the method {request['method']} does not exist")
        return method(params)

    # -- the chain

    def _chain_id(self, params: list[Any]) -> str:
        return hex(self._engine.genesis.chain_id)

    def _block_number(self, params: list[Any]) -> str:
        return hex(self._engine.head.block_number)

    def _number(self, tag: Any) -> int | None:
        """The number that a block tag means; None if there is no such block."""
        head = int(self._engine.head.block_number)
        if isinstance(tag, dict):
            if "blockHash" in tag:
                return self._reader.number_of(word(tag["blockHash"]))
            tag = tag.get("blockNumber")
        if tag in ("latest", "pending", "safe", "finalized", None):
            return head
        if tag == "earliest":
            return 0
        number = quantity(tag)
        return number if number <= head else None

    def _header(self, tag: Any) -> Any:
        number = self._number(tag)
        header = None if number is None else self._engine.header(number)
        if header is None:
            raise RpcError(SERVER_ERROR, "header not found")
        return header

    def _block_by_number(self, params: list[Any]) -> Any:
        arity(params, 1, 2)
        number = self._number(params[0])
        return None if number is None else self._reader.block(number, params[1:] == [True])

    def _block_by_hash(self, params: list[Any]) -> Any:
        arity(params, 1, 2)
        number = self._reader.number_of(word(params[0]))
        return None if number is None else self._reader.block(number, params[1:] == [True])

    def _block_receipts(self, params: list[Any]) -> Any:
        arity(params, 1, 1)
        number = self._number(params[0])
        return None if number is None else self._reader.receipts(number)

    def _fee_history(self, params: list[Any]) -> Any:
        arity(params, 2, 3)
        newest = self._header(params[1]).block_number
        count = min(quantity(params[0]), newest + 1, 1_024)
        headers = [self._header(hex(newest - back)) for back in reversed(range(count))]
        history: dict[str, Any] = {
            "oldestBlock": hex(newest - count + 1),
            "baseFeePerGas": ["0x0"] * (count + 1),
            "gasUsedRatio": [header.gas_used / header.gas_limit for header in headers],
        }
        if len(params) == 3 and params[2]:
            history["reward"] = [["0x0"] * len(params[2])] * count
        return history

    # -- accounts

    def _state(self, params: list[Any], place: int) -> Any:
        header = self._header(params[place] if len(params) > place else None)
        if header is self._engine.head:
            return self._engine.head_state
        return self._engine.state_at(header)

    def _balance(self, params: list[Any]) -> str:
        arity(params, 1, 2)
        return hex(self._state(params, 1).get_balance(address(params[0])))

    def _code(self, params: list[Any]) -> str:
        arity(params, 1, 2)
        return "0x" + bytes(self._state(params, 1).get_code(address(params[0]))).hex()

    def _storage(self, params: list[Any]) -> str:
        arity(params, 2, 3)
        slot = quantity(params[1], leading_zeros=True)
        return f"0x{self._state(params, 2).get_storage(address(params[0]), slot):064x}"

    def _transaction_count(self, params: list[Any]) -> str:
        arity(params, 1, 2)
        account = address(params[0])
        if params[1:] == ["pending"]:
            return hex(self._engine.pending_nonce(account))
        return hex(self._state(params, 1).get_nonce(account))

    # -- calls

    def _call(self, params: list[Any]) -> str:
        arity(params, 1, 2)
        header = self._header(params[1] if len(params) > 1 else None)
        outcome = self._engine.call(call_of(params[0], header.gas_limit), header)
        _raise_failure(outcome)
        return "0x" + outcome.output.hex()

    def _estimate_gas(self, params: list[Any]) -> str:
        arity(params, 1, 2)
        header = self._header(params[1] if len(params) > 1 else None)
        gas, outcome = self._engine.estimate(call_of(params[0], header.gas_limit), header)
        _raise_failure(outcome)
        return hex(gas)

    # -- transactions and logs

    def _send_raw(self, params: list[Any]) -> str:
        arity(params, 1, 1)
        return "0x" + self._engine.submit(data(params[0])).hex()

    def _transaction(self, params: list[Any]) -> Any:
        arity(params, 1, 1)
        return self._reader.transaction(word(params[0]))

    def _receipt(self, params: list[Any]) -> Any:
        arity(params, 1, 1)
        return self._reader.receipt(word(params[0]))

    def _logs(self, params: list[Any]) -> list[dict[str, Any]]:
        arity(params, 1, 1)
        wanted = log_filter(params[0], self._number, int(self._engine.head.block_number))
        rows = self._engine.store.logs(wanted, MAX_LOGS + 1)
        if len(rows) > MAX_LOGS:
            raise RpcError(LIMIT_EXCEEDED, f"query returned more than {MAX_LOGS} results")
        return self._reader.logs(rows)


def _raise_failure(outcome: Outcome) -> None:
    if outcome.failure == "revert":
        output = "0x" + outcome.output.hex()
        raise RpcError(REVERTED, "execution reverted" + _reason(outcome.output), output)
    if outcome.out_of_gas:
        raise RpcError(SERVER_ERROR, "out of gas")
    if outcome.failure:
        raise RpcError(SERVER_ERROR, f"execution failed: {outcome.failure}")


def _reason(output: bytes) -> str:
    """The text of Error(string), as other clients put it into the message."""
    if output[:4] != keccak(b"Error(string)")[:4] or len(output) < 68:
        return ""
    length = int.from_bytes(output[36:68], "big")
    return ": " + output[68 : 68 + length].decode("utf-8", "replace")


def _failure(request_id: Any, error: RpcError) -> dict[str, Any]:
    content: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.data is not None:
        content["data"] = error.data
    return {"jsonrpc": "2.0", "id": request_id, "error": content}
