"""Blocks that real validators sealed (sandbox/campaigns/sealed/), judged with no engine."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from eth_hash.auto import keccak

from nodes.anchoring.block_header import (
    ISTANBUL_DIGEST,
    Consensus,
    HeaderMalformed,
    parse_header,
    qbft_validators,
)
from nodes.anchoring.bundle import BundleMalformed, parse_bundle
from nodes.anchoring.finality import Finality, SealFault
from nodes.anchoring.validators import ValidatorsMalformed, parse_validators
from nodes.anchoring.verifier import Reason, SealTrust, verify
from nodes.chain.anchors import ANCHORED_TOPIC
from nodes.crypto import rlp
from sandbox.campaigns.sealed_bundles import DIRECTORY, NAMES, Recorded, recorded
from tests.factories.finality_vectors import PATH, cases, documents
from tests.factories.sealed_block import KEYS, addresses, sealed
from tests.unit.anchoring.chain_view import CHAIN_ID, REGISTRY
from tests.unit.anchoring.lies import BUNDLES

CASES = list(cases())


def block_of(raw: bytes) -> Any:
    block = parse_bundle(raw).evidence.block
    assert block is not None
    return block


def trust(count: int) -> SealTrust:
    return SealTrust(CHAIN_ID, REGISTRY, addresses(count))


def test_the_vectors_are_what_the_verifier_says() -> None:
    document = json.loads(PATH.read_text(encoding="ascii"))
    assert json.loads(json.dumps(documents())) == document
    reasons = {case["reason"] for case in document["cases"]}
    assert reasons >= {None, Reason.NOT_SEALED, *SealFault}


@pytest.mark.parametrize("name", NAMES)
def test_a_real_blocks_seals_need_no_node(name: str) -> None:
    found = recorded(name)
    for raw in found.bundles:
        verdict = verify(raw, found.trust)
        assert verdict.ok, verdict
        assert verdict.details["finality"] == block_of(raw).finality
        assert str(verdict.details["sealed_by"]).startswith("3 of 4 validators")
        assert "note_signature" in verdict.details


@pytest.mark.parametrize("name", NAMES)
def test_the_note_is_checked_where_keys_are_known(name: str) -> None:
    found = recorded(name)
    [(member, known)] = [(m, k.note_keys) for m, k in found.roots.members.items()]
    verdict = verify(found.bundles[0], replace(found.trust, note_keys={member: known}))
    assert verdict.ok
    assert "note_signature" not in verdict.details
    late = tuple(replace(key, first=10**9) for key in known)
    refused = verify(found.bundles[0], replace(found.trust, note_keys={member: late}))
    assert refused.reason is Reason.KEY_NOT_VALID_AT_BLOCK


@pytest.mark.parametrize("name", NAMES)
def test_a_real_header_has_the_hash_that_the_chain_told(name: str) -> None:
    for raw in recorded(name).bundles:
        header = parse_header(block_of(raw).header)
        assert header.hash == parse_bundle(raw).evidence.block_hash
        assert header.sealers == block_of(raw).sealers[: len(header.sealers)]


def test_a_real_round_of_qbft_counts_in_what_is_signed() -> None:
    """With a validator down some blocks are of a later round: in the seals, not in the hash."""
    rounds = []
    for name in ("qbft", "qbft-one-down"):
        for raw in recorded(name).bundles:
            fields: Any = rlp.decode(block_of(raw).header)
            extra: Any = rlp.decode(fields[12])
            rounds.append(int.from_bytes(extra[3], "big"))
            extra[3] = rlp.number(rounds[-1] + 1)
            fields[12] = rlp.encode(extra)
            moved, as_is = parse_header(rlp.encode(fields)), parse_header(block_of(raw).header)
            assert moved.hash == as_is.hash
            assert not set(moved.sealers) & set(as_is.sealers)
    assert {0, 1} <= set(rounds)


def test_cliques_blocks_follow_each_other() -> None:
    block = block_of(recorded("clique").bundles[0])
    headers = [parse_header(raw) for raw in (block.header, *block.following)]
    assert {header.consensus for header in headers} == {Consensus.CLIQUE}
    assert all(child.parent_hash == parent.hash for parent, child in pairwise(headers))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_changed_proof_gets_its_reason(case: Any) -> None:
    document = json.loads(PATH.read_text(encoding="ascii"))
    [stated] = [c for c in document["cases"] if c["name"] == case.name]
    assert base64.b64decode(stated["bundle"]) == case.bundle
    verdict = case.verdict()
    assert (verdict.reason, verdict.ok) == (stated["reason"], stated["reason"] is None)


@pytest.mark.parametrize("name", ["qbft", "clique"])
def test_flipped_bits_of_a_sealed_proof_are_refused(name: str) -> None:
    """Every 37th bit of the file. (All of them were tried once: docs/evidence.md.)"""
    found = recorded(name)
    raw, reasons = found.bundles[0], set()
    for bit in range(0, 8 * len(raw), 37):
        altered = bytearray(raw)
        altered[bit // 8] ^= 1 << bit % 8
        verdict = verify(bytes(altered), found.trust)
        assert not verdict.ok, f"bit {bit} doesn't matter"
        reasons.add(verdict.reason)
    assert {Reason.BLOCK_MISMATCH, Reason.RECEIPT_NOT_IN_BLOCK, Reason.SEAL_INVALID} <= reasons


@pytest.mark.parametrize("name", ["qbft", "clique"])
@pytest.mark.parametrize("by_roots", [False, True])
def test_the_blocks_own_bytes_count(name: str, by_roots: bool) -> None:
    """Also where no validators are given, and roots are trusted. One byte in seven."""
    found = recorded(name)
    bundle = parse_bundle(found.bundles[0])
    block = block_of(found.bundles[0])
    view = found.roots if by_roots else found.trust
    for part in ("header", "transaction", "receipt", "following", "sealers"):
        whole = getattr(block, part)
        for n, raw in enumerate([whole] if part == "header" else whole):
            for place in range(n % 7, len(raw), 7):
                hurt = raw[:place] + bytes([raw[place] ^ 1 << place % 8]) + raw[place + 1 :]
                value = hurt if part == "header" else (*whole[:n], hurt, *whole[n + 1 :])
                evidence = replace(bundle.evidence, block=replace(block, **{part: value}))
                verdict = verify(replace(bundle, evidence=evidence).encode(), view)
                assert verdict.reason in set(map(str, SealFault)), (part, n, place)


@pytest.mark.parametrize("count", range(1, 10))
def test_the_quorums_of_any_number_of_validators(count: int) -> None:
    """Besu's BftHelpers: ceil(2n/3). Clique: more than half."""
    for finality, needed in (
        (Finality.QBFT, -(-2 * count // 3)),
        (Finality.CLIQUE, count // 2 + 1),
    ):
        for sealing in range(1, count + 1):
            made = sealed(parse_bundle(BUNDLES[1]), KEYS[:sealing], finality).encode()
            verdict = verify(made, trust(count))
            assert verdict.ok == (sealing >= needed), (finality, sealing)
            assert verdict.ok or verdict.reason is Reason.SEALS_TOO_FEW
            assert verify(made, trust(sealing - 1)).reason in {
                Reason.SEALER_UNKNOWN,
                Reason.SEALS_TOO_FEW,
            }


def test_blocks_of_one_clique_signer_count_once() -> None:
    made = sealed(parse_bundle(BUNDLES[0]), [KEYS[0], KEYS[1], KEYS[0]], Finality.CLIQUE)
    assert verify(made.encode(), trust(4)).reason is Reason.SEALS_TOO_FEW
    assert verify(made.encode(), trust(3)).ok


@pytest.mark.parametrize("round_number", [0, 1, 300])
@pytest.mark.parametrize("company", [2, 20, 200])
def test_a_block_of_many_transactions_and_later_rounds(round_number: int, company: int) -> None:
    made = sealed(
        parse_bundle(BUNDLES[2]), KEYS[:3], round_number=round_number, company=company
    ).encode()
    assert verify(made, trust(4)).ok


def test_a_proof_without_a_block_is_as_before() -> None:
    assert b'"finality":"DEV_FINALITY"' in base64.b64decode(BUNDLES[0].split(b"\n")[1][6:])
    assert verify(BUNDLES[0], trust(4)).reason is Reason.NOT_SEALED


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"place":0', b'"place":-1'),
        (b'"place":0', b'"place":"0"'),
        (b'"following":[]', b'"following":{}'),
        (b'"following":[]', b'"following":[1]'),
        (b'"following":[]', b'"following":["0"]'),
        (b'"following":[]', b'"following":[' + b",".join([b'""'] * 257) + b"]"),
        (b'"finality":"QBFT_FINALITY"', b'"finality":"DEV_FINALITY"'),
        (b'"finality":"QBFT_FINALITY"', b'"finality":"FINALITY"'),
        (b'"finality":"QBFT_FINALITY"', b'"finality":[]'),
        (b'"sealers":["', b'"sealers":["00'),
        (b'"header":"f', b'"header":"F'),
        (b'"header":"', b'"headers":"'),
    ],
)
def test_a_block_has_one_form(old: bytes, new: bytes) -> None:
    head, line, *rest = recorded("qbft").bundles[0].split(b"\n")
    extra = base64.b64decode(line[6:])
    assert old in extra
    changed = base64.b64encode(extra.replace(old, new, 1))
    with pytest.raises(BundleMalformed):
        parse_bundle(b"\n".join([head, b"extra " + changed, *rest]))


# -- headers and lists of validators


def test_besus_published_extra_data_is_read() -> None:
    """hyperledger/besu, consensus/qbft/src/test/.../QbftExtraDataCodecTest.java,
    RAW_HEX_ENCODING_STRING: validators 1 and 2, a vote to add 1, round 0x00FEDCBA."""
    raw = bytes.fromhex(
        "f8f0a00102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20ea940000000000000000"
        "000000000000000000000001940000000000000000000000000000000000000002d7940000000000000000"
        "00000000000000000000000181ff83fedcbaf886b841000000000000000000000000000000000000000000"
        "0000000000000000000001000000000000000000000000000000000000000000000000000000000000000a"
        "00b841000000000000000000000000000000000000000000000000000000000000000a0000000000000000"
        "00000000000000000000000000000000000000000000000100"
    )
    assert qbft_validators(raw) == (bytes(19) + b"\x01", bytes(19) + b"\x02")
    assert rlp.encode(rlp.decode(raw)) == raw


def test_the_digest_of_istanbul_is_spelt() -> None:
    """GoQuorum, core/types/istanbul.go; Besu, BftHelpers.EXPECTED_MIX_HASH."""
    assert ISTANBUL_DIGEST == b"ctical byzantine fault tolerance"


def test_the_events_topic_is_that_of_the_contracts_reader() -> None:
    assert keccak(b"Anchored(bytes32,uint64,uint64,bytes32,bytes32,bytes32)") == ANCHORED_TOPIC


@pytest.mark.parametrize("name", NAMES)
def test_a_genesis_names_its_validators(name: str) -> None:
    document = json.loads((DIRECTORY / f"{name}.json").read_text(encoding="ascii"))
    found = recorded(name)
    named = parse_validators(json.dumps(document["genesis"]))
    assert (named.addresses, named.chain_id) == (found.addresses, found.chain_id)
    assert parse_validators(", ".join(document["validators"])).addresses == found.addresses


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no validator's address"),
        ("0x12", "no validator's address"),
        ("0x" + "1" * 40 + ";0x" + "2" * 40, "no validator's address"),
        ("{", "not JSON"),
        ("{}", "no extraData"),
        ('{"extraData":"0x"}', "lists no validators"),
        ('{"extraData":"0x' + "00" * 97 + '"}', "lists no validators"),
        ('{"extraData":"0x' + "00" * 98 + '"}', "lists no validators"),
    ],
)
def test_what_names_no_validators_is_told(text: str, said: str) -> None:
    with pytest.raises(ValidatorsMalformed, match=said):
        parse_validators(text)


