"""`/v1/health`, `/v1/ready` and `/metrics`: for whoever runs the node."""

from __future__ import annotations

import ipaddress

import structlog
from fastapi import APIRouter, Request
from sqlalchemy import text
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from nodes.anchoring.queries import log_status
from nodes.api.auth import holds, identify
from nodes.api.dependencies import TheNode
from nodes.api.metrics import NodeMetrics
from nodes.api.node import ApiNode
from nodes.api.problems import is_ledger_away, is_timeout_of_query
from nodes.api.reads import snapshot
from nodes.api.schemas import Health, Readiness
from nodes.clock import to_datetime

router = APIRouter(tags=["operations"])
_UNSIGNED = text("SELECT count(*) FROM unsigned_answers")
log = structlog.get_logger(__name__)


@router.get("/v1/health")
async def get_health() -> Health:
    """The process is alive. Says nothing of what it depends on."""
    return Health(status="ok")


@router.get(
    "/v1/ready",
    response_model=Readiness,
    responses={503: {"model": Readiness, "description": "Not yet, or not at the moment."}},
)
def get_ready(node: TheNode) -> Response:
    """Whether the node can authorize: the database answers and the directory is known.

    The chain isn't asked: the node goes on without it.
    """
    checks = {
        "database": _database_answers(node),
        "directory": node.directory.member(node.settings.member_id) is not None,
    }
    ready = all(checks.values())
    return JSONResponse({"ready": ready, "checks": checks}, status_code=200 if ready else 503)


def _database_answers(node: ApiNode) -> bool:
    try:
        with snapshot(node.engine) as connection:
            connection.execute(text("SELECT 1 FROM chain_binding LIMIT 1"))
    except Exception as error:  # noqa: BLE001 - whatever it is, the node isn't ready
        log.warning("not ready", reason=type(error).__name__)
        return False
    return True


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {
            "description": "Prometheus exposition format",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        }
    },
)
async def get_metrics(node: TheNode, request: Request) -> Response:
    """Prometheus metrics: without a key from this machine, else with an API key."""
    if not _is_local(request):
        holds("reader")(await identify(request))
    metrics: NodeMetrics = request.app.state.metrics
    await run_in_threadpool(_show_log, node, metrics)
    return Response(metrics.text(), media_type="text/plain; version=0.0.4")


def _is_local(request: Request) -> bool:
    try:
        return ipaddress.ip_address(request.client.host if request.client else "").is_loopback
    except ValueError:
        return False


def _show_log(node: ApiNode, metrics: NodeMetrics) -> None:
    try:
        with snapshot(node.engine) as connection:
            status = log_status(connection)
            unsigned = connection.execute(_UNSIGNED).scalar_one()
    except Exception as error:
        # The other metrics are worth having just when the database is away.
        if not (is_ledger_away(error) or is_timeout_of_query(error)):
            raise
        return
    metrics.show_log(status, to_datetime(node.clock.now_ms()))
    metrics.show_unsigned(unsigned)
