"""The contracts on a real EVM: the embedded chain, and EVM_RPC_URL's where that is set."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from nodes.chain.anchors import Anchored, AnchorRegistry
from nodes.chain.client import ChainClient, Receipt
from nodes.chain.contracts import MEMBER_REGISTRY
from nodes.chain.deploy import govern
from nodes.chain.directory import Directory, Member
from nodes.chain.errors import ChainReverted
from nodes.chain.signer import LocalSigner
from nodes.crypto.merkle import EMPTY_ROOT
from tests.factories.chain import ENGINES, ChainFixture, open_engine
from tests.factories.logs import consistency_proof, leaf_hashes, tree_hash

_numbers = itertools.count(100)


@dataclass
class Contracts:
    """Both contracts with their governance, and shorthands for calling them."""

    chain: ChainFixture
    client: ChainClient
    anchors: AnchorRegistry

    def new_id(self) -> str:
        """A member id that this chain hasn't seen."""
        return f"member-{next(_numbers)}"

    def new_bin(self) -> str:
        """A 6-digit BIN that this chain hasn't seen."""
        return f"{next(_numbers):06d}"

    def member(self, member_id: str) -> Member:
        directory = Directory(self.client, self.chain.member_registry)
        directory.refresh()
        found = directory.member(member_id)
        assert found is not None
        return found

    def view(self, function: str, *arguments: Any) -> Any:
        contract = self.client.contract(MEMBER_REGISTRY, self.chain.member_registry)
        return self.client.read(contract.functions[function](*arguments))

    def govern(self, function: str, *arguments: Any, signer: LocalSigner | None = None) -> Receipt:
        """Sends a transaction to the MemberRegistry, governance's by default."""
        signer = signer or self.chain.deployer
        return govern(self.client, signer, self.chain.member_registry, function, *arguments)

    def refusal(self, sender: str, function: str, *arguments: Any) -> ChainReverted:
        """How the MemberRegistry refuses a call that `sender` would make."""
        contract = self.client.contract(MEMBER_REGISTRY, self.chain.member_registry)
        data = contract.encode_abi(function, args=list(arguments))
        call = {"from": sender, "to": contract.address, "data": data}
        with pytest.raises(ChainReverted) as refused:
            self.client.simulate(call)
        return refused.value

    def refusal_of_registration(self, **changes: Any) -> ChainReverted:
        """How a registration by governance is refused that is right but for `changes`."""
        with pytest.raises(ChainReverted) as refused:
            self.chain.add_member(**({"member_id": self.new_id()} | changes))
        return refused.value

    def new_log(self) -> Log:
        member_id = self.new_id()
        return Log(self, member_id, self.chain.add_member(member_id))


@dataclass
class Log:
    """A member's log and its anchors."""

    contracts: Contracts
    member_id: str
    operator: LocalSigner
    anchored: list[int] = field(default_factory=list)

    def arguments(self, size: int) -> dict[str, Any]:
        """What the next anchor, at `size` leaves, says when all is right."""
        old = self.anchored[-1] if self.anchored else 0
        leaves = leaf_hashes(size, self.member_id.encode())
        return {
            "seq": len(self.anchored) + 1,
            "size": size,
            "prev_root": tree_hash(leaves[:old]) if old else EMPTY_ROOT,
            "root": tree_hash(leaves),
            "proof": consistency_proof(old, leaves) if old else [],
            "meta_hash": bytes([size % 256]) * 32,
        }

    def transaction(self, sender: str = "", **arguments: Any) -> dict[str, Any]:
        sender = sender or self.operator.address
        nonce = self.contracts.client.nonce(sender)
        return self.contracts.anchors.build_anchor_tx(sender=sender, nonce=nonce, **arguments)

    def anchor(self, size: int) -> Anchored:
        """Anchors the log at `size` leaves."""
        receipt = self.send(self.transaction(**self.arguments(size)))
        assert receipt.ok
        self.anchored.append(size)
        event = self.contracts.anchors.decode_anchored(receipt)
        assert event is not None
        return event

    def send(self, transaction: dict[str, Any]) -> Receipt:
        raw, _ = self.operator.sign_transaction(transaction)
        client = self.contracts.client
        return client.wait_for_receipt(client.send_raw(raw))

    def refusal(self, at_size: int, sender: str = "", **changes: Any) -> ChainReverted:
        """How the next anchor is refused that is right but for `changes`."""
        transaction = self.transaction(sender, **(self.arguments(at_size) | changes))
        with pytest.raises(ChainReverted) as refused:
            self.contracts.anchors.check_anchor_tx(transaction)
        return refused.value

    def mined_refusal(self, at_size: int, **changes: Any) -> ChainReverted:
        """The same, with the transaction sent and mined; nothing may have been anchored."""
        before = self.contracts.anchors.head(self.member_id)
        receipt = self.send(self.transaction(**(self.arguments(at_size) | changes)))
        assert not receipt.ok
        assert self.contracts.anchors.decode_anchored(receipt) is None
        assert self.contracts.anchors.head(self.member_id) == before
        return self.contracts.client.revert_of(receipt.tx_hash)


@pytest.fixture(scope="session", params=ENGINES)
def contracts(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Contracts]:
    chain = open_engine(request.param, tmp_path_factory.mktemp("contracts"))
    client = chain.client()
    yield Contracts(chain, client, AnchorRegistry(client, chain.anchor_registry))
    chain.stop()


@pytest.fixture
def log(contracts: Contracts) -> Log:
    """A new member's log, nothing anchored yet."""
    return contracts.new_log()
