"""Health over HTTP: what the watcher knows, and for readiness what the stores say now."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django_prometheus.exports import ExportToDjangoView

from conversations import history
from conversations.runtime import watcher
from conversations.stores import ALIASES

View = Callable[[HttpRequest], HttpResponse]


def _safe(view: View) -> View:
    """Answer GET and HEAD alone; what a probe must not do it is told as any client is told an error."""

    @wraps(view)
    def wrapped(request: HttpRequest) -> HttpResponse:
        if request.method in ("GET", "HEAD"):
            return view(request)
        told = {"code": "method_not_allowed", "detail": f'Method "{request.method}" not allowed.'}
        return JsonResponse(told, status=405, headers={"Allow": "GET, HEAD"})

    return wrapped


@_safe
def livez(request: HttpRequest) -> HttpResponse:
    """200 while this process can answer at all; asks nobody."""
    return HttpResponse("ok\n", content_type="text/plain")


@_safe
def version(request: HttpRequest) -> JsonResponse:
    """What is running."""
    return JsonResponse({"version": settings.VERSION})


@_safe
def healthz(request: HttpRequest) -> JsonResponse:
    """200 while a store can be used, from what the watcher knows: touches nothing."""
    return _report({alias: watcher.health(alias) for alias in ALIASES})


@_safe
def readyz(request: HttpRequest) -> JsonResponse:
    """200 when a store answers now; both are asked at once, within their own time limits."""
    return _report(watcher.look())


@_safe
def metrics_page(request: HttpRequest) -> HttpResponse:
    """Every metric, of all worker processes."""
    response: HttpResponse = ExportToDjangoView(request)
    return response


def _report(states: dict[str, watcher.StoreHealth]) -> JsonResponse:
    up = sum(state.up for state in states.values())
    route = history.routing()
    report: dict[str, Any] = {
        "status": ("unavailable", "degraded", "ok")[up],
        "primary": route.primary,
        "dual_write": route.dual_write,
        "stores": {alias: state.report() for alias, state in states.items()},
    }
    return JsonResponse(report, status=200 if up else 503)
