"""`restore`: what was lost comes back, what was deleted does not, and a bad file changes nothing."""

import gzip
import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
import time_machine
from django.conf import settings as django_settings

from conversations.ids import now, tombstone_for
from conversations.stores import ALIASES, MONGO, REDIS, store
from conversations.stores.redis.client import histories
from ops.backup import archive
from ops.models import AuditEntry
from tests.builders import a_session, a_turn, some_turns
from tests.commands.test_backup import make
from tests.commands.working import hold, run, run_json, turns_in
from tests.servers import MongoServer, RedisServer, eventually

pytestmark = pytest.mark.usefixtures("both_empty")

FORMAT_1 = Path(__file__).parent.parent / "data" / "backup-format-1.tar"
IN_FORMAT_1 = {
    "in-both": ["Both 0?", "Both 1?", "Both 2?"],
    "tenant:in-redis": ["Redis 0?", "Redis 1?"],
    "in-mongo": ["Mongo 0?", "Mongo 1?"],
    "deleted": [],
}


def lose(redis_server: RedisServer, mongo_server: MongoServer, *aliases: str) -> None:
    """Lose all that these stores have."""
    with redis_server.client() as redis, mongo_server.client() as mongo:
        if REDIS in aliases:
            redis.flushdb()
        if MONGO in aliases:
            mongo.get_default_database()["conversations_conversation"].delete_many({})


def everything() -> tuple[Any, ...]:
    """Return all that both stores hold."""
    return tuple(
        (alias, session, turns_in(alias, session))
        for alias in ALIASES
        for session in sorted(store(alias).scan(limit=10_000, tenant=None).sessions)
    )


def test_it_goes_on_when_nobody_reads_what_it_says(
    tmp_path: Path, redis_server: RedisServer, mongo_server: MongoServer
) -> None:
    """`restore … | head -1`: half of a change would be worse than words that nobody has read."""
    session = hold(REDIS)
    path = make(tmp_path)
    lose(redis_server, mongo_server, REDIS)
    command = [sys.executable, "-u", "manage.py", "restore", str(path), "--into", REDIS]
    with subprocess.Popen(
        command, cwd=django_settings.BASE_DIR, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, "Broken pipe" in said) == (0, False), said
    assert turns_in(REDIS, session)


@pytest.mark.parametrize("into", [REDIS, MONGO, "both"])
def test_what_was_lost_comes_back(
    tmp_path: Path, redis_server: RedisServer, mongo_server: MongoServer, into: str
) -> None:
    """Into the store named, from whichever store it was in."""
    cached, kept, tenants = hold(REDIS), hold(MONGO), hold(REDIS, MONGO, session="tenant:name")
    before = {session: turns_in(REDIS, session) or turns_in(MONGO, session) for session in (cached, kept, tenants)}
    path = make(tmp_path)
    lose(redis_server, mongo_server, *ALIASES)
    code, told = run_json("restore", str(path), "--into", into)
    aliases = ALIASES if into == "both" else (into,)
    assert code == 0
    assert [told["stores"][alias]["created"] for alias in aliases] == [3] * len(aliases)
    for alias in ALIASES:
        for session, turns in before.items():
            assert turns_in(alias, session) == (turns if alias in aliases else ())


def test_an_archive_of_format_1_comes_back(tmp_path: Path) -> None:
    """The file was made by an earlier version; each conversation is as it was then."""
    with time_machine.travel(datetime(2026, 11, 27, tzinfo=UTC), tick=True):
        code, report = run_json("restore", str(FORMAT_1), "--into", "both")
        assert (code, report["stores"][REDIS]["created"], report["stores"][MONGO]["created"]) == (0, 3, 3)
        for alias in ALIASES:
            found = {name: [turn.question.content for turn in turns_in(alias, name)] for name in IN_FORMAT_1}
            assert found == IN_FORMAT_1
            assert store(alias).inspect("deleted").tombstone == "01a1f8d3-ea00-7baa-b0fd-fbd51b1f2683"


