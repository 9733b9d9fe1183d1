"""Promises for receipts, and the proofs that receipts lead to.

`/v1/transactions/{txid}/promise` is for the gateway that prints the receipt and for API keys: a
promise opens a transaction's financial fields. `/v1/receipts` is for whoever holds the receipt,
from whatever page: it asks for a key that only salt_fin gives, and salt_fin never travels.
"""

from __future__ import annotations

import hmac
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from nodes.anchoring import promise_queries, proof_queries
from nodes.anchoring import queries as anchoring
from nodes.anchoring.operations.promising import Promiser, promise_transaction
from nodes.anchoring.qr_code import qr_svg
from nodes.anchoring.receipt import Promise, access_key
from nodes.anchoring.roots_reader import read_roots
from nodes.api.auth import Principal, admitted, anybody
from nodes.api.dependencies import TheBlocks, TheNode, note_keys_of
from nodes.api.node import ApiNode
from nodes.api.problems import Problem, unavailable
from nodes.api.reads import bytes_of_hex, snapshot
from nodes.api.schemas import Nothing
from nodes.chain.client import ChainClient
from nodes.chain.errors import ChainError
from nodes.chain.signer import LocalSigner
from nodes.crypto.keystore import KeystoreError
from nodes.ledger import queries as ledger

router = APIRouter(tags=["receipts"])

Txid = Annotated[str, Path(description="32 bytes in lower-case hex.", max_length=128)]
ReceiptKey = Annotated[
    str,
    Query(
        max_length=64,
        description='HMAC-SHA256(salt_fin, "countersign/receipt/1" || txid) in hex: only who holds'
        " the receipt can make it.",
    ),
]


class PromiseItem(BaseModel):
    """A receipt's promise."""

    txid: str
    member_id: str
    merge_deadline: int
    promise: str
    url: str


def may_print(principal: Principal) -> None:
    """A receipt opens a transaction's financial fields: for gateways and operators. Problem 403."""
    if not (principal.gateway or principal.has("operator")):
        raise Problem(403, "caller-not-permitted", "This is for gateways and operators.")


def _may_read(principal: Principal) -> None:
    if not (principal.gateway or principal.has("reader")):
        raise Problem(403, "caller-not-permitted", "This is for gateways and API keys.")


@router.post("/v1/transactions/{txid}/promise", dependencies=[Depends(admitted(may_print))])
def make_promise(node: TheNode, request: Request, txid: Txid, body: Nothing) -> PromiseItem:
    """The promise of a recorded transaction, for its receipt: made once, and then always the
    same."""
    key = bytes_of_hex(txid, 32, "transaction-unknown")
    promise = promise_transaction(node.engine, promiser_of(node, request), key)
    if promise is None:
        raise Problem(404, "transaction-unknown", "There is no such transaction in these books.")
    return promise_item(node, promise)


@router.get("/v1/transactions/{txid}/promise", dependencies=[Depends(admitted(_may_read))])
def get_promise(node: TheNode, txid: Txid) -> PromiseItem:
    """The promise that was made of a transaction."""
    key = bytes_of_hex(txid, 32, "transaction-unknown")
    with snapshot(node.engine) as connection:
        promise = promise_queries.promise_of(connection, node.settings.member_id, key)
    if promise is None:
        raise Problem(404, "promise-unknown", "No promise was made of such a transaction.")
    return promise_item(node, promise)


@router.get(
    "/v1/transactions/{txid}/promise/code",
    dependencies=[Depends(admitted(_may_read))],
    response_class=Response,
    responses={
        200: {
            "description": "The QR code as SVG",
            "content": {"image/svg+xml": {"schema": {"type": "string"}}},
        }
    },
)
def get_promise_code(node: TheNode, txid: Txid) -> Response:
    """The QR code of a promise's link, as it stands on the receipt."""
    return Response(qr_svg(get_promise(node, txid).url), media_type="image/svg+xml")


def promise_item(node: ApiNode, promise: Promise) -> PromiseItem:
    """A promise with the link that its code holds."""
    text = promise.encode()
    return PromiseItem(
        txid=promise.txid.hex(),
        member_id=promise.member_id,
        merge_deadline=promise.merge_deadline,
        promise=text,
        url=f"{node.settings.api_url.rstrip('/')}/r#{text}",
    )


