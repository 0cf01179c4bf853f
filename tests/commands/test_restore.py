"""`restore`: what was lost comes back, what was deleted does not, and a bad file changes nothing."""

import hashlib
import io
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_LZMA, ZipFile

import orjson
import pytest
import time_machine
from django.conf import settings as django_settings

from conversations import clock, expiry
from conversations.clock import now
from conversations.ids import tombstone_for
from conversations.stores import ALIASES, MONGO, REDIS, store
from conversations.stores.bulk import Share
from conversations.stores.redis.client import histories
from conversations.stores.redis.keys import tombstone_key
from conversations.turns import Limits
from ops.backup import restore
from ops.backup.manifest import FORMAT
from ops.backup.record import MAX_LINE
from ops.models import AuditEntry
from tests.builders import a_session, a_turn, some_turns
from tests.commands.test_backup import make
from tests.commands.working import hold, run, run_json, run_on_a_terminal, turns_in
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
    code, report = run_json("restore", str(path), "--into", into)
    aliases = ALIASES if into == "both" else (into,)
    assert code == 0
    assert [report["stores"][alias]["created"] for alias in aliases] == [3] * len(aliases)
    for alias in ALIASES:
        for session, turns in before.items():
            assert turns_in(alias, session) == (turns if alias in aliases else ())


@contextmanager
def at(moment: datetime) -> Iterator[None]:
    """Let it be that time, by the stores' clocks too: else a command corrects its own by theirs."""
    with time_machine.travel(moment, tick=True), pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "_ahead", None)
        patch.setattr(clock, "correct", lambda measured, order: None)
        yield


def test_an_archive_of_format_1_comes_back(tmp_path: Path) -> None:
    """The file was made by an earlier version; each conversation is as it was then. What was deleted before there was
    a ledger is not known: that is trouble."""
    with at(datetime(2026, 11, 27, tzinfo=UTC)):
        code, report = run_json("restore", str(FORMAT_1), "--into", "both")
        assert (code, report["stores"][REDIS]["created"], report["stores"][MONGO]["created"]) == (1, 3, 3)
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
    code, report = run_json("restore", str(path), "--into", "both", *words)
    assert code == 0
    assert turns_in(REDIS, gone) == turns_in(MONGO, gone) == ()
    assert store(REDIS).inspect(gone).tombstone is not None
    assert len(turns_in(REDIS, there)) == 3
    assert report["stores"][REDIS]["deleted"] > 0


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
    code, report = run_json("restore", str(path), "--into", alias, "--replace", "--noinput")
    assert (code, report["stores"][alias]["replaced"]) == (0, 1)
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


@pytest.mark.parametrize(("typed", "refused"), [("no", True), ("yes", False)])
def test_no_log_line_is_in_the_question(tmp_path: Path, typed: str, refused: bool) -> None:
    """They are JSON, as where a terminal is attached to a container, and each has a line of its own."""
    hold(REDIS)
    words = ("restore", str(make(tmp_path)), "--into", "redis", "--replace")
    question = "Conversations in redis lose turns that are not in this backup. Type 'yes' to go on: "
    variables = {"LOG_FORMAT": "json", "VAR_DIR": str(tmp_path)}
    lines = run_on_a_terminal(*words, asked=question, typed=typed, **variables).splitlines()
    assert f"{question}{typed}" in lines
    logged = [orjson.loads(line) for line in lines if "{" in line]
    outcomes = [each["outcome"] for each in logged if each["event"] == "audit"]
    assert [outcome.startswith("failed: not confirmed") for outcome in outcomes] == [refused]


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
    with at(now() + timedelta(days=10)):
        code, report = run_json("restore", str(path), "--into", "redis")
    assert (code, report["stores"][REDIS]["expired"], report["stores"][REDIS]["created"]) == (0, 1, 1)
    assert turns_in(REDIS, short) == ()
    assert abs((store(REDIS).ttl(long) or 0) - 20 * 86_400) < 60


