"""An overdue promise taken to the chain by a member's node, with a key of its own: for whoever
has none (docs/receipts.md, To the chain)."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import httpx

from nodes.anchoring.receipt import Promise
from nodes.chain.challenges import claim_id_of
from sandbox.commands.challenging import CannotSend

_TIMEOUT_S = 20.0
_MAX_ANSWER = 65_536
#: Of an answer's texts: what a terminal shows of them, at most.
_MAX_TEXT = 300
#: The last second that a date can name (9999-12-31).
_MAX_TIME = 253_402_300_799


def checked_node(option: str, text: str) -> str:
    """`text` if it is a node's URL, or empty; ValueError names the option."""
    try:
        parts = urlsplit(text)
        bare = not (parts.query or parts.fragment or parts.username or parts.password)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and bare
        sound = sound and parts.port != 0  # reading it raises ValueError if it is no port
    except ValueError:
        sound = False
    if text and not sound:
        raise ValueError(f"{option} {text!r} is no node's address: https:// and its name")
    return text.rstrip("/")


def _signed_parts(promise: Promise) -> dict[str, Any]:
    """What the chain must see, and no more: salt_fin, which opens the payment, stays here."""
    return {
        "member_id": promise.member_id,
        "txid": promise.txid.hex(),
        "commitment": promise.commitment.hex(),
        "merge_deadline": promise.merge_deadline,
        "signature": promise.signature.hex(),
    }


def take_by_node(promise: Promise, node: str) -> str:
    """Have a node (of checked_node) send the claim, or tell the state of one that it knows.

    Returns what became of it, in words. CannotSend where the node is away, doesn't take it, or
    answers something else.
    """
    status, answer = _post(node, _signed_parts(promise))
    if status not in (200, 202):
        raise CannotSend(f"{node} doesn't take it: {_problem(status, answer)}")
    claim_id = claim_id_of(promise.member_id, promise.txid, promise.commitment).hex()
    said = _said(answer, promise.member_id) if answer.get("claim_id") == claim_id else None
    if said is None:
        raise CannotSend(f"{node} answers what is no state of this claim: is it a member's node?")
    return f"claim {claim_id}, says {node}: {said}"


def _post(node: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Status and document of the answer; an empty document where there is none."""
    url, raw = f"{node}/v1/receipts/claims", bytearray()
    try:
        with httpx.stream("POST", url, json=body, timeout=_TIMEOUT_S, trust_env=False) as answer:
            for chunk in answer.iter_bytes():
                raw += chunk
                if len(raw) > _MAX_ANSWER:
                    raise CannotSend(f"{node} answers more than a node does")
            status = answer.status_code
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        raise CannotSend(f"the node {node} can't be asked ({type(error).__name__})") from None
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        document = None
    return status, document if isinstance(document, dict) else {}


def _problem(status: int, document: dict[str, Any]) -> str:
    """A problem document's own words, or the bare status."""
    kind = _shown(document.get("type")).rpartition(":")[2]
    names = [str(status), kind, _shown(document.get("reason"))]
    named = ", ".join(name for name in names if name)
    detail = _shown(document.get("detail"))
    return f"{detail} ({named})" if detail else named


def _said(answer: dict[str, Any], accused: str) -> str | None:
    """A claim's state in words; None if the answer tells none."""
    until, reason = answer.get("answer_by"), _shown(answer.get("reason"))
    if until is not None and (type(until) is not int or not 0 <= until <= _MAX_TIME):
        return None
    match answer.get("state"):
        case "queued":
            return "QUEUED; the node is going to send it: run this again to see what became of it"
        case "claimed":
            return f"CLAIMED; {_may_answer(accused, until)}"
        case "answered":
            return f"ANSWERED; {accused} has shown the chain that it is anchored: ask for the proof"
        case "proven":
            return f"PROVEN; that {accused} left it out stands on the chain (OmissionProven)"
        case "refused":
            return f"REFUSED; {reason or 'the node says no reason'}"
    return None


def _may_answer(accused: str, until: int | None) -> str:
    if until is None:
        return f"{accused} may answer"
    at = datetime.fromtimestamp(until, UTC).isoformat()
    if until < time.time():
        return f"{accused} could answer until {at}: the node is going to conclude it"
    return f"{accused} may answer until {at}"


def _shown(text: object) -> str:
    """A stranger's text, fit for a terminal: nothing that could steer it, and not too long."""
    if not isinstance(text, str):
        return ""
    return "".join(letter for letter in text[:_MAX_TEXT] if letter.isprintable())
