"""What processes agree on through Redis: a hash of flags, and keys that belong to no conversation."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from math import inf
from typing import Any

from redis.exceptions import NoPermissionError, RedisError

from conversations.datasets import SILENT, Dataset
from conversations.stores.control import ControlStore, Flags, PermitRequest, Permits, Report
from conversations.stores.redis import connection
from conversations.stores.redis.client import HistoryClient, histories
from conversations.stores.redis.faults import as_unavailable_or_corrupt
from conversations.stores.redis.format import flag_bytes, flag_text
from conversations.stores.redis.keys import DATASET, FLAGS, HEARTBEATS, flags_key, lease_key, note_key, rate_key
from conversations.turns import SESSION


class CacheControl(ControlStore):
    """An unsynced flag is a field of a hash, a note or a lease a key of its own; what depends on what is there is one
    Lua script."""

    gives_permits = True

    def flags(self, limit: int) -> Flags:
        found: set[str] = set()
        cursor, number = 0, 0
        with self._errors():
            while True:
                (cursor, fields), number = _hscan(self._client.redis, cursor, limit)
                # A field that is no session's name is no flag: another program wrote it.
                found |= {name for name in map(flag_text, fields) if SESSION.fullmatch(name)}
                if not cursor or len(found) >= limit:
                    return Flags(frozenset(found), not cursor, number if cursor else len(found))

    def clear_flag(self, session: str, flag: str) -> None:
        with self._errors():
            key = flags_key(self._client.make_key(session))
            self._client.run("clear_flag", [key], [session, flag_bytes(flag)])

    def note(self, name: str) -> str | None:
        with self._errors():
            text = self._client.redis.get(note_key(name))
        return None if text is None else _text(text)

    def write_note(self, name: str, text: str) -> None:
        with self._errors():
            self._client.redis.set(note_key(name), text)

    def lease(self, name: str, holder: str, seconds: float) -> bool:
        with self._errors():
            return bool(self._client.run("lease", [lease_key(name)], [holder, int(seconds * 1000)]))

    def release(self, name: str, holder: str) -> None:
        with self._errors():
            self._client.run("release", [lease_key(name)], [holder])

    def permits(self, requests: Sequence[PermitRequest], seconds: float = inf) -> list[Permits]:
        calls = [(rate_key(one.name, one.rate), _arguments(one)) for one in requests]
        with self._errors():
            answers = self._client.run_for_each("permits", calls)
        return [Permits(number, period, wait / 1000) for number, period, wait in answers]

    def holder(self, name: str) -> str | None:
        with self._errors():
            holder = self._client.redis.get(lease_key(name))
        return None if holder is None else _text(holder)

    @property
    def connections(self) -> int:
        return connection.made

    def report(self, notes: Collection[str] = ()) -> Report:
        with self._errors():
            pipeline = self._client.redis.pipeline(transaction=False)
            pipeline.hgetall(DATASET).info("server").time().hgetall(HEARTBEATS)
            for name in notes:
                pipeline.get(note_key(name))
            dataset, server, time, heartbeats, *texts = _reported(pipeline)
        now = time[0] + time[1] / 1_000_000
        return Report(
            _dataset(dataset),
            server.get("run_id", ""),
            now,
            dict(_ages(heartbeats, now)),
            {name: _text(text) for name, text in zip(notes, texts, strict=True) if text is not None},
        )

    def beat(self, process: str, dataset: Dataset) -> int | None:
        with self._errors():
            self._client.follow_sentinels()
            answer = self._client.run("beat", [DATASET, HEARTBEATS], [dataset.id, process, int(SILENT)])
        return None if answer is None else int(answer)

    def identify(self, dataset: Dataset, before: Dataset | None) -> bool:
        arguments = [before.id if before else "", dataset.id, dataset.epoch, dataset.instance]
        with self._errors():
            return bool(self._client.run("identify", [DATASET], arguments))

    def remove_heartbeat(self, process: str) -> None:
        with self._errors():
            self._client.redis.hdel(HEARTBEATS, process)

    @property
    def _client(self) -> HistoryClient:
        client: HistoryClient = histories().client
        return client

    def _errors(self) -> AbstractContextManager[None]:
        return as_unavailable_or_corrupt(self.alias)


def _arguments(one: PermitRequest) -> list[int]:
    return [one.rate.limit, one.rate.seconds * 1000, one.asked, one.unused, one.period, int(one.more)]


def _hscan(client: Any, cursor: int, count: int) -> Any:
    """Return the answer of one step of HSCAN, and how many flags there are."""
    pipeline = client.pipeline(transaction=False)
    return pipeline.hscan(FLAGS, cursor, count=count).hlen(FLAGS).execute()


def _reported(pipeline: Any) -> list[Any]:
    """Return the answers of a report's pipeline; raise the first error but one of INFO's rights. Without that right a
    restart is noticed only where data were lost."""
    answers = pipeline.execute(raise_on_error=False)
    if isinstance(answers[1], NoPermissionError):
        answers[1] = {}
    for error in answers:
        if isinstance(error, RedisError):
            raise error
    return list(answers)


def _dataset(fields: Mapping[bytes, bytes]) -> Dataset | None:
    return Dataset(fields[b"id"].decode(), int(fields[b"epoch"]), fields[b"instance"].decode()) if fields else None


def _ages(heartbeats: Mapping[bytes, bytes], now: float) -> Iterator[tuple[str, float]]:
    """Yield each process with the seconds since it was here; what another program wrote is left out."""
    for name, at in heartbeats.items():
        with suppress(ValueError):
            yield name.decode(), max(now - float(at) / 1000, 0.0)


def _text(note: bytes) -> str:
    return note.decode(errors="replace")
