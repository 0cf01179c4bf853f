"""Container: the files that a backup is made of, in whatever they are packed.

They are read as if a stranger had made them: nothing is unpacked to disk, and every length is bounded before it is
read.
"""

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar

from ops.backup.manifest import Member
from ops.errors import BadBackup

DUMP, MANIFEST = "dump.rdb", "manifest.json"
_DUMP = re.compile(r"dump(-(?P<number>[1-9][0-9]{0,3}))?\.rdb")
CHUNK = 2**20  # bytes; smaller ones are handed over so often that a thread waits more for the interpreter than it works


def dump_named(number: int) -> str:
    """Return the name of the file with the snapshot of that server of a store, which are counted from 1."""
    return DUMP if number == 1 else f"dump-{number}.rdb"


def dumps_in(names: Iterable[str]) -> list[str]:
    """Return the names that are those of snapshots, in their order."""
    found = {name: _DUMP.fullmatch(name) for name in names}
    numbers = {name: int(match["number"] or 1) for name, match in found.items() if match}
    return sorted((name for name, number in numbers.items() if name == dump_named(number)), key=numbers.__getitem__)


class Container(ABC):
    """Raise BadBackup where it is not whole, or not ours."""

    version: ClassVar[int]
    lines: ClassVar[str]
    """The name of the file with the conversations."""
    sizes: Mapping[str, int]
    """The bytes of each file, as its manifest has them."""

    @abstractmethod
    def read_manifest(self) -> bytes:
        """Return the manifest, which is not longer than MAX_MANIFEST."""

    @abstractmethod
    def content(self, name: str, member: Member) -> Iterator[bytes]:
        """Yield what a file holds, unpacked, by chunks; raise BadBackup, at the latest after the last one, where it is
        not as its manifest has it."""

    @abstractmethod
    def close(self) -> None:
        """Close the file."""


class Digest:
    """The SHA-256 of what was read."""

    def __init__(self, name: str, member: Member) -> None:
        self._name, self._wanted, self._hash = name, member.sha256, hashlib.sha256()

    def update(self, data: bytes) -> None:
        self._hash.update(data)

    def check(self) -> None:
        """Raise BadBackup where it is not the manifest's."""
        if self._hash.hexdigest() != self._wanted:
            raise BadBackup(f"damaged: {self._name} has another SHA-256 than in the manifest")