def _fields() -> list[Any]:
    fields: Any = rlp.decode(block_of(recorded("qbft").bundles[0]).header)
    return list(fields)


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields[:14],
        lambda fields: [*fields[:13], b"\x01" * 32, *fields[14:]],
        lambda fields: [*fields[:5], b"", *fields[6:]],
        lambda fields: [*fields[:8], bytes(9), *fields[9:]],
        lambda fields: [*fields[:12], [], *fields[13:]],
        lambda fields: [*fields[:12], b"", *fields[13:]],
        lambda fields: [*fields[:12], rlp.encode([b"", b"", b"", b"", b""]), *fields[13:]],
        lambda fields: [*fields[:12], rlp.encode([b"", [], [], [], []]), *fields[13:]],
        lambda fields: [*fields[:12], bytes(96), bytes(32), *fields[14:]],
    ],
)
def test_what_is_no_sealed_header_is_refused(change: Any) -> None:
    with pytest.raises(HeaderMalformed):
        parse_header(rlp.encode(change(_fields())))


def test_a_seal_of_qbft_is_none_of_clique() -> None:
    """What a validator signed for one consensus can't be shown as another's: mixHash tells."""
    fields = _fields()
    extra: Any = rlp.decode(fields[12])
    signed = rlp.encode([*extra[:4], []])
    for mix in (ISTANBUL_DIGEST, bytes(32)):
        fields[12], fields[13] = signed + extra[4][0], mix
        try:
            sealers = set(parse_header(rlp.encode(fields)).sealers)
        except HeaderMalformed:
            continue
        assert not sealers & recorded("qbft").addresses


