"""The ledger of deletions: what was deleted stays deleted where both stores were lost, and where it may not be, restore
tells so."""

import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from django.db import OperationalError, connection
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client
from django.utils.timezone import now

from conversations import history
from conversations.ids import new_ids, tombstone_for
from conversations.runtime import deletions
from conversations.runtime.deletions import Deletion, DeletionNotes
from conversations.stores import ALIASES, MONGO, REDIS, store
from ops import ledger
from ops.backup import deletions as beside
from ops.ledger import Ledger
from ops.models import Deletion as Row
from tests.builders import a_session
from tests.commands.test_backup import make
from tests.commands.working import hold, run, run_json, turns_in
from tests.servers import MongoServer, RedisServer

pytestmark = [pytest.mark.usefixtures("both_empty"), pytest.mark.django_db(transaction=False)]


@pytest.fixture
def wipe(redis_server: RedisServer, mongo_server: MongoServer) -> Callable[[], None]:
    """Lose all that both stores have, tombstones and identities too."""

    def wiped() -> None:
        with redis_server.client() as redis, mongo_server.client() as mongo:
            redis.flushall()
            database = mongo.get_default_database()
            for name in database.list_collection_names():
                database[name].delete_many({})

    return wiped


def ask(client: Client, session: str) -> None:
    answer = client.post(
        "/api/chat/ask", {"question": "Remember this", "session_id": session}, content_type="application/json"
    )
    assert answer.status_code == 200


def forget_default() -> None:
    """Leave `default` as one that was made anew."""
    Row.objects.all().delete()
    MigrationRecorder.Migration.objects.filter(app="ops", name__endswith="_deletions").update(applied=now())


def forget_lines() -> None:
    for path in deletions.folder().glob("*"):
        path.unlink()


def by_default(folder: Path) -> None:
    """`default` alone knows: there is no file and no line any more."""
    ledger.collect()
    assert not list(deletions.folder().glob("*"))
    (folder / beside.NAME).unlink()


def by_the_file(folder: Path) -> None:
    """The file alone knows, by a later backup."""
    make(folder)
    forget_lines()
    forget_default()


def by_var_dir(folder: Path) -> None:
    """The lines alone know."""
    (folder / beside.NAME).unlink()
    forget_default()


def by_nothing(folder: Path) -> None:
    forget_lines()
    by_var_dir(folder)


@pytest.mark.parametrize(("known", "code"), [(by_default, 0), (by_the_file, 1), (by_var_dir, 1)])
def test_what_was_deleted_stays_deleted_where_both_stores_were_wiped(
    tmp_path: Path, client: Client, wipe: Callable[[], None], known: Callable[[Path], None], code: int
) -> None:
    """The file knows until its backup, and lines alone do not tell whether they are all: both are honoured, and
    restore warns of the rest."""
    gone, kept = a_session(), a_session()
    ask(client, gone)
    ask(client, kept)
    path = make(tmp_path)
    assert client.delete(f"/api/chat/conversations/{gone}/").status_code == 204
    known(tmp_path)
    wipe()
    found, report = run_json("restore", str(path), "--into", "both")
    assert (found, bool(report["may_come_back"])) == (code, bool(code))
    for alias in ALIASES:
        assert (len(turns_in(alias, gone)), len(turns_in(alias, kept))) == (0, 1)
        assert report["stores"][alias]["left_out"] == 1
        assert store(alias).inspect(gone).tombstone is not None
    assert client.get(f"/api/chat/conversations/{gone}/").status_code == 404


def test_without_a_ledger_restore_names_what_may_come_back(
    tmp_path: Path, client: Client, wipe: Callable[[], None]
) -> None:
    gone = a_session()
    ask(client, gone)
    path = make(tmp_path)
    client.delete(f"/api/chat/conversations/{gone}/")
    by_nothing(tmp_path)
    wipe()
    code, written = run("restore", str(path), "--into", "both")
    assert code == 1
    assert "stays deleted" not in written
    assert "what was deleted may come back: nothing here tells of the deletions of 20" in written
    assert "any of the 1 restored conversations" in written
    assert len(turns_in(REDIS, gone)) == len(turns_in(MONGO, gone)) == 1


