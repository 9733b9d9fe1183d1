"""Whose transactions the sealer takes.

The addresses of the genesis file (the deployer), and whoever the MemberRegistry names as its owner
(governance, also one that is about to take over) or as the operator of an active member: admitting
or revoking a member on the chain opens or closes the chain to it, with nothing to restart.
"""

from __future__ import annotations

from collections.abc import Callable

from eth_hash.auto import keccak

from nodes.chain.embedded.genesis import Genesis

_STANDING = keccak(b"standing(address)")[:4]
_OWNERS = (keccak(b"owner()")[:4], keccak(b"pendingOwner()")[:4])
_ACTIVE = 1
_MAX_ANSWERS = 10_000


class Permissions:
    """Answers from the registry are kept until a block carries one of its events.

    `read` runs a read-only call of (contract, calldata) on the newest state; it returns b"" where
    there is no contract or it refuses.
    """

    def __init__(self, genesis: Genesis, read: Callable[[bytes, bytes], bytes]) -> None:
        self._permitted = genesis.permitted
        self._registry = genesis.member_registry
        self._read = read
        self._answers: dict[bytes, bool] = {}

    def allows(self, sender: bytes) -> bool:
        """Whether this address may send transactions now."""
        if sender in self._permitted:
            return True
        answer = self._answers.get(sender)
        if answer is None:
            if len(self._answers) >= _MAX_ANSWERS:
                self._answers.clear()
            answer = self._answers[sender] = self._is_named(sender)
        return answer

    def saw_events_of(self, contracts: set[bytes]) -> None:
        """A block with events of these contracts was sealed."""
        if self._registry in contracts:
            self._answers.clear()

    def _is_named(self, sender: bytes) -> bool:
        if self._registry is None:
            return False
        word = sender.rjust(32, b"\0")
        answer = self._read(self._registry, _STANDING + word)
        if len(answer) != 96:
            return False
        is_operator, status = (int.from_bytes(part, "big") for part in (answer[32:64], answer[64:]))
        if is_operator and status == _ACTIVE:
            return True
        return any(self._read(self._registry, selector) == word for selector in _OWNERS)
