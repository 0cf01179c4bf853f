"""What a process does at its start delays every command."""

import subprocess
import sys

import pytest

_STARTS = """
import ctypes.util, sys
ctypes.util.find_library = lambda name: sys.exit(f"looked for {name}")
import django
django.setup()
from django.db import connections
print(connections["mongo"].vendor)
"""


def test_no_process_looks_for_gdal() -> None:
    done = subprocess.run([sys.executable, "-c", _STARTS], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("mongodb", "")


def test_an_operators_command_does_not_import_the_api() -> None:
    code = "import django, sys; django.setup(); import ops.management.commands.status as _; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "rest_framework.views" not in done.stdout.split()


def test_an_operators_command_loads_the_http_client_only_where_it_asks_a_server() -> None:
    code = "import django, sys; django.setup(); import ops.management.commands.status as _; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "httpx" not in done.stdout.split()


@pytest.mark.parametrize(("end", "waits"), [("pass", "waits"), ("end_at_once()", "")])
def test_an_operators_command_does_not_wait_at_its_end_for_the_drivers_threads(end: str, waits: str) -> None:
    """Without it the driver does, so that this fails when a release of it stops them in another way."""
    code = f"""
import django; django.setup()
from pymongo.synchronous import monitor
from ops.management.base import end_at_once
monitor._shutdown_executors = lambda: print("waits")
{end}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == waits
