"""Tokens of an issuer with a real server of two workers, whose issuer rotates its keys and goes out."""

import http.client
import json
import time
from collections.abc import Iterator

import pytest

from conversations.runtime import issuer
from tests import environment
from tests.builders import a_session
from tests.faults.service import PATIENCE, Service
from tests.issuer import AUDIENCE, Issuer
from tests.servers import eventually

ALL_WORKERS = 20  # new connections, of which each goes to one of two workers


@pytest.fixture(scope="module")
def there() -> Iterator[Issuer]:
    one = Issuer()
    one.add_key()
    try:
        yield one.start()
    finally:
        one.stop()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, there: Issuer) -> Iterator[Service]:
    service = Service(
        tmp_path_factory.mktemp("oidc"), REDIS_URL=environment.REDIS.url, MONGO_URL=environment.MONGO.url,
        CHAT_AUTH="token", CHAT_RATE="100000/min", WEB_CONCURRENCY="2", OIDC_ISSUER=there.url, OIDC_AUDIENCE=AUDIENCE,
    ).start()  # fmt: skip
    try:
        service.wait()
        yield service
    finally:
        service.stop()


def ask(service: Service, token: str) -> tuple[int, float]:
    """Return the status, and how many seconds it took."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=10)
    body = json.dumps({"question": "What is Redis?", "session_id": a_session()})
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    begun = time.monotonic()
    try:
        connection.request("POST", "/api/chat/ask", body, headers)
        return connection.getresponse().status, time.monotonic() - begun
    finally:
        connection.close()


def statuses(service: Service, token: str) -> set[int]:
    """Return what the workers answer, every one of them."""
    return {ask(service, token)[0] for _ in range(ALL_WORKERS)}


def test_keys_are_rotated_and_outlive_the_issuer_and_a_worker(service: Service, there: Issuer) -> None:
    eventually(lambda: statuses(service, there.token()) == {200}, "a good token is refused", PATIENCE)
    there.add_key("two", "ES256")
    begun = time.monotonic()
    eventually(lambda: statuses(service, there.token("two")) == {200}, "a new key is not fetched", PATIENCE)
    assert time.monotonic() - begun < issuer.AGAIN + 5
    there.stop()
    service.kill_worker()
    eventually(lambda: len(service.workers()) == 3, "the worker is not replaced", PATIENCE)
    service.wait()
    assert statuses(service, there.token("two")) == {200}
    there.start()


def test_an_issuer_that_never_answers_delays_no_request(service: Service, there: Issuer) -> None:
    """Tokens of unknown keys make each worker ask an issuer that has been frozen; requests go on meanwhile."""
    there.drip_seconds = 1.0
    try:
        asked = len(there.asked)

        def is_asked() -> bool:
            ask(service, there.token(headers={"kid": "unknown"}))
            return len(there.asked) > asked

        eventually(is_asked, "the issuer is not asked", PATIENCE)
        for _ in range(ALL_WORKERS):
            for token, status in ((there.token(), 200), (there.token(headers={"kid": "unknown"}), 401)):
                answered = 0
                while answered != status:  # on a busy machine a store may be out for a moment
                    answered, seconds = ask(service, token)
                    assert answered in (status, 503)
                    assert seconds < 2
    finally:
        there.drip_seconds = 0.0
