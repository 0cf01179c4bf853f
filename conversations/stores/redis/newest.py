"""The list of conversations in Redis, the newest first: a sorted set a tenant, by the time of the last message, and one
of the tenants. A user's conversations are a sorted set too, which expires after the last of them.

A conversation is added in the round trip of its first turn, just before that. That it has gone on is noted, and written
by the watcher a second later at most, so that no other turn waits for it. What a killed process had noted, the list has
again after the next turn, or when it is made anew. No script of a conversation adds it: on a cluster the list is in
another slot.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from django.conf import settings
from redis.exceptions import ResponseError

from conversations import deadline
from conversations.ids import milliseconds, stamp, time_at
from conversations.stores.base import Newest, Place
from conversations.stores.batches import batches
from conversations.stores.control import LISTED
from conversations.stores.redis.kept import Command
from conversations.stores.redis.keys import TENANTS, newest_key, note_key, user_key
from conversations.stores.sessions import id_of, session_named, tenant_of
from conversations.turns import SESSION, USER, Turn

Send = Callable[[Sequence[Command]], list[Any]]
"""Sends commands in one round trip; returns their answers, an error in the place of an answer."""

_BATCH = 500  # conversations that are written at a time
_MOST = 100_000  # noted ones, while Redis takes none
_TENANTS = 50  # of all, asked in one round trip
_LOOKED = 1_000  # conversations of a tenant whose names are searched in one round trip
_STEPS = 50
_COUNTED = 1_000  # tenants whose conversations are counted in one round trip
_LONGER = 86_400  # seconds by which a user's list outlives the conversations in it, so that none is there without it


class Change(NamedTuple):
    """What a conversation has become, for the lists."""

    at: str
    """The time of its last message."""
    users: Collection[str] = ()

    @classmethod
    def of(cls, turns: Sequence[Turn]) -> "Change":
        """Return the change by these turns."""
        return cls(max(turn.answer.at for turn in turns), {turn.question.user for turn in turns} - {None})  # type: ignore[arg-type]


def adding(places: Iterable[tuple[str, Change]]) -> list[Command]:
    """Return the commands that put sessions in their tenants' lists and in those of their users, each with the time of
    its last message; none moves to an earlier time."""
    lists: dict[str, list[Any]] = {}
    users: dict[str, list[Any]] = {}
    for session, (at, named) in places:
        tenant, score = tenant_of(session), milliseconds(at)
        lists.setdefault(tenant, []).extend((score, id_of(session)))
        for user in filter(USER.fullmatch, named):
            users.setdefault(user_key(tenant, user), []).extend((score, id_of(session)))
    newest = [part for tenant, each in lists.items() for part in (max(each[::2]), tenant)]
    every: list[Command] = [("ZADD", newest_key(tenant), "GT", *each) for tenant, each in lists.items()]
    for key, each in users.items():
        every += [("ZADD", key, "GT", *each), ("EXPIRE", key, settings.CONV_TTL_SECONDS + _LONGER)]
    return [*every, ("ZADD", TENANTS, "GT", *newest)] if every else []


def removing(session: str) -> list[Command]:
    """Return the command that removes a session from its tenant's list."""
    return [("ZREM", newest_key(tenant_of(session)), id_of(session))]


def removing_of(session: str, users: Iterable[str]) -> list[Command]:
    """Return the commands that remove a session from the lists of these users."""
    return [("ZREM", user_key(tenant_of(session), user), id_of(session)) for user in users]


def asking(sessions: Iterable[str]) -> list[Command]:
    """Return the commands that ask for the scores of sessions."""
    return [("ZSCORE", newest_key(tenant_of(session)), id_of(session)) for session in sessions]


def time_of_score(score: Any) -> str | None:
    """Return the time of the last message, None where the session is not in the list, or another program put it
    there."""
    try:
        return stamp(time_at(int(float(score))))
    except (TypeError, ValueError, OverflowError):
        return None


