"""MemberRegistry against a model in plain Python: any sender, any method, any argument."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from nodes.ids import ascii_word
from tests.contracts.machine import Answer, Contract, Evm, evenly, machine_settings
from tests.contracts.world import GOVERNANCE, STRANGER, address_of, word

OPERATOR, NOTE, MESSAGE, PROMISE = range(4)
ISSUER = 1
ZERO = bytes(32)
IDS = ["aurora", "borealis", "meridian"]
ODD_IDS = ["Aurora", "a", "-x"]
BINS = ["622300", "62230001", "62230002", "622301"]
ODD_BINS = ["62230", "62230x", ""]
SENDERS = [GOVERNANCE.label, GOVERNANCE.label, "heir", STRANGER.label]
# Keys are drawn from few, so that they collide.
KEYS = [word(f"key {n}") for n in range(8)]
ADDRESSES = [f"operator-{n}" for n in range(8)]


class Refused(Exception):
    """The model's refusal, by the error's name."""


@dataclass
class Period:
    key: bytes
    first: int
    last: int = 0


@dataclass
class Member:
    roles: int
    name: str
    url: str
    active: bool = True
    bins: list[str] = field(default_factory=list)
    keys: dict[int, list[Period]] = field(default_factory=lambda: {k: [] for k in range(4)})

    def last(self, kind: int) -> bytes:
        return self.keys[kind][-1].key if self.keys[kind] else ZERO


@dataclass
class Model:
    """What MemberRegistry has to do; a method either raises Refused or changes the model."""

    owner: str = GOVERNANCE.label
    heir: str = ""
    members: dict[str, Member] = field(default_factory=dict)
    key_use: dict[bytes, tuple[str, int, int, int]] = field(default_factory=dict)

    def governed(self, sender: str) -> None:
        if sender != self.owner:
            raise Refused("NotGovernance")

    def known(self, member_id: str) -> Member:
        if member_id not in self.members:
            raise Refused("UnknownMember")
        return self.members[member_id]

    def active(self, member_id: str) -> Member:
        member = self.known(member_id)
        if not member.active:
            raise Refused("MemberRevoked")
        return member

    def governed_or_own(self, sender: str, member_id: str) -> None:
        if sender != self.owner:
            member = self.active(member_id)
            if address_of(sender).rjust(32, b"\0") != member.last(OPERATOR):
                raise Refused("NotGovernanceOrOperator")

    def open_key(self, member_id: str, kind: int, key: bytes, at: tuple[int, int]) -> None:
        too_long = kind in (OPERATOR, PROMISE) and any(key[:12])
        if key == ZERO or too_long:
            raise Refused("InvalidKey")
        if key in self.key_use:
            raise Refused("KeyInUse")
        number, now = at
        self.key_use[key] = (member_id, kind, now, 0)
        self.members[member_id].keys[kind].append(Period(key, number))

    def close_key(self, member_id: str, kind: int, at: tuple[int, int]) -> None:
        periods = self.members[member_id].keys[kind]
        if periods and not periods[-1].last:
            periods[-1].last = at[0]
            self.key_use[periods[-1].key] = (*self.key_use[periods[-1].key][:3], at[1])

    def add_bins(self, member_id: str, bins: list[str]) -> None:
        member = self.members[member_id]
        if bins and not member.roles & ISSUER:
            raise Refused("BinsNeedIssuer")
        for bin_ in bins:
            held = [b for m in self.members.values() for b in m.bins]
            self.valid_bin(bin_)
            if any(bin_.startswith(b) or b.startswith(bin_) for b in held):
                raise Refused("BinOverlaps")
            member.bins.append(bin_)

    def valid_bin(self, bin_: str) -> None:
        if len(bin_) not in (6, 8) or not bin_.isdigit():
            raise Refused("InvalidBin")

    def check_roles(self, roles: int) -> None:
        if not 0 < roles < 16:
            raise Refused("InvalidRoles")

    def check_text(self, text: str, limit: int, error: str) -> None:
        if not 0 < len(text) <= limit:
            raise Refused(error)

    # -- the methods

    def register(self, sender: str, r: tuple[Any, ...], at: tuple[int, int]) -> None:
        member_id, roles, name, url, bins, operator, note, message = r
        self.governed(sender)
        if member_id in ODD_IDS:
            raise Refused("InvalidMemberId")
        if member_id in self.members:
            raise Refused("MemberExists")
        self.check_roles(roles)
        self.check_text(name, 64, "InvalidName")
        self.check_text(url, 256, "InvalidApiUrl")
        self.members[member_id] = Member(roles, name, url)
        self.add_bins(member_id, bins)
        for kind, key in ((OPERATOR, operator), (NOTE, note), (MESSAGE, message)):
            self.open_key(member_id, kind, key, at)

    def set_name(self, sender: str, member_id: str, name: str) -> None:
        self.governed(sender)
        member = self.known(member_id)
        self.check_text(name, 64, "InvalidName")
        member.name = name

    def set_roles(self, sender: str, member_id: str, roles: int) -> None:
        self.governed(sender)
        member = self.known(member_id)
        self.check_roles(roles)
        if member.bins and not roles & ISSUER:
            raise Refused("BinsNeedIssuer")
        member.roles = roles

    def set_bins(self, sender: str, member_id: str, removed: list[str], added: list[str]) -> None:
        self.governed(sender)
        member = self.known(member_id)
        for bin_ in removed:
            self.valid_bin(bin_)
            if bin_ not in member.bins:
                raise Refused("BinNotHeld")
            place = member.bins.index(bin_)
            member.bins[place] = member.bins[-1]
            member.bins.pop()
        self.add_bins(member_id, added)

    def set_url(self, sender: str, member_id: str, url: str) -> None:
        self.governed_or_own(sender, member_id)
        member = self.known(member_id)
        self.check_text(url, 256, "InvalidApiUrl")
        member.url = url

    def rotate(
        self, sender: str, member_id: str, kind: int, key: bytes, at: tuple[int, int]
    ) -> None:
        self.governed_or_own(sender, member_id)
        if kind > PROMISE:
            raise Refused("InvalidKeyKind")
        self.active(member_id)
        self.close_key(member_id, kind, at)
        self.open_key(member_id, kind, key, at)

    def revoke(self, sender: str, member_id: str, at: tuple[int, int]) -> None:
        self.governed(sender)
        self.active(member_id).active = False
        for kind in range(4):
            self.close_key(member_id, kind, at)

    def reinstate(
        self, sender: str, member_id: str, keys: tuple[bytes, ...], at: tuple[int, int]
    ) -> None:
        self.governed(sender)
        member = self.known(member_id)
        if member.active:
            raise Refused("MemberNotRevoked")
        member.active = True
        for kind, key in enumerate(keys):
            self.open_key(member_id, kind, key, at)

    def transfer(self, sender: str, heir: str) -> None:
        self.governed(sender)
        self.heir = heir

    def accept(self, sender: str) -> None:
        if sender != self.heir:
            raise Refused("OwnableUnauthorizedAccount")
        self.owner, self.heir = sender, ""


@functools.cache
def founded() -> Contract:
    evm = Evm()
    return evm.deploy("MemberRegistry", STRANGER.address, GOVERNANCE.address)


ids = evenly([*IDS * 4, *ODD_IDS])
keys = evenly([*KEYS, ZERO])
names = evenly(["A name", "Another", "", "x" * 64, "x" * 65])
urls = evenly(["https://a", "https://b", "", "u" * 256, "u" * 257])
roles = evenly([1, 1, 2, 3, 8, 0, 16, 255])
bin_lists = st.lists(evenly([*BINS * 3, *ODD_BINS]), max_size=3)


class MemberMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.evm = founded().evm.fork()
        self.contract = founded().on(self.evm)
        self.model, self.changed = Model(), list[str]()
        for place, member in enumerate(IDS[:2]):
            operator = address_of(ADDRESSES[place])
            row = (
                member,
                3,
                "n",
                "u",
                [BINS[3 * place]],
                operator,
                *KEYS[2 * place : 2 * place + 2],
            )
            padded = (*row[:5], operator.rjust(32, b"\0"), *row[6:])
            self.model.register(self.model.owner, padded, self.at)
            sent = (ascii_word(member), *row[1:])
            self.contract.must(GOVERNANCE.address, "register", sent)

    @property
    def at(self) -> tuple[int, int]:
        return self.evm.number, self.evm.now

    @rule(blocks=st.integers(1, 3))
    def time_passes(self, blocks: int) -> None:
        self.evm.pass_time(blocks, blocks)

    @rule(data=st.data(), r=st.tuples(ids, roles, names, urls, bin_lists, keys, keys))
    def register(self, data: st.DataObject, r: tuple[Any, ...]) -> None:
        operator = self._address(data)
        row = (*r[:5], operator.rjust(32, b"\0"), *r[5:])
        sent = (ascii_word(r[0]), *r[1:5], operator, *r[5:])
        self._try(data, "register", (sent,), lambda s, m: m.register(s, row, self.at))

    @rule(data=st.data(), place=st.integers(0, 2))
    def a_member_is_admitted(self, data: st.DataObject, place: int) -> None:
        """A registration that is right, as far as keys are left."""
        used = self.model.key_use
        free = [key for key in KEYS if key not in used]
        label = next(
            (a for a in ADDRESSES if address_of(a).rjust(32, b"\0") not in used), ADDRESSES[0]
        )
        note, message = (free * 2 or KEYS)[:2]
        operator = address_of(label)
        row = (IDS[place], 3, "n", "u", [], operator.rjust(32, b"\0"), note, message)
        sent = (ascii_word(IDS[place]), *row[1:5], operator, note, message)
        self._try(data, "register", (sent,), lambda s, m: m.register(s, row, self.at))

    @rule(data=st.data(), member=ids, name=names)
    def set_name(self, data: st.DataObject, member: str, name: str) -> None:
        arguments = (ascii_word(member), name)
        self._try(data, "setName", arguments, lambda s, m: m.set_name(s, member, name))

    @rule(data=st.data(), member=ids, mask=roles)
    def set_roles(self, data: st.DataObject, member: str, mask: int) -> None:
        arguments = (ascii_word(member), mask)
        self._try(data, "setRoles", arguments, lambda s, m: m.set_roles(s, member, mask))

    @rule(data=st.data(), member=ids, removed=bin_lists, added=bin_lists, held=st.booleans())
    def set_bins(
        self, data: st.DataObject, member: str, removed: list[str], added: list[str], held: bool
    ) -> None:
        if held and member in self.model.members:
            removed = self.model.members[member].bins[:2]
        arguments = (ascii_word(member), removed, added)
        self._try(data, "setBins", arguments, lambda s, m: m.set_bins(s, member, removed, added))

    @rule(data=st.data(), member=ids, url=urls)
    def set_url(self, data: st.DataObject, member: str, url: str) -> None:
        arguments = (ascii_word(member), url)
        self._try(data, "setApiUrl", arguments, lambda s, m: m.set_url(s, member, url), member)

    @rule(data=st.data(), member=ids, kind=evenly([0, 0, 1, 2, 3, 3, 4]))
    def rotate(self, data: st.DataObject, member: str, kind: int) -> None:
        address = self._address(data).rjust(32, b"\0")
        key = data.draw(
            st.one_of(keys, st.just(address))
            if kind not in (0, 3)
            else evenly([address] * 6 + [KEYS[0], ZERO])
        )
        arguments = (ascii_word(member), kind, key)
        self._try(
            data,
            "rotateKey",
            arguments,
            lambda s, m: m.rotate(s, member, kind, key, self.at),
            member,
        )

    @rule(member=evenly(IDS[:2]))
    def bins_come_and_go(self, member: str) -> None:
        """Taken in another order than given, so that they move within the list."""
        mine = ["700001", "700002", "700003"]
        self._set_bins(member, [], mine)
        for bin_ in (mine[0], mine[2], mine[1]):
            self._set_bins(member, [bin_], [])

    def _set_bins(self, member: str, removed: list[str], added: list[str]) -> None:
        self._do(
            self.model.owner,
            "setBins",
            (ascii_word(member), removed, added),
            lambda s, m: m.set_bins(s, member, removed, added),
        )

    @rule(member=evenly(IDS[:2]), pause=st.integers(1, 3))
    def a_member_leaves_and_returns(self, member: str, pause: int) -> None:
        """With a promise key before and after: the period that the revocation ended stays."""
        count = len(self.model.key_use)
        fresh = [address_of(f"fresh {count} {n}").rjust(32, b"\0") for n in range(5)]
        word_, owner = ascii_word(member), self.model.owner
        if self.model.members[member].active:
            self._give_promise_key(member, fresh[0])
            self.evm.pass_time(pause, pause)
            self._do(owner, "revoke", (word_,), lambda s, m: m.revoke(s, member, self.at))
        self.evm.pass_time(pause, pause)
        keys_ = (fresh[1], fresh[2], fresh[3])
        self._do(
            owner,
            "reinstate",
            (word_, fresh[1][12:], *keys_[1:]),
            lambda s, m: m.reinstate(s, member, keys_, self.at),
        )
        self.evm.pass_time(pause, pause)
        self._give_promise_key(member, fresh[4])

    def _give_promise_key(self, member: str, key: bytes) -> None:
        self._do(
            self.model.owner,
            "rotateKey",
            (ascii_word(member), PROMISE, key),
            lambda s, m: m.rotate(s, member, PROMISE, key, self.at),
        )

    @rule(data=st.data(), member=ids)
    def revoke(self, data: st.DataObject, member: str) -> None:
        self._try(data, "revoke", (ascii_word(member),), lambda s, m: m.revoke(s, member, self.at))

    @rule(data=st.data(), member=ids, note=keys, message=keys)
    def reinstate(self, data: st.DataObject, member: str, note: bytes, message: bytes) -> None:
        operator = self._address(data)
        fresh = (operator.rjust(32, b"\0"), note, message)
        arguments = (ascii_word(member), operator, note, message)
        self._try(data, "reinstate", arguments, lambda s, m: m.reinstate(s, member, fresh, self.at))

    @rule(data=st.data(), heir=evenly(["heir", GOVERNANCE.label]))
    def transfer(self, data: st.DataObject, heir: str) -> None:
        arguments = (address_of(heir),)
        self._try(data, "transferOwnership", arguments, lambda s, m: m.transfer(s, heir))

    @rule(data=st.data())
    def accept(self, data: st.DataObject) -> None:
        self._try(data, "acceptOwnership", (), lambda s, m: m.accept(s))

    @rule(data=st.data())
    def renounce(self, data: st.DataObject) -> None:
        def never(_sender: str, _model: Model) -> None:
            raise Refused("NotGovernance")

        self._try(data, "renounceOwnership", (), never)

    # -- helpers

    def _address(self, data: st.DataObject) -> bytes:
        used = self.model.key_use
        free = [a for a in ADDRESSES if address_of(a).rjust(32, b"\0") not in used]
        return address_of(data.draw(evenly([*free[:2] * 4, *ADDRESSES])))

    def _try(
        self,
        data: st.DataObject,
        function: str,
        arguments: tuple[Any, ...],
        does: Callable[[str, Model], None],
        member: str = "",
    ) -> None:
        """One call by a drawn sender; `member` names whose operator may send it, too."""
        senders = [self.model.owner, *SENDERS]
        known = self.model.members.get(member)
        if known is not None:
            # Its operators, the retired ones included.
            words = [period.key for period in known.keys[OPERATOR]]
            senders += [a for a in ADDRESSES if address_of(a).rjust(32, b"\0") in words] * 2
        self._do(data.draw(evenly(senders)), function, arguments, does)

    def _do(
        self,
        sender: str,
        function: str,
        arguments: tuple[Any, ...],
        does: Callable[[str, Model], None],
    ) -> None:
        after, expected = copy.deepcopy(self.model), ""
        try:
            does(sender, after)
        except Refused as refused:
            expected = str(refused)
        answer: Answer = self.contract.send(address_of(sender), function, *arguments)
        assert answer.refusal == expected, (function, arguments, answer)
        if answer.ok:
            before, self.model = self.model.members, after
            self.changed += [m for m, now in after.members.items() if before.get(m) != now]

    @invariant()
    def owner_and_changed_members_agree(self) -> None:
        """About what the last call changed; `teardown` looks at all."""
        assert self.contract.view("owner") == "0x" + address_of(self.model.owner).hex()
        for member_id in dict.fromkeys(self.changed):
            self._compare(member_id, self.contract.view("member", ascii_word(member_id)))
        self.changed = []

    def _compare(self, member_id: str, row: Any) -> None:
        member = self.model.members[member_id]
        shown, mask, status, name, url, bins, *periods = row
        assert (shown, mask, name, url) == (
            ascii_word(member_id),
            member.roles,
            member.name,
            member.url,
        )
        assert status == (1 if member.active else 2)
        assert list(bins) == member.bins
        for kind, listed in enumerate(periods):
            assert list(listed) == [(p.key, p.first, p.last) for p in member.keys[kind]]

    def teardown(self) -> None:
        view = self.contract.view
        assert view("memberCount") == len(self.model.members)
        rows = view("members", 0, 10)
        for member_id, row in zip(self.model.members, rows, strict=True):
            self._compare(member_id, row)
        for member_id, member in self.model.members.items():
            for kind, periods in member.keys.items():
                for number in {n for p in periods for n in (p.first - 1, p.first, p.last + 1)}:
                    covering = [p for p in periods if p.first <= number <= (p.last or number)]
                    asked = (ascii_word(member_id), kind, number)
                    answer = self.contract.ask(bytes(20), "keyAt", *asked)
                    if covering:
                        assert answer.values == (covering[-1].key,)
                    else:
                        assert answer.refusal == "NoKeyAtBlock"
            for bin_ in member.bins:
                assert view("binOwner", bin_) == ascii_word(member_id)
        for key, (member_id, kind, since, until) in self.model.key_use.items():
            assert view("keyUse", key) == (ascii_word(member_id), kind, since, until)


def test_contract_and_model_agree_on_any_calls() -> None:
    run_state_machine_as_test(MemberMachine, settings=machine_settings(15, 25))
