"""README.md's ```bash blocks, typed into a new checkout, whose script/server finds everything installed.

tests/client runs the block of Python.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands.test_serve import PATIENCE, answers
from tests.deploy.files import ROOT
from tests.runbook.document import Command, commands
from tests.runbook.shell import Shell, need
from tests.servers import eventually, free_port

TEXT = (ROOT / "README.md").read_text()
BLOCKS = [block.splitlines() for block in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)]
SCRIPTS, *TYPED = [commands(lines, 0, len(lines)) for lines in BLOCKS]
PYTHON = """#!/bin/sh
case "$*" in *"-m pip "*) exit 0 ;; esac
exec {python} "$@"
"""


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with script/, and with ports that curl and redis-cli take for the usual ones."""
    need("curl", "jq", "redis-cli")
    shutil.copytree(ROOT / "script", tmp_path / "script")
    pins = [path.name for path in ROOT.glob("requirements*")]
    for name in ("manage.py", *pins):
        (tmp_path / name).symlink_to(ROOT / name)
    executable(tmp_path / ".venv" / "bin" / "python", PYTHON.format(python=sys.executable))
    (tmp_path / "var").mkdir()
    for name in ("redis", "mongo"):
        (tmp_path / "var" / f"{name}.port").write_text(str(free_port()))
    redis_port = (tmp_path / "var" / "redis.port").read_text()
    executable(tmp_path / "bin" / "redis-cli", f'#!/bin/sh\nexec {shutil.which("redis-cli")} -p {redis_port} "$@"\n')
    return tmp_path


@pytest.fixture
def shell(checkout: Path) -> Iterator[Shell]:
    """A bash beside the server that script/server has started."""
    port = free_port()
    known = {"PATH": f"{checkout / 'bin'}:{os.environ['PATH']}", "HOME": str(checkout)}
    serving = {"PORT": str(port), "MANAGEMENT_PORT": str(free_port()), "WEB_CONCURRENCY": "1"}
    serving |= {"VAR_DIR": str(checkout / "var")}  # which is beside manage.py, and that is a link here
    (checkout / ".curlrc").write_text(f'silent\nshow-error\nconnect-to = "localhost:8001:127.0.0.1:{port}"\n')
    started, _ = SCRIPTS
    with (checkout / "log").open("wb") as log:
        server = subprocess.Popen(["sh", "-c", f"exec {started.text}"], cwd=checkout, env=known | serving, stderr=log,
                                  stdout=log)  # fmt: skip
    bash = Shell(checkout, known)
    try:
        eventually(lambda: answers(port), f"it does not serve: see {checkout / 'log'}", PATIENCE)
        yield bash
    finally:
        bash.close()
        server.terminate()
        server.wait(PATIENCE)


def problem(command: Command, code: int, output: str) -> str:
    """Return what is wrong with how the command ended."""
    if code:
        return f"{command.text}\nends with {code}:\n{output}"
    return command.differs(output) if command.expected else ""


def test_the_first_block_has_the_two_scripts() -> None:
    names = [command.text.split()[0] for command in SCRIPTS]
    assert names == ["script/server", "script/test"]
    assert all(os.access(ROOT / name, os.X_OK) for name in names)


def test_every_command_runs_beside_script_server(shell: Shell) -> None:
    typed = [command for block in TYPED for command in block]
    ended = [(command, *shell.run(command)) for command in typed]
    assert [found for command, *how in ended if (found := problem(command, *how))] == []
    assert "Test conversation memory" in ended[-1][-1]
