"""How often a client may ask, counted for all processes of all machines together, mostly without asking a store.

A process lets one ask of a client through and reports it within a second, with those of other clients. Where the
client asks again before that, the store is asked for permits, which are counted there already, for this ask and some of
the next. So a client that asks about once a second costs no round trip of a request, and one that asks faster one in
several. What each process has counted alone is never more than the limit: that is what is left where no store can be
asked. docs/adr/0005-limits.md has how true it is.
"""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache

from conversations.errors import ConversationError
from conversations.runtime.state import state
from conversations.stores import control, permitting_store
from conversations.stores.batches import batches
from conversations.stores.control import PermitRequest, Permits, Rate
from telemetry import metrics

EVERY = 1.0  # seconds between two reports
SECONDS = 0.05  # that a request waits for permits
MOST = 100_000  # clients that are known, in about 50 MB; of more the one that has been silent for longest is forgotten
_PAUSE = 1.0  # seconds in which the store is not asked again, after it failed or refused a client
_BATCH = 200  # requests in one round trip of a report
_PARTS = 30  # of a rate's time, by which asks are counted

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@cache
def parsed(text: str) -> Rate:
    """Return the rate of a setting as 30/min."""
    number, unit = text.split("/")
    return Rate(int(number), _UNITS[unit[0]])


@dataclass(slots=True)
class _Client:
    """What this process knows of one client: what it asked here, and what the store has told of it."""

    name: str
    rate: Rate
    counts: deque[list[int]] = field(default_factory=deque)
    """Part of the rate's time, and how much was asked in it; oldest first."""
    used: int = 0
    """The sum of these."""
    asked: int = 0
    """What was let through and is not reported."""
    sent: int = 0
    """What is being reported."""
    free: int = 0
    """Permits that are left."""
    period: int = 0
    """The period of these."""
    free_until: float = 0.0
    """Until when they can be used."""
    none_until: float = 0.0
    """Until when the store has no permit."""
    pause_until: float = 0.0
    """Until when it is not asked whether one has come back."""

    def own_wait(self, now: float) -> float:
        """Return the seconds until this process' own count is below the limit, 0.0 where it is."""
        part = int(now / self.rate.part)
        while self.counts and self.counts[0][0] < part - _PARTS:
            self.used -= self.counts.popleft()[1]
        if self.used < self.rate.limit:
            return 0.0
        return (self.counts[0][0] + _PARTS + 1) * self.rate.part - now

    def count(self, now: float) -> None:
        part = int(now / self.rate.part)
        if self.counts and self.counts[-1][0] == part:
            self.counts[-1][1] += 1
        else:
            self.counts.append([part, 1])
        self.used += 1

    def request(self, *, more: bool) -> PermitRequest | None:
        """Return what is to be reported, now on its way; None where there is nothing to report or to ask for."""
        if not (self.asked or self.free or more):
            return None
        asked = min(self.asked, self.used)  # older ones count no more
        found = PermitRequest(self.name, self.rate, asked, self.free, self.period, more)
        self.sent += asked
        self.asked = self.free = 0
        return found

    def has_failed(self, request: PermitRequest) -> None:
        """Keep what could not be reported. The permits are lost: they may have come back, and no longer count here."""
        self.sent -= request.asked
        self.asked += request.asked

    def take(self, request: PermitRequest, permits: Permits, now: float) -> None:
        self.sent -= request.asked
        self.none_until = now + permits.wait if permits.wait else 0.0
        self.pause_until = now + min(permits.wait, _PAUSE)
        if permits.number:
            self.free += permits.number
            self.period, self.free_until = permits.period, now + min(self.rate.part, EVERY)


class Rates:
    """The clients of one process; any thread may ask. There is one: see `rates`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clients: OrderedDict[str, _Client] = OrderedDict()
        self._unreported: set[str] = set()
        self._lock = threading.Lock()
        self._clock = clock
        self._out_until = 0.0

    def wait(self, name: str, rate: Rate) -> float:
        """Return 0.0 where the client of that name may ask now, which is counted, otherwise the seconds until it may.
        This waits for a store for SECONDS at the most, and raises nothing: a store that is out lets every process
        count alone."""
        now = self._clock()
        with self._lock:
            one = self._client(name, rate)
            if wait := one.own_wait(now):
                return wait
            if one.free and now < one.free_until:
                one.free -= 1
                one.count(now)
                return 0.0
            if now < one.pause_until and now < one.none_until:
                return one.none_until - now
            if not (one.asked or one.sent or now < one.none_until):
                self._let_through(one, now)
                return 0.0
            alias = self._alias(now)
            request = one.request(more=True) if alias else None
        permits = self._ask(alias, [request], SECONDS) if alias and request else None
        with self._lock:
            if permits is None or request is None:
                if request:
                    one.has_failed(request)
                metrics.rate_fallbacks.inc()
                if wait := one.own_wait(now):  # others of this process have asked meanwhile
                    return wait
                self._let_through(one, now)
                return 0.0
            one.take(request, permits[0], now)
            if not permits[0].number:
                return permits[0].wait or 1.0
            one.free -= 1
            one.count(now)
            self._unreported.add(name)  # what is left comes back
            return 0.0

    def report(self) -> None:
        """Report what was let through, and give back the permits that were not used: other processes may need them."""
        if not (alias := self._alias(self._clock())):
            return
        with self._lock:
            names, self._unreported = self._unreported, set()
        for batch in batches(names, _BATCH):
            self._report(alias, batch)

    def forget(self) -> None:
        """Know nothing, as a process does that has just started."""
        with self._lock:
            self._clients.clear()
            self._unreported.clear()
            self._out_until = 0.0

    def _report(self, alias: str, names: Iterable[str]) -> None:
        with self._lock:
            found = filter(None, map(self._clients.get, names))
            each = [(one, request) for one in found if (request := one.request(more=False))]
        if not each:
            return
        permits = self._ask(alias, [request for _, request in each])
        now = self._clock()
        with self._lock:
            for place, (one, request) in enumerate(each):
                if permits is None:
                    one.has_failed(request)
                    self._unreported.add(one.name)
                else:
                    one.take(request, permits[place], now)

    def _client(self, name: str, rate: Rate) -> _Client:
        one = self._clients.get(name)
        if one is None or one.rate != rate:
            one = self._clients[name] = _Client(name, rate)
            if len(self._clients) > MOST:
                self._clients.popitem(last=False)
        self._clients.move_to_end(name)
        return one

    def _let_through(self, one: _Client, now: float) -> None:
        one.asked += 1
        one.count(now)
        self._unreported.add(one.name)

    def _alias(self, now: float) -> str | None:
        """Return the store to ask, None where there is none, or it is out or was a moment ago."""
        alias = permitting_store()
        if alias is None or now < self._out_until or not state().stores[alias].writes.allows():
            return None
        return alias

    def _ask(self, alias: str, requests: list[PermitRequest], seconds: float = float("inf")) -> list[Permits] | None:
        """Return the permits, None where the store cannot be asked: for a while it is not asked again."""
        try:
            return control(alias).permits(requests, seconds)
        except ConversationError:
            self._out_until = self._clock() + _PAUSE
            return None


rates = Rates()
