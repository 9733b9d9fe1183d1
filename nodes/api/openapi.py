"""The OpenAPI schema: FastAPI's, and the batch endpoints that FastAPI doesn't serve.

The batch endpoints' components are made from the very structs that decode them, so the schema
can't say anything else than the code does.
"""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.dependencies.utils import get_flat_params
from fastapi.openapi.utils import get_openapi
from fastapi.params import Query
from fastapi.routing import APIRoute

from nodes.api import hot
from nodes.api.client import FeedPage
from nodes.api.problems import MEDIA_TYPE, TYPE_PREFIX, Problem
from nodes.authorization.model import (
    AuthorizationAnswers,
    AuthorizationBatch,
    TerminalAnswers,
    TerminalBatch,
)
from nodes.authorization.services import ServiceAnswers, ServiceBatch

_PUBLIC = {
    "/v1/health",
    "/v1/ready",
    "/checkpoint",
    "/tile/{level}/{place}",
    "/v1/receipts/{txid}/proof",
    "/v1/receipts/{txid}/roots",
    "/v1/receipts/claims",
    "/v1/receipts/claims/{claim_id}",
}
_MEMBERS_ONLY = {
    "/v1/feed",
    "/v1/comparisons",
    "/v1/case-events",
    "/v1/case-steps",
    "/v1/offline/hotlist",
}
_GATEWAYS_ONLY = {
    "/v1/front/key",
    "/v1/front/jtis",
    "/v1/front/orders",
    "/v1/front/orders/read",
    "/v1/front/orders/claim",
    "/v1/terminals/changes",
    "/v1/terminals/reports",
}
_MEMBERS_TOO = {
    "/v1/members",
    "/v1/info",
    "/v1/log/checkpoint",
    "/v1/log/entries",
    "/v1/log/consistency",
    "/v1/log/inclusion",
    "/v1/transactions/{txid}/proof",
    "/tile/entries/{place}",
}
_BEARER: dict[str, list[str]] = {"apiKey": []}
_SIGNATURE: dict[str, list[str]] = {"messageSignature": []}

#: What any endpoint may answer, by status.
PROBLEMS: dict[int | str, str] = {
    400: "Not a well-formed request.",
    401: "No credential, or a wrong one.",
    403: "The caller may not do this.",
    404: "There is no such thing here.",
    408: "The body came too slowly.",
    409: "It contradicts what is recorded.",
    413: "The body is too large.",
    415: "The body is not application/json.",
    422: "A value is missing, wrong or refused.",
    429: "Too many at once; see Retry-After.",
    503: "Not available at the moment; see Retry-After.",
}
DESCRIPTION = """\
The API of one institution's node. Amounts are integers of minor units beside an ISO 4217 currency;
bytes are lower-case hex (base64 in the batch endpoints and the feed); moments are RFC 3339, UTC.
Every refusal is a problem document (RFC 9457). See docs/node-api.md.
"""


