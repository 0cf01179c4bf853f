"""What one ask costs, counted and not timed: the same on every machine with the same minor version of Python.

    .venv/bin/python -m tests.cost      # measures with this Python, and writes its part of tests/data/cost.json

Calls of functions alone would not do: one call in C can check a whole conversation. So four things are counted, see
`Cost`. A process of its own asks, set up as a worker of the server is, so that no test before it has a part in the
figures.
"""

import contextlib
import gc
import io
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple
from uuid import uuid4

from tests.servers import MongoServer, RedisServer

ROOT = Path(__file__).resolve().parent.parent
FIGURES = Path(__file__).parent / "data" / "cost.json"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
QUESTION = "What did I just ask about?"
_OURS = ("conversations", "ops", "telemetry", "onesource", "page", "tests")
_ROUNDS = 4
_BREATH = 1000.0  # seconds until another thread may run: only one that waits lets others run, so all runs are alike


class Case(NamedTuple):
    """One kind of ask."""

    messages: int = 40
    cycle: int = 6
    """So many asks are counted together: they use up the room for turns beyond 40 messages once. Of a longer
    conversation one ask is counted, which finds room."""
    dual_write: bool = False
    over_http: bool = False


CASES = {
    "redis": Case(),
    "dual write": Case(dual_write=True),
    "1,000 messages": Case(messages=1000, cycle=1),
    "http": Case(over_http=True),
}


class Cost(NamedTuple):
    """What one ask costs, the mean of a cycle."""

    calls: float
    """Functions called, in Python and in C."""
    sends: float
    """Writes to a socket: each is a round trip."""
    characters: float
    """What regular expressions of ours and the decoders of JSON were given, and what sockets sent and received."""
    allocated: float
    """Bytes of memory by which the process grew from one call or return to the next, added up: also what a function in
    C needs for a while."""


def cost_of_asks(
    names: Sequence[str], redis_url: str, mongo_url: str, home: Path, slower: Sequence[str] = ()
) -> dict[str, Cost]:
    """Return what one ask of each case costs, in these stores and a folder of its own; and with each of these changes
    of tests/slower.py, by its name."""
    (home / "metrics").mkdir(parents=True)
    environment = {
        "PATH": os.environ["PATH"],  # and nothing else of what is set here: any setting has a part in the figures
        "REDIS_URL": redis_url, "MONGO_URL": mongo_url, "VAR_DIR": str(home), "SECRET_KEY": uuid4().hex * 2,
        "PROMETHEUS_MULTIPROC_DIR": str(home / "metrics"), "DJANGO_SETTINGS_MODULE": "onesource.settings",
        "REDIS_SOCKET_TIMEOUT_MS": "2000", "MONGO_TIMEOUT_MS": "5000", "CHAT_AUTH": "open", "CHAT_RATE": "999999/min",
        "CONV_DUAL_WRITE": str(int(CASES[names[0]].dual_write)), "PYTHONHASHSEED": "0",
    }  # fmt: skip
    words = [sys.executable, "-m", "tests.cost", "count", json.dumps([list(names), list(slower)])]
    counted = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert counted.returncode == 0, counted.stderr
    return {name: Cost(*cost) for name, cost in json.loads(counted.stdout).items()}


def committed() -> dict[str, Cost] | None:
    """Return the figures of this minor version of Python; None where none are committed."""
    figures = json.loads(FIGURES.read_text()).get(PYTHON)
    return figures and {name: Cost(**cost) for name, cost in figures.items()}


