"""The documents have exactly the metrics, settings and commands that exist."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import get_commands, load_command_class
from prometheus_client.metrics import MetricWrapperBase

from conversations.runtime import gauges
from telemetry import metrics
from tests.configured import DEPLOYED, LONG_SECRET, settings_with
from tests.deploy.files import DEPLOY, ROOT
from tests.deploy.promql import selectors

SETTINGS = (ROOT / "docs" / "settings.md").read_text()
MAY_BE_FILES = (
    "SECRET_KEY",
    "REDIS_URL",
    "REDIS_SENTINEL_PASSWORD",
    "MONGO_URL",
    "DATABASE_URL",
    "CHAT_KEYS",
    "LLM_API_KEY",
    "SYSTEM_PROMPT",
)
IN_WORDS = {"": "", "the SDK's": ""}  # defaults that are no value of ours to write down


def rows(text: str, heading: str) -> Iterator[list[str]]:
    """Yield the cells of the first table after the heading, without its header row."""
    table = re.search(rf"^{re.escape(heading)}.*?^(\|.*?\n)(?!\|)", text, re.MULTILINE | re.DOTALL)
    assert table, heading
    for line in table[1].splitlines()[2:]:
        yield [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def code(cell: str) -> list[str]:
    """Return the code spans of the cell."""
    return re.findall(r"`([^`]+)`", cell)


# --- Metrics ---------------------------------------------------------------------------------------


def ours() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return our metrics as they are exported, with type and labels."""
    gauges.start()
    found = {}
    for metric in (*vars(metrics).values(), *metrics.of_stores.values()):
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.describe()
            name = f"{family.name}_total" if family.type == "counter" else family.name
            found[name] = (family.type, tuple(metric._labelnames))
    return found


def alerts_by_metric() -> dict[str, set[str]]:
    """Return the alerts that use a metric, directly or by a recorded series."""
    groups: Any = yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    recorded = {rule["record"]: {name for name, _ in selectors(rule["expr"])} for rule in rules if "record" in rule}
    found: dict[str, set[str]] = {}
    for rule in rules:
        for name, _ in selectors(rule["expr"]) if "alert" in rule else ():
            for each in recorded.get(name, {name}):
                found.setdefault(each, set()).add(rule["alert"])
    return found


class TestMetrics:
    TABLE = list(rows((ROOT / "docs" / "metrics.md").read_text(), "# Metrics"))

    def test_the_table_has_each_metric_with_its_type_and_labels(self) -> None:
        assert {code(name)[0]: (kind, tuple(code(labels))) for name, kind, labels, *_ in self.TABLE} == ours()

    def test_the_table_has_the_alerts_of_each_metric(self) -> None:
        documented = {code(name)[0]: set(code(used)) for name, *_, used in self.TABLE}
        asked = alerts_by_metric()
        assert documented == {name: asked.get(name, set()) for name in documented}
        assert set(asked) <= set(documented)


# --- Settings --------------------------------------------------------------------------------------


