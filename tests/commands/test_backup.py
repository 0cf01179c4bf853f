"""`backup`: one file that is whole or not there, and `backup verify`, which proves it by restoring it."""

import errno
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from django.conf import settings as django_settings
from django.db import connections

from conversations.background.sampling import VERIFIED
from conversations.errors import StoreUnavailable
from conversations.ids import tombstone_for
from conversations.stores import ALIASES, MONGO, REDIS, store
from conversations.stores.mongo.bulk import MongoBulk
from conversations.stores.redis import rdb
from conversations.stores.redis.client import histories
from ops.backup import archive, create, restore, verify
from ops.backup.manifest import Manifest
from ops.backup.record import Record
from ops.backup.writer import Writer
from ops.models import AuditEntry
from tests.builders import a_session, a_turn, some_turns
from tests.commands.working import hold, run, run_json, turns_in
from tests.servers import RedisServer, eventually

pytestmark = [
    pytest.mark.usefixtures("both_empty"),
    # Python 3.12 and later: pytest's threads beside the fork that starts a store.
    pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),
]

FORMAT_1 = Path(__file__).parent.parent / "data" / "backup-format-1.tar"


def make(folder: Path) -> Path:
    """Back up, and return the file."""
    code, report = run_json("backup", "--to", str(folder))
    assert code == 0, report
    return Path(report["file"])


