"""`python -m gateway.ceremony`: what goes into a terminal that was enrolled (docs/fleet.md).

Run where the gateway's keystore is. It asks the acquirer's node which key the terminal has now and
derives it: as two components, each into a file of its own for another custodian, or as a TR-31
block under a key that the terminal has already. The check value is shown; the key never is.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
from pathlib import Path

import msgspec

from gateway.fleet import CHANGES, as_record
from gateway.hsm import open_hsm
from gateway.settings import GatewaySettings, SettingsUnusable
from gateway.terminal_keys.enrolment import enrol, transport_block
from gateway.terminal_keys.model import TerminalRecord
from gateway.terminal_keys.ring import ALGORITHMS, MASTER_KEY
from nodes.acquiring.fleet.model import ChangePage, FleetRecord
from nodes.api.client import NodeClient, NodePeer, NodeRefused, NodeUnreachable
from nodes.crypto.hsm import SoftwareHsm
from nodes.crypto.http_signatures import MessageSigner
from nodes.crypto.keystore import Keystore, KeystoreError

_TRANSPORT = "transport"
_HEX = re.compile(r"([0-9a-fA-F]{2})+\Z")


class CeremonyFailed(Exception):
    """Nothing was given out; the text says why."""


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 if nothing was given out."""
    parser = argparse.ArgumentParser(prog="python -m gateway.ceremony", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the gateway's settings")
    parser.add_argument("--terminal", required=True, help="terminal id (DE41)")
    parser.add_argument("--components", type=Path, nargs=2, metavar="FILE")
    parser.add_argument("--block", type=Path, metavar="FILE", help="TR-31 block")
    parser.add_argument("--transport-key", type=Path, metavar="FILE", help="hex; for --block")
    chosen = parser.parse_args(arguments)
    try:
        lines = _run(chosen)
    except CeremonyFailed as failure:
        sys.stderr.write(f"ceremony: {failure}\n")
        return 2
    except SettingsUnusable as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except (OSError, KeystoreError, NodeUnreachable, NodeRefused) as error:
        sys.stderr.write(f"ceremony: {error}\n")
        return 2
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _run(chosen: argparse.Namespace) -> list[str]:
    if (chosen.components is None) == (chosen.block is None):
        raise CeremonyFailed("give either --components with two files, or --block")
    settings = GatewaySettings.load(chosen.config)
    keystore = settings.keystore()
    record = asyncio.run(_record(settings, keystore, chosen.terminal))
    hsm = open_hsm(settings, keystore, {})
    made = enrol(hsm, record)
    if chosen.components is not None:
        for path, component in zip(chosen.components, made.components, strict=True):
            _write(path, component.hex().upper())
    else:
        _write(chosen.block, _block(hsm, keystore, record, chosen.transport_key))
    lines = [
        f"terminal     {record.terminal_id}",
        f"suite        {record.suite.name}, {record.management.value}",
        f"generation   {record.generation}",
        f"check value  {made.check_value.hex().upper()}",
    ]
    if made.key_id:
        lines.append(f"key id       {made.key_id.hex().upper()}")
    if made.gateway_public_key:
        lines.append(f"gateway key  {made.gateway_public_key.hex().upper()}")
    return lines


async def _record(
    settings: GatewaySettings, keystore: Keystore, terminal_id: str
) -> TerminalRecord:
    """The terminal as its acquirer's node has it now."""
    known: FleetRecord | None = None
    after = 0
    async with NodeClient(
        settings.node_url,
        signer=MessageSigner(settings.key_id, keystore.secret("message")),
        peer=NodePeer(settings.acquirer, bytes.fromhex(settings.node_message_key)),
    ) as client:
        while True:
            found = await client.get_json(CHANGES, after=after, limit=500)
            page = msgspec.convert(found, ChangePage)
            if not page.items:
                break
            after = page.next
            known = next((r for r in page.items if r.terminal_id == terminal_id), known)
    if known is None:
        raise CeremonyFailed("the acquirer's node has enrolled no such terminal")
    if not known.key_generation:
        raise CeremonyFailed("this terminal's key stands in the gateway's settings")
    record = as_record(known)
    if record is None:
        raise CeremonyFailed("the terminal's record fits no suite")
    return record


def _block(
    hsm: SoftwareHsm, keystore: Keystore, record: TerminalRecord, key_file: Path | None
) -> str:
    if key_file is None:
        raise CeremonyFailed("--block needs --transport-key")
    text = key_file.read_text(encoding="ascii").strip()
    if not _HEX.match(text) or len(text) not in (32, 48, 64):
        raise CeremonyFailed("a transport key is 16, 24 or 32 bytes in hex")
    algorithm = ALGORITHMS[record.suite]
    keys = {MASTER_KEY: keystore.secret(MASTER_KEY), _TRANSPORT: bytes.fromhex(text)}
    try:
        both = SoftwareHsm(keys, {_TRANSPORT: algorithm})
        return transport_block(both, record, _TRANSPORT)
    except ValueError as error:
        raise CeremonyFailed(str(error)) from None


def _write(path: Path, text: str) -> None:
    """A new file that its owner alone can read; OSError if there is one already."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
