"""MemberRegistry: who may change what, and what a member may not be."""

from __future__ import annotations

import secrets

import pytest

from nodes.chain.deploy import deploy, revoke_member, rotate_key, send, set_api_url
from nodes.chain.directory import KEY_KINDS, MEMBER_CHANGED_TOPIC
from nodes.chain.errors import ChainReverted
from nodes.chain.signer import LocalSigner
from nodes.ids import member_word
from tests.contracts.conftest import Contracts
from tests.factories.chain import ed25519_public

ACTIVE, REVOKED = 1, 2
STRANGER = LocalSigner(secrets.token_bytes(32)).address


def address_word(address: str) -> bytes:
    return bytes.fromhex(address[2:]).rjust(32, b"\0")


def test_a_registered_member_is_found_with_everything_it_was_given(contracts: Contracts) -> None:
    member_id, bin_ = contracts.new_id(), contracts.new_bin()
    note_key, message_key = ed25519_public(), ed25519_public()
    operator = contracts.chain.add_member(
        member_id,
        name="Bank 银行",
        roles=["issuer", "auditor"],
        bins=[bin_, f"{contracts.new_bin()}01"],
        api_url="https://bank.example/v1",
        note_key=note_key,
        message_key=message_key,
    )
    member = contracts.member(member_id)
    assert member.name == "Bank 银行"
    assert member.roles == {"issuer", "auditor"}
    assert member.bins[0] == bin_
    assert len(member.bins[1]) == 8
    assert member.api_url == "https://bank.example/v1"
    assert (member.operator, member.note_key, member.message_key, member.active) == (
        operator.address,
        note_key,
        message_key,
        True,
    )
    assert contracts.view("standing", operator.address) == [member_word(member_id), True, ACTIVE]
    assert contracts.view("binOwner", bin_) == member_word(member_id)


class TestWhoMayChange:
    def governed(self, contracts: Contracts, word: bytes) -> list[tuple[str, tuple[object, ...]]]:
        key = secrets.token_bytes(32)
        registration: tuple[object, ...] = (
            member_word(contracts.new_id()),
            2,
            "n",
            "u",
            [],
            STRANGER,
            key,
            key,
        )
        return [
            ("register", (registration,)),
            ("setName", (word, "New name")),
            ("setRoles", (word, 2)),
            ("setBins", (word, [], [])),
            ("revoke", (word,)),
            ("reinstate", (word, STRANGER, key, key)),
            ("transferOwnership", (STRANGER,)),
            ("renounceOwnership", ()),
        ]

    def test_governance_alone_admits_changes_and_revokes(self, contracts: Contracts) -> None:
        member_id = contracts.new_id()
        operator = contracts.chain.add_member(member_id)
        for function, arguments in self.governed(contracts, member_word(member_id)):
            for sender in (STRANGER, operator.address):
                refused = contracts.refusal(sender, function, *arguments)
                assert refused.reason == "NotGovernance", function
                assert refused.arguments == {"sender": sender}

    def test_members_keep_their_keys_and_url_and_only_their_own(self, contracts: Contracts) -> None:
        member_id, other_id = contracts.new_id(), contracts.new_id()
        word, chain = member_word(member_id), contracts.chain
        operator, other = chain.add_member(member_id), chain.add_member(other_id)
        for kind in KEY_KINDS.values():
            for sender in (STRANGER, other.address):
                refused = contracts.refusal(sender, "rotateKey", word, kind, b"\1" * 32)
                assert refused.reason == "NotGovernanceOrOperator"
        refused = contracts.refusal(other.address, "setApiUrl", word, "https://evil.example")
        assert refused.reason == "NotGovernanceOrOperator"

        key = ed25519_public()
        rotate_key(contracts.client, operator, chain.member_registry, member_id, "message", key)
        set_api_url(contracts.client, operator, chain.member_registry, member_id, "https://new")
        member = contracts.member(member_id)
        assert (member.message_key, member.api_url) == (key, "https://new")

    def test_a_revoked_or_replaced_operator_changes_nothing(self, contracts: Contracts) -> None:
        chain, client = contracts.chain, contracts.client
        member_id = contracts.new_id()
        word, operator = member_word(member_id), chain.add_member(member_id)
        successor = address_word(LocalSigner(secrets.token_bytes(32)).address)
        rotate_key(client, chain.deployer, chain.member_registry, member_id, "operator", successor)
        refused = contracts.refusal(operator.address, "setApiUrl", word, "https://late")
        assert refused.reason == "NotGovernanceOrOperator"
        revoke_member(client, chain.deployer, chain.member_registry, member_id)
        refused = contracts.refusal(contracts.member(member_id).operator, "setApiUrl", word, "x")
        assert refused.reason == "MemberRevoked"

    def test_governance_is_handed_over_in_two_steps_and_never_given_up(
        self, contracts: Contracts
    ) -> None:
        first = contracts.chain.deployer
        assert contracts.refusal(first.address, "renounceOwnership").reason == "NotGovernance"
        second = LocalSigner(secrets.token_bytes(32))
        addresses = deploy(contracts.client, first)
        registry = contracts.client.contract("MemberRegistry", addresses.member_registry)

        def act(function: str, *arguments: object) -> dict[str, str]:
            return {"to": registry.address, "data": registry.encode_abi(function, list(arguments))}

        send(contracts.client, first, act("transferOwnership", second.address))
        assert contracts.client.read(registry.functions.owner()) == first.address
        with pytest.raises(ChainReverted, match="OwnableUnauthorizedAccount"):
            contracts.client.simulate(act("acceptOwnership") | {"from": STRANGER})
        contracts.client.simulate(act("acceptOwnership") | {"from": second.address})


