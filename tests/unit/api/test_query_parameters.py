"""A query parameter that an endpoint doesn't have is refused, and that costs no schema."""

from __future__ import annotations

import asyncio

import httpx
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse

from nodes.api import openapi
from nodes.api.problems import Problem


def _shared(page: int = 1) -> int:
    return page


def _app() -> FastAPI:
    app = FastAPI(dependencies=[Depends(openapi.refuse_unknown_parameters)])

    @app.get("/things/{name}")
    async def things(name: str, colour: str = "", page: int = Depends(_shared)) -> str:
        return f"{name} {colour} {page}"

    @app.exception_handler(Problem)
    async def refused(_: Request, problem: Problem) -> JSONResponse:
        return JSONResponse({}, problem.status_code)

    return app


def test_only_what_an_endpoint_has_is_taken_and_no_schema_is_made_for_it() -> None:
    app = _app()

    async def statuses() -> list[int]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:
            queries = (
                "",
                "?colour=red",
                "?page=2&colour=red",
                "?color=red",
                "?name=x",
                "?page=1&page=2",
            )
            return [(await client.get(f"/things/box{query}")).status_code for query in queries]

    assert asyncio.run(statuses()) == [200, 200, 200, 422, 422, 422]
    assert app.openapi_schema is None
