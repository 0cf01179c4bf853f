"""What an outage costs a turn: Redis frozen, against MongoDB as the configured primary; MongoDB killed, against up.

    .venv/bin/python -m benchmarks.outages [--rounds 4] [--seconds 6]

Three servers stand on the same two stores and differ in their variables alone, so what is compared is asked in turn,
A B A B, in the same outage. 16 clients each own a conversation. docs/guarantees.md quotes the figures.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.clients import Ask, Load
from tests.faults.service import Service
from tests.servers import MongoServer, RedisServer, eventually

CLIENTS, PAUSE = 16, 0.2  # seconds between an answer and the next question: what is measured must not be the queue
SOCKET_TIMEOUT_MS = 200
PATIENCE = 30.0
SERVERS = {
    "redis": {"CONV_STORE_PRIMARY": "redis"},
    "redis, dual write": {"CONV_STORE_PRIMARY": "redis", "CONV_DUAL_WRITE": "1"},
    "mongo": {"CONV_STORE_PRIMARY": "mongo"},
}


class Bench:
    """The stores, and a server for each way to use them."""

    def __init__(self, home: Path) -> None:
        self.redis, self.mongo = RedisServer(home / "redis"), MongoServer(home / "mongo")
        common = {"REDIS_URL": self.redis.url, "MONGO_URL": self.mongo.url, "CONV_MAX_TURNS": "16",
                  "REDIS_SOCKET_TIMEOUT_MS": str(SOCKET_TIMEOUT_MS), "CHAT_RATE": "100000/s"}  # fmt: skip
        self.services = {
            name: Service(home / f"server{number}", **common, **variables)
            for number, (name, variables) in enumerate(SERVERS.items())
        }
        self.number = 0

    @contextmanager
    def running(self) -> Iterator["Bench"]:
        try:
            self.redis.start()
            self.mongo.start()
            for service in self.services.values():
                service.start().wait()
            yield self
        finally:
            for service in self.services.values():
                service.stop()
            self.redis.kill()
            self.mongo.kill()

    def ask(self, name: str, seconds: float) -> list[Ask]:
        """Return what 16 clients asked in so many seconds, each in a conversation of its own."""
        load = self.begin(name)
        time.sleep(seconds)
        return self.end(load)

    def begin(self, name: str) -> Load:
        self.number += 1
        ports = [self.services[name].port]
        return Load(f"b{self.number}", ports, CLIENTS, sessions_each=1, sharing=1, pause=PAUSE).start()

    def end(self, load: Load) -> list[Ask]:
        load.stop()
        asks = [ask for talk in load.talks for ask in talk.asks]
        failed = [ask.error for ask in asks if ask.error]
        assert not failed, failed
        return asks

    def quiet(self) -> None:
        """Return when every server uses both stores again, and nothing is left to repair."""
        for name, service in self.services.items():
            eventually(
                lambda service=service: service.is_quiet() and not any(service.metric("unsynced_conversations")),  # type: ignore[misc]
                f"the server with {name} does not come to rest",
                PATIENCE,
            )

    def all_see(self, status: str) -> None:
        for service in self.services.values():
            service.wait(status)


def alternate(bench: Bench, names: tuple[str, str], rounds: int, seconds: float) -> dict[str, list[list[float]]]:
    """Return the milliseconds of the turns of each server, one list a round."""
    found: dict[str, list[list[float]]] = {name: [] for name in names}
    for round_ in range(rounds):
        for name in names[:: 1 if round_ % 2 == 0 else -1]:
            found[name].append([ask.milliseconds for ask in bench.ask(name, seconds)])
    return found


def frozen_redis(bench: Bench, rounds: int, seconds: float) -> None:
    """Freeze Redis under load; then compare turns with Redis as the configured primary to those with MongoDB."""
    load = bench.begin("redis")
    time.sleep(seconds / 2)
    frozen_at = time.monotonic()
    bench.redis.freeze()
    time.sleep(seconds / 2)
    asks = bench.end(load)
    over_by = frozen_at + 2 * SOCKET_TIMEOUT_MS / 1000
    before = [ask.milliseconds for ask in asks if ask.ended < frozen_at]
    struck = sorted(ask.milliseconds for ask in asks if ask.started < over_by and ask.ended > frozen_at)
    later = [ask.milliseconds for ask in asks if ask.started >= over_by]
    paid = sum(took > SOCKET_TIMEOUT_MS for took in struck)
    print(f"\nRedis freezes under {CLIENTS} clients; socket timeout {SOCKET_TIMEOUT_MS} ms")
    print(f"  before: {len(before)} turns, median {middle(before):.1f} ms")
    print(f"  as it froze: {len(struck)} turns, {paid} of them paid the timeout, the slowest took {struck[-1]:.0f} ms")
    print(f"  later: {len(later)} turns, median {middle(later):.1f} ms, slowest {max(later):.0f} ms")
    bench.all_see("degraded")
    found = alternate(bench, ("redis", "mongo"), rounds, seconds)
    bench.redis.thaw()
    compare("Redis frozen: Redis as primary against MongoDB as primary", found, "redis", "mongo")
    bench.quiet()


def killed_mongo(bench: Bench, rounds: int, seconds: float) -> None:
    """Compare turns with MongoDB out to turns with it up, for both routings with Redis as the primary."""
    for name in ("redis", "redis, dual write"):
        found: dict[str, list[list[float]]] = {"up": [], "out": []}
        for _ in range(rounds):
            found["up"].append([ask.milliseconds for ask in bench.ask(name, seconds)])
            bench.mongo.kill()
            bench.all_see("degraded")
            found["out"].append([ask.milliseconds for ask in bench.ask(name, seconds)])
            bench.mongo.start()
            bench.quiet()
        compare(f"{name}: MongoDB out against up", found, "out", "up")


def compare(title: str, found: dict[str, list[list[float]]], ours: str, theirs: str) -> None:
    print(f"\n{title}")
    for name in (ours, theirs):
        every = sorted(ms for one in found[name] for ms in one)
        p95 = every[int(0.95 * len(every))]
        print(f"  {name:<8}{len(every):>6} turns, median {middle(every):6.1f} ms, p95 {p95:6.1f} ms")
    ratios = [middle(one) / middle(other) for one, other in zip(found[ours], found[theirs], strict=True)]
    listed = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"  {ours} / {theirs} by round: {listed}; median {middle(ratios):.2f}", flush=True)


def middle(values: list[float]) -> float:
    return statistics.median(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=6.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="onesource-outages-") as name, Bench(Path(name)).running() as bench:
        for each in SERVERS:
            bench.ask(each, 2)  # the first calls connect and compile
        frozen_redis(bench, options.rounds, options.seconds)
        killed_mongo(bench, options.rounds, options.seconds)


if __name__ == "__main__":
    main()
