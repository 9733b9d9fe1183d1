"""The verifier's look at a real chain, or at what was read from one before.

What is trusted: one RPC endpoint and contract addresses, or a file of cached roots.
"""

from __future__ import annotations

from eth_utils.address import to_canonical_address

from nodes.anchoring.cached_roots import CachedAnchor, CachedPromiseKey, CachedRoots
from nodes.anchoring.receipt import Promise
from nodes.chain.anchors import Anchor, AnchorRegistry
from nodes.chain.challenges import OmissionRegistry, promise_digest, promise_signer
from nodes.chain.client import ChainClient
from nodes.chain.contracts import MEMBER_REGISTRY
from nodes.chain.directory import KEY_KINDS, Directory, KeyPeriod
from nodes.ids import member_word


class TrustedChain:
    """A `verifier.ChainView`, and a `receipt.ReceiptView` where an omission contract is given.

    What is trusted: the endpoint's word and the addresses given here.

    The members' keys come from the MemberRegistry that this anchor contract itself obeys. Nothing
    is asked of the chain before it is needed; then look-ups may raise the errors of
    nodes.chain.errors.
    """

    def __init__(
        self, client: ChainClient, anchor_registry: str, omission_registry: str = ""
    ) -> None:
        self.anchor_registry = anchor_registry
        self.omission_registry = omission_registry
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

    @property
    def predecessors(self) -> tuple[str, ...]:
        """The versions before the trusted contract, by its own word; the newest first."""
        return tuple(address.lower() for address in self.registry.predecessors())

    def require_present(self) -> None:
        """ValueError if the trusted contract is retired: it tells nothing of what came later."""
        if after := self.registry.successors():
            raise ValueError(
                f"the anchor contract {self.anchor_registry} is retired: since then anchors stand"
                f" in {after[-1]}. Whether to trust that is yours to say: give its address"
            )

    def anchor(self, member_id: str, seq: int) -> Anchor | None:
        """The member's anchor of that number; None if there is none that is final."""
        found = self.registry.anchor(member_id, seq)
        if found is None or not self._client.is_final(found.block_number, found.block_hash):
            return None
        return found

    def note_key(self, member_id: str, block_number: int) -> bytes | None:
        """The member's note key that was valid at that block."""
        member = self._members().member(member_id)
        return member.note_key_at(block_number) if member else None

    def note_keys(self, member_id: str) -> tuple[KeyPeriod, ...]:
        """A member's note keys, oldest first; empty if there is no such member."""
        member = self._members().member(member_id)
        return member.note_keys if member else ()

    def message_keys(self, member_id: str) -> list[bytes]:
        """A member's message keys, the present one first; empty if there is no such member."""
        member = self._members().member(member_id)
        return [period.key for period in reversed(member.message_keys)] if member else []

    def _members(self) -> Directory:
        if self._directory is None:
            self._directory = Directory(self._client, self.registry.member_registry())
            self._directory.refresh()
        return self._directory

    @property
    def max_merge_delay_s(self) -> int:
        """How long a retired promise key counts."""
        return OmissionRegistry(self._client, self.omission_registry).max_merge_delay_s()

    def promise_signer(self, promise: Promise) -> bytes | None:
        """The address that signed a promise for this chain and omission contract."""
        return signer_of_promise(promise, self.chain_id, self.omission_registry)

    def promise_key(self, member_id: str, address: bytes) -> CachedPromiseKey | None:
        """Since and until when an address signs promises for a member."""
        return promise_key_use(self._client, self.registry.member_registry(), member_id, address)


class CachedChain:
    """A `receipt.ReceiptView` over cached roots: no network."""

    def __init__(self, roots: CachedRoots) -> None:
        self._roots = roots
        self.chain_id = roots.chain_id
        self.anchor_registry = roots.anchor_registry
        self.predecessors = roots.predecessors
        self.max_merge_delay_s = roots.max_merge_delay_s

    def anchor(self, member_id: str, seq: int) -> CachedAnchor | None:
        """The member's anchor of that number, if it was read."""
        return self._roots.anchor(member_id, seq)

    def note_key(self, member_id: str, block_number: int) -> bytes | None:
        """The member's note key that was valid at that block."""
        return self._roots.note_key(member_id, block_number)

    def promise_signer(self, promise: Promise) -> bytes | None:
        """The address that signed a promise for the cached chain and omission contract."""
        return signer_of_promise(promise, self.chain_id, self._roots.omission_registry or "")

    def promise_key(self, member_id: str, address: bytes) -> CachedPromiseKey | None:
        """Since and until when an address signs promises for a member."""
        return self._roots.promise_key(member_id, address)


def signer_of_promise(promise: Promise, chain_id: int, omission_registry: str) -> bytes | None:
    """The 20-byte address that signed; ValueError without an omission contract to sign for."""
    if not omission_registry:
        raise ValueError("no omission contract is given, for which promises are signed")
    digest = promise_digest(
        chain_id=chain_id,
        registry=omission_registry,
        member_id=promise.member_id,
        txid=promise.txid,
        commitment=promise.commitment,
        merge_deadline=promise.merge_deadline,
    )
    address = promise_signer(digest, promise.signature)
    return None if address is None else to_canonical_address(address)


def promise_key_use(
    client: ChainClient, member_registry: str, member_id: str, address: bytes
) -> CachedPromiseKey | None:
    """Since and until when (seconds) an address signs promises for a member; None: never."""
    contract = client.contract(MEMBER_REGISTRY, member_registry)
    holder, kind, since, until = client.read(contract.functions.keyUse(address.rjust(32, b"\0")))
    if bytes(holder) != member_word(member_id) or kind != KEY_KINDS["promise"]:
        return None
    return CachedPromiseKey(address, since, until or None)
