"""The network's processes: the configuration file of each, and how the supervisor runs it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

from argon2 import PasswordHasher
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.terminal_keys.periods import PeriodKeys
from gateway.terminal_keys.ring import MASTER_KEY
from nodes.chain.signer import LocalSigner
from nodes.crypto.hsm import SoftwareHsm
from nodes.db.provision import dsn_for
from sandbox.network import (
    ACQUIRER,
    ARBITERS,
    GATEWAY_KEY_ID,
    DemoDirectory,
    MemberPlan,
    State,
    api_key,
    api_url,
    write_json,
    write_private,
)
from sandbox.postgres import HOST, EmbeddedPostgres
from sandbox.supervisor import Order, Service

#: How long the terminals' working keys last.
KEY_PERIOD_S = 86_400
#: What the forkserver imports for all processes; none of these starts a thread on import.
PRELOAD = (
    "asyncio",
    "psycopg",
    "sqlalchemy.dialects.postgresql.psycopg",
    "uvicorn.protocols.http.httptools_impl",
    "uvicorn.lifespan.on",
    "celery.app.trace",
    "celery.concurrency.solo",
    "celery.worker",
    "celery.apps.worker",
    "celery.beat",
    "kombu.transport.pgmq",
    "nodes.bootstrap",
    "nodes.api.app",
    "nodes.worker",
    "gateway.pos.server",
    "gateway.http.server",
    "console.app",
)


class Network:
    """The sandbox network of one demo directory: names, addresses, keys, services."""

    def __init__(self, directory: DemoDirectory, state: State, postgres: EmbeddedPostgres) -> None:
        self.directory = directory
        self.state = state
        self.postgres = postgres
        self.rpc_url = f"http://{HOST}:{state.ports['chain']}"
        self.console_url = f"http://{HOST}:{state.ports['console']}"
        self.gateway_url = f"http://{HOST}:{state.ports['gateway-http']}"
        self.front_url = f"http://{HOST}:{state.ports['gateway-api']}"
        self.simulator_url = f"http://{HOST}:{state.ports['simulator']}"
        self._simulator_key_file = directory.config / "simulator.key"
        self._public: dict[tuple[str, str], bytes] = {}
        for member in directory.plan.members:
            store = directory.keystore(member.member_id)
            for name in ("note", "message"):
                self._public[member.member_id, name] = public_key(store.secret(name))
            for name in ("operator", "promise"):
                signer = LocalSigner(store.secret(name))
                self._public[member.member_id, name] = signer.address.encode()
        gateway = directory.keystore("gateway")
        self._public["gateway", "message"] = public_key(gateway.secret("message"))
        self.governance = LocalSigner(directory.keystore("governance").secret("operator"))
        judges = directory.keystore("arbiters")
        self.arbiters = tuple(LocalSigner(judges.secret(name)) for name in ARBITERS)

    def public_key(self, owner: str, name: str) -> bytes:
        """The Ed25519 public key of an owner's `note` or `message` key, 32 bytes."""
        return self._public[owner, name]

    def operator(self, member_id: str) -> str:
        """The address of a member's operator key."""
        return self._public[member_id, "operator"].decode()

    def promiser(self, member_id: str) -> str:
        """The address of the key by which a member signs the promises on receipts."""
        return self._public[member_id, "promise"].decode()

    def dsn(self, member_id: str, login: str = "app") -> str:
        """A member's database as one of its logins: owner, app, worker, reader."""
        return dsn_for(
            self.postgres.superuser_dsn(),
            member_id,
            f"{member_id}_{login}",
            self.state.passwords[member_id][login],
        )

    def jobs_url(self, member_id: str) -> str:
        """The Celery broker: a database of its own that belongs to the member's worker."""
        dsn = dsn_for(
            self.postgres.superuser_dsn(),
            f"{member_id}_jobs",
            f"{member_id}_worker",
            self.state.passwords[member_id]["worker"],
        )
        return "pgmq" + dsn.removeprefix("postgresql")

    # ------------------------------------------------------------- configuration files

    def write_node_configs(self) -> None:
        """One JSON file a node (nodes.settings), written at every start."""
        for member in self.directory.plan.members:
            write_json(self._config(member.member_id), self._node_config(member))

    def _node_config(self, member: MemberPlan) -> dict[str, Any]:
        name = member.member_id
        gateway = {GATEWAY_KEY_ID: self.public_key("gateway", "message").hex()}
        return {
            "member_id": name,
            "roles": list(member.roles),
            "host": HOST,
            "port": self.state.ports[f"{name}-node"],
            "api_url": api_url(self.state, name),
            "dsn": self.dsn(name, "app"),
            "worker_dsn": self.dsn(name, "worker"),
            "owner_dsn": self.dsn(name, "owner"),
            "jobs_url": self.jobs_url(name),
            "rpc_url": self.rpc_url,
            "member_registry": self.state.contracts["MemberRegistry"],
            "anchor_registry": self.state.contracts["AnchorRegistry"],
            "close_registry": self.state.contracts.get("CloseRegistry"),
            "settlement_registry": self.state.contracts["SettlementRegistry"],
            "omission_registry": self.state.contracts["OmissionRegistry"],
            "keystore": str(self.directory.keystore_file(name)),
            "passphrase_file": str(self.directory.passphrase_file(name)),
            "gateways": gateway if name == ACQUIRER else {},
            "webhooks_to_private": True,
            "api_keys": [
                {
                    "name": entry["name"],
                    "role": entry["role"],
                    "sha256": hashlib.sha256(entry["key"].encode()).hexdigest(),
                }
                for entry in self.state.api_keys[name]
            ],
        }

    def write_gateway_config(self) -> None:
        """The gateway's JSON file; and the file of its periods' keys, the first time."""
        periods = self.directory.keys / "gateway" / "periods.json"
        if not periods.exists():
            hsm = SoftwareHsm({MASTER_KEY: self.directory.keystore("gateway").secret(MASTER_KEY)})
            PeriodKeys.create(hsm, periods, KEY_PERIOD_S, time.time_ns() // 1_000_000)
        write_json(
            self._config("gateway"),
            {
                "host": HOST,
                "port": self.state.ports["gateway"],
                "listeners": [
                    {"port": self.state.ports[f"gateway-{name}"], "dialect": name}
                    for name in ("ascii", "ebcdic")
                ],
                "http_port": self.state.ports["gateway-http"],
                "api_port": self.state.ports["gateway-api"],
                "api_url": self.front_url,
                "acquirer": ACQUIRER,
                "node_url": api_url(self.state, ACQUIRER),
                "node_message_key": self.public_key(ACQUIRER, "message").hex(),
                "key_file": str(self.directory.keystore_file("gateway")),
                "passphrase_file": str(self.directory.passphrase_file("gateway")),
                "key_id": GATEWAY_KEY_ID,
                "key_period_s": KEY_PERIOD_S,
                "period_file": str(periods),
                "terminals": [
                    {
                        "terminal_id": terminal["terminal_id"],
                        "merchant_id": terminal["merchant_id"],
                        "suite": 1,
                        "static_keys": True,
                    }
                    for terminal in self.state.terminals
                ],
            },
        )

    def write_console_config(self) -> None:
        """The console's JSON file; a reader's key for each node."""
        hasher = PasswordHasher()
        write_json(
            self._config("console"),
            {
                "host": HOST,
                "port": self.state.ports["console"],
                "secret": self.state.console_secret,
                "nodes": [
                    {
                        "member_id": member.member_id,
                        "name": member.name,
                        "roles": list(member.roles),
                        "api_url": api_url(self.state, member.member_id),
                        "api_key": api_key(self.state, member.member_id, "reader"),
                        **(
                            {"gateway_url": self.gateway_url}
                            if member.member_id == ACQUIRER
                            else {}
                        ),
                    }
                    for member in self.directory.plan.members
                ],
                "users": [
                    {
                        "username": login["username"],
                        "password_argon2": hasher.hash(login["password"]),
                        "role": login["role"],
                        "members": login["members"],
                        "node_keys": self._node_keys(login["username"]),
                    }
                    for login in self.state.logins
                ],
                "rpc_url": self.rpc_url,
                "anchor_registry": self.state.contracts["AnchorRegistry"],
                "member_registry": self.state.contracts["MemberRegistry"],
                "close_registry": self.state.contracts.get("CloseRegistry"),
                "settlement_registry": self.state.contracts["SettlementRegistry"],
                "omission_registry": self.state.contracts["OmissionRegistry"],
                "simulator": {"url": self.simulator_url, "key": self._simulator_key()},
            },
        )
        write_private(self._simulator_key_file, self._simulator_key())

    def _simulator_key(self) -> str:
        """What the virtual POS shows at the simulator; it follows from the console's secret."""
        return hashlib.sha256(f"simulator {self.state.console_secret}".encode()).hexdigest()

    def _node_keys(self, username: str) -> dict[str, str]:
        """The person's own key at each node where they have one."""
        return {
            member_id: entry["key"]
            for member_id, entries in self.state.api_keys.items()
            for entry in entries
            if entry["name"] == username and entry["role"] == "operator"
        }

    def _config(self, name: str) -> Any:
        return self.directory.config / f"{name}.json"

    # ------------------------------------------------------------- services

    def postgres_service(self) -> Service:
        """PostgreSQL; stops last."""

        def order() -> Order:
            command = self.postgres.prepare(keep_port=True)
            return Order("postgres", program=dict(command.__dict__))

        return Service(
            name="postgres",
            order=order,
            ready=self._database_ready,
            tier=0,
            stop_signal=signal.SIGINT,
            # Crash recovery of a large database may take long; never kill it half way.
            start_timeout_s=3600,
            stop_timeout_s=30,
        )

    def chain_service(self) -> Service:
        """The embedded chain."""
        args = ["--data", str(self.directory.chain / "data")]
        args += ["--port", str(self.state.ports["chain"])]
        args += ["--genesis", str(self.directory.chain / "genesis.json")]
        return self._python(
            "chain", "nodes.chain.embedded", args, self._http_ready(f"{self.rpc_url}/health"), 1
        )

    def node_services(self) -> list[Service]:
        """Node and worker of each member."""
        services = []
        for member in self.directory.plan.members:
            name = member.member_id
            config = ["--config", str(self._config(name))]
            ready = self._http_ready(f"{api_url(self.state, name)}/v1/ready")
            services.append(self._python(f"{name}-node", "nodes", ["serve", *config], ready, 2))
            services.append(
                self._python(f"{name}-worker", "nodes", ["worker", *config], _at_once, 3)
            )
        return services

    def gateway_service(self) -> Service:
        """The acquirer's gateway."""
        return self._python(
            "gateway",
            "gateway",
            ["--config", str(self._config("gateway"))],
            self._http_ready(f"{self.gateway_url}/health"),
            4,
        )

    def front_service(self) -> Service:
        """The HTTP API for smart terminals and online merchants: a process of its own."""
        return self._python(
            "gateway-api",
            "gateway.http",
            ["--config", str(self._config("gateway"))],
            self._http_ready(f"{self.front_url}/health"),
            4,
        )

    def simulator_service(self) -> Service:
        """The terminal simulator behind the virtual POS; reads network.json."""
        args = ["--network", str(self.directory.network_file)]
        args += ["--port", str(self.state.ports["simulator"])]
        args += ["--key-file", str(self._simulator_key_file)]
        ready = self._http_ready(f"{self.simulator_url}/health")
        return self._python("simulator", "sandbox.terminals.service", args, ready, 5)

    def console_service(self) -> Service:
        """The console."""
        return self._python(
            "console",
            "console",
            ["--config", str(self._config("console"))],
            self._listens(self.state.ports["console"]),
            4,
        )

    def _python(
        self,
        name: str,
        module: str,
        args: list[str],
        ready: Callable[[], Awaitable[bool]],
        tier: int,
    ) -> Service:
        return Service(name=name, order=lambda: Order(module, args), ready=ready, tier=tier)

    async def _database_ready(self) -> bool:
        return await asyncio.to_thread(self.postgres.is_ready)

    def _listens(self, port: int) -> Callable[[], Awaitable[bool]]:
        async def ready() -> bool:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(HOST, port)
                writer.close()
                return True
            return False

        return ready

    def _http_ready(self, url: str) -> Callable[[], Awaitable[bool]]:
        port, _, path = url.removeprefix(f"http://{HOST}:").partition("/")
        request = f"GET /{path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nConnection: close\r\n\r\n"

        async def ready() -> bool:
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                async with asyncio.timeout(2):
                    reader, writer = await asyncio.open_connection(HOST, int(port))
                    writer.write(request.encode())
                    status = await reader.readline()
                    writer.close()
                    return status.split()[1:2] == [b"200"]
            return False

        return ready


async def _at_once() -> bool:
    return True


def public_key(seed: bytes) -> bytes:
    """The Ed25519 public key (32 bytes) of a 32-byte seed (RFC 8032)."""
    key = Ed25519PrivateKey.from_private_bytes(seed).public_key()
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)
