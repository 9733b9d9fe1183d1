"""`python -m nodes serve|worker|migrate --config FILE`: the processes of a node."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Sequence

from pydantic import ValidationError

from nodes.settings import NodeSettings


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the node's processes; 2 if its configuration is wrong."""
    parser = argparse.ArgumentParser(prog="nodes", description="A Countersign node")
    parser.add_argument("process", choices=("serve", "worker", "migrate"))
    parser.add_argument("--config", required=True, help="the node's JSON settings file")
    arguments = parser.parse_args(argv)
    try:
        settings = NodeSettings.load(arguments.config)
    except OSError as error:
        print(f"{arguments.config}: {error.strerror}", file=sys.stderr)  # noqa: T201
        return 2
    except ValidationError as error:
        for problem in error.errors(include_input=False):
            place = ".".join(str(part) for part in problem["loc"])
            print(f"{arguments.config}: {place}: {problem['msg']}", file=sys.stderr)  # noqa: T201
        return 2
    if arguments.process == "migrate":
        return migrate(settings)
    return serve(settings) if arguments.process == "serve" else work(settings)


def migrate(settings: NodeSettings) -> int:
    """Bring the node's database to the newest schema."""
    from nodes.db.engine import migrate as run

    if settings.owner_dsn is None:
        print("owner_dsn is not set: only the database's owner migrates", file=sys.stderr)  # noqa: T201
        return 2
    run(settings.owner_dsn)
    return 0


def serve(settings: NodeSettings) -> int:
    """Serve the node's API until SIGTERM."""
    from nodes.api.app import create_app
    from nodes.api.issuer_link import HttpIssuerLink
    from nodes.api.server import serve as serve_app
    from nodes.bootstrap import build_node

    node = build_node(settings, HttpIssuerLink)
    node.start()
    # A commit's thread needs the interpreter for moments between two waits: it gets it ten times
    # sooner than by default. What start-up has made is looked at by no garbage collection again.
    sys.setswitchinterval(0.0005)
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    try:
        serve_app(create_app(node), settings.host, settings.port)
    finally:
        node.close()
    return 0


def work(settings: NodeSettings) -> int:
    """Run the node's background jobs until SIGTERM."""
    from nodes.api.issuer_link import HttpIssuerLink
    from nodes.bootstrap import build_node
    from nodes.worker import run

    # Sealing and anchoring can wait; terminals can't.
    os.nice(10)
    node = build_node(settings, HttpIssuerLink, worker=True)
    node.start()
    try:
        run(node)
    finally:
        node.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
