"""A server that is stopped finishes what it has begun."""

from pathlib import Path

import pytest

from conversations.stores import ALIASES, control
from tests import environment
from tests.builders import a_session
from tests.faults.service import Service
from tests.server import clients
from tests.server.answering import VARIABLE
from tests.server.conftest import waiting
from tests.servers import eventually


@pytest.fixture
def service(tmp_path: Path) -> Service:
    """A server that the test stops and starts."""
    stores = {"REDIS_URL": environment.REDIS.url, "MONGO_URL": environment.MONGO.url}
    return Service(tmp_path, **stores, **{"ANSWERER": "tests.server.answering.Held", VARIABLE: str(tmp_path / "hold")})


def test_an_answer_is_stored_although_its_client_has_gone(service: Service, tmp_path: Path) -> None:
    hold, session = tmp_path / "hold", a_session()
    hold.touch()
    service.start().wait()
    body = b'{"question":"Kept?","session_id":"%s","stream":true}' % session.encode()
    with clients.connect(service.port, clients.post(body)):
        eventually(lambda: waiting(service) >= 1, "the answer is not being held")
    stopping = service.ask_to_stop()
    hold.unlink()
    stopping.wait(30)
    service.start().wait()
    try:
        assert service.request("GET", f"/api/chat/conversations/{session}/")[0] == 200
    finally:
        service.stop()


def heartbeats() -> set[str]:
    """Return the processes that have a heartbeat in a store."""
    return {process for alias in ALIASES for process in control(alias).report().heartbeats}


def test_a_stop_removes_the_heartbeats(service: Service) -> None:
    """Else this machine would seem cut off to the others, and each would answer `behind`."""
    before = heartbeats()
    service.start().wait()
    eventually(lambda: len(heartbeats() - before) >= 3, "not every worker has left a heartbeat")
    service.stop()
    assert heartbeats() - before == set()
