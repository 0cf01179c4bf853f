"""Clients as no browser is: raw bytes on many connections, held for as long as the block runs."""

import resource
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS_FRAME = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
# HPACK, without the dynamic table: :method POST, :scheme http, :path /livez, :authority a, content-length 1000
_HEADERS = b"\x83\x86\x04\x06/livez\x01\x01a\x0f\x0d\x041000"


def connect(port: int, sent: bytes = b"", *, timeout: float = 10.0) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=timeout)
    connection.sendall(sent)
    return connection


def answer(port: int, sent: bytes) -> bytes:
    """Return all that comes until the server closes the connection."""
    with connect(port, sent) as connection:
        return rest(connection)


def rest(connection: socket.socket) -> bytes:
    """Return all that is still to come; a connection that is reset has ended too."""
    parts: list[bytes] = []
    with suppress(ConnectionError):
        while part := connection.recv(65_536):
            parts.append(part)
    return b"".join(parts)


def status(reply: bytes) -> int:
    return int(reply.split(b" ", 2)[1])


@contextmanager
def held(port: int, number: int, sent: bytes = b"") -> Iterator[list[socket.socket]]:
    """Hold so many connections, on each of which this was sent."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, number + 1000)), hard))
    with ExitStack() as stack:
        yield [stack.enter_context(connect(port, sent)) for _ in range(number)]


def http2_streams(number: int) -> bytes:
    """Return the beginning of a connection with so many requests, each without the body that it announces."""
    frames = [HTTP2_PREFACE, SETTINGS_FRAME]
    for stream in range(1, 2 * number, 2):
        frames.append(struct.pack(">I", len(_HEADERS))[1:] + b"\x01\x04" + struct.pack(">I", stream) + _HEADERS)
    return b"".join(frames)


def ask(question: str, session: str, **fields: str) -> bytes:
    """Return a question as one request, after whose answer the connection is closed."""
    pairs = "".join(f',"{name}":"{value}"' for name, value in fields.items())
    return post(f'{{"question":"{question}","session_id":"{session}"{pairs}}}'.encode())


def post(body: bytes, path: str = "/api/chat/ask", *headers: str, kind: str = "application/json") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Connection: close", f"Content-Type: {kind}",
             f"Content-Length: {len(body)}", *headers]  # fmt: skip
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
