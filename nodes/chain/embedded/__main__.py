"""Runs the embedded chain: python -m nodes.chain.embedded --data DIR --port P --genesis FILE."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from nodes.chain.embedded.engine import Engine
from nodes.chain.embedded.genesis import load_genesis
from nodes.chain.embedded.server import listen, serve

DATABASE = "chain.sqlite"
_logger = logging.getLogger("nodes.chain.embedded")


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until it is told to stop (SIGTERM, SIGINT); returns the exit status.

    Says "listening on http://HOST:PORT" in its log once requests are answered.
    """
    options = _parser().parse_args(argv)
    logging.basicConfig(
        level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    # py-evm and asyncio write a line for each step otherwise.
    logging.getLogger("eth").setLevel(logging.WARNING)
    try:
        listener = listen(options.host, options.port)
        engine = Engine(load_genesis(options.genesis), options.data / DATABASE)
    except (ValueError, OSError) as error:
        _logger.error("the chain does not start: %s", error)
        return 1
    host, port = listener.getsockname()[:2]
    _logger.info(
        "chain %d at block %d, listening on http://%s:%d",
        engine.genesis.chain_id,
        engine.head.block_number,
        f"[{host}]" if ":" in host else host,
        port,
    )
    serve(engine, listener, heartbeat_s=options.heartbeat)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m nodes.chain.embedded", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="directory of the chain's file")
    parser.add_argument("--genesis", type=Path, required=True, help="the genesis file")
    parser.add_argument("--host", default="127.0.0.1", help="a loopback address")
    parser.add_argument("--port", type=int, required=True, help="0: chosen by the system")
    parser.add_argument(
        "--heartbeat", type=float, default=0.0, metavar="S", help="empty block after S seconds"
    )
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning"])
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