class NewestFirst:
    """Reads the list, and writes what was noted. Any thread may note something."""

    def __init__(self, send: Send, unlist: Callable[[str, list[Any]], object]) -> None:
        self._send, self._unlist = send, unlist
        self.noted: dict[str, Change] = {}
        """Conversations that have gone on."""
        self.gone: dict[str, bytes] = {}
        """Conversations that are in the list and are not there, with their scores."""

    def write(self) -> bool:
        """Write what was noted; return whether the list is known to be whole. Raise the driver's errors: then it stays
        noted. What Redis refuses, as where another program's key is in the way, is given up: it would keep all else
        from being written."""
        noted = _taken(self.noted)
        try:
            for batch in batches(noted.items(), _BATCH):
                self._send(adding(batch))
            whole = checked(self._send([("GET", note_key(LISTED))]))[0] is not None
        except Exception:
            if len(self.noted) < _MOST:
                for session, change in noted.items():
                    self.noted.setdefault(session, change)
            raise
        self._write_gone(_taken(self.gone))
        return whole

    def _write_gone(self, gone: Mapping[str, bytes]) -> None:
        lists: dict[str, list[Any]] = {}
        for session, score in gone.items():
            lists.setdefault(newest_key(tenant_of(session)), []).extend((id_of(session), score))
        for key, each in lists.items():
            for part in batches(each, 2 * _BATCH):
                with suppress(
                    ResponseError
                ):  # by rights of an older deployment: what has gone is not shown all the same
                    self._unlist(key, part)

    def read(
        self, tenant: str | None, before: Place | None, limit: int, since: str, contains: str, user: str
    ) -> Newest:
        """Return what `newest` promises; raise the driver's errors."""
        whole, found, enough = self.write(), list[Place](), deadline.left() / 2  # the rest is for the summaries
        end = before
        for _ in range(_STEPS):
            part, end = self._part(tenant, end, limit, since, contains, user)
            found += part
            if not end or len(found) >= limit or deadline.left() < enough:
                break
        if len(found) > limit:
            found, end = found[:limit], found[limit - 1]
        return Newest(tuple(found), end, whole)

    def count(self, tenant: str | None, since: str, until: str) -> int | None:
        """Return what `count` promises; raise the driver's errors."""
        tenants = [tenant] if tenant is not None else []
        if tenant is None:
            names = checked(self._send([("ZRANGE", TENANTS, 0, _COUNTED, "REV")]))[0]
            if len(names) > _COUNTED:
                return None
            tenants = [name.decode(errors="replace") for name in names]
        edges = (milliseconds(since), f"({milliseconds(until)}" if until else "+inf")
        return sum(checked(self._send([("ZCOUNT", newest_key(name), *edges) for name in tenants]))) if tenants else 0

    def _part(
        self, tenant: str | None, before: Place | None, limit: int, since: str, contains: str, user: str
    ) -> tuple[list[Place], Place | None]:
        """Return conversations, and the place down to which these are all."""
        found, ends, more = set[Place](), list[Place](), False
        for tenants in self._tenants() if tenant is None else [[(tenant, "~")]]:
            last = sorted(found, reverse=True)[limit - 1].at if len(found) >= limit else since
            if tenants[0][1] < last:
                more = last > since
                break
            keys = {name: user_key(name, user) if user else newest_key(name) for name, _ in tenants}
            for places, end in self._ranges(keys, before, limit, since, bool(contains)):
                found |= {place for place in places if contains in place.session}
                ends += [end] if end else []
        ordered = sorted(found, reverse=True)
        if more or len(ordered) > limit:
            ends.append(ordered[limit - 1])
        end = max(ends, default=None)
        return [place for place in ordered if not end or place >= end], end

    def _tenants(self) -> Iterator[list[tuple[str, str]]]:
        """Yield all tenants, each with the time of its last message, the latest first."""
        start = 0
        while True:
            command = ("ZRANGE", TENANTS, start, start + _TENANTS - 1, "REV", "WITHSCORES")
            answer = checked(self._send([command]))[0]
            pairs = zip(answer[::2], answer[1::2], strict=True)
            found = [(name.decode(errors="replace"), time_of_score(score) or "~") for name, score in pairs]
            if found:
                yield found
            if len(found) < _TENANTS:
                return
            start += _TENANTS

    def _ranges(
        self, keys: Mapping[str, str], before: Place | None, limit: int, since: str, searched: bool
    ) -> Iterator[tuple[list[Place], Place | None]]:
        """Yield the newest of each tenant, whose list has that key, and the last of them where there may be more."""
        count = _LOOKED if searched else limit + 1
        commands = [_range(key, before, since, 0, count) for key in keys.values()]
        for (tenant, key), answer in zip(keys.items(), checked(self._send(commands)), strict=True):
            offset, places = 0, _places(tenant, answer)
            while len(answer) == 2 * count and not (places and (before is None or places[-1] < before)):
                # As many have the same time as the place, and come before it, or are another program's.
                offset += count
                answer = checked(self._send([_range(key, before, since, offset, count)]))[0]
                places = _places(tenant, answer)
            end = places[-1] if places and len(answer) == 2 * count else None
            yield [place for place in places if not before or place < before], end


def _range(key: str, before: Place | None, since: str, offset: int, count: int) -> Command:
    latest = milliseconds(before.at) if before else "+inf"
    edges = (latest, milliseconds(since), "BYSCORE", "REV", "LIMIT", offset, count)
    return ("ZRANGE", key, *edges, "WITHSCORES")


def _places(tenant: str, answer: list[Any]) -> list[Place]:
    """Return the places in the answer of a range, without those of another program's names."""
    pairs = [
        (session_named(name.decode(errors="replace"), tenant), time_of_score(score))
        for name, score in zip(answer[::2], answer[1::2], strict=True)
    ]
    return [Place(at, session) for session, at in pairs if at and SESSION.fullmatch(session)]


def _taken(noted: dict[str, Any]) -> dict[str, Any]:
    """Remove and return what is there; what other threads note meanwhile stays."""
    taken: dict[str, Any] = {}
    with suppress(KeyError):  # another thread has taken the rest
        for _ in range(len(noted)):
            session, value = noted.popitem()
            taken[session] = value
    return taken


def checked(answers: list[Any]) -> list[Any]:
    """Return the answers; raise the first error among them."""
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers
