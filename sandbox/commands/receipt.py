"""`countersign receipt PROMISE`: was the promise on this receipt kept? If not: to the chain."""

from __future__ import annotations

import json
import time
from collections.abc import Set
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NoReturn
from urllib.parse import urlsplit

import httpx
import typer

from nodes.anchoring.bundle import MAX_BYTES
from nodes.anchoring.cached_roots import parse_roots
from nodes.anchoring.chain_view import CachedChain, TrustedChain
from nodes.anchoring.receipt import (
    PromiseMalformed,
    ReceiptReason,
    ReceiptVerdict,
    access_key,
    judge_receipt,
    parse_promise,
)
from nodes.anchoring.validators import NamedValidators
from nodes.anchoring.verifier import SealTrust
from nodes.chain.client import ChainClient
from nodes.chain.errors import ChainError
from sandbox.commands.by_seals import VALIDATORS_HELP, named_validators, trust_of_roots
from sandbox.commands.challenging import CannotSend, answer_claim, take_to_chain
from sandbox.commands.network_file import Described, checked_address, read_network
from sandbox.commands.print_receipt import print_receipt
from sandbox.commands.relaying import checked_node, take_by_node

_PENDING = 3
_KEYS_TOO = " Give --roots or --rpc beside: seals don't tell promise keys."


