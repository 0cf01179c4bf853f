"""`script/bootstrap` and `script/server` in a checkout of their own, whose Python only pretends to install or serve."""

import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.commands.working import read
from tests.deploy.files import ROOT

PYTHON = """#!/usr/bin/env bash
case "$*" in
    *fcntl*) exec @python@ "$@" ;;
    *"pip install"*)
        echo "$*" >>installations
        [ ! -p held ] || read -r <held || true
        [ ! -e refused ] || { echo "ERROR: no such version" >&2; exit 1; }
        case "$*" in *"--target .venv-djongo"*) mkdir .venv-djongo ;; esac
        case "$*" in *--quiet*) exit ;; esac
        for name in one two; do echo "Collecting $name==1.0 (from -r requirements.txt (line 1))"; done
        echo "Installing collected packages: two, one"
        for name in two one; do
            until [ -e "may-unpack-$name" ]; do sleep 0.05; done
            mkdir ".venv/lib/python3/site-packages/$name-1.0.dist-info"
        done ;;
    -VV) [ ! -e .venv/version ] || cat .venv/version ;;
    *serve*) echo "PORT=$PORT MANAGEMENT_PORT=$MANAGEMENT_PORT" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "script", tmp_path / "script")
    (tmp_path / "requirements.txt").write_text("one==1.0\ntwo==1.0\n")
    (tmp_path / "requirements-models.txt").write_text("three==1.0\n")
    (tmp_path / "requirements-traces.txt").write_text("four==1.0\n")
    for name in ("requirements", "requirements-models", "requirements-traces"):
        (tmp_path / f"{name}.lock").write_text("one==1.0 --hash=sha256:1\n")
    (tmp_path / ".venv" / "lib" / "python3" / "site-packages").mkdir(parents=True)
    executable(tmp_path / ".venv" / "bin" / "python", PYTHON.replace("@python@", sys.executable))
    return tmp_path


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def run(checkout: Path, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [str(checkout / "script" / words[0]), *words[1:]]
    known = {"PATH": os.environ["PATH"], **environment}
    return subprocess.run(command, env=known, capture_output=True, text=True, check=False)


def test_a_terminal_shows_what_is_installed_and_how_far_it_is(checkout: Path) -> None:
    ours, its = pty.openpty()
    environment = {"PATH": os.environ["PATH"], "TERM": "xterm"}
    shown = b""
    with subprocess.Popen([str(checkout / "script" / "bootstrap")], env=environment, stdout=its, stderr=its) as process:
        os.close(its)
        for expected, then in (
            (b"fetching 2 of 2: two==1.0", ""),
            (b"unpacking 1 of 2: two", "two"),
            (b"unpacking 2 of 2: one", "one"),
        ):
            while expected not in shown:
                shown += (piece := read(ours))
                assert piece, shown
            if then:
                (checkout / f"may-unpack-{then}").touch()
        while piece := read(ours):
            shown += piece
    os.close(ours)
    assert process.returncode == 0
    assert shown.startswith(b"Installing requirements.txt\r\n") and shown.count(b"\n") == 1
    assert shown.endswith(b"\x1b[K")


def test_a_pipe_gets_no_progress(checkout: Path) -> None:
    assert run(checkout, "bootstrap").stdout == "Installing requirements.txt\n"
    assert run(checkout, "bootstrap").stdout == ""  # all is there


@pytest.mark.parametrize(("answerer", "also"), [("openai", True), ("anthropic", True), ("recall", False), ("", False)])
def test_what_a_model_needs_is_installed_where_one_is_asked(checkout: Path, answerer: str, also: bool) -> None:
    installed = run(checkout, "bootstrap", ANSWERER=answerer).stdout.splitlines()
    assert installed == ["Installing requirements.txt", "Installing requirements-models.txt"][: 1 + also]


@pytest.mark.parametrize(
    ("option", "file"),
    [
        ("adapters", "tests/client/adapters/requirements.txt"),
        ("bench", "benchmarks/requirements.txt"),
        ("docs", "requirements-docs.txt"),
        ("audit", "requirements-audit.txt"),
    ],
)
def test_adapters_peers_and_docs_have_environments_of_their_own(checkout: Path, option: str, file: str) -> None:
    (checkout / file).parent.mkdir(parents=True, exist_ok=True)
    (checkout / file).write_text("four==1.0\n")
    (checkout / ".venv").rename(checkout / f".venv-{option}")
    installed = [run(checkout, "bootstrap", f"--{option}", ANSWERER="openai").stdout for _ in range(2)]
    assert installed == [f"Installing {file}\n", ""]


def test_djongo_has_a_folder_beside_the_environment(checkout: Path) -> None:
    """It needs an older sqlparse, which must not replace the pinned one of .venv."""
    for name in ("dev", "djongo"):
        (checkout / f"requirements-{name}.txt").write_text("four==1.0\n")
    assert "Installing requirements-djongo.txt\n" in run(checkout, "bootstrap", "--djongo").stdout
    *others, djongo = (checkout / "installations").read_text().splitlines()
    assert "--no-deps --target .venv-djongo -r requirements-djongo.txt" in djongo
    assert len(others) == 4 and not any("--target" in line or "djongo" in line for line in others)
    assert run(checkout, "bootstrap", "--djongo").stdout == run(checkout, "bootstrap", "--dev").stdout == ""


def test_hashes_are_checked(checkout: Path) -> None:
    run(checkout, "bootstrap", ANSWERER="openai")
    first, second = (checkout / "installations").read_text().splitlines()
    assert "--no-deps --require-hashes -r requirements.lock" in first
    assert "--no-deps --require-hashes -r requirements-models.lock" in second


def test_a_new_lock_is_installed(checkout: Path) -> None:
    run(checkout, "bootstrap")
    (checkout / "requirements.lock").write_text("one==1.0 --hash=sha256:2\n")
    assert run(checkout, "bootstrap").stdout == "Installing requirements.txt\n"


def test_a_failed_install_is_tried_again_the_next_time(checkout: Path) -> None:
    (checkout / "refused").touch()
    failed = run(checkout, "bootstrap")
    assert (failed.returncode, failed.stderr.splitlines()[0]) == (2, "ERROR: no such version")
    (checkout / "refused").unlink()
    assert run(checkout, "bootstrap").stdout == "Installing requirements.txt\n"


@pytest.fixture
def bare(checkout: Path) -> Path:
    """A checkout without .venv, and in bin/ what its PATH has: the tools that script/bootstrap needs, and no Python."""
    (checkout / ".venv").rename(checkout / "made")
    (checkout / "bin").mkdir()
    for tool in TOOLS:
        (checkout / "bin" / tool).symlink_to(str(shutil.which(tool)))
    return checkout


def pretend(checkout: Path, name: str, version: str = "3.11", *, problem: str = "") -> None:
    """Add a Python that makes .venv, or that has this problem when script/bootstrap looks at it."""
    answer = f"echo '{problem}' >&2; exit 1" if problem else "exit 0"
    lines = ["#!/usr/bin/env bash", 'case "$*" in', f"-c*) {answer} ;;", f"-V* | --version) echo Python {version} ;;"]
    lines += [f"*venv*) cp -R made .venv; echo Python {version} >.venv/version ;;", "esac"]
    executable(checkout / "bin" / name, "\n".join(lines))


def installed(checkout: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    return run(checkout, "bootstrap", **{"PATH": str(checkout / "bin"), **environment})


@pytest.mark.parametrize(
    ("pythons", "taken"),
    [
        ({"python3": "", "python3.11": ""}, "python3"),
        ({"python3": "Python 3.9 is older than 3.11", "python3.12": "", "python3.14": ""}, "python3.12"),
        (
            {"python3": "no venv or ensurepip in it", "python3.11": "no venv or ensurepip in it", "python3.13": ""},
            "python3.13",
        ),
    ],
)
def test_the_first_python_that_can_make_an_environment_is_taken(
    bare: Path, pythons: dict[str, str], taken: str
) -> None:
    for name, problem in pythons.items():
        pretend(bare, name, f"of {name}", problem=problem)
    assert installed(bare).stdout.splitlines()[0] == f"Making .venv with Python of {taken}"


def test_without_a_usable_python_each_is_named_with_its_problem(bare: Path) -> None:
    pretend(bare, "python3", problem="Python 3.9 is older than 3.11")
    pretend(bare, "python3.12", problem="no venv or ensurepip in it (apt-get install python3.12-venv)\nmore")
    done = installed(bare)
    first, *tried = done.stderr.splitlines()
    assert (done.returncode, first.split(":")[:2]) == (2, ["script/bootstrap", " no usable Python"])
    assert tried == [
        "  python3: Python 3.9 is older than 3.11",
        "  python3.11: not found",
        "  python3.12: no venv or ensurepip in it (apt-get install python3.12-venv)",
        "  python3.13: not found",
        "  python3.14: not found",
    ]


def test_PYTHON_names_the_one_to_take(bare: Path) -> None:
    pretend(bare, "python3")
    pretend(bare, "mine", "3.13")
    assert installed(bare, PYTHON="mine").stdout.splitlines()[0] == "Making .venv with Python 3.13"
    assert installed(bare, PYTHON="mine").stdout == installed(bare).stdout == ""  # all is there


def test_another_PYTHON_makes_the_environment_anew(bare: Path) -> None:
    pretend(bare, "python3")
    pretend(bare, "mine", "3.13")
    assert installed(bare).stdout.splitlines()[0] == "Making .venv with Python 3.11"
    assert installed(bare, PYTHON="mine").stdout.splitlines()[0] == "Making .venv with Python 3.13"


@pytest.mark.parametrize("problem", ["Python 3.9 is older than 3.11", "no venv or ensurepip in it"])
def test_a_PYTHON_that_cannot_be_used_is_refused_in_one_line(bare: Path, problem: str) -> None:
    pretend(bare, "python3")
    pretend(bare, "mine", problem=problem)
    done = installed(bare, PYTHON="mine")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"script/bootstrap: PYTHON=mine cannot be used: {problem}\n"


@pytest.mark.parametrize("missing", ["ensurepip", "venv"])
def test_a_python_without_venv_or_ensurepip_is_noticed(bare: Path, missing: str) -> None:
    """With a real Python, as Debian's without the package python3-venv."""
    executable(bare / "bin" / "python3", f'#!/usr/bin/env bash\nPYTHONPATH={bare}/broken exec {sys.executable} "$@"\n')
    (bare / "broken").mkdir()
    (bare / "broken" / f"{missing}.py").write_text("raise ModuleNotFoundError")
    done = installed(bare)
    assert done.returncode == 2
    assert "\n  python3: no venv or ensurepip in it (apt-get install python3." in done.stderr


