"""Every request has a deadline for its calls to stores, and its model's time is not counted."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis.connection import AbstractConnection

from conversations import deadline
from conversations.answerers.base import Answerer
from conversations.turns import History
from tests.api.talking import ask, delete, get, let, post
from tests.builders import a_session
from tests.unit.test_deadline import Clock, clock  # noqa: F401  # a fixture

REQUESTS: dict[str, Callable[[str], Any]] = {
    "ask": lambda session: post({"question": "And?", "session_id": session}),
    "stream": lambda session: post({"question": "And?", "session_id": session, "stream": True}),
    "list": lambda session: get("conversations/"),
    "read": lambda session: get(f"conversations/{session}/"),
    "export": lambda session: get(f"conversations/{session}/export"),
    "delete": lambda session: delete(f"conversations/{session}/"),
}


class Thinks(Answerer):
    """Takes longer than any request may without its model."""

    clock: Clock

    def answer(self, question: str, history: History, *, behind: bool = False) -> Iterator[str]:
        yield "At "
        self.clock.now += 20.0
        yield "last."


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that each command to Redis could take."""
    found: list[float] = []
    send = AbstractConnection.send_packed_command

    def noted(self: Any, *arguments: Any, **options: Any) -> None:
        found.append(deadline.left())
        send(self, *arguments, **options)

    monkeypatch.setattr(AbstractConnection, "send_packed_command", noted)
    return found


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_every_command_of_a_request_has_its_deadline(
    request_: Callable[[str], Any], left: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    ask("What?", session := a_session())
    left.clear()
    monkeypatch.setattr(deadline, "SECONDS", 1.9)
    response = request_(session)
    assert response.status_code in (200, 204)
    b"".join(response)  # a stream is stored when its last piece is there
    assert left
    assert max(left) < 1.9


@let(Thinks)
@pytest.mark.parametrize("streams", [False, True])
def test_a_model_takes_nothing_of_the_time(answered_by: None, clock: Clock, streams: bool) -> None:  # noqa: F811
    Thinks.clock = clock
    response = post({"question": "What?", "session_id": a_session(), "stream": streams})
    assert b'"stored_in":["redis"]' in b"".join(response)
