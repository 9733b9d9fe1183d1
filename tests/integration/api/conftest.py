"""Nodes that all tests of a module share: each test makes its own cards and terminals' messages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import Cluster, NodeDatabase
from tests.factories.chain import ChainFixture, start_chain
from tests.factories.evidence import LogMember, make_member
from tests.integration.api.running import TwoNodes, two_nodes


@pytest.fixture(scope="module")
def nodes(cluster: Cluster) -> Iterator[TwoNodes]:
    with two_nodes(cluster, receive_timeout_s=1.0) as both:
        yield both


@pytest.fixture(scope="session")
def log_chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChainFixture]:
    chain = start_chain(tmp_path_factory.mktemp("api-log-chain"))
    yield chain
    chain.stop()


@pytest.fixture
def member(database: NodeDatabase, log_chain: ChainFixture) -> LogMember:
    """An acquirer with an empty log."""
    return make_member(database, log_chain, ("acquirer",))
