"""The stage of each section of the document: the fault that its alert is about, made before and undone after."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Any

import httpx

from conversations.clock import now
from tests.builders import a_turn
from tests.deploy.files import containers, manifest
from tests.faults.clients import Load
from tests.runbook.cluster import Cluster
from tests.servers import eventually

Stage = Callable[[Cluster], AbstractContextManager[None]]
STAGES: dict[str, Stage] = {}


def _before(*titles: str) -> Callable[[Callable[[Cluster], Iterator[None]]], Stage]:
    """Stage the sections of these titles so."""

    def named(stage: Callable[[Cluster], Iterator[None]]) -> Stage:
        managed = contextmanager(stage)
        STAGES.update(dict.fromkeys(titles, managed))
        return managed

    return named


@_before("Normal Operation", "Monitoring Commands", "Key Metrics")
def one_conversation(cluster: Cluster) -> Iterator[None]:
    ask(cluster, "outage")
    yield


@_before("Performance Tuning")
def a_sample_key(cluster: Cluster) -> Iterator[None]:
    ask(cluster, "sample_key")
    yield


@_before("Alert: PersistenceErrorsHigh")
def redis_full(cluster: Cluster) -> Iterator[None]:
    """And, afterwards, that what its EVAL deletes comes back from MongoDB: by the sweep that follows the restart of
    Redis, or with the next question."""
    ask(cluster, "remembered")
    with redis_filled(cluster, 1.05):
        yield
    answer = ask(cluster, "remembered")
    assert (answer["msg_count_before"], answer["new_thread"], answer["context"]) == (2, False, "full")


@_before("Alert: BreakerOpen", "Alert: PersistenceErrorRatioHigh")
def writes_refused(cluster: Cluster) -> Iterator[None]:
    with redis_filled(cluster, 1.05):
        yield


@_before("Alert: RedisMemoryHigh")
def redis_filling(cluster: Cluster) -> Iterator[None]:
    with redis_filled(cluster, 0.85):
        yield
        memory = _memory(cluster)
        assert memory["used_memory"] <= 0.75 * memory["maxmemory"]  # 70 % when it was trimmed


@_before("Alert: RedisMemoryCritical")
def redis_nearly_full(cluster: Cluster) -> Iterator[None]:
    with redis_filled(cluster, 0.97):
        yield


@_before("Alert: TurnsNotPersisted")
def no_store_writes(cluster: Cluster) -> Iterator[None]:
    with redis_filled(cluster, 1.05), mongo_out(cluster):
        for _ in range(3):
            assert ask(cluster, "refused")["code"] == "not_persisted"
        yield


@_before("Alert: RedisDown")
def redis_out(cluster: Cluster) -> Iterator[None]:
    ask(cluster, "outage")
    cluster.redis.kill()
    eventually(lambda: sees(cluster, redis=False), "the service does not notice")
    assert ask(cluster, "outage")["stored_in"] == ["mongo"]
    yield
    eventually(lambda: sees(cluster, redis=True), "the service does not notice")
    assert ask(cluster, "outage")["msg_count_before"] == 4


@_before("Alert: MongoDown")
def mongo_out(cluster: Cluster) -> Iterator[None]:
    cluster.mongo.kill()
    eventually(lambda: sees(cluster, mongo=False), "the service does not notice")
    yield
    if not cluster.mongo.process:
        cluster.mongo.start()
    eventually(lambda: sees(cluster, mongo=True), "the service does not notice")


@_before("Alert: BothStoresDown")
def both_out(cluster: Cluster) -> Iterator[None]:
    cluster.redis.kill()
    with mongo_out(cluster):
        eventually(lambda: sees(cluster, redis=False), "the service does not notice")
        yield


@_before("Alert: RedisLatencyHigh")
def redis_slow(cluster: Cluster) -> Iterator[None]:
    with cluster.redis.client() as redis:
        redis.eval("for i = 1, 2e7 do end", 0)
    yield


@_before("Alert: ConversationsUnsynced")
def one_unsynced(cluster: Cluster) -> Iterator[None]:
    cluster.redis.kill()
    eventually(lambda: sees(cluster, redis=False), "the service does not notice")
    ask(cluster, "marked")
    eventually(lambda: metric(cluster, 'unsynced_conversations{store="mongo"}') == 1, "no flag is seen")
    yield


@_before("Alert: ConversationsOutOfStep")
def one_out_of_step(cluster: Cluster) -> Iterator[None]:
    """A key is deleted by hand, and the last comparison was long ago."""
    ask(cluster, "astray")
    with cluster.redis.client() as redis:
        redis.delete("conv:astray")
        coverage = json.loads(redis.get("onesource:coverage"))
        redis.set("onesource:coverage", json.dumps(coverage | {"since": 0.0, "at": coverage["at"] + 0.001}))
        found = 'out_of_step_conversations_total{store="redis"}'
        eventually(lambda: metric(cluster, found) == 1, "it is not found")
        eventually(lambda: redis.exists("conv:astray", "onesource:scrubbed") == 2, "the scrub does not end")
    yield


@_before("Alert: StoreDataChanged")
def redis_wiped(cluster: Cluster) -> Iterator[None]:
    with cluster.redis.client() as redis:
        redis.flushall()
    wiped = 'dataset_changes_total{reason="wiped",store="redis"}'
    eventually(lambda: metric(cluster, wiped) == 1, "the service does not notice")
    eventually(lambda: "redis" in complete_stores(cluster), "nothing is compared")
    eventually(lambda: healthz(cluster)["stores"]["redis"]["complete"], "the worker does not know it")
    yield


@_before("Alert: HistoriesCorrupt")
def one_corrupt(cluster: Cluster) -> Iterator[None]:
    with cluster.redis.client() as redis:
        redis.set("conv:strange", "written by another program")
    ask(cluster, "strange")
    yield


@_before("Conversation Context Failure")
def one_behind(cluster: Cluster) -> Iterator[None]:
    ask(cluster, "test_session_123")
    no_store_has_it = a_turn(at=now() + timedelta(minutes=1)).answer.id
    assert ask(cluster, "test_session_123", last_message_id=no_store_has_it)["context"] == "behind"
    yield


@_before("Alert: BackupOld")
def a_failed_backup(cluster: Cluster) -> Iterator[None]:
    with mongo_out(cluster):
        (container,) = containers(manifest("CronJob", "onesource-backup"))
        cluster.run_job("onesource-backup-29400197", container["command"])
    yield


@_before("Redis Failover Procedures")
def people_talking(cluster: Cluster) -> Iterator[None]:
    """And, afterwards, that no request failed and that every answer is remembered, in order."""
    load = Load("runbook", [cluster.front.port], clients=4, sessions_each=1, sharing=1, pause=0.4).start()
    try:
        yield
    finally:
        load.stop()
    for talk in load.talks:
        assert [ask.error for ask in talk.asks if ask.error] == []
        assert len(talk.asks) > 20
        assert questions(cluster, talk.session) == [ask.question for ask in talk.asks]


# --- steps --------------------------------------------------------------------------------------


def ask(cluster: Cluster, session: str, question: str = "What is Redis?", **more: str) -> dict[str, Any]:
    """Return the service's answer to a question of this session, an error's too."""
    body = {"question": question, "session_id": session, **more}
    url = f"http://127.0.0.1:{cluster.front.port}/api/chat/ask"
    answer: dict[str, Any] = httpx.post(url, json=body, timeout=30, trust_env=False).json()
    return answer


def questions(cluster: Cluster, session: str) -> list[str]:
    """Return what was asked, as the service remembers it."""
    _, _, body = cluster.pod.request("GET", f"/api/chat/conversations/{session}/")
    return [message["content"] for message in json.loads(body)["messages"] if message["role"] == "user"]


def sees(cluster: Cluster, **up: bool) -> bool:
    """Return whether the service has noticed that these stores are up, or out."""
    stores = healthz(cluster)["stores"]
    return all(stores[name]["up"] is state for name, state in up.items())


def healthz(cluster: Cluster) -> dict[str, Any]:
    """Return what /healthz reports."""
    report: dict[str, Any] = json.loads(cluster.pod.request("GET", "/healthz")[2])
    return report


def complete_stores(cluster: Cluster) -> list[str]:
    """Return the stores that are complete, as Redis has it noted; none after it was emptied."""
    with cluster.redis.client() as redis:
        noted: dict[str, Any] = json.loads(redis.get("onesource:coverage") or "{}")
    return list(noted.get("complete", ()))


def metric(cluster: Cluster, series: str) -> float:
    """Return what the service's page of metrics has for it."""
    _, _, body = cluster.pod.request("GET", "/metrics")
    (line,) = [line for line in body.decode().splitlines() if line.startswith(f"{series} ")]
    return float(line.rpartition(" ")[2])


@contextmanager
def redis_filled(cluster: Cluster, full: float) -> Iterator[None]:
    """Have conversations take so much of what Redis may use, also when it is restarted; over 1 it refuses the next."""
    for number in range(40):
        ask(cluster, f"long-{number}", "What? " * 8_000)
    _allow(cluster, int(_memory(cluster)["used_memory"] / full))
    if full > 1:
        eventually(lambda: ask(cluster, "more")["stored_in"] == ["mongo"], "Redis takes all")
        for _ in range(3):  # as many failures as open its breaker
            ask(cluster, "more")
        eventually(lambda: metric(cluster, 'breaker_open{kind="writes",store="redis"}') == 1, "no breaker opens")
    yield
    _allow(cluster, 64 * 2**20)


def _allow(cluster: Cluster, most: int) -> None:
    cluster.redis.options = ("--maxmemory", str(most))
    with cluster.redis.client() as redis:
        redis.config_set("maxmemory", most)


def _memory(cluster: Cluster) -> dict[str, int]:
    with cluster.redis.client() as redis:
        answer: dict[str, int] = redis.info("memory")
    return answer
