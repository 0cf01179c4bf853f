"""Plays of a few plans; `python -m tests.simulation --count N` plays others each time."""

import subprocess
import sys

import pytest

from tests.deploy.files import ROOT

COUNT = 100


@pytest.mark.parametrize("seed", [1, 2001])
def test_no_promise_is_broken(seed: int) -> None:
    play("--seed", str(seed))


def test_a_turn_of_an_unknown_outcome_is_stored_once() -> None:
    """Its client asks again with the key it was given."""
    play("--seed", "1", "--unconfirmed")


def play(*options: str) -> None:
    command = [sys.executable, "-m", "tests.simulation", "--count", str(COUNT), *options]
    played = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert played.returncode == 0, played.stdout + played.stderr
