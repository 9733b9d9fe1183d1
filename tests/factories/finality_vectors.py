"""tests/vectors/finality.json: proofs with their blocks' seals, and the one answer to each.

python -m tests.factories.finality_vectors    # writes it anew, from sandbox/campaigns/sealed/
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nodes.anchoring.bundle import Bundle, parse_bundle
from nodes.anchoring.finality import BlockEvidence, Finality
from nodes.anchoring.verifier import SealTrust, Verdict, verify
from nodes.crypto import rlp
from sandbox.campaigns.sealed_bundles import NAMES, recorded
from tests.factories.sealed_block import KEYS, sealed

PATH = Path(__file__).parents[1] / "vectors" / "finality.json"
_EXTRA, _SEALS = 12, 4


@dataclass(frozen=True)
class Case:
    """A bundle, and by what it is judged. `by`: "seals" (validators, chain and contract alone),
    "seals and keys" (with the roots' note keys), "roots" (with validators where there are any)."""

    name: str
    network: str
    bundle: bytes
    by: str
    validators: tuple[str, ...] = ()

    def verdict(self) -> Verdict:
        found = recorded(self.network)
        addresses = frozenset(bytes.fromhex(text[2:]) for text in self.validators)
        if self.by == "roots":
            return verify(self.bundle, found.roots, addresses or None)
        keys = {name: member.note_keys for name, member in found.roots.members.items()}
        given = keys if self.by == "seals and keys" else {}
        return verify(
            self.bundle, SealTrust(found.chain_id, found.anchor_registry, addresses, given)
        )


def with_block(**change: object) -> Callable[[Bundle], Bundle]:
    def apply(bundle: Bundle) -> Bundle:
        assert bundle.evidence.block is not None
        block = replace(bundle.evidence.block, **change)  # type: ignore[arg-type]
        return replace(bundle, evidence=replace(bundle.evidence, block=block))

    return apply


def with_seals(change: Callable[[list[bytes]], list[bytes]], sealers: Any = None) -> Any:
    """The seals in a QBFT header changed, and those whom the bundle names, if given."""

    def apply(bundle: Bundle) -> Bundle:
        block = bundle.evidence.block
        assert block is not None
        fields: Any = rlp.decode(block.header)
        extra: Any = rlp.decode(fields[_EXTRA])
        extra[_SEALS] = change(extra[_SEALS])
        fields[_EXTRA] = rlp.encode(extra)
        named = block.sealers if sealers is None else sealers(block.sealers)
        return with_block(header=rlp.encode(fields), sealers=tuple(named))(bundle)

    return apply


def with_evidence(**change: object) -> Callable[[Bundle], Bundle]:
    def apply(bundle: Bundle) -> Bundle:
        return replace(bundle, evidence=replace(bundle.evidence, **change))  # type: ignore[arg-type]

    return apply


def _flipped(raw: bytes, place: int) -> bytes:
    return raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]


def _block(bundle: Bundle) -> BlockEvidence:
    assert bundle.evidence.block is not None
    return bundle.evidence.block


def _twice(seals: list[bytes]) -> list[bytes]:
    return [seals[0], seals[0], seals[1]]


def _lies() -> Iterator[tuple[str, str, Callable[[Bundle], Bundle]]]:
    """What is wrong, the network, the change of its first bundle."""
    for network in ("qbft", "clique"):
        yield f"{network}: another block's hash", network, with_evidence(block_hash=bytes(32))
        yield f"{network}: another block's number", network, with_evidence(block_number=1)
        yield f"{network}: another transaction", network, with_evidence(tx_hash=bytes(32))
        yield f"{network}: another anchor", network, with_evidence(seq=2)
        yield f"{network}: another moment", network, with_evidence(sealed_us=1)
        yield f"{network}: another place in the block", network, with_block(place=1)
        yield f"{network}: no receipt", network, with_block(receipt=())
        yield (
            f"{network}: a node too many",
            network,
            lambda b: with_block(receipt=(*_block(b).receipt, b""))(b),
        )
        yield (
            f"{network}: an altered receipt",
            network,
            lambda b: with_block(receipt=(_flipped(_block(b).receipt[0], 40),))(b),
        )
        yield (
            f"{network}: an altered header",
            network,
            lambda b: with_block(header=_flipped(_block(b).header, 100))(b),
        )
        yield f"{network}: no header", network, with_block(header=b"")
        yield (
            f"{network}: sealers in another order",
            network,
            lambda b: with_block(sealers=_block(b).sealers[::-1])(b),
        )
        other = Finality.CLIQUE if network == "qbft" else Finality.QBFT
        yield f"{network}: said to be {other}", network, with_block(finality=other)
    yield (
        "qbft: a flipped bit in a seal",
        "qbft",
        with_seals(lambda seals: [_flipped(seals[0], 20), *seals[1:]]),
    )
    yield "qbft: a seal of 64 bytes", "qbft", with_seals(lambda s: [s[0][:64], *s[1:]])
    yield (
        "qbft: a seal with v 27",
        "qbft",
        with_seals(lambda s: [s[0][:64] + bytes([s[0][64] + 27]), *s[1:]]),
    )
    yield "qbft: two seals", "qbft", with_seals(lambda s: s[:2], lambda named: named[:2])
    yield "qbft: no seals", "qbft", with_seals(lambda s: [], lambda named: [])
    yield (
        "qbft: one seal twice",
        "qbft",
        with_seals(_twice, lambda named: [named[0], named[0], named[1]]),
    )
    yield "qbft: a block after it", "qbft", lambda b: with_block(following=(_block(b).header,))(b)
    yield "qbft: strangers' block", "qbft", lambda b: sealed(b, KEYS[:3])
    yield "clique: strangers' blocks", "clique", lambda b: sealed(b, KEYS[:3], Finality.CLIQUE)
    yield (
        "clique: two blocks",
        "clique",
        lambda b: with_block(following=_block(b).following[:1], sealers=_block(b).sealers[:2])(b),
    )
    yield (
        "clique: a gap between the blocks",
        "clique",
        lambda b: with_block(following=_block(b).following[1:], sealers=_block(b).sealers[::2])(b),
    )


