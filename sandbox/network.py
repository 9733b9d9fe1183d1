"""What the sandbox network consists of, and what one demo directory remembers of it.

`state.json` (mode 0600) holds everything that is chosen once: ports, passwords, API keys, cards,
terminals, the number of the last batch. Private keys stand in `keys/<owner>/keystore`, each under a
random passphrase beside it. Both are written before they are used, at one stroke, so that a
demo that was killed at any moment goes on from there.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from nodes.crypto.emv import TRANSPORT_KEY, key_names
from nodes.crypto.keystore import Keystore
from nodes.crypto.pan import random_pan
from sandbox.postgres import free_port, port_is_free, remove_outside_data

CURRENCY = "CNY"
MARKER = ".countersign-demo"
_VERSION = 2


class NotADemoDirectoryError(Exception):
    """A directory holds something else than a demo; it is left alone."""


class AlreadyRunningError(Exception):
    """Another launcher works in this demo directory."""


@dataclass(frozen=True)
class MemberPlan:
    """A member of the sandbox network."""

    member_id: str
    name: str
    roles: tuple[str, ...]
    bins: tuple[str, ...] = ()


@dataclass(frozen=True)
class MerchantPlan:
    """A merchant of the acquirer; `member_id` where it runs a node of its own."""

    merchant_id: str
    name: str
    mcc: str
    member_id: str | None
    terminals: tuple[str, ...]


@dataclass(frozen=True)
class CardPlan:
    """A card to be issued at the first start; `load` in minor units."""

    member_id: str
    load: int


MEMBERS = (
    MemberPlan("aurora", "Aurora Bank", ("issuer",), ("62230010",)),
    MemberPlan("borealis", "Borealis Pay", ("issuer",), ("622400",)),
    MemberPlan("meridian", "Meridian Acquiring", ("acquirer",)),
    MemberPlan("harbor", "Harbor Stores", ("merchant",)),
)
ACQUIRER = "meridian"
ISSUERS = tuple(member.member_id for member in MEMBERS if "issuer" in member.roles)
MERCHANT = "harbor"
MERCHANTS = (
    MerchantPlan("HARBOR000000001", "Harbor Stores", "5411", "harbor", ("HRB00001", "HRB00002")),
    MerchantPlan("LANTERN00000001", "Lantern Tea House", "5812", None, ("LTN00001",)),
)
#: The last card of each issuer is poor: the one on which funds don't suffice.
CARDS = (
    CardPlan("aurora", 500_000),
    CardPlan("aurora", 500_000),
    CardPlan("aurora", 500_000),
    CardPlan("aurora", 5_000),
    CardPlan("borealis", 500_000),
    CardPlan("borealis", 500_000),
    CardPlan("borealis", 5_000),
)


@dataclass(frozen=True)
class Plan:
    """What a network is founded with, beside its members."""

    merchants: tuple[MerchantPlan, ...]
    cards: tuple[CardPlan, ...]
    members: tuple[MemberPlan, ...] = MEMBERS


def port_names(members: Sequence[MemberPlan]) -> tuple[str, ...]:
    """What listens in a network of these members."""
    nodes = (f"{member.member_id}-node" for member in members)
    return (
        "chain",
        *nodes,
        "gateway",
        "gateway-ascii",
        "gateway-ebcdic",
        "gateway-http",
        "gateway-api",
        "simulator",
        "console",
    )


DEMO = Plan(MERCHANTS, CARDS)
PORTS = port_names(MEMBERS)
LOGINS = ("owner", "app", "worker", "reader")
TPDU = "6000010000"
GATEWAY_KEY_ID = f"gateway:{ACQUIRER}"


class Card(TypedDict):
    """A sandbox card, in the clear."""

    pan: str
    expiry: str
    service_code: str
    pin: str
    currency: str
    member: str


class Terminal(TypedDict):
    """A simulated terminal; `tmk` is its master key in hex."""

    terminal_id: str
    merchant_id: str
    tmk: str


class ApiKey(TypedDict):
    """A bearer key of a node's API."""

    name: str
    role: str
    key: str


# A member's secrets. `operator` and `promise` are secp256k1 keys, `note` and `message` Ed25519.
SECRETS = ("operator", "note", "message", "promise", "pan", "pan_lookup", "pin_lookup")
# Who resolves disputes about settlements: two of the three.
ARBITERS = ("first", "second", "third")
ARBITER_THRESHOLD = 2


