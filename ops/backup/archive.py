"""A backup that is read: its format, its manifest, and its conversations one after another."""

import io
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Self

import orjson

from conversations.stores import BACKENDS, snapshot_store
from ops.backup import keys, sealed
from ops.backup.container import MANIFEST, Container, dumps_in
from ops.backup.format1 import Tar
from ops.backup.format2 import Zip
from ops.backup.manifest import FOREIGN, Manifest
from ops.backup.record import MAX_LINE, Record, likeness
from ops.errors import BadBackup, CannotRead
from ops.long_work import prefetched

_BEGIN = 64  # bytes, which show what the file is
_NOT_ENCRYPTED = (
    "not encrypted, so nothing shows who made it. One of before there were keys is taken where this command runs with"
    " an empty BACKUP_KEY_FILE"
)


class Archive:
    """A backup opened for reading; raise BadBackup where it is not whole, not ours, or from a later version, and where
    there are keys and it is not encrypted with one of them; `plain` ones are opened all the same. Raise CannotRead
    where there is no such file, or none that can be read."""

    def __init__(self, path: Path, *, plain: bool = False) -> None:
        self._container, self._sealed = _opened(path, plain)
        self._repeats: set[int] | None = None
        try:
            self.manifest = Manifest.parse(self._container.read_manifest())
            self._check()
        except BaseException:
            self._container.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._container.close()

    @property
    def lines(self) -> int:
        return self.manifest.files[self._container.lines].lines or 0

    @property
    def dumps(self) -> list[str]:
        """The names of the snapshots: of each server of the store, where that consists of several."""
        return dumps_in(self._container.sizes)

    def age(self, now: datetime) -> int:
        """Return how many seconds ago it was made."""
        return max(0, int((now - self.manifest.created.astimezone(UTC)).total_seconds()))

    def records(self, *, once: bool = False) -> Iterator[Record]:
        """Return every conversation, with `once` leaving out those whose turns the other store's record had; raise
        BadBackup, at the latest after the last, where any of it is damaged."""
        if not once:
            yield from (self.parse(number, line) for number, line in enumerate(self.raw(), 1))
            return
        for number, line, again in self._compared():
            if not again:
                yield self.parse(number, line)

    def heads(self) -> Iterator[Record]:
        """Return every conversation as `records` does, every byte of it checked, but without its messages where
        the other store's record had the same."""
        for number, line, again in self._compared():
            yield self.parse(number, line, known=again)

    def _compared(self) -> Iterator[tuple[int, bytes, bool]]:
        """Return every line with its number, and whether one before it had the same."""
        if self._repeats is not None:
            yield from ((number, line, number in self._repeats) for number, line in enumerate(self.raw(), 1))
            return
        seen, repeats = set[bytes](), set[int]()
        for number, line in enumerate(self.raw(), 1):
            if (digest := likeness(line)) in seen:
                repeats.add(number)
            seen.add(digest)
            yield number, line, number in repeats
        self._repeats = repeats

    def parse(self, number: int, line: bytes, *, known: bool = False) -> Record:
        """Return the conversation of a line; raise BadBackup, which names the line, if it is none."""
        try:
            return Record.parse(line, known=known)
        except ValueError as error:
            reason = "not JSON" if isinstance(error, orjson.JSONDecodeError) else error
            raise BadBackup(f"damaged: line {number} of {self._container.lines}: {reason}") from None

    def raw(self) -> Iterator[bytes]:
        """Return every line; raise BadBackup as `records` does, but for what is in a line."""
        name = self._container.lines
        member = self.manifest.files[name]
        most = member.bytes if member.raw_bytes is None else member.raw_bytes
        number = size = 0
        # zlib releases the GIL: it unpacks while the lines before are read.
        with closing(prefetched(self._container.content(name, member))) as chunks:
            for line in _lines(chunks):
                number, size = number + 1, size + len(line)
                if len(line) > MAX_LINE or size > most:
                    raise BadBackup(f"oversized: line {number} is longer than the manifest allows")
                yield line
        if (number, size) != (member.lines, most):
            raise BadBackup(f"damaged: {name} has other lengths than in the manifest")

    def check_seal(self) -> None:
        """Return when every byte of the file is as it was encrypted, or the file is not encrypted; raise BadBackup."""
        if self._sealed:
            self._sealed.check()

    def check_dump(self) -> None:
        """Return when every snapshot is as it was written, or there is none."""
        for name in self.dumps:
            self.copy_dump(name, None)

    def copy_dump(self, name: str, target: BinaryIO | None) -> None:
        """Copy that snapshot out; raise BadBackup if it is not as it was written."""
        begin = b""
        for chunk in self._container.content(name, self.manifest.files[name]):
            begin = begin or chunk[:16]
            if target:
                target.write(chunk)
        alias = snapshot_store()
        if alias and not begin.startswith(BACKENDS[alias].snapshot_begin):
            raise BadBackup(f"damaged: {name} is no {BACKENDS[alias].label} snapshot")

    def _check(self) -> None:
        """Raise BadBackup where the manifest is not that of these files."""
        if self.manifest.version != self._container.version:
            raise BadBackup(FOREIGN)
        sizes = {name: member.bytes for name, member in self.manifest.files.items()}
        if sizes != {name: size for name, size in self._container.sizes.items() if name != MANIFEST}:
            raise BadBackup("damaged: a file in it has another length than in the manifest")
        if self.manifest.files[self._container.lines].lines is None:
            raise BadBackup("damaged: its manifest is not one")


def is_ours(path: Path) -> bool:
    """Return whether the file is a complete backup, as far as is known without reading it all."""
    with suppress(OSError, BadBackup, CannotRead), Archive(path, plain=True):
        return True
    return False


def _opened(path: Path, plain: bool) -> tuple[Container, sealed.Opened | None]:
    """Return the files of a backup of any format, and what decrypts them if anything does."""
    known = keys.known()
    with ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("rb", buffering=0))
        except OSError as error:
            raise CannotRead(f"{path}: {(error.strerror or str(error)).lower()}") from None
        begin = file.read(_BEGIN)
        file.seek(0)
        if sealed.is_one(begin):
            opened = stack.enter_context(sealed.Opened(io.BufferedReader(file), known))
            found: tuple[Container, sealed.Opened | None] = Zip(opened), opened
        elif not (Tar.is_one(begin) or Zip.is_one(begin)):
            raise BadBackup(FOREIGN)
        elif known and not plain:
            raise BadBackup(_NOT_ENCRYPTED)
        else:
            found = (Tar(io.BufferedReader(file)) if Tar.is_one(begin) else Zip(file)), None
        stack.pop_all()
        return found


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Return the lines, newlines included; of one that is too long only how it begins."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line + b"\n"
        if len(rest) > MAX_LINE:
            break
    if rest:
        yield rest