def test_a_default_that_is_out_is_told_and_not_raised(
    tmp_path: Path, wipe: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(*ALIASES)
    path = make(tmp_path)
    wipe()

    def out() -> Any:
        raise OperationalError

    monkeypatch.setattr(ledger, "_begun", out)
    code, report = run_json("restore", str(path), "--into", "both")
    assert (code, len(report["may_come_back"]), report["stores"][REDIS]["created"]) == (1, 1, 1)


def test_a_deletion_does_not_touch_default(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    session = a_session()
    ask(client, session)

    def refuse(*call: object) -> Any:
        raise AssertionError("the chat path asked `default`")

    with connection.execute_wrapper(refuse):
        assert client.delete(f"/api/chat/conversations/{session}/").status_code == 204
    assert [one.session for one in deletions.noted()] == [session]


def test_what_was_not_there_is_no_deletion(client: Client) -> None:
    assert client.delete(f"/api/chat/conversations/{a_session()}/").status_code == 404
    assert deletions.noted() == []


def test_a_command_moves_what_it_has_deleted_to_default() -> None:
    session = hold(*ALIASES)
    assert run("conversation", "delete", session, "--noinput")[0] == 0
    assert [row.session for row in Row.objects.all()] == [session]
    assert deletions.noted() == []


@pytest.mark.parametrize("words", [("--older-than", "1s"), ("--max-turns", "1")])
def test_what_is_trimmed_from_both_stores_is_a_deletion(
    tmp_path: Path, wipe: Callable[[], None], words: tuple[str, ...]
) -> None:
    session = hold(*ALIASES)
    path = make(tmp_path)
    assert run("trim", *words, "--apply")[0] == 0
    left = turns_in(REDIS, session)
    (tmp_path / beside.NAME).unlink()
    wipe()
    assert run("restore", str(path), "--into", "both")[0] == 0
    assert turns_in(REDIS, session) == turns_in(MONGO, session) == left


def test_what_is_trimmed_from_one_store_alone_is_none() -> None:
    hold(*ALIASES)
    assert run("trim", "--older-than", "1s", "--store", REDIS, "--apply")[0] == 0
    assert not Row.objects.exists()


def test_the_file_has_the_tombstones_of_the_stores_too(
    tmp_path: Path, client: Client, wipe: Callable[[], None]
) -> None:
    """As where each machine has a `default` of its own: a later backup knows what an earlier one may not bring back."""
    gone = a_session()
    ask(client, gone)
    path = make(tmp_path)
    client.delete(f"/api/chat/conversations/{gone}/")
    forget_lines()
    make(tmp_path)
    wipe()
    run("restore", str(path), "--into", "both")
    assert turns_in(REDIS, gone) == turns_in(MONGO, gone) == ()


def test_the_file_keeps_what_it_had_and_drops_what_has_expired(tmp_path: Path) -> None:
    time = now()
    upto = new_ids(time)[0]
    old = [
        Deletion("kept", upto, time, time + timedelta(hours=1)),
        Deletion("expired", upto, time, time - timedelta(seconds=1)),
    ]
    found = Ledger({one.session: one for one in old}, [(time - timedelta(days=1), time)])
    beside.write(tmp_path, found, time)
    make(tmp_path)
    head, *lines = (tmp_path / beside.NAME).read_bytes().splitlines()
    assert [orjson.loads(line)["session"] for line in lines] == ["kept"]
    assert orjson.loads(head)["since"] < time.isoformat()
    assert (tmp_path / beside.NAME).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("data", [b"", b"{}\n", b"\xff\n", b'{"format":"another","version":1}\n', b"[1]\n"])
def test_a_file_that_is_none_of_ours_tells_nothing(tmp_path: Path, data: bytes) -> None:
    (tmp_path / beside.NAME).write_bytes(data)
    found = Ledger()
    beside.with_file(found, tmp_path)
    assert (found.deletions, found.periods) == ({}, [])


@pytest.mark.parametrize(
    ("periods", "gaps"),
    [
        ([], [(0, 10)]),
        ([(-1, 20)], []),
        ([(3, 20)], [(0, 3)]),
        ([(-5, 4)], [(4, 10)]),
        ([(-5, 4), (4, 20)], []),
        ([(6, 20), (2, 4)], [(0, 2), (4, 6)]),
        ([(11, 20)], [(0, 10)]),
        ([(-9, -5)], [(0, 10)]),
    ],
)
def test_gaps(periods: list[tuple[int, int]], gaps: list[tuple[int, int]]) -> None:
    def at(hour: int) -> Any:
        return begin + timedelta(hours=hour)

    begin = now()
    found = Ledger(periods=[(at(since), at(until)) for since, until in periods], at=at(10))
    assert found.gaps(at(0)) == [(at(since), at(until)) for since, until in gaps]


def test_what_has_expired_leaves_default() -> None:
    time = now()
    Row.objects.create(session="s", upto=tombstone_for(), at=time, expires_at=time - timedelta(seconds=1))
    ledger.collect()
    assert not Row.objects.exists()


def test_lines_that_cannot_be_stored_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    session = hold(*ALIASES)
    history.delete(session)
    with monkeypatch.context() as patch:

        def out(*args: object, **options: object) -> Any:
            raise OperationalError

        patch.setattr(Row.objects, "bulk_create", out)
        ledger.collect_if_possible()
        assert [one.session for one in deletions.noted()] == [session]
    ledger.collect()
    assert [row.session for row in Row.objects.all()] == [session]


def test_no_line_is_lost_while_files_are_taken() -> None:
    notes = DeletionNotes(deletions.folder())
    taken: set[str] = set()
    done = threading.Event()

    def take() -> None:
        while not done.is_set():
            for path in deletions.take():
                taken.update(one.session for one in deletions.read(path.read_bytes().splitlines()))
                path.unlink()

    taker = threading.Thread(target=take)
    taker.start()
    names = [f"s{number}" for number in range(1000)]
    for name in names:
        notes.note({name: tombstone_for()})
    done.set()
    taker.join()
    assert taken | {one.session for one in deletions.noted()} == set(names)


def test_a_file_that_cannot_be_written_is_written_by_the_next_call(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    notes = DeletionNotes(deletions.folder())
    with monkeypatch.context() as patch:
        patch.setattr(deletions, "MOST_BYTES", 10)
        notes.note({"first": tombstone_for()})
    assert "deletions_not_noted" in caplog.text
    notes.note({"second": tombstone_for()})
    assert [one.session for one in deletions.noted()] == ["first", "second"]
