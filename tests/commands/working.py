"""What the tests of operators' commands share: calling one, and conversations in one store or the other."""

import io
import json
from typing import Any

from django.core.management import CommandError, call_command

from conversations.stores import store
from conversations.turns import History, Turn
from tests.builders import a_session, some_turns


def run(*words: str) -> tuple[int, str]:
    """Return the exit code and what was printed; with trouble, its line last."""
    out = io.StringIO()
    try:
        call_command(*words, stdout=out)
    except CommandError as error:
        return error.returncode, f"{out.getvalue()}{error}\n"
    return 0, out.getvalue()


def run_json(*words: str) -> tuple[int, Any]:
    """Return the exit code and the facts."""
    out = io.StringIO()
    try:
        call_command(*words, "--json", stdout=out)
    except CommandError as error:
        return error.returncode, json.loads(out.getvalue() or "null")
    return 0, json.loads(out.getvalue())


def hold(*aliases: str, session: str = "", turns: tuple[Turn, ...] = ()) -> str:
    """Give the stores a conversation; return its session."""
    session = session or a_session()
    turns = turns or some_turns(3)
    for alias in aliases:
        store(alias).append(session, None, turns)
    return session


def turns_in(alias: str, session: str) -> tuple[Turn, ...]:
    """Return what the store has of it."""
    return (store(alias).load(session) or History()).turns()
