"""`manage.py serve` as a process of its own: what it starts, what it prints, and that no process is left."""

import logging
import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

import psutil
import pytest
from django.conf import settings
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

import embedded
from tests.commands.working import read
from tests.configured import LONG_SECRET
from tests.servers import eventually, free_port

# Python 3.12 and later: pytest's threads beside the fork that starts a store.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

SET_FOR_OTHER_TESTS = ("REDIS_URL", "MONGO_URL", "SECRET_KEY", "CHAT_AUTH", "DATABASE_URL", "BIND")
PATIENCE = 60


@contextmanager
def serving(folder: Path, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """Run the command on this folder, and end it in any case."""
    environment = {name: value for name, value in os.environ.items() if name not in SET_FOR_OTHER_TESTS}
    ports = {"PORT": str(free_port()), "MANAGEMENT_PORT": str(free_port())}
    environment |= {"VAR_DIR": str(folder), "WEB_CONCURRENCY": "1", **ports, **variables}
    process = subprocess.Popen(
        [sys.executable, str(settings.BASE_DIR / "manage.py"), "serve"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.communicate(timeout=PATIENCE)
            finally:
                process.kill()


@pytest.fixture(autouse=True)
def _ports_of_our_own(tmp_path: Path) -> None:
    """The usual ports may be taken by another test or by a developer's server."""
    for name in ("redis", "mongo"):
        (tmp_path / f"{name}.port").write_text(str(free_port()))


@contextmanager
def on_a_terminal(folder: Path, **variables: str) -> Iterator[tuple[subprocess.Popen[bytes], list[bytes]]]:
    """Run the command as a person does, and collect what the terminal shows."""
    environment = {name: value for name, value in os.environ.items() if name not in SET_FOR_OTHER_TESTS}
    environment |= {"VAR_DIR": str(folder), "WEB_CONCURRENCY": "1", "DJANGO_COLORS": "nocolor", **variables}
    ours, its = pty.openpty()
    shown: list[bytes] = []
    command = [sys.executable, str(settings.BASE_DIR / "manage.py"), "serve"]
    with subprocess.Popen(command, env=environment, stdin=its, stdout=its, stderr=its) as process:
        os.close(its)
        reading = Thread(target=lambda: shown.extend(iter(lambda: read(ours), b"")))
        reading.start()
        try:
            yield process, shown
        finally:
            process.terminate()
            process.wait(PATIENCE)
            reading.join(PATIENCE)
            os.close(ours)


def answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def redis_at(folder: Path) -> Redis:
    return Redis.from_url(embedded.url(folder, "redis"), decode_responses=True)


def knows(folder: Path, key: str) -> str | None:
    with suppress(RedisConnectionError), redis_at(folder) as redis:
        return redis.get(key)
    return None


def gone(processes: list[psutil.Process]) -> bool:
    return not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in processes)


def children(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def has_workers(process: subprocess.Popen[str]) -> bool:
    with suppress(psutil.NoSuchProcess):
        return any("spawn_main" in word for child in children(process) for word in child.cmdline())
    return False


def test_a_taken_port_is_named_with_exit_code_2(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        with serving(tmp_path, PORT=str(port)) as server:
            _, output = server.communicate(timeout=PATIENCE)
    assert output == (
        f"CommandError: port {port} is taken: another program listens on 127.0.0.1, stop it or set PORT"
        " (script/server: --port)\n"
    )
    assert server.returncode == 2


def test_a_second_start_names_the_first_at_once(tmp_path: Path) -> None:
    port = free_port()
    with serving(tmp_path, PORT=str(port)) as first:
        noted = f"{first.pid} http://localhost:{port}"
        lock = tmp_path / "serve.lock"
        eventually(lambda: lock.exists() and lock.read_text() == noted, "no address", PATIENCE)
        for ports in ({"PORT": str(port)}, {}):  # another port is no other folder
            with serving(tmp_path, **ports) as second:
                _, output = second.communicate(timeout=PATIENCE)
            assert output == (
                f"CommandError: onesource is running here already: http://localhost:{port} (process {first.pid})."
                " Stop that one, or set VAR_DIR to another folder and PORT to another port\n"
            )
            assert second.returncode == 2
        assert first.poll() is None


def test_an_address_that_does_not_answer_any_more_keeps_nobody_waiting(tmp_path: Path) -> None:
    """The first one is ending, or was killed and its stores are: the second one waits for that."""
    with embedded.start(tmp_path, redis=False, mongo=False) as stores:
        stores.publish(f"http://localhost:{free_port()}")
        embedded.refuse_second(tmp_path)
    embedded.refuse_second(tmp_path)


def test_a_terminal_shows_what_a_person_needs_in_at_most_five_lines(tmp_path: Path) -> None:
    port = free_port()
    ports = {"PORT": str(port), "MANAGEMENT_PORT": str(free_port())}
    with on_a_terminal(tmp_path, **ports) as (server, shown):
        eventually(lambda: b"closes it" in b"".join(shown), "it does not serve", PATIENCE)
        server.send_signal(signal.SIGINT)
        assert server.wait(PATIENCE) == 0
    lines = b"".join(shown).decode().splitlines()
    here = f"http://localhost:{port}"
    assert [
        word for word in (f"{here}/ ", f"{here}/api/docs/", f"{here}/admin/", "redis-cli") if word not in str(lines)
    ] == []
    assert len(lines) == 5, lines
    assert not [line for line in lines if line.startswith("{")]


def test_a_terminal_shows_events_where_they_are_asked_for(tmp_path: Path) -> None:
    ports = {"PORT": str(free_port()), "MANAGEMENT_PORT": str(free_port())}
    with on_a_terminal(tmp_path, LOG_FORMAT="json", **ports) as (_, shown):
        eventually(lambda: b'"serving"' in b"".join(shown), "it does not serve", PATIENCE)
    assert all(line.startswith("{") for line in b"".join(shown).decode().splitlines())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "0"),
        ("CONV_STORE_PRIMARY", "postgres"),
        ("CONV_DUAL_WRITE", "maybe"),
        ("LOG_FORMAT", "xml"),
        ("LLM_TEMPERATURE", "hot"),
        ("LLM_TEMPERATURE", "2.5"),
        ("CONV_TTL_SECONDS", "30 days"),
        ("REDIS_URL", "localhost:6379"),
    ],
)
def test_a_bad_variable_is_named_with_exit_code_2(tmp_path: Path, name: str, value: str) -> None:
    with serving(tmp_path, **{name: value}) as server:
        _, output = server.communicate(timeout=PATIENCE)
    assert output.startswith(f"onesource: {name} is not usable: ")
    assert output.count("\n") == 1
    assert server.returncode == 2


def test_a_stop_ends_every_child_and_the_next_start_remembers(tmp_path: Path) -> None:
    port = free_port()
    with serving(tmp_path, PORT=str(port)) as server:
        eventually(lambda: answers(port), "it does not serve", PATIENCE)
        started = children(server)
        with redis_at(tmp_path) as redis:
            redis.set("conv:kept", "here")
        server.terminate()
        server.communicate(timeout=PATIENCE)
    assert server.returncode == 0
    assert len(started) >= 3  # Redis, MongoDB, a worker
    eventually(lambda: gone(started), f"left behind: {started}")
    with serving(tmp_path, MONGO_URL="mongodb://127.0.0.1:9/x", SECRET_KEY=LONG_SECRET) as server:
        eventually(lambda: knows(tmp_path, "conv:kept") == "here", "the key is lost", PATIENCE)
        started = children(server)
    assert server.returncode == 0  # stopped while it was starting
    eventually(lambda: gone(started), f"left behind: {started}")


@pytest.mark.parametrize("when", ["workers start", "it listens"])
def test_signals_while_it_starts_or_ends_print_no_traceback(tmp_path: Path, when: str) -> None:
    """A terminal or `timeout` signals every process of the group, and the server its workers once more. So often that
    handlers interrupt each other: none may wait for a lock that the one before has."""
    port = free_port()
    with serving(tmp_path, PORT=str(port)) as server:
        started = {"workers start": lambda: has_workers(server), "it listens": lambda: answers(port)}
        eventually(started[when], "it does not start", PATIENCE)
        while server.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                server.wait(0.001)
        _, errors = server.communicate(timeout=PATIENCE)
    assert [line for line in errors.splitlines() if not line.startswith("{")] == []


def test_a_killed_server_leaves_no_child(tmp_path: Path) -> None:
    port = free_port()
    with serving(tmp_path, PORT=str(port)) as server:
        eventually(lambda: answers(port), "it does not serve", PATIENCE)
        started = children(server)
        server.kill()
    assert len(started) >= 3
    eventually(lambda: gone(started), f"left behind: {started}")
    refused = "redis://127.0.0.1:9/0"  # not the old port, where another program may answer by now
    eventually(lambda: embedded.url(tmp_path, "redis") == refused, "its stores are still named")


def test_it_starts_while_both_stores_are_unavailable(tmp_path: Path) -> None:
    port = free_port()
    unavailable = {"REDIS_URL": "redis://u:hidden@127.0.0.1:9/0", "MONGO_URL": "mongodb://u:hidden@127.0.0.1:9/x"}
    with serving(tmp_path, PORT=str(port), SECRET_KEY=LONG_SECRET, BIND="127.0.0.1", **unavailable) as server:
        eventually(lambda: answers(port), "it does not serve", PATIENCE)
        server.send_signal(signal.SIGINT)
        _, output = server.communicate(timeout=PATIENCE)
    assert server.returncode == 0
    assert '"migrate_failed"' in output
    assert "hidden" not in output


def test_a_folder_belongs_to_one_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded.stores, "HANDOVER_SECONDS", 0)
    refused = pytest.raises(embedded.EmbeddedError, match=rf"is in use by .* \(process {os.getpid()}\)")
    with embedded.start(tmp_path, redis=False, mongo=False), refused:
        embedded.start(tmp_path, redis=False, mongo=False)
    with embedded.start(tmp_path, redis=False, mongo=False):
        pass  # free again


