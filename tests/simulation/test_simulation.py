"""Plays of 2,000 plans, others for each version of the code, of kept ones, and of rules that are broken on purpose.

`python -m tests.simulation --count N` plays others each time.
"""

import hashlib
import subprocess
import sys

import pytest

from tests.deploy.files import ROOT
from tests.simulation.breaks import BREAKS
from tests.simulation.kept import KEPT

BLOCKS, COUNT = 4, 500
MOST = 2_000  # plans in which a broken rule must be found
MOST_REQUESTS = 15  # of such a plan, made smaller: most have one to three


def first_seed() -> int:
    """Return a seed that is new with every change of the code, and the same for everybody who has that code."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "conversations").rglob("*.py")):
        digest.update(path.read_bytes())
    return int.from_bytes(digest.digest()[:4], "big")


@pytest.mark.parametrize("block", range(BLOCKS))
def test_no_promise_is_broken(block: int) -> None:
    played = play("--count", str(COUNT), "--seed", str(first_seed() + block * COUNT))
    assert played.returncode == 0, played.stdout + played.stderr


def test_a_turn_of_an_unknown_outcome_is_stored_once() -> None:
    """Its client asks again with the key it was given."""
    played = play("--count", "100", "--seed", "1", "--unconfirmed")
    assert played.returncode == 0, played.stdout + played.stderr


@pytest.mark.parametrize("rule", BREAKS)
def test_a_broken_rule_is_found(rule: str) -> None:
    unconfirmed = ["--unconfirmed"] if rule.startswith(("7 ", "15 ")) else []
    played = play("--count", str(MOST), "--seed", "5000", "--broken", rule, *unconfirmed)
    assert played.returncode == 1, played.stdout + played.stderr
    assert " 1 violating" in played.stdout, played.stdout + played.stderr
    assert played.stdout.count("Request(") <= MOST_REQUESTS, played.stdout


def test_processes_side_by_side_find_the_same() -> None:
    options = ("--count", "100", "--seed", "5000", "--broken", "10 deletions leave no tombstone")
    one, two = play(*options), play(*options, "--jobs", "2")
    assert (one.returncode, one.stdout.splitlines()[:-2]) == (two.returncode, two.stdout.splitlines()[:-2])


@pytest.mark.parametrize("name", KEPT)
def test_a_kept_plan_breaks_no_promise(name: str) -> None:
    played = play("--kept", name)
    assert played.returncode == 0, played.stdout + played.stderr


@pytest.mark.parametrize(("name", "rule"), [(name, kept.rule) for name, kept in KEPT.items() if kept.rule])
def test_a_kept_plan_finds_its_rule_broken(name: str, rule: str) -> None:
    played = play("--kept", name, "--broken", rule)
    assert played.returncode == 1, played.stdout + played.stderr
    assert " 1 violating" in played.stdout, played.stdout + played.stderr


def play(*options: str) -> "subprocess.CompletedProcess[str]":
    """Play in one process: other tests run beside this one."""
    command = [sys.executable, "-m", "tests.simulation", "--jobs", "1", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
