"""Recorded switches: a change of primary or dual write that reaches every process without a restart."""

import logging

import orjson
from django.conf import settings

from conversations import clock
from conversations.errors import NoStore, StoreUnavailable
from conversations.policy import Routing, Switch
from conversations.stores import ALIASES, control, write_note
from telemetry.logs import event

logger = logging.getLogger(__name__)

NOTE = "switch"
FOLLOW_SECONDS = 2.5
"""In which every process follows a switch."""


def environment() -> Routing:
    """Return the routing that the environment variables ask for."""
    return Routing(settings.CONV_STORE_PRIMARY, settings.CONV_DUAL_WRITE)


def current() -> Routing:
    """Return where traffic goes: the newest switch, or else what the environment asks for."""
    newest = newest_of(read())
    return newest.routing if newest else environment()


def record(routing: Routing, by: str, reason: str = "") -> tuple[Switch, tuple[str, ...]]:
    """Record the switch in every store that can be reached; return it with their names.

    The other processes follow within two seconds. Raise NoStore when no store recorded it; then nothing has changed.
    """
    newest = newest_of(read())
    at = max(clock.timestamp(), newest.at + 0.001 if newest else 0.0)
    switch = Switch(routing, environment(), at, by, reason)
    recorded_in = write(switch)
    if not recorded_in:
        raise NoStore
    event(
        logger, logging.WARNING, "switch", primary=routing.primary, dual_write=routing.dual_write, by=by, reason=reason
    )  # fmt: skip
    return switch, recorded_in


def write(switch: Switch) -> tuple[str, ...]:
    """Write the switch to every store that can be reached; return their names."""
    return write_note(NOTE, orjson.dumps(switch).decode())


def read() -> dict[str, Switch | None]:
    """Return what is recorded in each store that can be reached."""
    recorded: dict[str, Switch | None] = {}
    for alias in ALIASES:
        try:
            recorded[alias] = parse(control(alias).note(NOTE))
        except StoreUnavailable:
            continue
    return recorded


def newest_of(recorded: dict[str, Switch | None]) -> Switch | None:
    """Return the newest of them."""
    return max(filter(None, recorded.values()), key=lambda switch: switch.at, default=None)


def parse(text: str | None) -> Switch | None:
    """Return a recorded switch; None where there is none, or where it cannot be read, which is logged."""
    if text is None:
        return None
    try:
        fields = orjson.loads(text)
        routing, against = (_routing(fields.pop(name)) for name in ("routing", "against"))
        return Switch(routing, against, **fields)
    except (ValueError, TypeError, KeyError, AttributeError):
        event(logger, logging.ERROR, "switch_unreadable")
        return None


def _routing(fields: dict[str, object]) -> Routing:
    primary, dual_write = fields["primary"], fields["dual_write"]
    if primary not in ALIASES or not isinstance(dual_write, bool):
        raise ValueError("not a routing")
    return Routing(str(primary), dual_write)
