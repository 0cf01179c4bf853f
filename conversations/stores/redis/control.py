"""What processes agree on through Redis: a hash of flags, and keys that belong to no conversation."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from math import inf
from typing import Any

from redis.exceptions import NoPermissionError, RedisError

from conversations.datasets import SILENT, Dataset
from conversations.stores.control import ControlStore, Flags, PermitRequest, Permits, Report
from conversations.stores.redis import connection, parts
from conversations.stores.redis.client import HistoryClient, histories
from conversations.stores.redis.cluster import Cluster
from conversations.stores.redis.faults import as_unavailable_or_corrupt
from conversations.stores.redis.format import flag_bytes
from conversations.stores.redis.keys import DATASET, HEARTBEATS, lease_key, note_key, rate_key


class CacheControl(ControlStore):
    """An unsynced flag is a field of a hash (flags.py), a note or a lease a key of its own; what depends on what is
    there is one Lua script."""

    gives_permits = True

    def flags(self, limit: int) -> Flags:
        with self._errors():
            return self._client.flags.read(self._client.redis, limit)

    def clear_flag(self, session: str, flag: str) -> None:
        with self._errors():
            key = self._client.flags.key(self._client.make_key(session))
            self._client.run("clear_flag", [key], [session, flag_bytes(flag)])

    def note(self, name: str) -> str | None:
        with self._errors():
            text = self._client.call("GET", note_key(name))
        return None if text is None else _text(text)

    def write_note(self, name: str, text: str) -> None:
        with self._errors():
            self._client.call("SET", note_key(name), text)

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
            holder = self._client.call("GET", lease_key(name))
        return None if holder is None else _text(holder)

    @property
    def connections(self) -> int:
        return connection.made

    def report(self, notes: Collection[str] = ()) -> Report:
        with self._errors():
            dataset, instance, time, heartbeats, texts = self._reported(list(map(note_key, notes)))
        now = time[0] + time[1] / 1_000_000
        return Report(
            _dataset(dataset),
            instance,
            now,
            dict(_ages(heartbeats, now)),
            {name: _text(text) for name, text in zip(notes, texts, strict=True) if text is not None},
        )

    def _reported(self, keys: list[str]) -> tuple[Any, str, Any, Any, list[Any]]:
        client = self._client.redis
        if isinstance(client, Cluster):
            return parts.reported(client, keys)
        pipeline = client.pipeline(transaction=False)
        pipeline.hgetall(DATASET).info("server").time().hgetall(HEARTBEATS)
        for key in keys:
            pipeline.get(key)
        dataset, server, time, heartbeats, *values = _answers(pipeline)
        return dataset, server.get("run_id", ""), time, heartbeats, values

    def beat(self, process: str, dataset: Dataset) -> int | None:
        with self._errors():
            self._client.follow_sentinels()
            answer = self._client.run("beat", [DATASET, HEARTBEATS], [dataset.id, process, int(SILENT)])
            if answer is None or not self._raise_parts(replace(dataset, epoch=int(answer)), dataset.epoch):
                return None
        return int(answer)

    def identify(self, dataset: Dataset, before: Dataset | None) -> bool:
        arguments = [before.id if before else "", dataset.id, dataset.epoch, dataset.instance]
        with self._errors():
            return bool(self._client.run("identify", [DATASET], arguments)) and self._raise_parts(dataset)

    def _raise_parts(self, dataset: Dataset, seen: int | None = None) -> bool:
        """Have every part of a cluster know the epoch of the dataset; return whether none has lost the one that was
        seen."""
        if not isinstance(self._client.redis, Cluster):
            return True
        return all(self._client.run_for_each("raise_epoch", parts.raising(dataset, seen)))

    def remove_heartbeat(self, process: str) -> None:
        with self._errors():
            self._client.call("HDEL", HEARTBEATS, process)

    @property
    def _client(self) -> HistoryClient:
        client: HistoryClient = histories().client
        return client

    def _errors(self) -> AbstractContextManager[None]:
        return as_unavailable_or_corrupt(self.alias)


def _arguments(one: PermitRequest) -> list[int]:
    return [one.rate.limit, one.rate.seconds * 1000, one.asked, one.unused, one.period, int(one.more)]


def _answers(pipeline: Any) -> list[Any]:
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
