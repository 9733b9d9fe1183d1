"""The gateway's own bench, in small: every way of keys is measured, whatever the machine does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sandbox.bench.gateway_alone import run_gateway_bench
from sandbox.enrolled import ways

pytestmark = pytest.mark.timeout(300)


def test_every_way_of_keys_is_measured(tmp_path: Path) -> None:
    output = tmp_path / "figures.json"
    run_gateway_bench(tmp_path / "gateway", output, messages=300, sign_ons=20)
    written = json.loads(output.read_text())
    assert len(written["ways"]) == len(ways())
    for name, figure in written["ways"].items():
        assert figure["message_us"] > 0, name
        assert figure["messages_s"] > 0, name
        assert ("sign_on_ms" in figure) == ("dukpt" not in name)
    assert not (tmp_path / "gateway").exists()
