"""Alerts and dashboard: they fire when they should, and ask for nothing that /metrics does not have."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

from conversations.runtime import gauges
from tests.api.talking import ask
from tests.builders import a_session
from tests.deploy.files import DEPLOY, ROOT
from tests.deploy.promql import selectors

GROUPS: list[dict[str, Any]] = yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
TESTS: list[dict[str, Any]] = yaml.safe_load((DEPLOY / "alerts_test.yaml").read_text())["tests"]
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
RUNBOOK = ROOT / "docs" / "RUNBOOK.md"

_MISSING = "promtool is not installed: apt-get install --no-install-recommends prometheus"


@pytest.fixture
def promtool() -> str:
    """Return the path of promtool; a laptop may be without it, CI may not."""
    found = shutil.which("promtool")
    if not found:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(_MISSING)
    return str(found)


def panels() -> Iterator[dict[str, Any]]:
    return (panel for panel in DASHBOARD["panels"] if panel["type"] != "row")


def queries() -> list[str]:
    """Return every query of the dashboard, its variables' and annotations' too."""
    variables = [each["query"] for each in DASHBOARD["templating"]["list"] if each["type"] == "query"]
    found = [re.sub(r"^label_values\((.*), \w+\)$", r"\1", query) for query in variables]
    found += [each["expr"] for each in DASHBOARD["annotations"]["list"]]
    return found + [target["expr"] for panel in panels() for target in panel["targets"]]


def has(series: list[tuple[str, dict[str, str]]], name: str, labels: frozenset[tuple[str, str]]) -> bool:
    return any(name == there and labels <= set(of.items()) for there, of in series)


@pytest.fixture
def series() -> list[tuple[str, dict[str, str]]]:
    """Return what /metrics has once a question was asked; a process' own figures are not shared by workers."""
    gauges.start()
    ask("What is Redis?", a_session())
    page = Client().get("/metrics").content.decode()
    samples = [each for family in text_string_to_metric_families(page) for each in family.samples]
    return [(each.name, each.labels) for each in samples if not each.name.startswith(("process_", "python_"))]


class TestAlerts:
    def test_the_runbooks_conditions_are_there_word_for_word(self) -> None:
        described = {name: (ALERTS[name]["expr"], ALERTS[name]["labels"]["severity"]) for name in
                ("PersistenceErrorsHigh", "RedisDown")}  # fmt: skip
        assert described == {
            "PersistenceErrorsHigh": ("rate(history_persist_errors_total[10m]) > 0.001", "page"),
            "RedisDown": ("redis_up == 0", "page"),
        }
        assert ALERTS["ConversationContextFailure"]["expr"].strip().endswith("< 0.999")

    @pytest.mark.parametrize("name", sorted(ALERTS))
    def test_each_says_what_is_wrong_and_where_to_read_on(self, name: str) -> None:
        alert = ALERTS[name]
        assert alert["labels"]["severity"] in {"page", "ticket"}
        assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
        assert re.fullmatch(r"docs/RUNBOOK\.md#[a-z0-9-]+", alert["annotations"]["runbook_url"])

    @pytest.mark.parametrize("name", sorted(ALERTS))
    def test_where_it_points_there_is_something_to_read(self, name: str) -> None:
        headings = re.findall(r"^#+ (.+)$", RUNBOOK.read_text(), re.MULTILINE)
        anchors = {re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert ALERTS[name]["annotations"]["runbook_url"].partition("#")[2] in anchors

    def test_prometheus_takes_the_rules(self, promtool: str) -> None:
        done = subprocess.run([promtool, "check", "rules", str(DEPLOY / "alerts.yaml")], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def test_each_fires_and_is_quiet_when_it_should(self, promtool: str) -> None:
        done = subprocess.run(
            [promtool, "test", "rules", str(DEPLOY / "alerts_test.yaml")], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr

    @pytest.mark.parametrize("name", sorted(ALERTS))
    def test_each_is_tested_both_ways(self, name: str) -> None:
        mine = [rule for test in TESTS for rule in test["alert_rule_test"] if rule["alertname"] == name]
        assert {bool(rule["exp_alerts"]) for rule in mine} == {True, False}

    def test_each_asks_for_series_that_there_are(self, series: list[tuple[str, dict[str, str]]]) -> None:
        wanted = {one for rule in RULES for one in selectors(rule["expr"]) if one[0] not in RECORDED}
        assert len(wanted) >= 11
        assert not [one for one in wanted if not has(series, *one)]

    def test_the_tests_give_series_as_they_are(self, series: list[tuple[str, dict[str, str]]]) -> None:
        """A rule tested on labels that the service does not have would never fire in earnest."""
        for test in TESTS:
            for one in test["input_series"]:
                ((name, labels),) = selectors(one["series"])
                if name != "up":
                    ours = frozenset(each for each in labels if each[0] != "instance")
                    assert has(series, name, ours), one["series"]


class TestDashboard:
    def test_every_query_asks_for_series_that_there_are(self, series: list[tuple[str, dict[str, str]]]) -> None:
        wanted = {one for query in queries() for one in selectors(query)}
        assert len({name for name, _ in wanted}) >= 20
        assert not [one for one in wanted if not has(series, *one)]

    @pytest.mark.parametrize(
        "metric",
        ["redis_up", "mongo_up", "redis_latency_p95_ms", "history_persist_errors_total", "breaker_open",
         "history_reads_total", "context_missing_total", "unsynced_conversations", "switches_total", "turns_total",
         "history_not_persisted_total", "msg_count_before_bucket", "redis_memory_used_bytes", "redis_memory_max_bytes",
         "onesource_backup_timestamp_seconds", "onesource_backup_verified_timestamp_seconds", "requests_limited_total",
         "tenants_full", "tenants_near_full", "issuer_fetches_total", "store_recovering", "clock_offset_seconds"],
    )  # fmt: skip
    def test_it_shows_what_an_operator_looks_for(self, metric: str) -> None:
        assert any(metric == name for query in queries() for name, _ in selectors(query))

    def test_prometheus_can_read_every_query(self, promtool: str, tmp_path: Any) -> None:
        plain = [re.sub(r"\$__rate_interval", "1m", query) for query in queries()]
        rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(plain)]
        file = tmp_path / "rules.yaml"
        file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
        done = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def test_panels_have_their_own_place_and_words(self) -> None:
        ids = [panel["id"] for panel in DASHBOARD["panels"]]
        assert len(ids) == len(set(ids))
        taken = [
            (x, y)
            for panel in DASHBOARD["panels"]
            for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
            for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
        ]
        assert len(taken) == len(set(taken))
        assert max(x for x, _ in taken) < 24
        for panel in panels():
            assert panel["title"]
            assert panel["description"]
            assert panel["datasource"]["uid"] == "${datasource}", "a dashboard is another's to import"


class TestReadingPromql:
    @pytest.mark.parametrize(
        ("expression", "names"),
        [
            ("redis_up == 0", {"redis_up"}),
            ('sum by (le, store) (rate(a_bucket{x="1", y=~"$z"}[5m])) / b', {"a_bucket", "b"}),
            ("max(a) == 0 and max(b) > 14.4 * 0.001 or 1e3 < s:r:rate5m", {"a", "b", "s:r:rate5m"}),
            ("histogram_quantile(0.95, c)", {"c"}),
        ],
    )
    def test_it_finds_the_metrics(self, expression: str, names: set[str]) -> None:
        assert {name for name, _ in selectors(expression)} == names

    def test_it_finds_the_labels(self) -> None:
        assert selectors('a{b="c", d=~"e"}') == {("a", frozenset({("b", "c")}))}
