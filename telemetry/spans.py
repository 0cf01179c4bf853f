"""What makes spans, with OpenTelemetry's SDK, which need not be installed where nothing is exported.

A span has no session's name, but its hash as in the log, and no words of a conversation: no exception is recorded,
since its message may quote one. The SDK's own variables (OTEL_…) say how, and which, spans are exported.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from telemetry import request_id
from telemetry.logs import hashed

OK = "ok"
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"}
_PARENT = {"traceparent": "HTTP_TRACEPARENT", "tracestate": "HTTP_TRACESTATE"}


def batches() -> SpanProcessor:
    """Return the processor that sends spans to OTEL_EXPORTER_OTLP_ENDPOINT in batches, from a thread of its own."""
    return BatchSpanProcessor(OTLPSpanExporter())


class Spans:
    """The spans of this process. They are not offered to libraries: a model's SDK would trace what it is asked."""

    def __init__(self, processor: SpanProcessor) -> None:
        ours = {"service.name": "onesource", "service.version": settings.VERSION}
        resource = Resource.create(ours | dict(OTELResourceDetector().detect().attributes))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("onesource")

    def shutdown(self) -> None:
        """Export the spans that are left."""
        self._provider.shutdown()

    def request(
        self, request: HttpRequest, get_response: Callable[[HttpRequest], HttpResponseBase]
    ) -> HttpResponseBase:
        """Return the response, in a span that goes on with the client's trace and ends with the response."""
        method = request.method if request.method in _METHODS else "_OTHER"
        given = {name: request.META[key] for name, key in _PARENT.items() if key in request.META}
        span = self._tracer.start_span(
            str(method),
            TraceContextTextMapPropagator().extract(given),
            SpanKind.SERVER,
            {"http.request.method": str(method), "request_id": request_id.current()},
        )
        with trace.use_span(span, record_exception=False, set_status_on_exception=False):
            response = get_response(request)
        match = request.resolver_match
        if match:
            span.update_name(f"{method} {match.route}")
            span.set_attribute("http.route", match.route)
        span.set_attribute("http.response.status_code", response.status_code)
        if response.status_code >= 500:
            span.set_status(StatusCode.ERROR)
        if isinstance(response, StreamingHttpResponse):
            response.streaming_content = _until_sent(response.streaming_content, span)
        else:
            span.end()
        return response

    def store_call(self, store: str, operation: str, outcome: str, session: str, seconds: float) -> None:
        """Make the span of a call that has ended now, in that of its request; a call outside of one has none."""
        if not trace.get_current_span().is_recording():
            return
        ends = time.time_ns()
        attributes = {"store": store, "operation": operation, "outcome": outcome}
        if session:
            attributes["session"] = hashed(session)
        begins = ends - round(seconds * 1e9)
        span = self._tracer.start_span(f"{store} {operation}", None, SpanKind.CLIENT, attributes, start_time=begins)
        if outcome != OK:
            span.set_status(StatusCode.ERROR)
        span.end(ends)

    @contextmanager
    def answer(self) -> Iterator[None]:
        """Have a span of the answerer's, in that of its request, while the block runs."""
        if not trace.get_current_span().is_recording():
            yield
            return
        attributes = {"answerer": settings.ANSWERER} | ({"model": settings.LLM_MODEL} if settings.LLM_MODEL else {})
        span = self._tracer.start_span("answer", None, SpanKind.CLIENT, attributes)
        outcome = "failed"
        try:
            with trace.use_span(span, record_exception=False, set_status_on_exception=False):
                yield
            outcome = OK
        finally:
            span.set_attribute("outcome", outcome)
            if outcome != OK:
                span.set_status(StatusCode.ERROR)
            span.end()

    def annotate(self, attributes: Mapping[str, str | int]) -> None:
        trace.get_current_span().set_attributes(attributes)


def _until_sent(pieces: Any, span: Span) -> Iterator[bytes]:
    try:
        yield from pieces
    finally:
        span.end()
