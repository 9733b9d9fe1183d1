"""Claims of omission by anybody: who holds an overdue promise has no account on the chain, this
member's node has (docs/receipts.md, "To the chain").

Nothing is asked of the caller but the promise without its salt, which would open the payment: the
contract says whether it is one, and due.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel, Field
from starlette.responses import Response

from nodes.anchoring.chain_view import TrustedChain
from nodes.anchoring.receipt import Promise, promise_is_signed
from nodes.api.auth import anybody
from nodes.api.dependencies import TheNode
from nodes.api.problems import Problem, unavailable
from nodes.api.reads import bytes_of_hex
from nodes.api.schemas import Hex32, Sent
from nodes.chain.challenges import OmissionRegistry, claim_id_of
from nodes.chain.client import ChainClient
from nodes.chain.errors import ChainError
from nodes.claims import store
from nodes.claims.model import ClaimOrder, OrderState
from nodes.claims.operations import Taken, take_order
from nodes.db.engine import transaction

router = APIRouter(tags=["receipts"])

_PATH = "/v1/receipts/claims"
#: What the contract refuses a claim for, said for people.
_WHY = {
    "PromiseNotDue": "The promise is not due yet.",
    "PromiseTooOld": "The time for claims about this promise is over.",
    "NotPromiseKey": "It is not signed by a promise key that the member had for that deadline.",
    "KeyNotValid": "The member's key was not valid for a promise of that time.",
}


class ClaimBody(Sent):
    """A promise without its salt; the deadline in Unix seconds."""

    member_id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{1,30}$", examples=["meridian"])]
    txid: Hex32
    commitment: Hex32
    merge_deadline: Annotated[int, Field(ge=1, lt=2**63, examples=[1_795_440_000])]
    signature: Annotated[str, Field(pattern=r"^[0-9a-f]{130}$", examples=["1c" * 65])]


class ClaimItem(BaseModel):
    """How far a claim has come. `answer_by`: until when the accused may answer, in Unix seconds."""

    claim_id: str
    state: OrderState
    answer_by: int | None
    reason: str | None


@router.options(_PATH, include_in_schema=False)
def allow_claims() -> Response:
    """The verifier's page asks from wherever it was opened (_ANY_PAGE of app.py)."""
    allowed = {"Access-Control-Allow-Headers": "content-type", "Access-Control-Max-Age": "600"}
    return Response(status_code=204, headers=allowed)


@router.post(_PATH, status_code=202, dependencies=[Depends(anybody)])
def bring_claim(node: TheNode, body: ClaimBody) -> ClaimItem:
    """Take an overdue promise to the chain. No account is needed; brought again it tells the state.

    The node's worker sends the claim, and once the accused's time to answer is over writes
    OmissionProven."""
    address = node.settings.omission_registry
    if address is None:
        raise Problem(409, "claims-not-taken", "This node has no omission contract.")
    order, settings = _order(body), node.settings
    client = ChainClient(settings.rpc_url, finality_depth=settings.finality_depth)
    try:
        if not _is_signed(order, TrustedChain(client, settings.anchor_registry, address)):
            raise Problem(409, "claim-refused", _WHY["NotPromiseKey"], reason="NotPromiseKey")
        omissions = OmissionRegistry(client, address)
        taken, found = take_order(node.engine, omissions, order, node.clock)
    except ChainError:
        raise unavailable("chain-away", "The chain can't be asked.") from None
    if taken is Taken.FULL:
        full = "So many claims are under way here that this one can't be taken now."
        raise unavailable("claims-full", full, retry_after_s=60)
    if taken is Taken.REFUSED:
        why = _WHY.get(found.reason or "", "The contract doesn't take it.")
        raise Problem(409, "claim-refused", why, reason=found.reason)
    return _item(found)


@router.get(_PATH + "/{claim_id}", dependencies=[Depends(anybody)])
def get_claim(
    node: TheNode,
    claim_id: Annotated[str, Path(description="32 bytes in hex.", max_length=128)],
) -> ClaimItem:
    """How far a claim that was brought here has come."""
    wanted = bytes_of_hex(claim_id, 32, "claim-unknown")
    with transaction(node.engine) as connection:
        found = store.order_of(connection, wanted)
    if found is None:
        raise Problem(404, "claim-unknown", "No such claim was brought here.")
    return _item(found)


def _order(body: ClaimBody) -> ClaimOrder:
    txid, commitment = bytes.fromhex(body.txid), bytes.fromhex(body.commitment)
    return ClaimOrder(
        claim_id_of(body.member_id, txid, commitment),
        body.member_id,
        txid,
        commitment,
        body.merge_deadline,
        bytes.fromhex(body.signature),
    )


def _is_signed(order: ClaimOrder, view: TrustedChain) -> bool:
    """Whether the member's key signed it. On a quiet chain the contract's own look comes later: it
    says first that nothing is due at its newest block."""
    named = (order.member_id, order.txid, order.commitment)
    promise = Promise(*named, bytes(32), order.merge_deadline, order.signature)
    return promise_is_signed(promise, view)


def _item(order: ClaimOrder) -> ClaimItem:
    return ClaimItem(
        claim_id=order.claim_id.hex(),
        state=order.state,
        answer_by=order.answer_by,
        reason=order.reason,
    )
