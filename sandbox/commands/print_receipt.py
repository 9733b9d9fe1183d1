"""`countersign receipt TXID --print FILE`: a receipt of a transaction, as a file to print."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import httpx
import typer

from gateway.http.receipts import wanted_of
from gateway.receipts.model import ReceiptRefused, content_of
from gateway.receipts.rendering import Form, render
from sandbox.commands.network_file import default_network_file

_TXID = re.compile(r"[0-9a-f]{64}\Z")


def print_receipt(
    txid: str, file: Path, chosen: Mapping[str, str], node: str, key_file: Path | None
) -> None:
    """Write the receipt in the form of the file's suffix. Ends the command with 2 if it can't."""
    form = file.suffix.removeprefix(".")
    if form not in set(Form):
        _cannot(f"{file}: the name ends in one of {', '.join(f'.{known}' for known in Form)}")
    if not _TXID.match(txid):
        _cannot("with --print the argument is a transaction's id: 64 digits of lower-case hex")
    try:
        address, key = _acquirer(node, key_file)
        answer = httpx.post(
            f"{address.rstrip('/')}/v1/transactions/{txid}/receipt",
            json={},
            headers={"Authorization": f"Bearer {key}"},
            timeout=15,
            trust_env=False,
        )
        document: dict[str, Any] = answer.json()
        if not answer.is_success:
            _cannot(f"the node refuses: {document.get('type', answer.status_code)}")
        file.write_bytes(render(content_of(document), wanted_of(chosen, document), Form(form)))
    except httpx.HTTPError as error:
        _cannot(f"the node can't be asked ({type(error).__name__})")
    except OSError as error:
        _cannot(f"{error.filename}: {error.strerror}")
    except (ReceiptRefused, ValueError) as error:
        _cannot(str(error))
    typer.echo(f"{file}: {file.stat().st_size} bytes")


def _acquirer(node: str, key_file: Path | None) -> tuple[str, str]:
    """The acquirer's node and an operator's key: as given, else of the network's description."""
    if node and key_file is not None:
        return node, key_file.read_text("ascii").strip()
    path = default_network_file()
    try:
        document = json.loads(path.read_text("utf-8"))
        member = next(m for m in document["members"] if "acquirer" in m["roles"])
        key = next(k["key"] for k in member["api_keys"] if k["role"] == "operator")
    except OSError:
        raise ValueError(f"--node and --key-file are needed: there is no {path}") from None
    except (ValueError, KeyError, TypeError, StopIteration):
        raise ValueError(f"{path}: not a network description") from None
    return node or str(member["api"]), key if key_file is None else key_file.read_text().strip()


def _cannot(why: str) -> NoReturn:
    typer.echo(f"CANNOT PRINT: {why}", err=True)
    raise typer.Exit(2)
