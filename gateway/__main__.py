"""`python -m gateway --config F`: run one gateway until it is told to stop."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pydantic
import uvloop

from gateway import logs
from gateway.app import serve
from gateway.settings import GatewaySettings
from nodes.crypto.hsm import KeyUnavailable, WrappedKeyInvalid
from nodes.crypto.keystore import Keystore, KeystoreError


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 after a stop, 2 if the settings, keys or ports can't be used."""
    parser = argparse.ArgumentParser(prog="gateway", description="Countersign POS gateway")
    parser.add_argument("--config", type=Path, required=True, help="settings, a JSON file")
    path: Path = parser.parse_args(arguments).config
    try:
        settings = GatewaySettings.load(path)
        logs.configure(settings.log_level)
        passphrase = settings.passphrase_file.read_text(encoding="utf-8").strip()
        keystore = Keystore.open(settings.key_file, passphrase)
        uvloop.run(serve(settings, keystore))
    except pydantic.ValidationError as error:
        # Without the input: a settings file may hold what must not be shown.
        problems = error.errors(include_input=False, include_url=False)
        for problem in problems:
            where = ".".join(str(part) for part in problem["loc"])
            sys.stderr.write(f"{path}: {where}: {problem['msg']}\n")
        return 2
    except (OSError, KeystoreError, KeyUnavailable, WrappedKeyInvalid) as error:
        sys.stderr.write(f"gateway: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
