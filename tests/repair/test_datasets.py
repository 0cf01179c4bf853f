"""A store that comes back empty, older or restarted is noticed before its answer is used; then all is compared."""

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from pymongo.collection import Collection
from pymongo.errors import NetworkTimeout, OperationFailure

from conversations import clock, history
from conversations.background import preparing, watcher
from conversations.datasets import Dataset, Known
from conversations.errors import StoreUnavailable
from conversations.history import writing as history_writing
from conversations.runtime import datasets, state
from conversations.stores import ALIASES, MONGO, REDIS, control, other, store
from conversations.stores.control import Report
from conversations.stores.mongo.patient import documents
from conversations.turns import History
from tests.builders import a_session, some_turns
from tests.round_trips import to_mongo
from tests.servers import RedisServer, Server, eventually


@pytest.fixture
def dual_write(settings: object) -> Iterator[None]:
    settings.CONV_DUAL_WRITE = True  # type: ignore[attr-defined]
    state.forget()
    yield
    state.forget()


@pytest.fixture
def servers(redis_server: RedisServer, mongo_server: Server) -> dict[str, Server]:
    return {REDIS: redis_server, MONGO: mongo_server}


@pytest.fixture
def watched(dual_write: None, servers: dict[str, Server]) -> None:
    """A process on two empty stores, which are complete."""
    for alias in ALIASES:
        wipe(alias, servers)
    state.forget()
    for _ in range(2):
        watcher._tick()
    gain_coverage()
    # The test before may have set a flag just now.
    eventually(lambda: (watcher._tick(), not state.state().inputs(a_session()).unknown_flags)[1], "flags are not read")


def gain_coverage() -> None:
    """Return once everything has been compared."""
    eventually(lambda: (watcher._repair(), state.state().known.complete == set(ALIASES))[1], "no coverage")


def wipe(alias: str, servers: dict[str, Server]) -> None:
    """Let the store come back empty."""
    if alias == REDIS:
        with servers[REDIS].client() as client:  # type: ignore[attr-defined]
            client.flushall()
    else:
        with servers[MONGO].client() as client:  # type: ignore[attr-defined]
            for name in ("conversations_conversation", "onesource_notes"):
                client["onesource"].drop_collection(name)


def renewed_by_another(alias: str, servers: dict[str, Server]) -> tuple[Known, Known]:
    """Wipe the store, and have another process give it an identity; return what this one and that one know."""
    known, another = state.state().known, deepcopy(state.state().known)
    wipe(alias, servers)
    datasets.compare(another, alias)
    return known, another


@pytest.mark.parametrize("wiped", [True, False])
@pytest.mark.usefixtures("watched")
def test_an_emptied_mongodb_deletes_again_what_has_expired(wiped: bool, servers: dict[str, Server]) -> None:
    """One too whose notes are still there, and with them its identity."""
    wipe(MONGO, servers) if wiped else documents().drop()
    watcher._tick()
    preparing.prepare()
    indexes = documents().index_information()
    expiring = [each for each in indexes.values() if each.get("expireAfterSeconds") == 0]
    assert [each["key"] for each in expiring] == [[("expires_at", 1)]]
    assert any(each["key"] == [("mark", 1)] for each in indexes.values())


