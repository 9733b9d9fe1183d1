"""JSON-RPC over a validator's Unix socket: what only the machine's own user may ask of it."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

#: What the kernel takes as a socket's path, less a margin.
LONGEST_PATH = 100


class ValidatorDown(RuntimeError):
    """The validator doesn't answer on its socket."""


class ValidatorRefused(RuntimeError):
    """The validator's own words for what it would not do."""


def ask(path: Path, method: str, *params: Any, timeout_s: float = 5.0) -> Any:
    """The result of one call. ValidatorDown, ValidatorRefused."""
    request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(path))
            connection.sendall(json.dumps(request).encode())
            with connection.makefile("rb") as stream:
                line = stream.readline()
    except OSError as error:
        raise ValidatorDown(f"no answer on {path}: {error}") from error
    if not line:
        raise ValidatorDown(f"no answer on {path}")
    answer = json.loads(line)
    if "error" in answer:
        raise ValidatorRefused(f"{method}: {answer['error'].get('message')}")
    return answer["result"]
