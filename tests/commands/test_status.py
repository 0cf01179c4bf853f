"""`status`: routing, stores and figures, for people and machines, fast with many conversations."""

import io
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from rich.console import Console

from conversations.background import watcher
from conversations.background.sampling import VERIFIED
from conversations.datasets import Coverage, Known, Scrubbed
from conversations.policy import Routing
from conversations.runtime import datasets, switching
from conversations.stores import ALIASES, MONGO, REDIS, control, store
from conversations.stores.control import Report
from conversations.stores.info import StoreInfo
from ops.backup.create import NOTE
from ops.management.commands import status
from ops.status import collect, findings
from ops.status import served as source
from ops.status.datasets import DatasetStatus
from ops.status.layout import on_a_terminal
from ops.status.render import _STORE, Cell, Level, _memory, _scrub
from tests.builders import a_session
from tests.commands.working import hold, run, run_json, run_on_a_terminal
from tests.contract.test_stores import refused
from tests.servers import RedisServer, configured

pytestmark = pytest.mark.usefixtures("both_empty")


def row(output: str, name: str) -> list[str]:
    """Return a row's cells, which two spaces or more divide."""
    return next(
        [cell.strip() for cell in line.split("  ") if cell] for line in output.splitlines() if line.startswith(name)
    )


def test_two_stores_that_answer_are_fine(redis_server: RedisServer) -> None:
    hold(REDIS)
    masters = len(redis_server.masters)
    code, output = run("status")
    assert code == 0
    assert row(output, "traffic")[1] == "primary redis, dual write off"
    assert row(output, "switched by")[1] == "nobody: the environment counts"
    assert row(output, "state")[1:] == ["up", "up"]
    assert row(output, "conversations")[1:] == ["about 1", "about 0"]
    assert row(output, "unsynced")[1:] == ["0", "0"]
    assert row(output, "role")[1] == ("master" if masters == 1 else f"{masters} masters")
    assert row(output, "persistence")[1] == "AOF ok, RDB ok"
    assert row(output, "policy")[1] == "noeviction"


def test_a_server_on_another_machine_beside_sqlite_is_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its audit log, tokens and ledger would be others than those of this machine."""
    hold(REDIS)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(datasets, "PROCESS", "another-pod:7")
        datasets.compare(Known(), REDIS, beat=True)
    code, report = run_json("status")
    assert (code, report["trouble"]) == (
        1, "servers on other machines: 1, and SQLite is not shared with them: set DATABASE_URL"
    )  # fmt: skip
    monkeypatch.setattr(findings.connection, "vendor", "postgresql")
    assert run_json("status")[0] == 0


def test_the_newest_switch_is_shown_with_its_author_and_what_it_replaced() -> None:
    switching.record(Routing(MONGO, True), "alice", "[red]redis[/red] is moved")
    _, output = run("status")
    assert row(output, "traffic")[1] == "primary mongo, dual write on"
    assert row(output, "environment")[1] == row(output, "against")[1] == "primary redis, dual write off"
    assert row(output, "switched by")[1].startswith("alice at 20")
    assert "[red]redis[/red] is moved" in output


def test_without_a_server_its_figures_are_not_known() -> None:
    code, output = run("status")
    assert code == 0
    assert row(output, "server")[1] == f"no server answers on {source.server_url()}"
    assert row(output, "hit rate") == ["hit rate", "unknown", "> 90 %", "not known"]
    assert row(output, "P95 latency")[2:] == ["< 50 ms", "ok"]


def test_a_servers_counters_are_read(server: str) -> None:
    code, output = run("status")
    assert row(output, "server")[1].endswith(" answers")
    assert row(output, "persist errors")[2] == "< 0.1 %"
    assert code in (0, 1)  # this process counts every other test's turns too


@pytest.mark.parametrize(
    ("served", "trouble"),
    [
        ({("redis_latency_p95_ms", "", ""): 60.0}, "P95 latency is 60.0 ms, not < 50 ms"),
        (
            {
                ("history_persist_attempts_total", "redis", ""): 999.0,
                ("history_persist_errors_total", "redis", ""): 1.0,
            },
            "persist errors is 0.100%, not < 0.1 %",
        ),
        (
            {("history_reads_total", "redis", "hit"): 8.0, ("history_reads_total", "mongo", "rescue"): 2.0},
            "hit rate is 80.0%, not > 90 %",
        ),
        ({("history_reads_total", "redis", "miss"): 100.0, ("history_reads_total", "redis", "hit"): 1.0}, ""),
    ],
)
def test_over_a_limit_is_trouble(served: Any, trouble: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last: first questions find no conversation, which is no miss."""
    monkeypatch.setattr(source, "served_metrics", lambda: served)
    code, report = run_json("status")
    assert (code, report["trouble"]) == (1 if trouble else 0, trouble)


