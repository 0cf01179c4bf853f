"""The journal of a killed process is recovered once, and only after the process has ended."""

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from conversations.runtime.journal import Journal

_WRITES = """
import sys, time, pathlib
from conversations.runtime.journal import Journal
with Journal(pathlib.Path(sys.argv[1])).writing("acme:s-1"):
    print("writing", flush=True)
    time.sleep(60)
"""


def recovered(journal: Journal) -> list[str]:
    found: list[str] = []
    assert journal.recover(found.append) == len(found)
    return found


def test_the_journal_of_a_killed_process_is_recovered_once(tmp_path: Path) -> None:
    ours = Journal(tmp_path)
    with subprocess.Popen([sys.executable, "-c", _WRITES, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"writing\n"
        assert recovered(ours) == []  # the process still runs
        process.kill()
    assert recovered(ours) == ["acme:s-1"]
    assert recovered(ours) == []


def test_a_journal_removed_between_open_and_lock_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, removed = fcntl.flock, []

    def remove_first(file: int, how: int) -> None:
        if not removed:
            removed.append(True)
            next(tmp_path.iterdir()).unlink()  # as a process does that recovers it
        lock(file, how)

    monkeypatch.setattr("conversations.runtime.journal.fcntl.flock", remove_first)
    ours = Journal(tmp_path)
    with ours.writing("s-1"):
        assert b"s-1" in next(tmp_path.iterdir()).read_bytes()
    ours.close()
    assert not list(tmp_path.iterdir())


def test_a_journal_stays_until_its_sessions_are_flagged(tmp_path: Path) -> None:
    (tmp_path / "1-gone").write_bytes(b"s-1".ljust(264, b"\0") + b"s-2".ljust(264, b"\0"))
    ours = Journal(tmp_path)

    def fail(session: str) -> None:
        raise OSError("the store is out")

    with pytest.raises(OSError, match="out"):
        ours.recover(fail)
    assert recovered(ours) == ["s-1", "s-2"]


def test_a_finished_write_is_removed_from_the_journal(tmp_path: Path) -> None:
    with Journal(tmp_path).writing("s-1"):
        assert b"s-1" in next(tmp_path.iterdir()).read_bytes()
    assert not any(next(tmp_path.iterdir()).read_bytes())


def test_a_write_without_a_free_slot_continues(tmp_path: Path) -> None:
    ours = Journal(tmp_path)
    ours._free.clear()
    with ours.writing("s-1"):
        assert not any(next(tmp_path.iterdir()).read_bytes())
