"""What is so on a Redis Cluster alone. What a store promises anywhere it promises there too: script/test-kinds."""

import gc
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from weakref import ref

import pytest
from django.core.cache import caches
from pytest_django import Settings
from redis.exceptions import ConnectionError, TryAgainError

from conversations.datasets import Dataset, Verdict, judge
from conversations.errors import NoSnapshot, StoreUnavailable
from conversations.stores import REDIS, open_snapshots
from conversations.stores.base import Contents
from conversations.stores.redis.bulk import RedisBulk
from conversations.stores.redis.client import histories
from conversations.stores.redis.kept import Command
from conversations.stores.redis.keys import FLAGGED_SLOTS, epoch_keys, lease_key, slot_of
from conversations.stores.redis.routes import Routes
from conversations.stores.redis.turns import CacheStore
from conversations.stores.sessions import make_key
from conversations.turns import History, Limits, Turn
from tests.builders import a_session, a_turn, some_turns
from tests.clusters import MASTERS, ClusterOfServers, NodeServer
from tests.servers import RedisServer, eventually, use_redis

LIMITS = Limits(3600, 1000, 1_000_000)


@pytest.fixture
def store(redis_cluster: ClusterOfServers, settings: Settings) -> CacheStore:
    use_redis(settings, redis_cluster.url)
    return CacheStore("redis", LIMITS)


@pytest.fixture
def dataset(store: CacheStore, redis_cluster: ClusterOfServers) -> Dataset:
    """The dataset that the store has from now on."""
    found = store.report()
    with redis_cluster.client() as client:
        for key in epoch_keys():  # of other tests' datasets, whose epochs may be later ones
            client.delete(key)
    given = Dataset(a_session(), (found.dataset.epoch if found.dataset else 0) + 1, found.instance)
    assert store.identify(given, found.dataset)
    epoch = store.beat("a process", given)
    assert epoch
    return replace(given, epoch=epoch)


def is_known(store: CacheStore, dataset: Dataset) -> Verdict:
    report = store.report()
    return judge(report.dataset, report.instance, [dataset])


def test_a_beat_raises_the_epoch_of_every_part(
    store: CacheStore, dataset: Dataset, redis_cluster: ClusterOfServers
) -> None:
    assert is_known(store, dataset) is Verdict.SAME
    assert store.beat("a process", dataset) == dataset.epoch + 1
    with redis_cluster.client() as client:
        assert {int(client.get(key)) for key in epoch_keys()} == {dataset.epoch + 1}
        assert {redis_cluster.owner(key) for key in epoch_keys()} == set(redis_cluster.masters)


@pytest.mark.parametrize("number", range(MASTERS))
def test_one_master_that_was_emptied_is_noticed(
    store: CacheStore, dataset: Dataset, redis_cluster: ClusterOfServers, number: int
) -> None:
    with redis_cluster.masters[number].client() as client:
        client.flushall()
    before = store.report()
    assert is_known(store, dataset) in (Verdict.WIPED, Verdict.ROLLED_BACK)
    assert judge(before.dataset, before.instance, []) is not Verdict.SAME  # who has seen nothing before sees it too
    assert store.beat("a process", dataset) is None  # which would hide it
    assert is_known(store, dataset) is not Verdict.SAME
    renewed = Dataset(a_session(), dataset.epoch + 1, before.instance)
    assert store.identify(renewed, before.dataset)
    assert is_known(store, renewed) is Verdict.SAME


def test_one_master_with_less_than_before_is_noticed(
    store: CacheStore, dataset: Dataset, redis_cluster: ClusterOfServers
) -> None:
    with redis_cluster.client() as client:
        client.set(epoch_keys()[-1], dataset.epoch - 1)
        assert is_known(store, dataset) is Verdict.ROLLED_BACK
        assert store.beat("a process", dataset) is None
        assert int(client.get(epoch_keys()[-1])) == dataset.epoch - 1


