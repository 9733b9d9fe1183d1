"""Getting the engine: a Go module, checked against its hash, built once and kept."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

#: The directory below var/ that holds the built program.
ENGINES = Path("var/engines")

MODULE = "github.com/ethereum/go-ethereum"
VERSION = "v1.13.15"
#: Go's own hash of the module (the form that go.sum has). The module's go.sum, which it covers,
#: holds the hashes of what it is built with.
MODULE_HASH = "h1:U7sSGYGo4SPjP6iNIifNoyIAiNjrmQkz6EwQG+/EZWo="

# The linker of Go 1.23 and later refuses what one of geth's debugging pages does otherwise.
_LINK_CHECKED_SINCE = (1, 23)
_OLDEST_GO = (1, 20)
_DOWNLOAD_TIMEOUT_S = 600
_BUILD_TIMEOUT_S = 3600


class EngineUnavailable(RuntimeError):
    """The engine can't be had on this machine; the text says why."""


def program(directory: Path = ENGINES) -> Path:
    """Where the built engine stands, or will."""
    return directory / f"geth-{VERSION.removeprefix('v')}"


def built(directory: Path = ENGINES) -> Path:
    """The engine as it was built before. EngineUnavailable if it wasn't: nothing is fetched."""
    path = program(directory)
    if not os.access(path, os.X_OK):
        raise EngineUnavailable(
            f"{path} isn't there; `make validators-engine` gets it (Go and some minutes)"
        )
    return path


def get(directory: Path = ENGINES, report: Callable[[str], None] = print) -> Path:
    """The engine, fetched and built if it isn't there yet. EngineUnavailable says why it can't be.

    Go's ordinary client fetches it, from where it is configured to. Two calls at once do it once.
    """
    path = program(directory)
    if os.access(path, os.X_OK):
        return path
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.access(path, os.X_OK):
            go, version = _go()
            report(f"Fetching {MODULE} {VERSION}")
            source = _download(go)
            report("Building it, some minutes")
            _build(go, version, source, path)
    return path


def _go() -> tuple[str, tuple[int, int]]:
    """Go's command and its version."""
    go = shutil.which("go")
    if go is None:
        raise EngineUnavailable("geth is built with Go, and there is no `go` on this machine")
    said = _run([go, "env", "GOVERSION"], Path.cwd(), 60)
    found = re.match(r"go(\d+)\.(\d+)", said)
    if found is None:
        raise EngineUnavailable(f"`go env GOVERSION` said {said.strip()!r}, which is no version")
    version = int(found[1]), int(found[2])
    if version < _OLDEST_GO:
        raise EngineUnavailable(
            f"geth needs Go {_OLDEST_GO[0]}.{_OLDEST_GO[1]}, not {said.strip()}"
        )
    return go, version


def _download(go: str) -> Path:
    """The module's directory in Go's cache, its hash checked."""
    said = _run(
        [go, "mod", "download", "-json", f"{MODULE}@{VERSION}"], Path("/"), _DOWNLOAD_TIMEOUT_S
    )
    found = json.loads(said)
    if found.get("Sum") != MODULE_HASH:
        raise EngineUnavailable(
            f"{MODULE} {VERSION} has the hash {found.get('Sum')}, not {MODULE_HASH}"
        )
    return Path(found["Dir"])


def _build(go: str, version: tuple[int, int], source: Path, path: Path) -> None:
    flags = "-s -w"
    if version >= _LINK_CHECKED_SINCE:
        flags += " -checklinkname=0"
    unfinished = path.with_name(path.name + ".new")
    command = [
        *(go, "build", "-mod=readonly", "-trimpath", "-buildvcs=false", f"-ldflags={flags}"),
        *("-o", str(unfinished.absolute()), "./cmd/geth"),
    ]
    _run(command, source, _BUILD_TIMEOUT_S)
    unfinished.replace(path)


def _run(command: list[str], directory: Path, timeout_s: float) -> str:
    """What a command of Go's says. Without cgo no C compiler is needed."""
    environment = os.environ | {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off"}
    name = " ".join(command[1:3])
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise EngineUnavailable(f"`go {name}` was not done after {timeout_s:.0f} s") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-1000:]
        raise EngineUnavailable(f"`go {name}` failed: {said}")
    return done.stdout
