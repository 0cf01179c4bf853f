"""What operators and clients wait for where there are very many small conversations, on a Redis Cluster.

    .venv/bin/python -m benchmarks.many [--conversations 100000 1000000]

Three masters, a SecantusDB and the server, all real and with the timeouts of a deployment. The stores are filled
directly, with conversations of one turn, to the first number, measured, filled on to the next, and so on: what grows
with the number shows. `status` is the whole command, and apart the look that it takes; a page is read over HTTP; `trim`
and `reconcile` report only. The memory is the command's own at its peak. docs/capacity.md quotes the figures.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

from redis import Redis

from benchmarks.capacity import cpu_of, small
from benchmarks.operations import ROOT, Batch, Took, manage
from conversations.stores.redis.newest import Change, adding
from ops.long_work import prefetched
from tests.clusters import ClusterOfServers
from tests.faults.service import Service
from tests.servers import MongoServer, eventually

NODE_SECONDS = 15  # after which a node is out: Redis' own default, since the machine is busy
TTL = 1_728_000
PAGES, STATUSES = 50, 5
LOOK = """
import time, django
django.setup()
from ops.management.base import begin_work, end_at_once
from ops.status import collect
begin_work()
begun = time.monotonic()
collect.look()
print(time.monotonic() - begun)
end_at_once()
"""


class Bench:
    """The stores, empty, and a server that knows that both hold everything; a context manager."""

    def __init__(self, home: Path) -> None:
        self.cluster = ClusterOfServers(home / "redis", "--auto-aof-rewrite-percentage", "0", replicas=False)
        self.mongo = MongoServer(home / "mongo", "--standalone")  # as the embedded one
        self.service = Service(
            home / "server", REDIS_URL=self.cluster.url, MONGO_URL=self.mongo.url, CONV_DUAL_WRITE="1",
            CONV_MAX_TURNS="16", CONV_MAX_BYTES="262144", ANSWERER="recall",
        )  # fmt: skip
        self._open = ExitStack()

    def __enter__(self) -> "Bench":
        with self._open as opened:
            opened.callback(self.cluster.kill)
            self.cluster.start()
            for node in self.cluster.masters:
                with node.client() as client:
                    client.config_set("cluster-node-timeout", NODE_SECONDS * 1000)
            opened.callback(self.mongo.kill)
            self.mongo.start()
            opened.callback(self.service.stop)
            self.service.start().wait()
            eventually(lambda: self.service.follows("redis", True), "coverage is not known", 60.0)
            self._open = opened.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._open.close()

    def cpu(self) -> tuple[float, float]:
        """Return the seconds of CPU that Redis and SecantusDB have had."""
        pids = [[node.process.pid for node in self.cluster.masters if node.process]]
        pids.append([self.mongo.process.pid] if self.mongo.process else [])
        redis, mongo = (sum(map(cpu_of, each)) for each in pids)
        return redis, mongo

    def fill(self, number: int) -> None:
        """Store so many more conversations in both stores, and in Redis' list."""
        with ExitStack() as opened:
            masters = {node.port: opened.enter_context(node.client()) for node in self.cluster.masters}
            slots = opened.enter_context(self.cluster.client())
            documents = opened.enter_context(self.mongo.client())["onesource"]["conversations_conversation"]

            def master(key: str) -> Redis:
                return masters[slots.get_node_from_key(key).port]

            for batch in prefetched(small(number)):
                self._store(batch, master)
                documents.insert_many([document for _, document in batch], ordered=False)

    def _store(self, batch: Batch, master: Callable[[str], Redis]) -> None:
        pipelines: dict[Redis, Any] = {}

        def pipeline(key: str) -> Any:
            owner = master(key)
            return pipelines.setdefault(owner, owner.pipeline(transaction=False))

        for lines, document in batch:
            pipeline(document["_id"]).set(document["_id"], lines, ex=TTL)
        places = [(one["_id"].removeprefix("conv:"), Change(one["place"].removeprefix(":"))) for _, one in batch]
        for command in adding(places):
            pipeline(str(command[1])).execute_command(*command)
        for one in pipelines.values():
            one.execute()


def measure(bench: Bench, number: int) -> None:
    """Print a row for each figure."""
    whole = [
        manage(bench.service.environment, "status", fine=(0, 1)) for _ in range(STATUSES)
    ]  # 1: the machine is slow
    seconds, cpu = (statistics.median(figures) for figures in list(zip(*whole, strict=True))[:2])
    row(number, "`status`", f"{seconds:.2f} s, CPU {cpu:.2f} s", memory(whole))
    row(number, "of it the look", f"{statistics.median(look(bench) for _ in range(STATUSES)):.2f} s")
    pages = sorted(page(bench) for _ in range(PAGES))
    row(number, "first page", f"median {statistics.median(pages):.0f} ms, p95 {pages[int(PAGES * 0.95)]:.0f} ms")
    for words in (("trim", "--older-than", "5d"), ("reconcile",)):
        before = bench.cpu()
        try:
            took = manage(bench.service.environment, *words)
        except AssertionError as error:
            row(number, f"`{' '.join(words)}`", f"failed: {error}")
            continue
        redis, mongo = (now - then for now, then in zip(bench.cpu(), before, strict=True))
        each = f"{took.seconds / number * 1000:.3f} ms each"
        cpu = f"CPU {took.cpu:.0f} s, Redis {redis:.0f}, SecantusDB {mongo:.0f}"
        row(number, f"`{' '.join(words)}`", f"{took.seconds:.0f} s, {each}; {cpu}", memory([took]))


def look(bench: Bench) -> float:
    """Return the seconds that the look of `status` takes, without the start of Python and Django."""
    done = subprocess.run([sys.executable, "-c", LOOK], cwd=ROOT, check=True, stdout=subprocess.PIPE,
                          env=bench.service.environment | {"DJANGO_SETTINGS_MODULE": "onesource.settings"})  # fmt: skip
    return float(done.stdout)


def page(bench: Bench) -> float:
    """Return the milliseconds that the first page takes a client."""
    begun = time.perf_counter()
    status, _, body = bench.service.request("GET", "/api/chat/conversations/")
    took = (time.perf_counter() - begun) * 1000
    assert status == 200 and json.loads(body)["results"], (status, body[:200])
    return took


def memory(each: Iterable[Took]) -> str:
    return f"{max(one.memory for one in each):.0f} MB"


def row(number: int, what: str, figure: str, peak: str = "") -> None:
    print(f"| {number:,} | {what} | {figure} | {peak} | {os.getloadavg()[0]:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conversations", type=int, nargs="+", default=[100_000, 1_000_000])
    numbers = sorted(parser.parse_args().conversations)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))  # by way of `with`, which stops what runs
    with tempfile.TemporaryDirectory(prefix="onesource-many-") as home, Bench(Path(home)) as bench:
        print("| conversations | what | took | memory | load |\n|---|---|---|---|---|", flush=True)
        for before, number in pairwise((0, *numbers)):
            begun = time.monotonic()
            bench.fill(number - before)
            row(number, "filled", f"{time.monotonic() - begun:.0f} s")
            measure(bench, number)


if __name__ == "__main__":
    main()
