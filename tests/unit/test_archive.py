"""How a backup is read, beside what the commands' tests show of it."""

import gzip
import io
from functools import partial

import pytest

from conversations.stores import REDIS
from conversations.turns import History
from ops.backup import archive, format1
from ops.backup.record import Record, in_batches, likeness
from ops.errors import BadBackup


def records(*sizes: int) -> list[Record]:
    return [Record(REDIS, f"s-{number}", None, None, History(), size) for number, size in enumerate(sizes)]


def test_a_batch_has_so_many() -> None:
    assert [len(batch) for batch in in_batches(records(*[100] * 7), 3)] == [3, 3, 1]


def test_a_batch_of_long_ones_has_fewer_and_none_is_lost() -> None:
    all_of_them = records(100, 100, 20_000, 100, 20_000, 20_000)
    batches = list(in_batches(all_of_them, 3))
    assert [len(batch) for batch in batches] == [3, 2, 1]
    assert [record for batch in batches for record in batch] == all_of_them


def unpacked(data: bytes) -> list[bytes]:
    """Return the lines of a file of format 1, which is read by the chunk."""
    packed = iter(partial(io.BytesIO(data).read, format1.CHUNK), b"")
    return list(archive._lines(format1._unpacked("a file", packed)))


def test_lines_are_whole_wherever_a_chunk_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [b"x" * length + b"\n" for length in range(40)] + [b"the last one has no end"]
    packed = gzip.compress(b"".join(lines))
    for chunk in (1, 2, 7, 1000):
        monkeypatch.setattr(format1, "CHUNK", chunk)
        assert unpacked(packed) == lines


def test_of_a_line_that_is_too_long_only_the_beginning_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(format1, "CHUNK", 10)
    monkeypatch.setattr(archive, "MAX_LINE", 25)
    whole, begin = unpacked(gzip.compress(b"short\n" + b"x" * 10_000))
    assert (whole, 25 < len(begin) <= 25 + 10) == (b"short\n", True)


@pytest.mark.parametrize("kept", [slice(0, -9), slice(0, 5)])
def test_what_is_cut_off_is_damage(kept: slice) -> None:
    with pytest.raises(BadBackup):
        unpacked(gzip.compress(b"a line\n" * 100)[kept])


def test_what_was_changed_is_damage() -> None:
    packed = bytearray(gzip.compress(b"a line\n" * 100))
    packed[-6] ^= 1  # of its check sum
    with pytest.raises(BadBackup):
        unpacked(bytes(packed))


def test_lines_are_alike_with_the_same_turns_and_about_the_same_ttl() -> None:
    line = b'{"store":"redis","session":"s-1","ttl":1000000,"tombstone":null,"messages":[{"role":"user"}]}\n'
    assert (
        likeness(line) == likeness(line.replace(b"redis", b"mongo")) == likeness(line.replace(b"1000000", b"1000009"))
    )
    for old, new in ((b"s-1", b"s-2"), (b"1000000", b"2000000"), (b"user", b"uses"), (b"null", b"none")):
        assert likeness(line) != likeness(line.replace(old, new))
