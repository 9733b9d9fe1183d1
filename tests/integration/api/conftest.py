"""Nodes that all tests of a module share: each test makes its own cards and terminals' messages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import Cluster
from tests.integration.api.running import TwoNodes, two_nodes


@pytest.fixture(scope="module")
def nodes(cluster: Cluster) -> Iterator[TwoNodes]:
    with two_nodes(cluster, receive_timeout_s=1.0) as both:
        yield both
