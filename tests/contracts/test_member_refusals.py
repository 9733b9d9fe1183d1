"""MemberRegistry: by which name each method refuses, and the keys by block."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

from nodes.ids import ascii_word, member_word
from tests.contracts.machine import Answer, Evm, error_names
from tests.contracts.world import GOVERNANCE, STRANGER, World, address_of, word

AURORA, NOBODY = member_word("aurora"), member_word("nobody")
OPERATOR, NOTE, MESSAGE, PROMISE = range(4)
Attempt = Callable[[World], Answer]


@functools.cache
def founded() -> World:
    return World.found(Evm())


@pytest.fixture
def world() -> World:
    return founded().on(founded().evm.fork())


def by_owner(function: str, *arguments: object) -> Attempt:
    return lambda world: world.registry.send(GOVERNANCE.address, function, *arguments)


def by(sender: str, function: str, *arguments: object) -> Attempt:
    return lambda world: world.registry.send(address_of(sender), function, *arguments)


def registered(**changes: object) -> Attempt:
    right: dict[str, object] = {
        "id": ascii_word("fresh"),
        "roles": 1,
        "name": "Fresh",
        "url": "https://fresh",
        "bins": ["622388"],
        "operator": address_of("fresh"),
        "note": word("fresh note"),
        "message": word("fresh message"),
    }
    return by_owner("register", tuple((right | changes).values()))


def after(first: Attempt, second: Attempt) -> Attempt:
    def run(world: World) -> Answer:
        answer = first(world)
        assert answer.ok, answer
        return second(world)

    return run


def _ownerless(world: World) -> Answer:
    made, (refusal, named) = world.evm.try_deploy("MemberRegistry", STRANGER.address, bytes(20))
    assert made is None
    return Answer(refusal, named, (), ())


revoked = by_owner("revoke", AURORA)
fresh_keys = (address_of("fresh"), word("fresh note"), word("fresh message"))
REFUSALS: list[tuple[str, Attempt]] = [
    ("OwnableInvalidOwner", _ownerless),
    ("OwnableUnauthorizedAccount", by("heir", "acceptOwnership")),
    *(
        ("NotGovernance", by(sender, function, *arguments))
        for sender in ("aurora-operator-0", "stranger")
        for function, arguments in (
            ("setName", (AURORA, "x")),
            ("setRoles", (AURORA, 1)),
            ("setBins", (AURORA, [], [])),
            ("revoke", (AURORA,)),
            ("reinstate", (AURORA, *fresh_keys)),
            ("transferOwnership", (address_of("heir"),)),
            ("renounceOwnership", ()),
        )
    ),
    ("NotGovernance", by_owner("renounceOwnership")),
    ("NotGovernanceOrOperator", by("meridian-operator-0", "setApiUrl", AURORA, "u")),
    ("NotGovernanceOrOperator", by("stranger", "rotateKey", AURORA, NOTE, word("k"))),
    ("InvalidMemberId", registered(id=ascii_word("Fresh"))),
    ("MemberExists", registered(id=AURORA)),
    ("UnknownMember", by_owner("setName", NOBODY, "x")),
    ("UnknownMember", by("stranger", "rotateKey", NOBODY, NOTE, word("k"))),
    ("MemberRevoked", after(revoked, revoked)),
    ("MemberRevoked", after(revoked, by("aurora-operator-0", "setApiUrl", AURORA, "u"))),
    ("MemberRevoked", after(revoked, by_owner("rotateKey", AURORA, NOTE, word("k")))),
    ("MemberNotRevoked", by_owner("reinstate", AURORA, *fresh_keys)),
    ("InvalidRoles", registered(roles=0)),
    ("InvalidRoles", by_owner("setRoles", AURORA, 16)),
    ("InvalidName", registered(name="")),
    ("InvalidName", by_owner("setName", AURORA, "x" * 65)),
    ("InvalidApiUrl", registered(url="")),
    ("InvalidApiUrl", by_owner("setApiUrl", AURORA, "u" * 257)),
    ("InvalidBin", registered(bins=["62238"])),
    ("InvalidBin", by_owner("setBins", AURORA, ["x"], [])),
    ("BinOverlaps", registered(bins=["622388", "62238801"])),
    ("BinOverlaps", registered(bins=["62238801", "622388"])),
    ("BinNotHeld", by_owner("setBins", AURORA, ["622388"], [])),
    ("BinsNeedIssuer", registered(roles=2)),
    ("BinsNeedIssuer", after(registered(), by_owner("setRoles", ascii_word("fresh"), 2))),
    ("InvalidKey", registered(operator=bytes(20))),
    ("InvalidKey", registered(note=bytes(32))),
    ("InvalidKey", by_owner("rotateKey", AURORA, PROMISE, word("too long"))),
    ("InvalidKey", by_owner("rotateKey", AURORA, OPERATOR, bytes(32))),
    ("InvalidKeyKind", by_owner("rotateKey", AURORA, 4, word("k"))),
    ("InvalidKeyKind", by("aurora-operator-0", "rotateKey", AURORA, 255, word("k"))),
    ("KeyInUse", registered(note=word("aurora-note-0"))),
    ("KeyInUse", registered(message=word("fresh note"))),
    (
        "KeyInUse",
        by_owner("rotateKey", AURORA, PROMISE, address_of("aurora-operator-0").rjust(32, b"\0")),
    ),
    (
        "KeyInUse",
        after(
            by_owner("rotateKey", AURORA, NOTE, word("k")),
            by_owner("rotateKey", AURORA, NOTE, word("aurora-note-0")),
        ),
    ),
    ("NoKeyAtBlock", lambda world: world.registry.ask(bytes(20), "keyAt", AURORA, PROMISE, 10**6)),
    ("NoKeyAtBlock", lambda world: world.registry.ask(bytes(20), "operatorAt", AURORA, 0)),
]


@pytest.mark.parametrize(("name", "attempt"), REFUSALS)
def test_refusals_have_names(world: World, name: str, attempt: Attempt) -> None:
    assert attempt(world).refusal == name


def test_every_error_of_the_contract_is_seen_here() -> None:
    assert {name for name, _ in REFUSALS} == error_names("MemberRegistry")


def test_the_old_key_replaces_itself_and_each_is_found_by_its_blocks(world: World) -> None:
    evm, view = world.evm, world.registry.view
    first = evm.number
    changes = []
    for _ in range(5):
        evm.pass_time(100, 10)
        old = world.operator("aurora").address
        world.rotate("aurora")
        changes.append((evm.number, old))
        again = (AURORA, OPERATOR, address_of("another").rjust(32, b"\0"))
        refused = world.registry.send(old, "rotateKey", *again)
        assert refused.refusal == "NotGovernanceOrOperator"
    for number, old in changes:
        assert view("operatorAt", AURORA, number - 1) == "0x" + old.hex()
        assert view("operatorAt", AURORA, number) != "0x" + old.hex()
    assert view("keyCount", AURORA, OPERATOR) == 6
    key, begun, ended = view("keyPeriod", AURORA, OPERATOR, 0)
    assert (key[12:], begun, ended) == (changes[0][1], first, changes[0][0])


def test_governance_replaces_a_lost_operator(world: World) -> None:
    fresh = address_of("found again")
    arguments = (AURORA, OPERATOR, fresh.rjust(32, b"\0"))
    answer = world.registry.must(GOVERNANCE.address, "rotateKey", *arguments)
    rotated = next(event for event in answer.events if event.name == "KeyRotated")
    assert rotated.arguments["previous"][12:] == address_of("aurora-operator-0")
    assert rotated.arguments["by"] == "0x" + GOVERNANCE.address.hex()
    assert world.registry.view("operatorOf", AURORA) == "0x" + fresh.hex()


def test_promise_keys_come_and_go(world: World) -> None:
    view, evm = world.registry.view, world.evm
    zero = "0x" + "00" * 20
    assert view("promiseKeyOf", AURORA) == zero
    key = address_of("promise").rjust(32, b"\0")
    world.registry.must(address_of("aurora-operator-0"), "rotateKey", AURORA, PROMISE, key)
    since = evm.now
    assert view("promiseKeyOf", AURORA) == "0x" + key[12:].hex()
    assert view("promiseKeyAt", AURORA, evm.number) == "0x" + key[12:].hex()
    assert view("keyUse", key) == (AURORA, PROMISE, since, 0)
    evm.pass_time(50)
    world.revoke("aurora")
    assert view("promiseKeyOf", AURORA) == zero
    assert view("keyUse", key) == (AURORA, PROMISE, since, since + 50)
    evm.pass_time(50)
    world.reinstate("aurora")
    assert view("promiseKeyOf", AURORA) == zero
    second = address_of("promise again").rjust(32, b"\0")
    world.registry.must(GOVERNANCE.address, "rotateKey", AURORA, PROMISE, second)
    # The period that the revocation ended stays as it was.
    assert view("keyUse", key) == (AURORA, PROMISE, since, since + 50)
    assert view("keyPeriod", AURORA, PROMISE, 0)[2] == evm.number - 1
