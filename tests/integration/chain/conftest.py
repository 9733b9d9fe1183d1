"""`evm`: the contracts on the embedded chain, and on the second engine where there is one.
`embedded`: the embedded chain alone, for what only it promises."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.factories.chain import ENGINES, ChainFixture, open_engine, start_chain


@pytest.fixture(scope="module", params=ENGINES)
def evm(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ChainFixture]:
    chain = open_engine(request.param, tmp_path_factory.mktemp("evm"))
    yield chain
    chain.stop()


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChainFixture]:
    chain = start_chain(tmp_path_factory.mktemp("embedded"))
    yield chain
    chain.stop()
