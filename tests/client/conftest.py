"""A running server on the stores of the test process, and the sync and the async client in one form."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import httpx
import pytest

from onesource_client import AsyncClient, AsyncConversation, AsyncStream, Client, OnesourceError, Retries
from onesource_client.errors import NotFound
from onesource_client.retries import Attempts
from tests import environment
from tests.builders import a_session
from tests.client.answering import ASKED, HOLD
from tests.faults.service import Service
from tests.servers import eventually

RETRIES = Retries(tries=100, seconds=60, pause=0.05)


class Running:
    """The server, its answers that a test can hold back, and the questions that were answered."""

    def __init__(self, home: Path, **variables: str) -> None:
        self.hold, self._asked = home / "hold", home / "asked"
        stores = {"REDIS_URL": environment.REDIS.url, "MONGO_URL": environment.MONGO.url}
        answering = {"ANSWERER": "tests.client.answering.InPieces", HOLD: str(self.hold), ASKED: str(self._asked)}
        # A busy machine takes longer than a store may; then another one is read, which the tests do not expect.
        patient = {"REDIS_SOCKET_TIMEOUT_MS": "1000", "REDIS_CONNECT_TIMEOUT_MS": "1000", "MONGO_TIMEOUT_MS": "1000"}
        self.service = Service(home / "service", **stores, **answering, **patient, **variables)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.service.port}"

    def asked(self, question: str) -> int:
        """Return how often the question was answered."""
        return self._asked.read_text().splitlines().count(question) if self._asked.exists() else 0

    def wait_until_well(self) -> None:
        """Wait until the service reads and writes both stores again, after a test that stopped one. Its pings find a
        store before its breakers, one for reads and one for writes, let requests use it."""
        with connected("sync", self.url) as begin:

            def well() -> bool:
                if httpx.get(f"{self.url}/healthz").json()["status"] != "ok":
                    return False
                answer, unknown = begin().ask("Well?"), begin(a_session())
                if (answer.store, answer.stored_in) != ("redis", ("redis",)):
                    return False
                return not_found(unknown.history) and not_found(unknown.delete)  # only if both stores were asked

            eventually(well, "the service does not use both stores")

    def wait_until_asked(self, question: str) -> None:
        eventually(lambda: self.asked(question), "the question is not being answered")


class Awaited:
    """An AsyncConversation that is called like a Conversation."""

    def __init__(self, runner: asyncio.Runner, conversation: AsyncConversation) -> None:
        self._runner = runner
        self._conversation = conversation

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._conversation, name)
        if name == "stream":
            return lambda *these, **named: AwaitedStream(self._runner, found(*these, **named))
        return (lambda *these, **named: self._runner.run(found(*these, **named))) if callable(found) else found


class AwaitedStream:
    def __init__(self, runner: asyncio.Runner, stream: AsyncStream) -> None:
        self._runner = runner
        self._stream = stream

    def __iter__(self) -> Iterator[str]:
        pieces = aiter(self._stream)

        async def following() -> str | None:
            return await anext(pieces, None)

        while (piece := self._runner.run(following())) is not None:
            yield piece

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Quiet(WSGIRequestHandler):
    """Logs no request."""

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def serving(application: Any) -> Iterator[str]:
    """Serve a WSGI application from a thread, and yield its address."""
    with make_server("127.0.0.1", 0, application, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def not_found(call: Callable[[], object]) -> bool:
    try:
        call()
    except NotFound:
        return True
    return False


KINDS = ("sync", "async")
Begin = Callable[..., Any]


@contextmanager
def connected(kind: str, url: str, retries: Retries = RETRIES) -> Iterator[Begin]:
    """Yield a function that returns a conversation of a client of this kind."""
    if kind == "sync":
        with Client(url, retries=retries) as client:
            yield client.conversation
        return
    with asyncio.Runner() as runner:
        asynchronous = AsyncClient(url, retries=retries)
        yield lambda *these, **named: Awaited(runner, asynchronous.conversation(*these, **named))
        runner.run(asynchronous.close())


@pytest.fixture(scope="package")
def _started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("client"), WEB_CONCURRENCY="1")
    running.service.start()
    try:
        running.service.wait()
        yield running
    finally:
        running.hold.unlink(missing_ok=True)
        running.service.stop()


@pytest.fixture
def running(_started: Running) -> Running:
    """The server, which uses both stores whatever was done to them before."""
    _started.wait_until_well()
    return _started


@pytest.fixture(params=KINDS)
def begin(request: pytest.FixtureRequest, running: Running) -> Iterator[Begin]:
    """Return a function that returns a conversation of either client."""
    with connected(request.param, running.url) as begin:
        yield begin


def text_of(conversation: Any, question: str, streams: bool) -> str:
    """Return the answer, of its pieces where it streams."""
    return "".join(conversation.stream(question)) if streams else conversation.ask(question).answer


class Failures:
    """The errors after which a request was sent again; a test can end an outage after the first."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.then: Callable[[], object] = lambda: None
        self._lock = threading.Lock()

    def note(self, error: OnesourceError) -> None:
        with self._lock:  # no thread asks again before the outage is over
            self.seen.append(type(error).__name__)
            if len(self.seen) == 1:
                self.then()


@pytest.fixture
def failures(monkeypatch: pytest.MonkeyPatch) -> Failures:
    noted, pause = Failures(), Attempts.pause

    def noting(self: Attempts, error: OnesourceError) -> float:
        seconds = pause(self, error)
        noted.note(error)
        return seconds

    monkeypatch.setattr(Attempts, "pause", noting)
    return noted