class TestRegistration:
    @pytest.mark.parametrize(
        "word",
        [
            bytes(32),
            b"a".ljust(32, b"\0"),
            b"Aurora".ljust(32, b"\0"),
            b"1aurora".ljust(32, b"\0"),
            b"-aurora".ljust(32, b"\0"),
            b"au rora".ljust(32, b"\0"),
            b"au\0rora".ljust(32, b"\0"),
            b"aurora\xff".ljust(32, b"\0"),
            b"a" * 32,
        ],
    )
    def test_an_id_that_is_none(self, contracts: Contracts, word: bytes) -> None:
        key = secrets.token_bytes(32)
        registration: tuple[object, ...] = (
            word,
            2,
            "Name",
            "url",
            [],
            STRANGER,
            key,
            secrets.token_bytes(32),
        )
        refused = contracts.refusal(contracts.chain.deployer.address, "register", registration)
        assert refused.reason == "InvalidMemberId"

    def test_an_id_twice(self, contracts: Contracts) -> None:
        member_id = contracts.new_id()
        contracts.chain.add_member(member_id)
        refused = contracts.refusal_of_registration(member_id=member_id)
        assert refused.reason == "MemberExists"
        assert refused.arguments == {"memberId": member_word(member_id)}

    def test_the_longest_id(self, contracts: Contracts) -> None:
        longest = f"m{secrets.token_hex(15)}"
        contracts.chain.add_member(longest)
        assert contracts.member(longest).active

    def test_no_roles(self, contracts: Contracts) -> None:
        assert contracts.refusal_of_registration(roles=[]).reason == "InvalidRoles"

    @pytest.mark.parametrize("roles", [0, 16, 255])
    def test_roles_that_are_none(self, contracts: Contracts, roles: int) -> None:
        member_id = contracts.new_id()
        contracts.chain.add_member(member_id)
        governance = contracts.chain.deployer.address
        refused = contracts.refusal(governance, "setRoles", member_word(member_id), roles)
        assert refused.reason == "InvalidRoles"

    @pytest.mark.parametrize("name", ["x" * 65, "银" * 22])
    def test_a_name_too_long(self, contracts: Contracts, name: str) -> None:
        assert contracts.refusal_of_registration(name=name).reason == "InvalidName"

    @pytest.mark.parametrize("url", ["", "https://" + "x" * 249])
    def test_a_url_too_short_or_long(self, contracts: Contracts, url: str) -> None:
        assert contracts.refusal_of_registration(api_url=url).reason == "InvalidApiUrl"

    def test_changing_a_member_that_is_none(self, contracts: Contracts) -> None:
        governance, word = contracts.chain.deployer.address, member_word(contracts.new_id())
        for function, arguments in (
            ("setName", (word, "x")),
            ("setRoles", (word, 1)),
            ("setBins", (word, [], [])),
            ("setApiUrl", (word, "x")),
            ("rotateKey", (word, 1, b"\1" * 32)),
            ("revoke", (word,)),
            ("reinstate", (word, STRANGER, b"\1" * 32, b"\2" * 32)),
            ("member", (word,)),
        ):
            assert contracts.refusal(governance, function, *arguments).reason == "UnknownMember"


