"""The keys that encrypt backups: a file with a key a line, the newest first, named by BACKUP_KEY_FILE.

Only the commands that make or read a backup read it. No other process has the keys in its memory.
"""

import os
import re
import stat
from pathlib import Path

from django.conf import settings

from ops.errors import BadKeys

_LINE = re.compile(r"([A-Za-z0-9_-]{1,32}):([0-9a-f]{64})")
_MOST_BYTES = 16_384
_LEAST_DIFFERENT = 5  # hex digits: fewer were typed, not drawn

Keys = dict[str, bytes]
"""Keys by their ids, in the order of the file: the first encrypts, all decrypt."""


def known() -> Keys:
    """Return the keys, none where the variable is unset. Raise BadKeys, which quotes nothing of the file."""
    if not settings.BACKUP_KEY_FILE:
        return {}
    path = Path(settings.BACKUP_KEY_FILE)
    try:
        return _parsed(_read(path))
    except OSError as error:
        raise BadKeys(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise BadKeys(f"{path}: {error}") from None


def _read(path: Path) -> str:
    """Return what is in the file; raise OSError, or ValueError where it is none that holds keys."""
    with open(path, "rb", opener=_without_waiting) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is no file")
        if found.st_mode & stat.S_IRWXO:
            raise ValueError("every user of this machine may use it; take that away with chmod o-rwx")
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise ValueError(f"it has more than {_MOST_BYTES:,} bytes")
    try:
        return data.decode("ascii")
    except UnicodeDecodeError:
        raise ValueError("it is no ASCII text") from None


def _without_waiting(path: str, flags: int) -> int:
    """Open the file; a pipe without a writer would wait for one."""
    return os.open(path, flags | os.O_NONBLOCK)


def _parsed(text: str) -> Keys:
    """Return the keys of the lines; raise ValueError, with the number of a line and nothing of it."""
    keys = Keys()
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        match = _LINE.fullmatch(line)
        if not match:
            raise ValueError(
                f"line {number} must look like id:key, with an id of 1 to 32 of the characters A-Z a-z 0-9 _ - and a"
                " key of 64 of the characters 0-9 a-f, as `openssl rand -hex 32` prints"
            )
        name, key = match.groups()
        if name in keys:
            raise ValueError(f"line {number} has the id of a line before it")
        if len(set(key)) < _LEAST_DIFFERENT:
            raise ValueError(f"the key of line {number} is not random")
        keys[name] = bytes.fromhex(key)
    return keys