@pytest.mark.parametrize("alias", ALIASES)
def test_it_merges_by_id_and_loses_nothing_later(tmp_path: Path, alias: str) -> None:
    turns = some_turns(5)
    session = hold(alias, turns=turns[:4])
    path = make(tmp_path)
    store(alias).delete(session, turns[0].answer.id)
    assert run("restore", str(path), "--into", alias)[0] == 0
    assert turns_in(alias, session) == turns[1:4]
    store(alias).append(session, turns[4])
    assert run("restore", str(path), "--into", alias)[0] == 0
    assert turns_in(alias, session) == turns[1:5]


def test_turns_that_only_the_backup_has_are_added(
    tmp_path: Path, redis_server: RedisServer, mongo_server: MongoServer
) -> None:
    turns = some_turns(4)
    session = hold(*ALIASES, turns=turns[:2])
    path = make(tmp_path)
    lose(redis_server, mongo_server, *ALIASES)
    hold(*ALIASES, session=session, turns=turns[2:])
    assert run("restore", str(path), "--into", "both")[0] == 0
    assert turns_in(REDIS, session) == turns_in(MONGO, session) == turns


@pytest.mark.parametrize("words", [[], ["--replace", "--noinput"]])
def test_what_was_deleted_since_stays_deleted(
    tmp_path: Path, redis_server: RedisServer, mongo_server: MongoServer, words: list[str]
) -> None:
    """Also in a store that was lost with its tombstones, as long as the other store knows."""
    gone, there = hold(*ALIASES), hold(*ALIASES)
    path = make(tmp_path)
    for alias in ALIASES:
        store(alias).delete(gone, tombstone_for(None))
    lose(redis_server, mongo_server, REDIS)
    code, told = run_json("restore", str(path), "--into", "both", *words)
    assert code == 0
    assert turns_in(REDIS, gone) == turns_in(MONGO, gone) == ()
    assert store(REDIS).inspect(gone).tombstone is not None
    assert len(turns_in(REDIS, there)) == 3
    assert told["stores"][REDIS]["deleted"] > 0


def test_a_deletion_in_the_backup_is_made_again(
    tmp_path: Path, redis_server: RedisServer, mongo_server: MongoServer
) -> None:
    turns = some_turns(3)
    session = hold(*ALIASES, turns=turns)
    for alias in ALIASES:
        store(alias).delete(session, turns[1].answer.id)
    path = make(tmp_path)
    lose(redis_server, mongo_server, *ALIASES)
    hold(*ALIASES, session=session, turns=turns)
    assert run("restore", str(path), "--into", "both")[0] == 0
    assert turns_in(REDIS, session) == turns_in(MONGO, session) == turns[2:]


@pytest.mark.parametrize("alias", ALIASES)
def test_replace_makes_it_what_the_backup_has_and_leaves_others(tmp_path: Path, alias: str) -> None:
    turns = some_turns(4)
    session = hold(alias, turns=turns[:2])
    path = make(tmp_path)
    store(alias).append(session, None, turns[2:])
    later = hold(alias)
    code, told = run_json("restore", str(path), "--into", alias, "--replace", "--noinput")
    assert (code, told["stores"][alias]["replaced"]) == (0, 1)
    assert turns_in(alias, session) == turns[:2]
    assert len(turns_in(alias, later)) == 3


@pytest.mark.parametrize("typed", ["", "y", "no"])
def test_replace_without_a_typed_yes_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    session = hold(REDIS)
    path = make(tmp_path)
    store(REDIS).append(session, a_turn())
    monkeypatch.setattr("builtins.input", lambda *_: typed)
    code, said = run("restore", str(path), "--into", "redis", "--replace")
    assert (code, said.splitlines()[-1]) == (2, "not confirmed; nothing was changed")
    assert len(turns_in(REDIS, session)) == 4


