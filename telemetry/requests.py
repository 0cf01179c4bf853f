"""Gives each request its id, counts it, and shows what all processes have counted."""

import os
import time
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest, multiprocess

from telemetry import metrics, request_id

View = Callable[[HttpRequest], HttpResponseBase]


def counted(get_response: View) -> View:
    """Return the middleware that gives a response its request's id, and counts it by its status and by how long it
    took with all other middlewares."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        begin = time.perf_counter()
        found = request_id.begin(request.META.get("HTTP_X_REQUEST_ID", ""))
        response = get_response(request)
        response.headers[request_id.HEADER] = found
        metrics.responses.labels(status=str(response.status_code)).inc()
        metrics.request_seconds.observe(time.perf_counter() - begin)
        return response

    return middleware


def page() -> HttpResponse:
    """Return the page of all metrics, added up over the processes that share a folder."""
    registry = REGISTRY
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
