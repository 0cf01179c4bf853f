"""The limits of a client over a real server of two workers, which are killed, as its Redis is."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from conversations.stores.sessions import make_key
from conversations.turns import History
from tests import environment
from tests.builders import a_session, make_token, some_turns
from tests.configured import LONG_SECRET
from tests.faults.service import Service
from tests.server import clients
from tests.server.answering import VARIABLE
from tests.server.conftest import waiting
from tests.servers import RedisServer, eventually

PER_MINUTE, AT_ONCE, WORKERS, TENANT_BYTES = 20, 3, 2, 50_000
FULL = "full"
"""A tenant that is over its limit when the service starts."""


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    with server.client() as client:
        client.set(make_key(f"{FULL}:s"), History.of(some_turns(1, TENANT_BYTES)).lines(), ex=600)
    yield server
    server.kill()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, redis: RedisServer, hold: Path) -> Iterator[Service]:
    service = Service(
        tmp_path_factory.mktemp("service"), REDIS_URL=redis.url, MONGO_URL=environment.MONGO.url,
        SECRET_KEY=LONG_SECRET, CHAT_AUTH="token", CHAT_RATE=f"{PER_MINUTE}/min", CHAT_CONCURRENT=str(AT_ONCE),
        TENANT_MAX_BYTES=str(TENANT_BYTES),
        WEB_CONCURRENCY=str(WORKERS), ANSWERER="tests.server.answering.Held", **{VARIABLE: str(hold)},
    ).start()  # fmt: skip
    try:
        service.wait()
        yield service
    finally:
        hold.unlink(missing_ok=True)
        service.stop()


def a_question(token: str, *, session: str = "", key: str = "", stream: bool = False) -> bytes:
    fields = {"question": "What is Redis?", "session_id": session or a_session(), "stream": stream}
    headers = [f"Authorization: Bearer {token}", *([f"Idempotency-Key: {key}"] if key else [])]
    return clients.post(json.dumps(fields).encode(), "/api/chat/ask", *headers)


def statuses(service: Service, token: str, asks: int) -> list[int]:
    """Return the status of each of so many questions, one after another: each may go to another worker."""
    return [clients.status(clients.answer(service.port, a_question(token))) for _ in range(asks)]


def test_the_workers_together_let_through_the_rate(service: Service) -> None:
    before = sum(service.metric("rate_fallbacks_total"))
    found = statuses(service, make_token("somebody", a_session()), 2 * PER_MINUTE)
    alone = sum(service.metric("rate_fallbacks_total")) - before  # a busy machine's Redis does not answer in time
    assert 429 in found or alone
    assert PER_MINUTE <= found.count(200) <= PER_MINUTE + WORKERS + alone


def test_with_redis_killed_each_counts_alone_and_nobody_waits(service: Service, redis: RedisServer) -> None:
    token = make_token("somebody", a_session())
    before = statuses(service, token, 5)
    redis.kill()
    try:
        begun = time.monotonic()
        found = before + statuses(service, token, 3 * PER_MINUTE)
        took = time.monotonic() - begun
    finally:
        redis.start()
        service.wait()
    assert set(found) == {200, 429}
    assert PER_MINUTE <= found.count(200) <= WORKERS * PER_MINUTE
    assert took < 0.3 * len(found)
    assert sum(service.metric("rate_fallbacks_total")) > 0


@pytest.mark.parametrize("stream", [False, True])
def test_one_token_cannot_have_all_threads(service: Service, hold: Path, stream: bool) -> None:
    """A slow model holds the answers; another tenant with the same name, session and key is not kept out."""
    name, session, key = a_session(), a_session(), a_session()
    token, other = make_token(name, a_session()), make_token(name, a_session())
    with ExitStack() as stack:
        hold.touch()
        stack.callback(hold.unlink, missing_ok=True)
        begin(stack, service, *(a_question(token, stream=stream) for _ in range(AT_ONCE)))
        refusal = clients.answer(service.port, a_question(token, session=session, key=key, stream=stream))
        assert clients.status(refusal) == 429
        assert b"\r\nretry-after: 1\r\n" in refusal.lower()
        assert json.loads(refusal.partition(b"\r\n\r\n")[2])["code"] == "too_many_asks"
        (connection,) = begin(stack, service, a_question(other, session=session, key=key, stream=stream))
        hold.unlink()
        assert clients.status(clients.rest(connection)) == 200
        eventually(lambda: begins(service, token), "no place came back")


def test_a_stream_counts_until_it_ends_though_its_client_has_gone(service: Service, hold: Path) -> None:
    token = make_token(a_session(), a_session())
    hold.touch()
    try:
        with ExitStack() as stack:
            begin(stack, service, *(a_question(token, stream=True) for _ in range(AT_ONCE)))
        assert not begins(service, token)
    finally:
        hold.unlink()
    eventually(lambda: begins(service, token), "no place came back")


def test_the_places_of_killed_workers_come_back(service: Service, hold: Path) -> None:
    token = make_token(a_session(), a_session())
    with ExitStack() as stack:
        hold.touch()
        stack.callback(hold.unlink, missing_ok=True)
        begin(stack, service, *(a_question(token) for _ in range(AT_ONCE)))
        assert not begins(service, token)
        for _ in range(WORKERS + 1):  # and the process of the management port
            service.kill_worker()
        service.wait()
        begin(stack, service, *(a_question(token) for _ in range(AT_ONCE)))
        assert not begins(service, token)


def test_every_worker_refuses_a_tenant_that_is_full(service: Service) -> None:
    def refused() -> bool:
        tokens = [make_token(a_session(), FULL) for _ in range(10)]  # each question may go to another worker
        return {status for token in tokens for status in statuses(service, token, 1)} == {413}

    eventually(refused, "it is not refused", patience=60)
    assert statuses(service, make_token(a_session(), a_session()), 1) == [200]
    assert sum(service.metric("tenants_full")) == 1


def begin(stack: ExitStack, service: Service, *questions: bytes) -> list[clients.socket.socket]:
    """Send the questions; return the connections once all are being answered."""
    before = waiting(service)
    connections = [stack.enter_context(clients.connect(service.port, one)) for one in questions]
    eventually(lambda: waiting(service) >= before + len(questions), "the answers are not being held")
    return connections


def begins(service: Service, token: str) -> bool:
    """Return whether a further question of the token is answered."""
    return clients.status(clients.answer(service.port, a_question(token))) == 200