@pytest.mark.parametrize("lasting", [False, True])
def test_what_was_deleted_does_not_come_back_after_its_tombstone(
    tmp_path: Path, redis_server: RedisServer, mongo_server: MongoServer, monkeypatch: pytest.MonkeyPatch, lasting: bool
) -> None:
    """The TTL was lowered before the deletion; the conversation in the backup may have had no TTL."""
    session = hold(*ALIASES)
    with redis_server.client() as redis:
        if lasting:
            redis.persist(f"conv:{session}")
        path = make(tmp_path)
        expiry.latest(store(REDIS).limits.ttl)
        monkeypatch.setattr(store(REDIS), "limits", Limits(60, 16, 262_144))
        store(REDIS).delete(session, tombstone_for(None))
        life = redis.ttl(tombstone_key(f"conv:{session}"))
    lose(redis_server, mongo_server, *ALIASES)
    with at(now() + timedelta(seconds=life)):
        code, report = run_json("restore", str(path), "--into", "both")
        assert (code, [report["stores"][alias]["created"] for alias in ALIASES]) == (0, [0, 0])
        assert turns_in(REDIS, session) == turns_in(MONGO, session) == ()


def test_the_limits_of_the_target_apply(tmp_path: Path, redis_server: RedisServer, mongo_server: MongoServer) -> None:
    turns = some_turns(20)
    session = a_session()
    with redis_server.client() as redis:
        redis.set(f"conv:{session}", b"".join(turn.lines() for turn in turns), ex=1000)
    path = make(tmp_path)
    lose(redis_server, mongo_server, REDIS)
    assert run("restore", str(path), "--into", "both")[0] == 0
    assert turns_in(REDIS, session) == turns_in(MONGO, session) == turns[-16:]


@pytest.mark.parametrize("words", [[], ["--replace", "--noinput"]])
def test_twice_is_as_once(tmp_path: Path, words: list[str]) -> None:
    for _ in range(5):
        hold(*ALIASES)
    path, before = make(tmp_path), everything()
    for _ in range(2):
        assert run("restore", str(path), "--into", "both", *words)[0] == 0
        assert everything() == before


LINES = "conversations.jsonl"
Change = Callable[[dict[str, Any], bytes], tuple[dict[str, Any], bytes]]


def _packed(files: list[tuple[str, bytes]], kind: int = ZIP_DEFLATED, comment: bytes = b"") -> bytes:
    out = io.BytesIO()
    with ZipFile(out, "w", kind) as packed, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name that is there twice
        for name, body in files:
            packed.writestr(name, body)
        packed.comment = comment
    return out.getvalue()


def _files(data: bytes) -> list[tuple[str, bytes]]:
    with ZipFile(io.BytesIO(data)) as opened:
        return [(name, opened.read(name)) for name in opened.namelist()]


def _remade(change: Change) -> Callable[[bytes], bytes]:
    """Return what makes a file whose parts fit one another, but not our format."""

    def damage(data: bytes) -> bytes:
        files = dict(_files(data))
        manifest, lines = orjson.loads(files["manifest.json"]), files[LINES]
        manifest["files"] = {LINES: manifest["files"][LINES]}
        member = manifest["files"][LINES]
        manifest, lines = change(manifest, lines)
        member.setdefault("bytes", len(lines))
        member["sha256"] = hashlib.sha256(lines).hexdigest()
        return _packed([(LINES, lines), ("manifest.json", orjson.dumps(manifest))])

    return damage


def _whole(manifest: dict[str, Any], lines: bytes) -> dict[str, Any]:
    manifest["files"][LINES] |= {"bytes": len(lines), "lines": lines.count(b"\n")}
    return manifest


def _with_line(line: bytes) -> Callable[[bytes], bytes]:
    return _remade(lambda manifest, lines: (_whole(manifest, lines + line), lines + line))


def _with_file(*more: tuple[str, bytes]) -> Callable[[bytes], bytes]:
    return lambda data: _packed([*_files(data)[:-1], *more, _files(data)[-1]])