class TestBins:
    @pytest.mark.parametrize("bin_", ["", "62230", "6223001", "622300100", "62230x", "６２"])
    def test_a_bin_that_is_none(self, contracts: Contracts, bin_: str) -> None:
        refused = contracts.refusal_of_registration(roles=["issuer"], bins=[bin_])
        assert refused.reason == "InvalidBin"

    def test_bins_of_two_members_never_overlap(self, contracts: Contracts) -> None:
        six, below = contracts.new_bin(), contracts.new_bin()
        holder = contracts.new_id()
        contracts.chain.add_member(holder, roles=["issuer"], bins=[six, f"{below}07"])
        for wanted in (six, f"{six}00", f"{six}99", f"{below}07"):
            refused = contracts.refusal_of_registration(roles=["issuer"], bins=[wanted])
            assert refused.reason == "BinOverlaps"
            assert refused.arguments == {"bin": wanted, "memberId": member_word(holder)}
        refused = contracts.refusal_of_registration(roles=["issuer"], bins=[below])
        assert refused.reason == "BinOverlaps"
        # Its neighbour is free.
        contracts.chain.add_member(contracts.new_id(), roles=["issuer"], bins=[f"{below}08"])

    def test_a_bin_twice_in_one_registration(self, contracts: Contracts) -> None:
        six = contracts.new_bin()
        for bins in ([six, six], [six, f"{six}11"], [f"{six}11", six]):
            refused = contracts.refusal_of_registration(roles=["issuer"], bins=bins)
            assert refused.reason == "BinOverlaps"

    def test_bins_need_an_issuer(self, contracts: Contracts) -> None:
        refused = contracts.refusal_of_registration(roles=["acquirer"], bins=[contracts.new_bin()])
        assert refused.reason == "BinsNeedIssuer"
        member_id = contracts.new_id()
        contracts.chain.add_member(member_id, roles=["issuer"], bins=[contracts.new_bin()])
        governance = contracts.chain.deployer.address
        refused = contracts.refusal(governance, "setRoles", member_word(member_id), 2)
        assert refused.reason == "BinsNeedIssuer"

    def test_a_bin_moves_from_one_member_to_another(self, contracts: Contracts) -> None:
        one, two = contracts.new_id(), contracts.new_id()
        six, kept, eight = contracts.new_bin(), contracts.new_bin(), f"{contracts.new_bin()}33"
        contracts.chain.add_member(one, roles=["issuer"], bins=[six, kept, eight])
        contracts.chain.add_member(two, roles=["issuer"])
        contracts.govern("setBins", member_word(one), [six, eight], [])
        contracts.govern("setBins", member_word(two), [], [six, eight[:6]])
        assert contracts.member(one).bins == (kept,)
        assert contracts.member(two).bins == (six, eight[:6])
        assert contracts.view("binOwner", six) == member_word(two)

    def test_only_the_holder_loses_a_bin(self, contracts: Contracts) -> None:
        one, two = contracts.new_id(), contracts.new_id()
        six = contracts.new_bin()
        contracts.chain.add_member(one, roles=["issuer"], bins=[six])
        contracts.chain.add_member(two, roles=["issuer"])
        governance = contracts.chain.deployer.address
        refused = contracts.refusal(governance, "setBins", member_word(two), [six], [])
        assert refused.reason == "BinNotHeld"


