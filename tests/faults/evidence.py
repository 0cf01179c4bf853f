"""What the stores hold and what the servers answer, read without any code of onesource: the evidence to judge."""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from redis import RedisCluster

from tests.faults.service import Service
from tests.faults.stack import Stack

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Held:
    """One conversation in one store."""

    messages: tuple[Message, ...] = ()
    tombstone: str | None = None
    problem: str = ""

    @property
    def ids(self) -> frozenset[str]:
        return frozenset(message["id"] for message in self.messages)

    def current(self) -> tuple[Message, ...]:
        """Return the messages without superseded turns: of one Idempotency-Key the latest turn counts, and
        stores may keep the others, which no reader shows."""
        latest = {one["key"]: one["id"] for one in self.messages if one.get("key")}
        shown: list[Message] = []
        for question, answer in zip(self.messages[::2], self.messages[1::2], strict=False):
            if latest.get(question.get("key"), question["id"]) == question["id"]:
                shown += (question, answer)
        return tuple(shown)


@dataclass
class Stored:
    """Some conversations in both stores, and how many flags there are of any."""

    redis: dict[str, Held] = field(default_factory=dict)
    mongo: dict[str, Held] = field(default_factory=dict)
    flags: int = 0

    def of(self, alias: str) -> dict[str, Held]:
        return self.redis if alias == "redis" else self.mongo


def look(stack: Stack, sessions: Iterable[str]) -> Stored:
    """Read the conversations out of both stores, past proxies and servers."""
    found = Stored()
    names = list(sessions)
    with stack.redis.client() as redis:
        for session in names:
            found.redis[session] = _of_redis(redis.get(f"conv:{session}"), redis.get(f"tomb:{{conv:{session}}}"))
        found.flags += _flags_in(redis)
    with stack.mongo.client() as mongo:
        collection = mongo["onesource"]["conversations_conversation"]
        found.mongo = dict.fromkeys(names, Held())
        for document in collection.find({"_id": {"$in": [f"conv:{session}" for session in names]}}):
            session = str(document["_id"]).partition(":")[2]
            messages, tombstone = document.get("messages"), document.get("tombstone")
            problem = "" if isinstance(messages, list) else "no list of messages"
            found.mongo[session] = Held(tuple(messages) if not problem else (), tombstone, problem)  # type: ignore[arg-type]
        found.flags += collection.count_documents({"mark": {"$gt": ""}})
    return found


def _flags_in(redis: Any) -> int:
    """Return how many there are in the one hash of a server, or in the hash that each slot of a cluster has."""
    if not isinstance(redis, RedisCluster):
        return int(redis.hlen("onesource:unsynced"))
    return sum(redis.hlen(key) for key in redis.scan_iter(match="onesource:unsynced:*", count=1000))


def apart(stored: Stored, primary: str, dual_write: bool) -> str:
    """Return in what the stores are not together yet, "" when nothing is left to repair.

    With dual write both hold the same; without, Redis is missing nothing that MongoDB has. What only Redis has
    stays there when MongoDB becomes the primary, which is read together with it, until it is written again.
    """
    if stored.flags:
        return f"{stored.flags} flags are left"
    fallback = "mongo" if primary == "redis" else "redis"
    for session, ours in stored.of(primary).items():
        theirs = stored.of(fallback)[session]
        if ours.problem or theirs.problem:
            return f"{session}: {ours.problem or theirs.problem}"
        if (dual_write or primary == "redis") and (missing := theirs.ids - ours.ids):
            return f"{session}: {primary} is missing {len(missing)} messages of {fallback}"
        if dual_write and (missing := ours.ids - theirs.ids):
            return f"{session}: {fallback} is missing {len(missing)} messages of {primary}"
        if ours.tombstone != theirs.tombstone:
            return f"{session}: only one store knows that it was deleted"
    return ""


def wait_until_together(
    stack: Stack, sessions: list[str], deadline: float, is_apart: Callable[[Stored], str]
) -> tuple[Stored, str]:
    """Return what the stores hold, and in what they are still apart at the deadline."""
    while True:
        stored = look(stack, sessions)
        problem = is_apart(stored)
        if not problem or time.monotonic() > deadline:
            return stored, problem
        time.sleep(0.1)


def seen_by_clients(service: Service, sessions: Iterable[str]) -> dict[str, Held]:
    """Return the conversations as the API returns them."""
    return {session: _held_by_api(service, session) for session in sessions}


def _held_by_api(service: Service, session: str) -> Held:
    status, _, body = service.request("GET", f"/api/chat/conversations/{session}/")
    if status == 200:
        return Held(tuple(json.loads(body)["messages"]))
    return Held(problem="" if status == 404 else f"GET answers {status}")


def shown(stack: Stack) -> dict[str, tuple[str, ...]]:
    """Return the questions that each answer was shown, by the answer's last word."""
    found: dict[str, tuple[str, ...]] = {}
    for service in stack.services:
        for line in service.shown.read_text().splitlines():
            word, *questions = json.loads(line)
            found[word] = tuple(questions)
    return found


def _of_redis(value: bytes | None, tombstone: bytes | None) -> Held:
    deleted_upto = tombstone.decode() if tombstone else None
    try:
        messages = tuple(json.loads(line) for line in (value or b"").splitlines())
    except ValueError:
        return Held((), deleted_upto, "no lines of JSON in redis")
    return Held(messages, deleted_upto)


def flags(stack: Stack) -> int:
    """Return how many conversations have a flag in either store."""
    return look(stack, ()).flags
