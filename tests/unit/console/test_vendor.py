"""Vendored files are the published ones, with their licences, and not too heavy."""

from __future__ import annotations

import hashlib
import json
import re

import console.templating
from console.templating import STATIC

VENDOR = STATIC / "vendor"
_BESIDE = re.compile(r"(LICENSE|NOTICE)")


def test_the_manifest_names_every_vendored_file_with_its_hash_and_licence() -> None:
    packages = json.loads((VENDOR / "manifest.json").read_text())["packages"]
    named: set[str] = set()
    for package in packages:
        assert package["name"]
        assert re.match(r"\d+\.\d+\.\d+$", package["version"])
        assert package["licence"] in {"MIT", "0BSD", "Apache-2.0", "OFL-1.1"}
        assert len((VENDOR / package["licence_file"]).read_text()) > 300
        for path, digest in package["files"].items():
            assert hashlib.sha256((VENDOR / path).read_bytes()).hexdigest() == digest, path
            named.add(path)
    present = {
        str(path.relative_to(VENDOR))
        for path in VENDOR.rglob("*")
        if path.is_file() and not _BESIDE.match(path.name) and path.name != "manifest.json"
    }
    assert present == named


def test_vendored_files_stay_light() -> None:
    total = sum(path.stat().st_size for path in VENDOR.rglob("*") if path.is_file())
    assert total < 2_200_000


def test_no_icon_is_carried_that_no_template_shows() -> None:
    here = STATIC.parent
    sources = "".join(
        path.read_text(encoding="utf-8")
        for pattern in ("templates/*.html", "*.py", "views/*.py")
        for path in here.glob(pattern)
    )
    unused = [
        path.stem
        for path in (VENDOR / "icons").glob("*.svg")
        if f"'{path.stem}'" not in sources and f'"{path.stem}"' not in sources
    ]
    assert unused == []


def test_icons_are_decoration_to_screen_readers() -> None:
    svg = console.templating.icon("check")
    assert 'aria-hidden="true"' in svg
    assert 'focusable="false"' in svg
