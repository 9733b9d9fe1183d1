"""The console's configuration: one JSON file, read at start (docs/console.md lists the keys)."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from nodes import ids
from nodes.anchoring.validators import is_listed, parse_validators

#: Stands in a user's `members` for every institution of this console.
EVERY_MEMBER = "*"


class Role(StrEnum):
    """What a person may do here; each role may do all that the ones before it may."""

    READER = "reader"  # look at everything of the own institutions, verify proofs
    OPERATOR = "operator"  # also propose, approve and reject adjustments, try rules (own node key)
    ADMIN = "admin"  # unlock accounts, see and end other people's sessions

    def includes(self, needed: Role) -> bool:
        """Whether this role may do what `needed` may."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


class NodeEntry(BaseModel):
    """One institution's node, and the key with which the console reads it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    member_id: str
    name: str = Field(min_length=1, max_length=80)
    roles: list[str] = []
    api_url: str
    api_key: SecretStr
    # An acquirer's: its gateway's HTTP port, which prints receipts. Without it none are printed.
    gateway_url: str | None = Field(default=None, pattern=r"^https?://[!-?A-~]{1,200}$")

    @field_validator("member_id")
    @classmethod
    def _member(cls, value: str) -> str:
        ids.member_word(value)
        return value


class SimulatorEntry(BaseModel):
    """The sandbox's terminal simulator, on the loopback (docs/terminal-simulator.md)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    url: str = Field(pattern=r"^http://(127\.0\.0\.1|localhost):[0-9]{1,5}$")
    key: SecretStr


class UserEntry(BaseModel):
    """One person. `members` are the institutions that they may see; "*" means all.

    `node_keys`: by member id, the key under which the person acts at that node (role `operator`
    there). Everybody has their own: the node tells maker from checker by it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    username: str = Field(min_length=1, max_length=64)
    password_argon2: SecretStr
    role: Role = Role.READER
    members: list[str] = []
    node_keys: dict[str, SecretStr] = {}

    @field_validator("password_argon2")
    @classmethod
    def _argon2id(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith("$argon2id$"):
            raise ValueError("password_argon2 must be an Argon2id hash ($argon2id$...)")
        return value


class ConsoleSettings(BaseModel):
    """What the console must be told. Unknown keys are refused: one may be misspelt."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    host: str = "127.0.0.1"
    port: int = Field(ge=1, le=65535)
    secret: SecretStr  # signs the session cookie; at least 32 characters, no default
    nodes: list[NodeEntry] = Field(min_length=1)
    users: list[UserEntry] = []
    rpc_url: str
    anchor_registry: str
    member_registry: str
    # Optional: what the console can then read from the chain itself of closes and receipts.
    close_registry: str | None = None
    settlement_registry: str | None = None
    omission_registry: str | None = None
    # The chain's validators, as `countersign verify --validators` takes them: addresses with commas
    # between, or a file with them or the genesis. By them the seals that proofs carry are judged.
    validators: tuple[str, ...] = ()
    # Sandbox only: the terminal simulator behind the virtual POS. Without it there is no such page.
    simulator: SimulatorEntry | None = None
    finality_depth: int = Field(default=1, ge=1)
    public_url: str | None = None  # as browsers see it; https makes the cookie Secure
    state_file: Path | None = None  # SQLite: sessions and locks; default: beside the config file
    time_zone: str = "Asia/Shanghai"  # the institutions' business time
    session_hours: float = Field(default=12, gt=0)
    idle_minutes: float = Field(default=60, gt=0)
    lock_minutes: float = Field(default=15, gt=0)

    @field_validator("validators", mode="before")
    @classmethod
    def _named_validators(cls, value: Any) -> Any:
        """A text becomes the addresses that it lists, or that its file does."""
        if not isinstance(value, str):
            return value
        try:
            text = value if is_listed(value) else Path(value).read_text(encoding="utf-8")
        except OSError as error:
            raise ValueError(f"{value}: {error.strerror}") from None
        return tuple(f"0x{one.hex()}" for one in sorted(parse_validators(text).addresses))

    @field_validator("validators")
    @classmethod
    def _addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if value:
            parse_validators(",".join(value))
        return value

    @field_validator("secret")
    @classmethod
    def _long_secret(cls, value: SecretStr) -> SecretStr:
        if len(value.get_secret_value()) < 32:
            raise ValueError("secret needs at least 32 characters")
        return value

    @model_validator(mode="after")
    def _names(self) -> ConsoleSettings:
        known = [node.member_id for node in self.nodes]
        if len(set(known)) != len(known):
            raise ValueError("a member stands twice in nodes")
        names = [user.username.casefold() for user in self.users]
        if len(set(names)) != len(names):
            raise ValueError("a username stands twice in users")
        for user in self.users:
            for member in user.members:
                if member != EVERY_MEMBER and member not in known:
                    raise ValueError(f"user {user.username!r}: no node for member {member!r}")
            for member in user.node_keys:
                if member not in known:
                    raise ValueError(f"user {user.username!r}: no node for the key of {member!r}")
        keys = [key.get_secret_value() for user in self.users for key in user.node_keys.values()]
        if len(set(keys)) != len(keys):
            raise ValueError("two people have the same node key: none could check the other")
        return self

    @property
    def sealers(self) -> frozenset[bytes] | None:
        """Who has to have sealed the blocks of proofs that carry seals; None: nobody is named, and
        nobody judges those seals."""
        return parse_validators(",".join(self.validators)).addresses if self.validators else None

    @property
    def secure(self) -> bool:
        """Whether browsers reach the console over TLS."""
        return self.public_url is not None and urlsplit(self.public_url).scheme == "https"

    @property
    def hosts(self) -> list[str]:
        """The host names under which the console answers; another Host header is refused."""
        hosts = {self.host, "127.0.0.1", "localhost"}
        if self.public_url:
            hosts.add(urlsplit(self.public_url).hostname or self.host)
        return sorted(hosts)

    @classmethod
    def load(cls, path: Path | str) -> ConsoleSettings:
        """Read the file; pydantic.ValidationError names each wrong key."""
        file = Path(path)
        settings = cls.model_validate_json(file.read_text(encoding="utf-8"))
        if settings.state_file is None:
            return settings.model_copy(update={"state_file": file.with_suffix(".sqlite")})
        return settings
