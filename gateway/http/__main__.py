"""`python -m gateway.http --config F`: run one HTTP front until it is told to stop."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pydantic
import uvloop

from gateway import logs
from gateway.http.server import serve
from gateway.settings import GatewaySettings
from nodes.crypto.keystore import Keystore, KeystoreError


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 after a stop, 2 if settings, keys or port can't be used."""
    parser = argparse.ArgumentParser(prog="gateway.http", description="Countersign HTTP front")
    parser.add_argument("--config", type=Path, required=True, help="the gateway's settings")
    path: Path = parser.parse_args(arguments).config
    try:
        settings = GatewaySettings.load(path)
        logs.configure(settings.log_level)
        passphrase = settings.passphrase_file.read_text(encoding="utf-8").strip()
        uvloop.run(serve(settings, Keystore.open(settings.key_file, passphrase)))
    except pydantic.ValidationError as error:
        for problem in error.errors(include_input=False, include_url=False):
            where = ".".join(str(part) for part in problem["loc"])
            sys.stderr.write(f"{path}: {where}: {problem['msg']}\n")
        return 2
    except (OSError, KeystoreError, ValueError) as error:
        sys.stderr.write(f"gateway.http: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
