"""A third store: here a pretended one, which takes the place of Redis before MongoDB."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from tests.commands.pretend import PRETEND

BOTH = (PRETEND, "mongo")
ADDRESS = "pretend://here/0"
NAMED = re.compile(r'"(redis|mongo)"|\b(REDIS|MONGO)\b|\bstores\.(redis|mongo)\b')
MAY_NAME_ONE = {
    "ops/console/corrupt.py",  # of Django's models, which are MongoDB's
    "conversations/api/schema.py",  # an example
    "conversations/migrations/0001_initial.py",
    "conversations/migrations/0002_place.py",
    "conversations/models.py",
    "ops/management/commands/serve.py",  # starts the embedded servers
    "ops/capacity/plan.py",  # plans the nodes of each of the two
}


@pytest.fixture
def used(both_empty: None, tmp_path: Path) -> Any:
    """The results of a process whose stores are the third one and MongoDB."""
    process = subprocess.run(
        [sys.executable, "-m", "tests.commands.pretend"],
        cwd=settings.BASE_DIR,
        env={**os.environ, "VAR_DIR": str(tmp_path), "CONV_STORE_PRIMARY": PRETEND, "PRETEND_URL": ADDRESS},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


def test_a_third_store_needs_no_change_outside_the_stores(used: Any) -> None:
    """It is a primary with a fallback, and every command knows it."""
    assert (used["up"]["stored_in"], used["up"]["store"]) == ([PRETEND], PRETEND)
    assert used["out"]["stored_in"] == ["mongo"]
    assert used["messages"] == dict.fromkeys(BOTH, 4)
    assert (used["reconcile"]["primary"], used["reconcile"][f"only_in_{PRETEND}"]) == (PRETEND, 1)
    assert [used["status"]["stores"][alias]["conversations"] for alias in BOTH] == [2, 1]
    assert used["status"]["stores"][PRETEND]["says"]["version"] == ADDRESS
    assert used["metrics"]["pretend_up"] == 1
    assert (used["metrics"]["store_errors_total"], used["metrics"]["history_persist_errors_total"]) == (1, 1)
    assert used["metrics"]["pretend_latency_p95_ms"] > 0
    assert used["schema"] == list(BOTH)
    assert (used["failover"]["code"], used["failover"]["copied"]) == (0, 1)
    assert (used["trim"]["stores"], used["trim"]["max_turns"]["turns"]) == (list(BOTH), 2)
    assert used["backup"]["snapshot"] == "none: no store in use has one"
    assert (used["verify"]["conversations"], used["verify"]["differing"]) == (dict.fromkeys(BOTH, 2), 0)
    assert used["to_memory"] == {"code": 2}  # neither keeps conversations in a memory that can be full
    assert (used["full"]["to_memory"]["used"], used["full"]["to_memory"]["moved_to_mongo"]) == (1000, 0)


def test_no_other_module_names_a_store() -> None:
    """What differs between stores is in their entries in BACKENDS, or a flag of their classes: a module that names one
    would have to change for another. Where Django needs it, add the module to MAY_NAME_ONE with the reason."""
    files = [path for top in ("conversations", "ops", "telemetry") for path in (settings.BASE_DIR / top).rglob("*.py")]
    found = {str(path.relative_to(settings.BASE_DIR)) for path in files if NAMED.search(path.read_text())}
    assert {name for name in found if not name.startswith("conversations/stores/")} == MAY_NAME_ONE
