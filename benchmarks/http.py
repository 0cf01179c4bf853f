"""Asking over HTTP, beside a bare view and a bare view with the floor's turn, on the same web server.

All three run at the same time on the same Redis, and are asked by turns by wrk; those that are not asked are idle.
"""

import json
import os
import random
import secrets
import signal
import socket
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.contenders import TTL
from benchmarks.messages import QUESTION, lines, pairs
from benchmarks.turns import MESSAGES, Amount, Figures
from tests.faults.service import Service
from tests.servers import MongoServer, RedisServer, eventually, free_port

ROOT = Path(__file__).resolve().parent.parent
WORKERS = 2
MANY = 500
CONNECTIONS = (16, 64, MANY)  # of the last each waits longer for its turn, so they are asked longer
NOTHING, FLOOR, OURS = "bare view", "bare view, floor turn", "onesource"
WARM_SECONDS = 2.0
SLOW_SECONDS = 8.0  # of a load whose answers take one


@contextmanager
def stores(home: Path) -> Iterator[dict[str, str]]:
    """Yield the environment of servers on stores of their own, in which the conversations are full already."""
    redis, mongo = RedisServer(home / "redis", aof=False), MongoServer(home / "mongo")
    redis.start(), mongo.start()
    try:
        _fill(redis)
        yield {"REDIS_URL": redis.url, "MONGO_URL": mongo.url, "SECRET_KEY": secrets.token_urlsafe(64),
               "CHAT_AUTH": "open", "CONV_MAX_TURNS": str(MESSAGES // 2), "WEB_CONCURRENCY": str(WORKERS),
               "CONV_MAX_BYTES": "262144", "WEB_THREADS": "256"}  # fmt: skip
    finally:
        redis.kill(), mongo.kill()


def _fill(redis: RedisServer) -> None:
    with redis.client() as client:
        pipeline = client.pipeline(transaction=False)
        for number in range(1, 2 * MANY + 1):
            value = b"".join(map(lines, pairs(MESSAGES // 2)))
            pipeline.set(f"conv:bench-{number}", value, ex=TTL).set(f"floor:bench-{number}", value, ex=TTL)
        pipeline.execute()


@contextmanager
def ours(home: Path, environment: dict[str, str], answerer: str) -> Iterator[str]:
    """Yield the address of `manage.py serve`."""
    service = Service(home, **{**environment, "ANSWERER": f"benchmarks.answerers.{answerer}"})
    try:
        service.start().wait()
        eventually(lambda: service.follows("redis", False), "coverage is not known", 60)
        yield f"http://127.0.0.1:{service.port}/api/chat/ask"
    finally:
        service.stop()


@contextmanager
def bare(home: Path, environment: dict[str, str]) -> Iterator[str]:
    """Yield the address of the bare views."""
    home.mkdir()
    port = free_port()
    variables = os.environ | environment | {"PORT": str(port), "VAR_DIR": str(home), "BIND": "127.0.0.1"}
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.bare.server"], cwd=ROOT, env=variables)
    try:
        eventually(lambda: _answers(port), "the bare views do not answer")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGKILL)  # its workers end with it
        process.wait()


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextmanager
def serving(home: Path, answerer: str) -> Iterator[tuple[str, str]]:
    """Yield the addresses of the bare views and of onesource, on the same stores."""
    with (
        stores(home) as environment,
        bare(home / "bare", environment) as plain,
        ours(home / "ours", environment, answerer) as address,
    ):
        yield plain, address


def load(url: str, connections: int, seconds: float) -> Figures:
    """Return what wrk found, times in milliseconds; each connection asks again when it has its answer."""
    variables = {"NUMBER": str(2 * connections), "QUESTION": QUESTION}
    options = f"-t1 -c{connections} -d{seconds:.0f}s --timeout 30s -s benchmarks/ask.lua"
    words = ["wrk", *options.split(), url]
    output = subprocess.run(words, cwd=ROOT, env=os.environ | variables, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(output.stdout.strip().splitlines()[-1])
    return {
        "requests_per_second": found["requests"] / found["microseconds"] * 1e6,
        **{f"{part}_ms": found[part] / 1000 for part in ("p50", "p95", "p99")},
        "not_200": found["status"] + found["socket"],
    }


def instant(home: Path, amount: Amount) -> Figures:
    """Return figures by number of connections and server, with answers that take no time."""
    with serving(home, "Instant") as (plain, address):
        targets = {NOTHING: f"{plain}/nothing", FLOOR: f"{plain}/floor", OURS: address}
        return {
            str(number): _by_turns(targets, number, amount.rounds, amount.seconds * (2 if number == MANY else 1))
            for number in CONNECTIONS
        }


def waiting(home: Path, amount: Amount) -> Figures:
    """Return figures for 500 connections, with answers that take a second."""
    with serving(home, "OneSecond") as (plain, address):
        targets = {FLOOR: f"{plain}/floor-after-a-second", OURS: address}
        return _by_turns(targets, MANY, max(2, amount.rounds // 2), SLOW_SECONDS)


def _by_turns(targets: dict[str, str], connections: int, rounds: int, seconds: float) -> Figures:
    """Return the medians over rounds, in which each is asked once, in random order; the least and the greatest ratio of
    a round; and the sum of what was not 200."""
    found: dict[str, list[Figures]] = {name: [] for name in targets}
    for name in targets:
        load(targets[name], connections, WARM_SECONDS)  # the first calls connect and compile
    for _ in range(rounds):
        for name in random.sample(list(targets), len(targets)):
            found[name].append(load(targets[name], connections, seconds))
    return {name: _median(found[name], found.get(FLOOR, [])) for name in targets}


def _median(own: list[Figures], floor: list[Figures]) -> Figures:
    figures = {name: statistics.median(one[name] for one in own) for name in own[0]}
    ratios = [one["requests_per_second"] / other["requests_per_second"] for one, other in zip(own, floor, strict=True)]
    return figures | {
        "not_200": sum(one["not_200"] for one in own),
        "ratio": statistics.median(ratios),
        "least_ratio": min(ratios),
        "most_ratio": max(ratios),
    }
