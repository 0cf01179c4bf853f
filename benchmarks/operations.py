"""What operators' work on many conversations takes: backup, verify, restore, trim, and what a conversation costs.

    .venv/bin/python -m benchmarks.operations [--conversations 25000 50000 100000]

Each size has stores of its own, filled directly; each command is the real one, in a process of its own, of which the
kernel counts the CPU seconds and the peak memory, children included; on a busy machine the clock is less exact. While
`trim --to-memory` frees half of Redis, a client pings it. docs/capacity.md quotes the figures.
"""

import argparse
import os
import random
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from bson import encode
from bson.raw_bson import RawBSONDocument

from conversations.turns import Turn, make_turn
from tests.servers import MongoServer, RedisServer

ROOT = Path(__file__).parent.parent
BYTES, TURNS, BATCH = 4096, 8, 500
WORDS = [f"{first}{second}" for first in ("ba", "ke", "li", "mo", "nu", "re", "sa", "to") for second in ("dan", "fir",
         "gol", "hem", "jus", "kar", "len", "mip", "nor", "pax", "rin", "sol", "tef", "vun")]  # fmt: skip

Batch = list[tuple[bytes, dict[str, Any]]]
"""Conversations as their lines in Redis and their documents in MongoDB."""


def conversations(number: int) -> Iterator[Batch]:
    """Return so many of 4 KB in batches, each with words of its own, the first the oldest: as lines and as document."""
    assert number % BATCH == 0, "whole batches"
    chance = random.Random(1)
    begun, expiry = datetime.now(UTC) - timedelta(days=10), datetime.now(UTC) + timedelta(days=20)
    for batch in range(0, number, BATCH):
        yield [conversation(n, chance, begun + timedelta(seconds=n), expiry) for n in range(batch, batch + BATCH)]


def conversation(
    n: int,
    chance: random.Random,
    at: datetime,
    expiry: datetime,
    *,
    turns: int = TURNS,
    words: tuple[int, int] = (8, 42),
) -> tuple[bytes, dict[str, Any]]:
    """Return one as its lines and as its document, its questions and answers of so many words."""
    made: list[Turn] = []
    for _ in range(turns):
        question, answer = (" ".join(chance.choices(WORDS, k=k)) for k in words)
        made.append(make_turn(question, answer, made[-1].answer.at if made else None, at, at))
    lines = b"".join(turn.lines() for turn in made)
    messages = [message.as_dict() for turn in made for message in turn.messages()]
    newest = made[-1].answer
    dates = {"place": f":{newest.at}", "updated_at": newest.time, "expires_at": expiry}
    return lines, {"_id": f"conv:s{n:08d}", "messages": messages, "bytes": len(lines), **dates}


def fill(batches: Iterable[Batch], redis: RedisServer, mongo: MongoServer) -> int:
    """Put them into both stores; return their mean size in bytes."""
    sizes = []
    with redis.client() as cache, mongo.client() as client:
        documents = client["onesource"]["conversations_conversation"]
        pipeline = cache.pipeline(transaction=False)
        for batch in batches:
            for lines, document in batch:
                sizes.append(len(lines))
                pipeline.set(document["_id"], lines, ex=1_728_000)
            pipeline.execute()
            documents.insert_many([document for _, document in batch], ordered=False)
    return sum(sizes) // len(sizes)


def bare(number: int, mongo: MongoServer) -> float:
    """Return the seconds in which the server inserts so many documents, sent as `restore` sends them: its floor."""
    took = 0.0
    with mongo.client() as client:
        documents = client["onesource"]["conversations_conversation"]
        for batch in conversations(number):
            encoded = [RawBSONDocument(encode(document)) for _, document in batch]
            begun = time.monotonic()
            documents.insert_many(encoded, ordered=False)
            took += time.monotonic() - begun
    return took


class Took(NamedTuple):
    """What a command took, of which child processes are a part."""

    seconds: float
    cpu: float
    memory: float
    """The peak of the largest process, in MB."""


