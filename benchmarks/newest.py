"""What the list of conversations costs: a page of it, its making, its memory, and what a turn pays for it.

    .venv/bin/python -m benchmarks.newest [--conversations 100000] [--turns 2000]

Both stores are filled with conversations of one tenant and hold nothing else. A page is read from both stores, and from
each alone. In MongoDB turns are stored with the two indexes and without them; in Redis a turn only notes that its
conversation has gone on, and what is written later is timed. docs/capacity.md quotes the figures.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.operations import Stack, conversations, fill


@contextmanager
def stores(home: Path) -> Iterator[Stack]:
    """Yield empty stores, which this process uses."""
    with Stack(home) as stack:
        os.environ |= stack.environment | {"DJANGO_SETTINGS_MODULE": "onesource.settings"}
        import django

        django.setup()
        yield stack


def measure(number: int, turns: int) -> None:
    home = Path(tempfile.mkdtemp(prefix="onesource-newest-"))
    try:
        with stores(home) as stack:
            fill(conversations(number), stack.redis, stack.mongo)
            print(f"{number:,} conversations")
            make(stack, number)
            pages()
            costs(turns)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def make(stack: Stack, number: int) -> None:
    """Make both lists."""
    from conversations.stores import ALIASES, bulk, control
    from conversations.stores.control import LISTED

    for alias in ALIASES:
        begun = time.monotonic()
        for _ in bulk(alias).list_all():
            pass
        control(alias).write_note(LISTED, str(time.time()))
        print(f"  made in {alias}: {time.monotonic() - begun:.1f} s")
    with stack.redis.client() as client:
        size: Any = client.memory_usage("onesource:newest:", samples=0)
        print(f"  Redis: {size / number:.0f} bytes a conversation")


def pages() -> None:
    """Read a first page, one in the middle, and the first of all tenants as the admin does, with previews and their
    number: from both stores and from each."""
    from conversations.errors import NoStore
    from conversations.history.listing import Wanted, page, total
    from conversations.runtime import state
    from conversations.stores import ALIASES, store

    newest = store(ALIASES[0]).newest("", None, 1).places[0].at
    wanted = {"first": Wanted(""), "middle": Wanted("", until=earlier(newest)), "the admin": Wanted(None)}
    for out in ((), *((alias,) for alias in ALIASES)):
        state.forget()
        for alias in out:
            state.state().stores[alias].reads.trip()
        for name, one in wanted.items():
            took = []
            for _ in range(3):
                begun = time.perf_counter()
                try:
                    found = len(page(one, "", 50, 120 if one.tenant is None else 0).results)
                    if one.tenant is None:
                        total(one)
                except NoStore:
                    found = 0
                took.append((time.perf_counter() - begun) * 1000)
            print(
                f"  {name}: {found} in {statistics.median(took):.0f} ms, without {' '.join(out) or 'none'}", flush=True
            )


def earlier(at: str) -> str:
    """Return the time twelve hours before."""
    from conversations.ids import milliseconds, stamp, time_at

    return stamp(time_at(milliseconds(at) - 12 * 3_600_000))


def costs(turns: int) -> None:
    """Store turns with what the list takes of them and without it, in short rounds of each."""
    from conversations.stores import ALIASES, control, store
    from conversations.stores.mongo.patient import documents
    from tests.builders import a_session, a_turn

    def rounds(alias: str, without: Callable[[], object], again: Callable[[], object]) -> None:
        took: dict[str, list[float]] = {"with": [], "without": []}
        session, one = a_session(), store(alias)
        one.append(session, a_turn())
        for number in range(10):
            kind = ("with", "without")[number % 2]
            without() if kind == "without" else again()
            for _ in range(turns // 10):
                seen, turn = one.load(session), a_turn()
                begun = time.perf_counter()
                one.append_after(session, seen, turn)  # type: ignore[arg-type]
                took[kind].append((time.perf_counter() - begun) * 1e6)
        medians = {kind: round(statistics.median(each)) for kind, each in took.items()}
        print(f"  a turn in {alias}, microseconds: {medians}", flush=True)

    def drop() -> None:
        for name in ("place_-1__id_-1", "updated_at_-1__id_-1"):
            documents().drop_index(name)

    redis, mongo = ALIASES
    rounds(mongo, drop, control(mongo).prepare)
    client = store(redis)._store._client  # type: ignore[attr-defined]
    client.newest.noted.update({a_session(): a_turn().answer.at for _ in range(1000)})
    begun, cpu = time.perf_counter(), time.thread_time()
    store(redis).write_list()
    took, cpu = time.perf_counter() - begun, time.thread_time() - cpu
    print(f"  1,000 turns written in Redis' list: {took * 1000:.1f} ms, {cpu * 1000:.1f} of CPU here")
    rounds(redis, lambda: None, lambda: None)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conversations", type=int, default=100_000)
    parser.add_argument("--turns", type=int, default=1_000)
    given = parser.parse_args()
    measure(given.conversations, given.turns)
