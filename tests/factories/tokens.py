"""A SoftHSM2 token of its own for the tests of a process, where the library is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from nodes.crypto.hsm.pkcs11 import open_session

_PLACES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
)
PIN = "1234"
TOKEN = "countersign-tests"


@lru_cache(maxsize=1)
def library() -> Path | None:
    """Where SoftHSM2 is; None: not on this machine."""
    if shutil.which("softhsm2-util") is None:
        return None
    return next((Path(place) for place in _PLACES if Path(place).exists()), None)


@lru_cache(maxsize=1)
def session() -> Any:
    """A session on a fresh token; the process keeps it to its end."""
    found = library()
    assert found is not None
    folder = Path(tempfile.mkdtemp(prefix="countersign-softhsm-"))
    (folder / "tokens").mkdir()
    configuration = folder / "softhsm2.conf"
    configuration.write_text(
        f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\n"
        "log.level = ERROR\n"
    )
    os.environ["SOFTHSM2_CONF"] = str(configuration)
    command = ["softhsm2-util", "--init-token", "--free", "--label", TOKEN]
    subprocess.run([*command, "--pin", PIN, "--so-pin", "5678"], check=True, capture_output=True)
    return open_session(found, TOKEN, PIN)