TOOLS = ("awk", "bash", "basename", "cat", "cksum", "cp", "dirname", "env", "head", "rm")


@contextmanager
def an_installation(checkout: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """script/bootstrap in the middle of what pip does, which goes on at the end of the block."""
    os.mkfifo(checkout / "held")
    command = [checkout / "script" / "bootstrap"]
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL) as process:
        held = (checkout / "held").open("w")  # once it is read
        with held:
            (checkout / "held").unlink()
            yield process


def installations(checkout: Path) -> int:
    return len((checkout / "installations").read_text().splitlines())


@pytest.mark.parametrize("name", ["bootstrap", "server"])
@pytest.mark.parametrize("flock", ["flock", "no flock"])
def test_a_second_installation_waits_for_the_first(checkout: Path, name: str, flock: str) -> None:
    (checkout / "bin").mkdir()
    for tool in (*TOOLS, flock):
        if path := shutil.which(tool):
            (checkout / "bin" / tool).symlink_to(path)
    with ExitStack() as stack:
        with an_installation(checkout) as first:
            command = [checkout / "script" / name]
            second = subprocess.Popen(command, env={"PATH": str(checkout / "bin")}, stdout=subprocess.PIPE, text=True)
            stack.enter_context(second)
            assert second.stdout
            assert second.stdout.readline() == "Another installation is running; waiting for it\n"
        assert "Installing" not in second.stdout.read()
    assert (first.returncode, second.returncode) == (0, 0)
    assert installations(checkout) == 1


