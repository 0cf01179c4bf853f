"""The exact form of a log line."""

import logging
import re
import sys
from contextvars import copy_context
from pathlib import Path

import pytest
from pytest_django import Settings

from telemetry import request_id
from telemetry.logs import JsonFormatter, OfRequest, TextFormatter, event, hashed, held_back

LOGGER = logging.getLogger("conversations.chat")


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the lines that are written, each at the beginning of 2026, outside of a request."""
    found: list[str] = []
    request_id._current.set("")  # Django's test client leaves that of its last request

    def emit(record: logging.LogRecord) -> bool:
        record.created = 1767225600.25
        OfRequest().filter(record)
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


def test_a_line_of_a_request_has_its_id(lines: list[str]) -> None:
    def handled() -> None:
        request_id.begin("r-1")
        event(LOGGER, logging.INFO, "persist_error", store="redis")

    copy_context().run(handled)
    event(LOGGER, logging.INFO, "swept")
    assert lines == [
        '{"level":"INFO","logger":"conversations.chat","event":"persist_error","store":"redis","request":"r-1",'
        '"at":"2026-01-01T00:00:00.250000+00:00"}',
        '{"level":"INFO","logger":"conversations.chat","event":"swept","at":"2026-01-01T00:00:00.250000+00:00"}',
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


def test_the_hash_of_a_session_is_keyed(settings: Settings) -> None:
    found = set()
    for settings.SECRET_KEY in ("one", "another"):
        for session in ("tenant:é", "tenant:e"):
            found.add(hashed(session))
            assert hashed(session) == hashed(session)
    assert len(found) == 4
    assert all(re.fullmatch("[0-9a-f]{16}", one) for one in found)


def test_a_line_for_people_has_the_same_fields_and_no_message_of_an_exception() -> None:
    record = LOGGER.makeRecord(
        LOGGER.name, logging.WARNING, "", 0, "store_died", (), None, extra={"store": "\x9bredis"}
    )
    text = TextFormatter().format(record)
    assert text[8:] == r" WARNING store_died store=\u009bredis"
    try:
        raise ValueError("words of a conversation")
    except ValueError:
        record.exc_info = sys.exc_info()
    lines = TextFormatter().format(record).splitlines()
    assert (lines[0], lines[-1]) == (text, "ValueError")
    assert "words" not in "".join(lines)


def test_what_is_logged_during_a_prompt_is_written_after_it(capfd: pytest.CaptureFixture[str]) -> None:
    handler = logging.StreamHandler(sys.stderr)
    logging.getLogger().addHandler(handler)
    try:
        with held_back():
            logging.getLogger("a test").warning("meanwhile")
            assert "meanwhile" not in capfd.readouterr().err
        assert "meanwhile" in capfd.readouterr().err
    finally:
        logging.getLogger().removeHandler(handler)
