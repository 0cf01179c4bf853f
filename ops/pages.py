"""The status page of the admin: what `manage.py status` reports, and for superusers a switch of the routing."""

from datetime import UTC, datetime
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from conversations.errors import ConversationError
from conversations.runtime.state import state
from conversations.stores import ALIASES
from ops import runbook
from ops.errors import OperatorError
from ops.forms import NAMES, SwitchForm
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


@require_POST
def switch(request: HttpRequest) -> HttpResponse:
    """Ask for a confirmation; switch once it is given."""
    if not request.user.is_superuser:
        raise PermissionDenied
    form = SwitchForm(request.POST)
    if not form.is_valid():
        return _status(request, form)
    if not form.cleaned_data["confirmed"]:
        return _confirmation(request, form)
    try:
        messages.success(request, form.switch(request.user.get_username()))
    except (ConversationError, OperatorError) as error:
        messages.error(request, str(error))
    return HttpResponseRedirect(reverse("admin:status"))


def _status(request: HttpRequest, form: SwitchForm | None = None) -> HttpResponse:
    seen = _look(request)
    context = {"title": "Status", **_shown(seen), **_day(), "form": form or SwitchForm.of(seen)}
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


def _confirmation(request: HttpRequest, form: SwitchForm) -> HttpResponse:
    seen = _look(request)
    context = {
        "title": "Switch?",
        "form": form,
        "before": render.in_words(seen.routing),
        "after": render.in_words(form.routing()),
        "warnings": form.warnings(seen),
    }
    return _page(request, "switch", context)


def _look(request: HttpRequest) -> collect.Status:
    """Return the status; this server's own counters are read in this process, without a request to itself."""
    return collect.look(served.parse(page().content.decode()), state().switch)


def _page(request: HttpRequest, name: str, context: dict[str, Any]) -> HttpResponse:
    return TemplateResponse(request, f"admin/ops/{name}.html", {**admin.site.each_context(request), **context})