def test_an_installation_that_was_killed_holds_up_nobody(checkout: Path) -> None:
    with an_installation(checkout) as first:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        assert run(checkout, "bootstrap").stdout == "Installing requirements.txt\n"


def test_installations_into_two_environments_run_side_by_side(checkout: Path) -> None:
    (checkout / "requirements-docs.txt").write_text("four==1.0\n")
    shutil.copytree(checkout / ".venv", checkout / ".venv-docs")
    with an_installation(checkout):
        assert run(checkout, "bootstrap", "--docs").stdout == "Installing requirements-docs.txt\n"


def test_an_interrupted_installation_is_not_taken_for_a_finished_one(checkout: Path) -> None:
    """Where the files are as they were before it, what it left in .venv may not be."""
    run(checkout, "bootstrap")
    before = (checkout / "requirements.txt").read_text()
    (checkout / "requirements.txt").write_text(before + "# changed\n")
    (checkout / "refused").touch()
    run(checkout, "bootstrap")
    (checkout / "refused").unlink()
    (checkout / "requirements.txt").write_text(before)
    assert run(checkout, "bootstrap").stdout == "Installing requirements.txt\n"


@pytest.mark.parametrize(
    ("words", "environment", "ports"),
    [
        ((), {"PORT": "9000"}, "PORT=9000 MANAGEMENT_PORT="),
        (("--port", "9000"), {}, "PORT=9000 MANAGEMENT_PORT=9001"),
        (("--port=9000",), {"PORT": "8000"}, "PORT=9000 MANAGEMENT_PORT=9001"),
        (("--port", "9000"), {"MANAGEMENT_PORT": "9100"}, "PORT=9000 MANAGEMENT_PORT=9100"),
        (("--port", "65535"), {}, "PORT=65535 MANAGEMENT_PORT=65534"),
    ],
)
def test_the_port_can_be_given(checkout: Path, words: tuple[str, ...], environment: dict[str, str], ports: str) -> None:
    assert run(checkout, "server", *words, **environment).stdout.splitlines()[-1] == ports


