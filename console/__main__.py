"""`python -m console --config FILE` serves the console; `python -m console hash-password` makes
the Argon2id hash for a user's entry (reads the password from the terminal or standard input)."""

from __future__ import annotations

import argparse
import getpass
import sys

import structlog
import uvicorn
from argon2 import PasswordHasher

from console.app import create_app
from console.settings import ConsoleSettings


def main() -> int:
    """Run the command line; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m console", description=__doc__)
    parser.add_argument("command", nargs="?", choices=["serve", "hash-password"], default="serve")
    parser.add_argument("--config", help="the console's JSON file (docs/console.md)")
    arguments = parser.parse_args()
    if arguments.command == "hash-password":
        password = getpass.getpass() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
        sys.stdout.write(PasswordHasher().hash(password) + "\n")
        return 0
    if not arguments.config:
        parser.error("--config is needed")
    settings = ConsoleSettings.load(arguments.config)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ]
    )
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_level="warning",
        access_log=False,
        server_header=False,
        # Live streams never end by themselves.
        timeout_graceful_shutdown=2,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