def manage(environment: Mapping[str, str], *words: str, fine: Collection[int] = (0,)) -> Took:
    """Run a command of `manage.py`; return what it took. Raise AssertionError where it does not exit with one of these
    codes."""
    begun = time.monotonic()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen([sys.executable, "manage.py", *words], cwd=ROOT, env=environment,
                                   stdout=subprocess.DEVNULL, stderr=errors)  # fmt: skip
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        assert process.returncode in fine, (words, process.returncode, errors.read()[-500:])
    return Took(time.monotonic() - begun, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


class Stack:
    """A Redis and a Mongo with nothing in them, and `manage.py` pointed at them."""

    def __init__(self, home: Path) -> None:
        self.redis = RedisServer(home / "redis", aof=False)
        self.mongo = MongoServer(home / "mongo", "--standalone")  # as the embedded one
        self.environment = os.environ | {
            "REDIS_URL": self.redis.url, "MONGO_URL": self.mongo.url, "VAR_DIR": str(home),
            "SECRET_KEY": secrets.token_urlsafe(64),
            "REDIS_SOCKET_TIMEOUT_MS": "2000", "REDIS_CONNECT_TIMEOUT_MS": "2000", "MONGO_TIMEOUT_MS": "5000",
        }  # fmt: skip

    def __enter__(self) -> "Stack":
        self.redis.start()
        self.mongo.start()
        for database in ("default", "mongo"):
            self.manage("migrate", f"--database={database}", "-v0")
        return self

    def __exit__(self, *exception: object) -> None:
        self.redis.kill()
        self.mongo.kill()

    def manage(self, *words: str) -> Took:
        return manage(self.environment, *words)


class Pinger(threading.Thread):
    """Pings Redis all the time, as a client would that waits for each answer."""

    def __init__(self, redis: RedisServer) -> None:
        super().__init__(daemon=True)
        self.client, self.times, self.stopped = redis.client(), list[float](), threading.Event()

    def run(self) -> None:
        while not self.stopped.wait(0.001):
            begun = time.perf_counter()
            self.client.ping()
            self.times.append((time.perf_counter() - begun) * 1000)

    def worst(self) -> str:
        """Stop; return how many pings there were, their 99.9th percentile and the longest, in ms."""
        self.stopped.set()
        self.join()
        times = sorted(self.times)
        over = sum(one > 10 for one in times)
        return (
            f"{len(times)} pings, p99.9 {times[-len(times) // 1000 - 1]:.1f} ms, max {times[-1]:.1f} ms, {over} > 10 ms"
        )


def used(redis: RedisServer) -> int:
    with redis.client() as client:
        return int(client.info("memory")["used_memory"])


def disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def pinging(redis: RedisServer, work: Any) -> str:
    """Return how long pings took while the work was done, and Redis' own longest command, which the scheduler
    has no part in."""
    with redis.client() as client:
        client.config_set("slowlog-log-slower-than", 100)
        client.slowlog_reset()
        pinger = Pinger(redis)
        pinger.start()
        work()
        longest = max((entry["duration"] for entry in client.slowlog_get(128)), default=0)
        return f"{pinger.worst()}; Redis' longest command {longest / 1000:.1f} ms"


def measure(number: int) -> None:
    home = Path(tempfile.mkdtemp(prefix="onesource-operations-"))
    try:
        with Stack(home / "from") as stack:
            empty, empty_disk = used(stack.redis), disk(home / "from" / "mongo")
            size = fill(conversations(number), stack.redis, stack.mongo)
            stored = disk(home / "from" / "mongo") - empty_disk
            each = (used(stack.redis) - empty) // number
            print(
                f"\n{number:,} conversations of {size:,} bytes: {each:,} bytes in Redis, {stored // number:,} in Mongo"
            )
            show("status", *stack.manage("status"))
            show("backup", *stack.manage("backup", "--to", str(home / "backups")))
            file = next((home / "backups").glob("*.zip"))
            print(f"  {'file':<22}{file.stat().st_size / 2**20:8.1f} MB")
            print(f"  idle: {pinging(stack.redis, lambda: time.sleep(5))}")
            half = empty + (used(stack.redis) - empty) // 2
            words = ("trim", "--to-memory", f"{half}b", "--apply")
            pings = pinging(stack.redis, lambda: show("trim --to-memory half", *stack.manage(*words)))
            print(f"  meanwhile: {pings}")
            assert used(stack.redis) <= half * 1.05
            show("backup verify", *stack.manage("backup", "verify", str(file)))
            with Stack(home / "to") as target:
                show("restore --into redis", *target.manage("restore", str(file), "--into", "redis"))
                show("restore --into mongo", *target.manage("restore", str(file), "--into", "mongo"))
                with target.redis.client() as cache, target.mongo.client() as mongo:
                    there = cache.scan_iter("conv:*", count=1000)
                    assert sum(1 for _ in there) == number
                    assert mongo["onesource"]["conversations_conversation"].estimated_document_count() == number
            with Stack(home / "floor") as target:
                print(f"  {'  bare inserts':<22}{bare(number, target.mongo):8.1f} s")
    finally:
        shutil.rmtree(home, ignore_errors=True)


def show(what: str, seconds: float, cpu: float, memory: float) -> None:
    print(f"  {what:<22}{seconds:8.1f} s  CPU {cpu:6.1f} s  {memory:6.0f} MB", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conversations", type=int, nargs="+", default=[25_000, 50_000, 100_000])
    for number in parser.parse_args().conversations:
        measure(number)
