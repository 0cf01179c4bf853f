"""The policy: facts in, decision out. No I/O here; history.py carries the decisions out."""

from dataclasses import dataclass

from conversations.stores import ALIASES, MONGO, REDIS, other

FULL, BEHIND = "full", "behind"


@dataclass(frozen=True, slots=True)
class Routing:
    """Where traffic goes, as the operator wants it."""

    primary: str
    dual_write: bool

    @property
    def fallback(self) -> str:
        return other(self.primary)

    @property
    def order(self) -> tuple[str, str]:
        """The stores in the order in which they are asked."""
        return (self.primary, self.fallback)

    @property
    def wanted(self) -> tuple[str, ...]:
        """The stores that should have every turn."""
        return self.order if self.dual_write else (self.primary,)


@dataclass(frozen=True, slots=True)
class Switch:
    """A recorded change of routing: where traffic goes, and what the environment said when it was made."""

    routing: Routing
    against: Routing
    at: float
    """Seconds since 1970."""
    by: str = ""
    reason: str = ""


def follow(environment: Routing, started_at: float, recorded: Switch | None) -> tuple[Routing, bool]:
    """Return where traffic goes, and whether that is news to be recorded.

    The newest recorded switch counts. But a process that was started later, with another value of a variable
    than the switch was made against, has been told something newer: it follows the variable, and says so to
    the others, who were started before.
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


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a process knows as a turn begins."""

    routing: Routing
    readable: frozenset[str] = frozenset(ALIASES)
    """The stores whose breaker lets reads through."""
    writable: frozenset[str] = frozenset(ALIASES)
    may_have_more: frozenset[str] = frozenset()
    """The stores that have marked this conversation, or may have since their marks were last seen."""
    recovering: bool = False
    """Whether a store was out so lately that another machine may still be passing it over."""
    unknown_flags: frozenset[str] = frozenset()
    """The stores that had marks when last seen, before this process was started."""


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """Ask the stores in this order; all of them and merge, or only until one has the conversation."""

    order: tuple[str, ...]
    merge: bool
    last_resort: tuple[str, ...] = ()
    """Stores to be asked if none of the others answers."""


@dataclass(frozen=True, slots=True)
class WritePlan:
    """Offer the turn to the stores in this order, until every wanted one was asked and one has it."""

    order: tuple[str, ...]
    wanted: tuple[str, ...]
    last_resort: tuple[str, ...] = ()
    """Stores to be asked if none of the others takes it."""

    def flags(self, alias: str) -> bool:
        """Return whether the store marks the turn even when all is well. MongoDB does while it alone is
        wanted: Redis is the primary to come back to, and a switch back must forget nothing."""
        return alias == MONGO and self.wanted == (MONGO,)

    @property
    def skipped(self) -> tuple[str, ...]:
        """The stores that should have the turn and are not even asked."""
        return tuple(alias for alias in self.wanted if alias not in self.order)


def plan_read(facts: Inputs) -> ReadPlan:
    """Return whom to ask for the history. A breaker keeps nobody from a store that may have turns which the
    other lacks, nor from the last store there is: then there is nothing to lose but time."""
    order = facts.routing.order
    usable = tuple(alias for alias in order if alias in facts.readable | facts.may_have_more)
    both = facts.may_have_more or facts.recovering or facts.routing.primary == MONGO  # a GET of Redis is cheap
    rest = tuple(alias for alias in order if alias not in usable)
    return ReadPlan(usable, merge=bool(both) and len(usable) > 1, last_resort=rest)


def plan_write(facts: Inputs, failed: frozenset[str]) -> WritePlan:
    """Return to whom to offer the turn; a store that failed in this very turn is not made to pay twice."""
    order = facts.routing.order
    usable = tuple(alias for alias in order if alias in facts.writable and alias not in failed)
    rest = tuple(alias for alias in order if alias not in usable)
    return WritePlan(usable, facts.routing.wanted, last_resort=rest)


def context(facts: Inputs, answered: frozenset[str], latest: str | None, expected: str | None, *, fresh: bool) -> str:
    """Return whether what was read holds all that its client was ever acknowledged.

    `latest` is the id up to which it is known, `expected` the id that the client was last given; `fresh`
    says that the session_id was made just now. To have the last id is not to have all before it: what was
    said in an outage may stand alone where it was kept. So "behind" also means that a store which may have
    more could not be asked.
    """
    if fresh:
        return FULL
    if expected and (latest or "") < expected:
        return BEHIND
    return BEHIND if any(_may_have_more(facts, alias) for alias in ALIASES if alias not in answered) else FULL


def _may_have_more(facts: Inputs, unasked: str) -> bool:
    """Return whether this store may have turns which the other one lacks."""
    if unasked in facts.may_have_more:
        return True
    if facts.routing.dual_write:
        return False
    if unasked == facts.routing.primary:
        return True
    # As the fallback, Redis may have what was said while it was the primary, and so is asked whenever it can
    # be; MongoDB has more only where it says so.
    return unasked == REDIS or unasked in facts.unknown_flags
