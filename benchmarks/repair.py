"""What repair takes: flagged conversations at the end of an outage, and a copy of everything while asks go on.

    .venv/bin/python -m benchmarks.repair [--flagged 10000] [--conversations 100000]

The server is the real one, with dual write, on a Redis and a SecantusDB of its own. The flags are in the store that was
left, as an outage leaves them: of conversations that the other has none of, or is missing a turn of. For the copy Redis
comes back empty. docs/capacity.md quotes the figures.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from pymongo import UpdateOne, WriteConcern

from benchmarks.operations import conversations, fill
from conversations.turns import make_turn
from tests.faults.clients import Load
from tests.faults.service import Service
from tests.servers import MongoServer, RedisServer, Server, eventually

CLIENTS, PAUSE, SECONDS = 4, 0.1, 10.0
PATIENCE = 900.0
LOOK = 0.25  # seconds
TTL = 1_728_000
NOW = (datetime.now(UTC),) * 2


class Bench:
    """The stores and a server."""

    def __init__(self, home: Path) -> None:
        self.redis = RedisServer(home / "redis", aof=False)
        self.mongo = MongoServer(home / "mongo", "--standalone")
        self.service = Service(
            home / "server", REDIS_URL=self.redis.url, MONGO_URL=self.mongo.url, CONV_DUAL_WRITE="1",
            CHAT_RATE="100000/s", CONV_MAX_TURNS="16",
        )  # fmt: skip
        self.asked = 0

    def __enter__(self) -> "Bench":
        self.redis.start()
        self.mongo.start()
        self.service.start().wait()
        self.wait_for_coverage()
        return self

    def __exit__(self, *exception: object) -> None:
        self.service.stop()
        self.redis.kill()
        self.mongo.kill()

    def wait_for_coverage(self) -> None:
        eventually(lambda: self.service.follows("redis", True), "no coverage", PATIENCE)

    def wait_for_repair(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while any(self.service.metric("unsynced_conversations")):
            assert time.monotonic() < deadline, "flags are left"
            time.sleep(LOOK)  # seldom: a look takes a worker's time

    def repair(self, out: Server, flag: Callable[[], None]) -> float:
        """Return the seconds from the end of an outage, in which conversations were flagged, until no flag is left."""
        out.kill()
        self.service.wait("degraded")
        flag()
        eventually(lambda: any(self.service.metric("unsynced_conversations")), "no flag is seen", PATIENCE)
        out.start()
        begun = time.monotonic()
        self.wait_for_repair()
        took = time.monotonic() - begun
        self.wait_for_coverage()
        return took

    def begin(self) -> Load:
        self.asked += 1
        return Load(f"r{self.asked}", [self.service.port], CLIENTS, sessions_each=1, sharing=1, pause=PAUSE).start()

    def copy(self) -> tuple[float, float, float]:
        """Return the seconds in which an empty Redis is filled, and the median of asks before and meanwhile."""
        load = self.begin()
        time.sleep(SECONDS)
        before = median(load)
        self.redis.kill()
        self.redis.start()
        begun = time.monotonic()
        load = self.begin()
        self.wait_for_coverage()
        return time.monotonic() - begun, before, median(load)


def median(load: Load) -> float:
    """Return the median milliseconds of what was asked; nothing is asked any more."""
    load.stop()
    return statistics.median(ask.milliseconds for talk in load.talks for ask in talk.asks if not ask.error)


def flag_in_mongo(mongo: MongoServer, number: int, part: str) -> None:
    """Flag so many conversations in MongoDB."""
    with mongo.client() as client:
        documents = client["onesource"]["conversations_conversation"]
        for batch in conversations(number):
            new = [document | {"_id": f"{document['_id']}-{part}", "mark": uuid4().hex} for _, document in batch]
            documents.insert_many(new, ordered=False)


def add_in_mongo(mongo: MongoServer, number: int, part: str) -> None:
    """Add a turn to so many conversations in MongoDB, and flag them."""
    turn = make_turn("What now?", "This.", None, *NOW)
    push = {"messages": {"$each": [message.as_dict() for message in turn.messages()]}}
    with mongo.client() as client:
        documents = client["onesource"].get_collection(
            "conversations_conversation", write_concern=WriteConcern(w=1, j=False)
        )
        for batch in conversations(number):
            keys = [f"{document['_id']}-{part}" for _, document in batch]
            sets = ({"mark": uuid4().hex} for _ in keys)
            documents.bulk_write(
                [UpdateOne({"_id": key}, {"$push": push, "$set": one}) for key, one in zip(keys, sets, strict=True)],
                ordered=False,
            )


def flag_in_redis(redis: RedisServer, number: int, part: str, *, add: bool) -> None:
    """Put so many conversations into Redis, or add a turn to each, and flag them."""
    more = make_turn("What now?", "This.", None, *NOW).lines()
    with redis.client() as client:
        for batch in conversations(number):
            pipeline = client.pipeline(transaction=False)
            for lines, document in batch:
                key = f"{document['_id']}-{part}"
                if add:
                    pipeline.append(key, more)
                else:
                    pipeline.set(key, lines, ex=TTL)
                pipeline.hset("onesource:unsynced", key.removeprefix("conv:"), uuid4().hex)
            pipeline.execute()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flagged", type=int, default=10_000)
    parser.add_argument("--conversations", type=int, default=100_000)
    options = parser.parse_args()
    number = options.flagged
    with tempfile.TemporaryDirectory(prefix="onesource-repair-") as name, Bench(Path(name)) as bench:
        redis, mongo = bench.redis, bench.mongo
        rows: list[tuple[str, Server, Callable[[], None]]] = [
            ("in MongoDB, new", redis, lambda: flag_in_mongo(mongo, number, "a")),
            ("in Redis, new", mongo, lambda: flag_in_redis(redis, number, "b", add=False)),
            ("in Redis, a turn more", mongo, lambda: flag_in_redis(redis, number, "b", add=True)),
            ("in MongoDB, a turn more", redis, lambda: add_in_mongo(mongo, number, "b")),
        ]
        for what, out, flag in rows:
            print(f"{number} flagged {what}: {bench.repair(out, flag):.1f} s", flush=True)
    total = options.conversations
    with tempfile.TemporaryDirectory(prefix="onesource-repair-") as name, Bench(Path(name)) as bench:
        fill(total, bench.redis, bench.mongo)
        took, before, meanwhile = bench.copy()
        print(f"copy of {total} to Redis: {took:.1f} s, {total / took:.0f} a second")
        print(f"  asks: median {before:.1f} ms before, {meanwhile:.1f} ms meanwhile, {meanwhile / before:.2f} times")


if __name__ == "__main__":
    main()
