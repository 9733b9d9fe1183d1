"""A network of validators: started, killed, cut in two, joined again, stopped.

with ValidatorNetwork(directory, engine.built()) as network:
    client = ChainClient(network.rpc_urls[0], finality_depth=network.finality_depth)

Every start is a new chain. Processes are ended by their own ids, and only those started here.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from eth_account import Account

from sandbox.validators.genesis import Validator, genesis, make_validator, write_settings
from sandbox.validators.ipc import LONGEST_PATH, ValidatorDown, ValidatorRefused, ask

CHAIN_ID = 20_267
VALIDATORS = 4
_DEPLOYER_WEI = 10**24
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 15.0
_HEAD_START_S = 6
_LOG_TAIL = 2_000
_PRCTL = getattr(ctypes.CDLL(None), "prctl", None)
_PR_SET_PDEATHSIG = 1


class NetworkFailed(RuntimeError):
    """The network doesn't do what it should; the text says what, with the end of the log."""


class ValidatorNetwork:
    """N validators of one clique network on loopback, on free ports.

    `period_s`: seconds between blocks, at least 1. `deployer_key` is a fresh account's private key
    (32 bytes) that owns test money from the first block on; gas is free for everybody.
    """

    def __init__(
        self,
        directory: Path,
        program: Path,
        *,
        count: int = VALIDATORS,
        chain_id: int = CHAIN_ID,
        period_s: int = 1,
    ) -> None:
        if count < 1 or period_s < 1:
            raise ValueError("a network has at least 1 validator and 1 s between blocks")
        self.directory = directory.absolute()
        self.chain_id = chain_id
        self.period_s = period_s
        self.deployer_key = secrets.token_bytes(32)
        self.validators: list[Validator] = []
        self._count = count
        self.program = program.absolute()
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._locked: int | None = None

    def __enter__(self) -> ValidatorNetwork:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def genesis_file(self) -> Path:
        return self.directory / "genesis.json"

    @property
    def rpc_urls(self) -> list[str]:
        """Where the validators answer, in their order."""
        return [validator.rpc_url for validator in self.validators]

    @property
    def finality_depth(self) -> int:
        """How many blocks, its own included, make a transaction final: N/2 + 1. Of that many blocks
        in a row no two have the same sealer, so no half of the validators can make them alone."""
        return self._count // 2 + 1

    @property
    def pids(self) -> dict[int, int]:
        """The processes that run, by the validator's index."""
        return {index: process.pid for index, process in self._processes.items()}

    # -- the whole network

    def start(self) -> None:
        """Makes a new chain and starts all validators; returns when it makes blocks."""
        try:
            self._prepare()
            for validator in self.validators:
                self._spawn(validator)
            for validator in self.validators:
                self._open(validator)
            self.wait_for(lambda: self.height(0) >= 2, "no blocks are made")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends every validator that runs: SIGTERM, and after 15 s SIGKILL."""
        for process in self._processes.values():
            process.terminate()
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        for process in self._processes.values():
            try:
                process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()
        if self._locked is not None:
            os.close(self._locked)
            self._locked = None

    # -- one validator

    def kill(self, *indexes: int) -> None:
        """kill -9."""
        for index in indexes:
            self._processes[index].send_signal(signal.SIGKILL)
        for index in indexes:
            self._processes.pop(index).wait()

    def restart(self, *indexes: int) -> None:
        """Starts validators again on the data that they have; returns when they answer."""
        for index in indexes:
            self._spawn(self.validators[index])
        for index in indexes:
            self._open(self.validators[index])

    def height(self, index: int) -> int:
        """The number of the newest block that a validator knows."""
        return int(ask(self.validators[index].ipc, "eth_blockNumber"), 16)

    def peers(self, index: int) -> int:
        """How many others a validator is connected with."""
        return int(ask(self.validators[index].ipc, "net_peerCount"), 16)

    def sealers(self, index: int, last: int) -> list[str]:
        """Who sealed the newest `last` blocks that a validator knows, oldest first."""
        head = self.height(index)
        return [self.sealer(number, index) for number in range(max(head - last + 1, 1), head + 1)]

    def sealer(self, number: int, index: int = 0) -> str:
        """Who sealed a block (an address in lower case), as one validator knows it."""
        return str(ask(self.validators[index].ipc, "clique_getSigner", hex(number)))

    # -- the wires between them

    def cut(self, *sides: Collection[int]) -> None:
        """Parts the network: validators of different sides aren't connected any more.

        Both ends forget each other, so neither calls again; one that was calling at that moment
        is sent away in the next round.
        """

        def apart() -> bool:
            for here, there in _across(sides):
                for one, other in ((here, there), (there, here)):
                    ask(self.validators[one].ipc, "admin_removePeer", self.validators[other].enode)
            return all(self.peers(one) < len(side) for side in sides for one in side)

        self.wait_for(apart, "the sides are still connected")

    def join(self, *sides: Collection[int]) -> None:
        """Connects the sides again."""
        for here, there in _across(sides):
            for one, other in ((here, there), (there, here)):
                ask(self.validators[one].ipc, "admin_addPeer", self.validators[other].enode)
        everyone = [one for side in sides for one in side]
        self.wait_for(
            lambda: all(self.peers(one) == len(everyone) - 1 for one in everyone),
            "the sides don't find each other",
        )

    def wait_for(
        self, holds: Callable[[], bool], trouble: str, timeout_s: float = _START_TIMEOUT_S
    ) -> None:
        """Asks until something holds. NetworkFailed with `trouble` when the time is over or a
        validator has ended."""
        deadline = time.monotonic() + timeout_s
        while not holds():
            for index, process in self._processes.items():
                if process.poll() is not None:
                    raise NetworkFailed(
                        f"validator {index} ended with status {process.returncode}:\n"
                        + self._log_tail(index)
                    )
            if time.monotonic() > deadline:
                logs = "\n".join(self._log_tail(index) for index in self._processes)
                raise NetworkFailed(f"{trouble} after {timeout_s:.0f} s:\n{logs}")
            time.sleep(0.05)

    # -- how it is done

    def _prepare(self) -> None:
        """Keys, genesis, settings and an empty chain for each validator."""
        self._lock()
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(mode=0o700)
        ports = _free_ports(2 * self._count)
        self.validators = [
            make_validator(
                self.directory / f"validator-{index}", index, ports[2 * index], ports[2 * index + 1]
            )
            for index in range(self._count)
        ]
        longest = max(len(str(validator.ipc)) for validator in self.validators)
        if longest > LONGEST_PATH:
            raise NetworkFailed(
                f"{self.directory} is too long a path: sockets below it would have {longest}"
                f" characters, and {LONGEST_PATH} are possible"
            )
        deployer = str(Account.from_key(self.deployer_key).address)
        # No block is made before its parent's moment. Until then all are up and connected: a
        # validator that hasn't begun throws away what it is told, and if each has sealed a first
        # block of its own, two of them stand still for good.
        content = genesis(
            chain_id=self.chain_id,
            timestamp=int(time.time()) + _HEAD_START_S,
            period_s=self.period_s,
            signers=[validator.address for validator in self.validators],
            balances={deployer: _DEPLOYER_WEI},
        )
        self.genesis_file.write_text(json.dumps(content, indent=2) + "\n")
        for validator in self.validators:
            write_settings(validator, self.validators, self.chain_id)
            initialize(self.program, validator, self.genesis_file)

    def _lock(self) -> None:
        """Two networks in one directory would destroy each other."""
        self.directory.parent.mkdir(parents=True, exist_ok=True)
        path = self.directory.with_name(self.directory.name + ".lock")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise NetworkFailed(f"another network is running in {self.directory}") from None
        self._locked = descriptor

    def _spawn(self, validator: Validator) -> None:
        self._processes[validator.index] = spawn(self.program, validator, self.chain_id)

    def _open(self, validator: Validator) -> None:
        """Waits until a validator answers, and makes gas free there: geth takes no price of 0 from
        its settings, only from its operator."""

        def free() -> bool:
            try:
                return bool(ask(validator.ipc, "miner_setGasPrice", "0x0"))
            except (ValidatorDown, ValidatorRefused):
                return False

        self.wait_for(free, f"validator {validator.index} doesn't answer")

    def _log_tail(self, index: int) -> str:
        log = self.validators[index].log
        return log.read_text(errors="replace")[-_LOG_TAIL:] if log.exists() else ""


def initialize(program: Path, validator: Validator, genesis_file: Path) -> None:
    """Gives a validator its first block."""
    command = [
        *(str(program), "--datadir", str(validator.directory)),
        *("--state.scheme", "hash", "init", str(genesis_file)),
    ]
    done = subprocess.run(
        command, env=_environment(), capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        raise NetworkFailed(f"geth does not take the genesis:\n{done.stderr[-_LOG_TAIL:]}")


def spawn(program: Path, validator: Validator, chain_id: int) -> subprocess.Popen[bytes]:
    """Starts a validator's process. State is written with every block (archive): a validator that
    was killed goes on where it stood, and `eth_call` works on the past."""
    command = [
        *(str(program), "--config", str(validator.settings_file)),
        *("--networkid", str(chain_id), "--cache", "64", "--snapshot=false"),
        *("--nodiscover", "--nat", "none", "--authrpc.port", "0"),
        *("--gcmode", "archive", "--state.scheme", "hash", "--syncmode", "full"),
        *("--unlock", validator.address, "--password", str(validator.password_file)),
        *("--mine", "--miner.etherbase", validator.address, "--verbosity", "3"),
    ]
    with validator.log.open("ab") as log:
        return subprocess.Popen(
            command,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )


def _across(sides: Collection[Collection[int]]) -> Iterable[tuple[int, int]]:
    """Every two validators that stand on different sides, once."""
    numbered = [(number, one) for number, side in enumerate(sides) for one in side]
    return [(here, there) for left, here in numbered for right, there in numbered if left < right]


def _free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on; all are held until all are found."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def _end_with_parent() -> None:
    """In the child: where the kernel can (Linux), be killed when the parent is."""
    if _PRCTL is not None:
        _PRCTL(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _environment() -> dict[str, str]:
    """The environment without geth's own variables, which would stand above the settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("GETH_")}
