"""SQL of offline payments at the issuer: cards' keys, and which counters were used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import psycopg

from nodes.authorization.model import Kind, Outcome
from nodes.authorization.rules import online_use
from nodes.authorization.state import Paid, Progress
from nodes.emv.chip_data import amount_of

Connection = psycopg.Connection[Any]


def keys_of(connection: Connection, key_ids: Iterable[bytes]) -> dict[bytes, tuple[bytes, bytes]]:
    """By key id: the card's token and the public key."""
    rows = connection.execute(
        "SELECT card_key_id, card_token, public_key FROM card_offline_keys"
        " WHERE card_key_id = ANY(%b)",
        (sorted(set(key_ids)),),
    ).fetchall()
    return {key_id: (token, public_key) for key_id, token, public_key in rows}


def posted(
    connection: Connection, counters: Iterable[tuple[bytes, int]]
) -> dict[tuple[bytes, int], tuple[bytes, ...]]:
    """The hashes of the records that were posted under these (key id, ATC), the first's first."""
    wanted = sorted(set(counters))
    rows = connection.execute(
        "SELECT card_key_id, atc, record_hash FROM"
        " (SELECT card_key_id, atc, record_hash, 0 AS place FROM offline_records"
        "  WHERE side = 'issuer' UNION ALL"
        "  SELECT card_key_id, atc, record_hash, 1 FROM offline_clones) AS r"
        " JOIN unnest(%s::bytea[], %s::bigint[]) AS w (card_key_id, atc)"
        " USING (card_key_id, atc) ORDER BY place",
        ([key_id for key_id, _ in wanted], [atc for _, atc in wanted]),
    ).fetchall()
    found: dict[tuple[bytes, int], tuple[bytes, ...]] = {}
    for key_id, atc, record_hash in rows:
        found[key_id, atc] = (*found.get((key_id, atc), ()), record_hash)
    return found


def paid_under(
    connection: Connection, counters: Iterable[tuple[bytes, int]]
) -> dict[tuple[bytes, int], tuple[Paid, ...]]:
    """By (card token, ATC) what it was used for: the advices that were posted under it, those
    with chip data and those of which only a record tells, and the chip's online request."""
    wanted = sorted(set(counters))
    rows = connection.execute(
        "WITH w AS (SELECT * FROM unnest(%s::bytea[], %s::bigint[]) AS w (card_token, atc)),"
        " r AS (SELECT w.card_token, r.* FROM w JOIN card_offline_keys AS k USING (card_token)"
        "  JOIN (SELECT card_key_id, atc, terminal_id, amount, currency, txid"
        "   FROM offline_records WHERE side = 'issuer' UNION ALL SELECT card_key_id, atc,"
        "   terminal_id, amount, currency, txid FROM offline_clones) AS r"
        "  ON r.card_key_id = k.card_key_id AND r.atc = w.atc)"
        " SELECT w.card_token, c.atc, c.cryptogram || c.covered, c.genuine,"
        "  EXISTS (SELECT FROM r WHERE r.txid = c.txid), t.terminal_id, t.amount, t.currency"
        "  FROM w JOIN chip_records AS c USING (card_token, atc) JOIN transactions AS t"
        "  ON t.txid = c.txid AND t.side = 'issuer' AND t.kind = 'advice'"
        "  AND t.outcome = 'approved'"
        " UNION ALL SELECT card_token, atc, NULL, true, true, terminal_id, amount, currency FROM r"
        "  WHERE NOT EXISTS (SELECT FROM chip_records AS c WHERE c.txid = r.txid)",
        ([token for token, _ in wanted], [atc for _, atc in wanted]),
    ).fetchall()
    found: dict[tuple[bytes, int], tuple[Paid, ...]] = {}
    for token, *columns in rows:
        paid = Paid(*columns)
        found[token, paid.atc] = (*found.get((token, paid.atc), ()), paid)
    for token, paid in _asked_online(connection, wanted):
        found[token, paid.atc] = (*found.get((token, paid.atc), ()), paid)
    return found


def _asked_online(
    connection: Connection, counters: list[tuple[bytes, int]]
) -> Iterator[tuple[bytes, Paid]]:
    """The requests that came with a genuine cryptogram of these (card token, ATC), but those that
    were refused for the counter itself."""
    rows = connection.execute(
        "SELECT c.card_token, c.atc, c.cryptogram || c.covered, t.terminal_id, t.amount,"
        " t.currency, t.txid, t.kind, t.outcome, p.authorized, p.captured, p.refunded, p.reversed,"
        " p.ended FROM unnest(%s::bytea[], %s::bigint[]) AS w (card_token, atc)"
        " JOIN chip_records AS c USING (card_token, atc)"
        " JOIN transactions AS t ON t.txid = c.txid AND t.side = 'issuer'"
        " LEFT JOIN LATERAL (SELECT * FROM payment_progress AS p WHERE p.txid = t.txid"
        "  AND p.shard = t.shard ORDER BY version DESC LIMIT 1) AS p ON true"
        " WHERE c.genuine AND t.kind <> 'advice'"
        " AND t.outcome NOT IN ('cryptogram_wrong', 'chip_data_invalid')",
        ([token for token, _ in counters], [atc for _, atc in counters]),
    ).fetchall()
    for token, atc, chip, terminal_id, amount, currency, txid, kind, outcome, *sums in rows:
        progress = Progress(*sums) if sums[0] is not None else Progress(amount)
        use = online_use(Kind(kind), Outcome(outcome), progress)
        paid = Paid(atc, chip, True, False, terminal_id, amount_of(chip[8:]), currency, use, txid)
        yield token, paid


def insert_key(
    connection: Connection,
    key_id: bytes,
    card_token: bytes,
    issuer: str,
    public_key: bytes,
    actor: str,
    at_ms: int,
) -> bool:
    """Register a card's key; False if the key is another card's."""
    connection.execute(
        "INSERT INTO card_offline_keys (card_key_id, card_token, issuer, public_key,"
        " registered_by, registered_ms) VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (key_id, card_token, issuer, public_key, actor, at_ms),
    )
    known = keys_of(connection, [key_id])
    return known.get(key_id) == (card_token, public_key)


def key_of_card(connection: Connection, card_token: bytes) -> bytes | None:
    """The id of a card's newest key."""
    row = connection.execute(
        "SELECT card_key_id FROM card_offline_keys WHERE card_token = %s"
        " ORDER BY registered_ms DESC LIMIT 1",
        (card_token,),
    ).fetchone()
    return None if row is None else bytes(row[0])
