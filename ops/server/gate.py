"""Between connections and Django: the event loop reads whole bodies and writes answers, threads run the views.

A request has a thread only once its body is there, so clients that send slowly hold none. Probes and metrics have
threads of their own: requests that wait for a model cannot keep them waiting.
"""

import asyncio
import io
import sys
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

import orjson
from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler

from conversations.runtime.urls import PROBES

BODY_SECONDS = 20.0  # for a whole body
LINGER_SECONDS = 2.0  # for a client to read why its body is refused, while it is still sending
MAX_HELD_BYTES = 64 * 2**20  # of all bodies together that a process holds
_PROBE_THREADS = 4
_UNDERSCORE = ord("_")


class Refused(Exception):
    """A request that Django never sees."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail

    def body(self) -> bytes:
        return orjson.dumps({"code": self.code, "detail": self.detail})


class Gone(Exception):
    """The client has closed its connection."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the application answered; `body` is None where it comes in pieces, from `response`."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes | None
    response: Any

    def start(self) -> Any:
        return {"type": "http.response.start", "status": self.status, "headers": self.headers}


class Gate:
    """An ASGI application that runs a WSGI application in threads.

    With `probes_only` every address but those of probes and metrics is a 404: that is the management port.
    """

    def __init__(self, application: WSGIHandler, threads: int, *, probes_only: bool = False) -> None:
        self._application = application
        self._probes_only = probes_only
        self._requests = ThreadPoolExecutor(threads, thread_name_prefix="request")
        self._probes = ThreadPoolExecutor(_PROBE_THREADS, thread_name_prefix="probe")
        self._held = 0

    async def __call__(self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        probe = scope["path"].strip("/") in PROBES
        try:
            if scope["http_version"] not in ("1.0", "1.1"):
                raise Refused(505, "http_version", "This is HTTP/1.1 and 1.0 only.")
            if self._probes_only and not probe:
                raise Refused(404, "not_found", "The management port has probes and metrics only.")
            body = await self._read_body(scope, receive)
        except Refused as refusal:
            await self._refuse(refusal, receive, send)
            return
        except Gone:
            return
        threads = self._probes if probe else self._requests
        try:
            await self._answer(threads, environ(scope, body), receive, send)
        finally:
            self._held -= len(body)

    async def _read_body(self, scope: HTTPScope, receive: ASGIReceiveCallable) -> bytes:
        """Return the whole body, counted as held; raise Refused where it is too long or comes too slowly, or Gone."""
        length = _announced_length(scope)
        if length == 0:
            return b""
        if length is not None and length > settings.MAX_BODY_BYTES:
            raise _too_long()
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                await self._fill(body, receive)
        except TimeoutError:
            raise Refused(408, "timeout", f"The request body was not there after {BODY_SECONDS:.0f} s.") from None
        return bytes(body)

    async def _fill(self, body: bytearray, receive: ASGIReceiveCallable) -> None:
        try:
            await self._receive(body, receive)
        except BaseException:  # also the deadline's cancellation
            self._held -= len(body)
            raise

    async def _receive(self, body: bytearray, receive: ASGIReceiveCallable) -> None:
        more = True
        while more:
            message: Any = await receive()
            if message["type"] == "http.disconnect":
                raise Gone
            more = message["more_body"]
            body += message["body"]
            self._held += len(message["body"])
            if len(body) > settings.MAX_BODY_BYTES:
                raise _too_long()
            if self._held > MAX_HELD_BYTES:
                raise Refused(503, "busy", "Too many request bodies are being read. Try again.")

    async def _answer(
        self, threads: ThreadPoolExecutor, environ: dict[str, Any], receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        loop = asyncio.get_running_loop()
        reply = await loop.run_in_executor(threads, _call, self._application, environ)
        await send(reply.start())
        if reply.body is None:
            gone = loop.create_task(_disconnect(receive))
            try:
                await loop.run_in_executor(threads, _send_pieces, reply.response, loop, send, gone)
            finally:
                gone.cancel()
        await send(_piece(reply.body or b"", more=False))

    async def _refuse(self, refusal: Refused, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        body = refusal.body()
        headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
        encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send(Reply(refusal.status, encoded, body, None).start())
        await send(_piece(body, more=True))
        # Closing while the client sends would take the answer away from it.
        with suppress(TimeoutError, Gone):
            async with asyncio.timeout(LINGER_SECONDS):
                await _disconnect(receive, or_end=True)
        await send(_piece(b"", more=False))


def environ(scope: HTTPScope, body: bytes) -> dict[str, Any]:
    """Return the WSGI environment (PEP 3333) of a request whose body has been read.

    A header whose name has an underscore is left out, as nginx and gunicorn do: `X_Forwarded_For` would have the
    same name in WSGI as the header that a proxy sets.
    """
    server, client = scope["server"] or ("localhost", 80), scope["client"] or ("", 0)
    result: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(scope["raw_path"]).decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1] or 0),
        "REMOTE_ADDR": client[0],
        "REMOTE_PORT": str(client[1]),
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for raw_name, raw_value in scope["headers"]:
        if _UNDERSCORE in raw_name or raw_name in (b"content-length", b"transfer-encoding"):
            continue
        name = raw_name.decode("latin-1").upper().replace("-", "_")
        name = name if name == "CONTENT_TYPE" else f"HTTP_{name}"
        value = raw_value.decode("latin-1")
        separator = "; " if name == "HTTP_COOKIE" else ","
        result[name] = f"{result[name]}{separator}{value}" if name in result else value
    return result


def _announced_length(scope: HTTPScope) -> int | None:
    """Return the body's length from the headers, None where only its end will tell."""
    length: int | None = 0
    for name, value in scope["headers"]:
        if name == b"content-length":
            length = int(value)
        elif name == b"transfer-encoding":
            length = None
    return length


def _too_long() -> Refused:
    return Refused(413, "too_large", f"The request body is longer than {settings.MAX_BODY_BYTES} bytes.")


def _call(application: WSGIHandler, environ: dict[str, Any]) -> Reply:
    """Run the application to the beginning of its answer; to the end, where it does not stream."""
    started: list[tuple[int, list[tuple[bytes, bytes]]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], *_: Any) -> Any:
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        started.append((int(status[:3]), encoded))

    response: Any = application(environ, start_response)
    status, headers = started[-1]
    if response.streaming:
        return Reply(status, headers, None, response)
    body = b"".join(response)
    response.close()
    return Reply(status, headers, body, response)


def _send_pieces(
    response: Any, loop: asyncio.AbstractEventLoop, send: ASGISendCallable, gone: "asyncio.Task[None]"
) -> None:
    """Send an answer piece by piece, each when the one before is on its way, until the client has gone."""
    try:
        pieces: Iterable[bytes] = response
        for piece in pieces:
            if gone.done():
                return
            sent: Future[None] = asyncio.run_coroutine_threadsafe(_send(send, piece), loop)
            sent.result()
    finally:
        response.close()


async def _send(send: ASGISendCallable, piece: bytes) -> None:
    await send(_piece(piece, more=True))


async def _disconnect(receive: ASGIReceiveCallable, *, or_end: bool = False) -> None:
    """Return when the client has gone, or when its body has ended; discard what it sends."""
    message: Any = {"more_body": True}
    while message.get("more_body") or not or_end:
        message = await receive()
        if message["type"] == "http.disconnect":
            return


def _piece(body: bytes, *, more: bool) -> Any:
    return {"type": "http.response.body", "body": body, "more_body": more}
