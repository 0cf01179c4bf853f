"""What a killed process leaves behind is found, once, and only when it is gone."""

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


def test_a_process_that_is_killed_leaves_what_it_was_writing(tmp_path: Path) -> None:
    ours = Journal(tmp_path)
    with subprocess.Popen([sys.executable, "-c", _WRITES, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"writing\n"
        assert recovered(ours) == []  # it lives
        process.kill()
    assert recovered(ours) == ["acme:s-1"]
    assert recovered(ours) == []


def test_a_page_that_is_taken_for_a_dead_ones_as_it_is_made_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, looked = fcntl.flock, []

    def look_first(file: int, how: int) -> None:
        if not looked:
            looked.append(True)
            next(tmp_path.iterdir()).unlink()  # as whoever adopts it does
        lock(file, how)

    monkeypatch.setattr("conversations.runtime.journal.fcntl.flock", look_first)
    ours = Journal(tmp_path)
    with ours.writing("s-1"):
        assert b"s-1" in next(tmp_path.iterdir()).read_bytes()
    ours.close()
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_marked_now_is_marked_later(tmp_path: Path) -> None:
    (tmp_path / "1-gone").write_bytes(b"s-1".ljust(264, b"\0") + b"s-2".ljust(264, b"\0"))
    ours = Journal(tmp_path)

    def fail(session: str) -> None:
        raise OSError("the store is out")

    with pytest.raises(OSError, match="out"):
        ours.recover(fail)
    assert recovered(ours) == ["s-1", "s-2"]


def test_what_was_written_is_under_way_no_more(tmp_path: Path) -> None:
    with Journal(tmp_path).writing("s-1"):
        assert b"s-1" in next(tmp_path.iterdir()).read_bytes()
    assert not any(next(tmp_path.iterdir()).read_bytes())


def test_more_at_a_time_than_there_is_room_for_go_on(tmp_path: Path) -> None:
    ours = Journal(tmp_path)
    ours._free.clear()
    with ours.writing("s-1"):
        assert not any(next(tmp_path.iterdir()).read_bytes())
