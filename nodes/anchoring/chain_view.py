"""The verifier's look at a real chain: one RPC endpoint and one trusted contract address."""

from __future__ import annotations

from nodes.chain.anchors import Anchor, AnchorRegistry
from nodes.chain.client import ChainClient
from nodes.chain.directory import Directory


class TrustedChain:
    """A `verifier.ChainView`. What is trusted: the endpoint's word and the address given here.

    The members' keys come from the MemberRegistry that this anchor contract itself obeys. Nothing
    is asked of the chain before it is needed; then look-ups may raise the errors of
    nodes.chain.errors.
    """

    def __init__(self, client: ChainClient, anchor_registry: str) -> None:
        self.anchor_registry = anchor_registry
        self._client = client
        self._registry: AnchorRegistry | None = None
        self._directory: Directory | None = None

    @property
    def chain_id(self) -> int:
        """The chain's own id."""
        return self._client.chain_id()

    @property
    def registry(self) -> AnchorRegistry:
        """The trusted anchor contract."""
        if self._registry is None:
            self._registry = AnchorRegistry(self._client, self.anchor_registry)
        return self._registry

    def anchor(self, member_id: str, seq: int) -> Anchor | None:
        """The member's anchor of that number; None if there is none that is final."""
        found = self.registry.anchor(member_id, seq)
        if found is None or not self._client.is_final(found.block_number, found.block_hash):
            return None
        return found

    def note_key(self, member_id: str, block_number: int) -> bytes | None:
        """The member's note key that was valid at that block."""
        if self._directory is None:
            self._directory = Directory(self._client, self.registry.member_registry())
            self._directory.refresh()
        member = self._directory.member(member_id)
        return member.note_key_at(block_number) if member else None