def promiser_of(node: ApiNode, request: Request) -> Promiser:
    """Who promises here; Problem 409 where this node can't."""
    settings = node.settings
    if settings.omission_registry is None:
        raise Problem(409, "promises-not-made", "This node has no omission contract to sign for.")
    try:
        signer = LocalSigner(node.keystore.secret("promise"))
    except KeystoreError:
        raise Problem(409, "promises-not-made", "This node has no promise key.") from None
    member = node.directory.member(settings.member_id)
    if member is None or member.promise_key != signer.address:
        # A promise by a key that the chain doesn't know would prove nothing to its holder.
        raise Problem(409, "promises-not-made", "The chain doesn't know this node's promise key.")
    chain_id: int | None = request.app.state.chain_id()
    if chain_id is None:
        raise unavailable("chain-away", "The chain can't be asked which one it is.")
    return Promiser(
        member_id=settings.member_id,
        signer=signer,
        chain_id=chain_id,
        omission_registry=settings.omission_registry,
        merge_delay_s=settings.merge_delay_s,
        clock=node.clock,
    )


@router.get(
    "/v1/receipts/{txid}/proof",
    dependencies=[Depends(anybody)],
    response_class=Response,
    responses={
        200: {
            "description": "The proof bundle (C2SP tlog-proof@v1).",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        },
        409: {"description": "The transaction is not anchored yet."},
    },
)
def get_receipt_proof(node: TheNode, txid: Txid, key: ReceiptKey, blocks: TheBlocks) -> Response:
    """The proof of the transaction on a receipt, for its holder. No account is needed."""
    with snapshot(node.engine) as connection:
        wanted, side = _receipt(connection, txid, key)
        try:
            bundle = proof_queries.proof_bundle(connection, wanted, side, key_at=note_keys_of(node))
        except proof_queries.NotAnchoredYet as error:
            raise Problem(
                409,
                "not-anchored",
                "The transaction is not in a final anchor yet.",
                state=error.state.value,
            ) from None
    return Response(blocks.sealed(bundle), media_type="text/plain")


@router.get("/v1/receipts/{txid}/roots", dependencies=[Depends(anybody)], response_class=Response)
def get_receipt_roots(node: TheNode, txid: Txid, key: ReceiptKey) -> Response:
    """The cached roots (docs/evidence.md) by which that proof is judged, as this node reads them
    from the chain: for holders with no way to the chain, who then take this node's word."""
    settings = node.settings
    with snapshot(node.engine) as connection:
        wanted, side = _receipt(connection, txid, key)
        rows = [r for r in ledger.transactions_by_txid(connection, wanted) if r["side"] == side]
        number = rows[0]["transaction_id"]
        place = anchoring.log_places(connection, [number])[number]
    client = ChainClient(settings.rpc_url, finality_depth=settings.finality_depth)
    seqs = [place.batch_seq] if place.batch_seq is not None else []
    try:
        roots = read_roots(
            client,
            settings.anchor_registry,
            settings.omission_registry,
            {settings.member_id: seqs},
        )
    except ChainError:
        raise unavailable("chain-away", "The chain can't be asked.") from None
    return Response(roots.encode(), media_type="application/json")


def _receipt(connection: anchoring.AnyConnection, txid: str, key: str) -> tuple[bytes, str]:
    """The transaction of a receipt and a side of it; Problem 404 for a wrong key as for an unknown
    transaction: nothing is told to who only knows a txid."""
    unknown = Problem(404, "receipt-unknown", "No transaction here has that txid and key.")
    try:
        wanted, sent = bytes.fromhex(txid), bytes.fromhex(key)
    except ValueError:
        raise unknown from None
    rows = anchoring.rows_by_txid(connection, [wanted])
    for row in rows:
        salt = row.values["salt_fin"]
        if isinstance(salt, bytes) and hmac.compare_digest(access_key(salt, wanted), sent):
            return wanted, str(row.values["side"])
    raise unknown
