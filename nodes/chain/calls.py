"""What the clients of our contracts have in common: unsigned transactions and decoded events."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from eth_utils.address import to_checksum_address

from nodes.chain.client import ChainClient, Log, Receipt

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EventPlace:
    """Where on the chain an event stands."""

    block_number: int
    block_hash: bytes
    tx_hash: bytes
    log_index: int


def place_of(log: Log) -> EventPlace:
    """Where a log stands."""
    return EventPlace(log.block_number, log.block_hash, log.tx_hash, log.log_index)


class ContractCalls(Generic[T]):
    """One contract at one address: reads, unsigned transactions (legacy, type 0, ready for a
    Signer) and events of type T. `decoders` are by the event's first topic."""

    def __init__(
        self,
        client: ChainClient,
        name: str,
        address: str,
        decoders: Mapping[bytes, Callable[[Log], T]],
    ) -> None:
        self.address = to_checksum_address(address)
        self.client = client
        self._contract = client.contract(name, address)
        self._decoders = decoders

    def read(self, function: str, *arguments: Any) -> Any:
        """The answer of a view."""
        return self.client.read(self._contract.functions[function](*arguments))

    def build(
        self,
        function: str,
        arguments: Sequence[Any],
        *,
        sender: str,
        nonce: int,
        gas: int,
        gas_price: int | None,
        chain_id: int | None,
    ) -> dict[str, Any]:
        """An unsigned transaction; what isn't given is asked of the chain."""
        return {
            "from": sender,
            "to": self.address,
            "nonce": nonce,
            "value": 0,
            "gas": gas,
            "gasPrice": self.client.gas_price() if gas_price is None else gas_price,
            "chainId": self.client.chain_id() if chain_id is None else chain_id,
            "data": self._contract.encode_abi(function, args=list(arguments)),
        }

    def decode(self, receipt: Receipt) -> list[T]:
        """The contract's events that a transaction made; none if it reverted."""
        if not receipt.ok:
            return []
        return [
            self._decoders[log.topics[0]](log)
            for log in receipt.logs
            if log.address == self.address and log.topics and log.topics[0] in self._decoders
        ]

    def events(
        self, from_block: int, to_block: int | None, topics: Sequence[bytes | None]
    ) -> Iterator[T]:
        """The contract's events of a range of blocks (to the newest one), in the chain's order.
        `topics` follow the event's own topic, which may be any."""
        last = self.client.block_number() if to_block is None else to_block
        for log in self.client.logs(self.address, from_block, last, [None, *topics]):
            if log.topics and log.topics[0] in self._decoders:
                yield self._decoders[log.topics[0]](log)
