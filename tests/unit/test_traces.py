"""The spans of a process: what each has, and that none is made where nothing is exported."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import RequestFactory
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from pytest_django import Settings

from conversations import checks
from conversations.errors import CorruptHistory, StoreUnavailable
from conversations.stores.measured import MeasuredStore
from conversations.stores.memory import MemoryStore
from conversations.turns import Limits
from telemetry import request_id, traces
from telemetry.logs import hashed
from telemetry.spans import Spans
from tests.configured import DEPLOYED, run, settings_with

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Have spans made, and kept in this process."""
    exporter = InMemorySpanExporter()
    monkeypatch.setattr(traces, "spans", Spans(SimpleSpanProcessor(exporter)))
    yield exporter
    exporter.shutdown()


def handled(respond: Any, method: str = "GET", **headers: str) -> Any:
    """Return the response of a view to a request that is traced."""
    request = RequestFactory().generic(method, "/", headers=headers)
    request_id.begin("r-1")
    return traces.traced(respond)(request)


def calling(call: Any) -> Any:
    """Return a view that calls it; what it raises is an error of the server."""

    def respond(request: HttpRequest) -> HttpResponse:
        try:
            call()
        except Exception:
            return HttpResponse(status=500)
        return HttpResponse()

    return respond


def a_store() -> MeasuredStore:
    inner = MemoryStore("redis", Limits(60, 16, 100_000))
    return MeasuredStore(inner, control=inner)