class TestKeys:
    def test_a_key_is_one_members_for_ever(self, contracts: Contracts) -> None:
        chain, client = contracts.chain, contracts.client
        holder = contracts.new_id()
        note_key, message_key = ed25519_public(), ed25519_public()
        operator = chain.add_member(holder, note_key=note_key, message_key=message_key)
        # Retired keys, too.
        successor = LocalSigner(secrets.token_bytes(32)).address
        for kind, key in (("note", ed25519_public()), ("operator", address_word(successor))):
            rotate_key(client, chain.deployer, chain.member_registry, holder, kind, key)
        for changes in (
            {"operator": operator},
            {"note_key": note_key},
            {"message_key": message_key},
            {"note_key": message_key},
        ):
            refused = contracts.refusal_of_registration(**changes)
            assert refused.reason == "KeyInUse"
            assert refused.arguments["memberId"] == member_word(holder)

    def test_one_key_is_not_for_two_purposes(self, contracts: Contracts) -> None:
        key = ed25519_public()
        refused = contracts.refusal_of_registration(note_key=key, message_key=key)
        assert refused.reason == "KeyInUse"

    def test_no_key(self, contracts: Contracts) -> None:
        assert contracts.refusal_of_registration(note_key=bytes(32)).reason == "InvalidKey"
        member_id = contracts.new_id()
        contracts.chain.add_member(member_id)
        governance, word = contracts.chain.deployer.address, member_word(member_id)
        too_long = b"\1" + bytes(31)
        for kind, key in ((0, bytes(32)), (0, too_long), (1, bytes(32)), (2, bytes(32))):
            refused = contracts.refusal(governance, "rotateKey", word, kind, key)
            assert refused.reason == "InvalidKey"

    def test_a_retired_key_stays_valid_for_its_blocks(self, contracts: Contracts) -> None:
        chain, client = contracts.chain, contracts.client
        member_id, old, new = contracts.new_id(), ed25519_public(), ed25519_public()
        chain.add_member(member_id, note_key=old)
        registered = contracts.member(member_id).note_keys[0].first
        rotated = rotate_key(
            client, chain.deployer, chain.member_registry, member_id, "note", new
        ).block_number
        member = contracts.member(member_id)
        assert member.note_key == new
        for block, expected in (
            (registered - 1, None),
            (registered, old),
            (rotated - 1, old if rotated - 1 >= registered else None),
            (rotated, new),
            (rotated + 1_000, new),
        ):
            assert member.note_key_at(block) == expected
            if expected is None:
                with pytest.raises(ChainReverted, match="NoKeyAtBlock"):
                    contracts.view("keyAt", member_word(member_id), 1, block)
            else:
                assert contracts.view("keyAt", member_word(member_id), 1, block) == expected
        # In the block of the rotation the old key may have been used still.
        assert member.note_keys[0].covers(rotated)
        assert not member.note_keys[0].covers(rotated + 1)


class TestRevocation:
    def test_a_revoked_member_has_no_valid_keys_and_comes_back_with_fresh_ones(
        self, contracts: Contracts
    ) -> None:
        chain, client = contracts.chain, contracts.client
        member_id = contracts.new_id()
        word, operator = member_word(member_id), chain.add_member(member_id)
        revoked = revoke_member(client, chain.deployer, chain.member_registry, member_id)
        member = contracts.member(member_id)
        assert not member.active
        assert member.note_key_at(revoked.block_number) == member.note_key
        assert member.note_key_at(revoked.block_number + 1) is None
        assert contracts.view("standing", operator.address) == [word, True, REVOKED]

        governance = chain.deployer.address
        assert contracts.refusal(governance, "revoke", word).reason == "MemberRevoked"
        refused = contracts.refusal(governance, "rotateKey", word, 1, ed25519_public())
        assert refused.reason == "MemberRevoked"
        keys = (ed25519_public(), ed25519_public())
        refused = contracts.refusal(governance, "reinstate", word, operator.address, *keys)
        assert refused.reason == "KeyInUse"

        fresh = LocalSigner(secrets.token_bytes(32))
        contracts.govern("reinstate", word, fresh.address, *keys)
        member = contracts.member(member_id)
        assert (member.active, member.operator, member.note_key) == (True, fresh.address, keys[0])
        refused = contracts.refusal(governance, "reinstate", word, STRANGER, *keys)
        assert refused.reason == "MemberNotRevoked"


def test_each_change_is_an_event(contracts: Contracts) -> None:
    chain, client = contracts.chain, contracts.client
    start = client.block_number() + 1
    member_id = contracts.new_id()
    word = member_word(member_id)
    chain.add_member(member_id, roles=["issuer"])
    contracts.govern("setName", word, "Renamed")
    contracts.govern("setApiUrl", word, "https://moved")
    contracts.govern("setRoles", word, 3)
    contracts.govern("setBins", word, [], [contracts.new_bin()])
    contracts.govern("rotateKey", word, 1, ed25519_public())
    contracts.govern("revoke", word)
    fresh = LocalSigner(secrets.token_bytes(32)).address
    contracts.govern("reinstate", word, fresh, ed25519_public(), ed25519_public())
    events = client.logs(
        chain.member_registry, start, client.block_number(), [MEMBER_CHANGED_TOPIC, word]
    )
    assert [int.from_bytes(event.topics[2], "big") for event in events] == list(range(8))
    assert contracts.member(member_id).name == "Renamed"


def test_members_are_paged(contracts: Contracts) -> None:
    for _ in range(3):
        contracts.chain.add_member(contracts.new_id())
    count = contracts.view("memberCount")
    everyone = [
        row[0]
        for start in range(0, count, 16)
        for row in contracts.view("members", start, min(16, count - start))
    ]
    paged = [contracts.view("members", place, 1)[0][0] for place in range(count)]
    assert paged == everyone
    assert len(set(everyone)) == count
    assert contracts.view("members", count, 5) == []
    assert len(contracts.view("members", count - 1, 2**255)) == 1
