"""`python -m gateway.periods --config F`: make the file of the periods' keys (`period_file`).

Once, where one gateway of an acquirer is; the others get a copy (docs/keys.md, Periods). The key in
it is random and lies encrypted under the gateway's master key.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gateway.hsm import open_hsm
from gateway.settings import GatewaySettings, SettingsUnusable
from gateway.terminal_keys.periods import PeriodKeys
from nodes.clock import SystemClock
from nodes.crypto.hsm import KeyUnavailable, WrappedKeyInvalid
from nodes.crypto.keystore import KeystoreError


def make(settings: GatewaySettings, now_ms: int) -> Path:
    """Do it; where it is. ValueError if the settings name none, FileExistsError if it is there."""
    if settings.period_file is None:
        raise ValueError("the settings name no period_file")
    hsm = open_hsm(settings, settings.keystore(), {})
    PeriodKeys.create(hsm, settings.period_file, settings.key_period_s, now_ms)
    return settings.period_file


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 when it is done, 2 with a reason otherwise."""
    parser = argparse.ArgumentParser(prog="python -m gateway.periods", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the gateway's settings")
    try:
        settings = GatewaySettings.load(parser.parse_args(arguments).config)
        path = make(settings, SystemClock().now_ms())
    except SettingsUnusable as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except (OSError, KeystoreError, KeyUnavailable, WrappedKeyInvalid, ValueError) as error:
        sys.stderr.write(f"periods: {error}\n")
        return 2
    sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
