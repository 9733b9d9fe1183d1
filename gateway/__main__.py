"""`python -m gateway --config F`: run one gateway until it is told to stop."""

from __future__ import annotations

import argparse
import socket
import sys
from pathlib import Path

import uvloop

from gateway import logs
from gateway.app import serve
from gateway.settings import GatewaySettings, SettingsUnusable
from nodes.crypto.hsm import KeyUnavailable, WrappedKeyInvalid
from nodes.crypto.keystore import KeystoreError


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 after a stop, 2 if the settings, keys or ports can't be used."""
    parser = argparse.ArgumentParser(prog="gateway", description="Countersign POS gateway")
    parser.add_argument("--config", type=Path, required=True, help="settings, a JSON file")
    path: Path = parser.parse_args(arguments).config
    try:
        settings = GatewaySettings.load(path)
        logs.configure(settings.log_level)
        uvloop.run(serve(settings, settings.keystore()))
    except SettingsUnusable as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except socket.gaierror as error:
        sys.stderr.write(f"gateway: host {settings.host}: {error.strerror}\n")
        return 2
    except (OSError, KeystoreError, KeyUnavailable, WrappedKeyInvalid) as error:
        sys.stderr.write(f"gateway: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
