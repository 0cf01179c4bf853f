"""Traces of a real server, as a collector gets them by OTLP over HTTP."""

import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings

from telemetry.logs import hashed
from telemetry.traces import STOP_SECONDS
from tests import environment
from tests.builders import a_session
from tests.commands.test_serve import serving
from tests.configured import DEPLOYED
from tests.faults.service import Service
from tests.server import clients
from tests.servers import eventually, free_port
from tests.traced import Collector, attributes, collecting

PARENT = "b7ad6b7169203331"
QUESTION, ANSWERED = "What-words-are-these?", "I have no language model"


def a_service(home: Path, endpoint: str, **variables: str) -> Service:
    usual = {
        "REDIS_URL": environment.REDIS.url,
        "REDIS_SOCKET_TIMEOUT_MS": "2000",
        "MONGO_URL": environment.MONGO.url,
        "MONGO_TIMEOUT_MS": "5000",
        "CONV_DUAL_WRITE": "1",
        "ANSWERER": "recall",
        "SECRET_KEY": environment.LONG_SECRET,
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    return Service(home, **usual | variables)


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Service]:
    service = a_service(tmp_path_factory.mktemp("traced"), collector.url).start()
    try:
        service.wait()
        yield service
    finally:
        service.stop()


def ask(service: Service, session: str, trace_id: str, *, stream: bool = False) -> bytes:
    body = json.dumps({"question": QUESTION, "session_id": session, "stream": stream}).encode()
    headers = (f"traceparent: 00-{trace_id}-{PARENT}-01", f"X-Request-ID: r-{trace_id}")
    return clients.answer(service.port, clients.post(body, "/api/chat/ask", *headers))


def new_trace() -> str:
    return uuid4().hex


def is_whole(spans: list[Any]) -> bool:
    """Return whether the span of the request is there: it is the last that ends."""
    return any(span.parent_span_id.hex() == PARENT for span in spans)


def have_request(request: str, spans: list[Any]) -> bool:
    return any(attributes(span).get("request_id") == request for span in spans)


@pytest.mark.parametrize("stream", [False, True])
def test_a_question_is_a_trace_of_its_request_stores_and_answer(
    service: Service, collector: Collector, stream: bool
) -> None:
    session, trace_id = a_session(), new_trace()
    assert clients.status(ask(service, session, trace_id, stream=stream)) == 200
    spans = collector.wait(is_whole, trace_id)
    (root,) = [span for span in spans if span.parent_span_id.hex() == PARENT]
    assert root.name == "POST api/chat/ask"
    assert attributes(root) == {
        "http.request.method": "POST",
        "http.route": "api/chat/ask",
        "http.response.status_code": 200,
        "request_id": f"r-{trace_id}",
    }
    children = [span for span in spans if span is not root]
    assert {span.parent_span_id for span in children} == {root.span_id}
    by_name = {span.name: attributes(span) for span in children}
    assert {"answer", "redis append", "mongo append"} < set(by_name)
    assert by_name.pop("answer") == {"answerer": "recall", "outcome": "ok"}
    assert {(each["outcome"], each["session"]) for each in by_name.values()} == {("ok", hashed(session))}
    assert all(root.start_time_unix_nano - 1_000_000 <= span.start_time_unix_nano for span in children)
    assert all(span.end_time_unix_nano <= root.end_time_unix_nano for span in children)


def test_no_span_has_a_session_or_words(service: Service, collector: Collector) -> None:
    session, trace_id = a_session(), new_trace()
    assert ANSWERED.encode() in ask(service, session, trace_id, stream=True)
    for path in (f"/api/chat/conversations/{session}/", f"/api/chat/conversations/{session}/export?as=markdown"):
        status, headers, _ = service.request("GET", path)
        assert status == 200
        collector.wait(partial(have_request, headers["X-Request-ID"]))
    for words in (session, QUESTION, ANSWERED):
        assert words.encode() not in collector.received


def test_every_worker_exports_under_the_name_of_the_service(service: Service, collector: Collector) -> None:
    def exporting() -> set[str]:
        service.request("GET", "/version")
        return {found["service.instance.id"] for found in collector.resources()}

    service.request("GET", "/version", port=service.management_port)
    eventually(lambda: len(exporting()) == 3, "a worker exports nothing", 30)
    names = {(found["service.name"], found["service.version"]) for found in collector.resources()}
    assert names == {("onesource", settings.VERSION)}


def test_a_stop_exports_what_is_left(tmp_path: Path) -> None:
    trace_id = new_trace()
    with collecting() as collector:
        service = a_service(tmp_path, collector.url, OTEL_BSP_SCHEDULE_DELAY="600000").start()
        try:
            service.wait()
            ask(service, a_session(), trace_id)
            assert collector.spans() == []
        finally:
            service.stop()
        assert is_whole(collector.spans(trace_id))


def test_a_collector_that_is_out_delays_neither_answers_nor_the_stop(tmp_path: Path) -> None:
    service = a_service(tmp_path, f"http://127.0.0.1:{free_port()}").start()
    try:
        service.wait()
        assert clients.status(ask(service, a_session(), new_trace())) == 200
        begun = time.monotonic()
        assert service.ask_to_stop().wait(30) == 0
        assert time.monotonic() - begun < STOP_SECONDS + 5
    finally:
        service.stop()
    assert '"level":"WARNING","logger":"opentelemetry' not in service.log.read_text()


def test_missing_packages_are_named_with_exit_code_2(tmp_path: Path) -> None:
    """A package of the name that is found first has nothing in it."""
    (tmp_path / "opentelemetry").mkdir()
    (tmp_path / "opentelemetry" / "__init__.py").touch()
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "PYTHONPATH": str(tmp_path)}
    with serving(tmp_path / "var", **DEPLOYED, **endpoint) as server:
        _, output = server.communicate(timeout=60)
    assert output == (
        "CommandError: OTEL_EXPORTER_OTLP_ENDPOINT needs packages that are not installed."
        " Run script/bootstrap while it is set, or pip install -r requirements-traces.txt.\n"
    )
    assert server.returncode == 2
