"""The made-up node answers in the shapes of the real one: no field more, none less."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from nodes.api import schemas
from tests.browser.fake_node import API_KEY
from tests.browser.network import ConsoleNetwork


def _same_shape(model: type[BaseModel], answer: dict[str, Any]) -> None:
    assert set(answer) == set(model.model_fields)
    model.model_validate(answer)


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/v1/overview", schemas.Overview),
        ("/v1/transactions/{txid}", schemas.TransactionDetail),
        ("/v1/batches/1", schemas.BatchDetail),
    ],
)
def test_documents(network: ConsoleNetwork, path: str, model: type[BaseModel]) -> None:
    _same_shape(model, _ask(network, path))


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/v1/transactions", schemas.TransactionItem),
        ("/v1/batches", schemas.BatchItem),
        ("/v1/batches/1/transactions", schemas.TransactionItem),
        ("/v1/members", schemas.MemberItem),
    ],
)
def test_lists(network: ConsoleNetwork, path: str, model: type[BaseModel]) -> None:
    answer = _ask(network, path)
    assert answer["items"]
    for item in answer["items"]:
        _same_shape(model, item)


def _ask(network: ConsoleNetwork, path: str) -> dict[str, Any]:
    url = network.servers["aurora"].url + path.replace("{txid}", network.anchored()["txid"])
    answer: dict[str, Any] = httpx.get(url, headers={"Authorization": f"Bearer {API_KEY}"}).json()
    return answer
