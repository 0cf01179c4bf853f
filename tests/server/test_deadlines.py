"""A client that holds a connection, and sends or takes nothing, does not hold it for long."""

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from ops.server import connections, gate
from ops.server.gate import Gate
from tests.server import clients
from tests.servers import eventually

GET = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Answer(list[bytes]):
    """What a WSGI application returns, as Django's response is."""

    streaming = False

    def close(self) -> None:
        pass


def application(environ: dict[str, Any], start_response: Any) -> Answer:
    """Answer with more than the sockets' buffers hold where it is asked for much."""
    body = b"x" * (64 * 2**20 if environ["PATH_INFO"] == "/much" else 2)
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return Answer([body])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[uvicorn.Server]:
    """A server in this process, whose deadlines are over soon."""
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.2)
    monkeypatch.setattr(connections, "WRITE_SECONDS", 0.2)
    monkeypatch.setattr(gate, "BODY_SECONDS", 0.2)
    config = uvicorn.Config(Gate(application, 4), http=connections.Connection, ws="none", lifespan="off",  # type: ignore[arg-type]
                            log_config=None, timeout_keep_alive=1, loop="uvloop")  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([socket.create_server(("127.0.0.1", 0))],))
    thread.start()
    eventually(lambda: server.started, "the server does not start")
    yield server
    server.should_exit = server.force_exit = True
    thread.join()


@pytest.fixture
def port(server: uvicorn.Server) -> int:
    return int(server.servers[0].sockets[0].getsockname()[1])


@pytest.mark.parametrize("sent", [b"", b"\r\n", GET[:-2], GET, GET + b"\r\n", GET + GET[:-2]])
def test_a_connection_that_sends_no_request_is_closed(port: int, sent: bytes) -> None:
    assert clients.answer(port, sent).count(b"200 OK") == sent.count(b"\r\n\r\n")


def test_a_body_that_does_not_come_is_refused(port: int) -> None:
    reply = clients.answer(port, clients.post(b"x" * 100)[:-50])
    assert clients.status(reply) == 408
    assert b'"code":"timeout"' in reply


@pytest.mark.parametrize("connection", [b"close", b"keep-alive"])
def test_a_client_that_takes_nothing_is_dropped(server: uvicorn.Server, port: int, connection: bytes) -> None:
    sent = GET.replace(b"/livez", b"/much").replace(b"\r\n\r\n", b"\r\nConnection: " + connection + b"\r\n\r\n")
    with clients.connect(port, sent) as client:
        assert client.recv(1) == b"H"
        eventually(lambda: not server.server_state.connections, "it is still connected")
        assert len(clients.rest(client)) < 64 * 2**20


def test_a_connection_too_many_is_closed_at_once(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections.Connection, "max_connections", 0)
    assert clients.answer(port, GET) == b""