def raising(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def load(self: MemoryStore, session: str) -> None:
        raise error

    monkeypatch.setattr(MemoryStore, "load", load)


def shape(span: ReadableSpan) -> tuple[str, dict[str, Any], StatusCode]:
    return span.name, dict(span.attributes or {}), span.status.status_code


def test_a_request_has_a_span_with_its_id_and_status(exporter: InMemorySpanExporter) -> None:
    handled(calling(lambda: None), "POST")
    (span,) = exporter.get_finished_spans()
    found = {"http.request.method": "POST", "request_id": "r-1", "http.response.status_code": 200}
    assert shape(span) == ("POST", found, StatusCode.UNSET)
    assert span.parent is None


def test_an_error_of_the_server_is_one_of_its_span_without_its_message(exporter: InMemorySpanExporter) -> None:
    handled(calling(lambda: 1 / 0))
    (span,) = exporter.get_finished_spans()
    assert (span.status.status_code, span.status.description, span.events) == (StatusCode.ERROR, None, ())


def test_any_other_method_is_not_repeated(exporter: InMemorySpanExporter) -> None:
    handled(calling(lambda: None), "WORDS")
    (span,) = exporter.get_finished_spans()
    assert (span.name, dict(span.attributes or {})["http.request.method"]) == ("_OTHER", "_OTHER")


def test_the_trace_of_the_client_goes_on(exporter: InMemorySpanExporter) -> None:
    handled(calling(lambda: a_store().load("s")), traceparent=f"00-{TRACE}-{PARENT}-01")
    call, span = exporter.get_finished_spans()
    assert call.parent and span.parent and span.context and call.context
    assert {f"{each.context.trace_id:032x}" for each in (call, span)} == {TRACE}  # type: ignore[union-attr]
    assert (f"{span.parent.span_id:016x}", call.parent.span_id) == (PARENT, span.context.span_id)


@pytest.mark.parametrize("given", ["", "00-words-of-a-conversation-01", f"00-{'0' * 32}-{PARENT}-01"])
def test_what_is_no_trace_begins_one(exporter: InMemorySpanExporter, given: str) -> None:
    handled(calling(lambda: None), traceparent=given)
    (span,) = exporter.get_finished_spans()
    assert span.parent is None


def test_a_trace_that_the_client_does_not_record_is_not_exported(exporter: InMemorySpanExporter) -> None:
    handled(calling(lambda: a_store().load("s")), traceparent=f"00-{TRACE}-{PARENT}-00")
    assert exporter.get_finished_spans() == ()


def test_the_span_of_a_stream_ends_with_it(exporter: InMemorySpanExporter) -> None:
    response = handled(lambda request: StreamingHttpResponse(iter([b"a", b"b"])))
    assert exporter.get_finished_spans() == ()
    assert b"".join(response.streaming_content) == b"ab"
    assert len(exporter.get_finished_spans()) == 1


def test_the_span_of_a_stream_ends_when_it_is_closed(exporter: InMemorySpanExporter) -> None:
    response = handled(lambda request: StreamingHttpResponse(iter([b"a", b"b"])))
    next(iter(response.streaming_content))
    response.close()
    assert len(exporter.get_finished_spans()) == 1


@pytest.mark.parametrize(
    ("error", "outcome", "status"),
    [
        (None, "ok", StatusCode.UNSET),
        (StoreUnavailable("redis", "timeout"), "unavailable", StatusCode.ERROR),
        (CorruptHistory("redis", "words"), "corrupt", StatusCode.ERROR),
        (RuntimeError("words"), "failed", StatusCode.ERROR),
    ],
)
def test_a_call_to_a_store_has_a_span_with_its_outcome(
    exporter: InMemorySpanExporter,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception | None,
    outcome: str,
    status: StatusCode,
) -> None:
    if error:
        raising(monkeypatch, error)
    handled(calling(lambda: a_store().load("the-session")))
    call, span = exporter.get_finished_spans()
    found = {"store": "redis", "operation": "load", "outcome": outcome, "session": hashed("the-session")}
    assert shape(call) == ("redis load", found, status)
    assert (call.status.description, call.events) == (None, ())
    assert span.start_time and call.start_time and call.end_time and span.end_time
    assert span.start_time <= call.start_time + 1_000_000  # two clocks: a millisecond
    assert call.end_time <= span.end_time


def test_a_batch_of_no_session_has_none(exporter: InMemorySpanExporter) -> None:
    def batch() -> None:
        with a_store().recorded_batch("append", write=True):
            pass

    handled(calling(batch))
    call, _ = exporter.get_finished_spans()
    assert dict(call.attributes or {}) == {"store": "redis", "operation": "append", "outcome": "ok"}


def test_a_call_outside_of_a_request_has_no_span(exporter: InMemorySpanExporter) -> None:
    a_store().load("s")
    with traces.answering():
        traces.annotate(tokens_in=1)
    assert exporter.get_finished_spans() == ()


def test_an_answer_has_a_span_with_what_its_answerer_added(exporter: InMemorySpanExporter, settings: Settings) -> None:
    settings.ANSWERER, settings.LLM_MODEL = "openai", "a-model"

    def answer() -> None:
        with traces.answering():
            traces.annotate(tokens_in=12, tokens_out=3)

    handled(calling(answer))
    found, _ = exporter.get_finished_spans()
    added = {"answerer": "openai", "model": "a-model", "tokens_in": 12, "tokens_out": 3, "outcome": "ok"}
    assert shape(found) == ("answer", added, StatusCode.UNSET)


def test_an_answer_that_fails_has_no_message_in_its_span(exporter: InMemorySpanExporter) -> None:
    def answer() -> None:
        with traces.answering():
            raise RuntimeError("words of a conversation")

    handled(calling(answer))
    found, _ = exporter.get_finished_spans()
    assert shape(found) == ("answer", {"answerer": "recall", "outcome": "failed"}, StatusCode.ERROR)
    assert (found.status.description, found.events) == (None, ())


class TestSettings:
    def test_without_the_variable_nothing_of_it_is_imported(self, tmp_path: Any) -> None:
        program = (
            "import sys, django; django.setup();"
            "from django.core.wsgi import get_wsgi_application; get_wsgi_application();"
            "from conversations import chat; from telemetry import traces; from ops.server import asgi\n"
            "with traces.exported(): assert traces.spans is None\n"
            "print([name for name in sys.modules if name.startswith('opentelemetry')])"
        )
        done = run("-c", program, **DEPLOYED, DJANGO_SETTINGS_MODULE="onesource.settings", VAR_DIR=str(tmp_path))
        assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr

    def test_without_the_variable_there_is_no_middleware_of_it(self) -> None:
        name = "telemetry.traces.traced"
        assert name not in settings_with(**DEPLOYED)["MIDDLEWARE"]
        assert settings_with(**DEPLOYED, **ENDPOINT)["MIDDLEWARE"][1] == name

    def test_what_is_missing_is_named_with_the_command(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings.OTEL_EXPORTER_OTLP_ENDPOINT = "http://127.0.0.1:9"
        assert checks.traces(None) == []
        monkeypatch.setattr(checks, "find_spec", lambda name: None)
        (problem,) = checks.traces(None)
        assert problem.is_serious()
        assert "pip install -r requirements-traces.txt" in problem.hint
        settings.OTEL_EXPORTER_OTLP_ENDPOINT = ""
        assert checks.traces(None) == []
