"""What `status` finds: the conditions of the alerts, with the limits and the severities of deploy/alerts.yaml."""

import re
from dataclasses import replace
from typing import Any

import pytest
import yaml

from conversations.policy import Routing
from conversations.stores import MONGO, REDIS
from conversations.stores.info import StoreInfo
from ops import runbook
from ops.status import findings, limits
from ops.status.collect import Figure, Status, StoreStatus
from ops.status.datasets import DatasetStatus
from ops.status.findings import HOUR, SEVERITIES, TEN_MINUTES
from ops.status.served import Served
from tests.deploy.files import DEPLOY, ROOT

RULES = {
    rule["alert"]: rule
    for group in yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
}
NOT_JUDGED = {"OnesourceNotScraped", "PersistenceBudgetBurnSlow", "IssuerKeysNotFetched"}
DATASET = DatasetStatus(7, "same", True, False, 4, 0, 0.0)
STORE = StoreStatus(True, dataset=DATASET)
BOTH = Routing(REDIS, True)
FINE = Status("2026-11-28T10:00:00+00:00", BOTH, BOTH, None, {REDIS: STORE, MONGO: STORE}, (), "", (), 1795852800.0)
SLOW = Figure("P95 latency", 60.0, "< 50 ms", False, "60.0 ms")
OUT = StoreStatus(False, "TimeoutError")


def errors(number: float, of: float) -> Served:
    return {("history_persist_errors_total", REDIS, ""): number, ("history_persist_attempts_total", REDIS, ""): of}


def found(seen: Status, **grown: Served) -> tuple[findings.Finding, ...]:
    """Return the findings, with what has grown in `five` or `ten` minutes, or in an `hour`."""
    times = {findings.FIVE_MINUTES: "five", TEN_MINUTES: "ten", HOUR: "hour"}
    return findings.find(seen, lambda seconds: grown.get(times[seconds]))


def names(seen: Status, **grown: Served) -> set[str]:
    return {alert.name for one in found(seen, **grown) for alert in one.alerts}


def redis(**fields: Any) -> Status:
    return replace(FINE, stores={**FINE.stores, REDIS: replace(STORE, **fields)})


def dataset(**fields: Any) -> Status:
    return redis(dataset=replace(DATASET, **fields))


def filled(used: int) -> Status:
    return redis(info=StoreInfo(memory_bytes=used, max_memory_bytes=100))


def backed_up(hours: float) -> Status:
    return replace(FINE, backup=1795860000.0 - hours * 3600)


def verified(days: float) -> Status:
    return replace(FINE, verified=1795860000.0 - days * 86_400)


def counter(name: str, store: str = "", label: str = "") -> Served:
    return {(name, store, label): 1.0}


FIGURE = Figure("persist errors", 0.0, "< 0.1 %", True, "0.000%")
HOLDS: list[tuple[Status, dict[str, Served], set[str]]] = [
    (FINE, {}, set()),
    (replace(FINE, stores={REDIS: OUT, MONGO: STORE}), {}, {"RedisDown"}),
    (replace(FINE, stores={REDIS: STORE, MONGO: OUT}), {}, {"MongoDown"}),
    (replace(FINE, stores={REDIS: OUT, MONGO: OUT}), {}, {"RedisDown", "MongoDown", "BothStoresDown"}),
    (replace(FINE, breakers=("redis reads",)), {}, {"BreakerOpen"}),
    (replace(FINE, figures=(SLOW,)), {}, {"RedisLatencyHigh"}),
    (replace(FINE, figures=(FIGURE,)), {"ten": errors(1, 9999)}, {"PersistenceErrorsHigh"}),
    (replace(FINE, figures=(FIGURE,)), {"ten": errors(0, 9999)}, set()),
    (replace(FINE, figures=(FIGURE,)), {"five": errors(2, 1000)}, {"PersistenceErrorRatioHigh"}),
    (replace(FINE, figures=(FIGURE,)), {"five": errors(2, 100), "hour": errors(2, 100)},
     {"PersistenceErrorRatioHigh", "PersistenceBudgetBurn"}),
    (replace(FINE, figures=(FIGURE,)), {"five": errors(0, 100), "hour": errors(2, 100)}, set()),
    (FINE, {"five": counter("history_not_persisted_total")}, {"TurnsNotPersisted"}),
    (FINE, {"ten": {("context_expected_total", "", ""): 1000, ("context_missing_total", "", ""): 2}},
     {"ConversationContextFailure"}),
    (FINE, {"ten": {("context_expected_total", "", ""): 1000, ("context_missing_total", "", ""): 1}}, set()),
    (filled(80), {}, set()),
    (filled(81), {}, {"RedisMemoryHigh"}),
    (filled(96), {}, {"RedisMemoryHigh", "RedisMemoryCritical"}),
    (redis(unsynced=1), {}, {"ConversationsUnsynced"}),
    (dataset(complete=False), {}, {"CoverageMissing"}),
    (replace(dataset(complete=False), routing=Routing(MONGO, False), environment=Routing(MONGO, False)), {}, set()),
    (dataset(cut_off=2), {}, {"ProcessesCutOff"}),
    (dataset(clock_ahead=-1.5), {}, {"ClockOff"}),
    (dataset(verdict="wiped"), {}, {"StoreDataChanged"}),
    (FINE, {"hour": counter("dataset_changes_total", REDIS, "rolled_back")}, {"StoreDataChanged"}),
    (FINE, {"hour": counter("dataset_changes_total", REDIS, "restarted")}, set()),
    (FINE, {"hour": counter("out_of_step_conversations_total", MONGO)}, {"ConversationsOutOfStep"}),
    (FINE, {"hour": counter("history_corrupt_total", MONGO)}, {"HistoriesCorrupt"}),
    (backed_up(25.9), {}, set()),
    (backed_up(26.1), {}, {"BackupOld"}),
    (replace(FINE, backup=0.0), {}, {"BackupMissing"}),
    (replace(FINE, backup=None), {}, set()),
    (verified(13.9), {}, set()),
    (verified(14.1), {}, {"BackupUnverified"}),
    (replace(FINE, verified=0.0), {}, {"BackupUnverified"}),
    (replace(FINE, verified=None), {}, set()),
]  # fmt: skip