def test_the_time_since_the_backup_counts(tmp_path: Path, redis_server: RedisServer, mongo_server: MongoServer) -> None:
    """What would have expired by now does not come back; the rest has the days that it had left."""
    short, long = hold(*ALIASES), hold(*ALIASES)
    with redis_server.client() as redis, mongo_server.client() as mongo:
        redis.expire(f"conv:{short}", 3600)
        mongo.get_default_database()["conversations_conversation"].update_one(
            {"_id": f"conv:{short}"}, {"$set": {"expires_at": now() + timedelta(hours=1)}}
        )
    path = make(tmp_path)
    lose(redis_server, mongo_server, *ALIASES)
    with time_machine.travel(now() + timedelta(days=10), tick=True):
        code, told = run_json("restore", str(path), "--into", "redis")
    assert (code, told["stores"][REDIS]["expired"], told["stores"][REDIS]["created"]) == (0, 1, 1)
    assert turns_in(REDIS, short) == ()
    assert abs((store(REDIS).ttl(long) or 0) - 20 * 86_400) < 60


def test_the_limits_of_the_target_apply(tmp_path: Path, redis_server: RedisServer, mongo_server: MongoServer) -> None:
    turns = some_turns(20)
    session = a_session()
    with redis_server.client() as redis:
        redis.set(f"conv:{session}", b"".join(turn.lines() for turn in turns), ex=1000)
    path = make(tmp_path)
    lose(redis_server, mongo_server, REDIS)
    assert run("restore", str(path), "--into", "both")[0] == 0
    assert turns_in(REDIS, session) == turns_in(MONGO, session) == turns[-16:]


def test_twice_is_as_once(tmp_path: Path) -> None:
    for _ in range(5):
        hold(*ALIASES)
    path, before = make(tmp_path), everything()
    for _ in range(2):
        assert run("restore", str(path), "--into", "both")[0] == 0
        assert everything() == before


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _no_end(data: bytes) -> bytes:
    return data[:-2000]


def _flipped(data: bytes) -> bytes:
    return data[:600] + bytes([data[600] ^ 1]) + data[601:]


def _remade(change: Callable[[dict[str, Any], bytes], tuple[dict[str, Any], bytes]]) -> Callable[[bytes], bytes]:
    """Return what makes a file whose parts fit one another, but not our format."""

    def damage(data: bytes) -> bytes:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            manifest = orjson.loads(tar.extractfile("manifest.json").read())  # type: ignore[union-attr]
            lines = gzip.decompress(tar.extractfile("conversations.jsonl.gz").read())  # type: ignore[union-attr]
        manifest["files"] = {"conversations.jsonl.gz": manifest["files"]["conversations.jsonl.gz"]}
        facts = manifest["files"]["conversations.jsonl.gz"]
        manifest, lines = change(manifest, lines)
        packed = gzip.compress(lines)
        facts |= {"bytes": len(packed), "sha256": hashlib.sha256(packed).hexdigest()}
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            for name, body in (("conversations.jsonl.gz", packed), ("manifest.json", orjson.dumps(manifest))):
                info = tarfile.TarInfo(name)
                info.size = len(body)
                tar.addfile(info, io.BytesIO(body))
        return out.getvalue()

    return damage


def _whole(manifest: dict[str, Any], lines: bytes) -> dict[str, Any]:
    manifest["files"]["conversations.jsonl.gz"] |= {"raw_bytes": len(lines), "lines": lines.count(b"\n")}
    return manifest


def _with_line(line: bytes) -> Callable[[bytes], bytes]:
    return _remade(lambda manifest, lines: (_whole(manifest, lines + line), lines + line))


