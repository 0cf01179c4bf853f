"""Request ids as the server gives them: also to what Django never sees, and in the threads that it runs requests in."""

import json
import re
from typing import Any

import pytest

from tests.builders import a_session
from tests.faults.service import Service
from tests.server import clients

MADE = re.compile(r"[0-9a-f]{32}")
GET = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Request-ID: r-1\r\n"


def ids(reply: bytes) -> list[str]:
    """Return the ids in the headers of the responses."""
    return [found.decode() for found in re.findall(rb"(?i)\r\nx-request-id: (.*?)\r\n", reply)]


def body(reply: bytes) -> Any:
    return json.loads(reply.partition(b"\r\n\r\n")[2])


def lines(service: Service, request: str) -> list[dict[str, Any]]:
    """Return the lines of the server's log with this id."""
    found = [json.loads(line) for line in service.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in found if line.get("request") == request]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (GET + b"\r\n", 200),
        (GET.replace(b"/livez", b"/version") + b"\r\n", 200),
        (GET.replace(b"Host", b"Guest") + b"\r\n", 400),
        (GET.replace(b"GET", b"POST") + b"Content-Length: 600000\r\n\r\n", 413),
        (GET + b"Content-Length: +2\r\n\r\nab", 400),
        (GET + b"X: " + b"x" * 100_000 + b"\r\n\r\n", 431),
    ],
    ids=["livez", "version", "no host", "long body", "malformed", "long head"],
)
def test_every_response_has_the_id_of_its_request(service: Service, sent: bytes, status: int) -> None:
    reply = clients.answer(service.port, sent)
    assert (clients.status(reply), ids(reply)) == (status, ["r-1"])
    if status >= 400:
        assert body(reply)["request_id"] == "r-1"


def test_a_request_before_its_headers_gets_one(service: Service) -> None:
    reply = clients.answer(service.port, b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03")
    assert ids(reply) == [body(reply)["request_id"]]
    assert MADE.fullmatch(ids(reply)[0])


def test_two_ids_are_none(service: Service) -> None:
    for path in (b"/livez", b"/version"):
        reply = clients.answer(service.port, GET.replace(b"/livez", path) + b"x-request-id: r-1\r\n\r\n")
        assert MADE.fullmatch(ids(reply)[0])


def test_requests_on_one_connection_keep_theirs(service: Service) -> None:
    keep = GET.replace(b"Connection: close\r\n", b"").replace(b"/livez", b"/version")
    sent = keep + b"\r\n" + keep.replace(b"r-1", b"r-2") + b"\r\n" + GET.replace(b"r-1", b"\xff") + b"\r\n"
    first, second, third = ids(clients.answer(service.port, sent))
    assert (first, second) == ("r-1", "r-2")
    assert MADE.fullmatch(third)


@pytest.mark.parametrize("streamed", [False, True])
def test_the_log_lines_of_a_request_are_found_by_its_id(service: Service, streamed: bool) -> None:
    request = a_session()

    def ask(question: str) -> int:
        asked = json.dumps({"question": question, "session_id": a_session(), "stream": streamed}).encode()
        sent = clients.post(asked, "/api/chat/ask", f"X-Request-ID: {request}")
        return clients.status(clients.answer(service.port, sent))

    assert ask("What?") == 200
    assert [line["event"] for line in lines(service, request)] == ["msg_count_before"]
    assert ask("") == 400
    assert [line["event"] for line in lines(service, request)] == ["msg_count_before", "http_error"]
