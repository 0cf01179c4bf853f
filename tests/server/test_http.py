"""HTTP/1.1 as the server takes it: strict where proxies differ, and with a bound for all that a client sends."""

import json
import re
from contextlib import suppress
from pathlib import Path

import pytest

from ops.server import connections
from tests.builders import a_session
from tests.faults.service import Service
from tests.server import clients
from tests.server.conftest import waiting
from tests.servers import eventually

GET = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        GET.replace(b"\r\n", b"\n") + b"\n",
        GET + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        GET + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        GET + b"Content-Length: +2\r\n\r\nab",
        GET + b"Transfer-Encoding: chunked\r\n\r\n2\nab\r\n0\r\n\r\n",
        GET + b" folded: x\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost : localhost\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03",
    ],
    ids=["bare LF", "length and chunks", "two lengths", "signed length", "LF in chunks", "folded",
         "space before colon", "TLS"],
)  # fmt: skip
def test_what_proxies_read_differently_is_refused(service: Service, sent: bytes) -> None:
    reply = clients.answer(service.port, sent)
    assert clients.status(reply) == 400
    assert json.loads(reply.partition(b"\r\n\r\n")[2])["code"] == "bad_request"


def test_another_version_of_http_is_refused(service: Service) -> None:
    reply = clients.answer(service.port, GET.replace(b"HTTP/1.1", b"HTTP/2.0") + b"\r\n")
    assert clients.status(reply) == 505


def test_headers_without_end_are_refused(service: Service) -> None:
    line = b"X-Filler: " + b"x" * 8000 + b"\r\n"
    with clients.connect(service.port, GET) as connection:
        with suppress(ConnectionError):  # the server closes while we send
            for _ in range(2 * connections.MAX_HEAD_BYTES // len(line)):
                connection.sendall(line)
        assert clients.status(connection.recv(65_536)) == 431


@pytest.mark.parametrize("trailers", [b"A: b\r\n" * 50_000, b"X: " + b"a" * 300_000], ids=["many", "long"])
def test_trailers_without_end_are_refused(service: Service, trailers: bytes) -> None:
    head = b"POST /livez HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    with clients.connect(service.port, head) as connection:
        with suppress(ConnectionError):  # the server closes while we send
            connection.sendall(trailers)
        assert clients.status(connection.recv(65_536)) == 431


def test_a_trailer_is_no_header(service: Service) -> None:
    """What a proxy checks is the headers: with HTTPS=1 a trailer could say that the request came by https."""
    sent = clients.post(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked").replace(b"Content-Type", b"X")
    reply = clients.answer(service.port, sent + b"2\r\n{}\r\n0\r\nContent-Type: application/json\r\n\r\n")
    assert clients.status(reply) == 415


@pytest.mark.parametrize("together", [True, False])
def test_an_offer_to_upgrade_is_ignored(service: Service, together: bool) -> None:
    """Java's client makes it with each request; llhttp takes the body after it for a request of its own."""
    body = json.dumps({"question": "Upgraded?", "session_id": a_session()}).encode()
    sent = clients.post(body, "/api/chat/ask", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    sent = sent.replace(b"Connection: close", b"Connection: close, Upgrade, HTTP2-Settings")
    end = len(sent) if together else len(sent) - len(body)
    with clients.connect(service.port, sent[:end]) as connection:
        connection.sendall(sent[end:])
        reply = clients.rest(connection)
    assert clients.status(reply) == 200
    assert reply.count(b"HTTP/1.1 ") == 1


def test_a_request_after_an_offer_to_upgrade_is_answered(service: Service) -> None:
    first = GET.replace(b"Connection: close", b"Connection: upgrade\r\nUpgrade: websocket") + b"\r\n"
    reply = clients.answer(service.port, first + GET + b"\r\n")
    assert re.findall(rb"HTTP/1.1 (\d+)", reply) == [b"200"] * 2


def test_the_head_of_the_next_request_is_bounded_while_one_is_answered(service: Service, hold: Path) -> None:
    hold.touch()
    keep = clients.ask("Slow?", a_session()).replace(b"Connection: close\r\n", b"")
    try:
        with clients.connect(service.port, keep) as connection:
            eventually(lambda: waiting(service) >= 1, "the answer is not being held")
            with suppress(ConnectionError):
                connection.sendall(GET + b"A: b\r\n" * 200_000)
            assert clients.status(connection.recv(65_536)) == 431
    finally:
        hold.unlink()


def test_a_head_that_comes_at_once_is_bounded_too(service: Service) -> None:
    sent = GET + b"X: " + b"x" * 100_000 + b"\r\n\r\n"
    assert clients.status(clients.answer(service.port, sent)) == 431


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /livez HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (GET + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (GET.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501),
    ],
    ids=["no host", "connect", "gzip", "chunks in 1.0"],
)
def test_what_is_not_served_is_refused(service: Service, sent: bytes, status: int) -> None:
    assert clients.status(clients.answer(service.port, sent)) == status


def test_a_header_with_an_underscore_is_not_the_proxys(service: Service) -> None:
    """WSGI gives both the same name; with HTTPS=1 the proxy's is trusted."""
    sent = GET.replace(b"/livez", b"/api/docs/") + b"Cook_ie: a=b\r\nX_Forwarded_Host: evil\r\n\r\n"
    assert clients.status(clients.answer(service.port, sent)) == 200


def test_requests_on_one_connection_are_answered_in_their_order(service: Service) -> None:
    keep = GET.replace(b"Connection: close\r\n", b"") + b"\r\n"
    reply = clients.answer(service.port, keep + keep.replace(b"/livez", b"/version") + GET + b"\r\n")
    assert re.findall(rb"HTTP/1.1 (\d+)", reply) == [b"200"] * 3
    assert reply.index(b"ok\n") < reply.index(b'"version"') < reply.rindex(b"ok\n")


def test_a_body_may_come_in_chunks(service: Service) -> None:
    body = json.dumps({"question": "In chunks?", "session_id": a_session()}).encode()
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:9], body[9:], b""))
    head = clients.post(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    assert clients.status(clients.answer(service.port, head + chunks)) == 200


def test_an_address_may_hold_any_character(service: Service) -> None:
    sent = GET.replace(b"/livez", b"/api/chat/conversations/%C3%A9%0A%FF/") + b"\r\n"
    assert clients.status(clients.answer(service.port, sent)) == 400


def test_the_management_port_has_probes_alone(service: Service) -> None:
    for path in ("/livez", "/healthz/", "/readyz", "/metrics", "/version"):
        assert service.request("GET", path, port=service.management_port)[0] == 200
    for path in ("/", "/admin/", "/api/docs/", "/api/chat/conversations/"):
        assert service.request("GET", path, port=service.management_port)[0] == 404


def test_a_streamed_answer_comes_in_events(service: Service) -> None:
    body = json.dumps({"question": "Streamed?", "session_id": a_session(), "stream": True}).encode()
    reply = clients.answer(service.port, clients.post(body))
    assert b"transfer-encoding: chunked" in reply.lower()
    assert re.findall(rb"event: (\w+)", reply) == [b"delta", b"answer"]


def test_http_1_0_gets_a_streamed_answer_whole(service: Service) -> None:
    body = json.dumps({"question": "Streamed?", "session_id": a_session(), "stream": True}).encode()
    reply = clients.answer(service.port, clients.post(body).replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert b"transfer-encoding" not in reply.lower()
    assert re.findall(rb"event: (\w+)", reply) == [b"delta", b"answer"]
