"""Between connections and Django: the event loop reads whole bodies and writes answers, threads run the views.

A request has a thread only once its body is there, so clients that send slowly hold none. Probes and metrics have
threads of their own: requests that wait for a model cannot keep them waiting. `/livez` needs no thread at all.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import orjson
from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler

from conversations.probes.urls import PROBES
from ops.errors import ClientGone, RequestRefused
from ops.server.environ import environ
from telemetry import request_id

BODY_SECONDS = 20.0  # for a whole body
LINGER_SECONDS = 2.0  # for a client to read why its body is refused, while it is still sending
MAX_HELD_BYTES = 64 * 2**20  # of all bodies together that a process holds, beyond the first bytes of each
FREE_BYTES = 16_384  # of each body: few large bodies cannot keep out the many small ones
MAX_WAITING = 1024  # requests that have no thread yet
_PROBE_THREADS = 2
_ASKING = {"readyz", "metrics"}  # probes that take their time
T = TypeVar("T")


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
        self._requests = Threads(threads, "request")
        self._probes = Threads(_PROBE_THREADS, "probe")
        self._asking = Threads(_PROBE_THREADS, "asking probe")
        self._held = 0

    async def __call__(self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        name = scope["path"].strip("/")
        request_id.begin(request_id.sent(scope["headers"]))
        try:
            self._check(scope, name)
            body = await self._read_body(scope, receive)
            try:
                if name == "livez" and scope["method"] in ("GET", "HEAD"):
                    await _send_whole(_reply(200, b"ok\n", "text/plain", {}), send)
                else:
                    await self._answer(self._threads(name), scope, body, receive, send)
            finally:
                self._held -= _held(len(body))
        except RequestRefused as refusal:
            await self._refuse(refusal, receive, send)
        except ClientGone:
            return

    def _check(self, scope: HTTPScope, name: str) -> None:
        """Raise RequestRefused for a request that needs no body to be refused."""
        encodings = [value for header, value in scope["headers"] if header == b"transfer-encoding"]
        if scope["http_version"] not in ("1.0", "1.1"):
            raise RequestRefused(505, "http_version", "This is HTTP/1.1 and 1.0 only.")
        if scope["http_version"] == "1.1" and b"host" not in dict(scope["headers"]):
            raise RequestRefused(400, "bad_request", "A request of HTTP/1.1 must have a Host header.")
        if encodings and (encodings != [b"chunked"] or scope["http_version"] == "1.0"):
            raise RequestRefused(501, "transfer_encoding", "The only Transfer-Encoding here is chunked, of HTTP/1.1.")
        if self._probes_only and name not in PROBES:
            raise RequestRefused(404, "not_found", "The management port has probes and metrics only.")

    def _threads(self, name: str) -> "Threads":
        if name in _ASKING:
            return self._asking
        return self._probes if name in PROBES else self._requests

    async def _read_body(self, scope: HTTPScope, receive: ASGIReceiveCallable) -> bytes:
        """Return the whole body, counted as held; raise RequestRefused where it is too long or
        comes too slowly, or ClientGone."""
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
            raise RequestRefused(
                408, "timeout", f"The request body was not there after {BODY_SECONDS:.0f} s."
            ) from None
        return bytes(body)

    async def _fill(self, body: bytearray, receive: ASGIReceiveCallable) -> None:
        try:
            await self._receive(body, receive)
        except BaseException:  # also the deadline's cancellation
            self._held -= _held(len(body))
            raise

    async def _receive(self, body: bytearray, receive: ASGIReceiveCallable) -> None:
        more = True
        while more:
            message: Any = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            more = message["more_body"]
            before = _held(len(body))
            body += message["body"]
            self._held += _held(len(body)) - before
            if len(body) > settings.MAX_BODY_BYTES:
                raise _too_long()
            if self._held > MAX_HELD_BYTES and len(body) > FREE_BYTES:
                raise RequestRefused(503, "busy", "Too many request bodies are being read. Try again.")

    async def _answer(
        self, threads: "Threads", scope: HTTPScope, body: bytes, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        async with threads.free(receive):
            reply = await threads.run(_call, self._application, environ(scope, body))
            if reply.body is None and scope["http_version"] == "1.0":  # which knows no answer in pieces
                reply = await threads.run(_whole, reply)
            if reply.body is not None:
                await _send_whole(reply, send)
                return
            await send(reply.start())
            loop = asyncio.get_running_loop()
            gone = loop.create_task(_disconnect(receive))
            try:
                await threads.run(_send_pieces, reply.response, loop, send, gone)
            finally:
                gone.cancel()
            await send(_piece(b"", more=False))

    async def _refuse(self, refusal: RequestRefused, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        reply = _refusal(refusal)
        await send(reply.start())
        await send(_piece(reply.body or b"", more=True))
        # Closing while the client sends would take the answer away from it.
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                await _disconnect(receive, or_end=True)
        await send(_piece(b"", more=False))


class Threads:
    """So many threads, and a bounded number of requests that wait for one."""

    def __init__(self, number: int, name: str) -> None:
        self._executor = ThreadPoolExecutor(number, thread_name_prefix=name)
        self._free = asyncio.Semaphore(number)
        self._waiting = 0

    @asynccontextmanager
    async def free(self, receive: ASGIReceiveCallable) -> AsyncIterator[None]:
        """Have a thread free until the end of the block. Raise RequestRefused where too many wait already, and
        ClientGone where it has gone by the time that a thread is free: nothing was begun."""
        if self._free.locked():
            await self._wait(receive)
        else:
            await self._free.acquire()
        try:
            yield
        finally:
            self._free.release()

    async def run(self, call: Callable[..., T], *arguments: Any) -> T:
        """Return what the call returns, in a thread that has the request's context."""
        run: Callable[..., T] = copy_context().run
        return await asyncio.get_running_loop().run_in_executor(self._executor, run, call, *arguments)

    async def _wait(self, receive: ASGIReceiveCallable) -> None:
        if self._waiting >= MAX_WAITING:
            raise RequestRefused(503, "busy", "Too many requests are waiting. Try again.")
        self._waiting += 1
        gone = asyncio.create_task(_disconnect(receive))
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
            left = gone.done()
            gone.cancel()
        if left:
            self._free.release()
            raise ClientGone


