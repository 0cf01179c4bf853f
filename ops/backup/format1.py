"""Backups of format 1, which earlier versions made: a tar of gzipped conversations. They are read, and not written."""

import os
import tarfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from ops.backup.container import CHUNK, DUMP, MANIFEST, Container, Digest
from ops.backup.manifest import FOREIGN, MAX_MANIFEST, Member
from ops.errors import BadBackup

_LINES = "conversations.jsonl.gz"
_BLOCK = tarfile.BLOCKSIZE


class Tar(Container):
    """Looks at the headers, one after another, without tarfile's own rules for what else they may hold."""

    version = 1
    lines = _LINES

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._places = self._look()
        self.sizes = {name: size for name, (_, size) in self._places.items()}

    @classmethod
    def is_one(cls, begin: bytes) -> bool:
        """Return whether a file that begins so may be one."""
        return begin.startswith(_LINES.encode() + b"\0")

    def close(self) -> None:
        self._file.close()

    def read_manifest(self) -> bytes:
        begin, size = self._places[MANIFEST]
        if size > MAX_MANIFEST:
            raise BadBackup("oversized: its manifest is too long to be one")
        self._file.seek(begin)
        return self._file.read(size)

    def content(self, name: str, member: Member) -> Iterator[bytes]:
        digest = Digest(name, member)
        packed = self._packed(name, digest)
        yield from _unpacked(name, packed) if name == _LINES else packed
        for _ in packed:  # what follows the end of what is packed
            pass
        digest.check()

    def _packed(self, name: str, digest: Digest) -> Iterator[bytes]:
        position, left = self._places[name]
        while left:
            self._file.seek(position)
            if not (data := self._file.read(min(left, CHUNK))):
                raise BadBackup("truncated")
            position, left = position + len(data), left - len(data)
            digest.update(data)
            yield data

    def _look(self) -> dict[str, tuple[int, int]]:
        """Return where in the file each of its files begins, and how long it is."""
        end = self._file.seek(0, os.SEEK_END)
        position, places = 0, dict[str, tuple[int, int]]()
        while True:
            self._file.seek(position)
            block = self._file.read(_BLOCK)
            if block == bytes(_BLOCK) and MANIFEST in places and _LINES in places:
                return places
            try:
                info = tarfile.TarInfo.frombuf(block, "ascii", "strict")
            except (tarfile.HeaderError, UnicodeError, ValueError):
                raise BadBackup("truncated" if places else FOREIGN) from None
            if info.name not in (_LINES, DUMP, MANIFEST) or info.name in places or info.type != tarfile.REGTYPE:
                raise BadBackup("foreign: it holds something else than a backup does")
            places[info.name] = (position + _BLOCK, info.size)
            position += _BLOCK + -(-info.size // _BLOCK) * _BLOCK
            if info.size < 0 or position > end:
                raise BadBackup("truncated")


def _unpacked(name: str, packed: Iterator[bytes]) -> Iterator[bytes]:
    """Yield what is packed by gzip, by the chunk."""
    unpacking = zlib.decompressobj(31)
    try:
        while not unpacking.eof:
            data = unpacking.unconsumed_tail or next(packed, b"")
            if not data:
                raise EOFError
            if chunk := unpacking.decompress(data, CHUNK):
                yield chunk
    except (EOFError, zlib.error):
        raise BadBackup(f"damaged: {name} cannot be unpacked") from None