def test_a_killed_store_comes_back_with_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded.stores, "RESTART_PAUSE_SECONDS", 0.1)
    with embedded.start(tmp_path, redis=True, mongo=False):
        with redis_at(tmp_path) as redis:
            redis.set("conv:kept", "here")
            os.kill(redis.info("server")["process_id"], signal.SIGKILL)
        eventually(lambda: knows(tmp_path, "conv:kept") == "here", "Redis is not started again")


def test_a_store_that_is_shut_down_stays_so_until_revived(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), embedded.start(tmp_path, redis=True, mongo=False) as stores:
        with redis_at(tmp_path) as redis:
            redis.set("conv:kept", "here")
            redis.shutdown()
        eventually(lambda: "embedded_store_shut_down" in caplog.text, "its rest is not logged")
        assert knows(tmp_path, "conv:kept") is None
        stores.revive()
        eventually(lambda: knows(tmp_path, "conv:kept") == "here", "Redis is not started again")


def test_a_store_is_revived_that_was_shut_down_a_moment_ago(tmp_path: Path) -> None:
    with embedded.start(tmp_path, redis=True, mongo=False) as stores:
        with redis_at(tmp_path) as redis:
            redis.set("conv:kept", "here")
            process = psutil.Process(redis.info("server")["process_id"])
            redis.shutdown()
        with suppress(psutil.NoSuchProcess):
            eventually(lambda: process.status() == psutil.STATUS_ZOMBIE, "Redis does not end")
        stores.revive()
        eventually(lambda: knows(tmp_path, "conv:kept") == "here", "Redis is not started again")


def test_a_store_that_cannot_start_names_the_reason_and_its_log(tmp_path: Path) -> None:
    manifest = tmp_path / "redis" / "appendonlydir" / "appendonly.aof.manifest"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("garbage\n")
    with pytest.raises(embedded.EmbeddedError, match=r"redis") as refusal:
        embedded.start(tmp_path, redis=True, mongo=False)
    assert str(tmp_path / "redis") in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_processes_that_start_at_once_get_one_secret(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        secrets = set(pool.map(embedded.dev_secret, [tmp_path / "new"] * 8))
    assert len(secrets) == 1
    assert (tmp_path / "new" / "secret_key").stat().st_mode & 0o777 == 0o600