def _announced_length(scope: HTTPScope) -> int | None:
    """Return the body's length from the headers, None where it is not known before the end."""
    length: int | None = 0
    for name, value in scope["headers"]:
        if name == b"content-length":
            length = int(value)
        elif name == b"transfer-encoding":
            length = None
    return length


def _too_long() -> RequestRefused:
    return RequestRefused(413, "too_large", f"The request body is longer than {settings.MAX_BODY_BYTES} bytes.")


def _held(length: int) -> int:
    """Return what of a body counts as held."""
    return max(0, length - FREE_BYTES)


def _refusal(refused: RequestRefused) -> Reply:
    headers = {"Cache-Control": "no-store", "Connection": "close"}
    if refused.status == 503:
        headers["Retry-After"] = "1"
    body = orjson.dumps({"code": refused.code, "detail": refused.detail, "request_id": request_id.current()})
    return _reply(refused.status, body, "application/json", headers)


def _reply(status: int, body: bytes, kind: str, headers: dict[str, str]) -> Reply:
    fields = {
        "Content-Type": kind,
        "Content-Length": str(len(body)),
        request_id.HEADER: request_id.current(),
        **headers,
    }
    return Reply(status, [(name.encode(), value.encode()) for name, value in fields.items()], body, None)


def _call(application: WSGIHandler, environ: dict[str, Any]) -> Reply:
    """Run the application to the beginning of its answer; to the end, where it does not stream."""
    started: list[tuple[int, list[tuple[bytes, bytes]]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], *_: Any) -> Any:
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        started.append((int(status[:3]), encoded))

    response: Any = application(environ, start_response)
    status, headers = started[-1]
    if status == 204:  # RFC 9110 8.6: it has no length
        headers = [(name, value) for name, value in headers if name.lower() != b"content-length"]
    reply = Reply(status, headers, None, response)
    return reply if response.streaming else _whole(reply)


def _whole(reply: Reply) -> Reply:
    body = b"".join(reply.response)
    reply.response.close()
    without_length = not any(name.lower() == b"content-length" for name, _ in reply.headers)
    if without_length and reply.status not in (204, 304):
        reply.headers.append((b"Content-Length", str(len(body)).encode()))
    return replace(reply, body=body)


async def _send_whole(reply: Reply, send: ASGISendCallable) -> None:
    await send(reply.start())
    await send(_piece(reply.body or b"", more=False))


def _send_pieces(
    response: Any, loop: asyncio.AbstractEventLoop, send: ASGISendCallable, gone: "asyncio.Task[None]"
) -> None:
    """Send an answer piece by piece, each when the one before is on its way. When the client has gone the rest is still
    read: the answer is stored all the same, and the server waits for it before it stops."""
    try:
        pieces: Iterable[bytes] = response
        for piece in pieces:
            if not gone.done():
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
