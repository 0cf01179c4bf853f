"""One conversation as an operator sees it: its transcript, and which store holds what of it. Nothing is changed."""

from dataclasses import dataclass
from typing import Any

from conversations import merge
from conversations.errors import CorruptHistory, InvalidSession, NoStore, StoreUnavailable
from conversations.stores import ALIASES, bulk, limits, store
from conversations.stores.bulk_reader import Found
from conversations.turns import SESSION, History


@dataclass(frozen=True, slots=True)
class Shown:
    """What is known of a conversation."""

    session: str
    history: History
    """The union of what the stores hold, after tombstones and limits."""
    stores: dict[str, dict[str, Any]]
    """For each store its state, messages, ttl, tombstone and flag."""

    @property
    def known(self) -> bool:
        """Whether any store holds anything of it."""
        return any(one["state"] == "corrupt" or one.get("messages") or one.get("tombstone")
                   for one in self.stores.values())  # fmt: skip

    @property
    def unseen(self) -> tuple[str, ...]:
        """The stores that could not be asked."""
        return tuple(alias for alias, one in self.stores.items() if one["state"] == "out")


def look(session: str) -> Shown:
    """Return what both stores hold. Raise InvalidSession, and NoStore when neither answers."""
    if not SESSION.fullmatch(session):
        raise InvalidSession
    found = {alias: _ask(alias, session) for alias in ALIASES}
    if all(isinstance(one, StoreUnavailable) for one in found.values()):
        raise NoStore
    whole = {alias: one for alias, one in found.items() if not isinstance(one, Exception)}
    history = merge.plan(whole, limits()).history
    return Shown(session, history, {alias: _as_dict(alias, session, one) for alias, one in found.items()})


def _ask(alias: str, session: str) -> Found | StoreUnavailable:
    try:
        return bulk(alias).contents([session])[session]
    except StoreUnavailable as error:
        return error


def _as_dict(alias: str, session: str, found: Found | StoreUnavailable) -> dict[str, Any]:
    if isinstance(found, StoreUnavailable):
        return {"state": "out"}
    if isinstance(found, CorruptHistory):
        return {"state": "corrupt"}
    try:
        ttl = store(alias).ttl(session)
    except StoreUnavailable:
        ttl = None
    return {
        "state": "up",
        "messages": len(found.history or ()),
        "ttl_seconds": ttl,
        "tombstone": found.tombstone,
        "marked": bool(found.flag),
    }


def lines(shown: Shown) -> list[str]:
    """Return it for people."""
    result = [f"conversation {shown.session}, {len(shown.history)} messages"]
    result += [f"  {alias:<6}{_store_in_words(one)}" for alias, one in shown.stores.items()]
    for message in shown.history:
        result += ["", f"{message.role}  {message.at}  {message.id}", message.content]
    return result


def _store_in_words(one: dict[str, Any]) -> str:
    if one["state"] != "up":
        return str(one["state"])
    days = f", expires in {one['ttl_seconds'] / 86_400:.1f} days" if one["ttl_seconds"] is not None else ""
    deleted = f", deleted up to {one['tombstone']}" if one["tombstone"] else ""
    return f"{one['messages']} messages{days}{deleted}{', flagged: the other store is missing some' * one['marked']}"
