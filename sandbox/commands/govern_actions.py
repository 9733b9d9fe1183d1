"""Actions of a governance quorum as files that go from governor to governor.

    {"type": "countersign/action/1", "chain_id", "quorum", "member_registry", "function",
     "arguments": [texts], "target", "data", "nonce", "deadline", "signatures": {address: hex}}

`data` must be the call of `function` with `arguments`: so what a governor reads is what is signed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from eth_abi.abi import encode
from eth_utils.address import is_address, to_checksum_address
from eth_utils.crypto import keccak

from nodes.chain.client import ChainClient
from nodes.chain.deploy import role_mask
from nodes.chain.governance import Action, Quorum
from nodes.chain.signer import DigestSigner
from nodes.chain.typed_data import signer_of
from nodes.ids import member_word

TYPE = "countersign/action/1"
_KEY_KINDS = {"operator": 0, "note": 1, "message": 2, "promise": 3}
_DAY_S = 86_400


class ActionRefused(Exception):
    """An action that says one thing and does another, or isn't for this quorum."""


def _address(text: str) -> str:
    if not is_address(text):
        raise ValueError(f"{text!r} is not an address")
    return to_checksum_address(text)


def _kind(text: str) -> int:
    if text not in _KEY_KINDS:
        raise ValueError(f"{text!r} is no kind of key: {', '.join(_KEY_KINDS)}")
    return _KEY_KINDS[text]


def _key(text: str) -> bytes:
    """A key of 32 bytes, or an address."""
    try:
        raw = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        raw = b""
    if len(raw) not in (20, 32):
        raise ValueError(f"{text!r} is neither a key of 32 bytes nor an address, in hex")
    return raw.rjust(32, b"\0")


def _roles(text: str) -> int:
    try:
        return role_mask(text.split(","))
    except KeyError as unknown:
        raise ValueError(f"{unknown.args[0]!r} is no role") from None


def _addresses(text: str) -> list[str]:
    return sorted(map(_address, text.split(",")), key=lambda address: int(address, 16))


Converter = Callable[[str], Any]
#: Function -> of which contract ("registry", "quorum", or "named": that at the first argument,
#: which is none of the call's), each argument's name, type, converter.
FUNCTIONS: dict[str, tuple[str, tuple[tuple[str, str, Converter], ...]]] = {
    "rotateKey": (
        "registry",
        (("MEMBER", "bytes32", member_word), ("KIND", "uint8", _kind), ("KEY", "bytes32", _key)),
    ),
    "revoke": ("registry", (("MEMBER", "bytes32", member_word),)),
    "setName": ("registry", (("MEMBER", "bytes32", member_word), ("NAME", "string", str))),
    "setRoles": ("registry", (("MEMBER", "bytes32", member_word), ("ROLES", "uint8", _roles))),
    "setApiUrl": ("registry", (("MEMBER", "bytes32", member_word), ("URL", "string", str))),
    "transferOwnership": ("registry", (("ADDRESS", "address", _address),)),
    "acceptOwnership": ("registry", ()),
    "retire": ("named", (("OLD", "", _address), ("NEW", "address", _address))),
    "setGovernors": (
        "quorum",
        (("ADDRESS,ADDRESS,...", "address[]", _addresses), ("THRESHOLD", "uint32", int)),
    ),
}


def call_of(function: str, arguments: list[str]) -> bytes:
    """The call's bytes (the ABI's selector and arguments). ValueError says what is wrong."""
    if function not in FUNCTIONS:
        raise ValueError(f"{function!r} is no action: there are {', '.join(FUNCTIONS)}")
    target, parts = FUNCTIONS[function]
    if len(parts) != len(arguments):
        wanted = " ".join(name for name, _, _ in parts) or "no arguments"
        raise ValueError(f"{function} takes {wanted}")
    values = [convert(text) for (_, _, convert), text in zip(parts, arguments, strict=True)]
    types = [kind for _, kind, _ in parts]
    if target == "named":
        types, values = types[1:], values[1:]
    return bytes(keccak(text=f"{function}({','.join(types)})")[:4]) + encode(types, values)


@dataclass(frozen=True, slots=True)
class ActionFile:
    """One call in the quorum's name, with the signatures that it has so far."""

    chain_id: int
    quorum: str
    member_registry: str
    function: str
    arguments: list[str]
    nonce: int
    deadline: int
    signatures: Mapping[str, str]

    @property
    def action(self) -> Action:
        """What is signed and sent."""
        data = call_of(self.function, self.arguments)
        match FUNCTIONS[self.function][0]:
            case "quorum":
                target = self.quorum
            case "named":
                target = _address(self.arguments[0])
            case _:
                target = self.member_registry
        return Action(target, data, self.nonce, self.deadline)

    @property
    def says(self) -> str:
        """The action in a line."""
        until = datetime.fromtimestamp(self.deadline, UTC)
        return (
            f"{self.function} {' '.join(self.arguments)}".strip()
            + f", number {self.nonce} of the quorum {self.quorum} on chain {self.chain_id},"
            f" until {until:%Y-%m-%d %H:%M} UTC"
        )

    def signed_by(self, governor: DigestSigner) -> ActionFile:
        """The same with one signature more (of each address one)."""
        digest = self.action.digest(chain_id=self.chain_id, quorum=self.quorum)
        made = {governor.address: governor.sign_digest(digest).hex()}
        return replace(self, signatures={**self.signatures, **made})

    def encode(self) -> str:
        """The file's text."""
        action = self.action
        shown = {"type": TYPE, "target": action.target, "data": action.data.hex()} | asdict(self)
        return json.dumps(shown, indent=1) + "\n"


def prepare_action(
    client: ChainClient, quorum: Quorum, registry: str, function: str, arguments: list[str]
) -> ActionFile:
    """The quorum's next action, to be executed within a day of the newest block."""
    call_of(function, arguments)
    return ActionFile(
        chain_id=client.chain_id(),
        quorum=quorum.address,
        member_registry=to_checksum_address(registry),
        function=function,
        arguments=arguments,
        nonce=quorum.nonce(),
        deadline=client.block().timestamp + _DAY_S,
        signatures={},
    )


def parse_action(raw: bytes) -> ActionFile:
    """Read a file. ValueError if it is none; ActionRefused if its call isn't what it says, or a
    signature isn't of the address that it stands under."""
    try:
        document = json.loads(raw)
        names = [name for name in ActionFile.__slots__ if name != "signatures"]
        found = ActionFile(
            **{name: document[name] for name in names}, signatures=dict(document["signatures"])
        )
        target, data = document["target"], document["data"]
        texts = [found.function, found.quorum, found.member_registry, *found.arguments]
        numbers = [found.chain_id, found.nonce, found.deadline]
        if document["type"] != TYPE or not all(isinstance(text, str) for text in texts):
            raise ValueError
        if not all(type(number) is int and 0 <= number < 1 << 63 for number in numbers):
            raise ValueError
        if not all(map(is_address, (found.quorum, found.member_registry))):
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError("the file is no action of a quorum") from None
    action = found.action
    if (target, data) != (action.target, action.data.hex()):
        raise ActionRefused("its call is another one than its function and arguments say")
    digest = action.digest(chain_id=found.chain_id, quorum=found.quorum)
    for address, signature in found.signatures.items():
        try:
            made = signer_of(digest, bytes.fromhex(signature))
        except (ValueError, TypeError):
            made = None
        if made != address:
            raise ActionRefused(f"the signature of {address} isn't one over this action")
    return found