def _with_sizes(name: str, size: int) -> Callable[[bytes], bytes]:
    """Return what puts another length into the directory of a file."""

    def damage(data: bytes) -> bytes:
        place = data.index(name.encode(), data.index(b"PK\1\2")) - 46
        while data[place : place + 4] != b"PK\1\2":
            place = data.index(name.encode(), place + 47) - 46
        return data[: place + 24] + size.to_bytes(4, "little") + data[place + 28 :]

    return damage


def _encrypted(data: bytes) -> bytes:
    place = data.index(b"PK\1\2")
    return data[: place + 8] + b"\1" + data[place + 9 :]


def _with_a_long_directory(data: bytes) -> bytes:
    """Return a file of which 3 MB are its directory: as it was, but for the length at its end."""
    end = data.rindex(b"PK\5\6")
    size = 3 * 2**20
    return data[:end] + bytes(size) + data[end : end + 12] + size.to_bytes(4, "little") + data[end + 16 :]


def _grown(lines: bytes) -> Callable[[bytes], bytes]:
    """Return what has more lines than its manifest has, which has the bytes right."""

    def change(manifest: dict[str, Any], old: bytes) -> tuple[dict[str, Any], bytes]:
        manifest["files"][LINES]["bytes"] = len(old + lines)
        return manifest, old + lines

    return _remade(change)