class _Counters:
    """What this process has done so far, in all threads but those in which a driver watches its servers: next() is one
    step."""

    def __init__(self) -> None:
        self._calls, self._sends = itertools.count(), itertools.count()
        self.characters = self.allocated = self._before = 0
        self._watching: set[int] = set()

    def begin_thread(self, frame: FrameType, event: str, argument: Any) -> None:
        """Take the first event of a new thread."""
        watches = threading.current_thread().name.startswith("pymongo_")
        (self._watching.add if watches else self._watching.discard)(threading.get_ident())
        sys.setprofile(self.profile)

    def profile(self, frame: FrameType, event: str, argument: Any) -> None:
        now, most = tracemalloc.get_traced_memory()
        if not self._watches():
            if event in ("call", "c_call") and frame.f_code.co_filename != __file__:
                next(self._calls)
            self.allocated += max(0, most - self._before)
        tracemalloc.reset_peak()
        self._before = now

    def given(self, text: Any) -> None:
        if isinstance(text, (str, bytes, bytearray, memoryview)) and not self._watches():
            self.characters += len(text)

    def sent(self, data: Any) -> None:
        if not self._watches():
            next(self._sends)
        self.given(data)

    def _watches(self) -> bool:
        return threading.get_ident() in self._watching

    def count(self, ask: Callable[[], None]) -> Cost:
        """Return what it costs."""
        gc.collect()
        gc.disable()
        calls, sends, characters, allocated = self._now()
        self._before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        sys.setprofile(self.profile)
        ask()
        sys.setprofile(None)
        after = self._now()
        return Cost(after[0] - calls - 1, after[1] - sends - 1, after[2] - characters, after[3] - allocated)

    def _now(self) -> tuple[int, int, int, int]:
        return next(self._calls), next(self._sends), self.characters, self.allocated


_counters = _Counters()


class _Pattern:
    """A compiled regular expression that counts what it is given."""

    def __init__(self, pattern: "re.Pattern[Any]") -> None:
        self._pattern = pattern

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._pattern, name)
        if not callable(found):
            return found

        def counted(*arguments: Any, **options: Any) -> Any:
            _counters.given(arguments[1 if name in ("sub", "subn") else 0])
            return found(*arguments, **options)

        setattr(self, name, counted)
        return counted


def _count_characters() -> None:
    """Count what goes through regular expressions, decoders and sockets from now on, in modules that are not yet
    imported."""
    import msgspec.json
    import orjson

    compile_, loads, decoder = re.compile, orjson.loads, msgspec.json.Decoder

    def compiled(*arguments: Any, **options: Any) -> Any:
        pattern = compile_(*arguments, **options)
        ours = sys._getframe(1).f_globals["__name__"].partition(".")[0] in _OURS
        return _Pattern(pattern) if ours else pattern

    def loaded(text: Any) -> Any:
        _counters.given(text)
        return loads(text)

    class Decoder:
        def __init__(self, *arguments: Any, **options: Any) -> None:
            self._decode = decoder(*arguments, **options).decode

        def decode(self, text: Any) -> Any:
            _counters.given(text)
            return self._decode(text)

    re.compile, orjson.loads, msgspec.json.Decoder = compiled, loaded, Decoder  # type: ignore[assignment,misc]

    def sendall(self: socket.socket, data: Any, *rest: Any) -> Any:
        _counters.sent(data)
        return super(socket.socket, self).sendall(data, *rest)

    def recv_into(self: socket.socket, *arguments: Any) -> int:
        size = super(socket.socket, self).recv_into(*arguments)
        _counters.given(memoryview(arguments[0]).cast("B")[:size])
        return size

    def recv(self: socket.socket, *arguments: Any) -> bytes:
        data = super(socket.socket, self).recv(*arguments)
        _counters.given(data)
        return data

    for one in (sendall, recv_into, recv):
        setattr(socket.socket, one.__name__, one)


def _start() -> None:
    _count_characters()
    threading.setprofile(_counters.begin_thread)  # of threads that a first ask may start
    sys.setswitchinterval(_BREATH)
    import django

    django.setup()
    from conversations.runtime import gauges, state
    from conversations.stores import ALIASES
    from conversations.stores.control import Flags
    from tests.coverage import with_coverage

    gauges.start()
    process = with_coverage(state.state())
    for alias in ALIASES:  # as where the watcher has read them: most asks find none
        process.remember_flags(alias, Flags(), time.monotonic())
    tracemalloc.start()
    gc.collect()
    gc.freeze()  # so that collecting what an ask leaves takes no time