def variables() -> set[str]:
    """Return every variable that the settings read."""
    tree = ast.parse((ROOT / "onesource" / "settings.py").read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    words = [call.args[0] for call in calls if call.func.id in ("_read", "_url", "_switch")]  # type: ignore[attr-defined]
    return {word.value for word in words if isinstance(word, ast.Constant)}


def as_variable(value: Any) -> str:
    """Return the setting in the form of its environment variable."""
    if isinstance(value, bool):
        return str(int(value))
    text = ",".join(value) if isinstance(value, list | dict) else str(value)
    return f"{text.removeprefix(f'{ROOT}/')}/" if text.startswith(str(ROOT)) else text


class TestSettings:
    TABLE = list(rows(SETTINGS, "# Settings"))

    def test_the_table_has_each_variable_that_is_read(self) -> None:
        assert {code(name)[0] for name, *_ in self.TABLE} == variables()

    def test_the_table_has_the_defaults(self, tmp_path: Path) -> None:
        """The part before a semicolon is for a deployment, the part after it for embedded stores."""
        deployed, embedded = settings_with(**DEPLOYED), settings_with(VAR_DIR=str(tmp_path))
        for name, default, _ in self.TABLE:
            name = code(name)[0]
            first, _, embedded_too = default.partition("; ")
            if name in DEPLOYED:
                assert "embedded" in default
            elif name == "DATABASE_URL":
                assert deployed["DATABASES"]["default"]["NAME"] == str(ROOT / "var" / "onesource.sqlite3")
                assert default == "SQLite in `var/`"
            else:
                documented = code(first)[0] if code(first) else IN_WORDS[first]
                assert as_variable(deployed[name]) == documented, name
            if code(embedded_too) and name not in DEPLOYED:
                assert as_variable(embedded[name]) == code(embedded_too)[0], name

    def test_exactly_the_documented_variables_may_come_from_a_file(self, tmp_path: Path) -> None:
        documented = re.findall(r"`(\w+)_FILE`", SETTINGS.partition("| variable |")[0])  # BACKUP_KEY_FILE is one itself
        assert sorted(documented) == sorted(MAY_BE_FILES)
        secrets = DEPLOYED | {"DATABASE_URL": "postgres://u:p@db:5432/name", "LLM_API_KEY": "a key"}
        secrets |= {"REDIS_SENTINEL_PASSWORD": "another"}
        secrets |= {"SYSTEM_PROMPT": "Be brief.\nAnd kind.", "CHAT_KEYS": f"one:{LONG_SECRET}"}
        for name in documented:
            (tmp_path / name).write_text(f"{secrets[name]}\n")
        found = settings_with(**{f"{name}_FILE": str(tmp_path / name) for name in documented})
        assert found["DATABASES"]["default"]["HOST"] == "db"
        assert found.pop("CHAT_KEYS") == {"one": LONG_SECRET}
        assert {name: found[name] for name in documented if name in found} == {
            name: secret for name, secret in secrets.items() if name not in ("DATABASE_URL", "CHAT_KEYS")
        }

    def test_compose_sets_only_existing_variables(self) -> None:
        """tests/deploy/test_kubernetes.py checks the manifests."""
        compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
        documented = {name.removesuffix("_FILE") for name in compose["services"]["onesource"]["environment"]}
        assert documented <= variables()

    def test_documents_name_only_existing_variables(self) -> None:
        for path in (ROOT / "README.md", DEPLOY / "README.md", *(ROOT / "docs").glob("*.md")):
            text = re.sub(r"grep \S+", "", path.read_text())  # which may look for the beginning of a name
            named = set(re.findall(r"\b((?:ADMIN|BACKUP|CONV|REDIS|MONGO|CHAT|OIDC|LLM|WEB)_[A-Z_]+)\b", text))
            assert {name if name in variables() else name.removesuffix("_FILE") for name in named} <= variables(), path


# --- Security --------------------------------------------------------------------------------------

SECURITY = (ROOT / "docs" / "security.md").read_text()


class TestSecurity:
    ROWS = [line for line in SECURITY.splitlines() if line.startswith("| ") and not line.startswith("| threat |")]

    @pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
    def test_a_row_names_tests_that_exist(self, row: str) -> None:
        _, _, _, tests, _ = row.split("|")
        named = [name.split("::") for name in code(tests)]
        assert named
        for file, test in named:
            tree = ast.parse((ROOT / file).read_text())
            assert test in {each.name for each in ast.walk(tree) if isinstance(each, ast.FunctionDef)}


# --- Commands --------------------------------------------------------------------------------------

COMMANDS = {name for name, app in get_commands().items() if app == "ops"}


def options(command: str) -> set[str]:
    parser = load_command_class("ops", command).create_parser("manage.py", command)
    return {option for action in parser._actions for option in action.option_strings}


class TestCommands:
    TABLE = list(rows((ROOT / "docs" / "operating.md").read_text(), "# Operating it"))

    def test_the_table_has_each_command(self) -> None:
        assert {each.split()[0] for name, _ in self.TABLE for each in code(name)} == COMMANDS

    @pytest.mark.parametrize("row", TABLE, ids=lambda row: row[0])
    def test_a_row_names_only_existing_options(self, row: list[str]) -> None:
        commands = {each.split()[0] for each in code(row[0])}
        there = set().union(*map(options, commands))
        assert set(re.findall(r"--[a-z][a-z-]*", " ".join(row))) <= there

    @pytest.mark.parametrize("path", [ROOT / "README.md", DEPLOY / "README.md", *(ROOT / "docs").rglob("*.md")],
                             ids=lambda path: path.name)  # fmt: skip
    def test_documents_call_only_existing_commands_and_options(self, path: Path) -> None:
        for command, rest in re.findall(r"manage\.py ([a-z_]+)([^`\n|&;]*)", path.read_text()):
            assert command in get_commands()
            if command in COMMANDS:
                assert set(re.findall(r"--[a-z][a-z-]*", rest)) <= options(command), f"{command}{rest}"
