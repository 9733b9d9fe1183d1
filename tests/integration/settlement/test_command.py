"""`countersign settle`: what it prints, and its exit status."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner, Result

from nodes.settlement.operations.signing import propose
from sandbox.cli import make_app
from tests.integration.clearing.institutions import KEY
from tests.integration.clearing.test_day_close import PAID
from tests.integration.clearing.test_reconcile_command import described
from tests.integration.settlement.conftest import Make
from tests.integration.settlement.statements import as_owner, close_id, context, statements


def run(file: Path, *more: str) -> Result:
    return CliRunner().invoke(make_app(), ["settle", "--network", str(file), *more])


def test_a_day_on_its_way_settled_and_then_changed(settling: Make, tmp_path: Path) -> None:
    pair = settling(settlement="manual")
    file = described(pair, tmp_path)
    assert run(file).exit_code == 2
    pair.both(4, **PAID)
    pair.work()
    waiting = run(file)
    assert (waiting.exit_code, "WAITS" in waiting.output) == (2, True)
    for one in (pair.acquirer, pair.issuer):
        one.jobs._settlement = context(one).__class__(**vars(context(one)) | {"automatic": True})
    pair.work()
    [mine] = statements(pair.acquirer)
    settled = run(file, "--date", str(KEY.business_date))
    assert (settled.exit_code, "SETTLED" in settled.output) == (0, True)
    [document] = json.loads(run(file, "--json").output)
    books = document["books"]
    assert set(books) == {KEY.acquirer, KEY.issuer}
    for book in books.values():
        assert book["settlement_id"] == mine.settlement_id.hex()
        assert book["signed"] == [KEY.acquirer, KEY.issuer]
    assert run(file, "--date", "2020-01-01").exit_code == 2
    as_owner(pair.issuer, "UPDATE settlements SET agrees = false")
    differs = run(file)
    assert (differs.exit_code, "DIFFERS" in differs.output) == (1, True)
    assert propose(context(pair.acquirer), close_id(pair.acquirer))[1] is None
