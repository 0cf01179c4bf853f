"""What the repository's own files say, each held to where it comes from: pins, Pythons, and what CI needs."""

import ast
import json
import re
import tomllib
from typing import Any

import pytest
import yaml
from django.conf import settings

from tests.deploy.files import ROOT

PROJECT: Any = tomllib.loads((ROOT / "pyproject.toml").read_text())
DEBIAN = {"chromium", "chromium-driver", "curl", "jq", "postgresql", "prometheus", "redis-server"}
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def workflow(name: str) -> Any:
    return yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text())


def steps(name: str) -> list[Any]:
    return [step for job in workflow(name)["jobs"].values() for step in job["steps"]]


def debian_packages(text: str) -> set[str]:
    """Return which of the packages of .ci/run are named."""
    return DEBIAN & set(re.findall(r"[a-z-]+", text))


def pins(file: str) -> dict[str, str]:
    """Return the version of each package of the file, in which a line is a pin or a comment."""
    lines = [line.partition("#")[0].strip() for line in (ROOT / file).read_text().splitlines()]
    found = [re.fullmatch(r"([\w.-]+)(\[\w+\])?==([\w.]+)", line) for line in lines if line]
    assert all(found), file
    return {re.sub(r"[-_.]+", "-", pin[1]).lower(): pin[3] for pin in found if pin}


@pytest.mark.parametrize("name", ["requirements", "requirements-models", "requirements-traces"])
class TestLock:
    """CONTRIBUTING.md has the commands that write them."""

    def test_it_has_the_pins(self, name: str) -> None:
        """What is there besides is in requirements.lock too, or belongs to other systems or Pythons."""
        text = (ROOT / f"{name}.lock").read_text()
        locked = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE))
        assert pins(f"{name}.txt").items() <= locked.items()

    def test_each_package_has_hashes_and_no_address(self, name: str) -> None:
        text = (ROOT / f"{name}.lock").read_text()
        entries = re.findall(r"^[a-z0-9-]+==.*\n((?:    .*\n)*)", text, re.MULTILINE)
        assert entries and all("--hash=sha256:" in entry for entry in entries)
        assert "://" not in text


class TestPyproject:
    def test_the_version_is_that_of_the_service(self) -> None:
        """setuptools reads it without running the file, so it has to be a plain value there."""
        module, _, name = PROJECT["tool"]["setuptools"]["dynamic"]["version"]["attr"].rpartition(".")
        tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
        values = {
            node.targets[0].id: node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Constant)
        }
        assert values[name] == settings.VERSION

    def test_the_dependencies_are_the_pinned_ones(self) -> None:
        """A line with an option, as `-r`, could not be read."""
        dynamic = PROJECT["tool"]["setuptools"]["dynamic"]
        files = dynamic["dependencies"]["file"] + [
            file for extra in dynamic["optional-dependencies"].values() for file in extra["file"]
        ]
        assert files == ["requirements.txt", "requirements-models.txt", "requirements-traces.txt"]
        assert all(pins(file) for file in files)

    def test_what_builds_the_documentation_is_pinned(self) -> None:
        assert {"mkdocs", "mkdocs-material"} <= pins("requirements-docs.txt").keys()

    def test_what_looks_for_vulnerabilities_is_pinned(self) -> None:
        assert "pip-audit" in pins("requirements-audit.txt")

    def test_every_tool_knows_the_oldest_python(self) -> None:
        oldest = PROJECT["project"]["requires-python"].removeprefix(">=")
        assert PROJECT["tool"]["mypy"]["python_version"] == oldest
        assert PROJECT["tool"]["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"
        assert workflow("ci")["jobs"]["test"]["strategy"]["matrix"]["python"][0] == oldest
        assert f"version_info < ({oldest.replace('.', ', ')})" in (ROOT / "script" / "bootstrap").read_text()

    def test_the_licence_is_there(self) -> None:
        (file,) = PROJECT["project"]["license-files"]
        assert "Apache License" in (ROOT / file).read_text()


class TestWorkflows:
    @pytest.mark.parametrize("name", [path.stem for path in WORKFLOWS])
    def test_every_action_is_pinned_to_a_commit(self, name: str) -> None:
        """A tag can be moved to other code."""
        used = [step["uses"] for step in steps(name) if "uses" in step]
        assert used
        assert [action for action in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action)] == []

    @pytest.mark.parametrize("name", [path.stem for path in WORKFLOWS])
    def test_the_token_may_only_read_unless_a_job_says_otherwise(self, name: str) -> None:
        assert workflow(name)["permissions"] == {"contents": "read"}

    def test_each_python_that_is_looked_for_is_tested(self) -> None:
        bootstrap = (ROOT / "script" / "bootstrap").read_text()
        looked_for = re.search(r"for each in python3 (.+); do", bootstrap)
        assert looked_for
        test = workflow("ci")["jobs"]["test"]
        assert [f"python{version}" for version in test["strategy"]["matrix"]["python"]] == looked_for[1].split()
        (run,) = [step for step in test["steps"] if step.get("run") == ".ci/run"]
        assert run["env"] == {"PYTHON": "python${{ matrix.python }}"}

    def test_ci_calls_what_developers_call(self) -> None:
        called = {".ci/run", ".ci/run --djongo", ".ci/run --kinds", "script/audit", "script/docs"}
        assert called <= {step.get("run") for step in steps("ci")}
        text = (ROOT / ".ci" / "run").read_text()
        assert all(f"bash script/{name}" in text for name in ('test "$@"', "test-faults", "test-djongo", "test-kinds"))

    def test_the_image_says_what_is_in_it(self) -> None:
        (build,) = [step["with"] for step in steps("image") if "build-push-action" in step.get("uses", "")]
        assert build["platforms"] == "linux/amd64,linux/arm64"
        assert (build["sbom"], build["provenance"]) == (True, "mode=max")
        assert (ROOT / build["file"]).exists()


def test_hooks_before_a_commit_are_what_script_test_checks() -> None:
    """They run in .venv, so that no second list has their versions."""
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = {hook["name"]: hook["entry"] for repository in repositories for hook in repository["hooks"]}
    checks = (ROOT / "script" / "test").read_text()
    assert all(f'check "{name}"' in checks for name in hooks)
    assert all(entry.startswith(".venv/bin/") for entry in hooks.values())


def test_a_development_container_has_what_ci_has() -> None:
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert debian_packages(container["onCreateCommand"]) == DEBIAN
    assert debian_packages((ROOT / ".ci" / "run").read_text()) == DEBIAN
    assert container["forwardPorts"] == [settings.PORT]
