"""The gateway's settings: one JSON file, checked at start (`python -m gateway --config F`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from gateway.iso8583.dialect import BCD_TPDU, DIALECTS, Dialect, DialectError, load_dialect
from gateway.iso8583.spec import Suite
from gateway.terminal_keys.model import ALWAYS, KeyManagement, TerminalRecord
from gateway.terminal_keys.ring import USES
from nodes.crypto.certificates import MAX_TEXT, read_certificate
from nodes.crypto.http_signatures import usable_key
from nodes.crypto.keystore import Keystore
from nodes.money import CURRENCIES, MAX_TRANSACTION_AMOUNT

_Port = Annotated[int, Field(ge=0, le=65535)]
_Ed25519Key = Annotated[str, AfterValidator(usable_key)]


class SettingsUnusable(Exception):
    """What is wrong with the settings, a line for each problem: file, field, reason; no value, as
    the file may hold what must not be shown."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TerminalSettings(_Strict):
    """One terminal.

    Its master key is the keystore's secret `tmk:<terminal_id>` if there is one, else it follows
    from the gateway's own. `certificate`: X.509, in PEM or as its base64 alone, for a sign-on by
    SM2; serial number, key and time are read of it. Who has signed it isn't looked at: this file is
    trusted.
    """

    terminal_id: Annotated[str, Field(pattern=r"^[ -~]{8}$")]
    merchant_id: Annotated[str, Field(pattern=r"^[ -~]{15}$")]
    suite: Suite = Suite.SM
    static_keys: bool = False
    management: KeyManagement = KeyManagement.TMK
    generation: Annotated[int, Field(ge=1, le=0xFFFF)] = 1
    certificate: Annotated[str, Field(max_length=MAX_TEXT)] = ""

    @model_validator(mode="after")
    def _consistent(self) -> TerminalSettings:
        if self.certificate and self.management is not KeyManagement.SM2:
            raise ValueError(f"terminal {self.terminal_id}: a certificate is of an SM2 terminal")
        self.record()
        return self

    def record(self) -> TerminalRecord:
        """The same as the session takes it. CertificateInvalid, ValueError: see _consistent."""
        serial, public_key, valid_ms = b"", b"", ALWAYS
        if self.certificate:
            found = read_certificate(self.certificate)
            if found.common_name != self.terminal_id:
                raise ValueError(
                    f"terminal {self.terminal_id}: its certificate is of {found.common_name!r}"
                )
            serial, public_key = found.serial, found.public_key
            valid_ms = (found.not_before_ms, found.not_after_ms)
        return TerminalRecord(
            self.terminal_id,
            self.merchant_id,
            self.suite,
            self.static_keys,
            self.management,
            self.generation,
            serial,
            public_key,
            valid_ms,
        )


class ListenerSettings(_Strict):
    """A further port and its dialect: the name of one that ships, or a file's path (*.json)."""

    port: _Port
    dialect: str

    def load(self) -> Dialect:
        """The dialect. DialectError."""
        known = DIALECTS.get(self.dialect)
        if known is not None:
            return known
        if not self.dialect.endswith(".json"):
            raise DialectError(
                f"dialect {self.dialect}: one of {sorted(DIALECTS)}, or a .json file"
            )
        return load_dialect(Path(self.dialect))


class TokenSettings(_Strict):
    """A PKCS#11 token that holds the local master key (docs/keys.md, PKCS#11)."""

    library: Path
    token: str  # its label
    pin_file: Path


