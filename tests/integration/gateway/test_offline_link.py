"""Offline payments from a terminal's bytes to both books: key and reserve over the API, upload by
0220, the repeat byte for byte, the clone, and what the terminal downloads after it."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from nodes.acquiring.fleet.model import Parameters
from nodes.acquiring.offline import decode_hotlist_page, decode_parameters
from nodes.api.client import NodeRefused
from nodes.authorization.store import hotlist
from nodes.crypto.offline_record import RecordChain, key_id_of, public_key_of, sign_as_card
from nodes.reconciliation.invariants import check_invariants
from sandbox.terminal import Reply, Terminal
from tests.conftest import Cluster
from tests.factories.network import ACQUIRER, ISSUER, TERMINAL
from tests.integration.api.running import MERCHANT_MEMBER, TwoNodes, run, two_nodes
from tests.integration.gateway.fronting import download, front, plastic
from tests.integration.gateway.running import play

NOW_MS = 1_795_400_000_000


@pytest.fixture(scope="module")
def nodes(cluster: Cluster) -> Iterator[TwoNodes]:
    with two_nodes(cluster) as both:
        yield both


def test_a_card_pays_offline_and_its_copy_is_found(nodes: TwoNodes) -> None:
    card, private = nodes.network.card(50_000), ec.generate_private_key(ec.SECP256R1())
    public, token = public_key_of(private), card.card_token.hex()
    with nodes.issuer.http("operator") as http:
        made = http.post(f"/v1/cards/{token}/offline-key", json={"public_key": public.hex()})
        assert made.json() == {"card_key_id": key_id_of(public).hex()}
        reserve = {"amount": 20_000, "currency": "CNY"}
        for _ in range(2):
            done = http.post(
                f"/v1/cards/{token}/offline-reserve", json=reserve,
                headers={"Idempotency-Key": "reserve-1"},
            )  # fmt: skip
            assert done.status_code == 201
            assert (done.json()["reserved"], done.json()["available"]) == (20_000, 30_000)
        over = http.post(
            f"/v1/cards/{token}/offline-reserve", json=reserve | {"amount": 90_000},
            headers={"Idempotency-Key": "reserve-2"},
        )  # fmt: skip
        assert (over.status_code, over.json()["type"].rpartition(":")[2]) == (
            409,
            "over-reserve-limit",
        )

    async def scenario() -> None:
        async with front(nodes) as (_, [pos]):
            chain = RecordChain(TERMINAL, int(pos.batch))

            async def tell(pos: Terminal, amount: int, atc: int) -> Reply:
                message = pos.request("0220", "000000", plastic(card), amount)
                message.text[22] = "052"
                message.binary[57] = chain.append(
                    card_key_id=key_id_of(public), atc=atc, amount=amount, currency="CNY",
                    nonce=bytes(8), at_ms=NOW_MS, sign=lambda m: sign_as_card(private, m),
                )  # fmt: skip
                return await pos.exchange(message)

            first = await tell(pos, 7_000, 1)
            assert (first.mti, first.code) == ("0230", "00")
            assert (await pos.resend(first)).response == first.response
            chain.append(  # this one never arrives
                card_key_id=key_id_of(public), atc=2, amount=1, currency="CNY", nonce=bytes(8),
                at_ms=NOW_MS, sign=lambda m: sign_as_card(private, m),
            )  # fmt: skip
            copied = await tell(pos, 9_000, 1)
            assert copied.code == "00"
            assert (await pos.resend(copied)).response == copied.response
            assert nodes.network.balance(card) == 30_000
            with nodes.acquirer.http("reader") as http:
                [chained] = http.get("/v1/offline/chains").json()["items"]
                assert (chained["last_seq"], chained["lacking"]) == (3, 1)
                path = f"/v1/offline/chains/{TERMINAL}/{chained['epoch']}/gaps"
                assert http.get(path).json() == {"items": [{"first": 2, "last": 2}], "next": None}
            with nodes.issuer.http("reader") as http:
                [alarm] = http.get("/v1/offline/alarms", params={"kind": "clone"}).json()["items"]
                assert (alarm["terminal_id"], alarm["atc"]) == (TERMINAL, 1)
            await _downloads(nodes, pos, key_id_of(public))

    play(scenario)
    for database in (nodes.network.issuer_db, nodes.network.acquirer_db):
        assert check_invariants(database.owner_engine) == []


async def _downloads(nodes: TwoNodes, pos: Terminal, card_key_id: bytes) -> None:
    empty = decode_hotlist_page((await download(pos, "990002", 0)).binary[56])
    assert (empty.entries, empty.as_of_ms) == ((), 0), "nobody has asked the issuer yet"
    client = nodes.issuer.client(ACQUIRER)
    try:
        entries = await client.hotlist(0)
        assert [(e.card_key_id, e.listed, e.reason) for e in entries] == [
            (card_key_id, True, "clone")
        ]
        assert await client.hotlist(entries[-1].version) == []
    finally:
        await client.close()
    with psycopg.connect(nodes.network.acquirer_db.dsn) as connection:
        rows = [(e.version, e.card_key_id, e.listed, e.reason, e.at_ms) for e in entries]
        hotlist.copy_entries(connection, ISSUER, rows)
        hotlist.copy_entries(connection, ISSUER, rows)  # a page that comes twice
        hotlist.checked(connection, ISSUER, NOW_MS)
    page = decode_hotlist_page((await download(pos, "990002", 0)).binary[56])
    assert page.entries == ((card_key_id, True),)
    assert (page.as_of_ms, page.more) == (NOW_MS, False)
    after = decode_hotlist_page((await download(pos, "990002", page.version)).binary[56])
    assert (after.entries, after.version) == ((), page.version)
    # A version that nobody gave, beyond what four bytes hold: the list from its beginning.
    for unknown in (page.version + 1, 2**32, 9_999_999_999):
        reply = await download(pos, "990002", unknown)
        assert (reply.code, decode_hotlist_page(reply.binary[56])) == ("00", page)
    version, parameters = decode_parameters((await download(pos, "990003")).binary[56])
    assert (version, parameters) == (0, Parameters())


def test_the_hotlist_is_for_acquirers_alone(nodes: TwoNodes) -> None:
    for role in ("reader", "admin", None):
        with nodes.issuer.http(role) as http:
            assert http.get("/v1/offline/hotlist").status_code in (401, 403)

    async def merchant() -> int:
        client = nodes.issuer.client(MERCHANT_MEMBER)
        try:
            await client.hotlist(0)
        except NodeRefused as refused:
            return refused.status
        finally:
            await client.close()
        return 200

    assert run(merchant()) == 403
