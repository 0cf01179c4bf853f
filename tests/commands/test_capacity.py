"""`manage.py capacity`: a short plan, the same for machines, and one line that names what is wrong."""

import pytest

from tests.commands.working import run, run_json

ASKED = ("capacity", "--conversations", "1e9", "--asks-per-second", "1e5")


@pytest.mark.parametrize("word", ["1e9", "1000000000", "1.0E+9", "1000000000.0"])
def test_a_billion_may_be_written_as_people_write_it(word: str) -> None:
    _, report = run_json("capacity", "--conversations", word, "--asks-per-second", "0.5", "--tenants", "1e5")
    assert report["demand"]["conversations"] == 10**9
    assert report["demand"]["asks_per_second"] == 0.5


def test_what_no_number_of_nodes_carries_is_trouble() -> None:
    code, output = run(*ASKED)
    assert code == 1
    assert output.splitlines()[-1].startswith("more nodes do not carry it: ")
    for part in ("1,000,000,000 conversations", "Needed", "Ends first", "Next", "tenants: 1;"):
        assert part in output
    assert len(output.splitlines()) < 32, "it is to be read at a glance"
    assert max(map(len, output.splitlines()[:-1])) <= 160


def test_what_is_carried_is_fine() -> None:
    code, output = run("capacity", "--conversations", "1e5", "--asks-per-second", "50")
    assert code == 0
    assert "a master with two replicas" in output
    assert "deploy/k8s/overlays/sentinel" in output


def test_machines_get_what_people_do() -> None:
    code, report = run_json(*ASKED)
    assert code == 1
    assert report["redis"]["servers"] == 2 * report["redis"]["number"] > 6
    assert report["redis_bytes"] == 10**9 * report["redis_each"] + report["redis_keys"]
    assert report["ends_first"]["used"] == max(share["used"] for share in report["limits"])


# Each option with what it does not take.
BAD = [
    ("--conversations", each)
    for each in ("nan", "inf", "-inf", "-1", "0", "1.5", "1e13", "1e999999999", "1" * 30, "", "x", "1_0", "٣")
] + [
    ("--asks-per-second", "0"), ("--asks-per-second", "-1"), ("--asks-per-second", "1e9"), ("--asks-per-second", "nan"),
    ("--messages", "0"), ("--messages", "1e6"), ("--bytes-per-message", "0"), ("--bytes-per-message", "1e7"),
    ("--tenants", "0"), ("--node-cores", "0"), ("--node-memory", "0"), ("--node-disk", "-1"), ("--node-network", "0"),
]  # fmt: skip


@pytest.mark.parametrize(("option", "value"), BAD)
def test_a_bad_number_is_named_with_its_option(option: str, value: str) -> None:
    code, output = run(*ASKED, f"{option}={value}")
    assert code != 0
    assert f"argument {option}: {value[:24]!r}"[:-1] in output
    assert len(output) < 400


@pytest.mark.parametrize("option", ["--conversations", "--asks-per-second"])
def test_both_numbers_are_needed(option: str) -> None:
    other = {"--conversations": "--asks-per-second"}.get(option, "--conversations")
    code, output = run("capacity", other, "5")
    assert code != 0
    assert option in output


def test_the_largest_and_the_smallest_are_planned() -> None:
    assert run("capacity", "--conversations", "1", "--asks-per-second", "1e-9")[0] == 0
    largest = ("--conversations=1e12", "--asks-per-second=1e8", "--messages=1e5", "--bytes-per-message=1e6")
    least = ("--node-cores=1", "--node-memory=1", "--node-disk=1", "--node-network=0.001")
    assert run("capacity", *largest, *least)[0] == 1