class GatewaySettings(_Strict):
    """Everything a gateway is told. Times in the unit of their name; amounts in minor units."""

    host: str = "127.0.0.1"
    port: _Port  # ISO 8583 over TCP, dialect bcd-tpdu; 0: any free one
    listeners: list[ListenerSettings] = []  # the same in other dialects, on the same host
    http_port: _Port  # GET /health and /metrics, on the same host
    #: The HTTP API's port and public URL; it is a process of its own (gateway/http/server.py).
    api_port: _Port | None = None
    api_url: Annotated[str, Field(pattern=r"^https?://[!-~]{1,40}$")] | None = None
    acquirer: str  # member id
    node_url: str
    node_message_key: _Ed25519Key  # the node's answers are verified with it
    key_id: Annotated[str, Field(pattern=r"^gateway:[A-Za-z0-9._-]{1,56}$")]
    key_file: Path  # keystore: message, master, zone, tmk:<terminal_id>
    passphrase_file: Path
    #: Where the master key is, instead of the keystore; the keystore's other cipher keys are
    #: encrypted under it then (python -m gateway.provision).
    pkcs11: TokenSettings | None = None
    terminals: list[TerminalSettings]

    #: How long a terminal waits for its answer.
    deadline_ms: Annotated[int, Field(ge=100, le=60_000)] = 15_000
    max_batch: Annotated[int, Field(ge=1, le=256)] = 256
    #: Calls to the node at a time.
    in_flight: Annotated[int, Field(ge=1, le=64)] = 4
    #: Requests in the queue, and how long one stays there before it is answered 96.
    max_waiting: Annotated[int, Field(ge=1)] = 4096
    max_wait_ms: Annotated[int, Field(ge=10)] = 500
    max_connections: Annotated[int, Field(ge=1)] = 10_000
    frame_timeout_s: Annotated[float, Field(gt=0)] = 5.0
    idle_timeout_s: Annotated[float, Field(gt=0)] = 600.0
    #: How long working keys last, and for how many messages.
    key_period_s: Annotated[int, Field(ge=1)] = 86_400
    #: Where the key of the present period is (gateway/terminal_keys/periods.py); without it working
    #: keys follow from the master key, and whoever gets that can read what was recorded before.
    period_file: Path | None = None
    key_uses: Annotated[int, Field(ge=1)] = USES
    max_amount: Annotated[int, Field(ge=1, le=MAX_TRANSACTION_AMOUNT)] = 10_000_000_000
    #: How often the acquirer's fleet is asked for changes, and is told who was heard.
    fleet_poll_s: Annotated[float, Field(gt=0)] = 1.0
    fleet_report_s: Annotated[float, Field(gt=0)] = 5.0
    #: Where what is known of the fleet outlasts a restart; no secrets stand in it.
    fleet_file: Path | None = None
    currencies: Annotated[list[str], Field(min_length=1)] = ["CNY"]
    log_level: Literal["debug", "info", "warning", "error", "critical"] = "info"

    @field_validator("node_url")
    @classmethod
    def _address(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            port = parts.port  # raises where it is none
        except ValueError:
            raise ValueError("its host or port can't be read") from None
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ValueError("is an http or https URL without credentials")
        if port == 0:
            raise ValueError("port 0 is no port")
        return url

    @model_validator(mode="after")
    def _consistent(self) -> GatewaySettings:
        names = [terminal.terminal_id for terminal in self.terminals]
        if len(names) != len(set(names)):
            raise ValueError("a terminal stands twice in the settings")
        dialects = [listener.load().name for listener in self.listeners]
        if len({*dialects, BCD_TPDU.name}) != len(dialects) + 1:
            raise ValueError("a dialect has two listeners")
        unknown = set(self.currencies) - CURRENCIES.keys()
        if unknown:
            raise ValueError(f"unknown currencies: {sorted(unknown)}")
        return self

    @classmethod
    def load(cls, path: Path) -> GatewaySettings:
        """Read the file. SettingsUnusable."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise SettingsUnusable(f"{path}: {error.strerror}") from None
        except ValidationError as error:
            raise SettingsUnusable("\n".join(_problems(path, error))) from None

    def keystore(self) -> Keystore:
        """The keystore, opened. KeystoreError, SettingsUnusable, OSError."""
        return Keystore.open(self.key_file, self.passphrase())

    def passphrase(self) -> str:
        """The keystore's. SettingsUnusable, OSError."""
        try:
            return self.passphrase_file.read_text(encoding="utf-8").strip()
        except UnicodeDecodeError:
            raise SettingsUnusable(f"passphrase_file {self.passphrase_file}: no text") from None


def _problems(path: Path, error: ValidationError) -> Iterator[str]:
    for problem in error.errors(include_input=False, include_url=False):
        where = [str(part) for part in problem["loc"]]
        said = problem["msg"].removeprefix("Value error, ")
        yield ": ".join((str(path), *([".".join(where)] if where else []), said))
