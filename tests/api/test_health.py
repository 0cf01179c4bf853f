"""What probes, Prometheus and people on call read: health, metrics, and log lines."""

import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings as ours
from django.test import Client
from pytest_django import Settings

from conversations.answerers import answerer
from conversations.answerers.base import Answerer
from conversations.errors import AnswererFailed
from conversations.runtime import gauges, pings
from conversations.runtime.state import state
from conversations.turns import History
from telemetry.logs import JsonFormatter, hashed
from tests import environment
from tests.api.talking import Lines, ask, delete, get, post, sample
from tests.builders import a_session

WORDS = "the words of this conversation"
RUNBOOK_SERIES = {
    "redis_up",
    "redis_latency_p95_ms",
    'history_persist_errors_total{store="redis"}',
    'history_persist_errors_total{store="mongo"}',
    "msg_count_before_sum",
    "msg_count_before_count",
    'msg_count_before_bucket{le="0.0"}',
    'msg_count_before_bucket{le="+Inf"}',
}


class Fails(Answerer):
    def answer(self, question: str, history: History, *, behind: bool = False) -> Iterator[str]:
        raise AnswererFailed("APITimeoutError")


class LosesTheStores(Answerer):
    def answer(self, question: str, history: History, *, behind: bool = False) -> Iterator[str]:
        environment.REDIS.kill()
        environment.MONGO.kill()
        yield "An answer"


@pytest.fixture
def loses_the_stores(settings: Settings) -> Iterator[None]:
    """Both stores are stopped while a question is answered."""
    settings.ANSWERER = f"{__name__}.LosesTheStores"
    answerer.cache_clear()
    yield
    answerer.cache_clear()
    for server in (environment.REDIS, environment.MONGO):
        server.kill()
        server.start()


def probe(path: str) -> Any:
    return Client().get(path)


