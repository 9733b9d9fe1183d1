"""The committed artifacts are what the committed sources compile to."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from nodes.chain.contracts import ANCHOR_REGISTRY, PUBLISHED, artifact, decode_revert

CONTRACTS = Path(__file__).parents[2] / "contracts"
NAMES = list(PUBLISHED)


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifacts, compiled from a copy of contracts/ with the locked compiler."""
    if shutil.which("npm") is None:
        pytest.skip("the rebuild needs npm, which is not on this machine")
    work = tmp_path_factory.mktemp("contracts-build")
    for name in ("src", "build.js", "package.json", "package-lock.json", ".npmrc"):
        source = CONTRACTS / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, work / name)
    installed = subprocess.run(
        ["npm", "ci", "--ignore-scripts"], cwd=work, capture_output=True, text=True, timeout=240
    )
    if installed.returncode != 0:
        if re.search(r"E?(NETWORK|NOTFOUND|CONNREFUSED|AI_AGAIN|TIMEDOUT)", installed.stderr):
            pytest.skip("the rebuild needs the npm registry, which is out of reach")
        pytest.fail(f"npm ci failed:\n{installed.stderr}")
    target = work / "rebuilt"
    subprocess.run(["node", "build.js", str(target)], cwd=work, check=True, capture_output=True)
    return target


@pytest.mark.parametrize("name", NAMES)
def test_a_rebuild_gives_the_same_bytes(rebuilt: Path, name: str) -> None:
    committed = (CONTRACTS / "artifacts" / f"{name}.json").read_bytes()
    assert (rebuilt / f"{name}.json").read_bytes() == committed


def test_every_artifact_is_rebuilt(rebuilt: Path) -> None:
    committed = {path.name for path in (CONTRACTS / "artifacts").iterdir()}
    assert committed == {path.name for path in rebuilt.iterdir()}


@pytest.mark.parametrize("name", NAMES)
def test_the_code_runs_on_the_paris_evm(name: str) -> None:
    stored = json.loads((CONTRACTS / "artifacts" / f"{name}.json").read_text())
    assert stored["settings"]["evmVersion"] == "paris"
    assert stored["compiler"].startswith("solc 0.8.")
    # EIP-170: larger code can't be deployed.
    assert 0 < len(artifact(name).deployed_bytecode) <= 24_576


def test_the_compiler_and_libraries_are_pinned() -> None:
    wanted = json.loads((CONTRACTS / "package.json").read_text())["devDependencies"]
    locked = json.loads((CONTRACTS / "package-lock.json").read_text())["packages"]
    for name, version in wanted.items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version)
        assert locked[f"node_modules/{name}"]["version"] == version
        assert locked[f"node_modules/{name}"]["integrity"].startswith("sha512-")


def test_code_is_recognised_with_any_immutables_and_nothing_else_changed() -> None:
    compiled = artifact(ANCHOR_REGISTRY)
    assert compiled.immutables
    code = bytearray(compiled.deployed_bytecode)
    for start, length in compiled.immutables:
        code[start : start + length] = b"\x77" * length
    assert compiled.matches(bytes(code))
    code[0] ^= 1
    assert not compiled.matches(bytes(code))
    assert not compiled.matches(b"")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("", ("Unnamed", {})),
        ("4e487b71" + f"{0x11:064x}", ("Panic", {"code": 0x11})),
        ("08c379a0" + f"{32:064x}{2:064x}" + "6e6f".ljust(64, "0"), ("Error", {"message": "no"})),
        ("deadbeef", ("Unknown", {"data": bytes.fromhex("deadbeef")})),
        ("4e487b71ff", ("Unknown", {"data": bytes.fromhex("4e487b71ff")})),
    ],
)
def test_refusals_get_names(data: str, expected: tuple[str, dict[str, object]]) -> None:
    assert decode_revert(bytes.fromhex(data)) == expected
