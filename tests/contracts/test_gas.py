"""What calls cost: the table of docs/contracts.md is what is measured, and anchors are cheap."""

from __future__ import annotations

import re

import pytest

from nodes.chain.contracts import PUBLISHED
from nodes.crypto.merkle import leaf_hash, root_of, verify_consistency
from tests.contracts.gas import (
    BATCH,
    LARGEST_LOG,
    Row,
    documented,
    measure,
    proof_of_equal,
    root_of_equal,
)
from tests.contracts.machine import methods

TOLERANCE = 0.01
GAS_A_TRANSACTION = 120


@pytest.fixture(scope="module")
def measured() -> list[Row]:
    return measure()


def test_the_table_in_the_documentation_is_what_is_measured(measured: list[Row]) -> None:
    """python -m tests.contracts.gas writes it anew."""
    shown = documented()
    assert [row[:2] for row in shown] == [row[:2] for row in measured]
    for (contract, call, gas), (_, _, now) in zip(shown, measured, strict=True):
        assert abs(gas - now) <= TOLERANCE * now, (contract, call, gas, now)


def test_every_method_of_every_contract_is_in_the_table(measured: list[Row]) -> None:
    for name in PUBLISHED:
        calls = {re.split("[ ,]", call)[0] for contract, call, _ in measured if contract == name}
        # One of them only succeeds as an action of the quorum itself.
        assert methods(name) - {"setGovernors"} <= calls, name


def test_an_anchor_of_a_thousand_costs_at_most_120_gas_a_transaction(measured: list[Row]) -> None:
    """But for each member's first at a successor, which is one in the life of a version."""
    costs = [gas for _, call, gas in measured if call.startswith("anchor")]
    assert max(costs) / BATCH <= GAS_A_TRANSACTION


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 100])
def test_the_logs_that_are_measured_are_logs(size: int) -> None:
    leaf = leaf_hash(b"leaf")
    assert root_of_equal(size) == root_of([leaf] * size)
    for more in (1, 5, 64):
        proof = proof_of_equal(size, size + more)
        roots = (root_of_equal(size), root_of_equal(size + more))
        assert verify_consistency(size, size + more, *roots, proof)
    assert LARGEST_LOG > BATCH
