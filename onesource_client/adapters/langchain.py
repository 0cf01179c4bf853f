"""A chat message history of LangChain: `RunnableWithMessageHistory(chain, get)`, where `get` returns
`OnesourceChatMessageHistory(session_id, client)`.

What it keeps: the text of each human message, and of its answer, the AI's messages up to the last one that calls no
tool. What it does not: calls of tools and their results, system messages, images, names and metadata. langchain-core
deprecates such histories since 1.6.4 and names its own memory instead; they work until its 2.0.
"""

from collections.abc import Sequence

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from onesource_client.adapters.whole_turns import QUESTION, Part, Pending
from onesource_client.client import Client
from onesource_client.errors import NotFound


class OnesourceChatMessageHistory(BaseChatMessageHistory):
    """One conversation as a history; the methods that are awaited run in a thread. Not for several at a time."""

    def __init__(self, session_id: str, client: Client) -> None:
        super().__init__()
        self.session_id = session_id
        self.behind = False
        """Whether the last history or the last stored turn was missing turns that this history had been given."""
        self._conversation = client.conversation(session_id)
        self._pending: Pending[BaseMessage] = Pending(_part)

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]  # as in LangChain's own histories
        """The messages of stored turns, and all that is not stored yet."""
        try:
            history = self._conversation.history()
        except NotFound:
            return list(self._pending.items)
        self.behind = history.behind
        stored = (
            HumanMessage(each.content, id=each.id) if each.role == QUESTION else AIMessage(each.content, id=each.id)
            for each in history
        )
        return [*stored, *self._pending.items]

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Add messages, and store the turns that are whole with them. Where that fails none is added: added again, a
        turn that was stored all the same is stored once."""
        with self._pending.adding(messages):
            self._store()

    def clear(self) -> None:
        """Delete the conversation."""
        self._pending.clear()
        try:
            self._conversation.delete()
        except NotFound:
            return

    def _store(self) -> None:
        while turn := self._pending.turn():
            key = self._pending.key(turn)
            self.behind = self._conversation.add_turn(turn.question, turn.answer, idempotency_key=key).behind
            self._pending.stored(turn)


def _part(message: BaseMessage) -> Part:
    if isinstance(message, HumanMessage):
        return Part("user", str(message.text))
    if isinstance(message, AIMessage):
        return Part("assistant", str(message.text), goes_on=bool(message.tool_calls))
    return Part("other", goes_on=message.type == "tool")