BAD: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda data: b"", "foreign"),
    "another program's": (lambda data: b"PK\3\4" + data, "foreign"),
    "cut": (_cut, "truncated"),
    "without its end": (_no_end, "truncated"),
    "flipped": (_flipped, "damaged"),
    "newer": (_remade(lambda manifest, lines: (manifest | {"version": 2}, lines)), "newer"),
    "another format": (_remade(lambda manifest, lines: (manifest | {"format": "x"}, lines)), "foreign"),
    "no manifest": (_remade(lambda manifest, lines: ({"format": archive.FORMAT, "version": 1}, lines)), "damaged"),
    "a line too many": (_remade(lambda manifest, lines: (manifest, lines + lines)), "oversized"),
    "a bomb": (_remade(lambda manifest, lines: (manifest, lines + b" " * 50_000_000)), "oversized"),
    "an endless line": (_with_line(b" " * (archive.MAX_LINE + 1) + b"\n"), "oversized"),
    "not JSON": (_with_line(b"{\n"), "damaged: line 3"),
    "nested": (_with_line(b"[" * 100_000 + b"\n"), "damaged: line 3"),
    "another store": (_with_line(b'{"store":"x","session":"s","ttl":1,"tombstone":null,"messages":[]}\n'), "damaged"),
    "no session": (_with_line(b'{"store":"redis","session":"*","ttl":1,"tombstone":null,"messages":[]}\n'), "damaged"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_by_name_before_anything_changes(tmp_path: Path, name: str) -> None:
    session = hold(*ALIASES)
    path = make(tmp_path)
    damage, reason = BAD[name]
    bad = tmp_path / "bad.tar"
    bad.write_bytes(damage(path.read_bytes()))
    for alias in ALIASES:
        store(alias).delete(session, turns_in(alias, session)[0].answer.id)
    before = everything()
    code, said = run("restore", str(bad), "--into", "both", "--replace", "--noinput")
    assert code == 2
    assert f"{bad}: This file cannot be restored: {reason}" in said
    assert said.endswith("nothing was changed\n")
    assert everything() == before


def test_a_store_that_is_out_is_told_before_anything_changes(tmp_path: Path, redis_server: RedisServer) -> None:
    session = hold(MONGO)
    path = make(tmp_path)
    redis_server.kill()
    try:
        code, said = run("restore", str(path), "--into", "both")
        assert (code, said) == (2, "redis cannot be reached; nothing was changed\n")
        code, said = run("restore", str(path), "--into", "mongo")
        assert code == 0
        assert "  redis is out: what only it knows to be deleted may have come back.\n" in said
    finally:
        redis_server.start()
    assert len(turns_in(MONGO, session)) == 3


def test_what_it_did_is_in_the_audit_log(tmp_path: Path) -> None:
    hold(REDIS)
    path = make(tmp_path)
    run("restore", str(path), "--into", "redis", "--reason", "a test")
    entry = AuditEntry.objects.order_by("id").last()
    assert entry is not None
    assert (entry.action, entry.reason, entry.outcome) == ("restore", "a test", "done")


def test_killed_half_way_it_is_finished_by_doing_it_again(
    tmp_path: Path, redis_server: RedisServer, mongo_server: MongoServer
) -> None:
    turns = some_turns(4, size=300)
    with histories().client.get_client().pipeline(transaction=False) as pipeline:
        for number in range(2000):
            pipeline.set(f"conv:s{number}", b"".join(turn.lines() for turn in turns), ex=100_000)
        pipeline.execute()
    path = make(tmp_path)
    lose(redis_server, mongo_server, REDIS)
    process = subprocess.Popen(
        [sys.executable, "manage.py", "restore", str(path), "--into", "redis"],
        cwd=django_settings.BASE_DIR, env=os.environ | {"VAR_DIR": str(tmp_path)}, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    client = histories().client.get_client()
    eventually(lambda: client.dbsize() > 200, "it did not begin")
    process.send_signal(signal.SIGKILL)
    process.wait()
    for key in client.scan_iter("conv:*", count=1000):
        assert client.strlen(key) == len(b"".join(turn.lines() for turn in turns))
    client.delete("onesource:lease:operator")  # it would end by itself in ten seconds
    with mongo_server.client() as mongo:
        mongo.get_default_database()["onesource_notes"].delete_many({})
    begun = time.monotonic()
    assert run("restore", str(path), "--into", "redis")[0] == 0
    assert len(client.keys("conv:*")) == 2000
    assert time.monotonic() - begun < 20
