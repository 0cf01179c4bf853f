"""The request id: the client's or a new one, in the response, in each log line and in each error."""

import re
from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings

from telemetry.request_id import chosen
from tests.api.talking import ASK, Lines, get, let, post
from tests.api.test_errors import WithAFault
from tests.api.test_stream import Breaks, FailsHalfWay, events, stream
from tests.builders import a_session

MADE = re.compile(r"[0-9a-f]{32}")


def ids(log: Lines, *names: str) -> set[Any]:
    """Return the ids of the lines with these events, each of which was written."""
    lines = log.events()
    assert {line["event"] for line in lines} >= set(names)
    return {line.get("request") for line in lines if line["event"] in names}


@pytest.mark.parametrize("given", ["a", "A-z_0.9", "x" * 64, "019ab0f4-6a3c-7d21-9b1e-3f5a7c9d1e21"])
def test_an_id_of_the_client_is_taken(given: str) -> None:
    assert chosen(given) == given
    assert post({"question": "What?"}, X_Request_ID=given)["X-Request-ID"] == given


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a\n", "a,b", "é", "٣", "a/b", '"', "what is redis?"])
def test_anything_else_is_replaced(given: str) -> None:
    assert MADE.fullmatch(chosen(given))
    assert MADE.fullmatch(post({"question": "What?"}, X_Request_ID=given)["X-Request-ID"])


def test_each_request_without_one_gets_another() -> None:
    assert len({get("conversations/")["X-Request-ID"] for _ in range(3)}) == 3


def test_each_log_line_of_a_request_has_its_id(log: Lines, redis_out: None) -> None:
    for given in ("r-1", "r-2"):
        log.lines.clear()
        assert post({"question": "What?"}, X_Request_ID=given).status_code == 200
        assert ids(log, "redis_error", "persist_error", "msg_count_before") == {given}


@let(FailsHalfWay)
def test_the_thread_of_a_streamed_answer_logs_with_the_id(answered_by: None, log: Lines) -> None:
    assert events(stream(a_session(), X_Request_ID="r-1"))
    assert ids(log, "msg_count_before", "answerer_error") == {"r-1"}


@let(Breaks)
def test_an_unexpected_error_of_that_thread_too(answered_by: None, log: Lines) -> None:
    *_, (_, error) = events(stream(a_session(), X_Request_ID="r-1"))
    assert error["request_id"] == "r-1"
    assert ids(log, "stream_failed") == {"r-1"}


def test_a_line_about_an_error_response_has_the_id(log: Lines) -> None:
    Client().generic("POST", ASK, b"", content_type="application/json", headers={"X-Request-ID": "r-1"})
    assert ids(log, "http_error") == {"r-1"}


def test_an_error_of_the_server_has_the_id(settings: Settings, log: Lines) -> None:
    settings.ROOT_URLCONF = WithAFault
    response = Client(raise_request_exception=False).get("/fails", headers={"X-Request-ID": "r-1"})
    assert (response.status_code, response.json()["request_id"]) == (500, "r-1")
    assert ids(log, "http_error") == {"r-1"}


def test_pings_for_a_probe_log_with_its_id(log: Lines, redis_out: None) -> None:
    Client().get("/readyz", headers={"X-Request-ID": "r-1"})
    assert {line.get("request") for line in log.events()} <= {"r-1"}


@pytest.mark.parametrize(("method", "path"), [("POST", "/livez"), ("GET", "/nothing"), ("PUT", ASK)])
def test_an_error_of_any_address_has_the_id(method: str, path: str) -> None:
    response = Client().generic(method, path, headers={"X-Request-ID": "r-1"})
    assert (response.json()["request_id"], response["X-Request-ID"]) == ("r-1", "r-1")
