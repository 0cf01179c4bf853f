"""One client's connection: HTTP/1 by a strict parser, with a deadline and a bound for what the client sends."""

import asyncio
import resource
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from telemetry import request_id

HEAD_SECONDS = 10.0  # from the first byte, or from connecting, to the end of the headers
IDLE_SECONDS = 75  # between two requests: longer than proxies keep theirs, so that they close first
WRITE_SECONDS = 20.0  # how long a client may take nothing of an answer
MAX_HEAD_BYTES = 65_536
MAX_CONNECTIONS = 4096
_RESERVED_FILES = 512  # for the stores, logs and libraries of this process


def allowed_connections() -> int:
    """Return how many connections a process may hold; raise its limit of open files as far as it may go.

    Without the bound, idle connections could leave no file for a connection to a store.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + _RESERVED_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, max(soft - _RESERVED_FILES, 64))


class Connection(HttpToolsProtocol):
    """uvicorn's protocol, with a deadline and a bound for the head of each request, and none of its trailers.

    httptools (llhttp) refuses what proxies read differently: a bare line feed, both Content-Length and
    Transfer-Encoding, the preface of HTTP/2. The deadline of a body is the Gate's, which reads it.
    """

    max_connections = MAX_CONNECTIONS

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._head_deadline: asyncio.TimerHandle | None = None
        self._write_deadline: asyncio.TimerHandle | None = None
        self._in_head = False
        self._upgrading = False
        self._head_bytes = 0  # of the fields of this head that have been parsed
        self._received = 0  # bytes of this message, as far as they came in packets of their own
        self._body_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            transport.abort()
        else:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._forget_head_deadline()
        self.resume_writing()

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._received += len(data)
        self._parse(data)
        if self.transport.is_closing():
            return
        # Beside a body there are chunk sizes: five bytes for a chunk of one.
        if self._received - self._body_bytes > MAX_HEAD_BYTES + 8 * self._body_bytes:
            self._refuse_head()
        elif self._between_requests() and self._head_deadline is None:  # also for bytes that begin no request
            self._expect_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._head_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:  # a trailer: it would be taken for a header that a proxy has checked
            return
        super().on_header(name, value)
        self._head_bytes += len(name) + len(value) + 4

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._forget_head_deadline()
        if self._head_bytes > MAX_HEAD_BYTES or self.parser.get_method() == b"CONNECT":
            raise ValueError
        self._upgrading = self.parser.should_upgrade()
        if not self._upgrading:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._upgrading:
            super().on_message_complete()
            self._received = self._body_bytes = 0

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():  # what is not taken by then is dropped
            self.loop.call_later(WRITE_SECONDS, self.transport.abort)
        elif self._in_head and self._between_requests():  # a part of the next head is there
            self._expect_head()

    def timeout_keep_alive_handler(self) -> None:
        self.transport.abort()  # close() would wait for a client that takes nothing

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_deadline = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_deadline:
            self._write_deadline.cancel()
            self._write_deadline = None

    def send_400_response(self, msg: str) -> None:
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse_head()
        else:
            self._refuse(400, "bad_request", "The request is not HTTP/1.1 as RFC 9112 has it.")

    def _parse(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("")

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Parse the head again without its offer to speak another protocol, as RFC 9110 7.8 lets a server do.

        llhttp stops at such a head and takes the body after it for another request.
        """
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        for name, value in self.headers:
            if name == b"connection":
                tokens = [token for token in value.split(b",") if token.strip().lower() != b"upgrade"]
                value = b",".join(tokens)
            if name != b"upgrade":
                lines.append(name + b": " + value)
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as the parser that it replaces
        self._parse(b"\r\n".join([*lines, b"", b""]) + rest)

    def _between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _expect_head(self) -> None:
        self._head_deadline = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _forget_head_deadline(self) -> None:
        if self._head_deadline:
            self._head_deadline.cancel()
            self._head_deadline = None

    def _refuse_head(self) -> None:
        self._refuse(431, "headers_too_large", f"Headers and trailers are longer than {MAX_HEAD_BYTES} bytes.")

    def _refuse(self, status: int, code: str, detail: str) -> None:
        """Answer and close; where an answer is on its way already, close."""
        if not self._between_requests() and self.cycle.response_started:
            self.transport.abort()
            return
        chosen = request_id.chosen(request_id.sent(self.headers or ()))
        body = f'{{"code":"{code}","detail":"{detail}","request_id":"{chosen}"}}'.encode()
        headers = (
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n"
            f"{request_id.HEADER}: {chosen}\r\n\r\n"
        )
        self.transport.write(STATUS_LINE[status] + headers.encode() + body)
        self.transport.close()
        self.loop.call_later(WRITE_SECONDS, self.transport.abort)
