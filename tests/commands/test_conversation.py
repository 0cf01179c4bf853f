"""`conversation`: one transcript shown, exported, deleted."""

import io
import json
import re
import time
from pathlib import Path

import pytest

from conversations.ids import MESSAGE_ID, time_of
from conversations.stores import MONGO, REDIS, store
from ops.models import AuditEntry
from tests.builders import a_session, a_turn, some_turns
from tests.commands.working import hold, run, run_json, run_on_a_terminal, turns_in

pytestmark = pytest.mark.usefixtures("both_empty")


def test_show_prints_the_transcript_and_which_store_holds_what() -> None:
    turns = some_turns(2)
    session = hold(REDIS, turns=turns)
    hold(MONGO, session=session, turns=turns[:1])
    code, output = run("conversation", "show", session)
    assert code == 0
    lines = output.splitlines()
    assert lines[:3] == [
        f"conversation {session}, 4 messages",
        "  redis 4 messages, expires in 30.0 days",
        "  mongo 2 messages, expires in 30.0 days",
    ]
    assert lines[4:6] == [f"user  {turns[0].question.at}  {turns[0].id}", "question 0"]


def test_show_changes_nothing() -> None:
    session = hold(MONGO)
    assert run("conversation", "show", session)[0] == 0
    assert turns_in(REDIS, session) == ()


ACTING = "\x1b[2J\x1b]0;title\x07 \x7f\x9b2J\u202egone\r"
ESCAPED = r"\u001b[2J\u001b]0;title\u0007 \u007f\u009b2J\u202egone\r"


@pytest.mark.parametrize(
    "words", [("show",), ("show", "--json"), ("export",), ("export", "--as", "markdown")], ids=" ".join
)
def test_a_transcript_cannot_control_the_terminal(words: tuple[str, ...]) -> None:
    session = hold(REDIS, turns=(a_turn(ACTING),))
    written = run_on_a_terminal("conversation", words[0], session, *words[1:])
    assert ESCAPED in written
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202e]", written)


def test_show_escapes_control_characters_also_in_a_pipe() -> None:
    session = hold(REDIS, turns=(a_turn(ACTING),))
    assert ESCAPED in run("conversation", "show", session)[1]


def test_an_export_to_a_file_or_a_pipe_is_unchanged() -> None:
    session = hold(REDIS, turns=(a_turn(ACTING),))
    assert ACTING in run("conversation", "export", session, "--as", "markdown")[1]
    assert json.loads(run("conversation", "export", session)[1])["messages"][0]["content"] == ACTING


def test_neither_an_error_nor_a_log_line_controls_the_terminal(tmp_path: Path) -> None:
    file = tmp_path / "\x1b[2J\x9b\u202e.zip"
    file.write_bytes(b"no backup")
    written = run_on_a_terminal("restore", str(file), "--into", "redis", "--reason", "\x9b2J")
    assert r"CommandError: " in written and r"\u001b[2J\u009b\u202e.zip: This file cannot be restored" in written
    assert r"reason=\u009b2J " in written
    assert not re.search("[\x1b\x9b\u202e]", written)


def test_export_is_json_or_markdown() -> None:
    turns = some_turns(1)
    session = hold(REDIS, turns=turns)
    report = json.loads(run("conversation", "export", session)[1])
    assert report["messages"] == [message.as_dict() for message in turns[0].messages()]
    assert run("conversation", "export", session, "--as", "markdown")[1].startswith(f"# {session}\n\n## Question\n")


def test_delete_removes_it_from_both_stores_and_is_audited_without_its_name() -> None:
    session = hold(REDIS, MONGO)
    code, output = run("conversation", "delete", session, "--noinput", "--reason", "asked for")
    assert (code, output) == (0, "deleted from redis and mongo\n")
    assert turns_in(REDIS, session) == turns_in(MONGO, session) == ()
    tombstone = store(MONGO).inspect(session).tombstone
    assert tombstone and MESSAGE_ID.fullmatch(tombstone)
    entry = AuditEntry.objects.order_by("id").last()
    assert entry is not None
    assert (entry.action, entry.reason, entry.outcome) == ("conversation", "asked for", "done")
    assert session not in str([entry.before, entry.after])


@pytest.mark.parametrize(("typed", "code"), [("", 2), ("yes", 2), ("its name", 0)])
def test_delete_asks_for_the_name(typed: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    session = hold(REDIS)
    monkeypatch.setattr("sys.stdin", io.StringIO(typed.replace("its name", session) + "\n"))
    assert run("conversation", "delete", session)[0] == code
    assert bool(turns_in(REDIS, session)) == (code == 2)


@pytest.mark.parametrize("action", ["show", "export", "delete"])
def test_an_unknown_one_is_trouble(action: str) -> None:
    assert run("conversation", action, a_session(), "--noinput") == (1, "No such conversation\n")


def test_a_deleted_one_is_shown_as_deleted() -> None:
    turns = some_turns(1)
    session = hold(REDIS, turns=turns)
    store(REDIS).delete(session, turns[0].answer.id)
    code, report = run_json("conversation", "show", session)
    assert (code, report["messages"], report["stores"]["redis"]["tombstone"]) == (0, [], turns[0].answer.id)


def test_an_invalid_name_is_refused() -> None:
    assert run("conversation", "show", "no session")[0] == 2


@pytest.mark.usefixtures("redis_out")
def test_a_machine_whose_clock_is_ahead_deletes_nothing_that_comes_later(monkeypatch: pytest.MonkeyPatch) -> None:
    session, right = hold(MONGO), time.time
    monkeypatch.setattr(time, "time", lambda: right() + 120)
    assert run("conversation", "delete", session, "--noinput")[0] == 0
    tombstone = store(MONGO).inspect(session).tombstone
    assert tombstone and abs(time_of(tombstone).timestamp() - right()) < 60


@pytest.mark.usefixtures("redis_out")
def test_with_a_store_out_the_copy_in_the_other_is_shown_and_deleted() -> None:
    session = hold(MONGO)
    assert "  redis out\n" in run("conversation", "show", session)[1]
    code, output = run("conversation", "delete", session, "--noinput")
    assert (code, output) == (0, "deleted from mongo; redis is out, and deletes it when it is back\n")
    assert run("conversation", "show", a_session()) == (1, "No such conversation (redis is out)\n")
