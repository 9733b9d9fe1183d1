"""Who has signed a settlement statement, judged by the signature itself."""

from __future__ import annotations

from typing import Any

from console import record_wording
from console.statements import reached, signatures
from nodes.chain.directory import KeyPeriod, Member
from nodes.chain.settlements import sign_settlement
from nodes.chain.signer import LocalSigner
from nodes.settlement.model import OrderAction, StatementState

NUMBER = bytes(range(32))
MINE, THEIRS = LocalSigner(b"\1" * 32), LocalSigner(b"\2" * 32)


def member(name: str, signer: LocalSigner) -> Member:
    address = bytes.fromhex(signer.address[2:])
    return Member(
        name, name, frozenset(), "", (), signer.address, b"", b"", True,
        operators=(KeyPeriod(address, 5, None),),
    )  # fmt: skip


MEMBERS = {"meridian": member("meridian", MINE), "aurora": member("aurora", THEIRS)}


def statement(signer: LocalSigner = MINE, **more: Any) -> dict[str, Any]:
    signed = {"member": "meridian", "signature": sign_settlement(signer, NUMBER).hex(), "at": "t0"}
    return {
        "settlement_id": NUMBER.hex(),
        "acquirer": "meridian",
        "issuer": "aurora",
        "proposer": "meridian",
        "acquirer_signed": True,
        "issuer_signed": False,
        "state": "PROPOSED",
        "signatures": [signed],
        "steps": [{"state": "PROPOSED", "at": "t1", "block_number": 7, "tx_hash": "aa"}],
    } | more


def test_an_own_signature_is_judged_by_its_address() -> None:
    mine, theirs = signatures(statement(), MEMBERS)
    assert (mine.address, mine.is_operator, mine.tx_hash, mine.at) == (
        MINE.address,
        True,
        "aa",
        "t1",
    )
    assert (theirs.signed, theirs.address, theirs.tx_hash) == (False, None, None)
    [forged, _] = signatures(statement(THEIRS), MEMBERS)
    assert (forged.address, forged.is_operator) == (THEIRS.address, False)
    [early, _] = signatures(
        statement(steps=[{"state": "PROPOSED", "at": "t", "block_number": 4, "tx_hash": "aa"}]),
        MEMBERS,
    )
    assert early.is_operator is False  # the key came to be its operator's at block 5


def test_the_others_signature_is_its_operators_of_that_block() -> None:
    step = {"state": "CONFIRMED", "at": "t2", "block_number": 9, "tx_hash": "bb"}
    item = statement(state="CONFIRMED", issuer_signed=True)
    item["steps"].append(step)
    _, theirs = signatures(item, MEMBERS)
    assert (theirs.address, theirs.is_operator, theirs.tx_hash) == (THEIRS.address, True, "bb")
    mine, theirs = signatures(item, None)
    assert (mine.address, mine.is_operator) == (MINE.address, None)
    assert theirs.address is None


def test_every_state_has_its_words_and_its_place_on_the_way() -> None:
    assert set(record_wording.SETTLEMENT_STATES) == {state.value for state in StatementState}
    assert set(record_wording.ORDER_ACTIONS) == {action.value for action in OrderAction}
    for state in StatementState:
        assert 0 <= reached(statement(state=state.value)) <= 3