def contents(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the manifest and the lines, read with nothing of ours."""
    with ZipFile(path) as opened:
        manifest = json.loads(opened.read("manifest.json"))
        lines = opened.read("conversations.jsonl").splitlines()
    return manifest, [json.loads(line) for line in lines]


def dump_of(path: Path) -> bytes:
    """Return the Redis snapshot, of a cluster that of one master."""
    with ZipFile(path) as opened:
        return opened.read("dump.rdb")


def dumps_of(path: Path) -> list[bytes]:
    """Return the Redis snapshots, one of each master."""
    with ZipFile(path) as opened:
        return [opened.read(name) for name in opened.namelist() if name.startswith("dump")]


def test_a_backup_is_a_zip_of_json_lines_that_any_tool_reads(tmp_path: Path, redis_server: RedisServer) -> None:
    turns = some_turns(2)
    cached = hold(REDIS, turns=turns)
    kept = hold(MONGO, session="tenant:name", turns=turns)
    path = make(tmp_path)
    manifest, lines = contents(path)
    messages = [message.as_dict() for turn in turns for message in turn.messages()]
    found = {line["store"]: (line["session"], line["messages"]) for line in lines}
    assert (len(lines), found) == (2, {REDIS: (cached, messages), MONGO: (kept, messages)})
    assert all(2_591_000 < line["ttl"] <= 2_592_000 and line["tombstone"] is None for line in lines)
    assert manifest["counts"][REDIS] == {"conversations": 1, "turns": 2, "tombstones": 0, "corrupt": 0}
    assert (manifest["format"], manifest["version"]) == ("onesource-backup", 2)
    with ZipFile(path) as opened:
        assert opened.testzip() is None
        more = [f"dump-{number}.rdb" for number in range(2, len(redis_server.masters) + 1)]
        assert opened.namelist() == ["conversations.jsonl", "dump.rdb", *more, "manifest.json"]
        for name, member in manifest["files"].items():
            data = opened.read(name)
            assert (len(data), hashlib.sha256(data).hexdigest()) == (member["bytes"], member["sha256"])
    assert re.fullmatch(r"onesource-\d{8}T\d{6}Z\.zip", path.name)
    assert path.stat().st_mode & 0o777 == 0o600


def test_it_holds_a_snapshot_that_redis_itself_made(tmp_path: Path) -> None:
    session = hold(REDIS)
    dumps = dumps_of(make(tmp_path))
    assert all(dump.startswith(b"REDIS") for dump in dumps)
    assert session.encode() in b"".join(dumps)


def test_the_snapshot_of_a_remote_redis_is_fetched_by_replication(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the server's disk cannot be read, here because its folder is another one by then."""
    session = hold(REDIS)
    monkeypatch.setattr(create.Path, "stat", _no_dump_file)
    path = make(tmp_path)
    assert session.encode() in b"".join(dumps_of(path))
    assert contents(path)[0]["snapshot"].endswith("fetched by redis-cli --rdb")


_stat = Path.stat


def _no_dump_file(path: Path, **options: Any) -> os.stat_result:
    if path.name == "dump.rdb":
        raise FileNotFoundError
    return _stat(path, **options)


def test_verify_restores_it_and_compares_every_conversation(tmp_path: Path) -> None:
    """The snapshot of Redis has two keys of the list beside them."""
    sessions = [hold(REDIS, MONGO) for _ in range(3)]
    store(REDIS).delete(sessions[0], tombstone_for(None))
    store(MONGO).delete(sessions[0], tombstone_for(None))
    path = make(tmp_path)
    assert run("backup", "verify", str(path)) == (
        0,
        f"{path}: restored and compared: 2 in redis, 2 in mongo; 0 differ\n  Redis snapshot: whole, 5 keys read\n",
    )


def test_verify_reads_an_archive_of_format_1() -> None:
    code, report = run_json("backup", "verify", str(FORMAT_1))
    assert (code, report["conversations"], report["differing"]) == (0, {REDIS: 2, MONGO: 2}, 0)
    assert (report["created"], report["snapshot_keys"]) == ("2026-11-26T23:49:48.229Z", 3)


def test_verify_needs_no_room_for_all_of_it_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was compared makes way for the next, and nothing of it is taken for a difference."""
    monkeypatch.setattr(verify, "_another_process", lambda: ThreadPoolExecutor(1))  # it would not hear of the next
    monkeypatch.setattr(verify, "_WINDOW", 2)
    for _ in range(5):
        hold(REDIS, MONGO)
    code, report = run_json("backup", "verify", str(make(tmp_path)))
    assert (code, report["conversations"], report["differing"]) == (0, {REDIS: 5, MONGO: 5}, 0)


@pytest.mark.parametrize("alias", [REDIS, MONGO])
def test_verify_finds_what_a_restore_would_not_bring_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alias: str
) -> None:
    """Here because the restore itself forgets one conversation of each batch."""
    monkeypatch.setattr(verify, "_another_process", lambda: ThreadPoolExecutor(1))
    for _ in range(3):
        hold(alias)
    path = make(tmp_path)
    put = restore.Putting.put
    monkeypatch.setattr(restore.Putting, "put", lambda self, shares: put(self, shares[1:]))
    code, report = run_json("backup", "verify", str(path))
    assert (code, report["differing"]) == (1, 1)


def test_verify_names_what_is_damaged(tmp_path: Path) -> None:
    for _ in range(20):
        hold(REDIS)
    path = make(tmp_path)
    data = bytearray(path.read_bytes())
    data[150] ^= 1
    path.write_bytes(data)
    code, said = run("backup", "verify", str(path))
    assert code == 1
    assert f"{path}: This file cannot be restored: damaged" in said


def with_dump(path: Path, dump: bytes) -> Path:
    """Return a backup of the same conversations beside this snapshot, with a manifest that is right."""
    with ZipFile(path) as opened:
        manifest = Manifest.parse(opened.read("manifest.json"))
        lines = opened.read("conversations.jsonl")
    with Writer(path.parent, datetime(2026, 1, 1, tzinfo=UTC)) as writer:
        writer.add_lines(lines.splitlines(keepends=True))
        writer.add("dump.rdb", io.BytesIO(dump))
        writer.finish(manifest)
    return writer.path


def later(dump: bytes) -> bytes:
    """Return the snapshot as if a later Redis had made it."""
    data = b"REDIS0099" + dump[9:-8]
    return data + rdb.crc64(iter([data])).to_bytes(8, "little")


DAMAGED = {
    "random": lambda dump: dump[:9] + os.urandom(500),
    "random, of a later version": lambda dump: b"REDIS0099" + os.urandom(500),
    "random, with an end": lambda dump: b"REDIS0099" + os.urandom(500) + b"\xff" + os.urandom(8),
    "no version": lambda dump: b"REDISnone" + dump[9:],
    "a name alone": lambda dump: dump[:9],
    "a name of a later version alone": lambda dump: b"REDIS0099",
    "truncated": lambda dump: dump[:-9],
    "truncated in its checksum": lambda dump: dump[:-1],
    "truncated, of a later version": lambda dump: later(dump)[:-9],
    "another checksum": lambda dump: dump[:-8] + bytes(7) + b"\1",
    "another checksum, of a later version": lambda dump: later(dump)[:-8] + bytes(7) + b"\1",
    "one bit": lambda dump: dump[:50] + bytes([dump[50] ^ 1]) + dump[51:],
}


@pytest.fixture
def in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore without a second process, whose start takes as long as all else."""
    monkeypatch.setattr(verify, "_another_process", lambda: ThreadPoolExecutor(1))


@pytest.mark.usefixtures("in_one_process")
@pytest.mark.parametrize("damage", DAMAGED)
def test_verify_says_that_the_snapshot_cannot_be_read(tmp_path: Path, damage: str) -> None:
    """Whatever is in the manifest: what could not be read was written as it is. The conversations are whole."""
    hold(REDIS)
    whole = make(tmp_path)
    path = with_dump(whole, DAMAGED[damage](dump_of(whole)))
    code, said = run("backup", "verify", str(path))
    assert code == 1
    assert "1 in redis, 0 in mongo; 0 differ\n  Redis snapshot: DAMAGED; the conversations can be restored" in said
    assert f"{path}: The Redis snapshot cannot be read: " in said


@pytest.mark.usefixtures("in_one_process")
def test_verify_tells_machines_too_what_is_wrong_with_the_snapshot(tmp_path: Path) -> None:
    path = with_dump(make(tmp_path), b"REDIS0099")
    code, report = run_json("backup", "verify", str(path))
    assert (code, report["snapshot_keys"], report["differing"]) == (1, None, 0)
    assert report["snapshot_error"] == "The Redis snapshot cannot be read: it does not end as a snapshot does"
    assert list(report) == [
        "file", "created", "conversations", "differing", "snapshot", "snapshot_keys", "snapshot_error"
    ]  # fmt: skip


@pytest.mark.usefixtures("in_one_process")
def test_verify_of_a_later_redis_snapshot_trusts_its_checksum(tmp_path: Path) -> None:
    hold(REDIS)
    whole = make(tmp_path)
    code, said = run("backup", "verify", str(with_dump(whole, later(dump_of(whole)))))
    assert code == 0
    assert "Redis snapshot: its checksums are right; the redis-server here is too old to read it\n" in said


@pytest.mark.usefixtures("in_one_process")
def test_verify_of_a_later_redis_snapshot_without_a_checksum_is_trouble(tmp_path: Path) -> None:
    """Nothing shows that it is whole: random bytes with such an end look the same."""
    path = with_dump(make(tmp_path), b"REDIS0099" + os.urandom(500) + b"\xff" + bytes(8))
    code, said = run("backup", "verify", str(path))
    assert code == 1
    assert "Redis snapshot: NOT VERIFIED; the conversations can be restored without it\n" in said
    assert f"{path}: The Redis snapshot is not verified: it has no checksum" in said


def test_the_checksum_is_the_one_that_redis_writes(tmp_path: Path) -> None:
    hold(REDIS)
    dump = dump_of(make(tmp_path))
    assert rdb.crc64(iter([b"123456789"])) == 0xE9C6D914C4B8D9CA
    assert rdb.crc64(iter([dump[:100], dump[100:-8]])) == int.from_bytes(dump[-8:], "little") != 0


@pytest.mark.parametrize(
    ("whole", "reason"),
    [
        (b"", "foreign: not a backup made by `backup --to`"),
        (b"REDIS0011" + bytes(range(256)), "foreign: not a backup made by `backup --to`"),
    ],
    ids=["empty", "a snapshot alone"],
)
def test_verify_refuses_what_is_no_backup(tmp_path: Path, whole: bytes, reason: str) -> None:
    path = tmp_path / "backup.zip"
    path.write_bytes(whole)
    assert run("backup", "verify", str(path)) == (1, f"{path}: This file cannot be restored: {reason}\n")


def test_verify_refuses_an_archive_whose_snapshot_is_empty(tmp_path: Path) -> None:
    path = with_dump(make(tmp_path), b"")
    said = "This file cannot be restored: damaged: dump.rdb is no Redis snapshot"
    assert run("backup", "verify", str(path)) == (1, f"{path}: {said}\n")


def test_a_file_that_is_not_there_cannot_be_verified(tmp_path: Path) -> None:
    assert run("backup", "verify", str(tmp_path / "none.zip"))[0] == 2


def test_it_keeps_so_many_and_touches_nobody_elses(tmp_path: Path) -> None:
    hold(MONGO)
    first = make(tmp_path)
    foreign = tmp_path / "onesource-20200101T000000Z.zip"
    foreign.write_bytes(b"not one of ours, whatever its name")
    (tmp_path / "notes.txt").write_text("mine")
    second = make(tmp_path)
    code, report = run_json("backup", "--to", str(tmp_path), "--keep", "2")
    assert (code, report["removed"]) == (0, [first.name])
    there = {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")}
    assert there == {foreign.name, "notes.txt", "deletions.jsonl", second.name, Path(report["file"]).name}


def test_backups_of_format_1_are_counted_and_removed(tmp_path: Path) -> None:
    old = [tmp_path / f"onesource-2026010{day}T000000Z.tar" for day in (1, 2)]
    for path in old:
        shutil.copy(FORMAT_1, path)
    code, report = run_json("backup", "--to", str(tmp_path), "--keep", "2")
    assert (code, report["removed"]) == (0, [old[0].name])
    assert old[1].exists()


def test_a_key_that_is_no_session_leaves_a_backup_that_can_be_restored(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    hold(REDIS)
    with redis_server.client() as redis:
        redis.set("tomb:{conv:no session}", a_turn().answer.id)
    code, report = run_json("backup", "--to", str(tmp_path))
    assert (code, report["counts"][REDIS]["corrupt"]) == (1, 1)
    assert run("backup", "verify", report["file"])[0] == 0


def test_the_estimate_is_for_progress_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(self: object, seconds: float) -> int:
        raise StoreUnavailable(MONGO, "slow")

    hold(MONGO)
    monkeypatch.setattr(MongoBulk, "estimate", slow)
    assert len(contents(make(tmp_path))[1]) == 1


def test_it_is_noted_in_both_stores_for_monitoring(tmp_path: Path) -> None:
    manifest, _ = contents(make(tmp_path))
    assert store(REDIS).note("backup") == store(MONGO).note("backup") == manifest["created"]


def test_a_verified_one_is_noted_in_both_stores_for_monitoring(tmp_path: Path) -> None:
    hold(REDIS, MONGO)
    path = make(tmp_path)
    created = contents(path)[0]["created"]
    assert run("backup", "verify", str(path))[0] == 0
    assert [store(alias).note(VERIFIED) for alias in ALIASES] == [created, created]


def test_an_older_one_that_is_verified_later_is_not_noted(tmp_path: Path) -> None:
    """Nothing newer is known to be good by that."""
    hold(REDIS, MONGO)
    older, newer = make(tmp_path / "1"), make(tmp_path / "2")
    for path in (newer, older):
        assert run("backup", "verify", str(path))[0] == 0
    assert store(REDIS).note(VERIFIED) == contents(newer)[0]["created"]


def test_what_proves_no_recovery_of_both_stores_is_not_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hold(REDIS, MONGO)
    for alias in ALIASES:
        store(alias).write_note(VERIFIED, "")
    _, share = run_json("backup", "--to", str(tmp_path), "--tenant", "")
    monkeypatch.setattr(verify, "_another_process", lambda: ThreadPoolExecutor(1))
    assert run("backup", "verify", share["file"])[0] == 0
    path = make(tmp_path)
    put = restore.Putting.put
    with monkeypatch.context() as patched:
        patched.setattr(restore.Putting, "put", lambda self, shares: put(self, shares[1:]))
        assert run("backup", "verify", str(path))[0] == 1
    assert [store(alias).note(VERIFIED) for alias in ALIASES] == ["", ""]


def test_without_mongo_it_has_redis_alone_and_says_so(tmp_path: Path, mongo_out: None) -> None:
    session = hold(REDIS)
    code, report = run_json("backup", "--to", str(tmp_path), "--keep", "1")
    assert (code, report["removed"]) == (1, [])
    assert [line["session"] for line in contents(Path(report["file"]))[1]] == [session]
    assert store(REDIS).note("backup") is None


def test_without_any_store_there_is_no_backup(tmp_path: Path, redis_out: None, mongo_out: None) -> None:
    assert run("backup", "--to", str(tmp_path))[0] == 2
    assert not list(tmp_path.glob("*.zip"))


def test_a_key_that_is_no_text_is_counted_as_corrupt(tmp_path: Path, redis_server: RedisServer) -> None:
    hold(REDIS)
    with redis_server.client() as redis:
        redis.set(b"conv:\xff", b"x")
    code, report = run_json("backup", "--to", str(tmp_path))
    assert (code, report["counts"][REDIS]["corrupt"], report["counts"][REDIS]["conversations"]) == (1, 1, 1)


def test_what_is_corrupt_is_counted_and_not_in_it(tmp_path: Path, redis_server: RedisServer) -> None:
    hold(REDIS)
    with redis_server.client() as redis:
        redis.set("conv:spoilt", "no lines of a conversation", ex=100)
    code, report = run_json("backup", "--to", str(tmp_path))
    assert (code, report["counts"][REDIS]["corrupt"], report["counts"][REDIS]["conversations"]) == (1, 1, 1)


def test_two_at_once_in_one_folder_are_refused(tmp_path: Path) -> None:
    with create._alone(tmp_path):
        code, said = run("backup", "--to", str(tmp_path))
    assert code == 2
    assert said.startswith("Another backup is being written to this folder")


@pytest.mark.parametrize("words", [["--to"], [], ["verify"], ["--to", "x", "--keep", "0"]])
def test_what_makes_no_sense_is_refused(words: list[str]) -> None:
    assert run("backup", *words)[0] in (1, 2)


def test_a_kill_leaves_nothing_half_written(tmp_path: Path) -> None:
    """At whatever moment: there is no file, or a whole one; the next run removes what was begun."""
    turns = some_turns(8, size=400)
    with histories().client.get_client().pipeline(transaction=False) as pipeline:
        for number in range(3000):
            pipeline.set(f"conv:s{number}", b"".join(turn.lines() for turn in turns), ex=1000)
        pipeline.execute()
    command = [sys.executable, "manage.py", "backup", "--to", str(tmp_path)]
    for delay in (0.0, 0.1, 0.3):
        process = subprocess.Popen(command, cwd=django_settings.BASE_DIR, stdout=subprocess.DEVNULL)
        eventually(lambda: list(tmp_path.glob(".onesource-*.part")), "it did not begin")
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert all(archive.is_ours(path) for path in tmp_path.glob("*.zip"))
    assert archive.is_ours(make(tmp_path))
    assert not list(tmp_path.glob(".onesource-*.part"))


def test_no_words_and_no_password_in_what_it_says(tmp_path: Path) -> None:
    store(REDIS).append(a_session(), a_turn("my secret question"))
    _, said = run("backup", "--to", str(tmp_path))
    assert "secret" not in said
    assert connections["mongo"].settings_dict["HOST"] not in said


def test_a_line_says_what_is_wrong_and_none_of_its_words() -> None:
    line = b'{"store":"redis","session":"s","ttl":5,"tombstone":null,"messages":[{"role":"user","content":"secret"}]}'
    with pytest.raises(ValueError) as raised:
        Record.parse(line)
    assert "secret" not in str(raised.value)


def test_turns_made_while_it_runs_do_not_disturb_it(tmp_path: Path) -> None:
    session = hold(REDIS, MONGO)
    writer = Writer(tmp_path, create.now())
    with writer:
        writer.add_lines(create._Census().lines((REDIS, MONGO), create.now(), lambda done, total: None))
        store(REDIS).append(session, a_turn())
        writer.add("dump.rdb", io.BytesIO(b"REDIS"))
        writer.finish(Manifest(create.now(), "a test", (REDIS, MONGO), {}, "none", {}))
    with archive.Archive(writer.path) as opened:
        assert [len(record.history) for record in opened.records()] == [6, 6]
    assert len(turns_in(REDIS, session)) == 4


def test_a_dry_run_writes_nothing_and_says_what_would_be_removed(tmp_path: Path) -> None:
    hold(REDIS, MONGO)
    folder = tmp_path / "backups"
    assert run_json("backup", "--to", str(folder), "--dry-run")[1]["newest"] == ""
    assert not folder.exists()
    first = make(folder)
    audited, there = AuditEntry.objects.count(), sorted(folder.iterdir())
    code, output = run("backup", "--to", str(folder), "--keep", "1", "--dry-run")
    assert code == 0
    assert f"the newest one there: {first.name}, {first.stat().st_size:,} bytes" in output
    assert "redis: about 1 conversations" in output
    assert f"would remove: {first.name}" in output
    assert run_json("backup", "--to", str(folder), "--keep", "2", "--dry-run")[1]["removed"] == []
    assert sorted(folder.iterdir()) == there
    assert AuditEntry.objects.count() == audited


def test_without_any_store_a_dry_run_says_so(tmp_path: Path, redis_out: None, mongo_out: None) -> None:
    assert run("backup", "--to", str(tmp_path), "--dry-run")[0] == 2


def test_one_that_failed_is_audited(tmp_path: Path, redis_out: None, mongo_out: None) -> None:
    run("backup", "--to", str(tmp_path))
    entry = AuditEntry.objects.order_by("id").last()
    assert entry and entry.action == "backup"
    assert entry.outcome.startswith("failed: ")


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a-file"
    file.write_text("mine")
    code, written = run("backup", "--to", str(file))
    assert (code, file.read_text()) == (2, "mine")
    assert written.endswith(f"{file} is, or is in, a file; name a folder with --to\n")


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ENOSPC, ["bytes are free, needed are as many as both stores hold", "Make room, or --keep fewer"]),
        (errno.EROFS, ["cannot be written to by user", "read-only file system", "--to elsewhere"]),
    ],
)
def test_why_it_could_not_be_written_and_what_to_do_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, told: list[str]
) -> None:
    """What was begun is removed."""

    def fail(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    hold(REDIS)
    monkeypatch.setattr(Writer, "add_lines", fail)
    code, written = run("backup", "--to", str(tmp_path / "to"))
    assert code == 2
    for words in [*told, "what was begun of it is removed, and older backups are as they were", str(tmp_path / "to")]:
        assert words in written
    assert [path.name for path in (tmp_path / "to").iterdir() if path.suffix != ".lock"] == []