def problem_responses() -> dict[int | str, dict[str, Any]]:
    """The refusals, as FastAPI wants them."""
    return {
        status: {
            "description": text,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status, text in PROBLEMS.items()
    }


def schema_of(app: FastAPI) -> dict[str, Any]:
    """The whole schema; made once."""
    if app.openapi_schema is None:
        app.openapi_schema = _made(app)
    return app.openapi_schema


async def refuse_unknown_parameters(request: Request) -> None:
    """A dependency: Problem 422 for a query parameter that the endpoint doesn't have.

    A misspelt filter would otherwise select everything.
    """
    sent = request.query_params.keys()
    if not sent:
        return
    if sent - _query_parameters(request.scope.get("route")):
        raise Problem(422, "parameter-unknown", "A query parameter is not of this endpoint.")
    if len(request.query_params.multi_items()) != len(sent):
        raise Problem(422, "parameter-repeated", "A query parameter is there twice.")


def _query_parameters(route: object) -> frozenset[str]:
    """The names of a route's query parameters.

    Not from the schema: to make all of it takes a second, in which no payment would be answered.
    """
    if not isinstance(route, APIRoute):
        return frozenset()
    fields = get_flat_params(route.dependant)
    return frozenset(field.alias for field in fields if isinstance(field.field_info, Query))


def _made(app: FastAPI) -> dict[str, Any]:
    schema = get_openapi(
        title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes
    )
    components = schema.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas["Problem"] = _problem_schema()
    _, structs = msgspec.json.schema_components(
        (
            TerminalBatch,
            TerminalAnswers,
            AuthorizationBatch,
            AuthorizationAnswers,
            ServiceBatch,
            ServiceAnswers,
            FeedPage,
        ),
        ref_template="#/components/schemas/{name}",
    )
    for name in ("TerminalBatch", "AuthorizationBatch", "ServiceBatch"):
        structs[name]["properties"]["requests"] |= {"minItems": 1, "maxItems": hot.MAX_REQUESTS}
        structs[name]["additionalProperties"] = False
    for name in ("TerminalRequest", "AuthorizationRequest", "ServiceRequest"):
        structs[name]["additionalProperties"] = False
    schemas.update(structs)
    components["securitySchemes"] = {
        "apiKey": {"type": "http", "scheme": "bearer", "description": "An API key of this node."},
        "messageSignature": {
            "type": "apiKey",
            "in": "header",
            "name": "Signature",
            "description": "RFC 9421, Ed25519; with Signature-Input and Content-Digest.",
        },
    }
    paths = schema["paths"]
    for path, methods in paths.items():
        for operation in methods.values():
            operation["security"] = _security(path)
    paths[hot.TERMINAL_REQUESTS] = {
        "post": _batch_operation("Authorize a batch of terminals' requests", "gateways", "Terminal")
    }
    paths[hot.TERMINAL_SERVICES] = {
        "post": _batch_operation(
            "Close terminals' batches, take uploads, give downloads", "gateways", "Service"
        )
    }
    paths[hot.AUTHORIZATIONS] = {
        "post": _batch_operation(
            "Decide a batch of an acquirer's requests", "acquirers", "Authorization"
        )
    }
    return schema


def _security(path: str) -> list[dict[str, list[str]]]:
    if path in _PUBLIC:
        return []
    if path in _MEMBERS_ONLY or path in _GATEWAYS_ONLY:
        return [_SIGNATURE]
    if path == "/metrics":
        return [{}, _BEARER]
    return [_BEARER, _SIGNATURE] if path in _MEMBERS_TOO else [_BEARER]


def _batch_operation(summary: str, callers: str, name: str) -> dict[str, Any]:
    def json_of(schema: str) -> dict[str, Any]:
        return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}

    refusals = problem_responses() | {
        504: problem_responses()[503]
        | {"description": "What became of it is unknown: send the identical batch again."}
    }
    return {
        "tags": ["authorization"],
        "summary": summary,
        "description": f"For {callers}, signed; the answer is signed too. One answer a request, in"
        " the same order. A repeated request gets the stored answer.",
        "operationId": f"post_{name.lower()}_batch",
        "security": [_SIGNATURE],
        "requestBody": {"required": True, "content": json_of(f"{name}Batch")},
        "responses": {
            "200": {"description": "The answers.", "content": json_of(f"{name}Answers")},
            **{str(status): response for status, response in refusals.items()},
        },
    }


def _problem_schema() -> dict[str, Any]:
    return {
        "type": "object",
        "title": "Problem",
        "description": "RFC 9457. Further members help the caller; none quotes the input.",
        "required": ["type", "title", "status"],
        "properties": {
            "type": {"type": "string", "examples": [TYPE_PREFIX + "body-too-large"]},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "errors": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"at": {"type": "string"}, "message": {"type": "string"}},
                },
            },
        },
    }
