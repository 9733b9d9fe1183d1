"""The script: gets the engine, starts the validators, says where they answer, waits for Ctrl-C.

    python -m sandbox.validators [--validators 4] [--period 1] [--dir var/validators] [--get]

With `-- COMMAND ...` it runs that command against the network instead of waiting, with EVM_RPC_URL,
EVM_DEPLOYER_KEY and EVM_FINALITY_DEPTH set, and ends with its status.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from sandbox.validators import engine
from sandbox.validators.network import VALIDATORS, NetworkFailed, ValidatorNetwork


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0, that of the command, or 1 with a reason on stderr."""
    options = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        program = engine.get(options.engines)
        if options.get:
            print(program)
            return 0
        network = ValidatorNetwork(
            options.dir, program, count=options.validators, period_s=options.period
        )
        with network:
            return _serve(network, options.command)
    except (engine.EngineUnavailable, NetworkFailed) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sandbox.validators",
        description="Start a permissioned network of several geth (clique) validators on loopback.",
    )
    parser.add_argument("--validators", type=_positive, default=VALIDATORS, help="how many (4)")
    parser.add_argument("--period", type=_positive, default=1, help="seconds between blocks (1)")
    parser.add_argument("--dir", type=Path, default=Path("var/validators"), help="for its data")
    parser.add_argument("--engines", type=Path, default=engine.ENGINES, help="for the program")
    parser.add_argument("--get", action="store_true", help="only fetch and build the engine")
    parser.add_argument("command", nargs="*", help="to run against the network")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _serve(network: ValidatorNetwork, command: Sequence[str]) -> int:
    settings = {
        "EVM_RPC_URL": network.rpc_urls[0],
        "EVM_DEPLOYER_KEY": network.deployer_key.hex(),
        # Two validators may seal at once, and a loaded machine sees it every minute: one block on
        # top, and it is decided.
        "EVM_FINALITY_DEPTH": "2",
    }
    key_file = network.directory / "deployer.key"
    key_file.touch(mode=0o600)
    key_file.write_text(settings["EVM_DEPLOYER_KEY"] + "\n")
    print(f"{len(network.rpc_urls)} validators make a block every {network.period_s} s, chain id")
    print(f"{network.chain_id}; final after {network.finality_depth} blocks (finality_depth).")
    for url in network.rpc_urls:
        print(f"  {url}")
    print(f"A funded deployer's key is in {key_file}.", flush=True)
    if command:
        return subprocess.run(command, env=os.environ | settings, check=False).returncode
    print("Ctrl-C stops them all.", flush=True)
    while True:
        signal.pause()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