def _count(case: Case) -> Cost:
    """Return what one ask costs: of each ask of a cycle the cheapest, since in others a driver or the interpreter had
    something to do."""
    session = f"cost-{uuid4().hex}"
    _fill(session, case.messages)
    ask = _http_ask(session) if case.over_http else _ask(session)
    for _ in range(max(case.cycle, 3)):
        ask()
    rounds = [[_counters.count(ask) for _ in range(case.cycle)] for _ in range(_ROUNDS)]
    cheapest = [[min(one) for one in zip(*asks, strict=True)] for asks in zip(*rounds, strict=True)]
    return Cost(*(round(sum(column) / case.cycle, 1) for column in zip(*cheapest, strict=True)))


def _fill(session: str, messages: int) -> None:
    """Have the stores keep so many messages of a conversation, and make it so long."""
    from django.conf import settings

    from conversations.answerers import answerer
    from conversations.clock import now
    from conversations.runtime.state import state
    from conversations.stores import ALIASES, limits, store
    from conversations.turns import History, Turn, make_turn

    settings.CONV_MAX_TURNS = messages // 2
    for alias in ALIASES:
        store(alias).limits = limits()
    turns: list[Turn] = [make_turn(QUESTION, QUESTION, None, now(), now())]
    answer = "".join(answerer().answer(QUESTION, History.of(turns)))
    while len(turns) < messages // 2:
        turns.append(make_turn(QUESTION, answer, turns[-1].answer.at, now(), now()))
    for alias in state().routing.wanted:
        store(alias).append(session, None, turns)


def _ask(session: str) -> Callable[[], None]:
    from conversations import chat, deadline

    def ask() -> None:
        with deadline.begun():
            answer = chat.ask(chat.Question(QUESTION, session_id=session))
        assert answer.persisted and answer.context == "full", answer

    return ask


def _http_ask(session: str) -> Callable[[], None]:
    """Return what sends an ask to the application that the web server runs."""
    from onesource.wsgi import application

    body = json.dumps({"question": QUESTION, "session_id": session}).encode()
    environ = {
        "REQUEST_METHOD": "POST", "PATH_INFO": "/api/chat/ask", "SERVER_NAME": "localhost", "SERVER_PORT": "8001",
        "HTTP_HOST": "localhost", "REMOTE_ADDR": "127.0.0.1", "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(body)), "wsgi.url_scheme": "http", "wsgi.errors": sys.stderr,
    }  # fmt: skip

    def ask() -> None:
        found: list[str] = []
        answer = application({**environ, "wsgi.input": io.BytesIO(body)}, lambda status, *_: found.append(status))
        content = b"".join(answer)
        answer.close()
        assert found == ["200 OK"], (found, content)

    return ask


def _count_all(names: Sequence[str], slower: Sequence[str]) -> dict[str, Cost]:
    _start()
    costs = {name: _count(CASES[name]) for name in names}
    if slower:
        from tests.slower import CHANGES

        for name in slower:
            with CHANGES[name]():
                costs[name] = _count(CASES[case_of(name)])
    return costs


def _write() -> None:
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        home = Path(name)
        redis, mongo = RedisServer(home / "redis"), MongoServer(home / "mongo")
        for server in (redis, mongo):
            stack.callback(server.kill)
            server.start()
        costs = measured(redis.url, mongo.url, home / "asks")
    figures = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    figures[PYTHON] = {name: cost._asdict() for name, cost in costs.items()}
    FIGURES.write_text(f"{json.dumps(dict(sorted(figures.items())), indent=2)}\n")
    sys.stdout.write(f"{json.dumps(figures[PYTHON], indent=2)}\n")


def measured(redis_url: str, mongo_url: str, home: Path, slower: Sequence[str] = ()) -> dict[str, Cost]:
    """Return what one ask of each case costs, in these stores and folders below that one; and with each of these
    changes of tests/slower.py, by its name."""
    alone = [name for name, case in CASES.items() if not case.dual_write]
    dual = [name for name, case in CASES.items() if case.dual_write]
    costs = cost_of_asks(alone, redis_url, mongo_url, home / "alone", slower)
    return costs | cost_of_asks(dual, redis_url, mongo_url, home / "dual")


def case_of(change: str) -> str:
    """Return the case that is measured with a change of tests/slower.py."""
    return "http" if "request" in change else "redis"


if __name__ == "__main__":
    if sys.argv[1:2] == ["count"]:
        sys.stdout.write(json.dumps(_count_all(*json.loads(sys.argv[2]))))
    else:
        _write()
