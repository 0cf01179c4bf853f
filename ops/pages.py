"""The status page of the admin: what `manage.py status` reports."""

from datetime import datetime
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.views.decorators.http import require_safe

from conversations.runtime.state import state
from conversations.stores import ALIASES
from ops.actions.forms import NAMES
from ops.actions.views import may_act
from ops.status import collect, render, served
from telemetry.requests import page


@require_safe
def status_page(request: HttpRequest) -> HttpResponse:
    """The status as it is now, also where a store is out."""
    return _status(request)


def _status(request: HttpRequest) -> HttpResponse:
    seen = _look(request)
    routing, stores, figures, counted = render.tables(seen)
    context = {
        "title": "Status",
        "seen": seen,
        "at": datetime.fromisoformat(seen.at),
        "wrong": seen.wrong,
        "routing": routing.rows,
        "stores": stores.rows,
        "figures": figures.rows,
        "counted": counted.rows,
        "names": [NAMES[alias] for alias in ALIASES],
        "may_act": may_act(request.user),
    }
    return _page(request, "status", context)


def _look(request: HttpRequest) -> collect.Status:
    """Return the status; this server's own counters are read in this process, without a request to itself."""
    return collect.look(served.parse(page().content.decode()), state().switch)


def _page(request: HttpRequest, name: str, context: dict[str, Any]) -> HttpResponse:
    return TemplateResponse(request, f"admin/ops/{name}.html", {**admin.site.each_context(request), **context})
