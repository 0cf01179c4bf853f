"""Tokens with a real server of two workers, whose stores and `default` are killed, emptied and frozen."""

import http.client
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from conversations.runtime import revoked
from conversations.stores.redis.keys import note_key
from tests.builders import a_session, make_token
from tests.configured import LONG_SECRET
from tests.faults.service import PATIENCE
from tests.server.deployment import Deployment
from tests.servers import eventually

MOST_SECONDS = 2.0
ALL_WORKERS = 20  # new connections, of which each goes to one of two workers


class WithTokens(Deployment):
    """A service whose operator makes and revokes tokens; what is noted reaches it through the stores alone."""

    def restart(self, **variables: str) -> None:
        """Start the service again; return when it answers, with stores or without."""
        self.service.stop()
        self.service.environment |= variables
        self.service.start()
        eventually(self._answers, "it does not serve", PATIENCE)

    def token(self, *words: str) -> tuple[int, Any]:
        """Return the exit code and the report of `manage.py token`."""
        return self.manage("token", *words)

    def create(self, *words: str) -> tuple[str, str]:
        """Return the id and the token."""
        code, made = self.token("create", "somebody", *words)
        assert code == 0
        return made["id"], made["token"]

    def ask(self, token: str | bytes, session: str = "") -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.service.port, timeout=10)
        value = b"Bearer " + (token.encode() if isinstance(token, str) else token)
        body = json.dumps({"question": "What is Redis?", "session_id": session or a_session()})
        headers = {"Authorization": value, "Content-Type": "application/json"}
        try:
            connection.request("POST", "/api/chat/ask", body, headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def statuses(self, token: str) -> set[int]:
        """Return what the workers answer, every one of them."""
        return {self.ask(token)[0] for _ in range(ALL_WORKERS)}

    def seconds_until_refused(self, token: str) -> float:
        """Return for how long some worker still accepted the token."""
        begun = last = time.monotonic()
        while (found := self.statuses(token)) != {401}:
            assert time.monotonic() < begun + 10, found
            last = time.monotonic()
        return last - begun

    def noted_in_redis(self) -> set[str]:
        with self.redis.client() as redis:
            return set(json.loads(redis.get(note_key(revoked.NOTE)) or "{}"))

    def _answers(self) -> bool:
        try:
            return self.service.request("GET", "/livez")[0] == 200
        except (OSError, http.client.HTTPException):
            return False


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WithTokens]:
    variables = {"CHAT_AUTH": "token", "CHAT_RATE": "100000/min", "SECRET_KEY": LONG_SECRET}
    deployment = WithTokens(tmp_path_factory.mktemp("tokens"), **variables)
    try:
        yield deployment.start()
    finally:
        deployment.stop()


@pytest.fixture
def started(deployment: WithTokens) -> Iterator[WithTokens]:
    """The same, with all that a test has stopped started again."""
    yield deployment
    for server in (deployment.redis, deployment.mongo):
        if not server.process:
            server.start()
        server.thaw()
    deployment.service.wait()


def report(what: str, seconds: float) -> None:
    print(f"{what}: refused by every worker after {seconds:.2f} s")  # noqa: T201  (with -rP: the figure of guarantees.md)


def test_a_revoked_token_is_refused_in_every_worker(started: WithTokens) -> None:
    (identity, token), other = started.create(), make_token("somebody")
    assert started.statuses(token) == {200}
    code, done = started.token("revoke", identity)
    assert (code, done["missed"]) == (0, [])
    seconds = started.seconds_until_refused(token)
    report("both stores", seconds)
    assert seconds <= MOST_SECONDS
    assert started.statuses(other) == {200}


@pytest.mark.parametrize("name", ["redis", "mongo"])
@pytest.mark.parametrize("fault", ["kill", "freeze"])
def test_with_a_store_out_a_valid_token_works_and_a_revoked_one_does_not(
    started: WithTokens, name: str, fault: str
) -> None:
    (identity, token), other = started.create(), make_token("somebody")
    getattr(getattr(started, name), fault)()
    eventually(lambda: started.statuses(token) == {200}, "a valid token is refused")
    code, done = started.token("revoke", identity)
    assert (code, done["missed"]) == (0, [name])
    seconds = started.seconds_until_refused(token)
    report(f"{name} {fault}", seconds)
    assert seconds <= MOST_SECONDS
    assert started.statuses(other) == {200}


def test_with_default_out_a_valid_token_works_and_a_revoked_one_does_not(started: WithTokens) -> None:
    (identity, token), other = started.create(), make_token("somebody")
    files = {path: path.read_bytes() for path in started.service.home.parent.glob("default.sqlite3*")}
    for path in files:
        path.write_bytes(b"this is no database " * 1000)
    try:
        assert started.token("create", "somebody")[0] == 2
        code, done = started.token("revoke", identity)
        assert (code, done["missed"]) == (0, ["default"])
        assert started.seconds_until_refused(token) <= MOST_SECONDS
        assert started.statuses(other) == {200}
    finally:
        for path, content in files.items():
            path.write_bytes(content)


def test_a_revoked_token_stays_refused_after_a_flush_and_a_restart_with_both_stores_out(started: WithTokens) -> None:
    (identity, token), other = started.create(), make_token("somebody")
    assert started.token("revoke", identity)[0] == 0
    with started.redis.client() as redis:
        redis.flushall()
    eventually(lambda: identity in started.noted_in_redis(), "Redis was not given it again")
    assert started.seconds_until_refused(token) <= MOST_SECONDS
    started.service.stop()
    started.redis.kill()
    started.mongo.kill()
    started.restart()
    assert started.statuses(token) == {401}
    assert started.statuses(other) == {503}  # it is accepted; there is no store


def test_keys_are_rotated_with_an_overlap(started: WithTokens) -> None:
    first, second = "1:the first key of this test is no secret", "2:the second key of this test is no secret"
    of_main = make_token("somebody")
    started.restart(CHAT_KEYS=first)
    identity, of_first = started.create("--tenant", "rotated")
    started.restart(CHAT_KEYS=f"{second},{first}")
    _, of_second = started.create("--tenant", "rotated")
    session = a_session()
    assert [started.ask(token, session)[1]["new_thread"] for token in (of_first, of_second)] == [True, False]
    assert started.statuses(of_main) == {200}
    started.restart(CHAT_KEYS=second)
    assert (started.statuses(of_first), started.statuses(of_second), started.statuses(of_main)) == ({401}, {200}, {200})
    found = {each["id"]: each["state"] for each in started.token("list")[1]["tokens"]}
    assert found[identity] == "no key"
    started.restart(CHAT_KEYS="")


@pytest.mark.parametrize(
    "token",
    [b"A" * 8192, b"main." + b"A:" * 4000, b"\xff\xfe\x80", "main.ü:é:ß".encode(), "main.ü".encode("latin-1"),
     b"main.a:b:c", b"." * 8000, b"a b c"],
)  # fmt: skip
def test_garbage_is_401(started: WithTokens, token: bytes) -> None:
    status, body = started.ask(token)
    assert (status, body["code"]) == (401, "authentication_failed")