class TestProbes:
    def test_readyz_does_not_wait_for_a_store_that_does_not_answer(self) -> None:
        """The stores' own timeouts are longer than what a probe has."""
        environment.REDIS.freeze()
        try:
            redis = probe("/readyz").json()["stores"]["redis"]
        finally:
            environment.REDIS.thaw()
        assert (redis["up"], redis["error"]) == (False, "no answer in 0.4 s")

    @pytest.mark.parametrize("path", ["/livez", "/version", "/readyz", "/metrics"])
    def test_the_trailing_slash_is_optional(self, path: str) -> None:
        assert [probe(path).status_code, probe(f"{path}/").status_code] == [200, 200]

    def test_liveness_needs_no_store(self, redis_out: None, mongo_out: None) -> None:
        response = probe("/livez")
        assert (response.status_code, response.content) == (200, b"ok\n")

    def test_the_version_is_returned(self) -> None:
        assert probe("/version").json() == {"version": ours.VERSION}

    def test_health_has_the_routing_and_each_store(self, settings: Settings) -> None:
        settings.CONV_STORE_PRIMARY, settings.CONV_DUAL_WRITE = "mongo", True
        pings.look()
        report = probe("/healthz").json()
        assert (report["status"], report["primary"], report["dual_write"]) == ("ok", "mongo", True)
        assert {name: store["up"] for name, store in report["stores"].items()} == {"redis": True, "mongo": True}
        assert all(store["latency_ms"] > 0 for store in report["stores"].values())

    def test_health_has_what_is_known_of_the_datasets(self) -> None:
        state().known.cut_off = {"redis": frozenset({"elsewhere:1"})}
        report = probe("/healthz").json()
        redis, mongo = report["stores"]["redis"], report["stores"]["mongo"]
        assert (redis["complete"], mongo["complete"]) == (True, False)
        assert redis["epoch"] == state().known.datasets["redis"].epoch
        assert (redis["cut_off"], mongo["cut_off"]) == (1, 0)
        assert abs(report["clock_offset_seconds"]) < 1

    @pytest.mark.parametrize("out", ["redis", "mongo"])
    def test_with_one_store_down_health_is_degraded_and_200(self, out: str, request: pytest.FixtureRequest) -> None:
        """The service can be used, and must not be restarted."""
        request.getfixturevalue(f"{out}_out")
        pings.look()
        response = probe("/healthz")
        assert (response.status_code, response.json()["status"]) == (200, "degraded")
        assert [name for name, store in response.json()["stores"].items() if not store["up"]] == [out]
        assert response.json()["stores"][out]["error"]

    def test_with_both_stores_down_health_is_unavailable_and_503(self, redis_out: None, mongo_out: None) -> None:
        pings.look()
        for path in ("/healthz", "/readyz"):
            response = probe(path)
            assert (response.status_code, response.json()["status"]) == (503, "unavailable")

    def test_a_probe_that_finds_no_store_logs_no_error(self, redis_out: None, mongo_out: None, log: Lines) -> None:
        """The log has when a store was lost; a line for each probe would hide that. Metrics count the answers."""
        pings.look()
        for path in ("/healthz", "/readyz"):
            assert probe(path).status_code == 503
        assert "http_error" not in [line["event"] for line in log.events()]

    def test_health_is_from_the_last_ping_and_readiness_pings_now(self, redis_out: None) -> None:
        """A health check that calls the stores would be as slow as a store that is down."""
        assert probe("/readyz").json()["status"] == "degraded"
        environment.REDIS.start()
        assert probe("/healthz").json()["status"] == "degraded"
        assert probe("/readyz").json()["status"] == probe("/healthz").json()["status"] == "ok"

    def test_a_frozen_store_does_not_delay_health(self) -> None:
        pings.look()
        environment.REDIS.freeze()
        try:
            begun = time.monotonic()
            assert probe("/healthz").status_code == 200
            assert time.monotonic() - begun < 0.5
        finally:
            environment.REDIS.thaw()

    def test_health_has_no_address_or_password(self, redis_out: None, mongo_out: None) -> None:
        pings.look()
        text = probe("/healthz").content.decode()
        assert not [secret for secret in (str(environment.REDIS.port), "127.0.0.1", "redis://") if secret in text]


class TestMetrics:
    def test_the_first_scrape_of_a_new_process_has_every_series_of_the_runbook(self) -> None:
        """An alert cannot distinguish "none yet" from "not scraped"."""
        code = """
import onesource.wsgi
from conversations.background import watcher
from django.test import Client
watcher.start(repairs=False)
print(Client(SERVER_NAME="localhost").get("/metrics").text)
"""
        page = subprocess.run(
            [sys.executable, "-c", code], cwd=ours.BASE_DIR, capture_output=True, text=True, check=True
        ).stdout
        series = {line.rpartition(" ")[0] for line in page.splitlines() if line and not line.startswith("#")}
        assert series >= RUNBOOK_SERIES
        assert "redis_up 1.0" in page.splitlines()

    def test_redis_up_follows_the_watcher(self, redis_out: None) -> None:
        pings.look()
        assert (sample("redis_up"), sample("mongo_up")) == (0, 1)
        environment.REDIS.start()
        pings.look()
        assert sample("redis_up") == 1
        assert sample("redis_latency_p95_ms") > 0

    def test_a_turn_that_a_store_did_not_take_is_counted(self, loses_the_stores: None) -> None:
        gauges.start()
        before = {store: sample("history_persist_errors_total", store=store) for store in ("redis", "mongo")}
        lost = sample("history_not_persisted_total")
        assert post({"question": "What is Redis?", "session_id": a_session()}).status_code == 503
        after = {store: sample("history_persist_errors_total", store=store) for store in ("redis", "mongo")}
        assert after == {store: count + 1 for store, count in before.items()}
        assert sample("history_not_persisted_total") == lost + 1

    def test_msg_count_before_counts_every_turn(self) -> None:
        session = a_session()
        before = {name: sample(f"msg_count_before_{name}") for name in ("count", "sum")}
        for _ in range(3):
            ask("And?", session)
        assert sample("msg_count_before_count") == before["count"] + 3
        assert sample("msg_count_before_sum") == before["sum"] + 0 + 2 + 4

    def test_missing_context_is_counted(self) -> None:
        before = [sample("context_expected_total"), sample("context_missing_total")]
        session = a_session()
        given = ask("What is Redis?", session)["message_id"]
        ask("And?", session, last_message_id=given)
        ask("And?", a_session(), last_message_id=given)
        assert [sample("context_expected_total"), sample("context_missing_total")] == [before[0] + 2, before[1] + 1]

    def test_no_series_names_a_session(self) -> None:
        session = a_session()
        ask(WORDS, session)
        get(f"conversations/{session}/")
        page = probe("/metrics").content.decode()
        assert session not in page
        assert WORDS not in page


