"""What the commands take from a network's description (docs/sandbox.md) when it isn't told."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eth_utils.address import (
    is_checksum_address,
    is_checksum_formatted_address,
    is_hex_address,
)


@dataclass(frozen=True, slots=True)
class Described:
    """The parts of network.json that checks need; empty strings where it says nothing."""

    rpc_url: str = ""
    anchor_registry: str = ""
    omission_registry: str = ""
    close_registry: str = ""
    member_registry: str = ""
    dsns: tuple[tuple[str, str], ...] = ()
    #: The versions before the anchor contract, the newest first; for what is judged with no chain.
    anchor_predecessors: tuple[str, ...] = ()

    def dsn(self, member_id: str) -> str:
        """A member's database, empty if it isn't described."""
        return dict(self.dsns).get(member_id, "")


def checked_address(option: str, text: str) -> str:
    """`text` if it is a contract's address, or empty; ValueError names the option."""
    slip = is_checksum_formatted_address(text) and not is_checksum_address(text)
    if text and (slip or not is_hex_address(text)):
        why = "its capitals are no checksum (EIP-55)" if slip else "0x and 40 hex digits"
        raise ValueError(f"{option} {text!r} is no contract's address: {why}")
    return text


def default_network_file() -> Path:
    """network.json of DEMO_DIR, by default var/demo."""
    return Path(os.environ.get("DEMO_DIR", "var/demo")) / "network.json"


def read_network(path: Path | None) -> Described:
    """Read a description; without a path the default one, if it is there.

    ValueError if the file that was named can't be read as one.
    """
    file = path or default_network_file()
    if path is None and not file.exists():
        return Described()
    try:
        document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        contracts = document["chain"]["contracts"]
        return Described(
            rpc_url=document["chain"]["rpc"],
            anchor_registry=contracts["AnchorRegistry"]["address"],
            omission_registry=contracts.get("OmissionRegistry", {}).get("address", ""),
            close_registry=contracts.get("CloseRegistry", {}).get("address", ""),
            member_registry=contracts.get("MemberRegistry", {}).get("address", ""),
            dsns=tuple((member["id"], member["dsn"]) for member in document["members"]),
            anchor_predecessors=tuple(
                str(address).lower()
                for address in contracts["AnchorRegistry"].get("predecessors", ())
            ),
        )
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{file}: not a network description") from None
