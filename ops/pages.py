"""The status page of the admin: what `manage.py status` reports."""

from datetime import UTC, datetime
from typing import Any

from django.contrib import admin
from django.db import DatabaseError
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.views.decorators.http import require_safe

from conversations.runtime.state import state
from conversations.stores import ALIASES
from ops import runbook
from ops.actions.forms import NAMES
from ops.actions.views import may_act
from ops.status import charts, collect, day, render, served
from telemetry.requests import page


@require_safe
def status_page(request: HttpRequest) -> HttpResponse:
    """The status as it is now, also where a store is out."""
    return _status(request)


@require_safe
def status_live(request: HttpRequest) -> HttpResponse:
    """The parts of the status page that its script renews."""
    return TemplateResponse(request, "admin/ops/status_live.html", _shown(_look(request)))


@require_safe
def runbook_page(request: HttpRequest) -> HttpResponse:
    """The runbook."""
    try:
        return _page(request, "runbook", {"title": "Runbook", "text": runbook.as_html()})
    except OSError:
        raise Http404("The runbook is no part of this installation.") from None


@require_safe
def status_charts(request: HttpRequest) -> HttpResponse:
    """The charts of the last day, which the script of the status page renews too."""
    return TemplateResponse(request, "admin/ops/status_charts.html", _day())


def _status(request: HttpRequest) -> HttpResponse:
    seen = _look(request)
    context = {"title": "Status", **_shown(seen), **_day(), "may_act": may_act(request.user)}
    return _page(request, "status", context)


def _shown(seen: collect.Status) -> dict[str, Any]:
    """Return what the parts of the page show that are renewed."""
    routing, stores, figures, counted, machines, _ = render.tables(seen)
    return {
        "seen": seen,
        "at": datetime.fromisoformat(seen.at),
        "routing": routing.rows,
        "stores": stores.rows,
        "figures": figures.rows,
        "counted": counted.rows,
        "machines": machines.rows,
        "names": [NAMES[alias] for alias in ALIASES],
    }


def _day() -> dict[str, Any]:
    """Return what the charts show; nothing where `default` cannot be read or has not been migrated yet."""
    try:
        points = day.points(datetime.now(UTC))
    except DatabaseError:
        return {}
    heads, rows = charts.table(points)
    hours = points[:: len(points) // 4]
    return {"charts": charts.charts(points), "chart_heads": heads, "chart_rows": rows, "hours": hours}


def _look(request: HttpRequest) -> collect.Status:
    """Return the status; this server's own counters are read in this process, without a request to itself."""
    return collect.look(served.parse(page().content.decode()), state().switch)


def _page(request: HttpRequest, name: str, context: dict[str, Any]) -> HttpResponse:
    return TemplateResponse(request, f"admin/ops/{name}.html", {**admin.site.each_context(request), **context})
