"""What happens in one run, made from a seed before it begins, so that it can be printed and made smaller."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

STORES = ("redis", "mongo")
MACHINES = 2
LENGTH = 14.0  # virtual seconds in which things happen, at the most
LAST = 9.0  # virtual seconds after which no fault begins
AFTERWARDS = 3.0  # virtual seconds in which clients go on after the last fault
SEEN_AS_CUT_OFF = (8.5, 11.0)  # virtual seconds after which the others know that a machine does not reach a store
LONG = (4.0, 8.0)  # virtual seconds that a store is slow
QUIET = 12.0  # virtual seconds of peace afterwards


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong, or that an operator does, at a time."""

    at: float
    kind: str
    target: str = ""
    seconds: float = 0.0
    """How long it lasts, or how far back or off it is."""

    @property
    def end(self) -> float:
        return self.at if self.kind in ("roll back", "skew") else self.at + self.seconds

    def __str__(self) -> str:
        return f"{self.at:7.3f}  {self.kind} {self.target} {self.seconds:.2f}"


@dataclass(frozen=True)
class Request:
    """What a client does at the earliest at this time, after what it did before."""

    at: float
    client: int
    kind: str
    """`ask`, `delete` or `read`."""
    machine: int
    expecting: bool
    """Whether it sends the last id that it was given."""
    key: bool
    """Whether it sends an Idempotency-Key, and asks again with it when the outcome is unknown."""

    def __str__(self) -> str:
        sent = ", with its last id" * self.expecting + ", with a key" * self.key
        return f"{self.at:7.3f}  {self.kind} s{self.client} on {self.machine}{sent}"


@dataclass(frozen=True)
class Plan:
    """One run."""

    seed: int
    primary: str
    dual_write: bool
    max_turns: int
    clients: int
    faults: tuple[Fault, ...]
    requests: tuple[Request, ...]

    def __str__(self) -> str:
        head = f"seed {self.seed}: primary {self.primary}, dual write {'on' if self.dual_write else 'off'}, "
        head += f"window {self.max_turns} turns, {self.clients} clients"
        return "\n".join([head, *map(str, sorted((*self.faults, *self.requests), key=lambda each: each.at))])


def _lasting(random: Random) -> float:
    return random.choice((random.uniform(0.1, 1.0), random.uniform(1.0, 4.0)))


def _store_fault(kind: str) -> Callable[[Random, float], Fault]:
    return lambda random, at: Fault(at, kind, random.choice(STORES), _lasting(random))


def _back(random: Random, at: float) -> Fault:
    return Fault(at, "roll back", random.choice(STORES), random.choice((0.3, random.uniform(0.1, at))))


def _cut(random: Random, at: float) -> Fault:
    seconds = random.choice((_lasting(random), random.uniform(*SEEN_AS_CUT_OFF)))
    return Fault(at, "cut", f"{random.randrange(MACHINES)} {random.choice(STORES)}", seconds)


def _slow(random: Random, at: float) -> Fault:
    return Fault(at, "slow", f"{random.randrange(MACHINES)} {random.choice(STORES)}", random.uniform(*LONG))


def _part(random: Random, at: float) -> Fault:
    return Fault(min(at, 3.0), "part", random.choice(STORES), random.uniform(*SEEN_AS_CUT_OFF))


def _kill(random: Random, at: float) -> Fault:
    return Fault(at, "kill process", str(random.randrange(MACHINES)), random.uniform(0.1, 3.0))


def _skew(random: Random, at: float) -> Fault:
    target = random.choice(("machine 0", "machine 1", "store redis", "store mongo"))
    back = -1.0 if target.startswith("store") else -120.0  # a store's leases last longer where its clock goes back
    return Fault(at, "skew", target, random.choice((back, -1.0, 1.0, 120.0)))


def _evict(random: Random, at: float) -> Fault:
    return Fault(at, "evict", "redis", 0.0)


def _expire(random: Random, at: float) -> Fault:
    return Fault(at, "expire", "both", 0.0)


def _trim(random: Random, at: float) -> Fault:
    return Fault(at, random.choice(("trim turns", "trim conversations")), random.choice((*STORES, "both")), 0.0)


def _fail_over(random: Random, at: float) -> Fault:
    return Fault(at, "fail over", "", 0.0)


def _switch(random: Random, at: float) -> Fault:
    return Fault(at, random.choice(("switch", "dual write on", "dual write off")), "", 0.0)


FAULTS: tuple[Callable[[Random, float], Fault], ...] = (
    _store_fault("refuse"),
    _store_fault("freeze"),
    _store_fault("lose replies"),
    _store_fault("apply late"),
    _store_fault("restart"),
    _store_fault("wipe"),
    _back,
    _cut,
    _part,
    _slow,
    _kill,
    _skew,
    _evict,
    _expire,
    _trim,
    _fail_over,
    _switch,
)


def unconfirmed(seed: int) -> Plan:
    """Return the plan of a seed with other faults: both stores apply what they do not confirm."""
    plan, kind = make(seed), ("lose replies", "apply late", "freeze")[seed % 3]
    return replace(plan, faults=tuple(Fault(4.0, kind, alias, 5.0) for alias in STORES))


def _made(random: Random, times: list[float]) -> tuple[Fault, ...]:
    """Return the faults for these times. What evicts is alone: nothing is promised where the other store is out too.
    A clock that is off does harm only where a store is out as well; that the stores' clocks jump apart cannot be
    measured by a machine that does not reach both."""
    faults = [random.choice(FAULTS)(random, at) for at in times]
    if any(fault.kind in ("cut", "part") for fault in faults):
        faults = [fault for fault in faults if not fault.target.startswith("store ")]
    if parts := [fault for fault in faults if fault.kind == "part"][:1]:  # two faults by itself
        faults = parts + [fault for fault in faults if not set(fault.target.split()) & set(STORES)]
    alone = [fault for fault in faults if fault.kind == "evict"][:1]
    skewed = [fault for fault in faults if fault.kind == "skew" and random.random() < 0.5]
    faults += [Fault(fault.at + 0.5, "refuse", random.choice(STORES), random.uniform(1.0, 4.0)) for fault in skewed]
    return tuple(alone or sorted(faults, key=lambda fault: fault.at))


def make(seed: int) -> Plan:
    """Return the plan of a seed."""
    random = Random(seed)
    clients = random.randint(1, 3)
    times = sorted(random.uniform(2.0, LAST) for _ in range(random.choice((1, 2, 2))))
    faults = _made(random, times)
    end = min(LENGTH, max(fault.end for fault in faults) + AFTERWARDS)
    requests = []
    for client in range(clients):
        home, roams = random.randrange(MACHINES), random.random() < 0.5
        expecting, keys = random.random() < 0.7, random.random() < 0.7
        at = random.uniform(0.5, 2.0)
        while at < end:
            kind = random.choices(("ask", "read", "delete"), (10, 2, 1.5))[0]
            machine = random.randrange(MACHINES) if roams else home
            requests.append(Request(at, client, kind, machine, expecting, keys))
            at += random.choice((random.uniform(0.05, 0.5), random.uniform(0.5, 4.0)))
    return Plan(
        seed, random.choice(STORES), random.random() < 0.6, random.choice((3, 16, 16)), clients, faults,
        tuple(sorted(requests, key=lambda each: each.at)),
    )  # fmt: skip
