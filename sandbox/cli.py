"""The `countersign` command."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer

_INTERRUPTED = 130


def make_app() -> typer.Typer:
    """The command with its subcommands. Imports them: that takes a second."""
    import typer

    from sandbox.commands.audit import audit
    from sandbox.commands.bench import bench
    from sandbox.commands.bench_gateway import bench_gateway
    from sandbox.commands.bench_proofs import bench_proofs
    from sandbox.commands.bench_reconcile import bench_reconcile
    from sandbox.commands.bench_sealing import bench_sealing
    from sandbox.commands.check_invariants import check_invariants
    from sandbox.commands.demo import demo
    from sandbox.commands.erase import erase
    from sandbox.commands.events import events
    from sandbox.commands.fuzz import fuzz
    from sandbox.commands.govern import govern
    from sandbox.commands.receipt import receipt
    from sandbox.commands.reconcile import reconcile
    from sandbox.commands.roots import roots
    from sandbox.commands.settle import settle
    from sandbox.commands.tamper import tamper
    from sandbox.commands.terminal import terminal
    from sandbox.commands.verify import verify
    from sandbox.commands.verify_ledger import verify_ledger

    app = typer.Typer(
        name="countersign",
        help="Countersign: a permissioned, blockchain-anchored prepaid-card network.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_show_locals=False,
    )
    app.command()(demo)
    app.command()(verify)
    app.command()(erase)
    app.command()(events)
    app.command()(receipt)
    app.command()(roots)
    app.command("verify-ledger")(verify_ledger)
    app.command("check-invariants")(check_invariants)
    app.command()(reconcile)
    app.command()(settle)
    app.command()(audit)
    app.add_typer(terminal)
    app.add_typer(govern)
    app.command()(bench)
    app.command("bench-reconcile")(bench_reconcile)
    app.command("bench-proofs")(bench_proofs)
    app.command("bench-sealing")(bench_sealing)
    app.command("bench-gateway")(bench_gateway)
    app.command()(tamper)
    app.command()(fuzz)
    return app


def main() -> None:
    """Entry point of the console script."""
    # Before anything imports web3: the C implementation of Keccak, seven times faster.
    os.environ.setdefault("ETH_HASH_BACKEND", "pysha3")
    try:
        make_app()()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
