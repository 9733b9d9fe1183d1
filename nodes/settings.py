"""A node's configuration: one JSON file. Secrets stand in the keystore, not here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from nodes import ids
from nodes.crypto.http_signatures import usable_key

Role = Literal["issuer", "acquirer", "merchant"]
ApiRole = Literal["reader", "operator", "admin"]


class ApiKey(BaseModel):
    """A bearer key of the node's API; only its SHA-256 is kept."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(min_length=1, max_length=64)
    role: ApiRole
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class StandInTerms(BaseModel):
    """By contract with an issuer: what is approved in its place while it is away, in minor units:
    of one payment, and of one card in any 24 hours."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    currency: str = Field(pattern=r"^[A-Z]{3}$")
    amount: int = Field(gt=0)
    day_amount: int = Field(gt=0)
    day_count: int = Field(gt=0, le=100)


class NodeSettings(BaseModel):
    """What a node must be told. Unknown keys are refused, so that a misspelt one is noticed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    member_id: str
    roles: list[Role] = Field(min_length=1)
    host: str = "127.0.0.1"
    port: int = Field(ge=1, le=65535)
    api_url: str
    dsn: str = Field(repr=False)
    worker_dsn: str = Field(repr=False)
    owner_dsn: str | None = Field(default=None, repr=False)
    jobs_url: str = Field(repr=False)
    rpc_url: str
    member_registry: str
    anchor_registry: str
    # Without them the node posts no closes, settles off the chain and promises nothing.
    close_registry: str | None = None
    settlement_registry: str | None = None
    omission_registry: str | None = None
    finality_depth: int = Field(default=1, ge=1)
    keystore: Path
    passphrase_file: Path
    #: Webhooks to private addresses and by http: for a sandbox on one machine only.
    webhooks_to_private: bool = False
    #: The acquirer's gateways: the Ed25519 public key of each, by its key id.
    gateways: dict[str, Annotated[str, AfterValidator(usable_key)]] = {}
    api_keys: list[ApiKey] = []
    #: By member id of the issuer; without an entry a purchase is answered 91 while it is away.
    stand_in: dict[str, StandInTerms] = {}
    # By when a receipt's promise has its entry anchored; the chain's contracts take 7 days at most.
    merge_delay_s: int = Field(default=86_400, ge=1, le=7 * 86_400)
    seal_interval_s: float = Field(default=2.0, gt=0)
    #: Under load, rows may wait for so long to be sealed: terminals come first.
    seal_patience_s: float = Field(default=10.0, ge=0)
    #: How far the worker steps back from the processors for the node (nice, as in setpriority(2)).
    worker_niceness: int = Field(default=10, ge=0, le=19)
    business_time_zone: str = "Asia/Shanghai"
    #: A business date is closed so long after its end (seconds).
    close_grace_s: float = Field(default=1800.0, ge=0)
    #: What one side lacks may arrive so long after its transmission; then it is missing.
    late_after_s: float = Field(default=3600.0, ge=0)
    #: A break's case is due so long after it was opened.
    case_due_s: float = Field(default=48 * 3600.0, gt=0)
    #: Statements of confirmed closes are proposed and countersigned by the node itself, or only
    #: when somebody orders it.
    settlement: Literal["automatic", "manual"] = "automatic"
    #: So long both institutions have to sign a statement; the contract takes 30 days at most.
    settlement_due_s: int = Field(default=7 * 86_400, ge=60, le=30 * 86_400)
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("member_id")
    @classmethod
    def _member(cls, value: str) -> str:
        ids.member_word(value)
        return value

    @classmethod
    def load(cls, path: Path | str) -> NodeSettings:
        """Read the file; pydantic.ValidationError names each wrong key."""
        return cls.model_validate_json(Path(path).read_text(encoding="utf-8"))

    def passphrase(self) -> str:
        """The keystore's passphrase."""
        return self.passphrase_file.read_text(encoding="utf-8").strip()
