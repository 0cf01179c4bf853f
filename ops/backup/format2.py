"""Backups of format 2: a ZIP of the conversations, a store's own snapshot where there is one, and the manifest, last.

Any tool reads it, ZIP64 where it is long. Its end is written last, so a file that was cut off has none.
"""

import errno
import io
import os
import struct
import zlib
from collections.abc import Iterator
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from ops.backup.container import CHUNK, MANIFEST, Container, Digest, dumps_in
from ops.backup.manifest import FOREIGN, MAX_MANIFEST, Member
from ops.errors import BadBackup

LINES = "conversations.jsonl"
_MAGIC = b"PK\3\4"
_NAME = 30  # where in the file the name of its first file is
_ENCRYPTED = 1
_DAMAGE = (BadZipFile, EOFError, zlib.error, struct.error, ValueError, RuntimeError)


class Zip(Container):
    """Looks at the directory at the file's end, of a file that may be encrypted."""

    version = 2
    lines = LINES

    def __init__(self, file: io.RawIOBase) -> None:
        self._file = _Bounded(file)
        try:
            self._zip = _opened(self._file)
            self._members = _members(self._zip)
        except BaseException:
            self._file.close()
            raise
        self.sizes = {name: member.file_size for name, member in self._members.items()}

    @classmethod
    def is_one(cls, begin: bytes) -> bool:
        """Return whether a file that begins so may be one."""
        return begin.startswith(_MAGIC) and begin[_NAME:].startswith(LINES.encode())

    def close(self) -> None:
        self._zip.close()
        self._file.close()

    def read_manifest(self) -> bytes:
        if self.sizes[MANIFEST] > MAX_MANIFEST:
            raise BadBackup("oversized: its manifest is too long to be one")
        return b"".join(self._chunks(MANIFEST))

    def content(self, name: str, member: Member) -> Iterator[bytes]:
        digest = Digest(name, member)
        for chunk in self._chunks(name):
            digest.update(chunk)
            yield chunk
        digest.check()

    def _chunks(self, name: str) -> Iterator[bytes]:
        left = self.sizes[name]
        try:
            with self._zip.open(self._members[name]) as file:
                while chunk := file.read(CHUNK):
                    left -= len(chunk)
                    yield chunk
        except _DAMAGE:
            raise BadBackup(f"damaged: {name} cannot be unpacked") from None
        if left:
            raise BadBackup(f"damaged: {name} has another length than in the directory")


class _Bounded(io.BufferedReader):
    """A file of which only so much can be read at a time, whatever lengths it states."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            here = self.tell()
            size = self.seek(0, os.SEEK_END) - here
            self.seek(here)
        if size > 2 * CHUNK:
            raise BadBackup("oversized: its directory is too long to be one")
        return super().read(max(0, size))


def _opened(file: _Bounded) -> ZipFile:
    try:
        return ZipFile(file)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a place before the file's begin
            raise
        raise BadBackup("truncated") from None
    except _DAMAGE:
        raise BadBackup("truncated") from None


def _members(opened: ZipFile) -> dict[str, ZipInfo]:
    """Return the files in the ZIP; raise BadBackup where they are not those of a backup."""
    members = {member.filename: member for member in opened.infolist()}
    names, given = set(members), opened.infolist()
    if opened.comment or len(given) != len(names) or names - set(dumps_in(names)) != {LINES, MANIFEST}:
        raise BadBackup("foreign: it holds something else than a backup does")
    for member in given:
        if member.flag_bits & _ENCRYPTED or member.compress_type not in (ZIP_DEFLATED, ZIP_STORED):
            raise BadBackup("foreign: it is packed as no backup is")
    places = [member.header_offset for member in given]
    if min(places) != 0 or members[MANIFEST].header_offset != max(places):
        raise BadBackup(FOREIGN)
    return members
