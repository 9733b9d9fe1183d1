"""The verifier's page: one HTML file that needs no server, put together from static/verify.

    python -m nodes.api.verify_page docs/verify.html

A node serves the same bytes at /verify and /r (the promise stands after #, where no server sees
it). Script and style are in the file; its content security policy names them by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from functools import lru_cache
from pathlib import Path

from nodes.authorization.model import Kind, Outcome

_PARTS = Path(__file__).with_name("static") / "verify"
_SCRIPTS = (
    *("hashes.js", "curves.js", "bundle.js", "blocks.js"),
    *("views.js", "receipt.js", "relay.js", "page.js"),
)


@lru_cache(maxsize=1)
def verify_page() -> tuple[str, str]:
    """The page and its content security policy (without frame-ancestors, which a file can't)."""
    script = "\n".join(_read(name) for name in _SCRIPTS)
    kinds = {kind.word: kind.value for kind in Kind}
    names = [kinds.get(number, "") for number in range(1, max(kinds) + 1)]
    outcomes = {outcome.word: outcome.value for outcome in Outcome}
    script = script.replace('["{{kinds}}"]', json.dumps(names))
    script = script.replace('{"{{outcomes}}": 0}', json.dumps(outcomes))
    style = _read("style.css")
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}';"
        " connect-src http: https:; img-src data:; base-uri 'none'; form-action 'none'"
    )
    page = _read("page.html")
    for name, text in (("policy", policy), ("style", style), ("script", script)):
        page = page.replace("{{" + name + "}}", text)
    return page, policy


def _read(name: str) -> str:
    return (_PARTS / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(verify_page()[0], encoding="utf-8")
