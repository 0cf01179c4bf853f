"""One conversation as an operator sees it: its transcript, and which store holds what of it. Nothing is changed."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from conversations import merge
from conversations.errors import CorruptHistory, InvalidSession, NoStore, StoreUnavailable
from conversations.stores import ALIASES, bulk, limits, store
from conversations.stores.bulk_reader import Found
from conversations.turns import SESSION, History


class State(StrEnum):
    """Whether a store could be read."""

    UP = "up"
    OUT = "out"
    CORRUPT = "corrupt"
    """What it holds is no history."""


@dataclass(frozen=True, slots=True)
class Copy:
    """What one store holds of a conversation; nothing but the state is known where that is not `up`."""

    state: State
    messages: int = 0
    ttl_seconds: int | None = None
    tombstone: str | None = None
    flagged: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return it for machines, which know `flagged` as `marked`."""
        fields = asdict(self)
        flagged = fields.pop("flagged")
        return fields | {"marked": flagged} if self.state is State.UP else {"state": self.state}


@dataclass(frozen=True, slots=True)
class Shown:
    """What is known of a conversation."""

    session: str
    history: History
    """The union of what the stores hold, after tombstones and limits."""
    stores: dict[str, Copy]

    @property
    def known(self) -> bool:
        """Whether any store holds anything of it."""
        return any(one.state is State.CORRUPT or one.messages or one.tombstone for one in self.stores.values())

    @property
    def unseen(self) -> tuple[str, ...]:
        """The stores that could not be asked."""
        return tuple(alias for alias, one in self.stores.items() if one.state is State.OUT)


def look(session: str) -> Shown:
    """Return what both stores hold. Raise InvalidSession, and NoStore when neither answers."""
    if not SESSION.fullmatch(session):
        raise InvalidSession
    found = {alias: _ask(alias, session) for alias in ALIASES}
    if all(isinstance(one, StoreUnavailable) for one in found.values()):
        raise NoStore
    whole = {alias: one for alias, one in found.items() if not isinstance(one, Exception)}
    history = merge.plan(whole, limits()).history
    return Shown(session, history, {alias: _copy(alias, session, one) for alias, one in found.items()})


def _ask(alias: str, session: str) -> Found | StoreUnavailable:
    try:
        return bulk(alias).contents([session])[session]
    except StoreUnavailable as error:
        return error


def _copy(alias: str, session: str, found: Found | StoreUnavailable) -> Copy:
    if isinstance(found, StoreUnavailable):
        return Copy(State.OUT)
    if isinstance(found, CorruptHistory):
        return Copy(State.CORRUPT)
    try:
        ttl = store(alias).ttl(session)
    except StoreUnavailable:
        ttl = None
    return Copy(State.UP, len(found.history or ()), ttl, found.tombstone, bool(found.flag))


def document(shown: Shown) -> dict[str, Any]:
    """Return the conversation as it is exported."""
    return {
        "session_id": shown.session,
        "user": shown.history.user,
        "stores": {alias: one.as_dict() for alias, one in shown.stores.items()},
        "messages": [message.as_dict() for message in shown.history],
    }


def lines(shown: Shown) -> list[str]:
    """Return it for people."""
    user = f", of {shown.history.user}" if shown.history.user else ""
    result = [f"conversation {shown.session}, {len(shown.history)} messages{user}"]
    result += [f"  {alias:<6}{_store_in_words(one)}" for alias, one in shown.stores.items()]
    for message in shown.history:
        result += ["", f"{message.role}  {message.at}  {message.id}", message.content]
    return result


def _store_in_words(one: Copy) -> str:
    if one.state is not State.UP:
        return one.state
    days = f", expires in {one.ttl_seconds / 86_400:.1f} days" if one.ttl_seconds is not None else ""
    deleted = f", deleted up to {one.tombstone}" if one.tombstone else ""
    return f"{one.messages} messages{days}{deleted}{', flagged: the other store is missing some' * one.flagged}"