def test_a_flag_is_in_its_conversations_slot_and_is_found(
    store: CacheStore, redis_cluster: ClusterOfServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = {a_session() for _ in range(20)}
    for session in sessions:
        store.append(session, a_turn(), flag=True)
    assert sessions <= store.flags(10_000).sessions
    assert sessions <= set(chain.from_iterable(RedisBulk(store).flagged(7)))
    found = RedisBulk(store).contents(sessions)
    flags = {session: one.flag for session, one in found.items() if isinstance(one, Contents) and one.flag}
    assert flags.keys() == sessions
    RedisBulk(store).clear_flags(flags)
    assert not sessions & store.flags(10_000).sessions
    monkeypatch.setattr("conversations.stores.redis.flags._KEPT", -10.0)
    store.flags(10_000)
    with redis_cluster.client() as client:
        named = {int(slot) for slot in client.zrange(FLAGGED_SLOTS, 0, -1)}
    assert not named & {slot_of(make_key(session)) for session in sessions}


def test_a_slot_is_named_with_each_flag_and_a_slow_clock_does_not_lower_its_time(
    store: CacheStore, redis_cluster: ClusterOfServers
) -> None:
    session = a_session()
    slot, later = slot_of(make_key(session)), 2_000_000_000_000
    with redis_cluster.client() as client:
        for _ in range(2):
            store.append(session, a_turn(), flag=True)
            assert client.zscore(FLAGGED_SLOTS, slot)
            client.zrem(FLAGGED_SLOTS, slot)
        client.zadd(FLAGGED_SLOTS, {slot: later})
        store.append(session, a_turn(), flag=True)
        assert client.zscore(FLAGGED_SLOTS, slot) == later
        client.zrem(FLAGGED_SLOTS, slot)
    store.append(session, a_turn(), flag=True)
    assert session in store.flags(10_000).sessions


def test_the_cache_works_as_djangos_do(store: CacheStore) -> None:
    history, sessions = History.of(some_turns(2)), [a_session() for _ in range(5)]
    cache = caches["conversations"]
    cache.set_many(dict.fromkeys(sessions, history), 100)
    assert cache.get_many([*sessions, a_session()]) == dict.fromkeys(sessions, history)
    assert cache.get(sessions[0]) == history
    assert cache.touch(sessions[0], 1000)
    assert 100 < cache.ttl(sessions[0]) <= 1000
    assert set(sessions) <= set(cache.iter_keys("*"))
    assert cache.delete(sessions[0])
    cache.delete_many(sessions)
    assert cache.get_many(sessions) == {}


def test_turns_go_on_while_their_slot_moves(store: CacheStore, redis_cluster: ClusterOfServers) -> None:
    """Each key of a slot may be on either master meanwhile; what is on both for a moment is tried again."""
    tenant = a_session()
    sessions = [f"{tenant}:{number}" for number in range(3)]
    slot = slot_of(make_key(sessions[0]))
    source = redis_cluster.owner_of(slot)
    target = next(one for one in redis_cluster.masters if one is not source)
    turns = some_turns(30)
    given: list[Turn] = []

    def turn() -> None:
        for session in sessions:
            try:
                store.append(session, turns[len(given)])
            except StoreUnavailable as error:
                assert not error.unknown  # certainly not stored: the other store has it
            else:
                if session == sessions[0]:
                    given.append(turns[len(given)])

    turn(), turn()
    walk = RedisBulk(store).sessions(1)
    next(walk)
    redis_cluster.move(slot, source, target, pause=turn)
    try:
        turn()
        with pytest.raises(StoreUnavailable, match="SlotsAreMoving"):  # a key may have been missed
            list(walk)
        assert len(given) >= 3
        assert store.load(sessions[0]) == History.of(given)
        assert sessions[0] in set(chain.from_iterable(RedisBulk(store).sessions(100)))
    finally:
        redis_cluster.move(slot, target, source)
    turn()
    assert store.load(sessions[0]) == History.of(given)


def test_a_command_that_cannot_be_sent_again_leaves_the_answers_of_others(
    store: CacheStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its slot has no master by now; what another one has stored is not reported as certainly not stored."""
    cluster = histories().client.redis
    monkeypatch.setattr(cluster.nodes_manager, "slots_cache", {})
    commands: list[Command] = [("GET", "conv:gone"), ("GET", "conv:stored")]
    answers = Routes(cluster)._redirect(commands, [TryAgainError(), b"stored"], [0])
    assert isinstance(answers[0], ConnectionError)
    assert answers[1] == b"stored"


def test_connections_to_a_node_that_is_made_anew_are_closed(store: CacheStore) -> None:
    store.ping()
    cluster = histories().client.redis
    [node, *_] = cluster.masters()
    kept = cluster.routes._kept_of(node)
    kept.call("PING")
    connections = list(kept._idle)
    assert connections
    node.redis_connection = None
    assert cluster.routes._kept_of(node) is not kept
    assert not kept._idle
    assert not any(one.is_connected for one in connections)
    kept = ref(kept)
    gc.collect()
    assert kept() is None


def test_no_walk_begins_while_slots_are_being_moved(store: CacheStore, redis_cluster: ClusterOfServers) -> None:
    source, target = redis_cluster.masters[:2]
    with source.client() as client:
        client.execute_command("CLUSTER SETSLOT", 0, "MIGRATING", target.id())
        try:
            with pytest.raises(StoreUnavailable, match="SlotsAreMoving"):
                store.scan("", 10)
            with pytest.raises(StoreUnavailable, match="SlotsAreMoving"):
                list(RedisBulk(store).tombstones(10))
        finally:
            client.execute_command("CLUSTER SETSLOT", 0, "STABLE")


def test_one_master_that_is_full_refuses_its_own_turns_and_no_others(
    store: CacheStore, redis_cluster: ClusterOfServers
) -> None:
    sessions = [a_session() for _ in range(30)]
    full = redis_cluster.masters[1]
    with full.client() as client:
        client.config_set("maxmemory", 1)
        try:
            for session in sessions:
                is_there = redis_cluster.owner(make_key(session)) is full
                try:
                    store.append(session, a_turn())
                except StoreUnavailable as error:
                    assert is_there
                    assert not error.unknown
                else:
                    assert not is_there
                assert store.load(session) is None or not is_there
        finally:
            client.config_set("maxmemory", 0)


def test_the_memory_is_that_of_the_fullest_master(store: CacheStore, redis_cluster: ClusterOfServers) -> None:
    clients = [one.client() for one in redis_cluster.masters]
    try:
        for client, limit in zip(clients, ("100mb", "100mb", "1gb"), strict=True):
            client.config_set("maxmemory", limit)
        memory = RedisBulk(store).memory()
        fullest = max(client.info("memory")["used_memory"] for client in clients[:2])
        assert memory.limit == 2 * 100 * 2**20 + 2**30
        assert memory.used / memory.limit == pytest.approx(fullest / (100 * 2**20), rel=0.05)
    finally:
        for client in clients:
            client.config_set("maxmemory", 0)
            client.close()


@pytest.fixture
def deployment(tmp_path: Path, settings: Settings) -> Iterator[ClusterOfServers]:
    """A cluster of a test's own, and a turn's usual timeouts."""
    made = ClusterOfServers(tmp_path)
    try:
        made.start()
        settings.CACHES["conversations"]["OPTIONS"] |= {"SOCKET_TIMEOUT": 0.2, "SOCKET_CONNECT_TIMEOUT": 0.1}
        use_redis(settings, made.url)
        yield made
    finally:
        made.kill()


@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_a_master_that_is_out_is_followed_by_its_replica(deployment: ClusterOfServers, fault: str) -> None:
    """Until then each call fails within 600 ms, also of conversations that another master has: the other store answers
    all. The promotion is noticed, and an old master that wakes is given no turn."""
    store, session, turns = CacheStore("redis", LIMITS), a_session(), some_turns(3)
    store.append(session, turns[0])
    report = store.report()
    dataset = Dataset(a_session(), 1, report.instance)
    assert store.identify(dataset, None)
    slot = slot_of(make_key(session))
    before = deployment.owner_of(slot)
    eventually(lambda: replicated(deployment, session), "the replica does not have it")
    before.kill() if fault == "killed" else before.freeze()
    for call in (lambda: store.load(session), lambda: store.append(session, turns[1]), store.ping, store.report):
        begun = time.monotonic()
        with pytest.raises(StoreUnavailable):
            call()
        assert time.monotonic() - begun < 0.6
    deployment.promoted(before)
    eventually(lambda: is_up(store), "the cluster is not used again")
    assert is_known(store, dataset) is Verdict.RESTARTED
    assert store.append(session, turns[1]).stored  # once, though it may have been given to the old master
    if fault == "frozen":
        before.thaw()
        eventually(lambda: before.role() == "slave", "the old master is one still")
        assert store.append(session, turns[2]).stored
        assert store.load(session) == History.of(turns)


def test_a_cluster_that_is_frozen_as_a_whole_holds_up_no_call(deployment: ClusterOfServers, settings: Settings) -> None:
    store, session = CacheStore("redis", LIMITS), a_session()
    assert store.append(session, a_turn(), flag=True).stored
    for node in deployment.nodes:
        node.freeze()
    calls = [store.ping, lambda: store.load(session), lambda: store.append(session, a_turn()), store.newest,
             lambda: store.note("one"), lambda: store.write_note("one", "text"), lambda: store.holder("one"),
             lambda: store.remove_heartbeat("one"), lambda: store.lease("one", "two", 5), store.report,
             lambda: store.flags(10), lambda: store.ttl(session), lambda: store.delete(session, "x")]  # fmt: skip
    for call in calls:
        begun = time.monotonic()
        require_unavailable([call])
        assert time.monotonic() - begun < 1.0
    use_redis(settings, deployment.url + "/0")
    begun = time.monotonic()
    require_unavailable([store.ping])
    assert time.monotonic() - begun < 1.0
    for node in deployment.nodes:
        node.thaw()
    eventually(lambda: is_up(store), "the cluster is not used again")


def test_a_new_master_is_given_its_first_slot(deployment: ClusterOfServers, tmp_path: Path) -> None:
    """It has no script yet, and is asked for a key before the map has it."""
    store, new = CacheStore("redis", LIMITS), NodeServer(tmp_path / "new")
    deployment.masters.append(new)
    new.start()
    slot = slot_of(lease_key("one"))
    source = deployment.owner_of(slot)
    with source.client() as old, new.client() as client:
        client.execute_command("CLUSTER MEET", "127.0.0.1", source.port, source.bus)
        eventually(lambda: all(new.id() in node.known() for node in deployment.nodes), "it is not known to all")
        eventually(deployment.is_whole, "it takes no keys yet")
        assert store.lease("one", "first", 60)
        client.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", source.id())
        old.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", new.id())
        old.migrate("127.0.0.1", new.port, old.execute_command("CLUSTER GETKEYSINSLOT", slot, 100), 0, 5000)
        assert store.lease("one", "first", 60)
        assert not store.lease("one", "second", 60)


@pytest.mark.parametrize("noticed", ["by a turn", "by a look at the map"])
def test_a_promoted_replica_is_compared_though_it_is_connected_to(deployment: ClusterOfServers, noticed: str) -> None:
    store, session = CacheStore("redis", LIMITS), a_session()
    store.append(session, a_turn())
    cluster = histories().client.redis
    routes = cluster.routes
    routes.refresh()
    for node in cluster.get_nodes():  # as looks at the map do
        assert routes._kept_of(node).call("PING")
        assert cluster.get_redis_connection(node).ping()
    slot, before = slot_of(make_key(session)), store.connections
    routes.refresh()
    assert store.connections == before
    promoted = deployment.replicas[deployment.masters.index(deployment.owner_of(slot))]
    with promoted.client() as client:
        client.execute_command("CLUSTER FAILOVER")
        eventually(lambda: deployment.owner_of(slot) is promoted, "it was not promoted")
    eventually(deployment.is_whole, "the cluster is not whole")
    store.load(session) if noticed == "by a turn" else routes.refresh()
    assert store.connections > before


def is_up(store: CacheStore) -> bool:
    try:
        store.ping()
    except StoreUnavailable:
        return False
    return True


def replicated(cluster: ClusterOfServers, session: str) -> bool:
    owner = cluster.owner(make_key(session))
    with owner.client() as client:
        return bool(client.wait(1, 100))


def test_a_cluster_with_slots_that_no_node_has_is_out(store: CacheStore, redis_cluster: ClusterOfServers) -> None:
    with redis_cluster.masters[2].client() as client:
        client.execute_command("CLUSTER DELSLOTS", 16383)
        try:
            eventually(lambda: not is_up(store), "it counts as up")
        finally:
            client.execute_command("CLUSTER ADDSLOTS", 16383)
    eventually(redis_cluster.is_whole, "the cluster is not whole")
    eventually(lambda: is_up(store), "it counts as out")


def test_a_cluster_that_goes_on_without_some_slots_is_out(store: CacheStore, redis_cluster: ClusterOfServers) -> None:
    clients = [node.client() for node in redis_cluster.nodes]
    for client in clients:
        client.config_set("cluster-require-full-coverage", "no")
    try:
        clients[2].execute_command("CLUSTER DELSLOTS", 16383)
        eventually(lambda: not is_up(store), "it counts as up")
    finally:
        clients[2].execute_command("CLUSTER ADDSLOTS", 16383)
        for client in clients:
            client.config_set("cluster-require-full-coverage", "yes")
            client.close()
    eventually(redis_cluster.is_whole, "the cluster is not whole")
    eventually(lambda: is_up(store), "it counts as out")


def test_a_server_that_is_no_cluster_is_named(tmp_path: Path, settings: Settings) -> None:
    server = RedisServer(tmp_path)
    try:
        server.start()
        use_redis(settings, f"redis+cluster://127.0.0.1:{server.port}")
        with pytest.raises(StoreUnavailable, match="NoCluster"):
            CacheStore("redis", LIMITS).ping()
    finally:
        server.kill()


def test_a_cluster_that_is_not_made_or_was_reset_is_out(tmp_path: Path, settings: Settings) -> None:
    """Its nodes answer, and none has a slot."""
    node, store, session = NodeServer(tmp_path), CacheStore("redis", LIMITS), a_session()
    calls = [lambda: store.load(session), lambda: store.append(session, a_turn(), flag=True), store.ping, store.report,
             lambda: store.flags(10), lambda: store.note("one"), lambda: store.summaries([session])]  # fmt: skip
    try:
        node.start()
        use_redis(settings, f"redis+cluster://127.0.0.1:{node.port}")
        require_unavailable(calls)
        with node.client() as client:
            client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
            eventually(lambda: is_up(store), "the cluster is out")
            assert store.append(session, a_turn()).stored
            client.flushall()
            client.execute_command("CLUSTER RESET", "HARD")
        for _ in range(2):
            require_unavailable(calls)
            with pytest.raises(NoSnapshot):
                open_snapshots(REDIS, tmp_path)
            histories().client.redis.routes.refresh()
    finally:
        node.kill()


def require_unavailable(calls: Iterable[Callable[[], object]]) -> None:
    for call in calls:
        with pytest.raises(StoreUnavailable):
            call()
