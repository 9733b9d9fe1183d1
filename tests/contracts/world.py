"""The institutions of the state machines: MemberRegistry in an Evm, with a model of who is who."""

from __future__ import annotations

from dataclasses import dataclass, field

from eth_abi.abi import encode
from eth_hash.auto import keccak
from eth_keys.datatypes import PrivateKey

from nodes.chain.typed_data import sign_digest
from nodes.crypto.merkle import inclusion_path, leaf_hash, root_of
from nodes.ids import member_word, pair_id
from tests.contracts.machine import Contract, Evm

ISSUER, ACQUIRER, MERCHANT, AUDITOR = 1, 2, 4, 8
HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
ROLES = {
    "meridian": ACQUIRER,
    "aurora": ISSUER,
    "borealis": ISSUER | ACQUIRER,
    "harbor": MERCHANT,
}


@dataclass(frozen=True)
class Key:
    """A secp256k1 key that its label makes."""

    label: str

    @property
    def secret(self) -> bytes:
        return bytes(keccak(self.label.encode()))

    @property
    def address(self) -> bytes:
        return bytes(PrivateKey(self.secret).public_key.to_canonical_address())

    @property
    def word(self) -> bytes:
        return self.address.rjust(32, b"\0")

    def sign(self, digest: bytes) -> bytes:
        return sign_digest(self.secret, digest)


_ADDRESSES: dict[str, bytes] = {}


def address_of(label: str) -> bytes:
    """The address of the key with this label."""
    if label not in _ADDRESSES:
        _ADDRESSES[label] = Key(label).address
    return _ADDRESSES[label]


def mirrored(signature: bytes) -> bytes:
    """The other signature of the same digest by the same key: s in the upper half."""
    s = ORDER - int.from_bytes(signature[32:64], "big")
    return signature[:32] + s.to_bytes(32, "big") + bytes([55 - signature[64]])


def word(text: str) -> bytes:
    """SHA-like filler: a word that a text makes."""
    return bytes(keccak(text.encode()))


GOVERNANCE = Key("governance")
STRANGER = Key("stranger")


@dataclass
class Standing:
    """What the model knows of a member: the labels of its operator's keys, newest last."""

    roles: int
    operators: list[str]
    active: bool = True


@dataclass
class World:
    """MemberRegistry with four members, and the model that has to agree."""

    evm: Evm
    registry: Contract
    members: dict[str, Standing] = field(default_factory=dict)

    @classmethod
    def found(cls, evm: Evm) -> World:
        registry = evm.deploy("MemberRegistry", GOVERNANCE.address, GOVERNANCE.address)
        world = cls(evm, registry)
        for name, roles in ROLES.items():
            label = f"{name}-operator-0"
            registration = (
                member_word(name),
                roles,
                name.capitalize(),
                "https://example",
                [],
                address_of(label),
                word(f"{name}-note-0"),
                word(f"{name}-message-0"),
            )
            registry.must(GOVERNANCE.address, "register", registration)
            world.members[name] = Standing(roles, [label])
        return world

    def on(self, evm: Evm) -> World:
        """The same members in a fork."""
        members = {
            name: Standing(member.roles, list(member.operators), member.active)
            for name, member in self.members.items()
        }
        return World(evm, self.registry.on(evm), members)

    def operator(self, name: str) -> Key:
        """The operator's present key (of a revoked member the last)."""
        return Key(self.members[name].operators[-1])

    def labels(self) -> list[str]:
        """All keys that play a part: operators present and past, governance, a stranger."""
        used = [label for member in self.members.values() for label in member.operators]
        return [*used, GOVERNANCE.label, STRANGER.label]

    # -- changes, on the chain and in the model

    def rotate(self, name: str) -> None:
        """The operator's key is replaced, by the old one."""
        member = self.members[name]
        old, fresh = member.operators[-1], f"{name}-operator-{len(member.operators)}"
        self.registry.must(
            address_of(old), "rotateKey", member_word(name), 0, address_of(fresh).rjust(32, b"\0")
        )
        member.operators.append(fresh)

    def revoke(self, name: str) -> None:
        self.registry.must(GOVERNANCE.address, "revoke", member_word(name))
        self.members[name].active = False

    def reinstate(self, name: str) -> None:
        member = self.members[name]
        label = f"{name}-operator-{len(member.operators)}"
        keys = (word(f"{label}-note"), word(f"{label}-message"))
        arguments = (member_word(name), address_of(label), *keys)
        self.registry.must(GOVERNANCE.address, "reinstate", *arguments)
        member.operators.append(label)
        member.active = True

    # -- what the contracts ask

    def acting(self, label: str) -> tuple[str, str]:
        """(The member for which this key may act, or ""; why it may not, or "")."""
        for name, member in self.members.items():
            if member.operators[-1] == label:
                return (name, "") if member.active else (name, "MemberRevoked")
        return "", "NotOperator"


@dataclass
class AnchoredLog:
    """A member's log of a few leaves, anchored on the chain."""

    member: str
    leaves: list[bytes]
    seqs: dict[int, int] = field(default_factory=dict)

    def root(self, size: int) -> bytes:
        return root_of([leaf_hash(leaf) for leaf in self.leaves[:size]])

    def evidence(self, index: int, seq: int) -> tuple[list[bytes], int, int, list[bytes]]:
        """The contract's struct for a leaf, with its path in the tree of an anchor."""
        hashes = [leaf_hash(leaf) for leaf in self.leaves[: self.seqs[seq]]]
        words = [self.leaves[index][at : at + 32] for at in range(0, 320, 32)]
        return words, index, seq, inclusion_path(index, hashes)


def leaf_of(
    member: str,
    txid: bytes,
    commitment: bytes,
    *,
    kind: int = 2,
    acquirer: str = "meridian",
    issuer: str = "aurora",
    version: int = 1,
) -> bytes:
    """A leaf as nodes/anchoring/leaf.py encodes it."""
    return encode(
        ["uint256", "uint256", *["bytes32"] * 5, "uint256", "bytes32", "uint256"],
        [
            version,
            kind,
            member_word(member),
            txid,
            commitment,
            word("private"),
            pair_id(acquirer, issuer),
            7,
            b"T1".ljust(32, b"\0"),
            9,
        ],
    )


def anchor_log(world: World, anchors: Contract, member: str, leaves: list[bytes]) -> AnchoredLog:
    """Anchors all but the last two leaves of a log (an even number, all complete trees apart)."""
    log = AnchoredLog(member, leaves)
    size = len(leaves) - 2
    arguments = (
        1,
        size,
        root_of([]),
        log.root(size),
        [],
        world.evm.block_hash(),
        bytes(32),
    )
    anchors.must(world.operator(member).address, "anchor", *arguments)
    log.seqs[1] = size
    return log
