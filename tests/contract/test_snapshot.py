"""Redis' own snapshot, as a backup asks for it: see conversations/stores/__init__.py."""

import errno
from pathlib import Path

import pytest

from conversations.errors import BadSnapshot, NoSnapshot
from conversations.stores import REDIS, count_keys, open_snapshots
from tests import environment

OUT = "ConnectionError|MasterNotFoundError"  # the latter of sentinels


def test_it_is_what_redis_saved_and_its_keys_can_be_counted(tmp_path: Path) -> None:
    with environment.REDIS.client() as client:
        client.set("snapshot-test", "1")
    copy, keys = tmp_path / "copy", 0
    for opened in open_snapshots(REDIS, tmp_path):
        with opened as (snapshot, how):
            copy.write_bytes(snapshot.read())
        assert how == "copied from the disk of the server"
        keys += count_keys(REDIS, copy) or 0
    assert keys > 0


def test_what_fails_while_it_is_read_is_not_the_stores_fault(tmp_path: Path) -> None:
    """A full disk must end the backup, not leave half of a snapshot in it."""
    with pytest.raises(OSError, match="No space left"), open_snapshots(REDIS, tmp_path)[0]:
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_without_redis_there_is_none(tmp_path: Path) -> None:
    environment.REDIS.kill()
    try:
        with pytest.raises(NoSnapshot, match=OUT), open_snapshots(REDIS, tmp_path)[0]:
            pass
    finally:
        environment.REDIS.start()


def test_what_is_no_snapshot_is_bad(tmp_path: Path) -> None:
    (tmp_path / "dump").write_bytes(b"REDIS0011 and nothing that Redis wrote")
    with pytest.raises(BadSnapshot):
        count_keys(REDIS, tmp_path / "dump")
