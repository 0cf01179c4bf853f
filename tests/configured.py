"""The settings of a process with an environment of its own: they are read once a process."""

import json
import os
import subprocess
import sys
from typing import Any

from tests.deploy.files import ROOT

LONG_SECRET = "only for tests: as long as the start of the service wants it"  # noqa: S105
DEPLOYED = {"REDIS_URL": "redis://r:6379/0", "MONGO_URL": "mongodb://m:27017/onesource", "SECRET_KEY": LONG_SECRET}
_SHOW = "print(json.dumps({name: value for name, value in vars(s).items() if name.isupper()}, default=str))"


def run(*command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run Python with this environment and nothing else."""
    return subprocess.run(
        [sys.executable, *command],
        env={"PATH": os.environ["PATH"], **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def settings_with(**environment: str) -> dict[str, Any]:
    """Return the settings of a process with this environment and nothing else."""
    done = run("-c", f"import json; from onesource import settings as s; {_SHOW}", **environment)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found