def cases() -> Iterator[Case]:
    """All of them."""
    for network in NAMES:
        found = recorded(network)
        validators = tuple(found.validators)
        first, second = found.bundles
        for by in ("seals", "seals and keys", "roots"):
            yield Case(f"{network}, by {by}", network, first, by, validators)
        yield Case(f"{network}: among other transactions", network, second, "seals", validators)
        yield Case(f"{network}: nobody's validators are known", network, first, "roots")
        named = _block(parse_bundle(first)).sealers[0].hex()
        fewer = tuple(text for text in validators if text != f"0x{named}")
        yield Case(f"{network}: a sealer is none of the validators", network, first, "seals", fewer)
        more = validators + tuple(f"0x{bytes([n]).hex() * 20}" for n in range(2))
        yield Case(f"{network}: more validators than sealed", network, first, "seals", more)
    for name, network, change in _lies():
        found = recorded(network)
        raw = change(parse_bundle(found.bundles[0])).encode()
        yield Case(name, network, raw, "seals", tuple(found.validators))
    for network in ("qbft", "clique"):
        found = recorded(network)
        plain = with_evidence(block=None)(parse_bundle(found.bundles[0])).encode()
        validators = tuple(found.validators)
        yield Case(f"{network}: no block, by seals", network, plain, "seals", validators)
        yield Case(f"{network}: no block, by roots", network, plain, "roots", validators)
        note = parse_bundle(found.bundles[0]).note
        for name, changed in (
            ("another size", note.replace("\n1\n", "\n2\n")),
            ("another signature", _other_signature(note)),
            ("another chain", note.replace(f"/{found.chain_id}/", "/1/")),
        ):
            raw = replace(parse_bundle(found.bundles[0]), note=changed).encode()
            for by in ("seals", "seals and keys"):
                yield Case(f"{network}: {name}, by {by}", network, raw, by, validators)


def _other_signature(note: str) -> str:
    head, _, last = note.rstrip("\n").rpartition(" ")
    raw = base64.b64decode(last)
    return f"{head} {base64.b64encode(_flipped(raw, 30)).decode()}\n"


def documents() -> dict[str, Any]:
    """The file's content."""
    made = []
    for case in cases():
        verdict = case.verdict()
        made.append(
            {
                "name": case.name,
                "network": case.network,
                "by": case.by,
                "validators": list(case.validators),
                "bundle": base64.b64encode(case.bundle).decode(),
                "reason": verdict.reason,
                "finality": verdict.details.get("finality"),
                "sealed_by": verdict.details.get("sealed_by"),
            }
        )
    networks = {}
    for name in NAMES:
        found = recorded(name)
        networks[name] = {
            "chain_id": found.chain_id,
            "anchor_registry": found.anchor_registry,
            "roots": json.loads(found.roots.encode()),
        }
    return {
        "about": "Proofs (base64) with their blocks' seals, by whom they are to be judged, and the"
        " reason of the refusal (null: proven) with the finality found. docs/evidence.md.",
        "networks": networks,
        "cases": made,
    }


if __name__ == "__main__":
    PATH.write_text(json.dumps(documents(), indent=1) + "\n", encoding="ascii")
