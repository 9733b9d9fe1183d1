"""The gateway's HSM, from its settings: in the process, or over a PKCS#11 token."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.settings import GatewaySettings
from gateway.terminal_keys.ring import MASTER_KEY, ZONE_KEY
from nodes.crypto.hsm import Algorithm, SoftwareHsm
from nodes.crypto.keystore import Keystore


def open_hsm(
    settings: GatewaySettings, keystore: Keystore, imported: Mapping[str, Algorithm]
) -> SoftwareHsm:
    """The HSM with the gateway's own keys and the imported ones (name -> what it is)."""
    others = {name: kind for name, kind in imported.items() if kind is not Algorithm.SM4}
    secrets = {name: keystore.secret(name) for name in (ZONE_KEY, *imported)}
    if settings.pkcs11 is None:
        return SoftwareHsm({MASTER_KEY: keystore.secret(MASTER_KEY), **secrets}, others)
    from nodes.crypto.hsm.pkcs11 import Pkcs11Hsm, open_session  # loads a library, so only here

    token = settings.pkcs11
    pin = token.pin_file.read_text(encoding="utf-8").strip()
    return Pkcs11Hsm(open_session(token.library, token.token, pin), secrets, others, MASTER_KEY)
