"""HTTP/1.1 as the server takes it: strict where proxies differ, and with a bound for all that a client sends."""

import json
import re
from contextlib import suppress

import pytest

from ops.server import connections
from tests.builders import a_session
from tests.faults.service import Service
from tests.server import clients

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


def test_a_header_with_an_underscore_is_not_the_proxys(service: Service) -> None:
    """WSGI gives both the same name; with HTTPS=1 the proxy's is believed."""
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
