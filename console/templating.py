"""Jinja templates: the environment, what every page knows, and pages or single blocks of them."""

from __future__ import annotations

import hashlib
import json
from datetime import tzinfo
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from fastapi import Request
from jinja2.ext import InternationalizationExtension
from jinja2_fragments.fastapi import Jinja2Blocks
from markupsafe import Markup
from starlette.responses import Response

from console import presentation, reasons, record_wording, wording

_HERE = Path(__file__).parent
STATIC = _HERE / "static"
#: The cookie by which a browser keeps its choice of time zone: "utc", or absent for business time.
ZONE_COOKIE = "countersign_zone"
#: htmx's way of saying which element the answer is for (htmx 4: "tag#id").
TARGET_HEADER = "HX-Target"


class Extended(InternationalizationExtension):
    """Jinja's i18n: `_()` in templates; English until a catalogue is installed."""


def make_templates() -> Jinja2Blocks:
    """The template environment. Undefined names are errors, everything is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        extensions=[Extended],
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.install_null_translations(newstyle=True)  # type: ignore[attr-defined]
    environment.globals.update(icon=icon, asset=asset, query=presentation.query)
    for name in (
        "amount",
        "number",
        "compact",
        "short",
        "shortened",
        "card",
        "duration",
        "clock_time",
    ):
        environment.filters[name] = getattr(presentation, name)
    for name in ("date_time", "precise_time", "day", "block_time"):
        environment.filters[name] = getattr(presentation, name)
    environment.globals["between"] = presentation.between
    tables = {**vars(record_wording), **vars(wording)}
    environment.globals["words"] = {
        name: value for name, value in tables.items() if not name.startswith("_")
    }
    environment.globals["reasons"] = reasons
    for name in (
        "KINDS",
        "OUTCOMES",
        "SIDES",
        "ENTRY_MODES",
        "ACCOUNT_KINDS",
        "EVENTS",
        "CARD_STATES",
        "CHANNELS",
        "RULE_CHANNELS",
        "WINDOWS",
        "RULE_SCOPES",
        "CASE_STATES",
        "CASE_STEPS",
        "RESOLUTIONS",
        "SHARED_FIELDS",
    ):
        table = tables[name]
        environment.filters[name.lower()] = lambda code, table=table: wording.words(table, code)
    environment.filters["compact_json"] = lambda value: json.dumps(value, separators=(",", ":"))
    # A global, not an import in each template: a block that is rendered alone has no imports.
    environment.globals["parts"] = environment.get_template("parts.html").module
    return Jinja2Blocks(env=environment)


@cache
def icon(name: str, classes: str = "") -> Markup:
    """A vendored Tabler icon as inline SVG, hidden from screen readers."""
    svg = (STATIC / "vendor" / "icons" / f"{name}.svg").read_text(encoding="utf-8")
    return Markup(  # noqa: S704 - a file of ours
        svg.replace("<svg", '<svg aria-hidden="true" focusable="false"', 1).replace(
            'class="icon ', f'class="icon {classes} ', 1
        )
    )


@cache
def asset(path: str) -> str:
    """A static file's address, which changes with its content: browsers may keep it for long."""
    digest = hashlib.sha256((STATIC / path).read_bytes()).hexdigest()[:12]
    return f"/static/{path}?v={digest}"


def is_for(request: Request, element_id: str) -> bool:
    """Whether htmx asks for this element's content only (not when it restores a page)."""
    return (
        request.headers.get("HX-History-Restore-Request") != "true"
        and request.headers.get(TARGET_HEADER, "").rpartition("#")[2] == element_id
    )


def zone_of(request: Request) -> tzinfo:
    """The time zone in which this browser is shown moments."""
    chosen = "UTC" if request.cookies.get(ZONE_COOKIE) == "utc" else ""
    return presentation.zone(chosen or request.app.state.console.settings.time_zone)


def render(
    request: Request,
    template: str,
    context: dict[str, Any] | None = None,
    *,
    block: str | None = None,
    status: int = 200,
    headers: dict[str, str] | None = None,
) -> Response:
    """A page, or one block of it, as the answer."""
    templates: Jinja2Blocks = request.app.state.console.templates
    tz = zone_of(request)
    everything = {
        "user": None,
        "institution": None,
        "institutions": [],
        "active": "",
        "tz": tz,
        "zone_name": str(tz),
        "now": request.app.state.console.clock.now_ms(),
        **getattr(request.state, "page", {}),
        **(context or {}),
    }
    response: Response = templates.TemplateResponse(
        request, template, everything, status, headers, block_name=block
    )
    return response
