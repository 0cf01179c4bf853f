"""What a process does when it is measured: turns of one contender, alone or by many clients at the same time."""

import asyncio
import inspect
import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

from benchmarks.contenders import CONTENDERS, Contender
from benchmarks.messages import ANSWER, QUESTION, Pair, named_pair, pairs
from benchmarks.service import wait_until

PAIR = (QUESTION, ANSWER)
TURNS_A_FILL = 2  # of a contender that does not trim: its conversations would grow
_filled: set[tuple[str, str, int]] = set()


@cache
def contender(name: str) -> Contender:
    return CONTENDERS[name]()


def set_window(name: str, messages: int) -> Contender:
    """Have the contender keep so many messages, ours by the settings; return it."""
    from django.conf import settings

    from conversations.stores import ALIASES, limits, store

    found = contender(name)
    found.window = messages
    settings.CONV_MAX_TURNS = messages // 2
    settings.CONV_MAX_BYTES = 10_000_000
    for alias in ALIASES:
        store(alias).limits = limits()
    return found


def prepare(name: str, session: str, messages: int) -> Contender:
    """Have the conversation hold so many messages. One that trims is filled once: what it leaves behind when it trims,
    and how often it does, is part of what is measured."""
    found = set_window(name, messages)
    if not found.trims or (name, session, messages) not in _filled:
        found.fill(session, pairs(messages // 2))
        _filled.add((name, session, messages))
    return found


def named(name: str, what: str) -> str:
    """Return the name of a conversation of that contender."""
    return f"{name}-{what}".replace(", ", "-").replace(" ", "-")


def alone(name: str, messages: int, turns: int) -> list[float]:
    """Return the seconds of each of so many turns, one after another in one conversation."""
    session = named(name, f"alone-{messages}")
    found: Any = prepare(name, session, messages)
    taken = list[float]()
    while len(taken) < turns:
        if inspect.iscoroutinefunction(found.turn):
            taken += found.loop.run_until_complete(_some_async(found, session))
        else:
            taken += _some(found, session)
        prepare(name, session, messages)
    return taken[:turns]


def _some(found: Contender, session: str) -> list[float]:
    taken = []
    for _ in range(TURNS_A_FILL):
        begun = time.perf_counter()
        found.turn(session, PAIR)
        taken.append(time.perf_counter() - begun)
    return taken


async def _some_async(found: Any, session: str) -> list[float]:
    taken = []
    for _ in range(TURNS_A_FILL):
        begun = time.perf_counter()
        await found.turn(session, PAIR)
        taken.append(time.perf_counter() - begun)
    return taken


def get_ready(number: int, name: str, messages: int, clients: int) -> None:
    """Get ready for `race`: so many clients, each with a conversation of its own."""
    for client in range(clients):
        prepare(name, named(name, f"race-{number}-{client}"), messages)


def race(number: int, name: str, clients: int, turns: int, at: float) -> tuple[float, float]:
    """Have so many clients make turns from that time on; return when the first began and when the last ended."""
    found: Any = contender(name)
    sessions = [named(name, f"race-{number}-{client}") for client in range(clients)]
    if inspect.iscoroutinefunction(found.turn):
        return found.loop.run_until_complete(_race_async(found, sessions, turns, at))

    def some(session: str) -> None:
        for _ in range(turns):
            found.turn(session, PAIR)

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(lambda _: wait_until(at), range(clients)))  # all its threads are there
        begun = time.monotonic()
        list(pool.map(some, sessions))
        return begun, time.monotonic()


async def _race_async(found: Any, sessions: list[str], turns: int, at: float) -> tuple[float, float]:
    async def some(session: str) -> None:
        for _ in range(turns):
            await found.turn(session, PAIR)

    await asyncio.gather(*(found.session(session).get_items(limit=1) for session in sessions))  # connects
    wait_until(at)
    begun = time.monotonic()
    await asyncio.gather(*map(some, sessions))
    return begun, time.monotonic()


def writers(name: str, clients: int, turns: int) -> dict[str, float]:
    """Have so many clients add turns to one conversation at the same time; return what is kept of them, and the turns a
    second."""
    found: Any = set_window(name, 4 * clients * turns)
    session = named(name, "writers")
    found.fill(session, [named_pair("before")])
    own = [[named_pair(f"{client} {turn}") for turn in range(turns)] for client in range(clients)]
    begun = time.monotonic()
    if inspect.iscoroutinefunction(found.turn):
        found.loop.run_until_complete(_write_async(found, session, own))
    else:

        def some(pairs: list[Pair]) -> None:
            for pair in pairs:
                found.turn(session, pair)

        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(some, own))
    took = time.monotonic() - begun
    added = clients * turns
    return {"added": added, **kept(own, found.contents(session)), "turns_per_second": added / took}