@pytest.mark.parametrize(("seen", "grown", "firing"), HOLDS)
def test_an_alert_is_named_where_its_condition_holds(seen: Status, grown: dict[str, Served], firing: set[str]) -> None:
    assert names(seen, **grown) == firing


def test_every_alert_that_is_judged_has_a_row_here() -> None:
    assert set().union(*(firing for *_, firing in HOLDS)) == SEVERITIES.keys()


def test_the_alerts_are_those_of_prometheus_with_their_severities() -> None:
    severities = {name: rule["labels"]["severity"] for name, rule in RULES.items() if name not in NOT_JUDGED}
    assert severities == SEVERITIES


@pytest.mark.parametrize(
    ("name", "condition"),
    [
        ("PersistenceErrorsHigh", f"[10m]) > {limits.PERSIST_ERRORS_A_SECOND:g}"),
        ("ConversationContextFailure", f"< {limits.CONTEXT_FOUND:g}"),
        ("RedisLatencyHigh", f"> {limits.P95_MS:g}"),
        ("RedisMemoryHigh", f"> {limits.ALMOST_FULL:g}"),
        ("RedisMemoryCritical", f"> {limits.FULL:g}"),
        ("BackupOld", f"> {limits.BACKUP_SECONDS // 3600} * 3600"),
        ("BackupUnverified", f"> {limits.VERIFIED_SECONDS // 86_400} * 24 * 3600"),
        ("PersistenceErrorRatioHigh", f"ratio_rate5m > {limits.PERSIST_ERRORS:g}"),
        ("PersistenceBudgetBurn", f"ratio_rate1h > {limits.BUDGET_BURN:g} * {limits.PERSIST_ERRORS:g}"),
        ("ClockOff", f"> {findings.MOST_OFFSET:g}"),
        ("StoreDataChanged", "[1h]"), ("ConversationsOutOfStep", "[1h]"), ("HistoriesCorrupt", "[1h]"),
        ("TurnsNotPersisted", "[5m]"),
    ],
)  # fmt: skip
def test_the_limits_are_those_of_prometheus(name: str, condition: str) -> None:
    assert condition in RULES[name]["expr"]


def test_every_section_is_in_the_runbook_and_is_the_one_that_prometheus_names() -> None:
    ids = set(re.findall(r'<h\d id="([^"]+)"', runbook.as_html()))
    for name in SEVERITIES:
        section = findings._alert(name).section
        assert section in ids
        assert RULES[name]["annotations"]["runbook_url"] == f"docs/RUNBOOK.md#{section}"
    seen = replace(FINE, routing=Routing(MONGO, False), figures=(replace(SLOW, name="hit rate"),))
    assert {one.section for one in found(seen)} - {""} <= ids
    assert runbook.section("Alert: RedisDown") == "alert-redisdown"


def test_links_of_the_runbook_lead_somewhere() -> None:
    html = runbook.as_html()
    ids = set(re.findall(r'id="([^"]+)"', html))
    assert {link[1:] for link in re.findall(r'href="([^"]+)"', html) if link.startswith("#")} <= ids
    assert all(re.match("#|https?:", link) for link in re.findall(r'href="([^"]+)"', html))
    assert (ROOT / "docs" / "RUNBOOK.md").exists()


def test_a_switch_that_differs_from_the_environment_needs_attention() -> None:
    texts = [one.text for one in found(replace(FINE, routing=Routing(MONGO, False)))]
    assert texts == [
        "the primary is mongo, and redis in the environment",
        "dual write is off, and on in the environment",
    ]


@pytest.mark.parametrize(
    ("seen", "verdict", "trouble"),
    [
        (FINE, "All is well", ""),
        (replace(FINE, backup=0.0), "Something needs attention", ""),
        (filled(96), "Something is wrong", "redis uses 96% of its memory"),
        (replace(filled(96), backup=0.0), "Something is wrong", "redis uses 96% of its memory"),
    ],
)
def test_the_verdict_weighs_all_of_it_and_only_what_is_wrong_now_is_trouble(
    seen: Status, verdict: str, trouble: str
) -> None:
    seen = replace(seen, findings=found(seen))
    assert (seen.verdict, seen.trouble) == (verdict, trouble)
    assert [one.serious for one in seen.findings] == sorted((one.serious for one in seen.findings), reverse=True)
