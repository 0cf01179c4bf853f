"""Histories in Redis, through Django's cache API."""

from collections.abc import Collection, Sequence

from django.conf import settings

from conversations import deadline
from conversations.stores.base import (
    MOST_SCANNED,
    NO_TIME,
    Contents,
    HistoryStore,
    Newest,
    Page,
    Place,
    Receipt,
    Summary,
    report_tombstone,
    tombstone_in,
)
from conversations.stores.redis.control import CacheControl
from conversations.stores.redis.faults import as_unavailable
from conversations.stores.redis.format import keys_of
from conversations.stores.redis.lines import Lines
from conversations.stores.redis.newest import Change
from conversations.stores.sessions import is_of, session_of
from conversations.turns import History, Turn
from conversations.used_keys import Keys

# What one page may cost Redis: 100,000 keys looked at, in steps that let other commands in between.
_STEPS = 50
_STEP = MOST_SCANNED

_ADDED = Receipt(stored=True, created=False)


class CacheStore(CacheControl, HistoryStore):
    """One STRING a conversation; appending, quarantining and deleting are one Lua script each."""

    cheap_reads = True  # one GET

    @property
    def call_seconds(self) -> float:
        return float(settings.REDIS_SOCKET_TIMEOUT_MS) / 1000

    def load(self, session: str) -> History | None:
        with self._errors():
            return self._client.load(session, self.limits.max_turns)

    def inspect(self, session: str) -> Contents:
        with self._errors():
            history, tombstone, flag, keys = self._client.inspect(session, self.limits.max_turns)
        return Contents(history, tombstone_in(self.alias, session, tombstone), flag, keys_of(keys))

    def _append(self, session: str, turn: Turn | None, missing: Sequence[Turn], flag: bool) -> Receipt:
        with self._errors():
            stored, before, tombstone, corrupt, expired = self._client.append(
                session, turn, missing, self.limits, flag=flag
            )
        if corrupt:
            report_tombstone(self.alias, session)
        return Receipt(stored, before == 0, tombstone or None, int(expired) if expired else None)

    def append_after(self, session: str, seen: History, turn: Turn, *, flag: bool = False) -> Receipt:
        with self._errors():
            client = self._client
            if isinstance(seen, Lines) and client.append_after(session, seen, turn, self.limits, flag=flag):
                user = turn.question.user
                client.newest.noted[session] = Change(turn.answer.at, (user,) if user else ())
                return _ADDED
        return self._append(session, turn, (), flag)

    def keep_keys(self, session: str, keys: Keys) -> None:
        with self._errors():
            self._client.keep_keys(session, keys)

    def delete(self, session: str, upto: str, *, flag: bool = False) -> bool:
        with self._errors():
            return self._client.forget(session, upto, self.tombstone_ttl, flag=flag) > 0

    def ttl(self, session: str) -> int | None:
        with self._errors():
            seconds = self._client.expires_in(session)
            return seconds if seconds >= 0 else None

    def _scan(self, cursor: str, limit: int, tenant: str | None) -> Page:
        pattern = f"{tenant}:*" if tenant else "*"
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

    def _newest(
        self, tenant: str | None, before: Place | None, limit: int, since: str, contains: str, user: str
    ) -> Newest:
        with as_unavailable(self.alias):
            return self._client.newest.read(tenant, before, limit, since, contains, user)

    def write_list(self) -> None:
        with as_unavailable(self.alias):
            self._client.newest.write()

    def count(self, tenant: str | None, since: str = NO_TIME, until: str = "") -> int | None:
        with as_unavailable(self.alias):
            return self._client.newest.count(tenant, since, until)

    def summaries(self, sessions: Collection[str], preview: int = 0) -> dict[str, Summary]:
        with self._errors():
            return self._client.summaries(sessions, self.limits.max_turns, preview)

    def quarantine(self, session: str) -> bool:
        with self._errors():
            return self._client.quarantine(session, self.limits.ttl)

    def ping(self) -> None:
        with self._errors():
            self._client.ping()
