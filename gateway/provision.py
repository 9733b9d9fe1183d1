"""`python -m gateway.provision --config F`: move a gateway's master key into its PKCS#11 token.

Reads the keystore that the settings name, stores `master` in the token as an AES key that can't be
taken out, and writes KEYFILE.token: the same keystore without `master`, its zone key and imported
terminal keys encrypted under it. The settings' `key_file` is to name that file from then on. The
terminals are to be enrolled anew: in a token the master key is an AES key.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gateway.settings import GatewaySettings, SettingsUnusable
from gateway.terminal_keys.ring import MASTER_KEY, ZONE_KEY, tmk_name
from nodes.crypto.hsm import Algorithm
from nodes.crypto.hsm.pkcs11 import Pkcs11Hsm, open_session
from nodes.crypto.keystore import Keystore, KeystoreError


def provision(settings: GatewaySettings) -> Path:
    """Do it; the new keystore's path. ValueError if the token has a master key already."""
    if settings.pkcs11 is None:
        raise ValueError("the settings name no PKCS#11 token (pkcs11)")
    keystore = settings.keystore()
    pin = settings.pkcs11.pin_file.read_text(encoding="utf-8").strip()
    hsm = Pkcs11Hsm(open_session(settings.pkcs11.library, settings.pkcs11.token, pin))
    path = settings.key_file.with_name(settings.key_file.name + ".token")
    if path.exists():
        raise ValueError(f"{path} is there already")
    hsm.store(MASTER_KEY, keystore.secret(MASTER_KEY), Algorithm.AES)
    ciphers = tmk_name("")
    values = {
        name: hsm.protect(name, keystore.secret(name))
        if name == ZONE_KEY or name.startswith(ciphers)
        else keystore.secret(name)
        for name in keystore.names() - {MASTER_KEY}
    }
    Keystore.create(path, settings.passphrase(), values)
    return path


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 when it is done, 2 with a reason otherwise."""
    parser = argparse.ArgumentParser(prog="gateway.provision", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the gateway's settings")
    try:
        path = provision(GatewaySettings.load(parser.parse_args(arguments).config))
    except SettingsUnusable as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except (OSError, KeystoreError, ValueError) as error:
        sys.stderr.write(f"gateway.provision: {error}\n")
        return 2
    sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
