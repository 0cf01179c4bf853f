"""A Session of the OpenAI Agents SDK: `Runner.run(agent, "…", session=OnesourceSession("…", client))`.

What it keeps: the text of each question, and of its answer, which ends with the run's last message. What it does not:
calls of tools and their results, reasoning, images and files; during a run the session has them all, and other
processes see the turn once it is whole. `pop_item` takes back what is not stored yet, and raises TurnsAreWhole for a
message of a stored turn.
"""

import asyncio
from typing import Any, cast

from agents import SessionSettings, TResponseInputItem
from agents.memory.session import SessionABC

from onesource_client.adapters.whole_turns import Part, Pending
from onesource_client.aio import AsyncClient
from onesource_client.errors import NotFound, TurnsAreWhole

_ROLES = ("user", "assistant")


class OnesourceSession(SessionABC):
    """One conversation as a Session; for one event loop."""

    def __init__(
        self, session_id: str, client: AsyncClient, *, session_settings: SessionSettings | None = None
    ) -> None:
        self.session_id = session_id
        self.session_settings = session_settings
        self.behind = False
        """Whether the last history or the last stored turn was missing turns that this session had been given."""
        self._conversation = client.conversation(session_id)
        self._pending: Pending[TResponseInputItem] = Pending(_part)
        self._lock = asyncio.Lock()

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """Return the latest items, oldest first: messages of stored turns, and all that is not stored yet."""
        if limit is None and self.session_settings is not None:
            limit = self.session_settings.limit
        async with self._lock:
            items = [*await self._stored(), *self._pending.items]
        return items if limit is None else _latest(items, limit)

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Add items, and store the turns that are whole with them. Where that fails none is added: added again, a turn
        that was stored all the same is stored once."""
        async with self._lock:
            with self._pending.adding(items):
                await self._store()

    async def pop_item(self) -> TResponseInputItem | None:
        """Remove the latest item and return it, None where there is none; raise TurnsAreWhole where it is stored."""
        async with self._lock:
            if self._pending.items:
                *self._pending.items, last = self._pending.items
                return last
            if await self._stored():
                raise TurnsAreWhole("the latest message belongs to a stored turn; clear_session removes all of them")
            return None

    async def clear_session(self) -> None:
        """Delete the conversation."""
        async with self._lock:
            self._pending.clear()
            try:
                await self._conversation.delete()
            except NotFound:
                return

    async def _stored(self) -> list[TResponseInputItem]:
        try:
            history = await self._conversation.history()
        except NotFound:
            return []
        self.behind = history.behind
        return [cast("TResponseInputItem", {"role": each.role, "content": each.content}) for each in history]

    async def _store(self) -> None:
        while turn := self._pending.turn():
            key = self._pending.key(turn)
            answer = await self._conversation.add_turn(turn.question, turn.answer, idempotency_key=key)
            self.behind = answer.behind
            self._pending.stored(turn)


def _latest(items: list[TResponseInputItem], limit: int) -> list[TResponseInputItem]:
    return items[-limit:] if limit > 0 else []


def _part(item: TResponseInputItem) -> Part:
    fields = cast("dict[str, Any]", item)
    if fields.get("type", "message") != "message":
        return Part("other", goes_on=fields["type"] != "reasoning")
    role = fields.get("role")
    return Part(role, _text(fields.get("content"))) if role in _ROLES else Part("other")


def _text(content: Any) -> str:
    """Return the text; a part that has none, as an image, is named by its type."""
    if isinstance(content, str):
        return content
    parts = [part.get("text") or part.get("refusal") or f"[{part.get('type', 'part')}]" for part in content or ()]
    return "\n".join(parts)