@pytest.mark.parametrize(("noted", "shown"), [("", "none is recorded"), ("2026-11-24T03:17:00.000Z", "hours ago, at")])
@pytest.mark.parametrize(("note", "named"), [(NOTE, "newest backup"), (VERIFIED, "verified backup")])
def test_the_newest_backup_and_the_newest_that_was_verified_are_named(
    note: str, named: str, noted: str, shown: str
) -> None:
    store(MONGO).write_note(note, noted)
    assert shown in row(run("status")[1], named)[1]


def test_flags_are_counted() -> None:
    store(MONGO).append(a_session(), None, flag=True)
    assert run_json("status")[1]["stores"]["mongo"]["unsynced"] == 1


def test_a_policy_that_evicts_flags_is_trouble(redis_server: RedisServer) -> None:
    with configured(redis_server, maxmemory_policy="allkeys-lru"):
        code, report = run_json("status")
    trouble = "redis evicts unsynced flags when its memory is full (allkeys-lru)"
    assert (code, report["trouble"]) == (1, trouble)


@pytest.mark.usefixtures("redis_out")
def test_a_store_that_is_out_is_trouble() -> None:
    code, output = run("status")
    assert code == 1
    assert row(output, "state")[1].startswith("OUT (")
    assert output.splitlines()[-1].startswith("redis is out (")


@pytest.mark.usefixtures("redis_out", "mongo_out")
def test_with_both_out_the_exit_code_is_2() -> None:
    code, output = run("status")
    assert code == 2
    assert row(output, "traffic")[1] == "primary redis, dual write off"


