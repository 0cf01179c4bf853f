"""What a turn costs in each store, beside the floor of the driver alone.

    .venv/bin/python -m benchmarks.stores [--rounds 3]

Redis: read 40 messages and append a turn, against GET, orjson and one Lua append and trim on redis-py.
MongoDB: 16 writers of 50 turns on one document, against the bare `$push` update.
Floor and ours run by turns in one process; quote the ratio.
"""

import argparse
import os
import secrets
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.servers import MongoServer, RedisServer

WRITERS, EACH = 16, 50
FLOOR = """
local value = redis.call('GET', KEYS[1])
local first = string.find(value, '\\n', 1, true)
local second = string.find(value, '\\n', first + 1, true)
return redis.call('SET', KEYS[1], string.sub(value, second + 1) .. ARGV[1], 'EX', 3600) and 1
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        redis, mongo = RedisServer(Path(name) / "redis"), MongoServer(Path(name) / "mongo")
        redis.start(), mongo.start()
        os.environ.update(REDIS_URL=redis.url, MONGO_URL=mongo.url, SECRET_KEY=secrets.token_urlsafe(64),
                          VAR_DIR=name,
                          MONGO_TIMEOUT_MS="5000", DJANGO_SETTINGS_MODULE="onesource.settings")  # fmt: skip
        import django

        django.setup()
        try:
            for title, measure in (("Redis, one turn", in_redis), ("MongoDB, 16 writers", in_mongo)):
                ratios = measure(options.rounds)
                middle = statistics.median(ratios)
                print(f"{title}: {min(ratios):.2f} – {max(ratios):.2f}, median {middle:.2f} × the floor")
        finally:
            redis.kill(), mongo.kill()


def in_redis(rounds: int) -> list[float]:
    import orjson
    from redis import Redis

    from conversations.stores import store
    from conversations.stores.redis.client import histories
    from conversations.turns import Limits
    from tests.builders import some_turns

    ours = store("redis")
    ours.limits = Limits(3600, 20, 262_144)
    turns = some_turns(2000, size=150)
    ours.append("bench", None, turns[:20])
    client = Redis.from_url(os.environ["REDIS_URL"], protocol=2)
    client.set("floor", histories().client.get_client().get("conv:bench"))
    script = client.register_script(FLOOR)
    number = iter(range(20, 2000))

    def floor() -> None:
        value = client.get("floor")
        assert isinstance(value, bytes)
        orjson.loads(b"[%s]" % b",".join(value[:-1].split(b"\n")))
        script(["floor"], [turns[next(number)].lines()])

    def turn() -> None:
        ours.load("bench")
        ours.append("bench", turns[next(number)])

    ratios = []
    for _ in range(rounds):
        ratios.append(_time(turn, 300) / _time(floor, 300))
    return ratios


def _time(call: Callable[[], None], times: int) -> float:
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def in_mongo(rounds: int) -> list[float]:
    from django.db import connections

    from conversations.stores import store
    from conversations.turns import History, Limits, Turn
    from tests.builders import some_turns

    ours = store("mongo")
    ours.limits = Limits(3600, 1000, 10**7)
    bare = connections["mongo"].get_collection("bare")
    turns = some_turns(WRITERS * EACH + 1, size=60)

    def push(turn: Turn) -> None:
        each = [message.as_dict() for message in turn.messages()]
        bare.update_one(
            {"_id": "bench", "messages.id": {"$ne": turn.id}},
            {"$push": {"messages": {"$each": each, "$sort": {"id": 1}, "$slice": -2000}}},
            upsert=True,
        )

    def append(turn: Turn) -> None:
        ours.append("bench", turn)

    def race(write: Callable[[Turn], None]) -> float:
        write(turns[-1])

        def some(writer: int) -> None:
            for turn in turns[writer * EACH : (writer + 1) * EACH]:
                write(turn)
            connections.close_all()

        begun = time.perf_counter()
        with ThreadPoolExecutor(WRITERS) as pool:
            list(pool.map(some, range(WRITERS)))
        return time.perf_counter() - begun

    ratios = []
    collection: Any = connections["mongo"].get_collection("conversations_conversation")
    for _ in range(rounds):
        bare.drop()
        collection.drop()
        least = race(push)
        ratios.append(race(append) / least)
        assert ours.load("bench") == History.of(turns), "a turn was lost, doubled or out of order"
    return ratios


if __name__ == "__main__":
    main()
