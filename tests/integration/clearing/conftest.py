"""Two institutions a test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Cluster
from tests.integration.clearing.institutions import Pair, institutions


@pytest.fixture
def pair(cluster: Cluster, tmp_path: Path) -> Iterator[Pair]:
    (tmp_path / "chain").mkdir()
    with institutions(cluster, tmp_path / "chain") as made:
        yield made
