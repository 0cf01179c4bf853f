"""What the tests of operators' commands share: calling one, and conversations in one store or the other."""

import io
import json
import os
import pty
import subprocess
import sys
from typing import Any

from django.conf import settings
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
    """Return the exit code and the report."""
    out = io.StringIO()
    try:
        call_command(*words, "--json", stdout=out)
    except CommandError as error:
        return error.returncode, json.loads(out.getvalue() or "null")
    return 0, json.loads(out.getvalue())


def run_on_a_terminal(*words: str, asked: str = "", typed: str = "", **variables: str) -> str:
    """Return all that a process of its own writes to its terminal, its own colours apart. When it has asked that, this
    is typed."""
    ours, its = pty.openpty()
    environment = {**os.environ, "DJANGO_COLORS": "nocolor", "TERM": "dumb", "COLUMNS": "200", **variables}
    command = [sys.executable, "manage.py", *words]
    with subprocess.Popen(command, cwd=settings.BASE_DIR, env=environment, stdin=its, stdout=its, stderr=its):
        os.close(its)
        written = b""
        while part := read(ours):
            written += part
            if asked and asked.encode() in written:
                os.write(ours, f"{typed}\n".encode())
                asked = ""
    os.close(ours)
    return written.decode()


def read(terminal: int) -> bytes:
    """Return what comes next; nothing once the other side is closed, which Linux reports as an error."""
    try:
        return os.read(terminal, 65_536)
    except OSError:
        return b""


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
