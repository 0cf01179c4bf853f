"""Spans of tests: kept in this process, or taken by a collector that a server sends them to."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.servers import eventually


class Collector:
    """Takes what is sent to /v1/traces by OTLP over HTTP."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.requests: list[ExportTraceServiceRequest] = []
        self.received = b""

    def take(self, body: bytes) -> None:
        self.received += body
        self.requests.append(ExportTraceServiceRequest.FromString(body))

    def spans(self, trace_id: str = "") -> list[Any]:
        """Return the spans that have come, of this trace, in the order in which they began."""
        found = [
            span
            for request in list(self.requests)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
            if span.trace_id.hex().startswith(trace_id)
        ]
        return sorted(found, key=lambda span: span.start_time_unix_nano)

    def wait(self, complete: Callable[[list[Any]], bool], trace_id: str = "") -> list[Any]:
        """Return the spans of this trace once they are complete."""
        eventually(lambda: complete(self.spans(trace_id)), "not every span was exported", 30)
        return self.spans(trace_id)

    def resources(self) -> list[dict[str, Any]]:
        """Return the attributes of each process that has sent spans."""
        return [attributes(each.resource) for request in list(self.requests) for each in request.resource_spans]


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run a collector until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            known = self.path == "/v1/traces"
            if known:
                collector.take(body)
            self.send_response(200 if known else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *words: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector = Collector(server.server_port)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield collector
        finally:
            server.shutdown()


def attributes(holder: Any) -> dict[str, Any]:
    """Return the attributes of a span or a resource as they were sent."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in holder.attributes}
