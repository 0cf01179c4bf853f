"""The ledger of deletions as a file beside the archives, which outlives both stores and `default`.

Its first line has the period in which it knows of every deletion; each further line is one deletion.
"""

import os
from datetime import datetime
from pathlib import Path

import orjson

from conversations.ids import stamp
from conversations.runtime import deletions
from ops import ledger
from ops.ledger import Ledger, Period

NAME = "deletions.jsonl"
_DRAFT = f".onesource-{NAME}.part"
_FORMAT, _VERSION = "onesource-deletions", 1


def gather(folder: Path) -> Ledger:
    """Return what `default`, the lines here and the file in the folder know."""
    found = ledger.known()
    with_file(found, folder)
    return found


def with_file(found: Ledger, folder: Path) -> None:
    """Add what the file in the folder knows; nothing where there is none, or it is none of ours."""
    try:
        with (folder / NAME).open("rb") as file:
            if (period := _period(file.readline(1024))) is None:
                return
            found.add(deletions.read(file))
    except FileNotFoundError:
        return
    found.periods.append(period)


def write(folder: Path, found: Ledger, created: datetime) -> None:
    """Write the file: whole and on disk, or as it was before. Raise OSError."""
    since, until = _newest(found, created)
    head = {"format": _FORMAT, "version": _VERSION, "since": stamp(since), "until": stamp(until)}
    draft = folder / _DRAFT
    draft.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(orjson.dumps(head) + b"\n")
            file.writelines(one.line() for one in found.deletions.values())
            file.flush()
            os.fsync(file.fileno())
        draft.rename(folder / NAME)
    finally:
        draft.unlink(missing_ok=True)


def _newest(found: Ledger, created: datetime) -> Period:
    """Return the newest period without a gap: what a restore needs ends with its own time."""
    since, until = max(found.periods, key=lambda period: period[1], default=(created, created))
    for earlier, later in sorted(found.periods, reverse=True):
        if earlier < since <= later:
            since = earlier
    return since, until


def _period(line: bytes) -> Period | None:
    """Return the period of a first line, None where it is none of ours or of a later version."""
    try:
        fields = orjson.loads(line)
        if (fields["format"], fields["version"]) != (_FORMAT, _VERSION):
            return None
        since, until = (datetime.fromisoformat(fields[name]) for name in ("since", "until"))
    except (ValueError, TypeError, KeyError):
        return None
    return (since, until) if since.tzinfo and until.tzinfo else None
