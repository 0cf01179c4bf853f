"""The adapters with the real libraries, which have an environment of their own."""

import ast
import json
import subprocess
from pathlib import Path

import pytest

from tests.client.conftest import Running
from tests.deploy.files import ROOT

PYTHON = ROOT / ".venv-adapters" / "bin" / "python"
CHECKS = Path(__file__).parent / "adapters"


def names(module: str) -> list[str]:
    """Return the checks of a module, which cannot be imported here: its library is elsewhere."""
    tree = ast.parse((CHECKS / f"{module}.py").read_text())
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("check_")]


@pytest.mark.parametrize("module", ["openai_agents", "langchain"])
def test_the_adapter_does_what_its_library_wants(running: Running, module: str) -> None:
    """All checks in one process: importing a library takes longer than they do."""
    assert PYTHON.exists(), "the adapters' libraries are not installed: run script/bootstrap --adapters"
    command = [PYTHON, "-m", "tests.client.adapters", module, running.url]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    failed = json.loads(done.stdout)
    assert list(failed) == names(module) != []
    assert "\n".join(filter(None, failed.values())) == ""
