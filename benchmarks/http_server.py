"""Which HTTP server: ours (uvicorn), granian and gunicorn, with instant answers and with answers of one second.

    .venv/bin/python -m benchmarks.http_server [--seconds 10] [--connections 200]

Same application, same stores, same numbers of processes and threads, in turn; docs/adr/0003-http-server.md quotes it.
"""

import argparse
import asyncio
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.servers import MongoServer, RedisServer, eventually, free_port

WORKERS = 2
BIN = Path(sys.executable).parent


def command(server: str, port: int, threads: int) -> list[str]:
    if server == "uvicorn":
        return [sys.executable, "manage.py", "serve"]
    if server == "granian":
        options = ["--interface", "wsgi", "--workers", WORKERS, "--blocking-threads", threads, "--port", port,
                   "--backpressure", threads, "--no-log"]  # fmt: skip
    else:
        options = ["-k", "gthread", "-w", WORKERS, "--threads", threads, "-b", f"127.0.0.1:{port}", "--keep-alive", 30,
                   "--worker-connections", 1000, "--log-level", "error"]  # fmt: skip
    return [str(BIN / server), *map(str, options), "onesource.wsgi:application"]


@contextmanager
def serving(server: str, threads: int, environment: dict[str, str]) -> Iterator[tuple[int, psutil.Process]]:
    port = free_port()
    environment = environment | {"PORT": str(port), "MANAGEMENT_PORT": str(free_port())}
    process = subprocess.Popen(command(server, port, threads), env=environment, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: asyncio.run(_up(port)), f"{server} does not answer")
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


async def _up(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def load(port: int, connections: int, seconds: float) -> tuple[list[float], int]:
    """Ask on so many connections, each in its own session; return latencies in seconds and the errors."""
    latencies: list[float] = []
    errors = 0
    end = time.monotonic() + seconds

    async def client(number: int) -> None:
        nonlocal errors
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = json.dumps({"question": "Is it?", "session_id": f"bench-{port}-{number}"}).encode()
        request = (
            b"POST /api/chat/ask HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        while time.monotonic() < end:
            begun = time.monotonic()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            latencies.append(time.monotonic() - begun)
            errors += b" 200 " not in head.split(b"\r\n")[0]
        writer.close()

    results = await asyncio.gather(*map(client, range(connections)), return_exceptions=True)
    return latencies, errors + sum(isinstance(result, BaseException) for result in results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        redis, mongo = RedisServer(home / "redis"), MongoServer(home / "mongo")
        redis.start(), mongo.start()
        try:
            measure(home, redis, mongo, options)
        finally:
            redis.kill(), mongo.kill()


def measure(home: Path, redis: RedisServer, mongo: MongoServer, options: argparse.Namespace) -> None:
    base = {**os.environ, "REDIS_URL": redis.url, "MONGO_URL": mongo.url, "BIND": "127.0.0.1",
            "SECRET_KEY": secrets.token_urlsafe(64), "CHAT_AUTH": "open",
            "VAR_DIR": str(home), "LOG_LEVEL": "ERROR"}  # fmt: skip
    print("| answers | server | threads a worker | turns/s | p50 ms | p99 ms | errors | memory MB |")
    print("|---|---|---|---|---|---|---|---|")
    for answers, threads in (("Instant", 16), ("Instant", 64), ("OneSecond", 64), ("OneSecond", 100)):
        for round_ in range(options.rounds):
            for server in ("uvicorn", "granian", "gunicorn")[:: 1 if round_ % 2 == 0 else -1]:
                environment = {**base, "ANSWERER": f"benchmarks.answerers.{answers}", "WEB_THREADS": str(threads)}
                with serving(server, threads, environment) as (port, process):
                    asyncio.run(load(port, options.connections, 2))  # the first calls connect and compile
                    begun = time.monotonic()
                    latencies, errors = asyncio.run(load(port, options.connections, options.seconds))
                    took = time.monotonic() - begun
                    memory = sum(one.memory_info().rss for one in [process, *process.children(recursive=True)])
                ordered = sorted(latencies)
                half, most = statistics.median(ordered) * 1e3, ordered[int(len(ordered) * 0.99)] * 1e3
                row = [answers, server, threads, f"{len(ordered) / took:.0f}", f"{half:.0f}", f"{most:.0f}", errors]
                print("|", *(f"{cell} |" for cell in [*row, f"{memory / 2**20:.0f}"]), flush=True)


if __name__ == "__main__":
    main()
