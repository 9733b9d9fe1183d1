"""What a member did besides transactions, over its node's API."""

from __future__ import annotations

from nodes.anchoring.bundle import parse_bundle
from nodes.anchoring.leaf import decode_leaf, event_ref
from nodes.anchoring.model import LogIdentity
from nodes.anchoring.note import NoteSigner
from nodes.anchoring.operations.event_sealing import seal_events
from tests.integration.api.running import RunningNode, TwoNodes
from tests.integration.api.test_authorization import problem_of
from tests.integration.api.test_reads import anchor, get, purchase, refusal


def seal_and_anchor(node: RunningNode) -> None:
    settings = node.node.settings
    identity = LogIdentity(settings.member_id, 20_260, settings.anchor_registry)
    signer = NoteSigner(bytes(32))
    while batch := seal_events(node.node.engine, identity, signer, node.node.clock):
        anchor(node, batch.seq)


def test_events_are_listed_and_each_is_proven(nodes: TwoNodes) -> None:
    node, member = nodes.acquirer, nodes.acquirer.node.settings.member_id
    page = get(node, "/v1/events")
    first = page["items"][-1]
    assert first["anchor_state"] == "UNSEALED"
    path = f"/v1/events/{first['event_id']}/proof"
    assert problem_of(refusal(node, path), 409)["state"] == "UNSEALED"
    seal_and_anchor(node)
    items = get(node, "/v1/events")["items"]
    assert {item["anchor_state"] for item in items} == {"ANCHORED"}
    for item in items:
        with node.http("reader") as client:
            answer = client.get(f"/v1/events/{item['event_id']}/proof")
        bundle = parse_bundle(answer.content)
        assert decode_leaf(bundle.leaf).txid == event_ref(member, item["event_id"])
        assert bundle.index == item["log_index"]
        assert bundle.texts == {
            4: item["subject"].encode(),
            5: item["actor"].encode(),
            6: item["detail"].encode(),
        }
        assert 8 not in bundle.opening.disclosed


def test_events_are_found_by_kind_action_and_subject(nodes: TwoNodes) -> None:
    purchase(nodes, 500)
    every = get(nodes.issuer, "/v1/events", limit=500)["items"]
    cards = get(nodes.issuer, "/v1/events", kind="card")["items"]
    assert cards
    assert cards == [item for item in every if item["kind"] == "card"][:50]
    for name in ("action", "subject", "card_token"):
        value = cards[0][name]
        found = get(nodes.issuer, "/v1/events", limit=500, **{name: value})["items"]
        assert found == [item for item in every if item[name] == value]
        assert cards[0] in found


def test_pages_meet_every_event_once(nodes: TwoNodes) -> None:
    purchase(nodes, 100)
    purchase(nodes, 100)
    every = [item["event_id"] for item in get(nodes.issuer, "/v1/events", limit=500)["items"]]
    met, cursor = [], None
    while True:
        page = get(nodes.issuer, "/v1/events", limit=1, **({"cursor": cursor} if cursor else {}))
        met += [item["event_id"] for item in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert met == every
    assert len(every) > 1


def test_what_there_is_not_is_named(nodes: TwoNodes) -> None:
    assert problem_of(refusal(nodes.issuer, "/v1/events/999999/proof"), 404)["type"].endswith(
        "event-unknown"
    )
    problem_of(refusal(nodes.issuer, "/v1/events", kind="cards"), 422)
    problem_of(refusal(nodes.issuer, "/v1/events", subject="\x00"), 422)
    problem_of(refusal(nodes.issuer, "/v1/events", cursor="?"), 422)
