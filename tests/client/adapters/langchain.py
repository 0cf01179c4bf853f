"""OnesourceChatMessageHistory with langchain-core: its RunnableWithMessageHistory, and a chain without a model."""

import asyncio
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.runnables.history import RunnableWithMessageHistory

from onesource_client import Client
from onesource_client.adapters.langchain import OnesourceChatMessageHistory
from onesource_client.errors import InvalidRequest


@contextmanager
def a_history(url: str) -> Iterator[OnesourceChatMessageHistory]:
    with Client(url) as client:
        yield OnesourceChatMessageHistory(uuid.uuid4().hex, client)


def again(history: OnesourceChatMessageHistory, client: Client) -> list[tuple[str, Any]]:
    """Return what another process sees."""
    return texts(OnesourceChatMessageHistory(history.session_id, client).messages)


def texts(messages: list[BaseMessage]) -> list[tuple[str, Any]]:
    return [(message.type, message.content) for message in messages]


def _count(messages: list[BaseMessage]) -> AIMessage:
    return AIMessage(f"{len(messages) - 1} before")


def check_it_is_a_history(url: str) -> None:
    with a_history(url) as history:
        assert isinstance(history, BaseChatMessageHistory)
        assert history.messages == []


def check_a_chain_is_shown_what_was_said(url: str) -> None:
    with Client(url) as client:
        chain = RunnableWithMessageHistory(
            RunnableLambda(_count), lambda session_id: OnesourceChatMessageHistory(session_id, client)
        )
        config: Any = {"configurable": {"session_id": uuid.uuid4().hex}}
        answers = [chain.invoke([HumanMessage("What is Redis?")], config) for _ in range(2)]
        answers.append(asyncio.run(chain.ainvoke([HumanMessage("And?")], config)))
    assert [answer.content for answer in answers] == ["0 before", "2 before", "4 before"]


def check_a_turn_is_stored_when_it_is_whole(url: str) -> None:
    with Client(url) as client:
        history = OnesourceChatMessageHistory(uuid.uuid4().hex, client)
        history.add_user_message("What?")
        assert (texts(history.messages), again(history, client)) == ([("human", "What?")], [])
        history.add_ai_message("That.")
        assert again(history, client) == texts(history.messages) == [("human", "What?"), ("ai", "That.")]
        assert not history.behind


def check_calls_of_tools_are_not_kept(url: str) -> None:
    with Client(url) as client:
        history = OnesourceChatMessageHistory(uuid.uuid4().hex, client)
        call: Any = {"name": "weather", "args": {}, "id": "c"}
        history.add_messages([SystemMessage("Be brief."), HumanMessage("Weather?"), AIMessage("", tool_calls=[call])])
        assert len(history.messages) == 3
        history.add_messages(
            [ToolMessage("rain", tool_call_id="c"), AIMessage([{"type": "text", "text": "It rains."}])]
        )
        assert again(history, client) == texts(history.messages) == [("human", "Weather?"), ("ai", "It rains.")]


def check_a_text_that_is_too_long_is_refused_and_nothing_stored(url: str) -> None:
    with Client(url) as client:
        history = OnesourceChatMessageHistory(uuid.uuid4().hex, client)
        whole = [HumanMessage("What?"), AIMessage("That.")]
        try:
            history.add_messages([*whole, HumanMessage("More?"), AIMessage("x" * 65_537)])
        except InvalidRequest as error:
            assert "65,536 characters" in str(error)  # noqa: PT017
        else:
            raise AssertionError("it was not refused")
        assert again(history, client) == texts(history.messages) == []
        history.add_messages([*whole, HumanMessage("More?"), AIMessage("x" * 65_536)])
        assert len(again(history, client)) == 4


def check_clearing_deletes_the_conversation(url: str) -> None:
    with Client(url) as client:
        history = OnesourceChatMessageHistory(uuid.uuid4().hex, client)
        history.clear()
        history.add_messages([HumanMessage("What?"), AIMessage("That.")])
        history.clear()
        assert again(history, client) == []
