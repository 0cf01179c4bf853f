"""One tenant's share: restored out of a backup of everything, or backed up alone; the others stay as they are."""

from pathlib import Path

import pytest
from pytest_django import Settings

from conversations import history
from conversations.ids import tombstone_for
from conversations.stores import ALIASES, MONGO, REDIS, store
from conversations.turns import Turn
from ops.backup import deletions
from ops.backup.archive import Archive
from tests.builders import a_session, a_turn, some_turns
from tests.commands.test_backup import contents, in_one_process, make  # noqa: F401
from tests.commands.test_restore import FORMAT_1, everything, lose
from tests.commands.working import hold, run, run_json, turns_in
from tests.servers import MongoServer, RedisServer

pytestmark = [
    pytest.mark.usefixtures("both_empty"),
    # Python 3.12 and later: pytest's threads beside the fork that starts a store.
    pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),
]

TENANTS = ("acme", "acme2", "ACME", "")


def named(session_id: str, tenant: str) -> str:
    return f"{tenant}:{session_id}" if tenant else session_id


def hold_each(session_id: str) -> dict[str, tuple[Turn, ...]]:
    """Give each tenant a conversation of this name; return its turns."""
    turns = {tenant: some_turns(2) for tenant in TENANTS}
    for tenant, each in turns.items():
        hold(*ALIASES, session=named(session_id, tenant), turns=each)
    return turns


def make_of(tenant: str, folder: Path) -> Path:
    """Back one tenant up, and return the file."""
    code, report = run_json("backup", "--to", str(folder), "--tenant", tenant)
    assert (code, report["tenant"]) == (0, tenant), report
    return Path(report["file"])


@pytest.mark.parametrize("words", [[], ["--replace", "--noinput"]])
@pytest.mark.parametrize("tenant", TENANTS)
def test_the_same_session_of_two_tenants_never_meets(
    tmp_path: Path, redis_server: RedisServer, mongo_server: MongoServer, tenant: str, words: list[str]
) -> None:
    """All of one name. Everything is lost, and one tenant's is restored out of the backup of all."""
    session_id = a_session()
    turns = hold_each(session_id)
    path = make(tmp_path)
    lose(redis_server, mongo_server, *ALIASES)
    code, report = run_json("restore", str(path), "--into", "both", "--tenant", tenant, *words)
    assert code == 0
    for alias in ALIASES:
        found = report["stores"][alias]
        assert (found["created"] + found["replaced"], found["other_tenants"]) == (1, 3)
        for other in TENANTS:
            assert turns_in(alias, named(session_id, other)) == (turns[other] if other == tenant else ())


@pytest.mark.parametrize("words", [[], ["--replace", "--noinput"]])
def test_others_stay_as_they_are_now(tmp_path: Path, words: list[str]) -> None:
    """Their later turns and their deletions too."""
    session_id = a_session()
    hold_each(session_id)
    path = make(tmp_path)
    mine, other, deleted = (named(session_id, tenant) for tenant in ("acme", "acme2", ""))
    later = a_turn()
    for alias in ALIASES:
        store(alias).append(other, later)
        store(alias).delete(deleted, tombstone_for(None))
    before = {line for line in everything() if line[1] != mine}
    code, written = run("restore", str(path), "--into", "both", "--tenant", "acme", *words)
    assert code == 0
    assert written.count("3 of other tenants, not restored") == 2
    assert {line for line in everything() if line[1] != mine} == before
    assert turns_in(REDIS, other)[-1] == later


def test_what_the_tenant_deleted_stays_deleted_where_both_stores_were_lost(
    tmp_path: Path, redis_server: RedisServer, mongo_server: MongoServer
) -> None:
    """And the other tenant's deletion of the same name is none of this one."""
    gone, kept = a_session(), a_session()
    for session_id in (gone, kept):
        hold_each(session_id)
    path = make(tmp_path)
    assert history.delete(named(gone, "acme"))
    assert history.delete(named(kept, "acme2"))
    lose(redis_server, mongo_server, *ALIASES)
    with redis_server.client() as redis, mongo_server.client() as mongo:
        redis.flushall()
        database = mongo.get_default_database()
        for name in database.list_collection_names():
            database[name].delete_many({})
    _, report = run_json("restore", str(path), "--into", "both", "--tenant", "acme")
    for alias in ALIASES:
        assert (report["stores"][alias]["created"], report["stores"][alias]["left_out"]) == (1, 2)
        assert (turns_in(alias, named(gone, "acme")), len(turns_in(alias, named(kept, "acme")))) == ((), 2)