@pytest.mark.parametrize("failing", [OperationFailure("not allowed", 13), NetworkTimeout("timed out")])
def test_indexes_that_cannot_be_made_are_logged_once(
    failing: Exception, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise failing

    preparing.prepare()
    with monkeypatch.context() as patch:
        patch.setattr(Collection, "create_index", refuse)
        preparing.prepare()
        preparing.prepare()
    preparing.prepare()
    logged = [vars(line)["reason"] for line in caplog.records if line.message == "indexes_not_created"]
    assert logged == [type(failing).__name__]


@pytest.mark.usefixtures("watched")
def test_a_request_waits_for_no_index(servers: dict[str, Server]) -> None:
    """A read that finds an emptied store gives it an identity, and has a deadline."""
    wipe(MONGO, servers)
    with to_mongo() as sent:
        datasets.compare(state.state().known, MONGO)
    assert "createIndexes" not in sent


@pytest.mark.parametrize("alias", ALIASES)
@pytest.mark.usefixtures("watched")
def test_a_store_that_was_wiped_is_filled_again(alias: str, servers: dict[str, Server]) -> None:
    session, turns = a_session(), some_turns(2)
    for each in ALIASES:
        store(each).append(session, None, turns)
    wipe(alias, servers)
    watcher._tick()
    assert state.state().known.complete == {other(alias)}  # it had no flag: the other one is missing nothing
    reading = history.read(session)
    assert (reading.history, reading.context) == (History.of(turns), "full")
    gain_coverage()
    assert store(alias).load(session) == History.of(turns)
    assert control(other(alias)).note(datasets.COVERAGE)


@pytest.mark.usefixtures("watched")
def test_a_store_that_another_process_finds_replaced_is_not_complete(watched: None) -> None:
    """Behind Sentinel this process may use the old primary still, which lacks what the other one stores."""
    process, session = state.state(), a_session()
    assert process.inputs(session).complete == set(ALIASES)
    process.shared_flags.record_dataset(REDIS, "of the new primary")
    assert process.inputs(session).complete == {MONGO}
    assert process.inputs(session).read_plan.merge
    watcher._tick()  # this process has found what there is now
    assert process.inputs(session).complete == set(ALIASES)


def test_no_store_is_complete_where_flags_may_be_lost(redis_server: RedisServer) -> None:
    store(REDIS).append(a_session(), None, some_turns(1), flag=True)
    watcher._tick()
    wipe(REDIS, {REDIS: redis_server})
    watcher._tick()
    assert state.state().known.complete == frozenset()


@pytest.mark.usefixtures("watched")
def test_a_restart_is_seen_by_the_first_read(redis_server: RedisServer) -> None:
    """Before its answer is used: Redis comes back without a turn that both stores had."""
    session, (one, two) = a_session(), some_turns(2)
    for each in ALIASES:
        store(each).append(session, None, [one, two])
    history.read(session)
    with redis_server.client() as client:
        value = client.get(f"conv:{session}")
        older = b"".join(value.splitlines(keepends=True)[:2])
        client.set(f"conv:{session}", older)
    redis_server.kill()
    redis_server.start()
    reading = history.read(session)
    assert (reading.history, reading.context) == (History.of([one, two]), "full")


@pytest.mark.usefixtures("watched")
def test_a_store_that_is_older_than_was_noted_has_been_rolled_back() -> None:
    known = state.state().known
    before = known.datasets[MONGO]
    noted = {"id": before.id, "epoch": before.epoch + 50, "instance": "x"}
    control(REDIS).write_note("dataset:mongo", json.dumps(noted))
    watcher._tick()
    watcher._tick()
    assert known.datasets[MONGO].id != before.id
    assert known.datasets[MONGO].epoch > before.epoch + 50


@pytest.mark.parametrize("alias", ALIASES)
@pytest.mark.usefixtures("watched")
def test_a_report_that_another_thread_has_overtaken_shows_no_older_store(
    alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request compares after a new connection while the watcher counts up: both at once when a fault begins."""
    known, one = state.state().known, control(alias)
    before, report = known.datasets[alias], one.report

    def slow(notes: tuple[str, ...]) -> Report:
        monkeypatch.setattr(one, "report", report)
        late = report(notes)
        datasets.compare(known, alias, beat=True)
        return late

    monkeypatch.setattr(one, "report", slow)
    datasets.compare(known, alias)
    assert known.datasets[alias].id == before.id
    assert known.complete == set(ALIASES)


@pytest.mark.usefixtures("watched")
def test_a_request_sees_no_dataset_without_its_coverage(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that looked between the two took a store that is complete for one that is not: `behind`, for nothing."""
    known, looked = state.state().known, []

    class Slow(dict[str, Dataset]):
        def __setitem__(self, alias: str, dataset: Dataset) -> None:
            looked.append(executor.submit(lambda: known.complete))
            wait(looked, timeout=0.2)  # as a thread may that is interrupted here
            super().__setitem__(alias, dataset)

    with ThreadPoolExecutor(1) as executor:
        monkeypatch.setattr(known, "datasets", Slow(known.datasets))
        renewed = replace(known.datasets[MONGO], id="another", epoch=known.datasets[MONGO].epoch + 1)
        datasets._take_over(known, MONGO, renewed, control(MONGO).report())
    assert [one.result() for one in looked] == [{REDIS}]


def test_a_process_that_starts_reads_what_its_machine_noted(settings: object, tmp_path: Path) -> None:
    settings.VAR_DIR = tmp_path  # type: ignore[attr-defined]
    (tmp_path / "run").mkdir()
    watcher._tick()
    watcher._tick()
    noted = datasets._on_this_machine(REDIS)
    assert [one.id for one in noted] == [state.state().known.datasets[REDIS].id]


@pytest.mark.usefixtures("watched")
def test_another_process_that_is_cut_off_makes_one_store_alone_behind(mongo_server: Server) -> None:
    session, turns = a_session(), some_turns(1)
    store(REDIS).append(session, None, turns)
    state.state().known.cut_off[REDIS] = frozenset({"elsewhere:1"})
    assert history.read(session).context == "full"  # both stores were asked
    mongo_server.kill()
    try:
        assert history.read(session).context == "behind"
    finally:
        mongo_server.start()


@pytest.mark.usefixtures("watched")
def test_a_process_of_this_machine_that_has_ended_is_not_cut_off() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    host = socket.gethostname()
    assert datasets._has_ended(f"{host}:{ended.pid}")
    assert not datasets._has_ended(f"{host}:{os.getpid()}")
    assert not datasets._has_ended(f"elsewhere:{ended.pid}")


@pytest.mark.usefixtures("watched")
def test_a_process_that_ends_takes_its_heartbeat_away() -> None:
    assert all(datasets.PROCESS in control(alias).report().heartbeats for alias in ALIASES)
    datasets.remove_heartbeats()
    assert not any(datasets.PROCESS in control(alias).report().heartbeats for alias in ALIASES)


@pytest.mark.parametrize("alias", ALIASES)
@pytest.mark.usefixtures("watched")
def test_a_store_stays_complete_while_that_is_recorded(
    alias: str, servers: dict[str, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other threads answer meanwhile."""
    known, seen = state.state().known, []
    monkeypatch.setattr(datasets, "record", lambda coverage: seen.append(known.complete))
    wipe(alias, servers)
    datasets.compare(known, alias)
    assert seen == [{other(alias)}]


@pytest.mark.parametrize("alias", ALIASES)
@pytest.mark.usefixtures("watched")
def test_a_store_stays_complete_where_another_process_has_not_recorded_that_yet(
    alias: str, servers: dict[str, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "record", lambda coverage: None)
    known, another = renewed_by_another(alias, servers)
    datasets.compare(known, alias)
    assert known.datasets[alias].id == another.datasets[alias].id
    assert known.complete == {other(alias)}


@pytest.mark.parametrize("alias", ALIASES)
@pytest.mark.usefixtures("watched")
def test_a_store_that_another_process_gives_an_identity_meanwhile_is_not_complete(
    alias: str, servers: dict[str, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    known, another = state.state().known, deepcopy(state.state().known)
    one = control(alias)
    identify = one.identify

    def too_late(dataset: Dataset, before: Dataset | None) -> bool:
        monkeypatch.setattr(one, "identify", identify)
        datasets.compare(another, alias)
        return identify(dataset, before)

    monkeypatch.setattr(one, "identify", too_late)
    wipe(alias, servers)
    datasets.compare(known, alias)
    assert known.complete == another.complete == {other(alias)}


@pytest.mark.parametrize("alias", ALIASES)
@pytest.mark.usefixtures("watched")
def test_a_process_that_cannot_ask_a_restarted_store_still_trusts_the_other(
    alias: str, servers: dict[str, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads there what another process has recorded, and the note of the new dataset is written later than that of
    the coverage: until the next second it answered `behind`, for nothing."""
    known, another = renewed_by_another(alias, servers)
    one, seen = control(other(alias)), []
    beat = one.beat
    monkeypatch.setattr(one, "beat", lambda *arguments: (seen.append(known.complete), beat(*arguments))[1])
    datasets.compare(known, other(alias), beat=True)
    assert [*seen, known.complete] == [{other(alias)}] * 2
    assert known.datasets[alias].id == another.datasets[alias].id
    datasets.compare(known, alias)  # now it can be asked
    assert (known.coverage, known.complete) == (another.coverage, {other(alias)})


@pytest.mark.parametrize("alias", ALIASES)
@pytest.mark.usefixtures("watched")
def test_a_record_of_coverage_that_has_ended_does_not_count_though_the_store_takes_no_heartbeat(
    alias: str, servers: dict[str, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The note beside it tells of a dataset that is newer still."""
    known, another = renewed_by_another(alias, servers)
    newer = replace(another.datasets[alias], id="newer", epoch=another.datasets[alias].epoch + 1)
    one = control(other(alias))
    one.write_note(datasets.noted_as(alias), json.dumps(asdict(newer)))

    def refuse(process: str, dataset: Dataset) -> int:
        raise StoreUnavailable(other(alias), "full")

    monkeypatch.setattr(one, "beat", refuse)
    with pytest.raises(StoreUnavailable):
        datasets.compare(known, other(alias), beat=True)
    assert known.complete == frozenset()
    assert known.datasets[alias] == newer


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("flagged", [False, True])
def test_a_flag_that_cannot_be_read_is_known_from_the_other_store(flagged: bool, redis_server: RedisServer) -> None:
    """Another machine set it in the moment before Redis went out."""
    session = a_session()
    for alias in ALIASES:
        store(alias).append(session, None, some_turns(1))
    if flagged:
        control(MONGO).write_note(datasets.flagged_as(REDIS), str(clock.timestamp()))
    redis_server.kill()
    try:
        watcher._tick()
        assert history.read(session).context == ("behind" if flagged else "full")
    finally:
        redis_server.start()
    eventually(lambda: (watcher._tick(), not state.state().inputs(session).unknown_flags)[1], "flags are not read")


@pytest.mark.usefixtures("watched")
def test_the_time_of_a_flag_is_noted_in_the_other_store() -> None:
    before = clock.timestamp()
    history_writing.flag_unsynced(a_session(), REDIS)
    watcher._tick()
    assert before - 1 < float(control(MONGO).note(datasets.flagged_as(REDIS)) or 0) <= clock.timestamp()


@pytest.mark.parametrize("time", ["since", "at"])
@pytest.mark.usefixtures("watched")
def test_coverage_that_was_noted_with_a_wrong_clock_does_not_count(time: str) -> None:
    """Else no scrub would be due, and no newer record would count, until then."""
    coverage = state.state().known.coverage
    ahead = {"at": coverage.at + 1, time: clock.timestamp() + 2 * datasets.MOST_AHEAD}
    try:
        datasets.record(replace(coverage, **ahead))
        watcher._tick()
        assert state.state().known.coverage == coverage
    finally:
        datasets.record(coverage)
