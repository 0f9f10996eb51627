"""Templates to answers: autoescape on, one strict content policy on every page, assets named by their content."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import picochat_web
from fastapi.responses import HTMLResponse
from picochat_contract.api import RunSummary
from picochat_contract.states import RUN_FINAL, DesiredState

from picochat_server.pages import curves, formats
from picochat_server.pages.marks import mark_of

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
WEB = Path(picochat_web.__file__).parent
STATIC = WEB / "static"
LEVELS = {
    "debug": "quiet",
    "info": "quiet",
    "warning": "warn",
    "warn": "warn",
    "error": "bad",
    "critical": "bad",
}


def page(template: str, context: Any, status: int = 200) -> HTMLResponse:
    """The template filled with `context`, which it knows as `page`."""
    return HTMLResponse(_templates().get_template(template).render(page=context), status, HEADERS)


def asset(name: str) -> str:
    """Address of a static file; it changes with the content, so the answer may be cached for ever."""
    return f"/static/{name}?v={asset_digest(name)}"


@cache
def asset_digest(name: str) -> str:
    return hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]


@cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(WEB / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["asset"] = asset
    environment.filters.update(
        {
            "mark": mark_of,
            "run_state": _run_state,
            "level": lambda level: LEVELS.get(level.lower(), "quiet"),
            "number": curves.number,
            "duration": formats.duration,
            "seconds": formats.seconds,
            "moment": formats.moment,
            "day_minute": formats.day_minute,
            "clock": formats.clock,
            "size": formats.size,
            "measured": formats.measured,
            "percent": formats.percent,
            "compact": formats.compact,
            "count": formats.count,
            "rate": formats.rate,
            "visible": formats.visible,
            "measured_of": formats.measured_of,
        }
    )
    return environment


def _run_state(run: RunSummary) -> str:
    """The state, or `cancelling` between the request and the end of the work."""
    is_cancelling = run.state not in RUN_FINAL and run.desired_state is DesiredState.CANCELLED
    return "cancelling" if is_cancelling else run.state.value
