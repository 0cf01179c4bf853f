"""What one ask costs, counted in calls of functions: about the same on every machine and for every Python.

    .venv/bin/python -m tests.cost      # measures, and writes tests/data/cost.json

A process of its own asks, set up as a worker of the server is, so that no test before it has a part in the figure.
"""

import gc
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType
from typing import Any
from uuid import uuid4

from tests.servers import MongoServer, RedisServer

ROOT = Path(__file__).resolve().parent.parent
FIGURES = Path(__file__).parent / "data" / "cost.json"
CASES = {"redis": {}, "dual write": {"CONV_DUAL_WRITE": "1"}}
_WARM, _COUNTED = 40, 20  # asks
_INLINED = {"<listcomp>", "<setcomp>", "<dictcomp>"}  # calls in Python 3.11, and none from 3.12 on

_counter = itertools.count()  # of all threads: next() is one step


def calls_of_an_ask(case: str, redis_url: str, mongo_url: str, home: Path) -> int:
    """Return how many functions one ask calls, in Python and in C, in this process' stores and a folder of its own."""
    (home / "metrics").mkdir()
    environment = os.environ | {
        "REDIS_URL": redis_url, "MONGO_URL": mongo_url, "VAR_DIR": str(home), "SECRET_KEY": uuid4().hex * 2,
        "PROMETHEUS_MULTIPROC_DIR": str(home / "metrics"), "DJANGO_SETTINGS_MODULE": "onesource.settings",
        "REDIS_SOCKET_TIMEOUT_MS": "2000", "MONGO_TIMEOUT_MS": "5000", **CASES[case],
    }  # fmt: skip
    counted = subprocess.run(
        [sys.executable, "-m", "tests.cost", "count"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert counted.returncode == 0, counted.stderr
    return int(counted.stdout)


def _count() -> int:
    """Return the calls of the cheapest of some asks: in others a driver or the interpreter had something to do."""
    threading.setprofile(_profile)  # of threads that a first ask may start
    import django

    django.setup()
    from conversations import chat, deadline
    from conversations.runtime import gauges, state
    from tests.coverage import with_coverage

    gauges.start()
    with_coverage(state.state())
    session, counts = f"cost-{uuid4().hex}", []
    for number in range(_WARM + _COUNTED):
        gc.collect()
        gc.disable()
        before = next(_counter)
        sys.setprofile(_profile)
        with deadline.begun():
            answer = chat.ask(chat.Question("What did I just ask about?", session_id=session))
        sys.setprofile(None)
        counts.append(next(_counter) - before)
        assert answer.persisted and answer.context == "full", (number, answer)
    return min(counts[_WARM:])


def _profile(frame: FrameType, event: str, argument: Any) -> None:
    if event == "c_call" or (event == "call" and frame.f_code.co_name not in _INLINED):
        next(_counter)


def _write() -> None:
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        redis, mongo = RedisServer(home / "redis"), MongoServer(home / "mongo")
        redis.start(), mongo.start()
        try:
            figures = {}
            for case in CASES:
                (home / f"asks, {case}").mkdir()
                figures[case] = calls_of_an_ask(case, redis.url, mongo.url, home / f"asks, {case}")
        finally:
            redis.kill(), mongo.kill()
    FIGURES.write_text(f"{json.dumps(figures, indent=2)}\n")
    sys.stdout.write(FIGURES.read_text())


if __name__ == "__main__":
    if sys.argv[1:] == ["count"]:
        sys.stdout.write(f"{_count()}\n")
    else:
        _write()
