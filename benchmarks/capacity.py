"""What many small conversations take, beside what `manage.py capacity` foresees.

    .venv/bin/python -m benchmarks.capacity [--conversations 10000 100000 1000000]

Each number has a Redis and a SecantusDB of its own, filled directly with conversations of one turn. The memory of
Redis, the disk of MongoDB, the CPU time of what reads all conversations and of a turn are measured;
beside each figure stands what the model says, and by how much it is off. docs/capacity.md quotes the figures.
"""

import argparse
import os
import random
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.newest import stores
from benchmarks.operations import BATCH, Batch, Stack, conversation, disk, fill, used

WORDS = (8, 14)  # words of a question and of its answer: messages of about 150 and 190 bytes
COMMANDS = {"status": ("status",), "trim --older-than": ("trim", "--older-than", "5d"), "reconcile": ("reconcile",)}
TURNS = 2000  # whose CPU time is taken


def small(number: int) -> Iterator[Batch]:
    """Return so many of one turn in batches, from ten days ago to yesterday."""
    chance, now = random.Random(1), datetime.now(UTC)
    for batch in range(0, number, BATCH):
        one = []
        for n in range(batch, min(batch + BATCH, number)):
            at = now - timedelta(days=10) + timedelta(days=9) * n / number
            lines, document = conversation(n, chance, at, now + timedelta(days=20), turns=1, words=WORDS)
            one.append((lines, document | {"_id": f"conv:{secrets.token_urlsafe(18)}"}))
        yield one


def measure(number: int) -> None:
    home = Path(tempfile.mkdtemp(prefix="onesource-capacity-"))
    try:
        with stores(home) as stack:
            memory, on_disk = used(stack.redis), disk(home / "mongo")
            begun = time.monotonic()
            size = fill(small(number), stack.redis, stack.mongo)
            print(f"{number:,} conversations of {size} bytes, filled in {time.monotonic() - begun:.0f} s", flush=True)
            plan, servers = foreseen(number, size), (stack.redis, stack.mongo)
            list_all()
            show("bytes of Redis", (used(stack.redis) - memory) / number, plan.redis_each)
            first_page()
            for name, words in COMMANDS.items():
                before = [cpu_of(server.process.pid) for server in servers]
                seconds, cpu, peak = stack.manage(*words)
                redis, mongo = (cpu_of(server.process.pid) - was for server, was in zip(servers, before, strict=True))
                show(f"CPU seconds of {name}, stores' too", cpu + redis + mongo, plan.commands[name])
                print(
                    f"    of it Redis {redis:.1f}, SecantusDB {mongo:.1f}; in {seconds:.1f} s, {peak:.0f} MB",
                    flush=True,
                )
            for alias, server in (("redis", stack.redis), ("mongo", stack.mongo)):
                turns(alias, server, stack, 1e6 / plan.turns_a_core[alias])
            show("bytes of MongoDB's disk", (disk(home / "mongo") - on_disk) / number, plan.mongo_each)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def foreseen(number: int, size: int) -> Any:
    """Return the plan for so many conversations of one turn."""
    from conversations.stores import limits
    from ops.capacity.plan import Demand, Node, foresee

    return foresee(Demand(number, 1.0, messages=2, bytes_per_message=size // 2), Node(), limits())


def show(what: str, measured: float, foreseen: float) -> None:
    off = (foreseen - measured) / measured
    print(f"  {what}: {measured:,.1f}, foreseen {foreseen:,.1f}, off by {off:+.0%}", flush=True)


def list_all() -> None:
    """Make the list of both stores."""
    from conversations.stores import ALIASES, bulk, control
    from conversations.stores.control import LISTED

    for alias in ALIASES:
        begun = time.monotonic()
        for _ in bulk(alias).list_all():
            pass
        control(alias).write_note(LISTED, str(time.time()))
        print(f"  list of {alias} made in {time.monotonic() - begun:.1f} s", flush=True)


def first_page() -> None:
    from conversations.history.listing import Wanted, page

    took = []
    for _ in range(5):
        begun = time.perf_counter()
        assert len(page(Wanted(""), "", 50).results) == 50
        took.append((time.perf_counter() - begun) * 1000)
    print(f"  first page of the list: {statistics.median(took):.0f} ms", flush=True)


def turns(alias: str, server: Any, stack: Stack, foreseen: float) -> None:
    """Store turns in conversations of their own, and say what each took of its store."""
    from conversations.stores import store
    from tests.builders import a_session, a_turn

    one, sessions = store(alias), [a_session() for _ in range(TURNS // 8)]
    cpu, begun, bytes_before = cpu_of(server.process.pid), time.perf_counter(), network(stack)
    for _ in range(8):
        for session in sessions:
            one.append_after(session, one.load(session), a_turn())
    took, done = time.perf_counter() - begun, len(sessions) * 8
    show(f"µs of CPU of a turn in {alias}", (cpu_of(server.process.pid) - cpu) / done * 1e6, foreseen)
    print(f"    {done / took:.0f} turns/s by one client", flush=True)
    if alias == "redis":
        print(f"    {(network(stack) - bytes_before) / done:.0f} bytes in and out of it", flush=True)


def cpu_of(pid: int) -> float:
    """Return the seconds of CPU that a process has had, all its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def network(stack: Stack) -> int:
    with stack.redis.client() as client:
        stats: Any = client.info("stats")
        return int(stats["total_net_input_bytes"]) + int(stats["total_net_output_bytes"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conversations", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    numbers = parser.parse_args().conversations
    if len(numbers) == 1:
        measure(numbers[0])
    for number in numbers[1:] and numbers:  # Django knows the stores of one number for as long as a process lives
        subprocess.run([sys.executable, "-m", "benchmarks.capacity", "--conversations", str(number)], check=True)