@pytest.mark.parametrize(
    "words", [("--port",), ("--port", ""), ("--port", "http"), ("--port=08001",), ("--port", "65536")]
)
def test_what_is_no_port_is_refused(checkout: Path, words: tuple[str, ...]) -> None:
    done = run(checkout, "server", *words)
    assert (done.returncode, done.stderr) == (2, "usage: script/server [--port N] (1 to 65535)\n")


@pytest.mark.parametrize(
    ("found", "code", "said"),
    [
        ("", 0, "skipped: the list of vulnerabilities could not be read"),
        ('[{"name": "one", "skip_reason": "unknown"}]', 0, "skipped: the list of vulnerabilities has none"),
        ('[{"name": "one", "version": "1.0", "vulns": []}]', 0, "looked up 1 of 1 packages"),
        ('[{"name": "one", "version": "1.0", "vulns": [{"id": "CVE-1"}]}]', 1, "one 1.0 CVE-1"),
    ],
)
def test_the_audit_fails_for_a_vulnerability_alone(checkout: Path, found: str, code: int, said: str) -> None:
    (checkout / "requirements-audit.txt").write_text("four==1.0\n")
    report = f'{{"dependencies": {found}}}' if found else ""
    (checkout / "report").write_text(report)
    audits = f'for out; do :; done; [ "$1" != -m ] || {{ cat "{checkout}/report" >"$out"; exit 1; }}'
    (checkout / ".venv-audit").mkdir()
    executable(checkout / ".venv-audit" / "bin" / "python", f'#!/bin/sh\n{audits}\nexec {sys.executable} "$@"\n')
    (checkout / "script" / "bootstrap").write_text("#!/bin/sh\n")
    done = run(checkout, "audit")
    assert done.returncode == code
    assert said in done.stdout + done.stderr


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_the_server_says_how_it_is_used_and_installs_nothing(checkout: Path, word: str) -> None:
    done = run(checkout, "server", word)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "usage: script/server [--port N]")
    assert "Installing" not in done.stdout
