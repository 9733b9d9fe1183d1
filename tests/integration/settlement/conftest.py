"""Two institutions that settle."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Cluster
from tests.integration.clearing.institutions import Pair, institutions

Make = Callable[..., Pair]


@pytest.fixture
def settling(cluster: Cluster, tmp_path: Path) -> Iterator[Make]:
    """Makes two institutions, with these terms of the chain's contracts and settings."""
    (tmp_path / "chain").mkdir()
    with ExitStack() as stack:

        def make(**changes: Any) -> Pair:
            return stack.enter_context(
                institutions(cluster, tmp_path / "chain", settles=True, **changes)
            )

        yield make


@pytest.fixture
def pair(settling: Make) -> Pair:
    """Two institutions with ordinary terms."""
    return settling()
