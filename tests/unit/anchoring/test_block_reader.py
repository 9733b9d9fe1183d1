"""Blocks put into RLP again from JSON: by what a GoQuorum validator really answered."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from eth_account import Account

from nodes.anchoring import block_reader
from nodes.anchoring.block_reader import BlockReader
from nodes.anchoring.bundle import MAX_BYTES, parse_bundle
from nodes.anchoring.verifier import verify
from nodes.chain.errors import ChainError, ChainRefused, ChainUnavailable
from sandbox.campaigns.sealed_bundles import DIRECTORY, recorded

ANSWERS = json.loads((DIRECTORY / "qbft-rpc.json").read_text(encoding="ascii"))["answers"]
LISTED = [{"address": "0x" + "22" * 20, "storageKeys": ["0x" + "33" * 32, "0x" + "44" * 32]}]
SEALED = recorded("qbft").bundles[1]
BLOCK, GENESIS = "eth_getBlockByHash", "eth_getBlockByNumber"


def without_block(raw: bytes) -> bytes:
    bundle = parse_bundle(raw)
    return replace(bundle, evidence=replace(bundle.evidence, block=None)).encode()


class Answers:
    """The chain as it answered, or as `changed` says."""

    def __init__(self, changed: dict[str, Any] | None = None) -> None:
        self.asked: list[str] = []
        self.changed = changed or {}
        self.fails: ChainError | None = None

    def request(self, method: str, params: Sequence[Any]) -> Any:
        self.asked.append(method)
        if self.fails:
            raise self.fails
        answer = copy.deepcopy(ANSWERS[json.dumps([method, *params])])
        if method in self.changed:
            answer = self.changed[method](answer)
        if isinstance(answer, dict) and "refused" in answer:
            raise ChainRefused(answer["refused"])
        return answer


def test_a_real_block_is_read_once_and_proves_the_anchor() -> None:
    chain = Answers()
    reader = BlockReader(chain)
    assert reader.sealed(without_block(SEALED)) == SEALED
    assert verify(SEALED, recorded("qbft").trust).ok
    asked = len(chain.asked)
    assert reader.sealed(without_block(SEALED)) == SEALED
    assert len(chain.asked) == asked


def test_an_engine_that_gives_all_receipts_at_once_is_asked_once() -> None:
    receipts = [ANSWERS[key] for key in ANSWERS if "eth_getTransactionReceipt" in key]
    in_order = sorted(receipts, key=lambda receipt: int(receipt["transactionIndex"], 16))
    chain = Answers({"eth_getBlockReceipts": lambda answer: in_order})
    assert BlockReader(chain).sealed(without_block(SEALED)) == SEALED
    assert chain.asked == [GENESIS, BLOCK, "eth_getBlockReceipts"]


@pytest.mark.parametrize(
    ("method", "change"),
    [
        (BLOCK, lambda block: block | {"withdrawalsRoot": block["receiptsRoot"]}),
        (BLOCK, lambda block: block | {"gasUsed": "0x1"}),
        (BLOCK, lambda block: block | {"mixHash": "0x" + "11" * 32}),
        (BLOCK, lambda block: block | {"extraData": "0x"}),
        (BLOCK, lambda block: block | {"transactions": block["transactions"][::-1]}),
        (BLOCK, lambda block: block | {"transactions": block["transactions"][:5]}),
        (BLOCK, lambda block: {k: v for k, v in block.items() if k != "number"}),
        ("eth_getTransactionReceipt", lambda receipt: receipt | {"cumulativeGasUsed": "0x1"}),
        ("eth_getTransactionReceipt", lambda receipt: receipt | {"logs": []} | {"status": "0x0"}),
        ("eth_getTransactionReceipt", lambda receipt: {}),
        ("eth_getTransactionReceipt", lambda receipt: None),
    ],
)
def test_what_does_not_give_the_headers_hashes_is_left_out(method: str, change: Any) -> None:
    raw = without_block(SEALED)
    assert BlockReader(Answers({method: change})).sealed(raw) == raw


@pytest.mark.parametrize("extra", ["0x" + "00" * 97, "0x" + "00" * 117, "0x" + "00" * 98, "0x"])
def test_where_one_process_seals_nothing_is_asked_again(extra: str) -> None:
    """The embedded chain's genesis lists no signer or one; others we don't know."""
    chain = Answers({GENESIS: lambda block: block | {"mixHash": "0x00", "extraData": extra}})
    reader, raw = BlockReader(chain), without_block(SEALED)
    assert [reader.sealed(raw) for _ in range(3)] == [raw] * 3
    assert chain.asked == [GENESIS]


def test_a_block_that_is_gone_may_come_back() -> None:
    chain, raw = Answers({BLOCK: lambda block: None}), without_block(SEALED)
    reader = BlockReader(chain)
    assert reader.sealed(raw) == raw
    chain.changed = {}
    assert reader.sealed(raw) == SEALED


def test_a_chain_that_is_away_is_let_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    chain, raw = Answers(), without_block(SEALED)
    reader = BlockReader(chain)
    chain.fails = ChainUnavailable("no answer")
    assert reader.sealed(raw) == raw
    chain.fails = None
    assert reader.sealed(raw) == raw
    assert chain.asked == [GENESIS]
    monkeypatch.setattr(block_reader, "_REST_S", 0.0)
    fresh = BlockReader(chain)
    chain.fails = ChainUnavailable("no answer")
    assert fresh.sealed(raw) == raw
    chain.fails = None
    assert fresh.sealed(raw) == SEALED


def test_a_proof_never_becomes_too_large_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_reader, "MAX_BYTES", len(SEALED) - 1)
    raw = without_block(SEALED)
    assert BlockReader(Answers()).sealed(raw) == raw
    assert len(SEALED) < MAX_BYTES


@pytest.mark.parametrize(
    "fields",
    [
        {"gasPrice": 7},
        {"gasPrice": 7, "type": 1, "accessList": LISTED},
        {"maxFeePerGas": 9, "maxPriorityFeePerGas": 1, "type": 2, "accessList": []},
    ],
)
@pytest.mark.parametrize("to", ["0x" + "11" * 20, ""])
def test_transactions_of_all_forms_are_put_together_again(fields: dict[str, Any], to: str) -> None:
    plain = {"nonce": 3, "gas": 50_000, "to": to, "value": 5, "data": "0xabcd", "chainId": 9}
    signed = Account.from_key(b"k" * 32).sign_transaction(plain | fields)
    entry: dict[str, Any] = {
        **{name: hex(value) for name, value in plain.items() if isinstance(value, int)},
        **{name: hex(value) for name, value in fields.items() if isinstance(value, int)},
        "to": to or None,
        "input": "0xabcd",
        "v": hex(signed.v),
        "r": hex(signed.r),
        "s": hex(signed.s),
    }
    entry |= {"accessList": fields.get("accessList")}
    assert block_reader._transaction(entry) == signed.raw_transaction
