"""One request at a time for one Idempotency-Key, in all threads and processes of this machine."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from django.conf import settings as django_settings
from pytest_django import Settings

from conversations.errors import KeyInUse
from conversations.runtime.idempotency import idempotency_lock

_HOLDS = """
import sys
import django
from django.conf import settings
settings.configure(VAR_DIR=sys.argv[1], LLM_TIMEOUT_MS=1000)
from conversations.runtime.idempotency import idempotency_lock
with idempotency_lock("s-1", "k-1"):
    print("holding", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _var_dir(settings: Settings, tmp_path: Path) -> None:
    settings.VAR_DIR, settings.LLM_TIMEOUT_MS = tmp_path, 50


def left(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_two_requests_with_one_key_are_never_at_work_at_once(settings: Settings, tmp_path: Path) -> None:
    """Each removes the file at its end: a lock on a removed file must not count."""
    settings.LLM_TIMEOUT_MS = 60_000
    alone, overlaps = threading.Lock(), []

    def work(number: int) -> None:
        with idempotency_lock("s-1", "k-1"):
            overlaps.append(not alone.acquire(blocking=False))
            alone.release()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(60)))
    assert overlaps == [False] * 60
    assert left(tmp_path) == []


def test_another_thread_may_release_it(tmp_path: Path) -> None:
    """As the thread does that streams an answer."""
    stack = ExitStack()
    stack.enter_context(idempotency_lock("s-1", "k-1"))
    with pytest.raises(KeyInUse), idempotency_lock("s-1", "k-1"):
        pass
    thread = threading.Thread(target=stack.close)
    thread.start()
    thread.join()
    with idempotency_lock("s-1", "k-1"):
        assert len(left(tmp_path)) == 1
    assert left(tmp_path) == []


def test_it_ends_with_the_process_that_held_it(settings: Settings, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _HOLDS, str(tmp_path)]
    with subprocess.Popen(
        command, cwd=django_settings.BASE_DIR, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"holding\n"
        with pytest.raises(KeyInUse), idempotency_lock("s-1", "k-1"):
            pass
        process.kill()
    with idempotency_lock("s-1", "k-1"):
        assert len(left(tmp_path)) == 1


def test_other_keys_and_sessions_do_not_wait() -> None:
    with idempotency_lock("s-1", "k-1"), idempotency_lock("s-1", "k-2"), idempotency_lock("s-2", "k-1"):
        pass


def test_requests_without_a_key_do_not_wait(tmp_path: Path) -> None:
    with idempotency_lock("s-1", None), idempotency_lock("s-1", None):
        assert left(tmp_path) == []