def test_out_of_an_archive_of_format_1(tmp_path: Path) -> None:
    """A month after it was made its conversation counts as expired."""
    _, report = run_json("restore", str(FORMAT_1), "--into", "redis", "--tenant", "tenant")
    found = report["stores"][REDIS]
    assert (found["created"] + found["expired"], found["other_tenants"]) == (1, 3)


@pytest.mark.parametrize("tenant", ["nobody", "acm"])
def test_a_tenant_that_is_not_in_it_is_told_and_nothing_changes(tmp_path: Path, tenant: str) -> None:
    hold_each(a_session())
    path = make(tmp_path)
    before = everything()
    code, written = run("restore", str(path), "--into", "both", "--tenant", tenant)
    assert code == 2
    assert written.endswith(f"The backup has nothing of this tenant; nothing was changed: {tenant}\n")
    assert everything() == before


@pytest.mark.parametrize("name", ["a b", "a:b", "../a", "a\n", "x" * 129])
@pytest.mark.parametrize("words", [["backup", "--to", "x"], ["restore", "x", "--into", "both"]])
def test_a_name_that_no_tenant_can_have_is_refused(words: list[str], name: str) -> None:
    code, written = run(*words, "--tenant", name)
    assert code != 0
    assert "is no tenant" in written


# --- A backup of one tenant ------------------------------------------------------------------------


@pytest.mark.parametrize("tenant", TENANTS)
def test_a_backup_of_one_tenant_has_nothing_of_another(
    tmp_path: Path, redis_server: RedisServer, mongo_server: MongoServer, tenant: str
) -> None:
    session_id = a_session()
    turns = hold_each(session_id)
    path = make_of(tenant, tmp_path)
    manifest, lines = contents(path)
    assert {line["session"] for line in lines} == {named(session_id, tenant)}
    assert (manifest["tenant"], list(manifest["files"])) == (tenant, ["conversations.jsonl"])
    assert [manifest["counts"][alias]["conversations"] for alias in ALIASES] == [1, 1]
    lose(redis_server, mongo_server, *ALIASES)
    code, report = run_json("restore", str(path), "--into", "both")
    assert (code, report["stores"][MONGO]["created"], report["stores"][MONGO]["other_tenants"]) == (0, 1, 0)
    assert turns_in(REDIS, named(session_id, tenant)) == turns[tenant]
    assert len(everything()) == 2


@pytest.mark.usefixtures("in_one_process")
def test_it_is_verified_as_any_other(tmp_path: Path) -> None:
    hold_each(a_session())
    code, written = run("backup", "verify", str(make_of("acme", tmp_path)))
    assert code == 0
    assert "1 in redis, 1 in mongo; 0 differ\n  Redis snapshot: none: a backup of one tenant has none\n" in written


def test_it_is_no_backup_of_both_stores(tmp_path: Path) -> None:
    """It removes none of those, is not removed for one, is not noted as the newest, and takes nothing from the
    ledger beside them."""
    hold_each(a_session())
    whole = make(tmp_path)
    ledger, noted = (tmp_path / deletions.NAME).read_bytes(), store(REDIS).note("backup")
    code, report = run_json("backup", "--to", str(tmp_path), "--tenant", "acme", "--keep", "1")
    assert (code, report["removed"], whole.exists()) == (0, [], True)
    assert Path(report["file"]).name.startswith("tenant-acme-")
    assert ((tmp_path / deletions.NAME).read_bytes(), store(REDIS).note("backup")) == (ledger, noted)
    code, report = run_json("backup", "--to", str(tmp_path), "--keep", "1")
    assert (code, report["removed"], len(list(tmp_path.glob("tenant-acme-*")))) == (0, [whole.name], 1)


def test_a_ledger_of_all_tenants_is_not_put_beside_it(tmp_path: Path) -> None:
    hold_each(a_session())
    make_of("acme", tmp_path)
    assert not (tmp_path / deletions.NAME).exists()


def test_it_is_encrypted_where_there_is_a_key(tmp_path: Path, settings: Settings) -> None:
    key = tmp_path / "keys"
    key.touch(0o600)
    key.write_text("one:" + "0123456789abcdef" * 4)
    settings.BACKUP_KEY_FILE = str(key)
    hold_each(a_session())
    path = make_of("acme", tmp_path)
    assert (path.name[-8:], b"acme" in path.read_bytes()) == (".zip.enc", False)
    with Archive(path) as opened:
        assert (opened.manifest.tenant, opened.lines) == ("acme", 2)


def test_verify_is_of_a_whole_file(tmp_path: Path) -> None:
    assert run("backup", "verify", "a-file", "--tenant", "acme")[0] == 2