def kept(own: list[list[Pair]], stored: list[str]) -> dict[str, int]:
    """Return what is stored of the turns that each client added in this order: how many of their messages, and of how
    many turns the answer directly follows its question; how many messages there are twice, and how many come before one
    that their client added earlier."""
    wanted = {pair for pairs in own for pair in pairs}
    texts = {text for pair in wanted for text in pair}
    counts = Counter(text for text in stored if text in texts)
    places = {text: place for place, text in reversed(list(enumerate(stored)))}  # the first of each
    misplaced = 0
    for added in own:
        latest = -1
        for text in (text for pair in added for text in pair if text in places):
            misplaced += places[text] < latest
            latest = max(latest, places[text])
    return {
        "messages": len(counts),
        "turns": len(wanted & set(zip(stored, stored[1:], strict=False))),
        "doubled": counts.total() - len(counts),
        "misplaced": misplaced,
    }


async def _write_async(found: Any, session: str, own: list[list[Pair]]) -> None:
    async def some(pairs: list[Pair]) -> None:
        for pair in pairs:
            await found.turn(session, pair)

    await asyncio.gather(*map(some, own))


def appends(name: str, messages: int, number: int) -> int:
    """Append so many turns to a full conversation; return how many."""
    session = named(name, f"appends-{messages}")
    found: Any = prepare(name, session, messages)
    for _ in range(number):
        found.append(session, PAIR)
    return number


def growing(name: str, turns: int, times: int) -> int:
    """So many times have a conversation grow from none to so many turns, which is as many as it may have; return the
    number of turns that were appended."""
    session = named(name, "growing")
    found: Any = set_window(name, 2 * turns)
    for _ in range(times):
        found.fill(session, [])
        for _ in range(turns):
            found.append(session, PAIR)
    return turns * times


def size(name: str, messages: int) -> int:
    """Return the bytes that Redis uses for a full conversation, all its keys together: the most of 16 turns, since
    what trims may leave some turns more than it shows."""
    from redis import Redis

    session = named(name, f"sized-{messages}")
    with Redis.from_url(os.environ["REDIS_URL"]) as client:
        before = set(client.scan_iter(count=1000))
        found: Any = prepare(name, session, messages)
        own = [key for key in set(client.scan_iter(count=1000)) - before if not key.startswith(b"onesource:")]
        sizes = []
        for _ in range(16 if found.trims else 1):
            sizes.append(sum(client.memory_usage(key, samples=0) or 0 for key in own))
            if found.trims:
                found.turn(session, PAIR)
        return max(sizes)


def conversations(number: int, messages: int) -> None:
    """Keep so many full conversations with onesource, each after up to seven turns more: what is stored beyond the
    turns that readers see, and what trimming leaves behind, is part of what they take."""
    found: Any = set_window("onesource, store", messages)
    for conversation in range(number):
        session = f"many-{conversation}"
        found.fill(session, pairs(messages // 2))
        for _ in range(conversation % 8):
            found.turn(session, PAIR)
