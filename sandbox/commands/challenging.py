"""What anybody with a receipt may send to the OmissionRegistry: a claim, its end, or its answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from nodes.anchoring.bundle import parse_bundle
from nodes.anchoring.receipt import Promise
from nodes.chain.challenges import Claim, ClaimState, OmissionRegistry, claim_id_of
from nodes.chain.client import ChainClient
from nodes.chain.errors import ChainError, ChainReverted
from nodes.chain.evidence import Evidence
from nodes.chain.signer import LocalSigner
from sandbox.commands.network_file import Described

#: What a simulation on the newest block's time may say of a deadline that is over by now.
_EARLY = ("PromiseNotDue", "AnswerPending")

#: From what the chain has of the claim: the transaction to send (None: none) and from when on it
#: is due. Its arguments: sender and nonce.
_Build = Callable[[str, int], dict[str, Any]]


class CannotSend(Exception):
    """No key, no contract, or no chain that can be asked; the text says which."""


def take_to_chain(promise: Promise, described: Described, key_file: Path | None) -> None:
    """Claim the omission; where the claim is there and its time over, conclude it."""

    def chosen(omissions: OmissionRegistry, claim: Claim | None) -> tuple[_Build, int] | None:
        if claim is None:
            return (
                lambda sender, nonce: omissions.build_claim_tx(
                    sender=sender,
                    nonce=nonce,
                    member_id=promise.member_id,
                    txid=promise.txid,
                    commitment=promise.commitment,
                    merge_deadline=promise.merge_deadline,
                    signature=promise.signature,
                ),
                promise.merge_deadline,
            )
        if claim.state is not ClaimState.CLAIMED:
            return None
        return (
            lambda sender, nonce: omissions.build_conclude_tx(
                sender=sender, nonce=nonce, claim_id=claim.claim_id
            ),
            claim.answer_deadline,
        )

    _send(promise, described, key_file, chosen)


def answer_claim(promise: Promise, raw: bytes, described: Described, key_file: Path | None) -> None:
    """Clear the accused: show the contract the leaf and its path of a proof that holds."""
    bundle = parse_bundle(raw)
    evidence = Evidence(bundle.leaf, bundle.index, bundle.evidence.seq, bundle.path)

    def chosen(omissions: OmissionRegistry, claim: Claim | None) -> tuple[_Build, int] | None:
        if claim is None or claim.state is not ClaimState.CLAIMED:
            return None
        return (
            lambda sender, nonce: omissions.build_answer_tx(
                sender=sender, nonce=nonce, claim_id=claim.claim_id, evidence=evidence
            ),
            0,
        )

    _send(promise, described, key_file, chosen)


def _send(
    promise: Promise,
    described: Described,
    key_file: Path | None,
    chosen: Callable[[OmissionRegistry, Claim | None], tuple[_Build, int] | None],
) -> None:
    if key_file is None or not (described.rpc_url and described.omission_registry):
        raise CannotSend(
            "this needs --key-file, --rpc and --omission-registry (or network.json);"
            " a challenge without a chain key: --via"
        )
    try:
        signer = LocalSigner(bytes.fromhex(key_file.read_text("ascii").strip().removeprefix("0x")))
    except (OSError, ValueError):
        raise CannotSend(f"{key_file}: not a chain key in hex") from None
    named = promise.member_id, promise.txid, promise.commitment
    try:
        client = ChainClient(described.rpc_url)
        omissions = OmissionRegistry(client, described.omission_registry)
        claim = omissions.claim(*named)
        wanted = chosen(omissions, claim)
        if wanted is None:
            stands = (
                "nobody has claimed it" if claim is None else f"it stands as {claim.state.name}"
            )
            typer.echo(f"nothing to send: {stands}")
            return
        build, due = wanted
        built = build(signer.address, client.nonce(signer.address))
        _check(omissions, built, due)
        raw, tx_hash = signer.sign_transaction(built)
        if not client.wait_for_receipt(client.send_raw(raw)).ok:
            raise client.revert_of(tx_hash)
        now = omissions.claim(*named)
    except ChainReverted as refused:
        typer.echo(f"the chain refuses it: {refused.reason}")
        return
    except ChainError as error:
        raise CannotSend(f"the chain can't be asked: {error}") from None
    state = now.state.name if now else "?"
    until = datetime.fromtimestamp(now.answer_deadline, UTC).isoformat() if now else "?"
    may = f"; the accused may answer until {until}" if state == ClaimState.CLAIMED.name else ""
    typer.echo(f"claim {claim_id_of(*named).hex()}: {state}{may}")


def _check(omissions: OmissionRegistry, built: dict[str, Any], due: int) -> None:
    """Refuse what the contract would refuse, unless only because no block was made since `due`."""
    try:
        omissions.check_tx(built)
    except ChainReverted as refused:
        if refused.reason not in _EARLY or time.time() <= due + 1:
            raise
