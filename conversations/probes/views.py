"""Health over HTTP: what the watcher last found, and for readiness what the stores answer now."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse

from conversations import clock, history
from conversations.runtime import pings
from conversations.runtime.state import state
from conversations.stores import ALIASES
from telemetry import request_id
from telemetry.requests import page

READY_SECONDS = 0.4  # a probe has half a second

View = Callable[[HttpRequest], HttpResponse]


def _safe(view: View) -> View:
    """Answer GET and HEAD only; another method is an error in the form of the API's errors."""

    @wraps(view)
    def wrapped(request: HttpRequest) -> HttpResponse:
        if request.method in ("GET", "HEAD"):
            return view(request)
        detail = f'Method "{request.method}" not allowed.'
        error = {"code": "method_not_allowed", "detail": detail, "request_id": request_id.current()}
        return JsonResponse(error, status=405, headers={"Allow": "GET, HEAD"})

    return wrapped


@_safe
def livez(request: HttpRequest) -> HttpResponse:
    """200 while this process can answer at all; no store is called."""
    return HttpResponse("ok\n", content_type="text/plain")


@_safe
def version(request: HttpRequest) -> JsonResponse:
    """The version that runs."""
    return JsonResponse({"version": settings.VERSION})


@_safe
def healthz(request: HttpRequest) -> JsonResponse:
    """200 while a store can be used, as the watcher last found; no store is called."""
    return _report({alias: pings.health(alias) for alias in ALIASES})


@_safe
def readyz(request: HttpRequest) -> JsonResponse:
    """200 when a store answers now; both are pinged at the same time, within one deadline."""
    return _report(pings.look(READY_SECONDS))


@_safe
def metrics_page(request: HttpRequest) -> HttpResponse:
    """Every metric, of all worker processes."""
    return page()


def _report(states: dict[str, pings.StoreHealth]) -> JsonResponse:
    up = sum(one.up for one in states.values())
    route = history.routing()
    report: dict[str, Any] = {
        "status": ("unavailable", "degraded", "ok")[up],
        "primary": route.primary,
        "dual_write": route.dual_write,
        "clock_offset_seconds": round(clock.offset(), 3),
        "stores": {alias: one.report() | _dataset(alias) for alias, one in states.items()},
    }
    response = JsonResponse(report, status=200 if up else 503)
    # Django logs no error for it: probes come each second, and the log has when a store was lost.
    response._has_been_logged = True  # type: ignore[attr-defined]
    return response


def _dataset(alias: str) -> dict[str, Any]:
    """Return what is known of the store's dataset: whether it holds every conversation, how often it was counted up,
    and how many processes have stopped reaching it without removing their heartbeat."""
    known = state().known
    dataset = known.datasets.get(alias)
    return {
        "complete": alias in known.complete,
        "epoch": dataset.epoch if dataset else None,
        "cut_off": len(known.cut_off.get(alias, ())),
    }
