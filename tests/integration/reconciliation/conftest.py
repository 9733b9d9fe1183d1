"""The chain of this package's tests."""

from collections.abc import Iterator

import pytest

from tests.factories.chain import ChainFixture, start_chain


@pytest.fixture(scope="session")
def log_chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChainFixture]:
    chain = start_chain(tmp_path_factory.mktemp("log-chain"))
    yield chain
    chain.stop()
