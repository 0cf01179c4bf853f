"""Switching dual write on or off: it copies nothing and takes no time, so that it is done while the page waits."""

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from conversations.errors import ConversationError
from conversations.policy import Routing
from conversations.runtime import switching
from conversations.stores import ALIASES
from ops import audit, lease
from ops.errors import OperatorError, Overtaken
from ops.status.render import in_words


def warnings(wanted: bool, out: Mapping[str, str]) -> list[str]:
    """Return what to know before; `out` has why a store is out."""
    if not wanted:
        return ["Without dual write a turn is in one store alone, and lost if that store loses it."]
    lines = [f"{alias} is out ({out[alias]}), and would be asked to take turns." for alias in ALIASES if alias in out]
    copied = "What is in one store alone is not copied by this: the service does it by itself, in the background."
    return [*lines, copied]


def switch(wanted: bool, since: float, who: str, reason: str) -> str:
    """Switch it, and return what was done; it is audited either way. Raise Overtaken where somebody has switched since
    then, Busy or NoStore, with nothing changed."""
    before: list[Routing] = []
    try:
        with lease.held(f"dual write by {who}, {uuid4().hex[:8]}"):
            routing, done = _switch(wanted, since, who, reason, before)
    except (ConversationError, OperatorError) as error:
        audit.record("switch", f"failed: {error}", who=who, reason=reason, before=_fields(*before))
        raise
    audit.record("switch", "done", who=who, reason=reason, before=_fields(*before), after=_fields(routing))
    return done


def _switch(wanted: bool, since: float, who: str, reason: str, before: list[Routing]) -> tuple[Routing, str]:
    newest = switching.newest_of(switching.read())
    before.append(newest.routing if newest else switching.environment())
    routing = Routing(before[0].primary, wanted)
    if newest and newest.at > since:
        raise Overtaken
    if before == [routing]:
        return routing, f"It is so already: {in_words(routing)}."
    _, taken = switching.record(routing, who, reason)
    done = f"{in_words(routing)}; recorded in {' and '.join(taken)}."
    return routing, f"{done} Every process follows within two seconds."


def _fields(routing: Routing | None = None) -> dict[str, Any]:
    return {"primary": routing.primary, "dual_write": routing.dual_write} if routing else {}
