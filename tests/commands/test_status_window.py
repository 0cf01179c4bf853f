"""The figures of `status` are of the last ten minutes: a fault that is over does not stay in them."""

import time
from typing import Any

import orjson
import pytest
from django.test import Client

from conversations.background import watcher
from conversations.breaker import CLOSED
from conversations.runtime.state import state
from conversations.stores import REDIS
from ops.status import collect, window
from tests.builders import a_session
from tests.commands.test_status import row
from tests.commands.working import run
from tests.servers import RedisServer, eventually

pytestmark = pytest.mark.usefixtures("both_empty")

ERRORS = ("history_persist_errors_total", REDIS, "")
ATTEMPTS = ("history_persist_attempts_total", REDIS, "")


def ask(client: Client) -> None:
    words = {"question": "Are you there?", "session_id": a_session()}
    answer = client.post("/api/chat/ask", words, content_type="application/json")
    assert answer.status_code == 200


def is_used_again() -> bool:
    """Return whether Redis answers, and its breakers know that."""
    up = watcher.look(eager=True)[REDIS].up
    one = state().stores[REDIS]
    return up and one.reads.state == one.writes.state == CLOSED


def test_a_fault_is_shown_while_it_lasts_and_no_longer_than_the_window(
    server: str, client: Client, redis_server: RedisServer
) -> None:
    ask(client)
    window.sample()
    redis_server.kill()
    try:
        ask(client)
        watcher.look()
        during = collect.look()
        assert {"redis is out", "persist errors is"} <= {" ".join(one.split()[:3]) for one in during.wrong}
    finally:
        redis_server.start()
    eventually(is_used_again, "Redis is not used again")
    ask(client)
    assert "persist errors is" in collect.look().trouble, "the fault is in the window"
    window.sample()
    counts = window.read()[-1][1]
    keep((window.SECONDS + 10, {}), (window.SECONDS - 10, counts))
    ask(client)
    _, output = run("status")  # its exit code may be of slow pings: all servers have just begun
    assert row(output, "persist errors") == ["persist errors", "0.000%", "< 0.1 %", "ok"]
    assert "persist errors" not in collect.look().trouble
    lately, start = next(
        (one.last_10_min, one.since_start) for one in collect.look().counted if one.name == "persist errors"
    )
    assert (lately, bool(start)) == (0.0, True)


def test_both_times_are_shown(server: str, client: Client) -> None:
    window.sample()
    ask(client)
    _, output = run("status")
    assert row(output, "counted") == ["counted", "last 10 min", "since start"]
    assert row(output, "P95 of calls")[1].endswith(" ms")
    assert "not known" not in row(output, "P95 of calls")


def test_without_samples_the_figures_are_since_the_start(server: str) -> None:
    found = collect.look()
    assert all(one.last_10_min is None for one in found.counted)
    assert [one.ok for one in found.figures if one.name == "persist errors"] != [None]


def keep(*samples: tuple[float, dict[tuple[str, str, str], float]]) -> None:
    """Leave these samples, each so many seconds old."""
    file = window._file()
    file.parent.mkdir(parents=True, exist_ok=True)
    now = time.monotonic()
    file.write_bytes(
        orjson.dumps([(now - age, [[*key, value] for key, value in counts.items()]) for age, counts in samples])
    )


@pytest.mark.parametrize(
    ("samples", "errors"),
    [
        ([(601.0, {ERRORS: 1.0}), (590.0, {ERRORS: 2.0}), (10.0, {ERRORS: 5.0})], 3.0),
        ([(590.0, {ERRORS: 9.0}), (10.0, {ERRORS: 1.0})], 4.0),
        ([(590.0, {ERRORS: 9.0})], 5.0),
        ([(590.0, {})], 5.0),
        ([(-60.0, {ERRORS: 1.0})], None),
        ([(601.0, {ERRORS: 1.0})], None),
    ],
    ids=["the oldest of the window", "restarted since", "restarted after the last", "none before", "of another boot",
         "too old"],
)  # fmt: skip
def test_growth(samples: Any, errors: float | None) -> None:
    keep(*samples)
    found = window.growth({ERRORS: 5.0})
    assert (found and found[ERRORS]) == errors


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b'[[1, [["name"]]]]', b"\xff"])
def test_a_file_that_is_not_ours_is_none(data: bytes) -> None:
    keep()
    window._file().write_bytes(data)
    assert window.growth({ERRORS: 5.0}) is None
    window.sample()
    assert window.growth({ERRORS: 5.0}) is not None


@pytest.mark.parametrize(
    ("numbers", "ms"),
    [
        ({"0.001": 0.0, "0.01": 100.0, "+Inf": 100.0}, 9.55),
        ({"0.001": 95.0, "0.01": 100.0, "+Inf": 100.0}, 1.0),
        ({"0.001": 90.0, "+Inf": 100.0}, None),
        ({"0.001": 0.0, "+Inf": 0.0}, None),
        ({}, None),
    ],
)
def test_the_percentile_of_buckets(numbers: dict[str, float], ms: float | None) -> None:
    assert window.p95_ms({(window.CALLS, REDIS, le): value for le, value in numbers.items()}) == (
        None if ms is None else pytest.approx(ms)
    )
