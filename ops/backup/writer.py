"""Writing a backup of format 2, encrypted where there are keys."""

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Self
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

from ops.backup.container import CHUNK, MANIFEST
from ops.backup.format2 import LINES
from ops.backup.keys import Keys
from ops.backup.manifest import Manifest, Member
from ops.backup.sealed import Sealing

_FAST = 1  # level 6 takes four times as long for a fifth less


class Writer:
    """Writes a backup under a temporary name, which its owner alone may read, and renames it when it is whole."""

    def __init__(self, folder: Path, created: datetime, keys: Keys | None = None, begin: str = "onesource-") -> None:
        self.path = folder / f"{begin}{created:%Y%m%dT%H%M%SZ}.zip{'.enc' if keys else ''}"
        self._draft = folder / f".onesource-{self.path.name}.part"
        self._file = os.fdopen(os.open(self._draft, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600), "w+b")
        self._sealing = Sealing(self._file, keys) if keys else None
        self._zip = ZipFile(self._sealing or self._file, "w", ZIP_DEFLATED, compresslevel=_FAST)
        self._files: dict[str, Member] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._zip.fp = None  # or it would write an end to what is not whole
        try:
            self._file.close()
        finally:  # closing a file on a full disk fails too
            self._draft.unlink(missing_ok=True)

    def add_lines(self, lines: Iterable[bytes]) -> None:
        """Write the conversations, compressed as they come."""
        number = 0
        with (
            _Open(self._zip, LINES) as member,
            ThreadPoolExecutor(1) as worker,  # zlib and SHA-256 release the GIL: the next lines are read meanwhile
        ):
            pending = bytearray()
            packing: Future[Any] = worker.submit(member.write, b"")
            for line in lines:
                number += 1
                pending += line
                if len(pending) > CHUNK:
                    packing.result()
                    packing = worker.submit(member.write, pending)
                    pending = bytearray()
            packing.result()
            member.write(pending)
        self._files[LINES] = replace(member.result(), lines=number)

    def add(self, name: str, source: BinaryIO) -> None:
        """Write a file as it is."""
        with _Open(self._zip, name, ZIP_STORED) as member:
            while chunk := source.read(CHUNK):
                member.write(chunk)
        self._files[name] = member.result()

    def finish(self, manifest: Manifest) -> int:
        """Write the manifest, which gets its files, and let the backup appear, whole and on disk; return its size."""
        self._zip.writestr(MANIFEST, replace(manifest, files=self._files).as_bytes())
        self._zip.close()
        if self._sealing:
            self._sealing.finish()
        self._file.flush()
        os.fsync(self._file.fileno())
        size = os.fstat(self._file.fileno()).st_size
        self._draft.rename(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return size


class _Open:
    """One file of the ZIP that is being written."""

    def __init__(self, archive: ZipFile, name: str, kind: int = ZIP_DEFLATED) -> None:
        info = ZipInfo(name)
        info.compress_type, info.external_attr = kind, 0o600 << 16
        self._member = archive.open(info if kind == ZIP_STORED else name, "w", force_zip64=True)
        self._size, self._hash = 0, hashlib.sha256()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._member.close()

    def write(self, data: bytes | bytearray) -> None:
        self._member.write(data)
        self._hash.update(data)
        self._size += len(data)

    def result(self) -> Member:
        return Member(self._size, self._hash.hexdigest())
