"""The list of conversations with several worker processes, a server that is killed, and a list that is lost."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from conversations.clock import now
from conversations.stores.redis.keys import TENANTS, newest_key
from tests import environment
from tests.builders import a_session
from tests.faults.service import Service
from tests.server import clients
from tests.servers import eventually


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    stores = {"REDIS_URL": environment.REDIS.url, "MONGO_URL": environment.MONGO.url, "ANSWERER": "recall"}
    service = Service(tmp_path, **stores, WEB_CONCURRENCY="2").start()
    try:
        service.wait()
        yield service
    finally:
        service.kill()


def ask(service: Service, session: str) -> None:
    assert clients.status(clients.answer(service.port, clients.ask("What?", session))) == 200


def listed(service: Service, sessions: list[str]) -> tuple[list[str], bool]:
    """Return these sessions as they are listed, and whether none can be missing. Other tests have others there."""
    tomorrow = (now() + timedelta(days=1)).date()
    status, _, page = service.request("GET", f"/api/chat/conversations/?limit=100&until={tomorrow}")
    assert status == 200
    found = json.loads(page)
    return [each["session_id"] for each in found["results"] if each["session_id"] in sessions], found["complete"]


def test_the_list_is_right_in_every_process_and_after_each_loss(service: Service) -> None:
    """What is new is there at once, whichever process is asked; what goes on, within a second, or after a kill."""
    sessions: list[str] = []
    for _ in range(3):
        sessions.insert(0, a_session())
        ask(service, sessions[0])
        assert all(listed(service, sessions)[0] == sessions for _ in range(6))
    third, second, first = sessions
    ask(service, first)
    moved = [first, third, second]
    eventually(lambda: all(listed(service, sessions)[0] == moved for _ in range(6)), "it has not moved to the front")
    eventually(lambda: listed(service, sessions)[1], "the list is not complete")
    ask(service, second)
    service.kill()
    with environment.REDIS.client() as client:
        client.delete(newest_key(""), TENANTS, "onesource:listed")
    service.start().wait()
    eventually(lambda: listed(service, sessions) == ([second, first, third], True), "the list is not made anew")
