"""GET /health and GET /metrics, for operators and for the launcher's readiness gate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from aiohttp import web

from gateway.metrics import Metrics


class StatusServer:
    """A small HTTP server beside the POS port, on the same event loop."""

    def __init__(
        self,
        metrics: Metrics,
        health: Callable[[], Mapping[str, object]],
        routes: Iterable[web.RouteDef] = (),
    ) -> None:
        self._routes = tuple(routes)
        self._metrics = metrics
        self._health = health
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; the port that was bound."""
        app = web.Application(client_max_size=1024)
        app.router.add_get("/health", self._get_health)
        app.router.add_get("/metrics", self._get_metrics)
        app.router.add_routes(self._routes)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        bound: int = self._runner.addresses[0][1]
        return bound

    async def close(self) -> None:
        """Stop listening and end open requests."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _get_health(self, _: web.Request) -> web.Response:
        return web.json_response(dict(self._health()))

    async def _get_metrics(self, _: web.Request) -> web.Response:
        return web.Response(
            body=self._metrics.text(),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )
