"""`trim`: only reports without --apply, removes the oldest first, and nothing that it removed comes back."""

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings as django_settings

from conversations.clock import now
from conversations.history import repair
from conversations.history.scrub import Scrub
from conversations.stores import ALIASES, MONGO, REDIS, bulk, other, store
from conversations.stores.redis.client import histories
from conversations.turns import Turn, make_turn
from ops import trim
from ops.models import AuditEntry
from tests.builders import a_session, a_turn, some_turns
from tests.commands.working import hold, run, run_json, turns_in
from tests.servers import MongoServer, RedisServer, configured, eventually

pytestmark = pytest.mark.usefixtures("both_empty")


def aged(days: float, number: int = 2) -> tuple[Turn, ...]:
    begun = now() - timedelta(days=days, minutes=number)
    return tuple(a_turn(at=begun + timedelta(minutes=minute)) for minute in range(number))


def test_it_only_reports_without_apply() -> None:
    session = hold(*ALIASES, turns=aged(30))
    audited = AuditEntry.objects.count()
    assert run("trim", "--older-than", "20d") == (
        0,
        "old conversations would be removed: 1 in redis, 1 in mongo\nNothing was changed: --apply does it.\n",
    )
    assert len(turns_in(REDIS, session)) == len(turns_in(MONGO, session)) == 2
    assert AuditEntry.objects.count() == audited


def test_what_is_older_is_removed_from_both_stores_and_stays_so() -> None:
    """Neither repair nor a late copy brings it back."""
    turns = aged(30)
    old, cached, kept, young = (
        hold(*ALIASES, turns=turns),
        hold(REDIS, turns=turns),
        hold(MONGO, turns=turns),
        a_session(),
    )
    hold(*ALIASES, session=young, turns=aged(1))
    code, report = run_json("trim", "--older-than", "20d", "--apply", "--reason", "room")
    assert (code, report["older_than"]) == (0, {REDIS: 2, MONGO: 2})
    for alias in ALIASES:
        store(alias).append(old, None, turns)
        assert [len(turns_in(alias, one)) for one in (old, cached, kept, young)] == [0, 0, 0, 2]
    for session in (old, cached, kept):
        repair.conversation(session)
    assert turns_in(REDIS, old) == turns_in(REDIS, cached) == turns_in(MONGO, kept) == ()
    entry = AuditEntry.objects.order_by("id").last()
    assert entry is not None
    assert (entry.action, entry.reason, entry.outcome) == ("trim", "room", "done")


def test_a_conversation_with_a_later_message_in_the_other_store_is_not_old() -> None:
    turns = aged(30)
    session = hold(*ALIASES, turns=turns)
    store(MONGO).append(session, aged(1)[0])
    code, report = run_json("trim", "--older-than", "20d", "--apply")
    assert (code, report["older_than"]) == (0, {REDIS: 0, MONGO: 0})
    assert turns_in(REDIS, session) == turns


def test_a_conversation_with_a_message_meanwhile_stays() -> None:
    """Removing is conditional on the last id that was seen."""
    turns, new = aged(30), a_turn(at=now())
    session = hold(*ALIASES, turns=turns)
    scope = trim.Scope(ALIASES, apply=True, advance=lambda done, total: None)
    store(REDIS).append(session, new)
    assert trim.remove(scope, {session: turns[-1].answer.id}) == {REDIS: 0, MONGO: 0}
    assert turns_in(REDIS, session) == (*turns, new)
    assert turns_in(MONGO, session) == turns


@pytest.mark.parametrize("alias", ALIASES)
def test_from_one_store_alone_it_prints_that_the_other_still_has_it(alias: str) -> None:
    session = hold(*ALIASES, turns=aged(30))
    code, output = run("trim", "--older-than", "20d", "--store", alias, "--apply")
    assert (code, output) == (
        0,
        f"old conversations removed: 1 in {alias}\n"
        f"From {alias} alone: what the other store has is read back when it is asked for.\n",
    )
    assert turns_in(alias, session) == ()
    assert store(alias).inspect(session).tombstone is None
    repair.conversation(session)
    assert len(turns_in(alias, session)) == 2


def scrubbed() -> int:
    """Compare everything once; return how many conversations were out of step."""
    done = Scrub()
    eventually(lambda: done.step("me"), "the scrub does not end")
    return done.out_of_step


@pytest.mark.parametrize("alias", ALIASES)
@pytest.mark.parametrize("words", [("--older-than", "20d"), ("--max-turns", "1")])
def test_what_goes_from_one_store_alone_is_not_missing_there(alias: str, words: tuple[str, ...]) -> None:
    """Until it is continued, or something else goes."""
    session = hold(*ALIASES, turns=aged(25))
    assert run("trim", *words, "--store", alias, "--apply")[0] == 0
    assert scrubbed() == 0
    assert len(turns_in(alias, session)) < 2
    hold(other(alias), session=session, turns=(a_turn(at=now() + timedelta(seconds=1)),))
    assert scrubbed() == 1
    assert len(turns_in(alias, session)) == 3
    store(other(alias)).delete(session, turns_in(alias, session)[0].answer.id)
    assert scrubbed() == 1


def test_what_goes_from_memory_alone_is_not_missing_there(redis_server: RedisServer) -> None:
    turns = aged(1)
    lost = hold(MONGO, turns=turns)
    sessions = fill(1500)
    for session in sessions:
        hold(MONGO, session=session, turns=turns_in(REDIS, session))
    code, report = run_json("trim", "--to-memory", f"{used(redis_server) - 1_500_000}b", "--apply")
    removed = sessions[: report["to_memory"]["removed"]]
    assert (code, len(removed) > 100) == (0, True)
    hold(MONGO, session=lost, turns=(a_turn(at=now()),))
    assert scrubbed() == 1
    assert not bulk(REDIS).last_ids(removed)


def test_the_newest_turns_stay_and_the_others_do_not_come_back() -> None:
    turns = some_turns(6)
    session = hold(REDIS, turns=turns)
    hold(MONGO, session=session, turns=turns[:5])
    ttl = store(REDIS).ttl(session)
    short = hold(*ALIASES, turns=turns[:2])
    alone = hold(MONGO, turns=turns)
    code, report = run_json("trim", "--max-turns", "3", "--apply")
    assert (code, report["max_turns"]) == (0, {"conversations": 2, "turns": 6})
    assert turns_in(REDIS, session) == turns[3:]
    assert turns_in(MONGO, session) == turns[3:5]
    repair.conversation(session)
    assert turns_in(REDIS, session) == turns_in(MONGO, session) == turns[3:]
    assert turns_in(REDIS, short) == turns[:2]
    assert turns_in(MONGO, alone) == turns[3:]
    assert store(REDIS).ttl(session) in (ttl, (ttl or 0) - 1)
    later = a_turn()
    for alias in ALIASES:
        store(alias).append(session, later)
        assert turns_in(alias, session) == (*turns[3:], later)


def test_expired_documents_go_and_lasting_keys_get_a_ttl(redis_server: RedisServer, mongo_server: MongoServer) -> None:
    expired, lasting, living = hold(MONGO), hold(REDIS), hold(*ALIASES)
    with redis_server.client() as redis, mongo_server.client() as mongo:
        redis.persist(f"conv:{lasting}")
        documents = mongo.get_default_database()["conversations_conversation"]
        documents.update_one({"_id": f"conv:{expired}"}, {"$set": {"expires_at": now() - timedelta(seconds=30)}})
        code, report = run_json("trim", "--expired", "--apply")
        assert (code, report["expired"]) == (0, {"expired_documents": 1, "keys_without_ttl": 1})
        assert [one["_id"] for one in documents.find()] == [f"conv:{living}"]
        assert redis.ttl(f"conv:{lasting}") > 2_591_000


def fill(number: int, size: int = 2000) -> list[str]:
    """Give Redis so many conversations, the first the oldest; return their sessions."""
    sessions = [f"s{n:05d}" for n in range(number)]
    pipeline = histories().client.get_client().pipeline(transaction=False)
    for minute, session in enumerate(sessions):
        turn = a_turn("q", "a" * size, at=now() - timedelta(days=1) + timedelta(seconds=minute))
        pipeline.set(f"conv:{session}", turn.lines(), ex=100_000)
    pipeline.execute()
    return sessions


def used(redis_server: RedisServer) -> int:
    """Return what all masters use together."""
    with ExitStack() as stack:
        clients = [stack.enter_context(one.client()) for one in redis_server.masters]
        return sum(int(client.info("memory")["used_memory"]) for client in clients)


def test_memory_is_freed_oldest_first_and_nothing_is_lost(redis_server: RedisServer) -> None:
    """MongoDB is given what it is missing before Redis removes it."""
    sessions = fill(1500)
    goal = used(redis_server) - 1_500_000
    histories().get(sessions[0])  # being read does not make it young
    code, report = run_json("trim", "--to-memory", f"{goal}b", "--apply")
    memory = report["to_memory"]
    assert (code, memory["kept"]) == (0, 0)
    assert memory["used"] <= goal
    assert memory["removed"] == memory["moved_to_mongo"] > 100
    assert list(bulk(REDIS).last_ids(sessions)) == sessions[memory["removed"] :]
    assert sorted(bulk(MONGO).last_ids(sessions)) == sessions[: memory["removed"]]
    assert store(REDIS).inspect(sessions[0]).tombstone is None


@pytest.mark.parametrize("there", [(0, 2), (1, 2), (0, 1), ()], ids=str)
def test_memory_gives_up_no_turn_that_the_other_store_is_missing(there: tuple[int, ...]) -> None:
    """Wherever in the conversation that turn is."""
    turns = aged(1, 3)
    whole, session = hold(*ALIASES, turns=turns), hold(REDIS, turns=turns)
    if there:
        hold(MONGO, session=session, turns=tuple(turns[place] for place in there))
    _, report = run_json("trim", "--to-memory", "1kb", "--apply")
    assert turns_in(REDIS, session) == turns_in(REDIS, whole) == ()
    assert turns_in(MONGO, session) == turns_in(MONGO, whole) == turns
    assert (report["to_memory"]["removed"], report["to_memory"]["moved_to_mongo"]) == (2, 1)


def test_what_the_other_store_has_more_of_is_not_copied() -> None:
    turns = aged(1, 3)
    session = hold(MONGO, turns=turns)
    hold(REDIS, session=session, turns=turns[1:])
    _, report = run_json("trim", "--to-memory", "1kb", "--apply")
    assert (report["to_memory"]["removed"], report["to_memory"]["moved_to_mongo"]) == (1, 0)
    assert turns_in(MONGO, session) == turns


def test_of_a_few_long_ones_no_more_are_removed_than_needed(redis_server: RedisServer) -> None:
    for _ in range(12):
        hold(REDIS, turns=(make_turn("long", "x" * 100_000, None, now(), now()),))
    code, report = run_json("trim", "--to-memory", f"{used(redis_server) - 250_000}b", "--apply")
    assert (code, 2 <= report["to_memory"]["removed"] <= 5) == (0, True)


def test_a_percentage_is_of_maxmemory(redis_server: RedisServer) -> None:
    fill(200)
    assert run("trim", "--to-memory", "80%")[0] == 2
    with configured(redis_server, maxmemory=2 * used(redis_server) // len(redis_server.masters)):
        code, report = run_json("trim", "--to-memory", "40%")
    memory = report["to_memory"]
    assert code == 0
    assert 0 < memory["removed"] <= 200
    assert memory["goal"] < memory["used"] == memory["used_before"]


def test_without_mongo_only_discard_removes_from_redis(redis_server: RedisServer, mongo_out: None) -> None:
    fill(300)
    goal = f"{used(redis_server) - 200_000}b"
    code, output = run("trim", "--to-memory", goal, "--apply")
    assert code == 2
    assert "--discard deletes it for good" in output
    with redis_server.client() as redis:
        assert len(set(redis.scan_iter("conv:*", count=1000))) == 300
        code, report = run_json("trim", "--to-memory", goal, "--apply", "--discard")
        assert (code, report["to_memory"]["moved_to_mongo"]) == (0, 0)
        assert len(set(redis.scan_iter("conv:*", count=1000))) < 300


def test_a_goal_out_of_reach_is_trouble() -> None:
    fill(50)
    code, output = run("trim", "--to-memory", "1kb", "--apply")
    assert code == 1
    assert output.splitlines()[-1].startswith("Redis still uses")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--apply"],
        ["--older-than", "20"],
        ["--older-than", "0d"],
        ["--max-turns", "0"],
        ["--to-memory", "lots"],
        ["--to-memory", "1gb", "--store", "mongo"],
    ],
)
def test_invalid_options_are_refused(words: list[str]) -> None:
    assert run("trim", *words)[0] in (1, 2)


def test_a_store_that_is_out_is_named(mongo_out: None) -> None:
    session = hold(REDIS, turns=aged(30))
    code, output = run("trim", "--older-than", "20d", "--apply")
    assert (code, output) == (2, "mongo cannot be reached; nothing was changed. --store names the other one alone\n")
    assert run("trim", "--older-than", "20d", "--apply", "--store", "redis")[0] == 0
    assert turns_in(REDIS, session) == ()


def test_killed_half_way_it_is_finished_by_running_it_again(tmp_path: Path, mongo_server: MongoServer) -> None:
    turns = aged(30)
    client = histories().client.get_client()
    pipeline = client.pipeline(transaction=False)
    for number in range(3000):
        pipeline.set(f"conv:s{number}", b"".join(turn.lines() for turn in turns), ex=100_000)
    pipeline.execute()
    process = subprocess.Popen(
        [sys.executable, "manage.py", "trim", "--older-than", "20d", "--apply"],
        cwd=django_settings.BASE_DIR, env=os.environ | {"VAR_DIR": str(tmp_path)}, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    eventually(lambda: client.exists("tomb:{conv:s1}", "tomb:{conv:s100}", "tomb:{conv:s1000}"), "it did not begin")
    process.send_signal(signal.SIGKILL)
    process.wait()
    for key in client.scan_iter("conv:*", count=1000):
        assert client.strlen(key) == sum(len(turn.lines()) for turn in turns)
    client.delete("onesource:lease:operator")  # it would end by itself in ten seconds
    with mongo_server.client() as mongo:
        mongo.get_default_database()["onesource_notes"].delete_many({})
    assert run("trim", "--older-than", "20d", "--apply")[0] == 0
    assert list(client.scan_iter("conv:*", count=1000)) == []
    assert len(set(client.scan_iter("tomb:*", count=1000))) == 3000


@pytest.mark.parametrize("wanted", ["0%", "101%", "800%"])
def test_a_percentage_that_cannot_be_is_refused(wanted: str) -> None:
    code, written = run("trim", "--to-memory", wanted)
    assert code != 0
    assert "is not a size: write it like 80%, at most 100%" in written
