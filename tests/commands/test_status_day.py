"""The figures of the last day: kept a row a minute, shown in steps of five, and what is not known is never zero."""

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from django.db import DatabaseError, connection

from conversations.stores import MONGO, REDIS
from ops.models import Sample
from ops.status import charts, day
from ops.status.day import Point
from tests.commands.test_status_page import PAGE, superuser

pytestmark = pytest.mark.usefixtures("both_empty")

NOW = datetime(2026, 11, 28, 10, 2, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
UP = {("redis_up", "", ""): 1.0, ("mongo_up", "", ""): 1.0}
BEFORE = {("history_reads_total", REDIS, "hit"): 5.0, ("history_persist_errors_total", REDIS, ""): 2.0}
COUNTED = UP | {
    ("redis_latency_p95_ms", "", ""): 1.5,
    ("redis_memory_used_bytes", "", ""): 2e6,
    ("unsynced_conversations", MONGO, ""): 3.0,
    ("history_reads_total", REDIS, "hit"): 14.0,
    ("history_reads_total", MONGO, "rescue"): 1.0,
    ("history_persist_errors_total", REDIS, ""): 4.0,
}


@pytest.fixture(autouse=True)
def none_kept() -> Iterator[None]:
    Sample.objects.all().delete()
    yield
    Sample.objects.all().delete()


@contextmanager
def no_table() -> Iterator[None]:
    """`default` as it is before its migration."""
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE ops_sample RENAME TO ops_sample_elsewhere")
        try:
            yield
        finally:
            cursor.execute("ALTER TABLE ops_sample_elsewhere RENAME TO ops_sample")


def only() -> Sample:
    return Sample.objects.get()


class TestKeeping:
    def test_a_minute_has_its_gauges_and_what_was_counted_in_it(self) -> None:
        day.keep(NOW, BEFORE, COUNTED)
        kept = only()
        assert (kept.machine, kept.at, kept.p95_ms, kept.memory_bytes) == (socket.gethostname(), NOW, 1.5, 2e6)
        assert (kept.hits, kept.reads, kept.persist_errors, kept.unsynced) == (9, 10, 2, 3)

    def test_a_service_that_was_started_anew_counts_from_its_start(self) -> None:
        day.keep(NOW, {("history_persist_errors_total", REDIS, ""): 9.0}, COUNTED)
        assert only().persist_errors == 4

    def test_the_gauges_of_a_store_that_is_out_are_not_known(self) -> None:
        """They stay as they were, and would look like figures of now."""
        day.keep(NOW, BEFORE, COUNTED | {("redis_up", "", ""): 0.0})
        assert (only().p95_ms, only().memory_bytes, only().unsynced) == (None, None, 3)
        day.keep(NOW, BEFORE, COUNTED | {("redis_up", "", ""): 0.0, ("mongo_up", "", ""): 0.0})
        assert only().unsynced is None

    def test_what_is_older_than_a_day_is_dropped_whatever_machine_it_is_of(self) -> None:
        for minutes in (1439, 1440, 1441, 3000):
            Sample.objects.create(machine="gone", at=NOW - minutes * MINUTE)
        day.keep(NOW, BEFORE, COUNTED)
        assert [(NOW - one.at) // MINUTE for one in Sample.objects.order_by("-at")] == [0, 1439, 1440]

    def test_the_minute_that_has_ended_is_kept(self) -> None:
        day.keep_if_possible(NOW, BEFORE)
        assert only().at == datetime(2026, 11, 28, 10, 1, tzinfo=UTC)

    def test_while_the_database_is_out_nothing_is_raised_and_counts_wait_for_it(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        with no_table():
            assert day.keep_if_possible(NOW, BEFORE) is BEFORE
        assert "figures_not_stored" in caplog.text
        assert day.keep_if_possible(NOW, BEFORE) is not BEFORE


def at(minutes: int, machine: str = "one", **figures: float) -> None:
    """Keep a row of so many minutes ago."""
    Sample.objects.create(machine=machine, at=NOW.replace(second=0) - minutes * MINUTE, **figures)


class TestPoints:
    def test_it_is_a_day_in_steps_up_to_now(self) -> None:
        found = day.points(NOW)
        assert (len(found), found[0].at, found[-1].at) == (
            288, datetime(2026, 11, 27, 10, 5, tzinfo=UTC), datetime(2026, 11, 28, 10, 0, tzinfo=UTC)
        )  # fmt: skip

    def test_without_rows_nothing_is_known(self) -> None:
        assert {(one.p95_ms, one.hit_rate, one.persist_errors, one.unsynced) for one in day.points(NOW)} == {
            (None,) * 4
        }

    def test_a_step_has_the_worst_of_its_minutes_and_all_machines_together(self) -> None:
        at(1, p95_ms=1.0, hits=9, reads=10, persist_errors=1, unsynced=2)
        at(2, p95_ms=7.0, hits=0, reads=0, persist_errors=0, unsynced=0)
        at(1, "two", p95_ms=3.0, hits=0, reads=10, persist_errors=2, unsynced=5)
        last = day.points(NOW)[-1]
        assert (last.p95_ms, last.hit_rate, last.persist_errors, last.unsynced) == (7.0, 0.45, 3.0, 5.0)

    def test_a_step_without_a_read_has_no_hit_rate(self) -> None:
        at(1, hits=0, reads=0, persist_errors=0)
        assert (day.points(NOW)[-1].hit_rate, day.points(NOW)[-1].persist_errors) == (None, 0.0)

    def test_a_database_that_is_out_is_no_day_without_figures(self) -> None:
        with no_table(), pytest.raises(DatabaseError):
            day.points(NOW)


def p95(*values: float | None) -> charts.Chart:
    begin = NOW.replace(second=0)
    return charts.charts([Point(begin + number * day.STEP, p95_ms=value) for number, value in enumerate(values)])[0]


class TestCharts:
    def test_a_gap_is_a_gap_and_no_zero(self) -> None:
        chart = p95(1.0, None, None, 2.0)
        assert chart.line == "M0 50.0V50.0H1M3 0.0V0.0H4"
        assert chart.gaps == ((1, 2),)
        assert chart.words.endswith("now 2.0 ms, highest 2.0 ms at 10:17; nothing is known of 2 of 4 steps.")

    def test_zero_is_drawn(self) -> None:
        assert (p95(0.0).line, p95(0.0).gaps, p95(0.0).top) == ("M0 100.0V100.0H1", (), "1.0 ms")

    def test_what_is_not_known_now_is_not_what_was_known_last(self) -> None:
        assert p95(1.0, None).now == "not known"

    def test_without_any_figure_it_is_one_gap(self) -> None:
        chart = p95(None, None)
        assert (chart.line, chart.gaps, chart.worst) == ("", ((0, 2),), "highest not known")

    @pytest.mark.parametrize(("value", "top", "limit"), [(0.1, "1.0 ms", None), (60.0, "100.0 ms", 50.0)])
    def test_the_limit_of_what_is_normal_is_drawn_where_it_is_in_sight(
        self, value: float, top: str, limit: float | None
    ) -> None:
        assert (p95(value).top, p95(value).limit) == (top, limit)


class TestPage:
    def test_each_figure_is_a_drawing_with_words_and_in_a_table(self) -> None:
        Sample.objects.create(machine="one", at=datetime.now(UTC), p95_ms=4.25, memory_bytes=3 * 1_048_576, unsynced=7)
        page = superuser().get(PAGE).content.decode()
        names = ["P95 latency", "Redis memory", "Hit rate", "Persist errors", "Unsynced conversations"]
        assert re.findall(r"<title id=[^>]*>(.*?) over 24 hours</title>", page) == names
        assert len(re.findall(r"<desc [^>]*>\d\d:\d\d to \d\d:\d\d UTC in steps", page)) == len(names)
        (row,) = re.findall(r'<tr><th scope="row">\d\d:\d\d</th>(<td>.*?)</tr>', page)
        assert re.findall(r"<td>(.*?)</td>", row) == ["4.2 ms", "3.0 MB", "-", "-", "7"]

    def test_where_they_cannot_be_read_the_rest_is_shown(self) -> None:
        with no_table():
            response = superuser().get(PAGE)
        assert response.status_code == 200
        assert "The figures of the last day cannot be read" in response.content.decode()
        assert 'class="figures"' in response.content.decode()

    def test_they_are_renewed_by_themselves(self) -> None:
        page = superuser().get("/admin/status/charts/").content.decode()
        assert page.startswith('<section id="status-charts"')
