"""The policy: which stores to read and write, decided from its inputs without I/O; history carries it out."""

from dataclasses import dataclass
from functools import cache, cached_property

from conversations.stores import ALIASES, other, store_class

FULL, BEHIND = "full", "behind"


@dataclass(frozen=True, slots=True)
class Routing:
    """Which store is the primary, and whether every turn is written to both."""

    primary: str
    dual_write: bool

    @property
    def fallback(self) -> str:
        return other(self.primary)

    @property
    def order(self) -> tuple[str, str]:
        """The stores in the order in which they are asked."""
        return _order(self.primary)

    @property
    def wanted(self) -> tuple[str, ...]:
        """The stores that should have every turn."""
        return self.order if self.dual_write else (self.primary,)


@cache
def _order(primary: str) -> tuple[str, str]:
    return (primary, other(primary))


@dataclass(frozen=True, slots=True)
class Switch:
    """A recorded change of routing; `against` is what the environment variables asked for when it was made."""

    routing: Routing
    against: Routing
    at: float
    """Seconds since 1970."""
    by: str = ""
    reason: str = ""


def follow(environment: Routing, started_at: float, recorded: Switch | None) -> tuple[Routing, bool]:
    """Return where traffic goes, and whether that must be recorded as a new switch.

    The newest recorded switch wins. But a process that was started after it, with another value of a variable
    than when the switch was made, follows the variable, and records that for the processes started before.
    """
    if recorded is None:
        return environment, False
    if started_at <= recorded.at or environment == recorded.against:
        return recorded.routing, False
    primary, dual_write = recorded.routing.primary, recorded.routing.dual_write
    if environment.primary != recorded.against.primary:
        primary = environment.primary
    if environment.dual_write != recorded.against.dual_write:
        dual_write = environment.dual_write
    return Routing(primary, dual_write), True


@dataclass(frozen=True)
class Inputs:
    """What the policy decides from: the state of a process as a turn begins. Most turns have the same inputs, so what
    is decided from them is kept."""

    routing: Routing
    readable: frozenset[str] = frozenset(ALIASES)
    """The stores whose breaker allows reads."""
    writable: frozenset[str] = frozenset(ALIASES)
    may_have_more: frozenset[str] = frozenset()
    """The stores with an unsynced flag for this conversation, or with flags that were not read yet."""
    recovering: frozenset[str] = frozenset()
    """The stores that were unavailable so recently that another machine may still skip them."""
    unknown_flags: frozenset[str] = frozenset()
    """The stores that have, or had before they went out, flags that this process has not read."""
    complete: frozenset[str] = frozenset(ALIASES)
    """The stores that hold every conversation, or have a flag in the other for what they are missing."""
    trimmed: frozenset[str] = frozenset()
    """The stores from which conversations were removed that the other may still have."""
    cut_off: frozenset[str] = frozenset()
    """The stores that another process has stopped reaching without ending: it may write to the other alone."""

    @cached_property
    def read_plan(self) -> "ReadPlan":
        return plan_read(self)

    @cached_property
    def write_plan(self) -> "WritePlan":
        """The plan of a turn in which no store has failed yet."""
        return plan_write(self, frozenset())


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """Read the stores in this order: all of them and merge, or only until one has the conversation."""

    order: tuple[str, ...]
    merge: bool
    last_resort: tuple[str, ...] = ()
    """Stores to read if none of the others answers."""


@dataclass(frozen=True)
class WritePlan:
    """Write the turn to the wanted stores at once, and to the others in this order until one has it."""

    order: tuple[str, ...]
    wanted: tuple[str, ...]
    last_resort: tuple[str, ...] = ()
    """Stores to try if none of the others takes it."""

    @cached_property
    def flagging(self) -> tuple[str, ...]:
        """The stores that set an unsynced flag even without a fault. One that is not read cheaply does while it alone
        is wanted, as MongoDB: Redis will be the primary again, and a switch back must lose nothing."""
        return tuple(alias for alias in self.wanted if self.wanted == (alias,) and not store_class(alias).cheap_reads)

    @cached_property
    def rounds(self) -> tuple[tuple[str, ...], ...]:
        """The stores by when they are written: those that should have the turn at once, each other one after them."""
        first = tuple(alias for alias in self.order if alias in self.wanted)
        rest = (alias for alias in self.order + self.last_resort if alias not in first)
        return tuple(filter(None, (first, *((alias,) for alias in rest))))

    @cached_property
    def skipped(self) -> tuple[str, ...]:
        """The stores that should have the turn and are not tried at first."""
        return tuple(alias for alias in self.wanted if alias not in self.order)


def plan_read(inputs: Inputs) -> ReadPlan:
    """Return which stores to read. An open breaker does not exclude a store that may have turns which are missing
    in the other, nor the last store: there a slow call is better than none."""
    order = inputs.routing.order
    usable = tuple(alias for alias in order if alias in inputs.readable | inputs.may_have_more)
    cheap = store_class(inputs.routing.fallback).cheap_reads  # a GET of Redis is
    # One that refuses writes, as a full one or a part of a cluster, is not trusted alone: see `context`.
    alone = inputs.routing.primary in inputs.complete & inputs.writable - inputs.cut_off
    both = inputs.may_have_more or inputs.unknown_flags or inputs.recovering or cheap or not alone
    rest = tuple(alias for alias in order if alias not in usable)
    return ReadPlan(usable, merge=bool(both) and len(usable) > 1, last_resort=rest)


def plan_write(inputs: Inputs, failed: frozenset[str]) -> WritePlan:
    """Return which stores to write; one that failed in this turn is tried last, so that it costs one timeout."""
    order = inputs.routing.order
    usable = tuple(alias for alias in order if alias in inputs.writable and alias not in failed)
    rest = tuple(alias for alias in order if alias not in usable)
    return WritePlan(usable, inputs.routing.wanted, last_resort=rest)


def context(inputs: Inputs, answered: frozenset[str], latest: str | None, expected: str | None, *, fresh: bool) -> str:
    """Return FULL where the history has every turn that was acknowledged to the client, else BEHIND.

    `latest` is the last id of the history or its tombstone, `expected` the last id that the client was given;
    `fresh`: the session_id is new. A history with the last id may still be missing earlier turns: those of an
    outage may be the only ones in the store that took them. So it is also BEHIND where a store that may have more
    could not be read.
    """
    if fresh:
        return FULL
    if expected and (latest or "") < expected:
        return BEHIND
    unread = frozenset(ALIASES) - answered
    if not unread:
        return FULL
    # Dual write does not cover what was stored before it or was trimmed, nor what another process cannot reach, or
    # could not a moment ago: the flag of that may be in the store that is out now.
    trusted = inputs.complete & inputs.readable & inputs.writable
    alone = answered & trusted - inputs.cut_off - inputs.trimmed - inputs.recovering
    return FULL if alone and not unread & (inputs.may_have_more | inputs.unknown_flags) else BEHIND