def test_a_reader_that_stops_early_gets_the_trouble_and_no_traceback() -> None:
    """`status | head -1`, in a process of its own."""
    nowhere = {"REDIS_URL": "redis://127.0.0.1:9/0", "MONGO_URL": "mongodb://127.0.0.1:9/onesource"}
    command = [sys.executable, str(settings.BASE_DIR / "manage.py"), "status"]
    with subprocess.Popen(command, env=os.environ | nowhere, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        output = process.stderr.read().decode()
    assert (process.returncode, output.count("\n")) == (2, 1), output
    assert "redis is out (ConnectionError); mongo is out" in output


@pytest.mark.usefixtures("redis_out")
def test_a_latency_from_before_an_outage_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server reports its last figure; beside "redis is out" an "ok" would be wrong."""
    monkeypatch.setattr(source, "served_metrics", lambda: {("redis_latency_p95_ms", "", ""): 4.6})
    assert row(run("status")[1], "P95 latency") == ["P95 latency", "unknown", "< 50 ms", "not known"]


@pytest.mark.usefixtures("redis_out", "mongo_out")
def test_with_both_out_the_author_of_the_switch_is_not_known() -> None:
    assert row(run("status")[1], "switched by")[1] == "not known: neither store answers"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_it_is_tables_and_a_reason_is_no_markup() -> None:
    switching.record(Routing(REDIS, False), "alice", "[bold]why[/bold]")
    out = _Terminal()
    call_command("status", stdout=out)
    assert "┃" in out.getvalue()
    assert "[bold]why[/bold]" in out.getvalue()


def coloured() -> str:
    """Return what a terminal with colours is sent."""
    console = Console(file=io.StringIO(), force_terminal=True, color_system="standard", width=200, record=True)
    console.print(on_a_terminal(collect.look()))
    return console.export_text(styles=True)


RED = "\x1b[1;31m"


def test_a_figure_over_its_limit_is_red_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "served_metrics", lambda: {("redis_latency_p95_ms", "", ""): 60.0})
    assert f"{RED}NOT NORMAL" in coloured()


@pytest.mark.usefixtures("redis_out")
def test_a_store_that_is_out_is_red_on_a_terminal() -> None:
    assert f"{RED}OUT (" in coloured()


def test_what_is_right_has_no_colour_on_a_terminal() -> None:
    assert RED not in coloured()


@pytest.mark.parametrize(("used", "level"), [(79, None), (80, Level.WARN), (94, Level.WARN), (95, Level.BAD)])
def test_a_redis_that_is_almost_full_has_the_level_of_its_alert(used: int, level: Level | None) -> None:
    cell = _memory(StoreInfo(memory_bytes=used, max_memory_bytes=100))
    assert (cell.text.endswith(f" ({used}%)"), cell.level) == (True, level)


def test_the_report_has_the_same_fields() -> None:
    report = run_json("status")[1]
    assert list(report) == ["at", "routing", "environment", "switch", "stores", "figures", "server", "breakers",
                            "backup", "verified", "scrub", "counted", "machines", "repaired", "findings",
                            "trouble"]  # fmt: skip
    assert list(report["stores"]["redis"]) == ["up", "error", "problem", "ping_ms", "p95_ms", "conversations",
                                               "unsynced", "says", "dataset"]  # fmt: skip
    assert list(report["stores"]["redis"]["dataset"]) == ["epoch", "verdict", "complete", "trimmed", "processes",
                                                          "cut_off", "clock_ahead"]  # fmt: skip
    assert list(report["stores"]["redis"]["says"]) == [
        "version", "memory_bytes", "data_bytes", "max_memory_bytes", "policy", "clients", "role", "replicas", "lag",
        "persistence",
    ]  # fmt: skip


@pytest.mark.usefixtures("redis_out")
def test_a_store_that_is_out_has_no_info_in_the_report() -> None:
    assert run_json("status")[1]["stores"]["redis"]["says"] == {}


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_the_author_and_reason_of_a_switch_cannot_control_the_terminal(words: tuple[str, ...]) -> None:
    switching.record(Routing(REDIS, False), "al\x1b]0;i\x07ce", "\x9b2J\u202e")
    written = run_on_a_terminal("status", *words)
    assert r"al\u001b]0;i\u0007ce" in written
    assert r"\u009b2J\u202e" in written
    assert not re.search("\x1b]|[\x07\x9b\u202e]", written)


def test_watching_goes_on_until_ctrl_c_and_json_is_a_line_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([None, KeyboardInterrupt])

    def sleep(seconds: float) -> None:
        if stop := next(looks):
            raise stop

    monkeypatch.setattr(status, "sleep", sleep)
    out = io.StringIO()
    call_command("status", "--watch", "--json", stdout=out)
    assert [json.loads(line)["trouble"] for line in out.getvalue().splitlines()] == ["", ""]


def test_an_acl_that_forbids_info_leaves_blanks() -> None:
    with refused("info"):
        code, output = run("status")
    assert code == 0
    assert row(output, "memory")[1] == "-"


def test_many_conversations_are_estimated_in_under_a_second(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        for tag in "abcdefghij":  # the keys of one are in one slot
            client.eval("for n = 1, 10000 do redis.call('SET', 'conv:{' .. KEYS[1] .. '}' .. n, 'x') end "
                        "for n = 1, 2500 do redis.call('SET', 'tomb:{' .. KEYS[1] .. '}' .. n, 'x') end",
                        1, tag)  # fmt: skip
    begun = time.monotonic()
    try:
        call_command("status", "--json", stdout=(out := io.StringIO()))
    except CommandError as error:
        raise AssertionError(out.getvalue()) from error
    assert time.monotonic() - begun < 1
    assert 90_000 < json.loads(out.getvalue())["stores"]["redis"]["conversations"] < 110_000


def test_what_is_known_of_the_datasets_is_shown(redis_server: RedisServer) -> None:
    datasets.compare(Known(), REDIS, beat=True)
    datasets.compare(Known(), MONGO, beat=True)
    reports = {alias: control(alias).report() for alias in ALIASES}
    known = Known({alias: one.dataset for alias, one in reports.items() if one.dataset})
    datasets.note_elsewhere(known, [REDIS, MONGO])
    datasets.record(Coverage({alias: one.id for alias, one in known.datasets.items()}, (REDIS,), 1.0, time.time() + 60))
    _, output = run("status")
    assert row(output, "complete")[1:] == ["yes", "no"]
    assert row(output, "dataset")[1].startswith("epoch ")
    assert int(row(output, "processes")[1]) >= 1
    assert abs(float(row(output, "clock")[1].removesuffix(" s"))) < 1
    with redis_server.client() as client:
        client.flushall()
    _, output = run("status")
    assert row(output, "dataset")[1] == "wiped"
    assert row(output, "complete")[1:] == ["no", "no"]


def test_machines_are_shown_by_their_heartbeats(redis_server: RedisServer) -> None:
    for alias in ALIASES:
        datasets.compare(Known(), alias, beat=True)
    with redis_server.client() as client:
        client.hset("onesource:{control}:heartbeats", "elsewhere:7", str(int((time.time() - 30) * 1000)))
    _, output = run("status")
    for cell in row(output, socket.gethostname())[1:]:
        assert re.fullmatch(r"1 process, \d\.\d s ago", cell)
    lost, nothing = row(output, "elsewhere")[1:]
    assert (lost.startswith("0 processes, 1 cut off, 3"), nothing) == (True, "-")


def test_what_is_left_to_repair_is_shown() -> None:
    assert "1 left" not in row(run("status")[1], "repair")[1]
    store(MONGO).append(a_session(), None, flag=True)
    assert row(run("status")[1], "repair")[1].startswith("1 left")


@pytest.mark.usefixtures("redis_out")
def test_repair_waits_for_both_stores() -> None:
    store(MONGO).append(a_session(), None, flag=True)
    shown = row(run("status")[1], "repair")[1]
    assert (shown.startswith("1 left"), shown.endswith("it waits for both stores")) == (True, True)


@pytest.mark.usefixtures("redis_out", "mongo_out")
def test_with_both_out_what_is_left_is_not_known() -> None:
    assert row(run("status")[1], "repair")[1] == "not known"


def test_how_far_scrubs_are_is_shown() -> None:
    assert row(run("status")[1], "scrub")[1] == "none has ended"
    hold(REDIS)
    at = time.time() - 7200
    datasets.record_scrub(datasets.SCRUBBED, Scrubbed(at, 7, 0))
    shown = row(run("status")[1], "scrub")[1]
    assert shown.startswith("ended 2.0 hours ago, at 20")
    assert shown.endswith(": 7 compared, 0 out of step")
    datasets.record_scrub(datasets.SCRUBBING, Scrubbed(at + 1, 5, 2))
    assert row(run("status")[1], "scrub")[1] == shown, "it was cut off long ago"
    datasets.record_scrub(datasets.SCRUBBING, Scrubbed(time.time(), 5, 2))
    assert row(run("status")[1], "scrub")[1] == f"{shown}; under way: 5 of about 1 compared, 2 out of step"
    assert run_json("status")[1]["scrub"]["under_way"]["out_of_step"] == 2
    assert _scrub(collect.look()).level == Level.WARN


@pytest.mark.usefixtures("redis_out", "mongo_out")
def test_with_both_out_scrubs_are_not_known() -> None:
    assert row(run("status")[1], "scrub")[1] == "not known"


@pytest.mark.parametrize(
    ("dataset", "name", "cell"),
    [
        (DatasetStatus(7, "same", True, False, 4, 2, 0.0), "processes", Cell("4, 2 cut off", Level.WARN)),
        (DatasetStatus(7, "same", True, False, 4, 0, -1.5), "clock", Cell("-1.5 s", Level.WARN)),
        (DatasetStatus(7, "rolled_back", False, False, 4, 0, 0.2), "dataset", Cell("rolled back", Level.WARN)),
        (DatasetStatus(7, "same", False, False, 4, 0, 0.2), "complete", Cell("no", Level.WARN)),
        (DatasetStatus(7, "same", True, True, 4, 0, 0.2), "complete", Cell("but for what was trimmed")),
        (None, "complete", Cell("-")),
    ],
)
def test_what_is_wrong_with_a_dataset_has_a_colour(dataset: DatasetStatus | None, name: str, cell: Cell) -> None:
    assert _STORE[name](collect.StoreStatus(True, dataset=dataset)) == cell


def test_what_is_counted_up_between_two_questions_is_no_rollback(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server counts each store's epoch up, and notes it in the other one, while `status` asks both."""
    ask, reported = datasets.ask, threading.Event()

    def ask_and_be_overtaken(alias: str) -> tuple[Report, float]:
        if not threading.current_thread().name.startswith("status"):
            return ask(alias)
        if alias == REDIS and not reported.is_set():
            answer = ask(REDIS)
            for _ in range(2):
                watcher._tick()
            reported.set()
            return answer
        assert reported.wait(20)
        return ask(alias)

    watcher._tick()
    monkeypatch.setattr(collect.datasets, "ask", ask_and_be_overtaken)
    found = collect.look(here={}).stores[REDIS].dataset
    assert found
    assert found.verdict == "same"
