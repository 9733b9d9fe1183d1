"""`python -m gateway.certify`: certificates of terminals' SM2 keys (docs/keys.md, Certificates).

Run where the gateway's keystore is. The authority's own certificate goes to the acquirer's node; a
terminal's request (PKCS #10, its common name is the terminal's id) becomes the certificate that the
terminal is enrolled with.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gateway.hsm import open_hsm
from gateway.settings import GatewaySettings, SettingsUnusable
from gateway.terminal_keys.authority import DAYS, authority_certificate, certify
from gateway.terminal_keys.enrolment import gateway_public_key
from nodes.clock import SystemClock
from nodes.crypto.certificates import Certificate, CertificateInvalid, read_request
from nodes.crypto.keystore import KeystoreError

_LONGEST_DAYS = 20 * 365


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 if nothing was certified."""
    parser = argparse.ArgumentParser(prog="python -m gateway.certify", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the gateway's settings")
    parser.add_argument("--authority", type=Path, metavar="FILE", help="write its certificate")
    parser.add_argument("--request", type=Path, metavar="FILE", help="a terminal's, PEM")
    parser.add_argument("--certificate", type=Path, metavar="FILE", help="write the terminal's")
    parser.add_argument("--days", type=int, default=DAYS, help="how long the terminal's holds")
    chosen = parser.parse_args(arguments)
    try:
        made, gateway_key = _made(chosen)
    except CertificateInvalid as invalid:
        sys.stderr.write(f"certify: {chosen.request}: {invalid}\n")
        return 2
    except SettingsUnusable as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except (OSError, KeystoreError, ValueError) as error:
        sys.stderr.write(f"certify: {error}\n")
        return 2
    sys.stdout.write(
        f"subject      {made.common_name}\n"
        f"serial       {made.serial.hex().upper()}\n"
        f"fingerprint  {made.fingerprint}\n"
        f"gateway key  {gateway_key.hex().upper()}\n"
    )
    return 0


def _made(chosen: argparse.Namespace) -> tuple[Certificate, bytes]:
    """The certificate, and the key by which terminals know this gateway's grants."""
    if (chosen.authority is None) is (chosen.request is None):
        raise ValueError("give either --authority, or --request with --certificate")
    if (chosen.request is None) is not (chosen.certificate is None):
        raise ValueError("--request and --certificate go together")
    if not 1 <= chosen.days <= _LONGEST_DAYS:
        raise ValueError(f"--days is 1 to {_LONGEST_DAYS}")
    settings = GatewaySettings.load(chosen.config)
    hsm = open_hsm(settings, settings.keystore(), {})
    now_ms = SystemClock().now_ms()
    if chosen.authority is not None:
        made = authority_certificate(hsm, now_ms)
        chosen.authority.write_text(made.pem(), encoding="ascii")
        return made, gateway_public_key(hsm)
    asked = read_request(chosen.request.read_text(encoding="ascii"))
    if len(asked.common_name) != 8:
        raise ValueError(f"{chosen.request}: the common name is to be a terminal's id")
    made = certify(hsm, asked.common_name, asked.public_key, now_ms, chosen.days)
    chosen.certificate.write_text(made.pem(), encoding="ascii")
    return made, gateway_public_key(hsm)


if __name__ == "__main__":
    sys.exit(main())