class Login(TypedDict):
    """A person who may sign in to the console."""

    username: str
    password: str
    role: str
    members: list[str]


@dataclass
class State:
    """The content of state.json."""

    chain_id: int
    ports: dict[str, int]
    passwords: dict[str, dict[str, str]]
    api_keys: dict[str, list[ApiKey]]
    logins: list[Login]
    console_secret: str
    cards: list[Card]
    terminals: list[Terminal]
    card_tokens: dict[str, str] = field(default_factory=dict)
    contracts: dict[str, str] = field(default_factory=dict)
    founded: bool = False
    business_days: int = 0
    next_batch: int = 1
    next_stan: int = 1


class DemoDirectory:
    """The files of one sandbox network below one directory (mode 0700)."""

    def __init__(self, path: Path | str, plan: Plan = DEMO) -> None:
        self.path = Path(path).absolute()
        self.plan = plan
        self.log = self.path / "log"
        self.keys = self.path / "keys"
        self.postgres = self.path / "postgres"
        self.chain = self.path / "chain"
        self.config = self.path / "config"
        self.network_file = self.path / "network.json"
        self.processes_file = self.path / "processes.json"
        self._state_file = self.path / "state.json"

    @contextmanager
    def locked(self, *, fresh: bool = False) -> Iterator[State]:
        """Take the directory for one launcher; `fresh` deletes what a demo left there.

        Raises NotADemoDirectoryError, AlreadyRunningError.
        """
        self._claim()
        descriptor = os.open(self.path / MARKER, os.O_RDWR)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AlreadyRunningError(
                    f"another demo runs in {self.path}; stop it, or set DEMO_DIR"
                ) from None
            if fresh:
                self._empty()
            for directory in (self.log, self.config):
                directory.mkdir(mode=0o700, exist_ok=True)
            yield self._load_or_found()
        finally:
            os.close(descriptor)

    def save(self, state: State) -> None:
        """Write state.json at one stroke."""
        document = {"version": _VERSION, **state.__dict__}
        write_private(self._state_file, json.dumps(document, indent=1))

    def keystore(self, owner: str) -> Keystore:
        """Open a keystore: of a member, of `gateway` or of `governance`."""
        return Keystore.open(self.keystore_file(owner), self.passphrase_file(owner).read_text())

    def keystore_file(self, owner: str) -> Path:
        """Where that keystore is."""
        return self.keys / owner / "keystore"

    def passphrase_file(self, owner: str) -> Path:
        """Where its passphrase is."""
        return self.keys / owner / "passphrase"

    # ---------------------------------------------------------------------

    def _claim(self) -> None:
        marker = self.path / MARKER
        if marker.is_file():
            return
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise NotADemoDirectoryError(
                f"{self.path} is no demo directory (it lacks {MARKER}) and is not empty"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        self.path.chmod(0o700)
        marker.touch(mode=0o600)

    def _empty(self) -> None:
        if self.postgres.exists():
            remove_outside_data(self.postgres)
        for entry in self.path.iterdir():
            if entry.name != MARKER:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def _load_or_found(self) -> State:
        if not self._state_file.exists():
            state = _new_state(self.plan)
            self.save(state)
        else:
            document = json.loads(self._state_file.read_text())
            if document.pop("version", None) != _VERSION:
                raise NotADemoDirectoryError(
                    f"{self._state_file} is of another version of the demo; use --fresh"
                )
            state = State(**document)
        if not self.keys.exists():
            self._make_keys(state)
        choose_ports(state.ports, self.plan.members)
        self.save(state)
        return state

    def _make_keys(self, state: State) -> None:
        building = self.path / "keys.new"
        shutil.rmtree(building, ignore_errors=True)
        for owner, values in _new_keys(state, self.plan.members).items():
            directory = building / owner
            directory.mkdir(parents=True, mode=0o700)
            passphrase = secrets.token_urlsafe(32)
            write_private(directory / "passphrase", passphrase)
            Keystore.create(directory / "keystore", passphrase, values)
        building.rename(self.keys)


def choose_ports(ports: dict[str, int], members: Sequence[MemberPlan] = MEMBERS) -> None:
    """Keep each port that is still free, choose another one for each that is not."""
    taken: set[int] = set()
    for name in port_names(members):
        port = ports.get(name, 0)
        while not port or port in taken or not port_is_free(port):
            port = free_port()
        ports[name] = port
        taken.add(port)


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 0600 so that a reader (or a crash) finds the old or the new text."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def acting(logins: Sequence[Login], member: MemberPlan) -> list[Login]:
    """Who may act at a member's node through the console."""
    return [
        login
        for login in logins
        if login["role"] != "reader" and {"*", member.member_id} & set(login["members"])
    ]


def _new_state(plan: Plan) -> State:
    bins = {member.member_id: member.bins[0] for member in plan.members if member.bins}
    logins = [
        _login("admin", "admin", ["*"]),
        *(_login(member.member_id, "operator", [member.member_id]) for member in plan.members),
        _login("auditor", "reader", ["*"]),
    ]
    return State(
        chain_id=secrets.randbelow(1 << 30) + (1 << 20),
        ports={},
        passwords={
            member.member_id: {login: secrets.token_hex(16) for login in LOGINS}
            for member in plan.members
        },
        api_keys={
            member.member_id: [
                ApiKey(name=name, role=role, key=secrets.token_urlsafe(32))
                for name, role in (
                    ("console", "reader"),
                    ("sandbox", "operator"),
                    ("administrator", "admin"),
                    # People act at a node by keys of their own: so it tells maker from checker.
                    *((login["username"], "operator") for login in acting(logins, member)),
                )
            ]
            for member in plan.members
        },
        logins=logins,
        console_secret=secrets.token_urlsafe(48),
        cards=[
            Card(
                pan=random_pan(bins[card.member_id]),
                expiry="3112",
                service_code="201",
                pin=f"{secrets.randbelow(10_000):04d}",
                currency=CURRENCY,
                member=card.member_id,
            )
            for card in plan.cards
        ],
        terminals=[
            Terminal(
                terminal_id=terminal_id,
                merchant_id=merchant.merchant_id,
                tmk=secrets.token_hex(16),
            )
            for merchant in plan.merchants
            for terminal_id in merchant.terminals
        ],
    )


def _login(username: str, role: str, members: list[str]) -> Login:
    return Login(username=username, password=secrets.token_urlsafe(9), role=role, members=members)


def _new_keys(state: State, members: Sequence[MemberPlan]) -> dict[str, dict[str, bytes]]:
    """All secrets by owner and name. Zone keys stand in two keystores."""
    keys: dict[str, dict[str, bytes]] = {
        member.member_id: {name: secrets.token_bytes(32) for name in SECRETS} for member in members
    }
    for member in members:
        if "issuer" in member.roles:
            keys[member.member_id] |= {
                name: secrets.token_bytes(32 if name == TRANSPORT_KEY else 16)
                for name in key_names()
            }
    for acquirer in (member.member_id for member in members if "acquirer" in member.roles):
        for issuer in (member.member_id for member in members if "issuer" in member.roles):
            if issuer != acquirer:
                zone = secrets.token_bytes(16)
                keys[issuer][f"zone:{acquirer}"] = zone
                keys[acquirer][f"zone:{issuer}"] = zone
    zone = secrets.token_bytes(16)
    keys[ACQUIRER]["zone:gateway"] = zone
    keys["gateway"] = {
        "message": secrets.token_bytes(32),
        "master": secrets.token_bytes(16),
        "zone": zone,
    }
    for terminal in state.terminals:
        keys["gateway"][f"tmk:{terminal['terminal_id']}"] = bytes.fromhex(terminal["tmk"])
    keys["governance"] = {"operator": secrets.token_bytes(32)}
    keys["arbiters"] = {name: secrets.token_bytes(32) for name in ARBITERS}
    return keys


def api_key(state: State, member_id: str, role: str) -> str:
    """The sandbox's own API key of that role at a member's node."""
    return next(entry["key"] for entry in state.api_keys[member_id] if entry["role"] == role)


def api_url(state: State, member_id: str) -> str:
    """Where a member's node listens."""
    return f"http://127.0.0.1:{state.ports[f'{member_id}-node']}"


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON document, mode 0600."""
    write_private(path, json.dumps(document, indent=1) + "\n")