BAD: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda data: b"", "foreign"),
    "another program's": (lambda data: b"PK\3\4" + data, "foreign"),
    "another zip": (lambda data: _packed([("notes.txt", b"mine")]), "foreign"),
    "something before it": (lambda data: b"#!/bin/sh\n" + data, "foreign"),
    "something after it": (lambda data: data + bytes(100_000), "truncated"),
    "a comment": (lambda data: _packed(_files(data), comment=b"mine"), "foreign"),
    "cut": (lambda data: data[: len(data) // 2], "truncated"),
    "without its end": (lambda data: data[:-22], "truncated"),
    "a byte less": (lambda data: data[:-1], "truncated"),
    "flipped": (lambda data: data[:150] + bytes([data[150] ^ 1]) + data[151:], "damaged"),
    "one file twice": (_with_file((LINES, b"")), "foreign"),
    "a file too many": (_with_file(("../../etc/passwd", b"x")), "foreign"),
    "no conversations": (lambda data: _packed(_files(data)[1:]), "foreign"),
    "no manifest": (lambda data: _packed(_files(data)[:-1]), "foreign"),
    "its manifest not last": (lambda data: _packed([*_files(data)[:1], *_files(data)[:0:-1]]), "foreign"),
    "packed otherwise": (lambda data: _packed(_files(data), ZIP_LZMA), "foreign"),
    "encrypted": (_encrypted, "foreign"),
    "a long directory": (_with_a_long_directory, "oversized"),
    "a long manifest": (lambda data: _packed([*_files(data)[:-1], ("manifest.json", bytes(2**21))]), "oversized"),
    "a wrong length": (_with_sizes(LINES, 10), "damaged"),
    "a manifest of a wrong length": (_with_sizes("manifest.json", 10), "damaged"),
    "newer": (_remade(lambda manifest, lines: (manifest | {"version": 3}, lines)), "newer"),
    "a tar's manifest": (_remade(lambda manifest, lines: (manifest | {"version": 1}, lines)), "foreign"),
    "another format": (_remade(lambda manifest, lines: (manifest | {"format": "x"}, lines)), "foreign"),
    "an empty manifest": (_remade(lambda manifest, lines: ({"format": FORMAT, "version": 2}, lines)), "damaged"),
    "nested manifest": (lambda data: _packed([*_files(data)[:-1], ("manifest.json", b"[" * 100_000)]), "damaged"),
    "no time": (_remade(lambda manifest, lines: (manifest | {"created": 5}, lines)), "damaged"),
    "a bomb": (_remade(lambda manifest, lines: (manifest, lines + b" " * 50_000_000)), "damaged"),
    "a bomb that fits": (_grown(b" " * 50_000_000), "oversized"),
    "a line too many": (_grown(b"{}\n"), "damaged"),
    "an endless line": (_with_line(b" " * (MAX_LINE + 1) + b"\n"), "oversized"),
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
    bad = tmp_path / "bad.zip"
    bad.write_bytes(damage(path.read_bytes()))
    for alias in ALIASES:
        store(alias).delete(session, turns_in(alias, session)[0].answer.id)
    before = everything()
    code, said = run("restore", str(bad), "--into", "both", "--replace", "--noinput")
    assert code == 2
    assert f"{bad}: This file cannot be restored: {reason}" in said
    assert said.endswith("nothing was changed\n")
    assert everything() == before


BAD_IN_FORMAT_1: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "cut": (lambda data: data[: len(data) // 2], "truncated"),
    "without its end": (lambda data: data[:-1500], "truncated"),
    "flipped": (lambda data: data[:600] + bytes([data[600] ^ 1]) + data[601:], "damaged"),
    "renamed": (lambda data: data.replace(b"dump.rdb\0", b"dump.txt\0", 1), "truncated"),
    "longer": (lambda data: data.replace(b'"raw_bytes": 2882', b'"raw_bytes": 2000'), "oversized"),
    "another digest": (lambda data: data.replace(b'"sha256": "0e', b'"sha256": "1e'), "damaged"),
    "a zip's manifest": (lambda data: data.replace(b'"version": 1', b'"version": 2'), "foreign"),
}


@pytest.mark.parametrize("name", BAD_IN_FORMAT_1)
def test_a_bad_file_of_format_1_is_refused_too(tmp_path: Path, name: str) -> None:
    damage, reason = BAD_IN_FORMAT_1[name]
    bad = tmp_path / "bad.tar"
    bad.write_bytes(damage(FORMAT_1.read_bytes()))
    code, written = run("restore", str(bad), "--into", "both")
    assert code == 2
    assert f"{bad}: This file cannot be restored: {reason}" in written
    assert everything() == ()


def test_an_unavailable_store_is_reported_before_any_change(tmp_path: Path, redis_server: RedisServer) -> None:
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


@pytest.mark.parametrize("alias", ALIASES)
def test_what_is_deleted_while_it_runs_stays_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alias: str
) -> None:
    """After it was gathered what had been deleted."""
    session, put = hold(*ALIASES), restore.Putting.put
    path = make(tmp_path)

    def delete_first(self: restore.Putting, shares: list[Share]) -> None:
        for one in ALIASES:
            store(one).delete(session, shares[0].turns[-1].answer.id)
        put(self, shares)

    monkeypatch.setattr(restore.Putting, "put", delete_first)
    code, report = run_json("restore", str(path), "--into", alias)
    assert (code, report["stores"][alias]["created"], report["stores"][alias]["merged"]) == (0, 0, 0)
    assert turns_in(alias, session) == ()


def test_a_store_that_goes_out_in_the_middle_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redis_server: RedisServer
) -> None:
    session, put = hold(*ALIASES), restore.Putting.put
    path = make(tmp_path)
    monkeypatch.setattr(restore.Putting, "put", lambda self, shares: (redis_server.kill(), put(self, shares)))
    try:
        code, written = run("restore", str(path), "--into", "redis")
    finally:
        redis_server.kill()
        redis_server.start()
    assert code == 2
    assert "redis" in written
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
    turns, name = some_turns(4, size=300), a_session()  # the ledger may have deletions of other tests
    with histories().client.get_client().pipeline(transaction=False) as pipeline:
        for number in range(2000):
            pipeline.set(f"conv:{name}-{number}", b"".join(turn.lines() for turn in turns), ex=100_000)
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
    assert len(set(client.scan_iter("conv:*", count=1000))) == 2000
    assert time.monotonic() - begun < 20
