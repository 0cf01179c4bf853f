"""Histories in Redis, through Django's cache API."""

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from django.conf import settings
from redis.exceptions import ResponseError

from conversations import deadline
from conversations.datasets import Dataset
from conversations.errors import CorruptHistory
from conversations.stores.base import (
    MOST_SCANNED,
    Contents,
    HistoryStore,
    Page,
    Receipt,
    Summary,
    report_tombstone,
    tombstone_in,
)
from conversations.stores.control import ControlStore, Flags, Report
from conversations.stores.redis import connection
from conversations.stores.redis.client import HistoryClient, histories
from conversations.stores.redis.faults import FAULTS, cause_of, unavailable
from conversations.stores.redis.format import keys_of
from conversations.stores.sessions import is_of, part_of_name, session_of
from conversations.turns import History, Turn
from conversations.used_keys import Keys

# What one page may cost Redis: 100,000 keys looked at, in steps that let other commands in between.
_STEPS = 50
_STEP = MOST_SCANNED
_CURSOR = re.compile(r"[0-9]{1,20}")  # SCAN's own


class CacheStore(HistoryStore, ControlStore):
    """One STRING a conversation; appending, quarantining and deleting are one Lua script each."""

    cheap_reads = True  # one GET

    @property
    def call_seconds(self) -> float:
        return float(settings.REDIS_SOCKET_TIMEOUT_MS) / 1000

    def load(self, session: str) -> History | None:
        with self._errors():
            history: History | None = histories().get(session)
            return history

    def inspect(self, session: str) -> Contents:
        with self._errors():
            history, tombstone, flag, keys = self._client.inspect(session)
        return Contents(history, tombstone_in(self.alias, session, tombstone), flag, keys_of(keys))

    def _append(self, session: str, turn: Turn | None, missing: Sequence[Turn], flag: bool) -> Receipt:
        with self._errors():
            stored, before, tombstone, corrupt, expired = self._client.append(
                session, turn, missing, self.limits, flag=flag
            )
        if corrupt:
            report_tombstone(self.alias, session)
        return Receipt(stored, before == 0, tombstone or None, int(expired) if expired else None)

    def keep_keys(self, session: str, keys: Keys) -> None:
        with self._errors():
            self._client.keep_keys(session, keys)

    def delete(self, session: str, upto: str, *, flag: bool = False) -> bool:
        with self._errors():
            return self._client.forget(session, upto, self.tombstone_ttl, flag=flag) > 0

    def flags(self, limit: int) -> Flags:
        with self._errors():
            sessions, complete, number = self._client.flags(limit)
            return Flags(frozenset(sessions), complete, number)

    def clear_flag(self, session: str, flag: str) -> None:
        with self._errors():
            self._client.clear_flag(session, flag)

    def ttl(self, session: str) -> int | None:
        with self._errors():
            seconds = self._client.expires_in(session)
            return seconds if seconds >= 0 else None

    def _scan(self, cursor: str, limit: int, tenant: str | None, contains: str) -> Page:
        pattern = (f"{tenant}:*" if tenant else "*") + (f"{part_of_name(contains)}*" if contains else "")
        found: list[str] = []
        position, count = int(cursor or 0), limit
        enough = deadline.left() / 2  # the rest is for the summaries of what was found
        with self._errors():
            for _ in range(_STEPS):
                position, keys = self._client.scan(position, pattern, count)
                sessions = (session_of(key.decode()) for key in keys if key.isascii())
                found += [session for session in sessions if is_of(session, tenant)]
                if not position or len(found) >= limit or deadline.left() < enough:
                    break
                if not keys:  # few match: a longer step saves round trips and finds hardly more than was asked for
                    count = min(2 * count, _STEP)
        return Page(tuple(found), str(position or ""))

    def is_cursor(self, cursor: str, tenant: str | None) -> bool:
        return _CURSOR.fullmatch(cursor) is not None and int(cursor) < 2**64

    def last_ids(self, sessions: Collection[str]) -> dict[str, str]:
        with self._errors():
            return self._client.last_ids(sessions)

    def summaries(self, sessions: Collection[str]) -> dict[str, Summary]:
        with self._errors():
            found = self._client.ends(sessions)
        return {session: Summary.of_end(*end) for session, end in found.items()}

    def quarantine(self, session: str) -> bool:
        with self._errors():
            return self._client.quarantine(session, self.limits.ttl)

    def note(self, name: str) -> str | None:
        with self._errors():
            return self._client.note(name)

    def write_note(self, name: str, text: str) -> None:
        with self._errors():
            self._client.write_note(name, text)

    def lease(self, name: str, holder: str, seconds: float) -> bool:
        with self._errors():
            return self._client.lease(name, holder, seconds)

    @property
    def connections(self) -> int:
        return connection.made

    def report(self, notes: Collection[str] = ()) -> Report:
        with self._errors():
            return self._client.report(notes)

    def beat(self, process: str, dataset: Dataset) -> int | None:
        with self._errors():
            return self._client.beat(process, dataset)

    def identify(self, dataset: Dataset, before: Dataset | None) -> bool:
        with self._errors():
            return self._client.identify(dataset, before)

    def farewell(self, process: str) -> None:
        with self._errors():
            self._client.farewell(process)

    def ping(self) -> None:
        with self._errors():
            self._client.ping()

    @property
    def _client(self) -> HistoryClient:
        client: HistoryClient = histories().client
        return client

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn every way the driver reports a fault into one of ours."""
        try:
            yield
        except FAULTS as error:
            cause = cause_of(error)
            # In a pipeline the driver puts the command before the server's words.
            if isinstance(cause, ResponseError) and any(word in str(cause) for word in ("CORRUPT", "WRONGTYPE")):
                raise CorruptHistory(self.alias, type(cause).__name__) from error
            raise unavailable(self.alias, error) from error
