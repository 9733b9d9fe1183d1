"""The console's ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import FastAPI
from jinja2_fragments.fastapi import Jinja2Blocks
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from console import errors
from console.access import Access
from console.chain import ChainReader
from console.gate import Gate
from console.institutions import Institutions
from console.settings import ConsoleSettings
from console.templating import STATIC, make_templates
from console.views import (
    access,
    accounts,
    adjustments,
    anchors,
    authorities,
    batches,
    breaks,
    closes,
    disputes,
    exports,
    front_keys,
    logs,
    members,
    offline,
    overview,
    printing,
    products,
    proofs,
    receipts,
    refusals,
    rule_changes,
    rules,
    settlements,
    sign_in,
    simulations,
    terminal_forms,
    terminals,
    transactions,
    virtual_pos,
    webhooks,
)
from nodes.clock import Clock, SystemClock


@dataclass(frozen=True)
class Console:
    """What the views work with, in `app.state.console`."""

    settings: ConsoleSettings
    clock: Clock
    access: Access
    institutions: Institutions
    chain: ChainReader
    templates: Jinja2Blocks


class _Static(StaticFiles):
    """Static files; a file asked for by its content's version never changes."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        versioned = scope["query_string"].startswith(b"v=")
        response.headers["Cache-Control"] = (
            "public, max-age=31536000, immutable" if versioned else "no-cache"
        )
        return response


def create_app(settings: ConsoleSettings, clock: Clock | None = None) -> FastAPI:
    """The console for these settings. Connections are made when it starts to serve."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        console = Console(
            settings=settings,
            clock=clock or SystemClock(),
            access=Access(settings, clock or SystemClock()),
            institutions=Institutions(settings),
            chain=ChainReader(settings),
            templates=make_templates(),
        )
        app.state.console = console
        yield
        await console.institutions.close()
        console.access.close()

    app = FastAPI(
        title="Countersign console",
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
    )
    app.mount("/static", GZipMiddleware(_Static(directory=STATIC)), name="static")

    @app.get("/health")
    async def health() -> Response:
        return PlainTextResponse("ok\n")

    for view in (
        sign_in,
        access,
        overview,
        transactions,
        exports,
        printing,
        accounts,
        simulations,
        rule_changes,
        terminal_forms,
        terminals,
        virtual_pos,
        authorities,
        front_keys,
        webhooks,
        refusals,
        offline,
        rules,
        products,
        adjustments,
        disputes,
        batches,
        anchors,
        members,
        logs,
        closes,
        breaks,
        settlements,
        proofs,
        receipts,
    ):
        app.include_router(view.router)
    errors.install(app)
    app.add_middleware(Gate, hosts=settings.hosts, secure=settings.secure)
    return app
