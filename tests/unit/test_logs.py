"""The exact form of a log line."""

import logging
import sys
from pathlib import Path

import pytest
from django.utils.crypto import salted_hmac
from pytest_django import Settings

from telemetry.logs import JsonFormatter, event, hashed

LOGGER = logging.getLogger("conversations.chat")


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the lines that are written, each at the beginning of 2026."""
    found: list[str] = []

    def emit(record: logging.LogRecord) -> bool:
        record.created = 1767225600.25
        found.append(JsonFormatter().format(record))
        return False

    monkeypatch.setattr(LOGGER, "filters", [emit])
    return found


def test_an_event_has_its_fields_in_order(lines: list[str]) -> None:
    event(LOGGER, logging.INFO, "msg_count_before", msg_count_before=2, session="a1", store="redis", context="full")
    assert lines == [
        '{"level":"INFO","logger":"conversations.chat","event":"msg_count_before","msg_count_before":2,'
        '"session":"a1","store":"redis","context":"full","at":"2026-01-01T00:00:00.250000+00:00"}'
    ]


def test_an_event_below_the_level_is_not_written(lines: list[str]) -> None:
    event(LOGGER, logging.DEBUG, "nothing")
    assert lines == []


def test_other_records_are_written_in_the_same_form(lines: list[str]) -> None:
    LOGGER.warning("%s of %s", 1, "two", extra={"where": Path("/a"), "text": "\x9b \u202e \n", "_hidden": 1})
    assert lines == [
        '{"level":"WARNING","logger":"conversations.chat","event":"1 of two","where":"/a",'
        r'"text":"\u009b \u202e \n","at":"2026-01-01T00:00:00.250000+00:00"}'
    ]


def test_an_exception_is_written_without_its_message(lines: list[str]) -> None:
    try:
        raise ValueError("words of a conversation")
    except ValueError:
        LOGGER.exception("failed")
        number = sys.exc_info()[2].tb_lineno  # type: ignore[union-attr]
    where = f"{__file__}:{number} test_an_exception_is_written_without_its_message"
    assert f'"event":"failed","exc_info":"{where}\\nValueError","at":' in lines[0]
    assert "words" not in lines[0]


def test_a_session_has_the_hash_that_it_always_had(settings: Settings) -> None:
    """Lines of before an update are found by it."""
    for secret in ("one", "another"):
        settings.SECRET_KEY = secret
        assert hashed("tenant:é") == salted_hmac("onesource.logs", "tenant:é", algorithm="sha256").hexdigest()[:16]