def receipt(
    promise: Annotated[str, typer.Argument(help="The receipt's code, or what stands after its #.")],
    proof: Annotated[
        Path | None, typer.Option(help="The proof, if you have it; else the node is asked.")
    ] = None,
    node: Annotated[str, typer.Option(help="The node to ask, if not the one of the code.")] = "",
    offline: Annotated[bool, typer.Option("--offline", help="Ask no node.")] = False,
    roots: Annotated[
        Path | None, typer.Option(help="File of cached roots: nothing is asked of any chain.")
    ] = None,
    rpc: Annotated[str, typer.Option(help="URL of a chain node that you trust.")] = "",
    validators: Annotated[str, typer.Option(help=VALIDATORS_HELP + _KEYS_TOO)] = "",
    anchor_registry: Annotated[str, typer.Option(help="The anchor contract you trust.")] = "",
    omission_registry: Annotated[str, typer.Option(help="The omission contract you trust.")] = "",
    network: Annotated[
        Path | None, typer.Option(help="network.json, for what isn't given.")
    ] = None,
    challenge: Annotated[
        bool, typer.Option("--challenge", help="Take an overdue promise to the chain.")
    ] = False,
    via: Annotated[
        str,
        typer.Option(
            help="With --challenge, for who has no chain key: URL of a member's node that sends"
            " it, better not the promising member's. Nothing that opens the payment goes to it."
        ),
    ] = "",
    answer: Annotated[
        bool,
        typer.Option(
            "--answer", help="Show the chain the proof, if somebody has claimed it lacks."
        ),
    ] = False,
    key_file: Annotated[
        Path | None,
        typer.Option(
            help="Your chain key, hex, to send a challenge or answer (with --print: the API key)."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    print_to: Annotated[
        Path | None,
        typer.Option(
            "--print",
            help="Write the receipt of a transaction (PROMISE is its txid): a name that ends in"
            " .escpos, .pdf, .png, .txt or .json.",
        ),
    ] = None,
    copy: Annotated[str, typer.Option(help="With --print: merchant or customer.")] = "customer",
    lang: Annotated[str, typer.Option(help="With --print: en or zh; else the terminal's.")] = "",
    width: Annotated[int, typer.Option(help="With --print: 58 or 80 mm; else the terminal's.")] = 0,
    duplicate: Annotated[
        bool, typer.Option("--duplicate", help="With --print: mark it as printed again.")
    ] = False,
) -> None:
    """Judge the promise on a receipt, and the proof that it leads to.

    Exit status: 0 kept and proven; 1 refused or overdue, with the reason's name; 3 not due yet;
    2 can't be checked. With --challenge an overdue promise becomes a claim on the chain: once the
    accused's time to answer is over, the same command writes OmissionProven. With --via a member's
    node does both, and the same command tells how far it is. With --answer the proof of a kept
    promise clears the accused of such a claim: whoever has it may show it.

    With --validators the proof is judged by the seals of its block. Who signs promises no seal
    tells: that say the roots, of which then only keys, chain and contracts count, or --rpc's node.

    With --print it judges nothing: it writes the receipt of a transaction of the acquirer's node
    (of network.json, or --node with an operator's API key in --key-file).
    """
    if print_to is not None:
        chosen = {"copy": copy, "lang": lang, "width": str(width or "")}
        chosen = {name: value for name, value in chosen.items() if value}
        chosen["duplicate"] = str(int(duplicate))
        print_receipt(promise, print_to, chosen, node, key_file)
        return
    if via and (key_file is not None or not challenge):
        _cannot("--via goes with --challenge, and without --key-file: the node sends it itself")
    try:
        described = _described(network, rpc, anchor_registry, omission_registry)
        relay = checked_node("--via", via)
        trust = _trust(described, roots, named_validators(validators), bool(rpc))
        text, home = _text_of(promise)
        raw = _proof(text, proof, "" if offline else node or home)
        verdict = trust.judge(text, raw)
    except OSError as error:
        _cannot(f"{error.filename}: {error.strerror}")
    except ChainError as error:
        _cannot(f"the chain can't be asked: {error}")
    except ValueError as error:
        _cannot(str(error))
    _print(verdict, as_json)
    try:
        if challenge and verdict.reason is ReceiptReason.PROMISE_OVERDUE and verdict.promise:
            if relay:
                # Standard output is the verdict's JSON alone.
                typer.echo(take_by_node(verdict.promise, relay), err=as_json)
            else:
                take_to_chain(verdict.promise, described, key_file)
        if answer and verdict.ok and verdict.promise and raw is not None:
            answer_claim(verdict.promise, raw, described, key_file)
    except CannotSend as error:
        _cannot(str(error))
    if not verdict.ok:
        raise typer.Exit(_PENDING if verdict.reason is ReceiptReason.PROMISE_PENDING else 1)


@dataclass(frozen=True)
class _Trust:
    """What promise and proof are judged by."""

    view: CachedChain | TrustedChain
    #: Instead of the view's anchors.
    seals: SealTrust | None = None
    #: Beside the view's anchors.
    validators: Set[bytes] | None = None

    def judge(self, text: str, raw: bytes | None) -> ReceiptVerdict:
        """By now. ChainError if the chain can't be asked."""
        now_s = int(time.time())
        return judge_receipt(
            text, raw, self.view, now_s, seals=self.seals, validators=self.validators
        )


def _trust(
    described: Described, roots: Path | None, named: NamedValidators | None, rpc_given: bool
) -> _Trust:
    """As `countersign verify` has it: with validators no node is asked that --rpc doesn't name."""
    cached = None if roots is None else parse_roots(roots.read_bytes())
    view: CachedChain | TrustedChain
    if cached is not None:
        view = CachedChain(cached)
        if named is not None and not rpc_given:
            return _Trust(view, seals=trust_of_roots(named, cached))
    else:
        if named is not None and not rpc_given:
            raise ValueError("seals don't tell who signs promises: give --roots or --rpc, too")
        client = ChainClient(described.rpc_url or "http://127.0.0.1:1")
        address = described.anchor_registry or "0x" + "0" * 40
        view = TrustedChain(client, address, described.omission_registry)
    return _Trust(view, validators=named.addresses if named else None)


def _described(
    network: Path | None, rpc: str, anchor_registry: str, omission_registry: str
) -> Described:
    found = read_network(network)
    return Described(
        rpc_url=rpc or found.rpc_url,
        anchor_registry=checked_address("--anchor-registry", anchor_registry)
        or found.anchor_registry,
        omission_registry=checked_address("--omission-registry", omission_registry)
        or found.omission_registry,
    )


def _text_of(code: str) -> tuple[str, str]:
    """The promise's text, and the node of the code's URL (empty if it is no URL)."""
    address, mark, text = code.strip().partition("#")
    if not mark:
        return address, ""
    parts = urlsplit(address)
    return text, f"{parts.scheme}://{parts.netloc}" if parts.netloc else ""


def _proof(text: str, file: Path | None, node: str) -> bytes | None:
    """The proof's bytes from a file or a node; None if there is none yet or nobody to ask."""
    if file is not None:
        with file.open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    if not node:
        return None
    try:
        parsed = parse_promise(text)
    except PromiseMalformed:
        return None  # the verdict says so
    key = access_key(parsed.salt_fin, parsed.txid).hex()
    url = f"{node.rstrip('/')}/v1/receipts/{parsed.txid.hex()}/proof"
    try:
        answer = httpx.get(url, params={"key": key}, timeout=10, trust_env=False)
    except httpx.HTTPError as error:
        typer.echo(f"the node {node} can't be asked ({type(error).__name__})", err=True)
        return None
    return answer.content if answer.status_code == 200 else None


def _cannot(why: str) -> NoReturn:
    typer.echo(f"CANNOT CHECK: {why}", err=True)
    raise typer.Exit(2)


def _print(verdict: ReceiptVerdict, as_json: bool) -> None:
    promise, inner = verdict.promise, verdict.verdict
    details: dict[str, object] = {}
    if promise is not None:
        due = datetime.fromtimestamp(promise.merge_deadline, UTC)
        details = {
            "promised_by": promise.member_id,
            "txid": promise.txid.hex(),
            "commitment": promise.commitment.hex(),
            "to_be_anchored_by": due.isoformat(),
        }
    if verdict.ok and inner is not None:
        details |= inner.details | {"late": verdict.late}
    said = "" if verdict.reason is None else verdict.reason.meaning
    if as_json:
        reason = verdict.reason.value if verdict.reason else None
        typer.echo(json.dumps({"ok": verdict.ok, "reason": reason, "details": details}))
        return
    if verdict.ok:
        typer.echo("PROVEN" + (" (anchored after the deadline)" if verdict.late else ""))
    else:
        waits = verdict.reason is ReceiptReason.PROMISE_PENDING
        typer.echo(f"{'NOT YET' if waits else 'REFUSED'} {verdict.reason}: {said}")
    width = max((len(name) for name in details), default=0)
    for name, value in details.items():
        typer.echo(f"  {name.ljust(width)}  {value}")
