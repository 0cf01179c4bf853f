"""CHAT_CONCURRENT in one process; tests/server/test_limits.py has several."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django import Settings

from conversations.answerers.base import Answerer
from conversations.errors import AnswererFailed, TooManyAsks
from conversations.runtime.asking import Places, asking
from conversations.turns import History
from tests.api.talking import let, post
from tests.api.test_errors import refused
from tests.builders import a_session


class Asks(Answerer):
    """Answers with the status of a question that is asked meanwhile."""

    def answer(self, question: str, history: History, *, behind: bool = False) -> Iterator[str]:
        yield "inner" if question == "inner" else str(post({"question": "inner"}).status_code)


class Fails(Answerer):
    def answer(self, question: str, history: History, *, behind: bool = False) -> Iterator[str]:
        raise AnswererFailed("of the test")


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "run" / "asking")


def test_no_more_than_the_limit_have_a_place(places: Places) -> None:
    taken = [places.take("a", 3) for _ in range(3)]
    assert sorted(taken) == [0, 1, 2]
    with pytest.raises(TooManyAsks):
        places.take("a", 3)
    places.give("a", taken[1])
    assert places.take("a", 3) == taken[1]


def test_each_client_has_its_own_places(places: Places) -> None:
    for name in ("tenant:name", "other:name", "@127.0.0.1", "@\udcff"):
        assert places.take(name, 1) == 0


def test_what_nobody_asks_any_more_is_forgotten(places: Places) -> None:
    places.give("a", places.take("a", 3))
    assert places._mine == {}


def test_without_a_file_the_process_counts_alone(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    places = Places(tmp_path / "run" / "asking")
    assert [places.take("a", 2), places.take("a", 2)] != []
    with pytest.raises(TooManyAsks):
        places.take("a", 2)
    places.give("a", 1)
    assert places.take("a", 2) == 1


@let(Asks)
def test_an_ask_beside_as_many_as_there_may_be_is_429(answered_by: None, settings: Settings) -> None:
    settings.CHAT_CONCURRENT = 1
    response = post({"question": "outer"})
    assert response.json()["answer"] == "429"
    settings.CHAT_CONCURRENT = 2
    assert post({"question": "outer"}).json()["answer"] == "200"


@pytest.mark.parametrize("stream", [False, True])
def test_the_refusal_says_when_to_try_again(settings: Settings, stream: bool) -> None:
    settings.CHAT_CONCURRENT = 1
    with asking("@127.0.0.1"):
        response = post({"question": "a", "stream": stream})
    refused(response, 429, "too_many_asks")
    assert response["Retry-After"] == "1"


@pytest.mark.parametrize("stream", [False, True])
@let(Fails)
def test_a_question_that_fails_gives_its_place_back(answered_by: None, settings: Settings, stream: bool) -> None:
    settings.CHAT_CONCURRENT = 1
    for _ in range(3):
        response = post({"question": "a", "session_id": a_session(), "stream": stream})
        text = b"".join(response.streaming_content) if stream else response.content
        assert b"answerer_failed" in text
