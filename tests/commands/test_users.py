"""conversation export and delete --user: all of one user, found in both stores, whatever the lists have lost."""

import io
import json
from pathlib import Path
from zipfile import ZipFile

import pytest

from conversations import history
from conversations.stores import ALIASES, MONGO, REDIS, bulk, store
from conversations.stores.redis.keys import quarantine_key, user_key
from conversations.stores.sessions import make_key
from ops.models import AuditEntry
from tests import environment
from tests.builders import a_session, a_turn
from tests.commands.working import hold, run, run_json, turns_in
from tests.servers import RedisServer

pytestmark = pytest.mark.usefixtures("both_empty")

ADA = "ada@example.org"


def hold_all(tenant: str = "") -> list[str]:
    """Give each store, and both, a conversation of the user; return their sessions."""
    named = [f"{tenant}:{a_session()}" if tenant else a_session() for _ in range(3)]
    for session, aliases in zip(named, ((REDIS,), (MONGO,), ALIASES), strict=True):
        hold(*aliases, session=session, turns=(a_turn(f"I am in {session}", user=ADA), a_turn()))
    return sorted(named)


def left(sessions: list[str]) -> list[str]:
    return [session for session in sessions for alias in ALIASES if turns_in(alias, session)]


def test_all_are_deleted_with_one_receipt_and_nobody_elses() -> None:
    theirs, others = hold_all(), [hold(*ALIASES, turns=(a_turn(user="eve"),)), *hold_all("acme")]
    code, report = run_json("conversation", "delete", "--user", ADA, "--noinput", "--reason", "asked for")
    assert (code, report["user"], report["conversations"], report["deleted"]) == (0, ADA, 3, 3)
    assert (report["tombstones"], report["later"], report["left"]) == ({"redis": 3, "mongo": 3}, [], [])
    assert left(theirs) == []
    assert len(left(others)) == 6
    for alias in ALIASES:
        assert store(alias).newest(user=ADA).places == ()
        assert all(store(alias).inspect(session).tombstone for session in theirs)
    entry = AuditEntry.objects.order_by("id").last()
    assert entry is not None
    logged = json.dumps([entry.before, entry.after])
    assert (entry.action, entry.outcome, entry.before["user"]) == ("conversation", "done", report["audited_as"])
    assert ADA not in logged and not any(session in logged for session in theirs)


def test_an_interrupted_deletion_is_audited_with_whose_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, deleted = hold_all(), history.delete

    def interrupted(session: str) -> bool:
        if session == theirs[1]:
            raise KeyboardInterrupt
        return deleted(session)

    monkeypatch.setattr(history, "delete", interrupted)
    code, output = run("conversation", "delete", "--user", ADA, "--noinput")
    assert (code, "interrupted; it can be run again" in output) == (1, True)
    assert {session for session in theirs if session in left(theirs)} == set(theirs[1:])
    entry = AuditEntry.objects.order_by("id").last()
    assert entry is not None
    assert (entry.outcome, entry.before["conversations"]) == ("interrupted", 3)
    assert entry.before["user"] and ADA not in json.dumps(entry.before)


def test_the_receipt_says_where_and_until_when() -> None:
    hold_all("acme")
    code, output = run("conversation", "delete", "--user", ADA, "--tenant", "acme", "--noinput")
    assert code == 0
    assert output.startswith(f"{ADA} of the tenant acme has 3 conversations, 12 messages, ")
    assert "deleted 3 of 3 conversations at 20" in output
    assert "  tombstones in redis: 3, until 20" in output and "  tombstones in mongo: 3, until 20" in output
    assert "Backups may still contain these conversations" in output


