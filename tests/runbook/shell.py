"""A bash that the commands of the document are typed into, one after another, as a person types them."""

import os
import shlex
import shutil
import signal
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest

from tests.runbook.document import Command

PATIENCE = 120  # seconds a command may take


def need(*tools: str) -> None:
    """Skip the test on a laptop, and fail it in CI, where a tool that the commands use is not installed."""
    if missing := [tool for tool in tools if not shutil.which(tool)]:
        problem = f"{missing[0]} is not installed: apt-get install curl jq postgresql redis-server"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(problem)


class Shell:
    """One bash: a variable that a command sets is there for the next one."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self._end = f"end-{uuid4().hex}"
        self._bash = subprocess.Popen(
            ["bash", "--norc", "--noprofile"], cwd=folder, env=environment, text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, command: Command) -> tuple[int, str]:
        """Return its exit code, a pipeline's last, and all it has printed."""
        script = self._folder / "command.sh"
        script.write_text(f"{_typing(command)}\n")
        assert self._bash.stdin and self._bash.stdout
        self._bash.stdin.write(f". {shlex.quote(str(script))} </dev/null; printf '\\n%s %d\\n' {self._end} $?\n")
        self._bash.stdin.flush()
        lines: list[str] = []
        giving_up = threading.Timer(PATIENCE, self._kill)
        giving_up.start()
        try:
            while not (line := self._bash.stdout.readline()).startswith(self._end):
                assert line, f"bash ended, or waited for {PATIENCE} s, at line {command.line}: {command.text}"
                lines.append(line)
        finally:
            giving_up.cancel()
        return int(line.split()[1]), "".join(lines)

    def close(self) -> None:
        """End bash and whatever it has left running."""
        self._kill()
        self._bash.communicate()

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._bash.pid, signal.SIGKILL)


def _typing(command: Command) -> str:
    """Return what has bash run the command; what is typed into a redis-cli is answered as on a terminal."""
    if not command.typed:
        return command.text
    assert command.text.startswith("redis-cli "), "only redis-cli is typed into"
    return f"{command.text} --no-raw <<'typed'\n{command.typed}\ntyped"
