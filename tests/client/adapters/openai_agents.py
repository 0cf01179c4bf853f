"""OnesourceSession with the OpenAI Agents SDK: its Runner, and a model that answers without a network."""

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from agents import (
    Agent,
    Model,
    ModelResponse,
    Runner,
    Session,
    SessionSettings,
    Usage,
    function_tool,
    set_tracing_disabled,
)
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

from onesource_client import AsyncClient
from onesource_client.adapters.openai_agents import OnesourceSession
from onesource_client.errors import InvalidRequest, TurnsAreWhole

set_tracing_disabled(True)


class Scripted(Model):
    """Answers with what is next, and keeps what it was shown."""

    def __init__(self, *outputs: Any) -> None:
        self._outputs = list(outputs)
        self.shown: list[list[dict[str, Any]]] = []

    async def get_response(self, system_instructions: Any, input: Any, *rest: Any, **options: Any) -> ModelResponse:
        self.shown.append(json.loads(json.dumps(input)))
        output = self._outputs.pop(0)
        if isinstance(output, Exception):
            raise output
        return ModelResponse(output=[output], usage=Usage(), response_id=None)

    def stream_response(self, *these: Any, **options: Any) -> Any:
        raise NotImplementedError


def said(text: str) -> ResponseOutputMessage:
    part = ResponseOutputText(type="output_text", text=text, annotations=[], logprobs=[])
    return ResponseOutputMessage(
        id=f"msg_{uuid.uuid4().hex}", type="message", role="assistant", status="completed", content=[part]
    )


def call(name: str, **arguments: Any) -> ResponseFunctionToolCall:
    return ResponseFunctionToolCall(
        type="function_call", name=name, arguments=json.dumps(arguments), call_id=f"call_{uuid.uuid4().hex}"
    )


@function_tool
def weather(city: str) -> str:
    """Return the weather."""
    return f"rain in {city}"


def with_session(url: str, check: Callable[[OnesourceSession, AsyncClient], Awaitable[None]]) -> None:
    async def run() -> None:
        async with AsyncClient(url) as client:
            await check(OnesourceSession(uuid.uuid4().hex, client), client)

    asyncio.run(run())


def texts(items: Any) -> list[tuple[str, str]]:
    return [(item["role"], item["content"]) for item in items]


def check_it_is_a_session(url: str) -> None:
    async def check(session: OnesourceSession, client: AsyncClient) -> None:
        assert isinstance(session, Session)

    with_session(url, check)


def check_the_next_run_is_shown_the_one_before(url: str) -> None:
    async def check(session: OnesourceSession, client: AsyncClient) -> None:
        model = Scripted(said("A store."), said("Redis."))
        agent = Agent("Assistant", model=model)
        await Runner.run(agent, "What is Redis?", session=session)
        elsewhere = OnesourceSession(session.session_id, client)
        result = await Runner.run(agent, "What did I ask about?", session=elsewhere)
        assert result.final_output == "Redis."
        assert texts(model.shown[1]) == [
            ("user", "What is Redis?"), ("assistant", "A store."), ("user", "What did I ask about?")
        ]  # fmt: skip
        assert [each.content for each in await client.conversation(session.session_id).history()] == [
            "What is Redis?", "A store.", "What did I ask about?", "Redis."
        ]  # fmt: skip
        assert not elsewhere.behind

    with_session(url, check)


def check_calls_of_tools_are_shown_in_their_run_and_not_kept(url: str) -> None:
    async def check(session: OnesourceSession, client: AsyncClient) -> None:
        model = Scripted(call("weather", city="Ghent"), said("It rains."))
        await Runner.run(Agent("Assistant", model=model, tools=[weather]), "Weather?", session=session)
        assert [item.get("type") for item in model.shown[1]][1:] == ["function_call", "function_call_output"]
        assert texts(await session.get_items()) == [("user", "Weather?"), ("assistant", "It rains.")]

    with_session(url, check)


def check_an_answer_goes_on_after_a_call_of_a_tool(url: str) -> None:
    async def check(session: OnesourceSession, client: AsyncClient) -> None:
        tool = {"type": "function_call", "call_id": "c", "name": "weather", "arguments": "{}"}
        result = {"type": "function_call_output", "call_id": "c", "output": "rain"}
        first, last = said("Let me look.").model_dump(), said("It rains.").model_dump()
        await session.add_items([{"role": "user", "content": "Weather?"}, first, tool, result])
        assert [item.get("type") for item in await session.get_items()][1:] == [
            "message", "function_call", "function_call_output"
        ]  # fmt: skip
        await session.add_items([last])
        assert texts(await session.get_items()) == [("user", "Weather?"), ("assistant", "Let me look.\n\nIt rains.")]

    with_session(url, check)


def check_the_latest_items_are_returned(url: str) -> None:
    async def check(session: OnesourceSession, client: AsyncClient) -> None:
        for number in range(3):
            await session.add_items([{"role": "user", "content": f"{number}?"}, said(f"{number}.").model_dump()])
        assert texts(await session.get_items(3)) == [("assistant", "1."), ("user", "2?"), ("assistant", "2.")]
        assert (len(await session.get_items(100)), await session.get_items(0)) == (6, [])
        session.session_settings = SessionSettings(limit=1)
        assert texts(await session.get_items()) == [("assistant", "2.")]

    with_session(url, check)


def check_a_run_that_fails_leaves_its_question_in_memory(url: str) -> None:
    async def check(session: OnesourceSession, client: AsyncClient) -> None:
        agent = Agent("Assistant", model=Scripted(ConnectionError("no model"), said("Now.")))
        with suppress(ConnectionError):
            await Runner.run(agent, "First?", session=session)
        await Runner.run(agent, "Again?", session=session)
        assert [each.content for each in await client.conversation(session.session_id).history()][1:] == ["Now."]

    with_session(url, check)


def check_a_text_that_is_too_long_is_refused_and_nothing_stored(url: str) -> None:
    async def check(session: OnesourceSession, client: AsyncClient) -> None:
        model = Scripted(said("x" * 65_537), said("Now."))
        agent = Agent("Assistant", model=model)
        for question in ("x" * 65_537, "Long?"):  # the first before a model is asked, the second for its answer
            try:
                await Runner.run(agent, question, session=session)
            except InvalidRequest as error:
                assert "65,536 characters" in str(error)
            else:
                raise AssertionError("it was not refused")
        assert len(model.shown) == 1
        assert texts(await session.get_items()) == [("user", "Long?")]
        assert await OnesourceSession(session.session_id, client).get_items() == []
        await Runner.run(agent, "Again?", session=session)
        assert (await client.conversation(session.session_id).history())[-1].content == "Now."

    with_session(url, check)


def check_what_is_not_stored_can_be_popped(url: str) -> None:
    async def check(session: OnesourceSession, client: AsyncClient) -> None:
        assert await session.pop_item() is None
        question = {"role": "user", "content": "What?"}
        await session.add_items([question])
        assert await session.pop_item() == question
        assert await session.get_items() == []
        await session.add_items([question, said("That.").model_dump()])
        try:
            await session.pop_item()
        except TurnsAreWhole:
            return
        raise AssertionError("a message of a stored turn was popped")

    with_session(url, check)


def check_clearing_deletes_the_conversation(url: str) -> None:
    async def check(session: OnesourceSession, client: AsyncClient) -> None:
        await session.clear_session()
        await session.add_items([{"role": "user", "content": "What?"}, said("That.").model_dump()])
        await session.clear_session()
        assert await OnesourceSession(session.session_id, client).get_items() == []

    with_session(url, check)
