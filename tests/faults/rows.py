"""The table of faults: a row each."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from tests.faults import injections, redis_injections
from tests.faults.data_injections import in_turn, promoted_without_turns, rolled_back, wiped
from tests.faults.injections import Fault, frozen, killed, wire
from tests.faults.proxy import Mode
from tests.faults.redis_injections import configured
from tests.faults.stack import Route, Setup

REDIS, REDIS_DUAL = Route("redis"), Route("redis", dual_write=True)
MONGO, MONGO_DUAL = Route("mongo"), Route("mongo", dual_write=True)
BOTH = (REDIS, REDIS_DUAL)
ALL = (REDIS, REDIS_DUAL, MONGO, MONGO_DUAL)
DUAL = (REDIS_DUAL,)
BOTH_DUAL = (REDIS_DUAL, MONGO_DUAL)

USUAL = Setup()
FOUR_WORKERS = Setup(workers=4)
_HOUR = 3600.0
CALM = 0.1  # seconds between questions where stores copy everything meanwhile
CLOCKS = Setup(workers=1, clock_shifts=(0.0, -_HOUR, _HOUR))  # the last one deletes
AHEAD = Setup(workers=1, clock_shifts=(0.0, 120.0))
SENTINEL = Setup(sentinel=True)
HOSTS = Setup(clock_shifts=(0.0, 0.0), hosts=True)
CLUSTER = Setup(cluster=True)
TWO_MACHINES = Setup(workers=1, clock_shifts=(0.0, 0.0))


@dataclass(frozen=True)
class Row:
    """One fault, under load."""

    name: str
    sentence: str
    fault: Fault
    routes: tuple[Route, ...] = BOTH
    seconds: float = 0.0
    """How long it has to last at least, where that matters."""
    clients: int = 8
    sessions_each: int = 1
    pause: float = 0.03
    """Seconds between an answer and the next question: two cores are to carry it with ease."""
    sharing: int = 1
    """How many clients have one conversation together."""
    deleting: int = 1
    """How many clients delete their conversation while the fault lasts, and go on in it."""
    out: str = ""
    """The store that must have been seen to miss turns meanwhile, or the fault did nothing."""
    lost_connections: bool = False
    both_out: bool = False
    cut_off: bool = False
    parted: bool = False
    """Whether one machine alone may have been cut off from a store: others know of it late."""
    stranded: frozenset[int] = frozenset()
    """The machines that reach no store meanwhile."""
    setup: Setup = USUAL


_PARTED: tuple[tuple[str, str, tuple[tuple[str, str], ...], dict[str, Any]], ...] = (
    ("a from redis", "Of two hosts one sends to Redis in vain.", (("a", "redis"),), {}),
    ("a from mongo", "Of two hosts one sends to MongoDB in vain.", (("a", "mongo"),), {}),
    ("b from redis", "The other host sends to Redis in vain.", (("b", "redis"),), {}),
    ("b from mongo", "The other host sends to MongoDB in vain.", (("b", "mongo"),), {}),
    ("both from redis", "Both hosts send to Redis in vain.", (("a", "redis"), ("b", "redis")), {"out": "redis"}),
    ("both from mongo", "Both hosts send to MongoDB in vain.", (("a", "mongo"), ("b", "mongo")), {"out": "mongo"}),
    (
        "a from both stores",
        "One host reaches neither store, the other both.",
        (("a", "redis"), ("a", "mongo")),
        {"stranded": frozenset({0})},
    ),
    (
        "crosswise",
        "One host does not reach MongoDB, and the other does not reach Redis.",
        (("a", "mongo"), ("b", "redis")),
        {"cut_off": True},
    ),
)

_USUAL_ROWS = (
    Row("redis refused", "Nobody listens at Redis' port.", wire("redis", Mode.REFUSE), out="redis"),
    Row("redis frozen", "Redis is stopped (SIGSTOP), and goes on later.", frozen("redis"), out="redis"),
    Row("redis silent", "Redis is connected to and never answers.", wire("redis", Mode.FREEZE), out="redis"),
    Row("redis slow", "Redis answers after 300 ms, too late.", wire("redis", Mode.SLOW, 150), out="redis"),
    Row("redis dripping", "Redis' answers come byte by byte, 50 ms apart.", wire("redis", Mode.DRIP), out="redis"),
    Row("redis cut mid-reply", "Redis' answers break off half way.", wire("redis", Mode.CUT), out="redis"),
    Row("redis reset", "Every request to Redis is answered with a reset.", wire("redis", Mode.RESET), out="redis"),
    Row("redis garbage", "What answers is not Redis.", wire("redis", Mode.GARBAGE), out="redis"),
    Row("redis loading", "Redis starts again and loads for seconds.", redis_injections.loading, out="redis"),
    Row(
        "redis out of memory",
        "Redis is full and evicts nothing.",
        configured(lambda r: r.config_set("maxmemory", 1), lambda r: r.config_set("maxmemory", 0)),
        out="redis",
    ),
    Row(
        "redis read-only",
        "Redis has become a replica of a master that is down.",
        configured(lambda r: r.replicaof("127.0.0.1", 9), lambda r: r.replicaof("NO", "ONE")),
        out="redis",
    ),
    Row("redis misconf", "Redis cannot save and takes no writes.", redis_injections.misconf, out="redis"),
    Row(
        "redis password changed",
        "Redis wants a password that we do not have.",
        configured(
            lambda r: r.config_set("requirepass", "changed"),
            lambda r: r.config_set("requirepass", ""),
            hang_up=True,
        ),
        out="redis",
    ),
    Row(
        "redis max clients",
        "Redis takes no more connections.",
        configured(lambda r: r.config_set("maxclients", 1), lambda r: r.config_set("maxclients", 10_000), hang_up=True),
        out="redis",
    ),
    Row("redis busy", "A script in Redis does not end.", redis_injections.busy, out="redis"),
    Row(
        "redis writes paused",
        "CLIENT PAUSE WRITE: Redis reads, and lets writers wait.",
        configured(lambda r: r.client_pause(600_000, all=False), lambda r: r.client_unpause()),
        out="redis",
    ),
    Row("redis flushed", "FLUSHALL.", configured(lambda r: r.flushall(), lambda r: None), DUAL),
    Row("redis corrupt", "Every conversation in Redis is overwritten with nonsense.", redis_injections.corrupted),
    Row(
        "redis flapping", "Redis goes and comes back every second.", redis_injections.flapping, out="redis", seconds=4.0
    ),
    Row("redis killed", "Redis is killed and comes back with its append-only file.", killed("redis"), out="redis"),
    Row(
        "redis killed, data lost",
        "Redis is killed and comes back empty.",
        wiped("redis"),
        DUAL,
        out="redis",
    ),
    Row(
        "redis rolled back",
        "Redis is killed and comes back older, seconds later.",
        rolled_back("redis", at_once=False),
        BOTH_DUAL,
        pause=CALM,
        out="redis",
    ),
    Row(
        "redis rolled back at once",
        "The same within a second.",
        rolled_back("redis", at_once=True),
        BOTH_DUAL,
        pause=CALM,
    ),
    Row("mongo refused", "Nobody listens at MongoDB's port.", wire("mongo", Mode.REFUSE), ALL, out="mongo"),
    Row("mongo frozen", "MongoDB is stopped (SIGSTOP), and goes on later.", frozen("mongo"), ALL, out="mongo"),
    Row("mongo killed", "MongoDB is killed and comes back.", killed("mongo"), ALL, out="mongo"),
    Row("mongo wiped", "MongoDB is killed and comes back empty.", wiped("mongo"), BOTH_DUAL, pause=CALM, out="mongo"),
    Row(
        "mongo rolled back",
        "MongoDB is killed and comes back older, seconds later.",
        rolled_back("mongo", at_once=False),
        BOTH_DUAL,
        pause=CALM,
        out="mongo",
    ),
    Row(
        "mongo rolled back at once",
        "The same within a second.",
        rolled_back("mongo", at_once=True),
        BOTH_DUAL,
        pause=CALM,
    ),
    Row(
        "redis refused, then mongo",
        "Redis is refused; when that is repaired, MongoDB.",
        in_turn(wire("redis", Mode.REFUSE), wire("mongo", Mode.REFUSE)),
        pause=CALM,
        out="mongo",
    ),
    Row(
        "mongo refused, then redis",
        "MongoDB is refused; when that is repaired, Redis.",
        in_turn(wire("mongo", Mode.REFUSE), wire("redis", Mode.REFUSE)),
        pause=CALM,
        out="redis",
    ),
    Row(
        "redis wiped, then mongo",
        "Redis comes back empty; when that is repaired, MongoDB does.",
        in_turn(wiped("redis"), wiped("mongo")),
        BOTH_DUAL,
        pause=CALM,
        out="mongo",
    ),
    Row(
        "mongo wiped, then redis",
        "MongoDB comes back empty; when that is repaired, Redis does.",
        in_turn(wiped("mongo"), wiped("redis")),
        BOTH_DUAL,
        pause=CALM,
        out="redis",
    ),
    Row("mongo not primary", "MongoDB has lost its election.", injections.not_primary, ALL, out="mongo"),
    Row(
        "both refused",
        "Neither store can be reached.",
        injections.at_once(wire("redis", Mode.REFUSE), wire("mongo", Mode.REFUSE)),
        both_out=True,
    ),
    Row(
        "both frozen",
        "Both stores stand still.",
        injections.at_once(frozen("redis"), frozen("mongo")),
        both_out=True,
    ),
    Row(
        "delete while redis is out",
        "Every client deletes its conversation while Redis is out, and begins it anew.",
        wire("redis", Mode.REFUSE),
        deleting=8,
        out="redis",
    ),
    Row(
        "delete while redis is frozen",
        "The same with a Redis that does later what it was sent.",
        frozen("redis"),
        deleting=8,
        out="redis",
    ),
    Row(
        "delete while mongo is out",
        "Every client deletes its conversation while MongoDB is out, and begins it anew.",
        wire("mongo", Mode.REFUSE),
        ALL,
        deleting=8,
        out="mongo",
    ),
    Row(
        "workers killed",
        "Workers are killed between a turn's two writes.",
        injections.workers_killed,
        lost_connections=True,
    ),
    Row("server killed", "The server is killed and started again.", injections.server_killed, lost_connections=True),
    Row(
        "merge killed",
        "The server is killed while it merges 200 conversations, and started again.",
        injections.merge_killed,
        seconds=3.0,
        sessions_each=25,
        lost_connections=True,
    ),
    Row(
        "clocks",
        "Of three servers one is an hour ahead and one an hour behind; every client asks all three.",
        injections.none,
        ALL,
        setup=CLOCKS,
    ),
    Row(
        "clocks, redis refused",
        "The same while Redis is out.",
        wire("redis", Mode.REFUSE),
        DUAL,  # without, a clock an hour off cannot be distinguished from turns that no reader sees
        setup=CLOCKS,
        out="redis",
    ),
    Row(
        "deleted by a clock ahead",
        "A server whose clock is two minutes ahead deletes every conversation; another goes on in them.",
        injections.none,
        ALL,
        deleting=8,
        setup=AHEAD,
    ),
    Row(
        "deleted by a clock ahead, redis refused",
        "The same while Redis is out.",
        wire("redis", Mode.REFUSE),
        BOTH_DUAL,
        deleting=8,
        setup=AHEAD,
        out="redis",
    ),
    Row(
        "deleted by a clock ahead, mongo refused",
        "The same while MongoDB is out.",
        wire("mongo", Mode.REFUSE),
        BOTH_DUAL,
        deleting=8,
        setup=AHEAD,
        out="mongo",
    ),
    Row(
        "cut off",
        "One machine reaches Redis alone, another MongoDB alone; every client asks both.",
        injections.cut_off,
        ALL,
        seconds=12.0,
        pause=CALM,
        setup=TWO_MACHINES,
        cut_off=True,
    ),
    *(
        Row(
            f"parted, {name}",
            sentence,
            injections.parted(*links),
            (REDIS_DUAL, MONGO_DUAL),
            seconds=12.0,
            pause=CALM,
            parted=True,
            setup=HOSTS,
            **terms,
        )
        for name, sentence, links, terms in _PARTED
    ),
    Row(
        "hot session, redis refused",
        "16 clients in one conversation, served by two machines, while Redis is out.",
        wire("redis", Mode.REFUSE),
        clients=16,
        pause=0.4,
        sharing=16,
        deleting=0,
        setup=TWO_MACHINES,
        out="redis",
    ),
    Row(
        "hot session, mongo frozen",
        "The same while MongoDB stands still.",
        frozen("mongo"),
        (REDIS_DUAL, MONGO, MONGO_DUAL),
        clients=16,
        pause=0.4,
        sharing=16,
        deleting=0,
        setup=TWO_MACHINES,
        out="mongo",
    ),
    Row(
        "switch",
        "16 writers, two a conversation, while an operator switches to the other store.",
        injections.switched(),
        ALL,
        seconds=3.5,
        clients=16,
        pause=0.12,
        sharing=2,
        deleting=0,
        setup=FOUR_WORKERS,
    ),
    Row(
        "switch and back",
        "The same, and back again.",
        injections.switched(back=True),
        ALL,
        seconds=3.5,
        clients=16,
        pause=0.12,
        sharing=2,
        deleting=0,
        setup=FOUR_WORKERS,
    ),
)

_ALSO_OF_SEVERAL_SERVERS = (
    "redis refused", "redis frozen", "redis killed", "redis killed, data lost", "redis rolled back", "redis flushed",
    "redis corrupt", "redis out of memory", "redis writes paused", "mongo refused", "mongo frozen", "mongo killed",
    "delete while redis is out", "server killed",
)  # fmt: skip
_USUAL_OF_SEVERAL_SERVERS = tuple(row for row in _USUAL_ROWS if row.name in _ALSO_OF_SEVERAL_SERVERS)

_FAILOVERS = (
    Row(
        "master killed",
        "A master is killed, a replica is promoted, and the old master comes back as a replica.",
        redis_injections.failed_over("kill", "start"),
        clients=16,
        out="redis",
    ),
    Row(
        "master frozen",
        "The same with a master that stands still, and wakes when a replica has its place.",
        redis_injections.failed_over("freeze", "thaw"),
        clients=16,
        out="redis",
    ),
    Row(
        "replica without turns promoted",
        "The same with replicas that did not follow for a while: turns of that time are gone from Redis.",
        promoted_without_turns,
        clients=16,
        out="redis",
    ),
)

_OF_SENTINELS = (
    Row(
        "master replaced",
        "Sentinels are told to name another server; the old one takes turns until it has heard of it, and loses them.",
        redis_injections.replaced,
        clients=16,
    ),
    Row(
        "sentinels killed",
        "All sentinels are killed, and start again; the servers of Redis go on.",
        redis_injections.sentinels_killed,
        clients=16,
    ),
)

_OF_A_CLUSTER = (
    Row(
        "resharded",
        "The slots of all conversations are moved to another master, key by key.",
        redis_injections.resharded,
        clients=16,
    ),
    Row(
        "one master full",
        "One master is out of memory; the others are not.",
        configured(lambda r: r.config_set("maxmemory", 1), lambda r: r.config_set("maxmemory", 0), one=True),
        clients=16,
        out="redis",
    ),
    Row(
        "one master emptied",
        "One master loses all that it has, by FLUSHALL.",
        configured(lambda r: r.flushall(), lambda r: None, one=True),
        clients=16,
    ),
)


def _on(setup: Setup, kind: str, rows: Iterable[Row]) -> Iterator[Row]:
    """Yield these rows as they are played on a Redis of several servers."""
    for row in rows:
        yield replace(row, name=f"{kind}, {row.name}", routes=DUAL, pause=CALM, setup=setup)


ROWS = (
    *_USUAL_ROWS,
    *_on(SENTINEL, "sentinel", (*_FAILOVERS, *_OF_SENTINELS, *_USUAL_OF_SEVERAL_SERVERS)),
    *_on(CLUSTER, "cluster", (*_FAILOVERS, *_OF_A_CLUSTER, *_USUAL_OF_SEVERAL_SERVERS)),
)

Case = tuple[Row, Route]
CASES: tuple[Case, ...] = tuple(
    sorted(((row, route) for row in ROWS for route in row.routes), key=lambda case: repr((case[0].setup, case[1])))
)


def name_of(case: Case) -> str:
    """Return a case's name as a file or a test can have it."""
    words = f"{case[0].name} {case[1]}".replace(",", "")
    return words.replace(" ", "-")