@pytest.mark.parametrize(("typed", "code"), [("", 2), ("yes", 2), (ADA, 0)])
def test_delete_asks_for_the_user(typed: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = hold_all()
    monkeypatch.setattr("sys.stdin", io.StringIO(typed + "\n"))
    assert run("conversation", "delete", "--user", ADA)[0] == code
    assert (left(theirs) == []) == (code == 0)


def test_delete_finds_what_no_list_has() -> None:
    """The lists in Redis are lost, and MongoDB's index."""
    theirs = hold_all()
    environment_indexes()  # a test before may have begun with an empty database
    with environment.REDIS.client() as redis, environment.MONGO.client() as mongo:
        assert redis.delete(user_key("", ADA)) == 1
        mongo.get_default_database()["conversations_conversation"].drop_index("messages.user_1")
    try:
        assert run_json("conversation", "delete", "--user", ADA, "--noinput")[1]["deleted"] == 3
    finally:
        environment_indexes()
    assert left(theirs) == []


def environment_indexes() -> None:
    from conversations.stores import control

    control(MONGO).prepare()


def test_quarantined_copies_are_deleted_too() -> None:
    session = hold(MONGO, turns=(a_turn("Is it gone?", user=ADA),))
    key = hold(REDIS, turns=(a_turn(user=ADA),))
    for alias, name in ((MONGO, session), (REDIS, key)):
        store(alias).quarantine(name)
        assert store(alias).load(name) is None
    assert run_json("conversation", "delete", "--user", ADA, "--noinput")[1]["conversations"] == 2
    for alias in ALIASES:
        assert not [page for page in bulk(alias).of_user(ADA, "", 100) if page.sessions]


def test_a_quarantined_copy_is_deleted_whatever_became_of_an_earlier_one(redis_server: RedisServer) -> None:
    """They are numbered; a deletion begins with the first, and stops where there is none."""
    session = a_session()
    with redis_server.client() as client:
        for _ in range(2):
            store(REDIS).append(session, None, [a_turn(user=ADA)])
            store(REDIS).quarantine(session)
            client.expire(f"{quarantine_key(make_key(session))}:1", 100)
            store(REDIS).append(session, None, [a_turn(user=ADA)])
            store(REDIS).quarantine(session)
            ttls = [client.ttl(f"{quarantine_key(make_key(session))}:{number}") for number in (1, 2)]
            assert min(ttls) == ttls[0] > 1000
    assert run_json("conversation", "delete", "--user", ADA, "--noinput")[0] == 0
    assert not [page for page in bulk(REDIS).of_user(ADA, "", 100) if page.sessions]


def test_a_conversation_that_went_on_is_left_and_no_store_is_called_out(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, delete = hold_all(), history.delete

    def going_on(session: str) -> bool:
        gone = delete(session)
        if session == theirs[1]:
            hold(REDIS, MONGO, session=session, turns=(a_turn("And now?", user=ADA),))
        return gone

    monkeypatch.setattr(history, "delete", going_on)
    code, report = run_json("conversation", "delete", "--user", ADA, "--noinput")
    assert (code, report["left"], report["later"]) == (1, [theirs[1]], [])


def test_an_export_says_what_is_quarantined_and_what_is_shared(tmp_path: Path) -> None:
    session = hold(REDIS, turns=(a_turn(user=ADA),))
    store(REDIS).quarantine(session)
    hold(REDIS, session=session, turns=(a_turn(user=ADA), a_turn(user="bob")))
    code, report = run_json("conversation", "export", "--user", ADA, "--to", str(tmp_path / "of.zip"))
    assert (code, report["corrupt"], report["shared"]) == (1, 1, 1)
    with ZipFile(tmp_path / "of.zip") as archive:
        [told] = json.loads(archive.read("index.json"))["conversations"]
    assert (told["corrupt"], told["shared"]) == (True, True)


@pytest.mark.parametrize("out", ["redis_out", "mongo_out"])
@pytest.mark.parametrize("action", ["export", "delete"])
def test_with_a_store_out_nothing_is_done(
    out: str, action: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    theirs = hold_all()
    monkeypatch.chdir(tmp_path)
    request.getfixturevalue(out)
    code, output = run("conversation", action, "--user", ADA, *(["--noinput"] if action == "delete" else []))
    down = out.removesuffix("_out")
    assert (code, output) == (2, "Nothing was done: a store that may have conversations of this user alone cannot be "
                              f"reached: {down}\n")  # fmt: skip
    assert list(tmp_path.glob("*.zip")) == []
    there = MONGO if down == REDIS else REDIS
    assert sum(bool(turns_in(there, session)) for session in theirs) == 2


def test_a_store_that_fails_meanwhile_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, delete = hold_all(), history.delete

    def failing(session: str) -> bool:
        if session == theirs[1]:
            environment.MONGO.kill()
        return delete(session)

    monkeypatch.setattr(history, "delete", failing)
    try:
        code, output = run("conversation", "delete", "--user", ADA, "--noinput")
    finally:
        environment.MONGO.start()
    assert code == 1
    assert "mongo could not be reached for all of them, and deletes them when it is back" in output
    assert not any(turns_in(REDIS, session) for session in theirs)


def test_an_unknown_user_is_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hold_all("acme")
    monkeypatch.chdir(tmp_path)
    for action in ("export", "delete"):
        assert run("conversation", action, "--user", ADA) == (1, "No conversation of this user\n")
        assert ADA not in str(AuditEntry.objects.order_by("id").values_list("outcome", flat=True).reverse()[0])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ("show", "--user", ADA),
        ("export", "x", "--user", ADA),
        ("delete", "x", "--tenant", "acme"),
        ("delete",),
        ("delete", "--user", ADA, "--to", "x.zip"),
    ],
    ids=" ".join,
)
def test_words_that_do_not_go_together_are_refused(words: tuple[str, ...]) -> None:
    assert run("conversation", *words)[0] == 2


def test_an_export_has_every_conversation_and_is_audited(tmp_path: Path) -> None:
    theirs = hold_all()
    path = tmp_path / "theirs.zip"
    code, report = run_json("conversation", "export", "--user", ADA, "--to", str(path))
    assert (code, report["conversations"], report["file"]) == (0, 3, str(path))
    assert path.stat().st_mode & 0o777 == 0o600
    with ZipFile(path) as archive:
        index = json.loads(archive.read("index.json"))
        assert [one["session_id"] for one in index["conversations"]] == theirs
        for session in theirs:
            one = json.loads(archive.read(f"{session}.json"))
            assert (one["session_id"], one["user"], len(one["messages"])) == (session, ADA, 4)
            assert f"I am in {session}" in archive.read(f"{session}.md").decode()
    entry = AuditEntry.objects.order_by("id").last()
    assert entry is not None and ADA not in json.dumps([entry.before, entry.after]) and entry.outcome == "done"
    assert run("conversation", "export", "--user", ADA, "--to", str(path)) == (2, f"{path}: file exists\n")


def test_a_restored_backup_has_its_users(tmp_path: Path) -> None:
    theirs = hold_all()
    assert run("backup", "--to", str(tmp_path))[0] == 0
    with environment.REDIS.client() as redis, environment.MONGO.client() as mongo:
        redis.flushdb()
        mongo.get_default_database()["conversations_conversation"].delete_many({})
    [path] = tmp_path.glob("onesource-*.zip")
    assert run("restore", str(path), "--into", "both")[0] == 0
    for alias in ALIASES:
        assert sorted(place.session for place in store(alias).newest(user=ADA).places) == theirs


def test_a_restore_brings_back_nothing_that_was_deleted(tmp_path: Path) -> None:
    theirs = hold_all()
    assert run("backup", "--to", str(tmp_path))[0] == 0
    assert run("conversation", "delete", "--user", ADA, "--noinput")[0] == 0
    [path] = tmp_path.glob("onesource-*.zip")
    run("restore", str(path), "--into", "both")
    assert left(theirs) == []