class TestLogs:
    def test_every_turn_logs_msg_count_before(self, log: Lines) -> None:
        """The runbook's grep for it."""
        session = a_session()
        for _ in range(2):
            ask(WORDS, session)
        turns = [line for line in log.events() if line["event"] == "msg_count_before"]
        assert [line["msg_count_before"] for line in turns] == [0, 2]
        assert {line["session"] for line in turns} == {hashed(session)}
        assert {"at", "level", "logger", "store", "context"} <= set(turns[0])

    def test_a_store_that_is_down_is_logged_by_name(self, log: Lines, redis_out: None) -> None:
        """The runbook's grep for redis_error."""
        ask(WORDS, a_session())
        assert [line["error"] for line in log.events() if line["event"] == "redis_error"]

    def test_a_turn_that_a_store_did_not_take_is_logged(self, log: Lines, loses_the_stores: None) -> None:
        """The runbook's grep for persist_error."""
        assert post({"question": WORDS, "session_id": a_session()}).status_code == 503
        assert {line["store"] for line in log.events() if line["event"] == "persist_error"} == {"redis", "mongo"}

    def test_no_line_has_a_session_or_words_of_a_conversation(self, log: Lines, settings: Settings) -> None:
        session = a_session()
        ask(WORDS, session, headers={"Idempotency_Key": "k-1"})
        post({"question": f"{WORDS}, others", "session_id": session}, Idempotency_Key="k-1")
        post({"question": WORDS, "session_id": session, WORDS: 1})
        get(f"conversations/{session}/")
        get(f"conversations/{session}/export/nothing")
        delete(f"conversations/{session}/")
        delete(f"conversations/{session}/")
        settings.ANSWERER = f"{__name__}.Fails"
        answerer.cache_clear()
        post({"question": WORDS, "session_id": session})
        answerer.cache_clear()
        assert "answerer_error" in {line["event"] for line in log.events()}
        assert not [line for line in log.lines if session in line]
        assert not [line for line in log.lines if WORDS in line]

    def test_no_line_has_them_while_a_value_is_corrupt_or_a_store_is_down(self, log: Lines, redis_out: None) -> None:
        session = a_session()
        ask(WORDS, session)
        environment.REDIS.start()
        with environment.REDIS.client() as client:
            client.set(f"conv:{session}", WORDS)
        get(f"conversations/{session}/")
        ask(WORDS, session)
        assert "corrupt_history" in {line["event"] for line in log.events()}
        assert not [line for line in log.lines if session in line]
        assert not [line for line in log.lines if WORDS in line]

    def test_each_session_has_its_own_stable_hash(self, settings: Settings) -> None:
        one, other = a_session(), a_session()
        first = hashed(one)
        assert first == hashed(one) != hashed(other)
        settings.SECRET_KEY = "another"
        assert hashed(one) != first


def test_the_log_is_written_as_tested_here() -> None:
    assert ours.LOGGING["handlers"]["stderr"]["formatter"] == "json"
    assert ours.LOGGING["formatters"]["json"]["()"] == f"{JsonFormatter.__module__}.{JsonFormatter.__name__}"
