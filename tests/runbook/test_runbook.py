"""docs/RUNBOOK.md, held to a live stack: every command of it is typed into a bash, and its output is compared."""

import re
from contextlib import ExitStack, nullcontext
from pathlib import Path

import pytest
from redis.exceptions import ResponseError

from tests.deploy.deployed_postgres import binaries
from tests.runbook.cluster import Cluster
from tests.runbook.contract import COMMANDS
from tests.runbook.document import Section, sections
from tests.runbook.kubectl import Desk
from tests.runbook.shell import Shell, need
from tests.runbook.staging import STAGES
from tests.servers import RedisServer, eventually

SECTIONS = {section.title: section for section in sections()}
# What is read on one stack, one after the other. What changes the stack has one of its own.
ACTS = {
    "an ordinary day": ("Overview", "Normal Operation", "Key Metrics", "Backup and Recovery", "Monitoring Commands",
                        "Testing Redis Functionality", "Alert: ConversationsOutOfStep", "Performance Tuning",
                        "Alert: BackupUnverified", "Alert: IssuerKeysNotFetched"),
    "Redis is full": ("Alert: PersistenceErrorsHigh",),
    "Redis is down": ("Alert: RedisDown",),
    "failover and failback": ("Redis Failover Procedures",),
    "nearly full": ("Alert: RedisMemoryHigh", "Alert: RedisMemoryCritical", "Alert: BackupMissing",
                    "Alert: TurnsNotPersisted", "Alert: BreakerOpen", "Alert: PersistenceErrorRatioHigh"),
    "other faults": ("Conversation Context Failure", "Alert: OnesourceNotScraped", "Alert: BothStoresDown",
                     "Alert: MongoDown", "Alert: RedisLatencyHigh", "Alert: ConversationsUnsynced",
                     "Alert: HistoriesCorrupt", "Alert: BackupOld", "Alert: CoverageMissing",
                     "Alert: ProcessesCutOff", "Alert: ClockOff", "Alert: StoreDataChanged"),
}  # fmt: skip
_TOOLS = ("curl", "jq", "redis-cli", "redis-check-rdb")


@pytest.fixture
def stack(tmp_path: Path) -> Cluster:
    """A stack that is not started."""
    need(*_TOOLS, *([] if binaries() else ["initdb"]))
    return Cluster(tmp_path, WEB_CONCURRENCY="1", CONV_MAX_TURNS="1000")


@pytest.mark.parametrize("act", ACTS)
def test_every_command_says_what_is_written(act: str, stack: Cluster) -> None:
    with ExitStack() as ending:
        ending.callback(stack.stop)
        stack.start()
        eventually(lambda: is_compared(stack), "what the stores had before was not compared")
        desk = Desk(stack)
        ending.callback(desk.close)
        shell = Shell(stack.desk, stack.desk_environment() | {"STAND_IN_KUBECTL": str(desk.port)})
        ending.callback(shell.close)
        found = [problem for title in ACTS[act] for problem in play(SECTIONS[title], stack, shell)]
    assert not found, "\n\n".join(found)


def is_compared(stack: Cluster) -> bool:
    """Return whether both stores are known to hold every conversation: `status` says so from then on."""
    missing = list(stack.pod.metric("coverage_missing"))
    return missing != [] and not any(missing)


def play(section: Section, stack: Cluster, shell: Shell) -> list[str]:
    """Run the section's commands in its fault; return how each that differs from the document does."""
    found = []
    eventually(stack.pod.is_quiet, f"{section.title}: the stack has not recovered from what was before")
    with STAGES.get(section.title, lambda _: nullcontext())(stack):
        for command in section.commands:
            code, output = shell.run(command)
            output = re.sub(r"\blocalhost:\d{4,5}", "localhost:8001", output)
            wrong = command.differs(output)
            if code and not command.may_fail:
                ended = f"line {command.line}: {command.text}\nends with {code}, not in the document:\n{output}"
                wrong = wrong or ended
            found += [wrong] if wrong else []
    return found


class TestTheDocument:
    def test_no_command_is_left_out(self) -> None:
        played = [title for titles in ACTS.values() for title in titles]
        assert sorted(played) == sorted(title for title, section in SECTIONS.items() if section.commands)
        assert not set(STAGES) - set(played), "a fault for a section that there is not"

    def test_what_each_command_says_is_written(self) -> None:
        silent = [command for section in SECTIONS.values() for command in section.commands if not command.expected]
        assert not silent, "write `# => …` below it, or `# => (nothing)`"

    @pytest.mark.parametrize("line", COMMANDS)
    def test_every_line_of_the_given_runbook_is_kept(self, line: str) -> None:
        commands = [command for section in SECTIONS.values() for command in section.commands]
        kept = {typed for command in commands for typed in (*command.text.splitlines(), f"> {command.typed}")}
        assert line in kept, "operators know it by heart: keep it word for word"

    @pytest.mark.parametrize("title", [title for title in SECTIONS if title.startswith("Alert: ")])
    def test_each_alert_says_all_that_a_page_needs(self, title: str) -> None:
        for part in ("**Meaning**", "**Impact**", "**Diagnosis**", "**Mitigation**"):
            assert part in SECTIONS[title].text

    def test_its_sections_are_those_of_the_given_one_in_its_order(self) -> None:
        assert list(SECTIONS)[:12] == [
            "Overview", "Key Metrics", "Normal Operation", "Alert: PersistenceErrorsHigh", "Alert: RedisDown",
            "Conversation Context Failure", "Redis Failover Procedures", "Performance Tuning", "Backup and Recovery",
            "Monitoring Commands", "Testing Redis Functionality", "Escalation",
        ]  # fmt: skip


def test_the_given_eval_deletes_nothing_where_there_are_many(tmp_path: Path) -> None:
    """As the document warns: Lua unpacks 7,999 keys, and no more."""
    (line,) = [line for line in COMMANDS if "'DEL'" in line]
    script = line.split('"')[1]
    server = RedisServer(tmp_path, aof=False)
    try:
        server.start()
        with server.client() as redis:
            redis.mset({f"conv:{number}": "kept" for number in range(9_000)})
            with pytest.raises(ResponseError, match="too many results to unpack"):
                redis.eval(script, 0)
            assert redis.dbsize() == 9_000
    finally:
        server.kill()
