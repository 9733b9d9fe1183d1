"""`python -m gateway.http --config F`: run one HTTP front until it is told to stop."""

from __future__ import annotations

import argparse
import socket
import sys
from pathlib import Path

import uvloop

from gateway import logs
from gateway.http.server import serve
from gateway.settings import GatewaySettings, SettingsUnusable
from nodes.crypto.keystore import KeystoreError


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 after a stop, 2 if settings, keys or port can't be used."""
    parser = argparse.ArgumentParser(prog="gateway.http", description="Countersign HTTP front")
    parser.add_argument("--config", type=Path, required=True, help="the gateway's settings")
    path: Path = parser.parse_args(arguments).config
    try:
        settings = GatewaySettings.load(path)
        logs.configure(settings.log_level)
        uvloop.run(serve(settings, settings.keystore()))
    except SettingsUnusable as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except socket.gaierror as error:
        sys.stderr.write(f"gateway.http: host {settings.host}: {error.strerror}\n")
        return 2
    except (OSError, KeystoreError, ValueError) as error:
        sys.stderr.write(f"gateway.http: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
