"""Two institutions whose days are closed on a real chain, with breaks of every class, and a console
before their nodes."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import msgspec

from console.app import create_app
from console.settings import ConsoleSettings
from nodes.chain.deploy import Terms
from nodes.chain.signer import LocalSigner
from tests.browser.fake_node import Server
from tests.browser.network import people
from tests.conftest import Cluster
from tests.factories.ledger import ACQUIRER, ISSUER
from tests.integration.api.running import KEYS
from tests.integration.clearing.institutions import DAY, Pair, institutions
from tests.integration.clearing.test_day_close import PAID, plant, settle_by_hand

#: Equal days before the broken one, by how many days before and how many transactions.
QUIET_DAYS = {3: 22, 4: 31, 5: 12, 6: 40, 7: 18}
CORRECTED_DAY = DAY - timedelta(days=2)
#: Equal lists whose totals differ.
TOTALS_DAY = DAY - timedelta(days=8)
OPEN_DAY = DAY + timedelta(days=2)


@dataclass
class Closing:
    """The console, the two institutions, and what happened to them."""

    url: str = ""
    pair: Pair | None = None
    refs: dict[str, str] = field(default_factory=dict)  # class of a break -> a case of it

    judges: list[LocalSigner] = field(
        default_factory=lambda: [LocalSigner(secrets.token_bytes(32)) for _ in range(3)]
    )
    statements: dict[date, str] = field(default_factory=dict)  # by day

    def home(self, member_id: str = ACQUIRER) -> str:
        """An institution's pages."""
        return f"{self.url}/i/{member_id}"

    def break_anew(self, day: int) -> str:
        """One more transaction that only the acquirer has, on a day of its own; its case."""
        assert self.pair is not None
        date = DAY + timedelta(days=day)
        self.pair.both(3, **PAID, business_date=date)
        mine, _ = self.pair.pair(**PAID, business_date=date)
        self.pair.acquirer.write(mine)
        self.work()
        file = next(f for f in self.pair.acquirer.cases() if f.found["txid"] == mine.txid)
        ref: str = file.case.break_ref.hex()
        return ref

    def work(self) -> None:
        """Let both workers do what there is to do."""
        assert self.pair is not None
        with ThreadPoolExecutor(1) as thread:
            thread.submit(self.pair.work).result()

    def people_of(self) -> list[dict[str, Any]]:
        """An operator of each institution, with a key of their own at its node."""
        known = people()[0]["password_argon2"]
        return [
            {
                "username": name,
                "password_argon2": known,
                "role": "operator",
                "members": [member],
                "node_keys": {member: KEYS[key]},
            }
            for name, member, key in (
                ("mara", ACQUIRER, "operator"),
                ("ivan", ISSUER, "admin"),
            )
        ]


@contextmanager
def closing_network(cluster: Cluster, directory: Path) -> Iterator[Closing]:
    """Start chain and nodes, let the days be closed, and serve a console before them.

    In a thread of its own: Playwright's loop runs in this one.
    """
    (directory / "chain").mkdir()
    made = Closing()
    with ThreadPoolExecutor(1) as thread:
        terms = Terms(arbiters=tuple(judge.address for judge in made.judges), arbiter_threshold=2)
        context = institutions(
            cluster, directory / "chain", terms=terms, settles=True, settlement="manual"
        )
        pair = thread.submit(context.__enter__).result()
        made.pair = pair
        try:
            thread.submit(_days, made, pair).result()
            server = Server(create_app(_settings(made, pair, directory))).start()
            made.url = server.url
            try:
                yield made
            finally:
                server.stop()
        finally:
            thread.submit(context.__exit__, None, None, None).result()


def _days(made: Closing, pair: Pair) -> None:
    """Quiet days, a broken and corrected one, a day with a break of every class, an open one."""
    for before, count in QUIET_DAYS.items():
        pair.both(count, business_date=DAY - timedelta(days=before))
    pair.both(9, business_date=CORRECTED_DAY)
    mine, _ = pair.pair(**PAID, business_date=CORRECTED_DAY)
    pair.acquirer.write(mine)
    pair.work()
    settle_by_hand(pair, pair.acquirer.cases())
    pair.work()
    for before, act in ((3, "countersign"), (4, "propose")):
        _settle(made, pair, DAY - timedelta(days=before), act)
    pair.both(6, business_date=TOTALS_DAY)
    mine, theirs = pair.pair(**PAID, business_date=TOTALS_DAY)
    # Such a row is never sealed: from here on the acquirer's log stands still.
    pair.acquirer.write(msgspec.structs.replace(mine, salt_fin=bytes(32)))
    pair.issuer.write(theirs)
    plant(pair)
    pair.work()
    for file in pair.acquirer.cases():
        if file.case.state == "open":
            made.refs[file.case.kind.value] = file.case.break_ref.hex()
    mine, _ = pair.pair(**PAID, business_date=OPEN_DAY)
    pair.acquirer.write(mine)
    pair.acquirer.jobs.close()
    pair.acquirer.jobs.post()


def _settle(made: Closing, pair: Pair, day: date, act: str) -> None:
    """A statement of a day's close, proposed by the acquirer; countersigned if `act` says so."""
    with pair.acquirer.api.http("operator") as http:
        [close] = http.get("/v1/closes", params={"business_date": str(day)}).json()["items"]
        answer = http.post(
            "/v1/settlements",
            json={"close_id": close["close_id"]},
            headers={"Idempotency-Key": f"propose-{day}"},
        )
        assert answer.status_code == 202, answer.text
    pair.work()
    with pair.issuer.api.http("operator") as http:
        query = {"business_date": str(day)}
        [statement] = http.get("/v1/settlements", params=query).json()["items"]
        number = statement["settlement_id"]
        made.statements[day] = number
        if act == "countersign":
            answer = http.post(
                f"/v1/settlements/{number}/countersign",
                json={},
                headers={"Idempotency-Key": f"countersign-{day}"},
            )
            assert answer.status_code == 202, answer.text
            pair.work()


def _settings(made: Closing, pair: Pair, directory: Path) -> ConsoleSettings:
    entries = [
        {
            "member_id": one.member_id,
            "name": name,
            "roles": [role],
            "api_url": one.api.url,
            "api_key": KEYS["reader"],
        }
        for one, name, role in (
            (pair.acquirer, "Meridian Acquiring", "acquirer"),
            (pair.issuer, "Aurora Bank", "issuer"),
        )
    ]
    known = people()
    users = [known[0], known[1] | {"members": [ISSUER, ACQUIRER]}, *made.people_of()]
    return ConsoleSettings.model_validate(
        {
            "port": 8080,
            "secret": secrets.token_hex(32),
            "nodes": entries,
            "users": users,
            "rpc_url": pair.chain.rpc_url,
            "anchor_registry": pair.chain.anchor_registry,
            "member_registry": pair.chain.member_registry,
            "close_registry": pair.chain.close_registry,
            "settlement_registry": pair.chain.settlement_registry,
            "omission_registry": pair.chain.omission_registry,
            "state_file": directory / "console.sqlite",
        }
    )
