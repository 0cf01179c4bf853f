"""Traces of this process, where OTEL_EXPORTER_OTLP_ENDPOINT is set: requests, and in them calls to stores and answers.

OpenTelemetry is imported by `exported` alone. Elsewhere, and where nothing is exported, `spans` is None.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase

if TYPE_CHECKING:
    from telemetry.spans import Spans

STOP_SECONDS = 3.0
"""How long a process that ends waits for a collector to take its last spans."""

spans: "Spans | None" = None
_NOTHING = nullcontext()


@contextmanager
def exported() -> Iterator[None]:
    """Export the spans of this process until the end of the block."""
    global spans
    if not settings.OTEL_EXPORTER_OTLP_ENDPOINT:
        yield
        return
    from telemetry.spans import Spans, batches

    spans = Spans(batches())
    try:
        yield
    finally:
        ending = threading.Thread(target=spans.shutdown, daemon=True)  # a collector that is out takes half a minute
        ending.start()
        ending.join(STOP_SECONDS)


def traced(get_response: Callable[[HttpRequest], HttpResponseBase]) -> Callable[[HttpRequest], HttpResponseBase]:
    """Return the middleware that makes a request's span."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        return spans.request(request, get_response) if spans else get_response(request)

    return middleware


def answering() -> AbstractContextManager[None]:
    """Return what the answer is made in: a span, where this request has one."""
    return spans.answer() if spans else _NOTHING


def annotate(**attributes: str | int) -> None:
    """Add to the span of this answer what its answerer knows, as `tokens_in` and `tokens_out`; no words."""
    if spans:
        spans.annotate(attributes)
