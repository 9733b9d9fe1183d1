"""A real chain for the session, unless the whole suite has one already."""

from collections.abc import Iterator

import pytest

from tests.conftest import NodeDatabase
from tests.factories.chain import ChainFixture, start_chain
from tests.factories.evidence import LogMember, make_member


@pytest.fixture(scope="session")
def log_chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChainFixture]:
    chain = start_chain(tmp_path_factory.mktemp("log-chain"))
    yield chain
    chain.stop()


@pytest.fixture
def member(database: NodeDatabase, log_chain: ChainFixture) -> LogMember:
    """An acquirer with an empty log."""
    return make_member(database, log_chain, ("acquirer",))