def test_the_recorded_files_say_where_they_come_from() -> None:
    said = (DIRECTORY / "README.md").read_text(encoding="utf-8")
    for path in sorted(Path(DIRECTORY).glob("*.json")):
        document = json.loads(path.read_text(encoding="ascii"))
        assert path.name in said
        assert document["engine"] in said
    assert isinstance(recorded("qbft"), Recorded)


class TestAMovedContract:
    """What is sealed is judged by the contract that is named, and by those before it only if they
    are named, too: no seal tells them."""

    NEWEST, BETWEEN, STRANGER = ("0x" + byte * 20 for byte in ("cd", "ef", "11"))

    def judged(self, emitter: str, *predecessors: str, contract: str = "") -> Reason | None:
        made = sealed(parse_bundle(BUNDLES[0]), KEYS[:3], emitter=emitter).encode()
        given = replace(
            trust(4), anchor_registry=contract or self.NEWEST, predecessors=predecessors
        )
        return verify(made, given).reason

    def test_an_old_anchor_needs_the_old_address(self) -> None:
        assert self.judged(REGISTRY) is Reason.UNTRUSTED_REGISTRY
        assert self.judged(REGISTRY, self.BETWEEN) is Reason.UNTRUSTED_REGISTRY
        assert self.judged(REGISTRY, REGISTRY) is None
        assert self.judged(REGISTRY, self.BETWEEN, REGISTRY) is None

    def test_what_was_signed_before_the_move_may_be_anchored_after_it(self) -> None:
        for emitter in (self.NEWEST, self.BETWEEN):
            assert self.judged(emitter, self.BETWEEN, REGISTRY) is None

    def test_no_other_contracts_event_counts(self) -> None:
        assert self.judged(self.STRANGER, REGISTRY) is Reason.EVENT_NOT_IN_RECEIPT
        # Nor a predecessor's for a checkpoint that names its successor.
        older = self.judged(self.BETWEEN, self.BETWEEN, contract=REGISTRY)
        assert older is Reason.EVENT_NOT_IN_RECEIPT
