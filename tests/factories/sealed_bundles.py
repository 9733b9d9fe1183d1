"""Bundles whose anchors stand on a real chain, with the seals of its blocks.

    python -m tests.factories.sealed_bundles NAME RPC_URL GENESIS.json [KEY [DEPTH]]

deploys the contracts on the chain at RPC_URL, anchors a small log twice and writes what it then
proves into sandbox/campaigns/sealed/NAME.json (README.md there). KEY: of a deployer with
money, where gas isn't free. DEPTH: how many blocks make a transaction final there (1).
"""

from __future__ import annotations

import base64
import json
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nodes.anchoring.block_reader import BlockReader
from nodes.anchoring.bundle import AnchorEvidence, Bundle
from nodes.anchoring.cached_roots import CachedRoots
from nodes.anchoring.checkpoint import Origin, Totals, meta_hash, totals_hash
from nodes.anchoring.roots_reader import read_roots
from nodes.anchoring.validators import parse_validators
from nodes.chain.anchors import EMPTY_ROOT, AnchorRegistry
from nodes.chain.signer import LocalSigner
from nodes.crypto.commitment import Opening
from nodes.crypto.merkle import inclusion_path, leaf_hash
from sandbox.campaigns.sealed_bundles import DIRECTORY
from tests.factories.chain import ChainFixture, deploy_on
from tests.unit.anchoring.chain_view import MEMBER, SIGNER, make_entries, signed_tree

_SEALED_US = 1_790_000_000_000_000
#: Transactions sent together with the second anchor: its block's tries have more than one value.
_COMPANY = 20


def anchored_bundles(
    chain: ChainFixture, size: int = 5, company: int = _COMPANY
) -> tuple[list[bytes], CachedRoots]:
    """The bundles of a log's entries, anchored on this chain in two steps (the first entry alone,
    then all, among `company` other transactions where strangers may send), without seals; and the
    roots that the chain holds."""
    client = chain.client()
    registry = AnchorRegistry(client, chain.anchor_registry)
    operator = chain.add_member(MEMBER, note_key=SIGNER.public_key)
    strangers = [LocalSigner(secrets.token_bytes(32)) for _ in range(company)]
    leaves, openings = make_entries(size)
    hashes = [leaf_hash(leaf) for leaf in leaves]
    bundles: list[bytes] = []
    before, proof = EMPTY_ROOT, []
    origin = Origin(client.chain_id(), chain.anchor_registry.lower(), MEMBER)
    for seq, count in enumerate((1, size), start=1):
        root, note = signed_tree(leaves[:count], origin)
        totals = totals_hash([Totals("CNY", count, 100 * count, 0)])
        if seq == 2:
            proof = inclusion_path(0, hashes)  # from size 1 on, a consistency proof is that path
            for signer in strangers[: company // 2]:
                _send_nothing(chain, signer)
        sent = _send(
            chain,
            operator,
            registry.build_anchor_tx(
                sender=operator.address,
                nonce=seq - 1,
                seq=seq,
                size=count,
                prev_root=before,
                root=root,
                proof=proof,
                meta_hash=meta_hash(note, _SEALED_US, totals),
            ),
        )
        if seq == 2:
            for signer in strangers[company // 2 :]:
                _send_nothing(chain, signer)
        receipt = client.wait_for_receipt(sent, 60)
        assert registry.decode_anchored(receipt), receipt
        evidence = AnchorEvidence(
            seq, sent, receipt.block_number, receipt.block_hash, _SEALED_US, totals
        )
        bundles += _bundles(leaves[:count], openings, hashes[:count], evidence, note)
        before = root
    return bundles, read_roots(client, chain.anchor_registry, None)


def _bundles(
    leaves: Sequence[bytes],
    openings: Sequence[Opening],
    hashes: Sequence[bytes],
    evidence: AnchorEvidence,
    note: str,
) -> list[bytes]:
    return [
        Bundle(leaf, openings[n], evidence, n, tuple(inclusion_path(n, hashes)), note).encode()
        for n, leaf in enumerate(leaves)
    ]


def _send(chain: ChainFixture, signer: LocalSigner, transaction: dict[str, Any]) -> bytes:
    raw, _ = signer.sign_transaction(transaction)
    return chain.client().send_raw(raw)


def _send_nothing(chain: ChainFixture, signer: LocalSigner) -> None:
    """A transfer of no money, so that the block has more than one transaction."""
    _send(
        chain,
        signer,
        {
            "from": signer.address,
            "to": signer.address,
            "nonce": 0,
            "value": 0,
            "gas": 21_000,
            "gasPrice": 0,
            "chainId": chain.chain_id,
            "data": b"",
        },
    )


def record(rpc_url: str, genesis: Path, key: bytes, depth: int) -> dict[str, Any]:
    """What a vector file holds."""
    chain = deploy_on(rpc_url, LocalSigner(key), finality_depth=depth)
    bundles, roots = anchored_bundles(chain)
    reader = BlockReader(chain.client())
    sealed = [reader.sealed(raw) for raw in (bundles[0], bundles[-1])]
    trusted = parse_validators(genesis.read_text(encoding="utf-8"))
    return {
        "engine": chain.client().request("web3_clientVersion", []),
        "chain_id": chain.chain_id,
        "anchor_registry": chain.anchor_registry,
        "validators": ["0x" + address.hex() for address in sorted(trusted.addresses)],
        "genesis": json.loads(genesis.read_text(encoding="utf-8")),
        "roots": json.loads(roots.encode()),
        "bundles": [base64.b64encode(raw).decode() for raw in sealed],
    }


if __name__ == "__main__":
    name, url, genesis_file, *rest = sys.argv[1:]
    own_key = bytes.fromhex(rest[0]) if rest else secrets.token_bytes(32)
    document = record(url, Path(genesis_file), own_key, int(rest[1]) if rest[1:] else 1)
    DIRECTORY.mkdir(exist_ok=True)
    text = json.dumps(document, indent=1, sort_keys=True) + "\n"
    (DIRECTORY / f"{name}.json").write_text(text, encoding="ascii")
